"""Speech in many voices, made once and kept on disk; checked by recognising it back.

A voice is a name: `kokoro:af_heart`, a blend `kokoro:af_heart*0.6+am_michael*0.4`, `piper:joe`, or `espeak:VARIANT`
(espeak-ng as a separate program: no weights, always the same samples, and any language: `espeak:es+f2`). Weights come
from the catalogue. A voice is a source: it is in one split only, and a blend has parts of its own split only.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import wave
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_worker.cascade.finals import FinalRecogniser
from model_worker.catalogue import Catalogue, ModelMissing
from model_worker.spoken import spoken
from model_worker.voice import ClauseVoice, KokoroVoice, PiperVoice, resample, trim
from soundflow.errors import SoundflowError
from soundflow.items import Split
from soundflow.whole import not_written

Pcm = npt.NDArray[np.float32]

_KEPT = 4_000  # utterances in memory
_VOICES_LOADED = 3
_TAIL_S = 0.02
_TIMEOUT_S = 20.0
_MOST_WRONG = 0.35  # share of words that a recogniser may hear otherwise
_RECOGNISER = "whisper-base"
_WORD = re.compile(r"[a-z']+")


class SpeechError(SoundflowError):
    """A voice is not there or could not speak."""


class NotUnderstood(SpeechError):
    """The voices spoke, and a recogniser heard something else.

    That is kept, so a run that is resumed meets it again. Nothing else may be replaced by other words: it might not
    happen again, and the same seed would make other data.
    """


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance: float32 [samples] at 16 kHz, in the voice that could say it."""

    pcm: Pcm
    voice: str


@dataclass(frozen=True)
class Cast:
    """Who speaks in which split: English voices by split, and for other languages espeak's variants by split."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    def voices(self, split: Split) -> tuple[str, ...]:
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]

    def __post_init__(self) -> None:
        for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
            shared = _parts(getattr(self, one)) & _parts(getattr(self, other))
            if shared:
                raise SpeechError(f"voices in {one} and {other} both: {', '.join(sorted(shared))}")
        if not (self.train and self.dev and self.test):
            raise SpeechError("each split needs a voice of its own")

    def foreign(self, language: str, split: Split) -> tuple[str, ...]:
        """Voices of another language."""
        variants = {"train": ("f2", "f4", "m1", "m3", "m5"), "dev": ("f3", "m2"), "test": ("f1", "m4")}[split]
        return tuple(f"espeak:{language}+{variant}" for variant in variants)


def _parts(voices: Sequence[str]) -> set[str]:
    """What voices are made of: no two splits may share it."""
    names: set[str] = set()
    for voice in voices:
        engine, _, name = voice.partition(":")
        for part in name.split("+") if engine == "kokoro" else [name]:
            names.add(f"{engine}:{part.split('*')[0]}")
    return names


class Speech:
    """Speaks and remembers. May be sent to another process, which then loads voices of its own."""

    def __init__(self, cache: Path, models: Path, *, check: bool = False) -> None:
        self.cache, self.models, self.check = cache, models, check
        self._open()

    def _open(self) -> None:
        self._loaded: OrderedDict[str, ClauseVoice] = OrderedDict()
        self._memory: OrderedDict[str, Pcm] = OrderedDict()
        self._recogniser: FinalRecogniser | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"cache": self.cache, "models": self.models, "check": self.check}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def ready(self, voices: Sequence[str]) -> None:
        """Know now, and not an hour into a build, that voices are not there. Raises ModelMissing, for all of them, and
        SpeechError without espeak-ng, which speaks by itself or tells the other voices their phonemes."""
        if voices:
            _program()
        catalogue = Catalogue(self.models, dict(os.environ))
        wanted = {model for voice in voices if (model := _model(voice))}
        if self.check and any(map(_english, voices)):
            wanted.add(_RECOGNISER)
        absent = []
        for model in sorted(wanted):
            try:
                catalogue.path(model)
            except ModelMissing as error:
                absent.append(str(error))
        if absent:
            raise ModelMissing("; ".join(absent))

    def say(self, text: str, voices: Sequence[str]) -> Said:
        """Have the first of the voices speak that is understood.

        Raises NotUnderstood if none is, SpeechError if one cannot speak, NotWritten if it cannot be kept.
        """
        for voice in voices:
            pcm = trim(self._said(text, voice), _TAIL_S)  # voices leave pauses of different lengths after a clause
            if len(pcm):
                return Said(pcm, voice)
        raise NotUnderstood(f"{text!r} was not understood in any of {', '.join(voices)}")

    def _said(self, text: str, voice: str) -> Pcm:
        """From memory, from disk, or now. Empty: it was not understood when it was made."""
        checked = self.check and _english(voice)
        key = hashlib.sha256(f"{voice}\n{checked}\n{text}".encode()).hexdigest()
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        path = self.cache / key[:2] / f"{key}.wav"
        if not path.is_file():
            pcm = self._make(text, voice)
            if checked and not self._understood(pcm, text):
                pcm = pcm[:0]
            _keep(path, pcm)
        self._memory[key] = _load(path)  # what is kept, even if another process was faster
        while len(self._memory) > _KEPT:
            self._memory.popitem(last=False)
        return self._memory[key]

    def _make(self, text: str, voice: str) -> Pcm:
        if voice.startswith("espeak:"):
            return espeak(text, voice.removeprefix("espeak:"))
        if voice not in self._loaded:
            self._loaded[voice] = self._load_voice(voice)
            while len(self._loaded) > _VOICES_LOADED:
                self._loaded.popitem(last=False)
        return np.concatenate([np.zeros(0, np.float32), *self._loaded[voice].say(text)])

    def _load_voice(self, voice: str) -> ClauseVoice:
        engine, _, name = voice.partition(":")
        catalogue = Catalogue(self.models, dict(os.environ))
        if engine == "piper":
            return PiperVoice(catalogue.path(_model(voice)))
        if engine == "kokoro":
            blend = {part.split("*")[0]: float(part.split("*")[1]) if "*" in part else 1.0 for part in name.split("+")}
            return KokoroVoice(catalogue.path(_model(voice)), blend, threads=1)
        raise SpeechError(f"no voice {voice!r}: kokoro:NAME, kokoro:NAME*0.5+NAME*0.5, piper:NAME or espeak:VARIANT")

    def _understood(self, pcm: Pcm, text: str) -> bool:
        if self._recogniser is None:
            self._recogniser = FinalRecogniser(Catalogue(self.models, dict(os.environ)).path(_RECOGNISER))
        return wrong_share(text, self._recogniser.transcribe(pcm).text) <= _MOST_WRONG


def espeak(text: str, variant: str) -> Pcm:
    """By espeak-ng, as a process of its own: `en-us+f3`, or with words a minute and pitch `en-us+f3@150,40`.

    Raises SpeechError.
    """
    program = _program()
    voice, _, manner = variant.partition("@")
    speed, _, pitch = (manner or "160,50").partition(",")
    command = [program, "-v", voice, "-s", speed, "-p", pitch or "50", "-b", "1", "--stdin", "--stdout"]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=True)
        with wave.open(io.BytesIO(done.stdout)) as file:
            rate = file.getframerate()
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2")  # a pipe's header says nothing of length
    except subprocess.TimeoutExpired as error:
        raise SpeechError(
            f"espeak-ng -v {voice} took longer than {_TIMEOUT_S:.0f} s. What is finished is kept: run the same command "
            "again, when the machine is less busy"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()[:200]
        raise SpeechError(f"espeak-ng -v {voice} failed with status {error.returncode}: {said}") from error
    except (wave.Error, EOFError) as error:
        raise SpeechError(f"espeak-ng -v {voice} wrote no sound for {text!r}") from error
    pcm = trim(resample(data.astype(np.float32) / 32768.0, rate), 0.05)
    if not len(pcm):
        raise SpeechError(f"espeak-ng -v {voice} said nothing of {text!r}")
    return pcm


def _program() -> str:
    program = shutil.which("espeak-ng")
    if program is None:
        raise SpeechError("there is no espeak-ng on PATH, and every voice needs it: apt install espeak-ng")
    return program


def wrong_share(text: str, heard: str) -> float:
    """Word errors over the words of `text`: edit distance, numbers written out, case and marks ignored."""
    wanted, got = (_WORD.findall(spoken(words).lower().replace("-", " ")) for words in (text, heard))
    row = list(range(len(got) + 1))
    for number, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(got, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
    return row[-1] / max(1, len(wanted))


def _model(voice: str) -> str:
    """The catalogue's name of what a voice needs; "" if it needs nothing."""
    engine, _, name = voice.partition(":")
    return {"piper": f"piper-{name}", "kokoro": "kokoro"}.get(engine, "")


def _english(voice: str) -> bool:
    return not voice.startswith("espeak:") or voice.startswith("espeak:en")


def _keep(path: Path, pcm: Pcm) -> None:
    """Whole or not at all; who comes second leaves what is there. Raises NotWritten."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(partial), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(np.rint(np.clip(pcm, -1.0, 1.0) * 32767).astype("<i2").tobytes())
        with suppress(FileExistsError):
            os.link(partial, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _load(path: Path) -> Pcm:
    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / 32768.0
