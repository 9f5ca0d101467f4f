"""Call-progress tones from their specifications: what a line says before, instead of and after a person.

Frequencies and cadences: ITU-T E.180 Supplement 2 (various tones used in national networks), ANSI T1.401 / the North
American precise tone plan, ITU-T E.180/Q.35 (special information tone), T.30 (CNG, CED), V.8 (ANSam), Q.23 (DTMF).
A voicemail's beep has no specification: one tone of 0.15 to 1 s between 400 and 1,500 Hz. All float32 at 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE

Pcm = npt.NDArray[np.float32]

_RAMP_S = 0.005  # tones are switched without a click
_DBM0_PEAK = 0.5  # of two tones together; the composer sets the level


@dataclass(frozen=True, slots=True)
class Cadence:
    """Frequencies sounding together (a negative one modulates), and on, off, on, off... seconds; () is continuous."""

    hz: tuple[float, ...]
    pattern: tuple[float, ...] = ()


PLANS: dict[str, dict[str, Cadence]] = {
    "us": {
        "dial": Cadence((350, 440)),
        "ringback": Cadence((440, 480), (2.0, 4.0)),
        "busy": Cadence((480, 620), (0.5, 0.5)),
        "congestion": Cadence((480, 620), (0.25, 0.25)),
    },
    "gb": {
        "dial": Cadence((350, 440)),
        "ringback": Cadence((400, 450), (0.4, 0.2, 0.4, 2.0)),
        "busy": Cadence((400,), (0.375, 0.375)),
        "congestion": Cadence((400,), (0.4, 0.35, 0.225, 0.525)),
    },
    "de": {
        "dial": Cadence((425,)),
        "ringback": Cadence((425,), (1.0, 4.0)),
        "busy": Cadence((425,), (0.48, 0.48)),
        "congestion": Cadence((425,), (0.24, 0.24)),
    },
    "fr": {
        "dial": Cadence((440,)),
        "ringback": Cadence((440,), (1.5, 3.5)),
        "busy": Cadence((440,), (0.5, 0.5)),
        "congestion": Cadence((440,), (0.25, 0.25)),
    },
    "es": {
        "dial": Cadence((425,)),
        "ringback": Cadence((425,), (1.5, 3.0)),
        "busy": Cadence((425,), (0.2, 0.2)),
        "congestion": Cadence((425,), (0.2, 0.2, 0.2, 0.2, 0.2, 0.6)),
    },
    "it": {
        "dial": Cadence((425,), (0.6, 1.0, 0.2, 0.2)),
        "ringback": Cadence((425,), (1.0, 4.0)),
        "busy": Cadence((425,), (0.5, 0.5)),
        "congestion": Cadence((425,), (0.2, 0.2)),
    },
    "jp": {
        "dial": Cadence((400,)),
        "ringback": Cadence((400, -16), (1.0, 2.0)),
        "busy": Cadence((400,), (0.5, 0.5)),
        "congestion": Cadence((400,), (0.5, 0.5)),
    },
    "au": {
        "dial": Cadence((425, -25)),
        "ringback": Cadence((425, -25), (0.4, 0.2, 0.4, 2.0)),
        "busy": Cadence((425,), (0.375, 0.375)),
        "congestion": Cadence((425,), (0.375, 0.375)),
    },
    "cn": {
        "dial": Cadence((450,)),
        "ringback": Cadence((450,), (1.0, 4.0)),
        "busy": Cadence((450,), (0.35, 0.35)),
        "congestion": Cadence((450,), (0.7, 0.7)),
    },
    "br": {
        "dial": Cadence((425,)),
        "ringback": Cadence((425,), (1.0, 4.0)),
        "busy": Cadence((425,), (0.25, 0.25)),
        "congestion": Cadence((425,), (0.25, 0.25, 0.75, 0.25)),
    },
}
"""Country -> tone -> how it sounds."""

# ANSI T1.401: the segments tell an intercept from a vacant code, no circuit or reorder. (Hz, seconds) each.
_SHORT, _LONG = 0.276, 0.380
SIT: dict[str, tuple[tuple[float, float], ...]] = {
    "intercept": ((913.8, _SHORT), (1370.6, _SHORT), (1776.7, _LONG)),
    "vacant": ((985.2, _LONG), (1370.6, _SHORT), (1776.7, _LONG)),
    "reorder": ((913.8, _SHORT), (1428.5, _LONG), (1776.7, _LONG)),
    "no_circuit": ((985.2, _LONG), (1428.5, _LONG), (1776.7, _LONG)),
}
_DTMF_ROWS, _DTMF_COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
_DTMF_KEYS = "123A456B789C*0#D"


def progress_tone(country: str, tone: str, seconds: float, *, begin_s: float = 0.0) -> Pcm:
    """So many seconds of a country's tone, `begin_s` into its cadence. KeyError: no such country or tone."""
    cadence = PLANS[country][tone]
    count = int(seconds * SAMPLE_RATE)
    t = np.arange(count) / SAMPLE_RATE
    return _shaped(_sum(cadence.hz, t), _gate(t + begin_s, cadence.pattern))


def special_information(kind: str) -> Pcm:
    """The three rising tones before "the number you have dialled". KeyError: no such kind."""
    return np.concatenate([tone((hz,), seconds) for hz, seconds in SIT[kind]])


def fax_calling(seconds: float) -> Pcm:
    """T.30 CNG: 1,100 Hz, half a second in every 3.5."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return _shaped(_sum((1100,), t), _gate(t, (0.5, 3.0)))


def fax_answer(seconds: float = 3.0, *, v8: bool = False) -> Pcm:
    """T.30 CED: 2,100 Hz for 2.6 to 4 s; V.8's ANSam reverses its phase every 450 ms and swells 15 times a second."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = _sum((2100,), t)
    if v8:
        reversed_now = (t // 0.45).astype(int) % 2
        wave = wave * np.where(reversed_now, -1.0, 1.0) * (1 + 0.2 * np.sin(2 * np.pi * 15 * t)) / 1.2
    return _shaped(wave, np.ones(len(t)))


def voicemail_beep(hz: float, seconds: float) -> Pcm:
    return tone((hz,), seconds)


def dtmf(keys: str, on_s: float = 0.1, off_s: float = 0.1) -> Pcm:
    """Q.23: a row's and a column's frequency together. ValueError: no such key."""
    pieces: list[Pcm] = []
    for key in keys:
        row, column = divmod(_DTMF_KEYS.index(key), 4)
        pieces += [tone((_DTMF_ROWS[row], _DTMF_COLUMNS[column]), on_s), np.zeros(int(off_s * SAMPLE_RATE), np.float32)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def tone(hz: tuple[float, ...], seconds: float) -> Pcm:
    """Frequencies together, once."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return _shaped(_sum(hz, t), np.ones(len(t)))


def _sum(hz: tuple[float, ...], t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sounding = [f for f in hz if f > 0]
    wave: npt.NDArray[np.float64] = np.zeros(len(t))
    for f in sounding:
        wave += np.sin(2 * np.pi * f * t) / len(sounding)
    for modulation in (-f for f in hz if f < 0):
        wave *= (1 + np.sin(2 * np.pi * modulation * t)) / 2
    return wave


def _gate(t: npt.NDArray[np.float64], pattern: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """1 where a cadence is on."""
    if not pattern:
        return np.ones(len(t))
    edges = np.cumsum(pattern)
    on: npt.NDArray[np.float64] = (np.searchsorted(edges, t % edges[-1], side="right") % 2 == 0).astype(np.float64)
    return on


def _shaped(wave: npt.NDArray[np.float64], gate: npt.NDArray[np.float64]) -> Pcm:
    """Switched on and off over 5 ms."""
    ramp = int(_RAMP_S * SAMPLE_RATE)
    padded = np.pad(gate, (ramp, 0))
    smooth = np.cumsum(np.pad(padded, (1, 0)))
    envelope = ((smooth[ramp:] - smooth[:-ramp]) / ramp)[: len(gate)]
    closing = np.minimum(1.0, np.arange(len(gate), 0, -1) / ramp)
    made: Pcm = (wave * envelope * closing * _DBM0_PEAK).astype(np.float32)
    return made
