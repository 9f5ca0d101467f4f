from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from calls.audio import FRAME_BYTES, FRAME_SAMPLES, SILENT_FRAME
from calls.events import Event, PlayoutEnded, PlayoutResumed, PlayoutStarted, Speech
from calls.model import Role
from telephony.playout import DROUGHT, Playout, Spoken
from tests.telephony.legs import MemoryLeg


def piece(
    answer: str, seq: int, number: int, samples: int, text: str = "", last: bool = False, fill: int = 1
) -> Speech:
    return Speech(
        call_id="c", answer_id=answer, seq=seq, piece=number, pcm=bytes([fill, 0]) * samples, text=text, last=last
    )


class Player:
    """A Playout and a leg with a delay, on one clock."""

    def __init__(self, delay: int = 0) -> None:
        self.playout = Playout("c")
        self.leg = MemoryLeg(Role.CALLER, delay=delay)
        self.now = 0
        self.events: list[Event] = []

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            frame, events = self.playout.next_frame(self.now, self.leg.unplayed())
            self.leg.write(frame)
            self.events += events
            self.now += FRAME_SAMPLES

    def pause(self) -> None:
        self.playout.pause(self.leg.flush())

    def resume(self) -> None:
        self.events += self.playout.resume(self.now)

    def stop(self, answer: str) -> None:
        playing = self.playout.current == answer and not self.playout.paused
        self.events += self.playout.stop(answer, self.now, self.leg.flush() if playing else 0)

    @property
    def heard(self) -> bytes:
        """Every sample of speech that was played (fill bytes), without the silence around it."""
        return b"".join(self.leg.played)[::2].replace(b"\0", b"")

    def ended(self) -> list[tuple[str, str, bool]]:
        return [(e.answer_id, e.heard_text, e.interrupted) for e in self.events if isinstance(e, PlayoutEnded)]


def test_an_answer_is_played_whole_and_ends_when_it_is_heard() -> None:
    player = Player(delay=5)
    player.playout.push(piece("a", 0, 0, 1000, "Hello there."))
    player.playout.push(piece("a", 0, 1, 500))
    player.playout.push(piece("a", 1, 0, 777, "How are you?", last=True))
    player.tick(8)
    assert player.ended() == [], "written, but the leg has not played it"
    player.tick(10)
    assert len(player.heard) == 2277
    assert player.ended() == [("a", "Hello there. How are you?", False)]
    assert isinstance(player.events[0], PlayoutStarted)
    assert player.playout.idle


def test_an_interrupted_answer_ends_with_the_last_word_that_was_heard() -> None:
    player = Player(delay=2)
    player.playout.push(piece("a", 0, 0, 3200, "Ten frames of clause."))
    player.playout.push(piece("a", 1, 0, 3200, "One two three four five six", last=True))
    player.tick(17)  # 15 Frames heard: the first clause and half of the second
    player.pause()
    player.tick(30)
    player.stop("a")
    assert player.ended() == [("a", "Ten frames of clause. One two three", True)]


def test_a_resumed_answer_loses_no_sample() -> None:
    player = Player(delay=4)
    for number in range(10):
        player.playout.push(piece("a", 0, number, 640, "x", last=number == 9, fill=number + 1))
    player.tick(9)
    player.pause()
    player.tick(20)
    player.resume()
    player.tick(40)
    assert player.heard == b"".join(bytes([n]) * 640 for n in range(1, 11))
    assert sum(isinstance(e, PlayoutResumed) for e in player.events) == 1


def test_a_stopped_answer_never_speaks() -> None:
    player = Player()
    player.playout.push(piece("a", 0, 0, 3200, "A", last=True))
    player.playout.push(piece("b", 0, 0, 640, "B", last=True, fill=2))
    player.tick(2)
    player.stop("a")
    player.stop("c")
    player.playout.push(piece("a", 1, 0, 640, "late", last=True, fill=3))
    player.playout.push(piece("c", 0, 0, 640, "stopped before it came", last=True, fill=4))
    player.tick(10)
    assert player.heard == b"\1" * 640 + b"\2" * 640
    assert player.ended() == [("a", "", True), ("b", "B", False)]


def test_a_later_answer_waits_for_one_that_was_announced() -> None:
    player = Player()
    player.playout.expect("a")
    player.playout.push(piece("b", 0, 0, 640, "B", last=True, fill=2))
    player.tick(5)
    assert not player.playout.idle
    player.playout.push(piece("a", 0, 0, 640, "A", last=True))
    player.tick(10)
    assert player.heard == b"\1" * 640 + b"\2" * 640


def test_an_answer_that_dries_up_is_closed() -> None:
    player = Player()
    player.playout.push(piece("a", 0, 0, 640, "cut"))
    player.playout.push(piece("b", 0, 0, 640, "B", last=True, fill=2))
    player.tick(DROUGHT // FRAME_SAMPLES + 10)
    assert player.ended() == [("a", "cut", False), ("b", "B", False)]


def test_speech_that_comes_again_is_played_once() -> None:
    player = Player()
    for _ in range(2):
        player.playout.push(piece("a", 0, 0, 640, "one"))
        player.playout.push(piece("a", 1, 0, 640, "two", last=True, fill=2))
    player.tick(10)
    player.playout.push(piece("a", 0, 0, 640, "one", last=True))
    player.tick(10)
    assert player.heard == b"\1" * 640 + b"\2" * 640
    assert player.ended() == [("a", "one two", False)]


def test_an_empty_last_piece_closes_the_answer() -> None:
    player = Player()
    player.playout.push(piece("a", 0, 0, 100, "Short."))
    player.tick(3)
    assert player.heard == b"", "less than a Frame waits for more"
    player.playout.push(piece("a", 1, 0, 0, last=True))
    player.tick(3)
    assert len(player.heard) == 100
    assert player.ended() == [("a", "Short.", False)]


words = st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.tuples(words, st.integers(1, 4000)), min_size=1, max_size=5), st.data())
def test_heard_text_grows_word_by_word_with_what_is_heard(clauses: list[tuple[str, int]], data: st.DataObject) -> None:
    answer = Spoken("a")
    for seq, (text, samples) in enumerate(clauses):
        answer.take(piece("a", seq, 0, samples, text))
    whole = " ".join(text for text, _ in clauses).split()
    heard = sorted(data.draw(st.lists(st.integers(0, answer.samples), min_size=2, max_size=6)))
    texts = [answer.heard_text(samples).split() for samples in heard]
    for text in texts:
        assert text == whole[: len(text)]
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    assert answer.heard_text(0) == ""
    assert answer.heard_text(answer.samples).split() == whole


class PlayoutMachine(RuleBasedStateMachine):
    """Whatever happens, in any order: samples come out once and in order, events come in pairs."""

    @initialize(delay=st.integers(0, 12))
    def start(self, delay: int) -> None:
        self.player = Player(delay)
        self.sent: dict[str, int] = {}
        self.complete: set[str] = set()
        self.stopped: set[str] = set()

    @rule(answer=st.sampled_from("abcd"), samples=st.integers(0, 1500), last=st.booleans())
    def speak(self, answer: str, samples: int, last: bool) -> None:
        number = self.sent.get(answer, 0)
        self.sent[answer] = number + 1
        fill = ord(answer)
        self.player.playout.push(piece(answer, number // 3, number % 3, samples, "word", last, fill))
        if last:
            self.complete.add(answer)

    @rule(count=st.integers(1, 8))
    def tick(self, count: int) -> None:
        self.player.tick(count)

    @precondition(lambda self: self.player.playout.current and not self.player.playout.paused)
    @rule()
    def pause(self) -> None:
        self.player.pause()

    @precondition(lambda self: self.player.playout.paused)
    @rule()
    def resume(self) -> None:
        self.player.resume()

    @rule(answer=st.sampled_from("abcd"))
    def stop(self, answer: str) -> None:
        self.player.stop(answer)
        self.stopped.add(answer)

    @invariant()
    def every_frame_is_whole(self) -> None:
        assert all(len(frame) == FRAME_BYTES for frame in self.player.leg.played[-8:])

    @invariant()
    def an_answer_starts_before_it_ends_and_ends_once(self) -> None:
        events = self.player.events
        started = [e.answer_id for e in events if isinstance(e, PlayoutStarted)]
        ended = [e.answer_id for e in events if isinstance(e, PlayoutEnded)]
        assert len(set(started)) == len(started)
        assert len(set(ended)) == len(ended)
        for answer in started[:-1]:
            assert answer in ended, "one at a time"

    @invariant()
    def answers_do_not_mix(self) -> None:
        heard = self.player.heard
        runs = [heard[i] for i in range(len(heard)) if i == 0 or heard[i] != heard[i - 1]]
        assert len(runs) == len(set(runs)), "an answer that is over does not come back"

    def teardown(self) -> None:
        if not hasattr(self, "player"):
            return
        if self.player.playout.paused:
            self.player.resume()
        self.player.tick(5 * DROUGHT // FRAME_SAMPLES)
        assert self.player.playout.idle
        assert self.player.leg.played[-1] == SILENT_FRAME


PlayoutMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPlayoutMachine = PlayoutMachine.TestCase
