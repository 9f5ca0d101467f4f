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
from model_worker.voice import ClauseVoice, KokoroVoice, PiperVoice, trim
from soundflow import espeak, whole
from soundflow.errors import SpeechError
from soundflow.items import SPLITS, Split

Pcm = npt.NDArray[np.float32]

_KEPT = 4_000  # utterances in memory
_VOICES_LOADED = 3
_TAIL_S = 0.02
_MOST_WRONG = 0.35  # share of words that a recogniser may hear otherwise
_RECOGNISER = "whisper-base"
_WORD = re.compile(r"[a-z']+")
_WEIGHT = re.compile(r"\d*\.?\d+")
_UNREADABLE = (wave.Error, EOFError, ValueError)


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
        for split in SPLITS:
            voices = self.voices(split)
            if not (isinstance(voices, tuple) and voices and all(isinstance(voice, str) for voice in voices)):
                given = [*voices] if isinstance(voices, tuple) else voices
                raise SpeechError(f"voices.{split} is {given!r}; it must be a list of voices, one at least")
        for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
            shared = parts_of(getattr(self, one)) & parts_of(getattr(self, other))
            if shared:
                raise SpeechError(f"voices in {one} and {other} both: {', '.join(sorted(shared))}")

    def foreign(self, language: str, split: Split) -> tuple[str, ...]:
        """Voices of another language."""
        variants = {"train": ("f2", "f4", "m1", "m3", "m5"), "dev": ("f3", "m2"), "test": ("f1", "m4")}[split]
        return tuple(f"espeak:{language}+{variant}" for variant in variants)


def parts_of(voices: Sequence[str]) -> set[str]:
    """What voices are made of, however fast or high they speak: no two splits may share it."""
    names: set[str] = set()
    for voice in voices:
        engine, _, name = voice.partition(":")
        for part in name.split("+") if engine == "kokoro" else [name]:
            names.add(f"{engine}:{re.split('[*@]', part)[0]}")
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
        """Know now, and not an hour into a build, that a voice is not there. Nothing is said for it.

        Raises SpeechError for a name that is no voice, with what there is instead, and without espeak-ng, which speaks
        by itself or tells the other voices their phonemes; ModelMissing, for all of them.
        """
        if voices:
            espeak.program()
        blends = {voice: _blend(voice) for voice in voices if _engine(voice) == "kokoro"}
        if of_espeak := [voice for voice in voices if _engine(voice) == "espeak"]:
            espeak.find(of_espeak)
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
        if blends:
            there = {path.stem for path in (catalogue.path("kokoro") / "voices").glob("*.bin")}
            for voice, blend in blends.items():
                if unknown := sorted(set(blend) - there):
                    raise SpeechError(
                        f"{voice}: Kokoro has no {', '.join(map(repr, unknown))}; it has {', '.join(sorted(there))}"
                    )

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
        """From memory, from disk, or now. Empty: it was not understood when it was made.

        What is damaged on disk is made again only where the same comes of it: espeak-ng's, if nothing judges it. Else
        it raises SpeechError, or a build that is resumed would come to other data without a word.
        """
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
        try:
            self._memory[key] = _load(path)  # what is kept, even if another process was faster
        except _UNREADABLE as error:
            if checked or _engine(voice) != "espeak":
                raise SpeechError(
                    f"{path} is damaged, and {voice} may not say the same again: remove it, and build into a new folder"
                ) from error
            whole.write(path, [_wav(self._make(text, voice))])
            self._memory[key] = _load(path)
        while len(self._memory) > _KEPT:
            self._memory.popitem(last=False)
        return self._memory[key]

    def _make(self, text: str, voice: str) -> Pcm:
        if _engine(voice) == "espeak":
            return espeak.say(text, voice.removeprefix("espeak:"))
        if voice not in self._loaded:
            self._loaded[voice] = self._load_voice(voice)
            while len(self._loaded) > _VOICES_LOADED:
                self._loaded.popitem(last=False)
        return np.concatenate([np.zeros(0, np.float32), *self._loaded[voice].say(text)])

    def _load_voice(self, voice: str) -> ClauseVoice:
        directory = Catalogue(self.models, dict(os.environ)).path(_model(voice))
        if _engine(voice) == "piper":
            return PiperVoice(directory)
        return KokoroVoice(directory, _blend(voice), threads=1)

    def _understood(self, pcm: Pcm, text: str) -> bool:
        if self._recogniser is None:
            self._recogniser = FinalRecogniser(Catalogue(self.models, dict(os.environ)).path(_RECOGNISER))
        return wrong_share(text, self._recogniser.transcribe(pcm).text) <= _MOST_WRONG


def _blend(voice: str) -> dict[str, float]:
    """Kokoro's voices and how much of each. Raises SpeechError."""
    blend = {}
    for part in voice.partition(":")[2].split("+"):
        name, star, weight = part.partition("*")
        if star and not (_WEIGHT.fullmatch(weight) and float(weight)):
            raise SpeechError(f"{voice}: {weight!r} of {name} is no weight; it must be a number above 0, as 0.5")
        blend[name] = float(weight or 1)
    return blend


def wrong_share(text: str, heard: str) -> float:
    """Word errors over the words of `text`: edit distance, numbers written out, case and marks ignored."""
    wanted, got = (_WORD.findall(spoken(words).lower().replace("-", " ")) for words in (text, heard))
    row = list(range(len(got) + 1))
    for number, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(got, 1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
    return row[-1] / max(1, len(wanted))


def _engine(voice: str) -> str:
    """Raises SpeechError."""
    engine = voice.partition(":")[0]
    if engine not in ("kokoro", "piper", "espeak"):
        raise SpeechError(f"no voice {voice!r}: kokoro:NAME, kokoro:NAME*0.5+NAME*0.5, piper:NAME or espeak:VARIANT")
    return engine


def _model(voice: str) -> str:
    """The catalogue's name of what a voice needs; "" if it needs nothing. Raises SpeechError."""
    return {"piper": f"piper-{voice.partition(':')[2]}", "kokoro": "kokoro", "espeak": ""}[_engine(voice)]


def _english(voice: str) -> bool:
    return not voice.startswith("espeak:") or voice.startswith("espeak:en")


def _keep(path: Path, pcm: Pcm) -> None:
    """Whole or not at all, also after a power cut; who comes second leaves what is there. Raises NotWritten."""
    mine = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        whole.write(mine, [_wav(pcm)])
        with suppress(FileExistsError):
            os.link(mine, path)
    except OSError as error:
        raise whole.not_written(path, error) from error
    finally:
        with suppress(OSError):
            mine.unlink(missing_ok=True)


def _wav(pcm: Pcm) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.rint(np.clip(pcm, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    return made.getvalue()


def _load(path: Path) -> Pcm:
    """Raises one of _UNREADABLE if the file is damaged, or shorter than it says."""
    with wave.open(str(path)) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        if len(data) != file.getnframes():
            raise EOFError
    return data.astype(np.float32) / 32768.0
