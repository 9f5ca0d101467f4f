"""The interruption path on real sounds: recorded digits, sneezes, clocks, a hummed "mhm", noise, echo."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.audio import FRAME_SAMPLES, SAMPLE_RATE
from calls.errors import IllegalTransition
from telephony.barge_in import PATIENCE, TRANSITIONS, Happening, Interruption, State, Verdict
from telephony.voice_activity import EchoEstimate, NoiseFloor, SileroNet
from tests.telephony.sounds import DATA, DIGITS, Samples, frames, hummed, load, noise, over, spoken

AFTER_MS = 700


@pytest.fixture(scope="module")
def net() -> SileroNet:
    return SileroNet()


@dataclass
class Line:
    """An answer that plays to a caller, whose line may echo it."""

    path: Interruption
    echo_gain: float = 0.0
    echo_delay: int = 7  # Frames
    verdicts: list[tuple[int, Verdict]] = field(default_factory=list)  # at which sample of the caller's track

    def run(self, caller: Samples, answer: Samples) -> list[Verdict]:
        said, place, paused = frames(answer), 0, False
        silence = np.zeros(FRAME_SAMPLES)
        echoes = [silence] * self.echo_delay
        for number, frame in enumerate(frames(caller)):
            heard = np.frombuffer(frame, "<i2") + self.echo_gain * echoes[number]
            verdict = self.path.hear(heard.clip(-32768, 32767).astype("<i2").tobytes(), answering=True)
            if verdict:
                self.verdicts.append(((number + 1) * FRAME_SAMPLES, verdict))
                paused = verdict is not Verdict.RESUME
            if verdict is Verdict.INTERRUPT:
                break
            out = bytes(2 * FRAME_SAMPLES) if paused else said[place % len(said)]
            place += not paused
            self.path.said(out)
            echoes.append(np.frombuffer(out, "<i2").astype(float))
        return [verdict for _, verdict in self.verdicts]


def onset(sound: Samples) -> int:
    blocks = sound[: len(sound) // 160 * 160].reshape(-1, 160).astype(float)
    levels = np.sqrt((blocks**2).mean(axis=1))
    return int(np.flatnonzero(levels > levels.max() / 10)[0]) * 160


ANSWER = spoken(12, first=3)


def test_a_spoken_word_pauses_within_samples_of_its_onset(net: SileroNet) -> None:
    latencies = []
    for digit in DIGITS:
        line = Line(Interruption(net, AFTER_MS))
        caller = over(load(digit), 1.0, noise(3.0))
        verdicts = line.run(caller, ANSWER)
        assert verdicts[:1] == [Verdict.PAUSE], digit.name
        latencies.append(line.verdicts[0][0] - SAMPLE_RATE - onset(load(digit)))
    assert np.percentile(latencies, 50) <= 0.12 * SAMPLE_RATE
    assert np.percentile(latencies, 95) <= 0.20 * SAMPLE_RATE


def test_one_word_is_not_enough_to_stop_the_answer(net: SileroNet) -> None:
    """No word of StopSaying: it goes on half a second after the voice has ended."""
    for digit in DIGITS[::4]:
        verdicts = Line(Interruption(net, AFTER_MS)).run(over(load(digit), 1.0, noise(3.0)), ANSWER)
        assert verdicts == [Verdict.PAUSE, Verdict.RESUME], digit.name


@pytest.mark.parametrize("first", range(6))
def test_a_sentence_stops_it(net: SileroNet, first: int) -> None:
    line = Line(Interruption(net, AFTER_MS))
    assert line.run(over(spoken(5, first), 1.0, noise(5.0)), ANSWER) == [Verdict.PAUSE, Verdict.INTERRUPT]
    (paused, _), (stopped, _) = line.verdicts
    assert stopped - paused >= (AFTER_MS - 300) * SAMPLE_RATE // 1000, "not before the voice has lasted"


@pytest.mark.parametrize("pitch_hz", [95, 120, 150, 180, 210, 240])
def test_a_hummed_mhm_never_stops_it(net: SileroNet, pitch_hz: int) -> None:
    verdicts = Line(Interruption(net, AFTER_MS)).run(over(hummed(pitch_hz), 1.0, noise(3.5)), ANSWER)
    assert verdicts in ([], [Verdict.PAUSE, Verdict.RESUME])


def test_a_synthetic_mhm_never_stops_it(net: SileroNet) -> None:
    mhm = load(DATA / "noises" / "mhm.wav")
    verdicts = Line(Interruption(net, AFTER_MS)).run(over(mhm, 1.0, noise(3.5)), ANSWER)
    assert Verdict.INTERRUPT not in verdicts


@pytest.mark.parametrize("name", ["1-26143-A", "1-31748-A", "2-109505-A", "1-62849-A", "2-140147-A"])
def test_sneezes_and_clocks_never_stop_it(net: SileroNet, name: str) -> None:
    sound = load(DATA / "noises" / f"{name}.ogg")
    verdicts = Line(Interruption(net, AFTER_MS)).run(over(sound, 1.0, noise(len(sound) / SAMPLE_RATE + 2)), ANSWER)
    assert Verdict.INTERRUPT not in verdicts
    assert verdicts.count(Verdict.PAUSE) == verdicts.count(Verdict.RESUME)


@pytest.mark.parametrize("level", [0.0, 20.0, 300.0, 3000.0])
def test_line_noise_does_nothing(net: SileroNet, level: float) -> None:
    assert Line(Interruption(net, AFTER_MS)).run(noise(6.0, level), ANSWER) == []


@pytest.mark.parametrize("echo_db", [-10, -16, -24])
def test_an_echoing_line_stumbles_once_and_can_still_be_interrupted(net: SileroNet, echo_db: int) -> None:
    line = Line(Interruption(net, AFTER_MS), echo_gain=10 ** (echo_db / 20))
    caller = over(spoken(5), 9.0, noise(14.0))
    verdicts = line.run(caller, ANSWER)
    before = [verdict for at, verdict in line.verdicts if at < 9.0 * SAMPLE_RATE]
    assert before in ([], [Verdict.PAUSE, Verdict.RESUME])
    assert verdicts[len(before) :] == [Verdict.PAUSE, Verdict.INTERRUPT]


def test_it_hears_nothing_while_nothing_is_said(net: SileroNet) -> None:
    path = Interruption(net, AFTER_MS)
    assert [path.hear(frame, answering=False) for frame in frames(spoken(3))] == [None] * len(frames(spoken(3)))
    assert path.state is State.IDLE


def test_a_caller_who_speaks_already_when_the_answer_begins_is_heard_at_once(net: SileroNet) -> None:
    speech = frames(over(spoken(3, first=2), 0.5, noise(3.0)))
    playing = Interruption(net, AFTER_MS)
    found = next(n for n, frame in enumerate(speech) if playing.hear(frame, answering=True))
    path = Interruption(net, AFTER_MS)
    for frame in speech[: found + 1]:
        assert path.hear(frame, answering=False, coming=True) is None
    assert path.hear(speech[found + 1], answering=True) is Verdict.PAUSE


def test_an_answer_that_follows_an_interrupted_one_at_once_is_listened_to(net: SileroNet) -> None:
    path = Interruption(net, AFTER_MS)
    speech = iter(frames(over(spoken(5), 1.0, noise(5.0))))
    while path.hear(next(speech), answering=True, answer="a1") is not Verdict.INTERRUPT:
        pass
    assert path.state is State.INTERRUPTED
    path.hear(frames(noise(0.02))[0], answering=True, answer="a2")
    assert path.state in (State.LISTENING, State.PAUSED)


@given(st.lists(st.sampled_from(Happening), max_size=12))
def test_an_illegal_happening_changes_nothing(happenings: list[Happening]) -> None:
    path = Interruption.__new__(Interruption)
    path.state = State.IDLE
    for happening in happenings:
        before = path.state
        if (before, happening) in TRANSITIONS:
            path._go(happening)
            assert path.state is TRANSITIONS[before, happening]
        else:
            with pytest.raises(IllegalTransition):
                path._go(happening)
            assert path.state is before


def test_patience_ends_after_the_voice_not_after_the_pause(net: SileroNet) -> None:
    line = Line(Interruption(net, AFTER_MS))
    word = load(DIGITS[0])
    line.run(over(word, 1.0, noise(3.0)), ANSWER)
    (_, _), (resumed, _) = line.verdicts
    assert resumed >= SAMPLE_RATE + onset(word) + PATIENCE


def test_the_noise_floor_falls_at_once_and_rises_slowly() -> None:
    floor = NoiseFloor()
    floor.hear(30.0)
    assert floor.level == 30.0
    for _ in range(50):
        floor.hear(3000.0)
    assert 40.0 < floor.level < 45.0, "3 dB in a second"
    floor.hear(0.0)
    assert floor.level > 40.0, "digital silence is not the line's noise"


def test_the_echo_estimate_finds_delay_and_gain_and_forgets_an_echo_that_ended() -> None:
    echo = EchoEstimate()
    levels = [float(np.sqrt((np.frombuffer(f, "<i2").astype(float) ** 2).mean())) for f in frames(spoken(20))]
    for n, played in enumerate(levels[:250]):
        echo.hear(20.0 + 0.2 * (levels[n - 9] if n >= 9 else 0.0), played)
    assert echo.lag == 9
    assert echo.gain == pytest.approx(0.2, rel=0.35)
    for played in levels[250:]:
        echo.hear(5.0, played)
    assert echo.gain < 0.05
