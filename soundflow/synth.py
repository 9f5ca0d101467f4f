"""Sounds made from what they are known to be: alarms by their standards, weather and machines from shaped noise.

They stand beside recordings where there are some and in for them where there are none (the `test` configuration needs
nothing but this package). Each takes a generator and about how many seconds, and is float32 [samples] at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from calls.audio import SAMPLE_RATE

Pcm = npt.NDArray[np.float32]
Make = Callable[[np.random.Generator, float], Pcm]


def coloured(rng: np.random.Generator, length: int, slope: float, low: float = 20.0, high: float = 8_000.0) -> Pcm:
    """Noise whose power falls by `slope` (0 white, 1 pink, 2 brown) between two frequencies; RMS 0.1."""
    hz = np.fft.rfftfreq(max(length, 2), 1 / SAMPLE_RATE)
    shape = np.where((hz >= low) & (hz <= high), np.maximum(hz, 1.0) ** (-slope / 2), 0.0)
    spectrum = shape * (rng.normal(size=len(hz)) + 1j * rng.normal(size=len(hz)))
    wave = np.fft.irfft(spectrum, max(length, 2))[:length]
    made: Pcm = (0.1 * wave / (np.sqrt(np.mean(wave**2)) + 1e-12)).astype(np.float32)
    return made


def room(rng: np.random.Generator, length: int) -> Pcm:
    """A quiet room: pink to brown noise, slowly breathing. RMS about 0.1, to be set by whoever mixes it."""
    made = coloured(rng, length, float(rng.uniform(0.6, 2.0)), 30.0, float(rng.uniform(2_500.0, 7_500.0)))
    slow = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.03, 0.3) * _t(length) + rng.uniform(0, 6))
    return (made * slow).astype(np.float32)


def smoke_alarm(rng: np.random.Generator, seconds: float) -> Pcm:
    """ISO 8201's three pulses of half a second, near 3.1 kHz, or 520 Hz square in newer ones."""
    t = _t(int(seconds * SAMPLE_RATE))
    base = rng.uniform(2_800.0, 3_400.0) if rng.random() < 0.75 else 520.0
    wave = np.sin(2 * np.pi * base * t) + (0.3 * np.sin(6 * np.pi * base * t) if base < 1_000 else 0.0)
    place = t % 4.0
    return _made(wave * ((place < 3.0) & (place % 1.0 < 0.5)))


def siren(rng: np.random.Generator, seconds: float) -> Pcm:
    """Wail, yelp or a two-tone horn."""
    t = _t(int(seconds * SAMPLE_RATE))
    kind = rng.integers(3)
    if kind == 2:
        low = rng.uniform(400.0, 500.0)
        hz = np.where((t % 1.4) < 0.7, low, low * 4 / 3)
    else:
        turn_s = rng.uniform(3.0, 5.0) if kind == 0 else rng.uniform(0.2, 0.45)
        hz = 1_050 + 500 * np.sin(2 * np.pi * t / turn_s - np.pi / 2)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    return _made(np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase))


def backing_beeper(rng: np.random.Generator, seconds: float) -> Pcm:
    """A vehicle backing up: about 1,250 Hz, half a second on, half a second off."""
    t = _t(int(seconds * SAMPLE_RATE))
    wave = np.sin(2 * np.pi * rng.uniform(1_000.0, 1_500.0) * t)
    return _made(wave * ((t % 1.0) < 0.5))


def machine_beep(rng: np.random.Generator, seconds: float) -> Pcm:
    """An appliance that has finished or is in trouble: groups of short high beeps."""
    t = _t(int(seconds * SAMPLE_RATE))
    period, on = rng.uniform(0.18, 0.35), rng.uniform(0.08, 0.14)
    beeps = int(rng.integers(3, 6))
    inside = ((t % (period * beeps + 0.6)) < period * beeps) & ((t % period) < on)
    return _made(np.sin(2 * np.pi * rng.uniform(1_900.0, 2_600.0) * t) * inside)


def phone_ringing(rng: np.random.Generator, seconds: float) -> Pcm:
    """A bell with two gongs, or a warble of two tones; two seconds on, some off."""
    t = _t(int(seconds * SAMPLE_RATE))
    ring = (t % 3.0) < 2.0
    low = rng.uniform(600.0, 1_100.0)
    beat = np.where((t * rng.uniform(12.0, 20.0)) % 1.0 < 0.5, low, low * 1.26)
    wave = np.sin(2 * np.pi * np.cumsum(beat) / SAMPLE_RATE)
    return _made((wave + 0.3 * np.sin(6 * np.pi * low * t)) * ring)


def glass_breaking(rng: np.random.Generator, seconds: float) -> Pcm:
    """A crack, then shards: many short, high, ringing partials."""
    length = int(min(seconds, 1.6) * SAMPLE_RATE)
    wave = coloured(rng, length, 0.0, 1_500.0) * np.exp(-_t(length) / 0.05) * 6
    for _ in range(int(rng.integers(30, 60))):
        begin = int(length * rng.beta(1.0, 3.0))
        t = _t(length - begin)
        wave[begin:] += rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * rng.uniform(2_500, 7_500) * t) * np.exp(-t / 0.04)
    return _made(wave)


def fire_crackling(rng: np.random.Generator, seconds: float) -> Pcm:
    """Burning wood: a roar that flickers, and snaps of any size, alone and in flurries."""
    length = int(seconds * SAMPLE_RATE)
    wave = coloured(rng, length, float(rng.uniform(0.4, 2.2))) * _wandering(rng, length, 8.0, 0.4)
    wave *= 10 ** rng.uniform(-1.7, 0.0)
    flurries = _wandering(rng, length, 2.0, 0.8)
    for place in np.flatnonzero(rng.random(length) < flurries * 10 ** rng.uniform(0.6, 1.8) / SAMPLE_RATE):
        t = _t(min(int(rng.uniform(0.004, 0.03) * SAMPLE_RATE), length - int(place)))
        ring = (
            np.sin(2 * np.pi * rng.uniform(400.0, 6_000.0) * t) if rng.random() < 0.3 else rng.standard_normal(len(t))
        )
        wave[place : place + len(t)] += 0.1 * rng.pareto(1.8) * ring * np.exp(-t / 10 ** rng.uniform(-3.4, -2.3))
    return _made(np.tanh(wave))


def chainsaw(rng: np.random.Generator, seconds: float) -> Pcm:
    """A two-stroke engine at 40 to 240 explosions a second, up and down with the throttle; its body rings, it rasps."""
    length = int(seconds * SAMPLE_RATE)
    throttle = np.clip(_wandering(rng, length, float(rng.uniform(0.3, 2.0)), 0.5) - 0.3, 0.0, 1.0)
    speed = rng.uniform(40.0, 90.0) + throttle * rng.uniform(50.0, 150.0)
    phase = np.cumsum(speed * (1 + 0.05 * rng.standard_normal(length))) / SAMPLE_RATE
    uneven = 0.8 + 0.4 * rng.random(int(phase[-1]) + 1)[phase.astype(int)]
    strokes = np.exp(-rng.uniform(4.0, 25.0) * (phase % 1.0)) * uneven
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    body = sum(np.exp(-(((hz - rng.uniform(200, 4_000)) / rng.uniform(100, 900)) ** 2)) for _ in range(4))
    wave = np.fft.irfft(np.fft.rfft(strokes - strokes.mean()) * (0.1 + body), length)
    rasp = coloured(rng, length, float(rng.uniform(0.0, 1.5)), 200.0) * (0.2 + throttle) * (0.3 + strokes)
    wave = wave / (wave.std() + 1e-9) + rasp * 10 ** rng.uniform(0.0, 1.3)
    return _made(np.tanh(wave * rng.uniform(0.3, 1.5)) * (0.15 + throttle))


def rain(rng: np.random.Generator, seconds: float) -> Pcm:
    """A hiss, and drops on it."""
    length = int(seconds * SAMPLE_RATE)
    wave = coloured(rng, length, 0.5, 400.0)
    drops = np.zeros(length)
    drops[rng.integers(0, length, int(seconds * rng.uniform(20, 150)))] = rng.uniform(0.2, 1.0)
    tail = np.exp(-_t(160) / 0.002) * np.sin(2 * np.pi * rng.uniform(2_000, 5_000) * _t(160))
    return _made(wave + np.convolve(drops, tail)[:length])


def wind(rng: np.random.Generator, seconds: float) -> Pcm:
    length = int(seconds * SAMPLE_RATE)
    gusts = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * _t(length) + rng.uniform(0, 6))
    return _made(coloured(rng, length, 1.6, 30.0, float(rng.uniform(600.0, 1_500.0))) * gusts)


def sea_waves(rng: np.random.Generator, seconds: float) -> Pcm:
    length = int(seconds * SAMPLE_RATE)
    swell = np.sin(np.pi * _t(length) / rng.uniform(3.0, 7.0) + rng.uniform(0, 3)) ** 2
    return _made(coloured(rng, length, 1.0, 60.0, 6_000.0) * (0.2 + swell))


def clock_tick(rng: np.random.Generator, seconds: float) -> Pcm:
    length = int(seconds * SAMPLE_RATE)
    wave = np.zeros(length)
    period = rng.choice([0.5, 1.0, 0.25])
    for number, begin in enumerate(np.arange(0.02, seconds - 0.03, period)):
        t = _t(480)
        hz = rng.uniform(2_200, 2_600) * (1.15 if number % 2 else 1.0)
        place = int(begin * SAMPLE_RATE)
        wave[place : place + 480] += (np.sin(2 * np.pi * hz * t) * np.exp(-t / 0.004))[: length - place]
    return _made(wave)


def hum(rng: np.random.Generator, seconds: float) -> Pcm:
    """A refrigerator or a transformer."""
    t = _t(int(seconds * SAMPLE_RATE))
    base = rng.choice([50.0, 60.0]) * rng.choice([1, 2])
    return _made(np.asarray(sum(np.sin(2 * np.pi * base * n * t + rng.uniform(0, 6)) / n for n in range(1, 9))))


def engine(rng: np.random.Generator, seconds: float) -> Pcm:
    """Idling: a low buzz with uneven strokes."""
    length = int(seconds * SAMPLE_RATE)
    speed = rng.uniform(18.0, 45.0) * (1 + 0.03 * np.sin(2 * np.pi * 0.4 * _t(length)))
    phase = np.cumsum(speed) / SAMPLE_RATE
    strokes = np.exp(-6 * (phase % 1.0))
    return _made(strokes * (1 + coloured(rng, length, 1.0, 40.0, 1_200.0)) - strokes.mean())


def helicopter(rng: np.random.Generator, seconds: float) -> Pcm:
    """Rotor blades: low noise, chopped 10 to 20 times a second."""
    length = int(seconds * SAMPLE_RATE)
    chop = np.exp(-4 * ((_t(length) * rng.uniform(10.0, 20.0)) % 1.0))
    return _made(coloured(rng, length, 1.3, 40.0, 2_000.0) * (0.15 + chop))


def crackle(rng: np.random.Generator, seconds: float) -> Pcm:
    """A bad contact in the line: clicks at any time."""
    length = int(seconds * SAMPLE_RATE)
    wave = coloured(rng, length, 0.0) * 0.02
    for place in rng.integers(0, max(1, length - 40), int(seconds * rng.uniform(2, 12))):
        wave[place : place + 40] += rng.uniform(-0.6, 0.6) * np.exp(-np.arange(40) / rng.uniform(3, 12))
    return _made(wave)


def music(rng: np.random.Generator, seconds: float) -> Pcm:
    """Hold music of the plainest kind: chords of plucked overtones over a bass, a new one every beat."""
    length = int(seconds * SAMPLE_RATE)
    wave = np.zeros(length)
    beat, root = rng.uniform(0.3, 0.6), rng.uniform(110.0, 220.0)
    chords = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16))
    for number, begin in enumerate(np.arange(0.0, seconds, beat)):
        place = int(begin * SAMPLE_RATE)
        t = _t(min(length - place, 6 * SAMPLE_RATE))  # by then it has faded to less than 16 bits can tell
        chord = chords[(number // 4) % len(chords)]
        faded = np.exp(-t / 0.5)
        for step in (chord[0] - 12, *rng.choice(chord, 2) + 12):
            hz = root * 2 ** (step / 12)
            wave[place : place + len(t)] += sum(np.sin(2 * np.pi * hz * n * t) / n**1.5 for n in (1, 2, 3)) * faded
    return _made(wave)


SYNTHESISED: dict[str, Make] = {
    "smoke_alarm": smoke_alarm,
    "siren": siren,
    "backing_beeper": backing_beeper,
    "machine_beep": machine_beep,
    "phone_ringing": phone_ringing,
    "glass_breaking": glass_breaking,
    "fire_crackling": fire_crackling,
    "chainsaw": chainsaw,
    "rain": rain,
    "wind": wind,
    "sea_waves": sea_waves,
    "clock_tick": clock_tick,
    "hum": hum,
    "engine": engine,
    "helicopter": helicopter,
    "crackle": crackle,
    "music": music,
}
"""Class of the sound policy -> what makes it."""


def _wandering(rng: np.random.Generator, length: int, hz: float, depth: float) -> npt.NDArray[np.float64]:
    """About 1, drawn anew `hz` times a second and never below 0; `depth` is its deviation."""
    points = max(2, int(length / SAMPLE_RATE * hz) + 2)
    drawn = np.maximum(rng.normal(1.0, depth, points), 0.0)
    return np.interp(np.linspace(0, points - 1, length), np.arange(points), drawn)


def _t(length: int) -> npt.NDArray[np.float64]:
    return np.arange(length) / SAMPLE_RATE


def _made(wave: npt.NDArray[np.floating]) -> Pcm:
    """Peak 0.5."""
    peak = float(np.abs(wave).max()) if len(wave) else 0.0
    made: Pcm = (np.asarray(wave) * (0.5 / peak if peak else 0.0)).astype(np.float32)
    return made
