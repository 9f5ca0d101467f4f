"""The final transcript of an utterance, with word times: Whisper base through CTranslate2, int8.

Whisper was trained on 30 s windows; padding each utterance to 30 s makes a two-second one cost as much as a long one.
CTranslate2 takes shorter windows. Below about eight seconds the decoder tends to say the sentence again and again, so
short utterances are padded to that. Long audio is cut at its pauses, because without timestamps Whisper skips parts of
a full window.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
import tokenizers

from model_worker.cascade.mel import HOP, SAMPLE_RATE, log_mel
from model_worker.cascade.partials import loop_start
from model_worker.cascade.threads import niced

Pcm = npt.NDArray[np.float32]

_WINDOW_S, _SHORT_WINDOW_S, _TAIL_S = 30.0, 8.0, 1.0
_SPLIT_FROM_S, _SPLIT_TO_S = 8.0, 14.0
_MIN_SAMPLES = SAMPLE_RATE // 10
_SILENCE_RMS = 1e-4
_TOKENS_PER_SECOND, _SPARE_TOKENS = 6.0, 10  # of fast speech, and of a very short line
_PROMPT_TOKENS = 96
_FRAME_S = 0.02  # one encoder position
# The guards of the Whisper reference implementation (Radford et al. 2022, section 4.5).
_NO_SPEECH, _LOG_PROBABILITY, _COMPRESSION = 0.6, -1.0, 2.4
_HOPELESS = -1.5  # ours: below this, what base writes about noise is invention, whatever it thinks of speech


@dataclass(frozen=True)
class Word:
    """A word as heard; times in seconds from the start of the audio given, probability 0..1."""

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Final:
    """A final transcript. `confidence` in 0..1 is exp(mean token log-probability); an empty text has confidence 0."""

    text: str
    words: tuple[Word, ...]
    confidence: float


NOTHING = Final("", (), 0.0)


@dataclass(frozen=True)
class _Attempt:
    tokens: list[int]
    log_probability: float
    no_speech: float
    looped: bool
    encoded: ctranslate2.StorageView
    seconds: float


class FinalRecogniser:
    """Whisper base. Holds weights only; `transcribe` may be called from several threads, `workers` of them at once.

    `directory` is `catalogue.path("whisper-base")`. The engine's threads run at `nice`, below the live path.
    """

    def __init__(self, directory: Path, *, language: str = "en", workers: int = 1, nice: int = 5) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._model = niced(
            lambda: ctranslate2.models.Whisper(
                str(directory), device="cpu", compute_type="int8", inter_threads=workers, intra_threads=1
            ),
            nice,
        )
        self._end = self._token("<|endoftext|>")
        self._previous = self._token("<|startofprev|>")
        control = ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
        self._start = [self._token(name) for name in control]

    def transcribe(self, pcm: Pcm, prompt: str = "") -> Final:
        """Transcribe 16 kHz float32 mono [samples] of any length.

        `prompt` is text that came before, or names to expect. Silence, noise that Whisper takes for no speech, and
        anything under 0.1 s give an empty Final. Over 14 s the audio is cut at its quietest places.
        """
        pieces = []
        start = 0
        for end in split_points(pcm):
            piece = self._piece(pcm[start:end], prompt)
            pieces.append(_shift(piece, start / SAMPLE_RATE))
            prompt = piece.text or prompt
            start = end
        said = [piece for piece in pieces if piece.text]
        if not said:
            return NOTHING
        confidence = sum(piece.confidence for piece in said) / len(said)
        return Final(" ".join(piece.text for piece in said), sum((piece.words for piece in said), ()), confidence)

    def _piece(self, pcm: Pcm, prompt: str) -> Final:
        if len(pcm) < _MIN_SAMPLES or math.sqrt(float(np.dot(pcm, pcm)) / len(pcm)) < _SILENCE_RMS:
            return NOTHING
        attempt = self._attempt(pcm, prompt, _SHORT_WINDOW_S)
        if attempt.log_probability < _HOPELESS and attempt.no_speech < _NO_SPEECH:
            # Once more on the window it was trained on, without the prompt, which can lead the decoder astray.
            attempt = self._attempt(pcm, "", _WINDOW_S)
        if attempt.log_probability < (_LOG_PROBABILITY if attempt.no_speech > _NO_SPEECH else _HOPELESS):
            return NOTHING
        text = self._tokenizer.decode(attempt.tokens).strip()
        if not any(character.isalnum() for character in text) or compression(text) > _COMPRESSION:
            return NOTHING
        return Final(text, self._words(attempt), math.exp(attempt.log_probability))

    def _attempt(self, pcm: Pcm, prompt: str, window_s: float) -> _Attempt:
        seconds = len(pcm) / SAMPLE_RATE
        samples = int(max(window_s, min(seconds + _TAIL_S, _WINDOW_S)) * SAMPLE_RATE) // (2 * HOP) * (2 * HOP)
        mel = log_mel(np.pad(pcm, (0, samples - len(pcm))))
        encoded = self._model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None])))
        before = [self._previous, *self._encode(f" {prompt}")[-_PROMPT_TOKENS:]] if prompt else []
        start = [*before, *self._start]
        limit = _SPARE_TOKENS + int(seconds * _TOKENS_PER_SECOND)
        # CTranslate2 writes max_length / 2 tokens, or max_length less the prompt if that is fewer.
        result = self._model.generate(
            encoded, [start], beam_size=1, max_length=max(2 * limit, len(start) + limit), return_scores=True,
            return_no_speech_prob=True,
        )[0]  # fmt: skip
        tokens = [token for token in result.sequences_ids[0] if token < self._end]
        cut = _first_loop(tokens)
        if cut is None and len(tokens) >= limit:
            cut = said_again(tokens)
        kept = tokens if cut is None else tokens[:cut]
        return _Attempt(kept, result.scores[0], result.no_speech_prob, cut is not None, encoded, seconds)

    def _words(self, attempt: _Attempt) -> tuple[Word, ...]:
        """Word times by dynamic time warping over the cross-attention of the alignment heads."""
        frames = max(1, int(attempt.seconds / _FRAME_S))
        found = self._model.align(attempt.encoded, self._start, [attempt.tokens], [2 * frames])[0]
        first_frame: dict[int, int] = {}
        last_frame: dict[int, int] = {}
        for token, frame in found.alignments:
            first_frame.setdefault(token, frame)
            last_frame[token] = frame
        words = []
        for first, last in group_words([self._tokenizer.decode([token]) for token in attempt.tokens]):
            text = self._tokenizer.decode(attempt.tokens[first:last]).strip()
            if not text:
                continue
            start = first_frame.get(first, 0) * _FRAME_S
            end = max(start, last_frame.get(last - 1, 0) * _FRAME_S)
            probability = float(np.mean(found.text_token_probs[first:last]))
            words.append(Word(text, round(start, 2), round(min(end, attempt.seconds), 2), probability))
        return tuple(words)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _token(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(f"the tokenizer has no {name}")
        return token


def _shift(piece: Final, seconds: float) -> Final:
    moved = (replace(w, start_s=w.start_s + seconds, end_s=w.end_s + seconds) for w in piece.words)
    return replace(piece, words=tuple(moved))


def _first_loop(tokens: Sequence[int]) -> int | None:
    """The end of the first round of the first loop in a finished line, or None (see `partials.loop_start`)."""
    for length in range(1, len(tokens) + 1):
        if (cut := loop_start(tokens[:length])) is not None:
            return cut
    return None


def said_again(tokens: Sequence[int]) -> int | None:
    """The end of the first round of a line that was cut off while it said itself again, or None.

    Only for a line that found no end: it need not have come to a third round (see `partials.loop_start`), a second one
    of three tokens or more will do. Somebody who says a sentence twice comes to an end.
    """
    for width in range(3, len(tokens) - 2):
        if tokens[width:] == tokens[:-width]:
            return width
    return None


def group_words(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Token texts -> (first, last + 1) token ranges of words: one begins with a space; punctuation joins the left."""
    ranges: list[tuple[int, int]] = []
    for i, piece in enumerate(pieces):
        starts = piece.startswith(" ") and any(character.isalnum() for character in piece)
        if starts or not ranges:
            ranges.append((i, i + 1))
        else:
            ranges[-1] = (ranges[-1][0], i + 1)
    return ranges


def split_points(pcm: Pcm) -> list[int]:
    """Sample positions at which long audio is cut, the last being its end: pieces of 8 to 14 s, cut where quietest."""
    points: list[int] = []
    start = 0
    while len(pcm) - start > _SPLIT_TO_S * SAMPLE_RATE:
        low, high = (start + int(s * SAMPLE_RATE) for s in (_SPLIT_FROM_S, _SPLIT_TO_S))
        step = SAMPLE_RATE // 5
        blocks = pcm[low:high][: (high - low) // step * step].reshape(-1, step)
        quietest = int(np.argmin((blocks**2).sum(axis=1)))
        start = low + quietest * step + step // 2
        points.append(start)
    return [*points, len(pcm)]


def compression(text: str) -> float:
    """How well a text compresses: above 2.4 it says the same thing over and over."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0
