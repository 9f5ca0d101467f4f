"""Streaming resampler by a whole factor, up or down: a FIR filter in numpy with carried state.

Live audio wants a short and constant delay, so the filter is a symmetric (linear phase) Kaiser-windowed sinc of less
than 2 ms group delay, and every call gives exactly as many samples as its input is worth: 20 ms in, 20 ms out.

It is computed in blocks of 2.5 ms: one small matrix product (overlapping windows of the input) x (the filter laid out
for every output of a block) costs a fifth of a product for each output sample.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_BLOCKS_A_SECOND = 400
_HALF_S = 0.0019  # half the filter's length = its delay
_BETA = 6.0  # Kaiser: about 63 dB down in the stop band
_PASS = 0.93  # cutoff, as a share of the slower side's Nyquist frequency


@cache
def _prototype(factor: int, fast_rate: int) -> NDArray[np.float64]:
    """The low-pass filter at the faster rate, unit gain, odd length; the group delay is (length - 1) / 2 samples."""
    half = int(_HALF_S * fast_rate)
    n = np.arange(-half, half + 1)
    taps: NDArray[np.float64] = np.sinc(n * _PASS / factor) * np.kaiser(2 * half + 1, _BETA)
    taps /= taps.sum()
    return taps


@cache
def _block_matrix(rate_in: int, rate_out: int) -> NDArray[np.float32]:
    """[past + block input samples, block output samples]: what each input adds to each output of one block."""
    factor = max(rate_in, rate_out) // min(rate_in, rate_out)
    taps = _prototype(factor, max(rate_in, rate_out))
    block_in, block_out = rate_in // _BLOCKS_A_SECOND, rate_out // _BLOCKS_A_SECOND
    up = rate_out >= rate_in
    past = -(-(len(taps) - 1) // factor) if up else len(taps) - 1
    fast_in = np.arange(-past, block_in) * (factor if up else 1)  # where each input stands on the faster clock
    fast_out = np.arange(block_out) * (1 if up else factor)
    lag = fast_out[None, :] - fast_in[:, None]
    gain = factor if up else 1  # makes up for the zeros between the samples
    inside = (lag >= 0) & (lag < len(taps))
    return np.where(inside, taps[np.clip(lag, 0, len(taps) - 1)] * gain, 0.0).astype(np.float32)


class Resampler:
    """16-bit mono from `rate_in` to `rate_out`; one must be a whole multiple of the other (ValueError otherwise).

    One object a stream and direction: it carries the last samples from call to call.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        fast, slow = max(rate_in, rate_out), min(rate_in, rate_out)
        if slow <= 0 or fast % slow or slow % _BLOCKS_A_SECOND:
            raise ValueError(f"{rate_in} -> {rate_out} Hz is not a whole factor of a rate we know")
        self._factor = fast // slow
        self.delay_s = (len(_prototype(self._factor, fast)) - 1) / 2 / fast if self._factor > 1 else 0.0
        self._matrix = _block_matrix(rate_in, rate_out)
        self._block = rate_in // _BLOCKS_A_SECOND
        self._past = len(self._matrix) - self._block
        self._held = np.zeros(self._past, np.float32)  # the past, then room for one call's samples

    def __call__(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """n samples -> n * rate_out / rate_in samples, n a multiple of 2.5 ms (ValueError otherwise)."""
        if self._factor == 1:
            return samples
        blocks, rest = divmod(len(samples), self._block)
        if rest:
            raise ValueError(f"{len(samples)} samples are not a multiple of {self._block} (2.5 ms)")
        if len(self._held) != self._past + len(samples):
            self._held = np.concatenate([self._held[: self._past], np.zeros(len(samples), np.float32)])
        held = self._held
        held[self._past :] = samples
        step = held.itemsize
        windows = np.ndarray((blocks, len(self._matrix)), np.float32, held, strides=(self._block * step, step))
        out = (windows @ self._matrix).reshape(-1)
        held[: self._past] = held[len(samples) :].copy()
        np.rint(out, out=out)
        np.clip(out, -32768, 32767, out=out)
        return out.astype(np.int16)
