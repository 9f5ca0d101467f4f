"""The running transcript while somebody still speaks: Moonshine tiny through onnxruntime.

Moonshine (Jeffries et al. 2024, arXiv:2410.15608) takes raw 16 kHz audio of any length, with no padding to 30 s, so its
cost grows with what was said. The current line is decoded again from its start each time, which lets later words
correct earlier ones; there is no prefix to carry from one call of `transcribe` to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_worker.onnx import open_session

Pcm = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
TOKENS_PER_SECOND = 6.5  # the authors' own bound; more than that is the decoder talking to itself
_MIN_TOKENS = 6
_MIN_SAMPLES = SAMPLE_RATE // 10  # the encoder's strided convolutions need about 80 ms to give one frame
_SILENCE_RMS = 1e-4
_START, _END = 1, 2
_FRAME = 384  # samples between two encoder frames: strides 64 * 3 * 2
_HEADS, _HEAD_WIDTH = 8, 36


@dataclass(frozen=True)
class Partial:
    """A running transcript. `confidence` in 0..1 is exp(mean token log-probability); `looped` says the guard cut it."""

    text: str
    confidence: float
    looped: bool = False


EMPTY = Partial("", 0.0)


@dataclass
class _Row:
    """One line being decoded."""

    limit: int
    tokens: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    looped: bool = False

    def accept(self, token: int, log_probability: float) -> bool:
        """Take the next token; False when the line has ended."""
        self.log_probability += log_probability
        if token == _END:
            return False
        self.tokens.append(token)
        if (keep := loop_start(self.tokens)) is not None:
            del self.tokens[keep:]
            self.looped = True
            return False
        return len(self.tokens) < self.limit


class PartialRecogniser:
    """Moonshine tiny, English. Holds weights only, no call's state; one instance may be used by several threads.

    `directory` is `catalogue.path("moonshine-tiny")`.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self._encoder = open_session(directory / "encoder_model.ort", threads)
        self._decoder = open_session(directory / "decoder_model_merged.ort", threads)
        self._vocabulary = read_vocabulary((directory / "tokenizer.bin").read_bytes())
        self._past_names = [i.name for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")]
        self._outputs = [output.name for output in self._decoder.get_outputs()]

    def transcribe(self, pcms: Sequence[Pcm]) -> list[Partial]:
        """Transcribe lines of 16 kHz float32 mono, each [samples], in one batched decode; one Partial each, in order.

        Each line is encoded alone, unpadded, so its text does not depend on what else is in the batch. Silence and
        lines under 0.1 s give an empty Partial.
        """
        results = [EMPTY] * len(pcms)
        audible = [i for i, pcm in enumerate(pcms) if len(pcm) >= _MIN_SAMPLES and _rms(pcm) > _SILENCE_RMS]
        if not audible:
            return results
        encoded = [self._encode(pcms[i]) for i in audible]
        rows = [_Row(max(_MIN_TOKENS, math.ceil(len(pcms[i]) / SAMPLE_RATE * TOKENS_PER_SECOND))) for i in audible]
        self._decode(rows, encoded)
        for i, row in zip(audible, rows, strict=True):
            confidence = math.exp(row.log_probability / (len(row.tokens) + 1))
            text = b"".join(self._vocabulary[token] for token in row.tokens).decode("utf-8", "ignore")
            results[i] = Partial(text.replace("▁", " ").strip(), confidence if text.strip() else 0.0, row.looped)
        return results

    def _encode(self, pcm: Pcm) -> npt.NDArray[np.float32]:
        """[samples] -> [1, frames, 288]; a frame is 24 ms."""
        mask = np.ones((1, len(pcm)), np.int64)
        feed = {"input_values": np.ascontiguousarray(pcm, np.float32)[None], "attention_mask": mask}
        encoded: npt.NDArray[np.float32] = self._encoder.run(None, feed)[0]
        return encoded

    def _decode(self, rows: Sequence[_Row], encoded: Sequence[npt.NDArray[np.float32]]) -> None:
        """Greedy decoding of all rows together, with cached keys and values; finished rows leave the batch."""
        frames = max(e.shape[1] for e in encoded)
        hidden = np.zeros((len(rows), frames, encoded[0].shape[2]), np.float32)
        mask = np.zeros((len(rows), frames * _FRAME), np.int64)  # the decoder's graph takes it in samples, not frames
        for i, states in enumerate(encoded):
            hidden[i, : states.shape[1]] = states[0]
            mask[i, : states.shape[1] * _FRAME] = 1
        past = {name: np.zeros((len(rows), _HEADS, 0, _HEAD_WIDTH), np.float32) for name in self._past_names}
        active = list(rows)
        ids = np.full((len(rows), 1), _START, np.int64)
        cached = False
        while active:
            logits = self._step(ids, hidden, mask, past, cached)
            cached = True
            tokens = logits.argmax(-1)
            gains = _log_probabilities(logits, tokens)
            alive = [row.accept(int(t), float(g)) for row, t, g in zip(active, tokens, gains, strict=True)]
            ids = tokens[:, None]
            if not all(alive):
                keep = np.flatnonzero(alive)
                active = [active[i] for i in keep]
                ids, hidden, mask = ids[keep], hidden[keep], mask[keep]
                past.update({name: value[keep] for name, value in past.items()})

    def _step(
        self,
        ids: npt.NDArray[np.int64],
        hidden: npt.NDArray[np.float32],
        mask: npt.NDArray[np.int64],
        past: dict[str, npt.NDArray[np.float32]],
        cached: bool,
    ) -> npt.NDArray[np.float32]:
        """One token for every row: [rows, 1] -> logits [rows, 32768]. Updates `past` in place."""
        feed = {"encoder_attention_mask": mask, "input_ids": ids, "encoder_hidden_states": hidden, **past}
        feed["use_cache_branch"] = np.array([cached])
        # The encoder's keys and values do not change after the first step: not asking for them saves copying them.
        names = [name for name in self._outputs if not (cached and ".encoder." in name)]
        for name, value in zip(names, outputs := self._decoder.run(names, feed), strict=True):
            if name != "logits":
                past[name.replace("present", "past_key_values")] = value
        logits: npt.NDArray[np.float32] = outputs[names.index("logits")][:, -1]
        return logits


def _log_probabilities(logits: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    top = logits[np.arange(len(tokens)), tokens]
    shifted: npt.NDArray[np.float32] = -np.log(np.exp(logits - top[:, None]).sum(-1))  # the chosen token is the largest
    return shifted


def _rms(pcm: Pcm) -> float:
    return math.sqrt(float(np.dot(pcm, pcm)) / len(pcm))


def loop_start(tokens: Sequence[int]) -> int | None:
    """Where to cut a line that has begun to repeat itself: the end of the first round, or None.

    A phrase of three to twelve tokens said three times over is a loop; one or two tokens may be a caller's
    "no no no" or "one one one one", so those must come six times.
    """
    for width in range(1, 13):
        times = 6 if width <= 2 else 3
        span = width * times
        if len(tokens) < span:
            continue
        tail = list(tokens[-span:])
        if tail == tail[:width] * times:
            return len(tokens) - span + width
    return None


def read_vocabulary(data: bytes) -> list[bytes]:
    """Parse Moonshine's `tokenizer.bin`: for each token a length, then that many bytes of UTF-8.

    A length under 128 is one byte; a longer one is two, (low + 128), high. A zero length is an unused token.
    """
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        length, at = data[at], at + 1
        if length >= 128:
            length, at = data[at] * 128 + length - 128, at + 1
        tokens.append(data[at : at + length])
        at += length
    return tokens
