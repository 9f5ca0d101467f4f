"""One call without a network and without a clock: legs in memory, ticks by hand, events in a list."""

from __future__ import annotations

import asyncio
import threading
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from calls.audio import CHUNK_FRAMES, CHUNK_SAMPLES, FRAME_S, FRAME_SAMPLES, SILENT_FRAME, Frame
from calls.events import (
    AudioChunk,
    BargeIn,
    CallAccepted,
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    HangUp,
    HoldChanged,
    Notice,
    PlayoutEnded,
    PlayoutResumed,
    PlayoutStarted,
    RecordingSaved,
    Say,
    Speech,
    StopSaying,
)
from calls.model import Happening, Mode, Role, State
from telephony import recorder
from telephony.bridge import LegEvents, Offer
from telephony.recorder import Recorder
from telephony.session import AGENT_COMES, FAREWELL, Parts, Session
from telephony.ticker import PHASES, Ticker
from telephony.voice_activity import SileroNet
from tests.telephony.legs import MemoryLeg
from tests.telephony.sounds import DIGITS, Samples, frames, load, noise, over, spoken

DELAY = 3  # Frames between writing and playing
pytestmark = pytest.mark.timeout(60)


@dataclass
class House:
    """What a call needs, and what it posted."""

    root: Path
    posted: list[tuple[str, Event]] = field(default_factory=list)
    ticker: Ticker = field(default_factory=Ticker)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.root)
        self.parts = Parts(
            lambda stream, event: self.posted.append((stream, event)), self.ticker, self.recorder, NET, 700
        )

    def call(self, mode: Mode, *roles: Role) -> Session:
        self.session = Session("0call", Offer("test", "100", "200", roles=roles or (Role.CALLER,)), mode, self.parts)
        self.session.offer()
        self.life = asyncio.create_task(self.session.run())
        return self.session

    def tick(self, count: int) -> None:
        for _ in range(count * PHASES):
            self.ticker.step()

    async def over(self) -> CallEnded:
        await self.life
        last = self.posted[-1][1]
        assert isinstance(last, CallEnded)
        return last

    def of(self, kind: type[Event]) -> list[Event]:
        return [
            event for stream, event in self.posted if stream.startswith(("call:", "audio:")) and isinstance(event, kind)
        ]

    def heard(self, participant: str) -> bytes:
        """What the model was given of one participant."""
        chunks = [e for e in self.of(AudioChunk) if isinstance(e, AudioChunk) and e.participant_id == participant]
        assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
        return b"".join(chunk.pcm for chunk in chunks)

    def recorded(self) -> np.ndarray:
        (saved,) = self.of(RecordingSaved)
        assert isinstance(saved, RecordingSaved)
        with wave.open(str(self.root / saved.path)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


NET = SileroNet()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    if not house.life.done():
        house.session.end(Happening.LOST, "the test is over")
    await asyncio.gather(house.life, return_exceptions=True)
    house.recorder.close()


def speech(answer: str, sound: Samples, text: str, seq: int = 0, last: bool = True) -> Speech:
    pcm = sound.astype("<i2").tobytes()
    return Speech(call_id="0call", answer_id=answer, seq=seq, piece=0, pcm=pcm, text=text, last=last)


def joined(session: Session, leg: MemoryLeg) -> LegEvents:
    events = LegEvents()
    session.join(leg.participant.role, leg, events)
    return events


def samples(played: list[Frame]) -> np.ndarray:
    return np.frombuffer(b"".join(played), "<i2")


# --- hearing --------------------------------------------------------------------------------------------------------


async def test_chunks_recording_and_call_are_one_clock(house: House) -> None:
    said = frames(spoken(8))
    call = house.call(Mode.TRANSCRIBE)
    events = joined(call, MemoryLeg(Role.CALLER, said))
    house.tick(len(said))
    events.closed("hung up", False)
    ended = await house.over()
    heard = house.heard("caller")
    assert len(heard) % (2 * CHUNK_SAMPLES) == 0
    assert heard[: 640 * len(said)] == b"".join(said)
    assert house.recorded()[:, 0].tobytes() == b"".join(said), "the recording is the Chunks, sample for sample"
    assert ended.duration_s == pytest.approx(len(said) * FRAME_S)
    assert (ended.state, ended.reason) == (State.ENDED, "hung up")


async def test_lost_frames_are_concealed_and_counted(house: House) -> None:
    said: list[Frame | None] = [*frames(spoken(2))[:40]]
    said[10] = said[11] = said[30] = None
    call = house.call(Mode.TRANSCRIBE)
    joined(call, MemoryLeg(Role.CALLER, said))
    house.tick(40)
    chunks = [e for e in house.of(AudioChunk) if isinstance(e, AudioChunk)]
    assert [chunk.lost for chunk in chunks] == [2, 1]
    assert np.any(np.frombuffer(chunks[0].pcm, "<i2")[10 * FRAME_SAMPLES : 11 * FRAME_SAMPLES])


async def test_a_party_that_comes_later_has_silence_from_the_first_chunk_on(house: House) -> None:
    call = house.call(Mode.ASSIST)
    joined(call, MemoryLeg(Role.CALLER, frames(spoken(9))))
    house.tick(2 * CHUNK_FRAMES + 5)
    agent = frames(spoken(3, first=7))[:20]
    joined(call, MemoryLeg(Role.HUMAN_AGENT, agent))
    house.tick(3 * CHUNK_FRAMES)
    heard = house.heard("human_agent")
    start = 640 * (2 * CHUNK_FRAMES + 5)
    assert not any(heard[:start])
    assert heard[start : start + 640 * 20] == b"".join(agent)
    assert len(heard) == len(house.heard("caller"))


# --- two people -----------------------------------------------------------------------------------------------------


async def test_caller_and_agent_hear_each_other(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, frames(spoken(4)))
    agent = MemoryLeg(Role.HUMAN_AGENT, frames(spoken(4, first=11)))
    call = house.call(Mode.ASSIST)
    said = [*caller._says], [*agent._says]
    joined(call, caller)
    events = joined(call, agent)
    house.tick(60)
    assert agent.played == said[0][:60]
    assert caller.played == said[1][:60]
    events.closed("the agent hung up", False)
    await house.over()
    assert caller.hung_up == "the agent hung up"
    recorded = house.recorded()
    assert recorded[:, 0].tobytes() == b"".join(said[0][:60])  # type: ignore[arg-type]
    assert recorded[:, 1].tobytes() == b"".join(said[1][:60])  # type: ignore[arg-type]


async def test_who_is_held_hears_nothing_and_is_not_heard(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, frames(spoken(4)))
    agent = MemoryLeg(Role.HUMAN_AGENT, frames(spoken(4, first=11)))
    call = house.call(Mode.ASSIST)
    events = joined(call, caller)
    joined(call, agent)
    house.tick(5)
    events.held(True)
    events.held(True)
    house.tick(5)
    events.held(False)
    house.tick(5)
    assert caller.played[5:10] == [SILENT_FRAME] * 5 == agent.played[5:10]
    assert SILENT_FRAME not in caller.played[:5] + caller.played[10:]
    assert [(e.held, e.at_s) for e in house.of(HoldChanged) if isinstance(e, HoldChanged)] == [
        (True, 0.1),
        (False, 0.2),
    ]


async def test_an_agent_who_does_not_come_ends_the_call(house: House) -> None:
    call = house.call(Mode.ASSIST)
    caller = MemoryLeg(Role.CALLER)
    joined(call, caller)
    house.tick(AGENT_COMES // FRAME_SAMPLES)
    ended = await house.over()
    assert (ended.state, ended.reason, caller.hung_up) == (State.ENDED, "no agent came", "no agent came")


# --- answers --------------------------------------------------------------------------------------------------------


async def test_an_answer_goes_to_the_caller_and_onto_the_right_channel(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, delay=DELAY)
    call = house.call(Mode.ANSWER)
    events = joined(call, caller)
    house.tick(10)
    answer = spoken(3)
    call.receive(Say(call_id="0call", answer_id="greeting", seq=0, text="Hello.", last=True))
    call.receive(speech("greeting", answer, "Hello."))
    house.tick(len(frames(answer)) + 20)
    started, ended = house.of(PlayoutStarted)[0], house.of(PlayoutEnded)[0]
    assert isinstance(started, PlayoutStarted)
    assert isinstance(ended, PlayoutEnded)
    assert started.at_s == pytest.approx(0.2)
    assert (ended.heard_text, ended.interrupted) == ("Hello.", False)
    assert samples(caller.played)[10 * FRAME_SAMPLES :][: len(answer)].tolist() == answer.tolist()
    events.closed("bye", False)
    await house.over()
    assert house.recorded()[10 * FRAME_SAMPLES :, 1][: len(answer)].tolist() == answer.tolist()
    assert house.heard("caller") == bytes(len(house.heard("caller"))), "the voice agent is not sent to the model"


async def interrupted(house: House, sound: Samples, until: Callable[[], bool]) -> tuple[Session, MemoryLeg]:
    """A long answer over which the caller makes a sound after one second."""
    caller = MemoryLeg(Role.CALLER, frames(over(sound, 1.0, noise(6.0))), delay=DELAY)
    call = house.call(Mode.ANSWER)
    joined(call, caller)
    call.receive(speech("a", spoken(10, first=4), " ".join(str(n) for n in range(100))))
    for _ in range(300):
        if until():
            break
        house.tick(1)
    return call, caller


async def test_a_caller_who_goes_on_speaking_ends_the_answer(house: House) -> None:
    _, caller = await interrupted(house, spoken(5), lambda: bool(house.of(PlayoutEnded)))
    (barged,), (ended,) = house.of(BargeIn), house.of(PlayoutEnded)
    assert isinstance(barged, BargeIn)
    assert isinstance(ended, PlayoutEnded)
    assert ended.interrupted
    assert not house.of(PlayoutResumed)
    house.tick(20)
    played = samples(caller.played)
    last = int(np.flatnonzero(played)[-1]) + 1
    barged_at = round(barged.at_s / FRAME_S)
    assert last <= barged_at * FRAME_SAMPLES, "nothing goes out after the pause"
    total = len(spoken(10, first=4))
    heard = ended.heard_text.split()
    assert heard == [str(n) for n in range(len(heard))]
    assert len(ended.heard_text) / len(" ".join(str(n) for n in range(100))) == pytest.approx(last / total, abs=0.03)


async def test_the_next_answer_can_be_interrupted_too(house: House) -> None:
    """It was there already when the first was interrupted, and begins one Frame after that one's end."""
    sentence = spoken(5)
    caller = MemoryLeg(Role.CALLER, frames(over(sentence, 1.0, over(sentence, 10.0, noise(16.0)))), DELAY)
    call = house.call(Mode.ANSWER)
    joined(call, caller)
    for answer in ("a1", "a2"):
        call.receive(speech(answer, spoken(30, first=4), "Hello there."))
    house.tick(800)
    told = [e for e in house.of(Event) if isinstance(e, PlayoutStarted | PlayoutEnded)]
    assert [(type(e), e.answer_id) for e in told] == [
        (PlayoutStarted, "a1"),
        (PlayoutEnded, "a1"),
        (PlayoutStarted, "a2"),
        (PlayoutEnded, "a2"),
    ]
    assert all(e.interrupted for e in told if isinstance(e, PlayoutEnded))
    assert round((told[2].at_s - told[1].at_s) / FRAME_S) == 1


async def test_a_word_that_is_not_meant_lets_the_answer_go_on_where_it_was_heard(house: House) -> None:
    call, caller = await interrupted(house, load(DIGITS[2]), lambda: bool(house.of(PlayoutEnded)))
    assert [type(e) for e in house.of(Event) if isinstance(e, BargeIn | PlayoutResumed | PlayoutEnded)] == [
        BargeIn,
        PlayoutResumed,
        PlayoutEnded,
    ]
    (ended,) = house.of(PlayoutEnded)
    assert isinstance(ended, PlayoutEnded)
    assert not ended.interrupted
    answer = spoken(10, first=4)
    (barged,), (resumed,) = house.of(BargeIn), house.of(PlayoutResumed)
    assert isinstance(barged, BargeIn)
    assert isinstance(resumed, PlayoutResumed)
    house.tick(DELAY)
    # The leg plays what was written DELAY Frames ago; the flush took those back, and they are said again.
    played = samples(caller.played)
    heard = (round(barged.at_s / FRAME_S) - DELAY) * FRAME_SAMPLES
    assert played[:heard].tolist() == answer[:heard].tolist()
    rest = answer[heard:]
    again = played[heard:]
    offset = int(np.flatnonzero(again)[0]) - int(np.flatnonzero(rest)[0])
    assert again[offset : offset + len(rest)].tolist() == rest.tolist()
    call.end(Happening.HUNG_UP, "done")
    await house.over()
    recorded = house.recorded()[:, 1]
    assert np.abs(recorded.astype(int)).sum() == np.abs(answer.astype(int)).sum(), "no sample twice, none missing"


async def test_the_agent_service_may_stop_a_paused_answer_at_once(house: House) -> None:
    call, _ = await interrupted(house, load(DIGITS[2]), lambda: bool(house.of(BargeIn)))
    call.receive(StopSaying(call_id="0call", answer_id="a", reason="stop"))
    house.tick(60)
    (ended,) = house.of(PlayoutEnded)
    assert isinstance(ended, PlayoutEnded)
    assert ended.interrupted
    assert not house.of(PlayoutResumed)
    call.receive(speech("b", spoken(1), "Yes?"))
    house.tick(60)
    assert [e.answer_id for e in house.of(PlayoutEnded) if isinstance(e, PlayoutEnded)] == ["a", "b"]


async def test_stop_saying_flushes_the_leg(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, delay=5)
    call = house.call(Mode.ANSWER)
    joined(call, caller)
    call.receive(speech("a", spoken(5), "one two three four"))
    house.tick(20)
    call.receive(StopSaying(call_id="0call", answer_id="a", reason="policy"))
    house.tick(20)
    assert len(caller.played) == 15 + 20 - 5
    assert caller.played[15:] == [SILENT_FRAME] * 15
    call.end(Happening.HUNG_UP, "done")
    await house.over()
    assert not np.any(house.recorded()[15 * FRAME_SAMPLES :, 1])


async def test_hanging_up_waits_for_what_is_still_to_be_said(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, delay=DELAY)
    call = house.call(Mode.ANSWER)
    joined(call, caller)
    call.receive(Say(call_id="0call", answer_id="bye", seq=0, text="Goodbye.", last=True))
    call.receive(HangUp(call_id="0call", reason="goodbye"))
    house.tick(20)
    assert not call.over, "its speech is still being made"
    goodbye = spoken(1)
    call.receive(speech("bye", goodbye, "Goodbye."))
    house.tick(len(frames(goodbye)) + DELAY + 2)
    ended = await house.over()
    assert (ended.state, ended.reason) == (State.ENDED, "goodbye")
    assert [e.heard_text for e in house.of(PlayoutEnded) if isinstance(e, PlayoutEnded)] == ["Goodbye."]
    assert samples(caller.played)[20 * FRAME_SAMPLES :][: len(goodbye)].tolist() == goodbye.tolist()


async def test_a_voice_that_never_comes_does_not_keep_the_line(house: House) -> None:
    call = house.call(Mode.ANSWER)
    joined(call, MemoryLeg(Role.CALLER))
    for n in range(4):
        call.receive(Say(call_id="0call", answer_id=f"a{n}", seq=0, text="Lost.", last=True))
    call.receive(HangUp(call_id="0call", reason="goodbye"))
    house.tick(FAREWELL // FRAME_SAMPLES)
    assert (await house.over()).reason == "goodbye"


async def test_an_answer_in_flight_ends_before_the_call_does(house: House) -> None:
    caller = MemoryLeg(Role.CALLER, delay=DELAY)
    call = house.call(Mode.ANSWER)
    events = joined(call, caller)
    call.receive(speech("a", spoken(5), "one two three four five six"))
    house.tick(30)
    events.closed("hung up", False)
    await house.over()
    kinds = [type(event) for stream, event in house.posted if stream == "call:0call"]
    assert kinds[-3:] == [PlayoutEnded, RecordingSaved, CallEnded]
    (ended,) = house.of(PlayoutEnded)
    assert isinstance(ended, PlayoutEnded)
    assert ended.interrupted


# --- life -----------------------------------------------------------------------------------------------------------


async def test_a_lost_transport_fails_the_call(house: House) -> None:
    call = house.call(Mode.ANSWER)
    events = joined(call, MemoryLeg(Role.CALLER))
    house.tick(5)
    events.closed("no RTP", True)
    events.closed("hung up", False)
    events.dtmf("1")
    ended = await house.over()
    assert (ended.state, ended.reason) == (State.FAILED, "no RTP")
    assert not house.of(Dtmf)


async def test_keys_carry_the_time_of_the_call(house: House) -> None:
    call = house.call(Mode.ANSWER)
    events = joined(call, MemoryLeg(Role.CALLER))
    house.tick(50)
    events.dtmf("#")
    assert house.of(Dtmf) == [Dtmf(call_id="0call", participant_id="caller", digit="#", at_s=1.0)]


class BrokenLeg(MemoryLeg):
    def read(self) -> Frame | None:
        raise RuntimeError("a bug in a bridge")

    async def hang_up(self, reason: str) -> None:
        raise RuntimeError("another")


async def test_a_bug_in_a_leg_ends_its_call_with_its_last_events(house: House) -> None:
    call = house.call(Mode.ANSWER)
    joined(call, BrokenLeg(Role.CALLER))
    house.tick(3)
    ended = await house.over()
    assert (ended.state, ended.reason) == (State.FAILED, "internal error: RuntimeError")


async def test_a_call_that_was_never_answered_is_refused_and_not_recorded(house: House) -> None:
    call = house.call(Mode.ANSWER)
    call.receive(CallAccepted(call_id="0call", worker="w", model="m"))
    assert call.accepted.is_set()
    call.end(Happening.HUNG_UP, "cancelled")
    ended = await house.over()
    assert (ended.state, ended.duration_s) == (State.REFUSED, 0.0)
    assert not house.of(RecordingSaved)
    assert not house.of(CallStarted)


async def test_a_cancelled_call_says_how_it_ended(house: House) -> None:
    call = house.call(Mode.ANSWER)
    caller = MemoryLeg(Role.CALLER)
    joined(call, caller)
    house.tick(5)
    await asyncio.sleep(0)
    house.life.cancel()
    with pytest.raises(asyncio.CancelledError):
        await house.life
    assert house.of(CallEnded)
    assert caller.hung_up


async def test_a_disk_that_hangs_does_not_keep_back_the_calls_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CLOSE_S", 0.05)
    call = house.call(Mode.ANSWER)
    joined(call, MemoryLeg(Role.CALLER))
    house.tick(150)  # of which the writer is given two seconds
    on_disk, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        on_disk.set()
        hangs.wait()

    house.recorder.submit(hang)
    await asyncio.to_thread(on_disk.wait)
    call.end(Happening.HUNG_UP, "done")
    try:
        assert (await house.over()).state is State.ENDED
    finally:
        hangs.set()
    (saved,) = house.of(RecordingSaved)
    assert isinstance(saved, RecordingSaved)
    assert (saved.complete, saved.duration_s) == (False, 2.0)
    house.recorder.close()
    assert len(house.recorded()) == 150 * FRAME_SAMPLES, "the writer did it in the end"


async def test_a_full_disk_is_noted_and_the_call_goes_on(house: House) -> None:
    call = house.call(Mode.ANSWER)
    events = joined(call, MemoryLeg(Role.CALLER))
    assert call._recording is not None
    path = house.root / "full.wav"
    path.symlink_to("/dev/full")
    call._recording._path = path
    house.tick(150)
    for _ in range(50):
        if house.of(Notice):
            break
        await asyncio.sleep(0.02)
    house.tick(150)
    (notice,) = house.of(Notice)
    assert isinstance(notice, Notice)
    assert notice.kind == "recording"
    assert "No space left" in notice.text
    assert len(house.of(AudioChunk)) == 300 // CHUNK_FRAMES
    events.closed("bye", False)
    assert (await house.over()).state is State.ENDED
    (saved,) = house.of(RecordingSaved)
    assert isinstance(saved, RecordingSaved)
    assert not saved.complete
