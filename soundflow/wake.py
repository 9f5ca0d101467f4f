"""Streams to learn waking from: whole recordings as a call would hear them, at any onset, behind any channel.

The seven abilities cut their clips to the dense part of an event. A live ear hears what comes before and after it as
well: a recording's own quiet, its echo, the wave that never ends. So here the recordings are taken as they are, raw and
whole, with quiet, line noise, music and call-progress tones between them. One stream serves every mode: `in_mode` says
which of its turns deserve a response there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calls import g711
from calls.audio import CHUNK_SAMPLES, SAMPLE_RATE
from calls.model import Mode
from calls.resample import Resampler
from soundflow.items import Item, Split, Turn
from soundflow.policy import sound

Pcm = npt.NDArray[np.float32]

SOUND, DIGIT, SPEECH, QUIET = "wake/sound", "wake/digit", "wake/speech", "wake/nothing"
"""Kinds of turns. QUIET are music, tones and noise: what a line carries when nobody means anything."""
RESPONDED: Mapping[Mode, frozenset[str]] = {
    Mode.ANSWER: frozenset({SOUND, DIGIT, SPEECH}),
    Mode.ASSIST: frozenset({SOUND}),
    Mode.TRANSCRIBE: frozenset({DIGIT, SPEECH}),
}
"""What may deserve a response in a mode. A sound that is told of is no use to a transcript, nor each sentence to an
agent who hears it."""
MUSIC = "hold_music"
SPOKEN = "somebody is speaking"  # the reply to a sentence: no ear of this size understands it
_FRAME = 320  # samples, for the active part
_ACTIVE_DB = -35.0  # below the loudest frame
_ROOM_DB = (-78.0, -42.0)  # of full scale, root mean square
_BEHIND_DB = (-32.0, -16.0)  # a background's level below the events
_SHORT_PAUSE_S, _LONG_PAUSE_S = (0.6, 3.0), (4.0, 14.0)
_TAIL_S = 2.0
_KINDS = (SOUND, DIGIT, SPEECH, QUIET)
_MIXES = (
    ((0.60, 0.10, 0.10, 0.20), _SHORT_PAUSE_S, 0.38),
    ((0.08, 0.66, 0.16, 0.10), _SHORT_PAUSE_S, 0.14),
    ((0.00, 0.90, 0.10, 0.00), (0.3, 1.3), 0.10),
    ((0.12, 0.06, 0.82, 0.00), (0.3, 1.5), 0.10),
)
"""Of which kinds the events of a stream are, the pauses between them, and how many streams are of that mix: mostly
sounds, mostly digits, one digit after the other, people who talk."""
CARRIED = 0.28
"""Of all streams: how many carry one thing all along, hold music above all, which is what a model that answers hears
most and must never answer."""
TELEPHONE = 0.5
"""Of all streams: how many go through G.711."""
_ANSWERED = 0.3
"""Of the streams that carry one thing: how many end with somebody speaking, as waiting on hold does."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording: float32 [samples] at 16 kHz, what it is, and the words of the reply to it (empty: none)."""

    kind: str
    label: str
    text: str
    pcm: Pcm
    source: str

    @property
    def respond(self) -> bool:
        known = sound(self.label)
        return self.kind in (DIGIT, SPEECH) or bool(self.kind == SOUND and known and known.respond)


def active(pcm: Pcm) -> tuple[float, float]:
    """Where a recording's sound begins and ends, in seconds: frames that are not far below the loudest one."""
    frames = pcm[: len(pcm) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(frames):
        return 0.0, len(pcm) / SAMPLE_RATE
    level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
    loud = np.flatnonzero(level > level.max() + _ACTIVE_DB)
    return float(loud[0] * _FRAME / SAMPLE_RATE), float((loud[-1] + 1) * _FRAME / SAMPLE_RATE)


def stream(
    number: str,
    pools: Mapping[str, Sequence[Heard]],
    seed: int,
    split: Split,
    seconds: float = 28.0,
    carried: float = CARRIED,
    telephone_share: float = TELEPHONE,
) -> Item:
    """One stream, the same for the same seed. `pools`: kind -> recordings; the classes of a kind are equally likely.

    `carried`: how likely it is that it carries one thing all along; `telephone_share`: that it goes through G.711. A
    fifth of those with events has nothing in it that deserves a response.
    """
    rng = np.random.default_rng(seed)
    length = int(seconds * SAMPLE_RATE) // CHUNK_SAMPLES * CHUNK_SAMPLES
    audio = room(rng, length)
    drawn = rng.random()
    if drawn < 1.0 - carried:
        of = np.array([of for _, _, of in _MIXES])
        shares, pause_s, _ = _MIXES[
            int(np.searchsorted(np.cumsum(of) / of.sum() * (1.0 - carried), drawn, side="right"))
        ]
        turns = _events(rng, audio, pools, shares, pause_s, seconds)
        audio = _behind(rng, audio, pools)
    else:
        turns = _throughout(rng, audio, pools)
    channel = "g711" if rng.random() < telephone_share else "wideband"
    pcm16 = telephone(rng, audio) if channel == "g711" else _int16(audio)
    return Item(
        id=number,
        task="wake",
        mode=Mode.ANSWER,
        instruction="",
        audio=pcm16,
        turns=_apart(turns),
        split=split,
        seed=seed,
        channel=channel,
    )


def _events(
    rng: np.random.Generator,
    audio: Pcm,
    pools: Mapping[str, Sequence[Heard]],
    shares: Sequence[float],
    pause_s: tuple[float, float],
    seconds: float,
    onset: float | None = None,
) -> list[Turn]:
    """Mix one recording after the other into `audio`, the first at `onset` or anywhere in the first seconds."""
    hush = onset is None and rng.random() < 0.2
    turns: list[Turn] = []
    at = float(rng.uniform(0.2, 4.0)) if onset is None else onset
    while True:
        kind = str(rng.choice(_KINDS, p=np.array(shares)))
        one = _choose(rng, pools, kind, hush)
        pcm = _levelled(rng, _elsewhere(rng, one.pcm))
        begin, end = active(pcm)
        if at + len(pcm) / SAMPLE_RATE > seconds - _TAIL_S:
            return turns
        first = int(at * SAMPLE_RATE)
        audio[first : first + len(pcm)] += pcm
        name = (known.name if (known := sound(one.label)) else one.label) if one.kind == SOUND else one.text
        turns.append(
            Turn(
                kind=one.kind,
                begin_s=round(at + begin, 3),
                end_s=round(at + end, 3),
                respond=one.respond,
                heard=one.text or name,
                label=one.label,
                reply=_reply(one) if one.respond else "",
                early=one.kind == SOUND and one.respond,
                sources=(one.source,),
            )
        )
        pause = _LONG_PAUSE_S if pause_s == _SHORT_PAUSE_S and rng.random() < 0.2 else pause_s
        at += len(pcm) / SAMPLE_RATE + float(rng.uniform(*pause))


def _throughout(rng: np.random.Generator, audio: Pcm, pools: Mapping[str, Sequence[Heard]]) -> list[Turn]:
    """Mix one thing into all of `audio`, again and again where it is short: music half of the time, else the noise of
    a line, a tone, or a sound that deserves nothing. Somebody may speak in the end; then it stops, or goes on below."""
    seconds = len(audio) / SAMPLE_RATE
    one = _carried(rng, pools, seconds)
    pcm = np.resize(_levelled(rng, _elsewhere(rng, one.pcm)), len(audio))
    until = seconds * float(rng.uniform(0.3, 0.65)) if rng.random() < _ANSWERED else seconds
    pcm[int(until * SAMPLE_RATE) :] *= rng.choice([0.0, rng.uniform(0.05, 0.3)])
    audio += pcm
    carried = Turn(QUIET, 0.0, until, respond=False, heard=one.label, label=one.label, reply="", sources=(one.source,))
    if until == seconds:
        return [carried]
    said = _events(rng, audio, pools, (0.0, 0.1, 0.9, 0.0), _SHORT_PAUSE_S, seconds, until + float(rng.uniform(0, 1)))
    return [carried, *said]


def _carried(rng: np.random.Generator, pools: Mapping[str, Sequence[Heard]], seconds: float) -> Heard:
    drawn = rng.random()
    music = [one for one in pools[QUIET] if one.label == MUSIC]
    if drawn < 0.5 and music:
        long = [one for one in music if len(one.pcm) >= seconds * SAMPLE_RATE / 2] or music
        return long[int(rng.integers(len(long)))]
    if drawn < 0.7:
        return Heard(QUIET, "line_noise", "", line(rng, int(seconds * SAMPLE_RATE)), "synth")
    others = {**pools, QUIET: [one for one in pools[QUIET] if one.label != MUSIC] or pools[QUIET]}
    return _choose(rng, others, QUIET if drawn < 0.85 else SOUND, hush=True)


def in_mode(item: Item, mode: Mode) -> Item:
    """The same stream as it should be answered in another mode."""
    turns = tuple(
        turn
        if not turn.respond or turn.kind in RESPONDED[mode]
        else replace(turn, respond=False, reply="", early=False)
        for turn in item.turns
    )
    return replace(item, mode=mode, turns=turns)


def room(rng: np.random.Generator, length: int) -> Pcm:
    """Quiet: digital silence now and then, or else noise of any colour, with or without mains hum."""
    if rng.random() < 0.15:
        return np.zeros(length, np.float32)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    noise = np.fft.irfft(spectrum * frequency ** -rng.uniform(0.0, 1.0), length)
    if rng.random() < 0.3:
        time = np.arange(length) / SAMPLE_RATE
        base = float(rng.choice([50.0, 60.0]))
        hum = sum(np.sin(2 * np.pi * base * n * time + rng.uniform(0, 6)) / n for n in (1, 2, 3, 5))
        noise = noise / noise.std() + rng.uniform(0.3, 3.0) * hum
    level = 10 ** (rng.uniform(*_ROOM_DB) / 20)
    return np.asarray(noise / noise.std() * level, np.float32)


def line(rng: np.random.Generator, length: int) -> Pcm:
    """A bad line: hiss that comes and goes, clicks alone and in bursts, thumps, and gaps where packets were lost."""
    level = np.interp(np.arange(length), np.arange(9) * length / 8, 10 ** (rng.uniform(-16, 10, 9) / 20))
    audio = room(rng, length) * level
    for _ in range(rng.poisson(length / SAMPLE_RATE / rng.uniform(1.5, 12.0))):
        at = int(rng.integers(length))
        for click in range(1 if rng.random() < 0.8 else int(rng.integers(2, 7))):
            begin = at + click * int(rng.integers(160, 2_400))
            _onto(audio, begin, _click(rng) * 10 ** (rng.uniform(-42, -10) / 20))
    for _ in range(rng.poisson(length / SAMPLE_RATE / 20)):
        at, gap = int(rng.integers(length)), int(rng.uniform(0.02, 0.3) * SAMPLE_RATE)
        audio[at : at + gap] = 0.0
    return np.asarray(audio, np.float32)


def _click(rng: np.random.Generator) -> Pcm:
    """A burst of noise that dies away within milliseconds; one in six is a low thump that takes longer."""
    time = np.arange(1_600) / SAMPLE_RATE
    thump = rng.random() < 1 / 6
    fades = rng.uniform(0.01, 0.03) if thump else 10 ** rng.uniform(-4, -2.3)
    rings = np.sin(2 * np.pi * rng.uniform(50, 150) * time) if thump else rng.standard_normal(len(time))
    return np.asarray(rings * np.exp(-time / fades), np.float32)


def _onto(audio: npt.NDArray[np.floating], at: int, pcm: Pcm) -> None:
    """Add as much of it as there is room for."""
    part = pcm[: max(0, len(audio) - at)]
    audio[at : at + len(part)] += part


def telephone(rng: np.random.Generator, audio: Pcm) -> npt.NDArray[np.int16]:
    """Through G.711: 8 kHz, 300 to 3,400 Hz more or less, mu- or A-law, and back to 16 kHz."""
    spectrum = np.fft.rfft(audio)
    frequency = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    low, high = rng.uniform(60, 320), rng.uniform(3_300, 3_800)
    spectrum *= 1 / np.sqrt(1 + (low / np.maximum(frequency, 1.0)) ** 6) / np.sqrt(1 + (frequency / high) ** 16)
    narrow = Resampler(SAMPLE_RATE, 8_000)(_int16(np.fft.irfft(spectrum, len(audio)).astype(np.float32)))
    law: g711.Law = "mulaw" if rng.random() < 0.6 else "alaw"
    return Resampler(8_000, SAMPLE_RATE)(g711.decode(g711.encode(narrow, law), law))


def _choose(rng: np.random.Generator, pools: Mapping[str, Sequence[Heard]], kind: str, hush: bool) -> Heard:
    """Of sounds, those that deserve a response as often as those that do not. Then a class, likelier the more
    recordings there are of it, but not as much likelier; then one of them."""
    pool = [one for one in pools.get(kind, ()) if not (hush and one.respond)]
    if kind == SOUND and not hush:
        deserving = bool(rng.random() < 0.5)
        pool = [one for one in pool if one.respond == deserving] or pool
    if not pool:
        pool = list(pools[QUIET])
    of_class: dict[str, list[Heard]] = {}
    for one in pool:
        of_class.setdefault(one.label, []).append(one)
    labels = sorted(of_class)
    weights = np.sqrt([len(of_class[label]) for label in labels])
    of_it = of_class[labels[int(rng.choice(len(labels), p=weights / weights.sum()))]]
    return of_it[int(rng.integers(len(of_it)))]


def _elsewhere(rng: np.random.Generator, pcm: Pcm) -> Pcm:
    """The same sound from another place, half of the time: farther, another microphone, another room. Few recordings
    are soon known by heart; this is what the next one would differ in."""
    if rng.random() < 0.5:
        return pcm
    level = float(np.sqrt(np.square(pcm).mean())) or 1.0
    spectrum = np.fft.rfft(pcm)
    hz = np.maximum(np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE), 50.0)
    spectrum *= (hz / 1_000.0) ** rng.uniform(-0.45, 0.45)  # a tilt of up to 2.7 dB an octave
    centre, width, gain = rng.uniform(np.log(200), np.log(6_000)), rng.uniform(0.2, 0.8), rng.uniform(-8, 8)
    spectrum *= 10 ** (gain / 20 * np.exp(-(((np.log(hz) - centre) / width) ** 2)))
    made: npt.NDArray[np.floating] = np.fft.irfft(spectrum, len(pcm))
    if rng.random() < 0.5:
        made = _reverberated(rng, made)
    made *= level / (np.sqrt(np.square(made).mean()) + 1e-12)
    return np.asarray(made, np.float32)


def _reverberated(rng: np.random.Generator, pcm: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A room's echo: noise that dies away within 0.1 to 0.6 s (60 dB), 2 to 14 dB below what comes directly."""
    length = int(rng.uniform(0.1, 0.6) * SAMPLE_RATE)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= 10 ** (rng.uniform(-14, -2) / 20) / np.sqrt(np.square(tail).sum())
    size = 1 << (len(pcm) + length).bit_length()
    echo = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(tail, size), size)[: len(pcm)]
    return np.asarray(pcm + echo)


def _levelled(rng: np.random.Generator, pcm: Pcm) -> Pcm:
    """Its own level most of the time; else louder or quieter, never clipped. Now and then a little faster or slower."""
    if rng.random() < 0.4:
        pace = float(rng.uniform(0.9, 1.12))
        where = np.arange(0, len(pcm) - 1, pace)
        pcm = np.interp(where, np.arange(len(pcm)), pcm).astype(np.float32)
    peak = float(np.abs(pcm).max()) or 1.0
    gain = 1.0 if rng.random() < 0.4 else 10 ** (rng.uniform(-14, 10) / 20)
    return np.asarray(pcm * min(gain, 0.98 / peak), np.float32)


def _behind(rng: np.random.Generator, audio: Pcm, pools: Mapping[str, Sequence[Heard]]) -> Pcm:
    """Now and then a background all along: a silent class or music, far below the events."""
    quiet = [one for kind in (SOUND, QUIET) for one in pools.get(kind, ()) if not one.respond]
    if rng.random() > 0.3 or not quiet:
        return audio
    one = quiet[int(rng.integers(len(quiet)))]
    looped = np.resize(one.pcm, len(audio))
    loudness = float(np.sqrt(np.square(looped).mean())) or 1.0
    level = 10 ** (rng.uniform(*_BEHIND_DB) / 20) * 0.1
    return np.asarray(audio + looped / loudness * level, np.float32)


def _reply(one: Heard) -> str:
    known = sound(one.label)
    return known.name if one.kind == SOUND and known else one.text if one.kind == DIGIT else SPOKEN


def _apart(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Of two responses in one Chunk only the first is given."""
    kept: list[Turn] = []
    taken: set[int] = set()
    for turn in turns:
        if turn.respond and turn.last_chunk in taken:
            turn = replace(turn, respond=False, reply="", early=False)
        taken |= {turn.last_chunk} if turn.respond else set()
        kept.append(turn)
    return tuple(kept)


def _int16(audio: Pcm) -> npt.NDArray[np.int16]:
    return np.rint(np.clip(audio, -1.0, 1.0) * 32767).astype(np.int16)
