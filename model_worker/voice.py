"""Text to speech, clause by clause: Piper or Kokoro on this machine, or any server with OpenAI's speech endpoint.

All voices give 16 kHz float32 mono. The ONNX graphs are run directly; no speech package is imported.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
import numpy.typing as npt

from calls.clauses import clauses
from calls.errors import OffhookError
from model_worker.onnx import open_session
from model_worker.phonemes import kokoro_tokens, phonemes, piper_tokens
from model_worker.spoken import spoken

Pcm = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
STYLES: Mapping[str, float] = {
    "normal": 1.0,
    "slow": 1.18,
    "quick": 0.88,
    # The emotions that a model may name. Pace is all that these voices can change.
    "happy": 0.95,
    "sad": 1.12,
    "angry": 1.0,
    "surprise": 0.95,
    "urgent": 0.88,
}
"""How long a sound lasts in each style, relative to the voice's own pace."""
_CACHE_S = 180.0  # seconds of speech kept: about 12 MB
_THRESHOLD = 0.01
_LEAD_S = 0.01
_PAUSE_S = {",": 0.12, ";": 0.15, ":": 0.15, ".": 0.25, "!": 0.25, "?": 0.25}


class VoiceError(OffhookError):
    """Speech could not be made."""


class Voice(Protocol):
    """What the cascade needs of a voice. Safe to call from several threads."""

    def say(self, text: str, *, style: str = "normal") -> Iterator[Pcm]:
        """Yield the speech of a text, a clause at a time: float32 [samples], 16 kHz mono. Raises `VoiceError`."""


class ClauseVoice(ABC):
    """What all voices share: words for numbers, clauses, a cache of what was said before, silence trimmed.

    The least recently said clauses are forgotten first; those given to `prepare` are kept for good.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Pcm] = {}
        self._recent: OrderedDict[tuple[str, str], Pcm] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def say(self, text: str, *, style: str = "normal") -> Iterator[Pcm]:
        """See `Voice.say`. Nothing is computed before the first piece is asked for."""
        if style not in STYLES:
            raise VoiceError(f"no speaking style {style!r}; there are {', '.join(STYLES)}")
        for clause in _parts(text):
            yield self._clause(clause, style)

    def prepare(self, texts: Iterable[str], *, style: str = "normal") -> None:
        """Synthesise fixed phrases (a greeting, "one moment") now and keep them, so that they cost nothing later."""
        for text in texts:
            for clause in _parts(text):
                self._kept[clause, style] = self._clause(clause, style)

    def _clause(self, clause: str, style: str) -> Pcm:
        key = (clause, style)
        with self._lock:
            known = self._kept.get(key)
            if known is None and key in self._recent:
                self._recent.move_to_end(key)
                known = self._recent[key]
        if known is not None:
            return known
        pcm = trim(self._synthesise(clause, STYLES[style]), _PAUSE_S.get(clause[-1], 0.05))
        pcm.setflags(write=False)  # it is shared with later callers
        with self._lock:
            if key not in self._recent:
                self._recent[key] = pcm
                self._held += len(pcm)
            while self._held > _CACHE_S * SAMPLE_RATE and len(self._recent) > 1:
                self._held -= len(self._recent.popitem(last=False)[1])
        return pcm

    @abstractmethod
    def _synthesise(self, clause: str, length: float) -> Pcm:
        """One clause at 16 kHz, untrimmed; `length` is how long a sound lasts relative to the voice's own pace."""


class PiperVoice(ClauseVoice):
    """A Piper voice (VITS, Kim et al. 2021): fast, plain. `directory` is `catalogue.path("piper-joe")`."""

    def __init__(self, directory: Path, *, threads: int = 1) -> None:
        super().__init__()
        graph = next(iter(sorted(directory.glob("*.onnx"))), None)
        if graph is None:
            raise VoiceError(f"no .onnx file in {directory}")
        config = json.loads(graph.with_name(f"{graph.name}.json").read_text(encoding="utf-8"))
        self._rate: int = config["audio"]["sample_rate"]
        self._language: str = config["espeak"]["voice"]
        self._table: dict[str, list[int]] = config["phoneme_id_map"]
        inference = config["inference"]
        self._noise, self._length, self._width = (inference[k] for k in ("noise_scale", "length_scale", "noise_w"))
        self._session = open_session(graph, threads)

    def _synthesise(self, clause: str, length: float) -> Pcm:
        ids, _ = piper_tokens(phonemes(clause, self._language), self._table)
        feed = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([self._noise, self._length * length, self._width], np.float32),
        }
        return resample(self._session.run(None, feed)[0].reshape(-1), self._rate)


class KokoroVoice(ClauseVoice):
    """Kokoro-82M: natural, many voices, three times the cost of Piper. `directory` is `catalogue.path("kokoro")`.

    `voice` is a name under `voices/`, or names with weights to blend: `{"af_heart": 0.6, "af_bella": 0.4}`. A name that
    begins with `b` is British.
    """

    _RATE = 24_000
    _MOST_TOKENS = 508  # the model's context less the zero at both ends

    def __init__(self, directory: Path, voice: str | Mapping[str, float] = "af_heart", *, threads: int = 2) -> None:
        super().__init__()
        blend = {voice: 1.0} if isinstance(voice, str) else voice
        packs = []
        for name, weight in blend.items():
            path = directory / "voices" / f"{name}.bin"
            if not path.is_file():
                there = sorted(p.stem for p in path.parent.glob("*.bin"))
                raise VoiceError(f"no voice {name!r}; there are {', '.join(there)}")
            packs.append(weight * np.fromfile(path, np.float32).reshape(-1, 256))
        self._styles: Pcm = np.stack(packs).sum(axis=0) / np.float32(sum(blend.values()))
        self._british = next(iter(blend)).startswith("b")
        self._session = open_session(directory / "model.onnx", threads)

    def _synthesise(self, clause: str, length: float) -> Pcm:
        ipa = phonemes(clause, "en-gb-x-rp" if self._british else "en-us")
        ids = kokoro_tokens(ipa, british=self._british)[0][: self._MOST_TOKENS]
        if not ids:
            return np.zeros(0, np.float32)
        feed = {
            self._session.get_inputs()[0].name: np.array([[0, *ids, 0]], np.int64),
            "style": self._styles[len(ids)][None],
            "speed": np.array([1.0 / length], np.float32),
        }
        return resample(self._session.run(None, feed)[0].reshape(-1), self._RATE)


class RemoteVoice(ClauseVoice):
    """Any server with OpenAI's `POST {base_url}/audio/speech` that can answer raw 16-bit PCM at `sample_rate`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        voice: str,
        *,
        api_key: str = "",
        sample_rate: int = 24_000,
        timeout_s: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        super().__init__()
        self._url = base_url.rstrip("/") + "/audio/speech"
        self._model, self._voice, self._rate = model, voice, sample_rate
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = client or httpx.Client(timeout=httpx.Timeout(timeout_s, connect=2.0))

    def _synthesise(self, clause: str, length: float) -> Pcm:
        request = {
            "model": self._model,
            "voice": self._voice,
            "input": clause,
            "response_format": "pcm",
            "speed": round(1.0 / length, 2),
        }
        try:
            response = self._client.post(self._url, json=request, headers=self._headers)
        except httpx.HTTPError as error:
            raise VoiceError(f"{self._url} cannot be used: {error or type(error).__name__}") from error
        if response.status_code != 200:
            raise VoiceError(f"{self._url} answered {response.status_code}: {response.text[:300]}")
        data = response.content[: len(response.content) // 2 * 2]
        return resample(np.frombuffer(data, "<i2").astype(np.float32) / 32768.0, self._rate)


def resample(pcm: Pcm, rate: int) -> Pcm:
    """A whole clause from `rate` to 16 kHz, by cutting its spectrum: exact, and a clause begins and ends in silence."""
    if rate == SAMPLE_RATE or len(pcm) < 2:
        return np.asarray(pcm, np.float32)
    length = round(len(pcm) * SAMPLE_RATE / rate)
    wanted: Pcm = (np.fft.irfft(np.fft.rfft(pcm), length) * (length / len(pcm))).astype(np.float32)
    return wanted


def _parts(text: str) -> Iterator[str]:
    """What is said of `text` in one go. The agent speaks clause by clause, so only a long one is cut again here."""
    for clause in clauses(spoken(text), begins=False):
        if any(character.isalnum() for character in clause):
            yield clause


def trim(pcm: Pcm, pause_s: float) -> Pcm:
    """Cut the silence before the first sound, and leave `pause_s` after the last. All silence gives no samples."""
    loud = np.flatnonzero(np.abs(pcm) > _THRESHOLD)
    if not len(loud):
        return np.zeros(0, np.float32)
    start = max(0, int(loud[0]) - int(_LEAD_S * SAMPLE_RATE))
    end = int(loud[-1]) + 1 + int(pause_s * SAMPLE_RATE)
    kept = pcm[start:end]
    return np.concatenate([kept, np.zeros(end - start - len(kept), np.float32)])
