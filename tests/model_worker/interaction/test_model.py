"""The Audio Interaction Model as a Model: tokens in, events out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from calls.audio import CHUNK_S
from calls.events import Decided, Event, Notice, Partial, ResponseClosed, ResponseDelta, ResponseOpened, Uttered
from calls.model import Choice, Instruction, Mode, Participant, Role
from model_worker.engine import Engine
from model_worker.errors import NoRoom
from model_worker.interaction.build import build
from model_worker.interaction.config import InteractionConfig
from model_worker.interaction.ears import Ear, Judged, Said
from model_worker.interaction.model import EARS_A_CALL, CallStream, Interaction
from model_worker.interaction.saying import Saying
from model_worker.interaction.serving import BEHIND
from model_worker.stream import Past
from tests.model_worker.interaction.calls import SLOW, SLOW_TIERS, chunks, listen, model, told
from tests.model_worker.interaction.served import checkpoint

E = TypeVar("E", bound=Event)

COUNT = 40
HEARD = chunks(4, COUNT)


@pytest.fixture(scope="module")
def served() -> Interaction:
    return model()


def of(kind: type[E], events: list[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def decisions(events: list[Event]) -> list[tuple[int, Choice, float]]:
    return [(event.chunk, event.choice, event.score) for event in of(Decided, events)]


# --- decisions and responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "choice"), [(Mode.ANSWER, Choice.ANSWER), (Mode.ASSIST, Choice.ASSIST)])
def test_every_chunk_is_decided_and_responses_follow_their_decision(
    served: Interaction, mode: Mode, choice: Choice
) -> None:
    events = listen(served, HEARD, mode)
    decided = of(Decided, events)
    assert [one.chunk for one in decided] == list(range(COUNT))
    assert {one.choice for one in decided} == {Choice.SILENT, choice}
    assert all(one.score >= SLOW.threshold for one in decided)  # of what was chosen, and there are two choices
    opened = of(ResponseOpened, events)
    assert opened
    for one in opened:
        assert one.response_id == f"{choice}-caller-{one.chunk}"
        assert (one.choice, one.heard, one.sources) == (choice, "", ())
        assert one.trigger_s == pytest.approx((one.chunk + 1) * CHUNK_S)
        assert decisions(events)[one.chunk] == (one.chunk, choice, one.score)
        deltas = [delta for delta in of(ResponseDelta, events) if delta.response_id == one.response_id]
        [closed] = [closed for closed in of(ResponseClosed, events) if closed.response_id == one.response_id]
        assert [delta.seq for delta in deltas] == list(range(len(deltas)))
        assert "".join(delta.text for delta in deltas) == closed.text != ""


def test_a_response_is_announced_before_its_text_and_is_cut_by_the_next_one(served: Interaction) -> None:
    events = [e for e in listen(served, HEARD) if not isinstance(e, Decided)]
    under_way = ""
    for event in events:
        match event:
            case ResponseOpened():
                assert not under_way
                under_way = event.response_id
            case ResponseDelta():
                assert event.response_id == under_way
            case ResponseClosed():
                assert event.response_id == under_way
                under_way = ""
    assert {closed.cancelled for closed in of(ResponseClosed, events)} == {True, False}


@pytest.mark.parametrize("config", [SLOW, SLOW_TIERS], ids=["one tier", "two tiers"])
@pytest.mark.parametrize("mode", list(Mode))
def test_the_same_audio_gives_the_same_events(config: InteractionConfig, mode: Mode) -> None:
    """Whenever there is time to write, and whoever else is heard in the same batch."""
    timings: list[Callable[[int], int]] = [lambda _: 1000, lambda _: 0, lambda index: index * 7 % 3]
    runs = [listen(model(config), HEARD, mode, idle=timing) for timing in timings]
    # The words of two tiers may come behind later decisions: when is not what is said.
    runs = [[*of(Decided, run), *(e for e in run if not isinstance(e, Decided))] if config.ear else run for run in runs]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) > COUNT

    crowded = model(config)
    events: dict[str, list[Event]] = {name: [] for name in ("c1", "c2", "c3")}
    calls = {name: crowded.open(name, told(mode), events[name].append, Past()) for name in events}
    others = {"c2": chunks(2, COUNT, "c2"), "c3": chunks(3, COUNT, "c3")}
    for index in range(COUNT):
        batch = [(calls["c2"], others["c2"][index]), (calls["c1"], HEARD[index])]
        crowded.step(batch if index % 3 else [*batch, (calls["c3"], others["c3"][index // 3])])
        if index % 2:
            crowded.respond()
    for stream in calls.values():
        crowded.close(stream)
    heard = events["c1"]
    if config.ear:
        heard = [*of(Decided, heard), *(e for e in heard if not isinstance(e, Decided))]
    assert heard == runs[0]


def test_both_sides_of_an_assist_call_have_an_ear(served: Interaction) -> None:
    events: list[Event] = []
    stream = served.open("c1", told(Mode.ASSIST), events.append, Past())
    for mine, theirs in zip(HEARD, chunks(2, COUNT, participant="human_agent"), strict=True):
        served.step([(stream, mine), (stream, theirs)])
    served.close(stream)
    by_side = {side: [e for e in of(Decided, events) if e.participant_id == side] for side in ("caller", "human_agent")}
    assert [len(decided) for decided in by_side.values()] == [COUNT, COUNT]
    assert [(e.chunk, e.choice, e.score) for e in by_side["caller"]] == decisions(listen(served, HEARD, Mode.ASSIST))
    assert {one.participant_id for one in of(ResponseOpened, events)} == {"caller", "human_agent"}


def test_who_is_not_listened_to_is_decided_silent(served: Interaction) -> None:
    events: list[Event] = []
    stream = served.open("c1", told(Mode.ANSWER), events.append, Past())
    served.step([(stream, chunks(1, 4, participant="human_agent")[0])])
    served.close(stream)
    assert [(e.participant_id, e.choice) for e in of(Decided, events)] == [("human_agent", Choice.SILENT)]


def test_a_lost_and_a_repeated_chunk_harm_nobody(served: Interaction) -> None:
    events = listen(served, [*HEARD[:10], HEARD[9], *HEARD[14:]])
    assert [e.chunk for e in of(Decided, events)] == [*range(10), *range(14, COUNT)]


# --- text ---------------------------------------------------------------------------------------------------------


def test_a_character_of_several_tokens_is_not_torn() -> None:
    weights = checkpoint(SLOW)
    text = "Schön, 4 € 😀!"
    ids = weights.tokenizer.encode(text).ids
    assert len(ids) > len(text)
    saying = Saying("r", 0, 0.9)
    pieces = [saying.feed([token], SLOW.tokens, weights.tokenizer) for token in ids]
    assert "".join(pieces) == saying.text == text
    assert "\ufffd" not in "".join(pieces)
    cut = Saying("r", 0, 0.9)
    assert cut.feed(ids[:-2], SLOW.tokens, weights.tokenizer) == "Schön, 4 € "  # in the middle of the last character


def test_an_emotion_is_no_text() -> None:
    weights = checkpoint(SLOW)
    saying = Saying("r", 0, 0.9)
    assert saying.feed([SLOW.tokens.urgent], SLOW.tokens, weights.tokenizer) == ""
    assert saying.feed(weights.tokenizer.encode("Now").ids, SLOW.tokens, weights.tokenizer) == "Now"
    assert (saying.emotion, saying.pieces) == ("urgent", 1)


def test_a_response_is_announced_with_its_emotion() -> None:
    weights = checkpoint(SLOW)
    weights.decoder["lm_head.weight"][SLOW.tokens.sad] *= 30.0  # chosen whenever it points the right way
    events = listen(Interaction(build(weights, 2), weights.tokenizer), HEARD)
    assert "sad" in {opened.emotion for opened in of(ResponseOpened, events)}


# --- transcripts ----------------------------------------------------------------------------------------------------


def test_transcribing_writes_utterances(served: Interaction) -> None:
    events = listen(served, HEARD, Mode.TRANSCRIBE)
    assert {one.choice for one in of(Decided, events)} == {Choice.SILENT, Choice.TRANSCRIBE}
    assert not of(ResponseOpened, events)
    said = [event.utterance for event in of(Uttered, events)]
    assert said
    for one, following in zip(said, [*said[1:], None], strict=True):
        assert one.participant_id == "caller"
        assert 0 <= one.start_s < one.end_s <= COUNT * CHUNK_S
        assert following is None or one.end_s <= following.start_s
        partials = [p.text for p in of(Partial, events) if p.utterance_id == one.id]
        assert partials[-1] == one.text
        assert all(later.startswith(earlier) for earlier, later in pairwise(partials))


def test_the_last_words_of_a_call_are_written_to_their_end(served: Interaction) -> None:
    begun = [e.chunk for e in of(Decided, listen(served, HEARD, Mode.TRANSCRIBE)) if e.choice is Choice.TRANSCRIBE]
    pieces = []
    for last in begun:
        events = listen(served, HEARD[: last + 1], Mode.TRANSCRIBE)
        name = f"transcribe-caller-{last}"
        pieces.append(sum(partial.utterance_id == name for partial in of(Partial, events)))
        if pieces[-1]:
            assert [e.utterance.id for e in of(Uttered, events)][-1] == name
    assert max(pieces) > SLOW.words_a_chunk  # more than was due before a Chunk that never came


# --- what others say about it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "seed"), [(SLOW, 3), (SLOW_TIERS, 8)], ids=["one tier", "two tiers"])
def test_a_cancelled_response_ends_before_the_next_chunk_and_says_so(config: InteractionConfig, seed: int) -> None:
    """Wherever its decoder is then, and no Chunk waits for that: the same words, the same Decisions."""
    weights = checkpoint(replace(config, words_a_chunk=2), seed)
    served = Interaction(build(weights, 6), weights.tokenizer)
    whole = listen(served, HEARD)
    # One of which something is written after the next Chunk has come.
    numbers = {event.chunk: place for place, event in enumerate(whole) if isinstance(event, Decided)}
    first, chunk = next(
        (opened.response_id, opened.chunk)
        for opened in of(ResponseOpened, whole)
        for delta in of(ResponseDelta, whole[numbers.get(opened.chunk + 1, len(whole)) :])
        if delta.response_id == opened.response_id
    )
    text = next(closed.text for closed in of(ResponseClosed, whole) if closed.response_id == first)
    owed: list[int] = []  # Chunks that the decoder has not come to

    def run(idle: Callable[[int], int]) -> tuple[list[Event], list[Event]]:
        def before(stream: CallStream, index: int) -> None:
            owed.append(len(stream.sides["caller"].ear.pending))
            if index == chunk + 1:
                served.cancel(stream, first)
                served.cancel(stream, "answer-caller-999")

        events = listen(served, HEARD, idle=idle, before=before)
        return [one for one in events if isinstance(one, Decided)], [e for e in events if not isinstance(e, Decided)]

    decided, said = run(lambda index: 1000)
    owed.clear()
    assert run(lambda index: 0) == (decided, said)
    left = range(len(HEARD[chunk + 1 :]))
    assert 2 < len(left) < (COUNT if config is SLOW else BEHIND)
    assert owed[chunk + 1 :] == [0 if config is SLOW else n for n in left]  # no Chunk was kept for it
    [closed] = [one for one in of(ResponseClosed, said) if one.response_id == first]
    assert closed.cancelled
    assert text.startswith(closed.text)
    assert len(closed.text) < len(text)
    assert [one.chunk for one in of(Decided, decided) if one.stopped] == [chunk + 1]


def test_a_call_that_ends_in_mid_answer_closes_it() -> None:
    """What was due is written; the rest is not, and no trace of the call stays."""
    whole = listen(model(), HEARD)
    numbers = {event.chunk: place for place, event in enumerate(whole) if isinstance(event, Decided)}
    opened, last = next(
        (opened, delta)
        for opened in of(ResponseOpened, whole)
        for delta in of(ResponseDelta, whole[numbers.get(opened.chunk + 1, len(whole)) :])
        if delta.response_id == opened.response_id
    )
    text = next(closed.text for closed in of(ResponseClosed, whole) if closed.response_id == opened.response_id)
    for idle in (0, 1000):
        served = model()
        events = listen(served, HEARD[: opened.chunk + 1], idle=lambda index, idle=idle: idle)  # type: ignore[misc]
        [closed] = [one for one in of(ResponseClosed, events) if one.response_id == opened.response_id]
        assert events[-1] == closed
        assert closed.cancelled
        assert closed.text == "".join(d.text for d in of(ResponseDelta, events) if d.response_id == closed.response_id)
        assert text.startswith(closed.text)
        assert 0 < len(closed.text) <= len(text) - len(last.text)
        assert (served._serving.free, served._serving.busy, served._sides) == (6, False, {})


def test_a_call_that_cannot_be_heard_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = listen(model(), HEARD[:12])
    served = model()
    engine = Engine(served, clock=lambda: 0.0)
    events: dict[str, list[Event]] = {"c1": [], "bad": []}
    streams = {name: engine.open(name, told(), Past(), events[name].append) for name in events}
    catch_up, bad = served._serving._catch_up, streams["bad"].sides["caller"].ear  # type: ignore[attr-defined]

    def failing(ears: list[Ear], allowed: int = 0) -> None:
        if bad in ears:
            raise RuntimeError("no such word")
        catch_up(ears, allowed)

    monkeypatch.setattr(served._serving, "_catch_up", failing)
    for chunk, other in zip(HEARD[:12], chunks(2, 12, "bad"), strict=True):
        engine.hear(streams["bad"], other, 1.0)
        engine.hear(streams["c1"], chunk, 1.0)
        while engine.step():
            pass
    assert decisions(events["c1"]) == decisions(alone)
    assert (engine.books.given_up, engine.books.failed) == (1, 12)
    assert [event.kind for event in of(Notice, events["bad"])] == ["model"]


def test_what_one_pass_of_a_step_has_decided_stands_when_the_next_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls, two Chunks a pass: the third one's pass fails always, and it alone is silent for it."""
    weights = checkpoint(SLOW)
    served = Interaction(build(weights, 6, sizes=(1, 2)), weights.tokenizer)
    engine = Engine(served, clock=lambda: 0.0)
    names = ("c1", "c2", "bad")
    events: dict[str, list[Event]] = {name: [] for name in names}
    streams = {name: engine.open(name, told(), Past(), events[name].append) for name in names}
    decide, bad = served._serving._decide, streams["bad"].sides["caller"].ear  # type: ignore[attr-defined]

    def failing(part: Sequence[tuple[Ear, int, Tensor]], features: Tensor) -> dict[Ear, Judged]:
        if bad in [ear for ear, _, _ in part]:
            raise torch.OutOfMemoryError("no room for one more pass")
        return decide(part, features)

    monkeypatch.setattr(served._serving, "_decide", failing)
    heard = {name: chunks(seed, 3, name) for seed, name in enumerate(names, 4)}
    for index in range(3):  # so few: a call that fails for long is asked no more
        for name in names:
            engine.hear(streams[name], heard[name][index], 1.0)
        while engine.step():
            pass
    for name in names[:2]:
        [alone] = [listen(model(), heard[name])]
        assert decisions(events[name]) == decisions(alone)
    assert [event.choice for event in of(Decided, events["bad"])] == [Choice.SILENT] * 3
    assert engine.books.failed == 3


def test_a_pass_that_fails_takes_no_words_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every Chunk, after the words that were due before it: nothing was heard, so nothing is different."""
    served, whole = model(), listen(model(), HEARD, idle=lambda _: 0)
    catch_up = served._serving._catch_up

    def then_fail(ears: list[Ear], allowed: int = 0) -> None:
        catch_up(ears, allowed)
        raise RuntimeError("gone")

    def before(stream: CallStream, index: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(served._serving, "_catch_up", then_fail)
            with pytest.raises(RuntimeError, match="gone"):
                served.step([(stream, HEARD[index])])

    assert listen(served, HEARD, idle=lambda _: 0, before=before) == whole


def test_an_ear_speaks_again_after_a_decision_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words of a response are written in the pass that fails."""
    served, failed = model(), 11

    def fail(*_: object) -> None:
        raise RuntimeError("gone")

    def before(stream: CallStream, index: int) -> None:
        if index == failed:
            with monkeypatch.context() as patch:
                patch.setattr(served._serving, "_decide", fail)
                with pytest.raises(RuntimeError, match="gone"):
                    served.step([(stream, HEARD[index])])
            assert served._serving.busy, "or there was nothing to lose"

    events = listen(served, HEARD, idle=lambda _: 0, before=before)
    assert [one.chunk for one in of(ResponseOpened, events) if one.chunk > failed]


# --- room -------------------------------------------------------------------------------------------------------------


def test_slots_are_counted_and_given_back() -> None:
    served = model(slots=3)
    assert served.load() == 0.0
    calls = [served.open("c1", told(Mode.ANSWER), lambda event: None, Past())]
    assert served.load() == pytest.approx(1 / 3)
    calls.append(served.open("c2", told(Mode.ANSWER), lambda event: None, Past()))
    assert served.load() == 1.0  # one slot is left, a call may need two
    with pytest.raises(NoRoom):
        served.open("c3", told(Mode.ASSIST), lambda event: None, Past())
    calls.append(served.open("c4", told(Mode.ANSWER), lambda event: None, Past()))  # the refused call left nothing
    for call in calls:
        served.close(call)
    assert served.load() == 0.0


def test_a_prefix_is_computed_ahead_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice each time, without a slot: also while all are taken."""
    monkeypatch.setattr("model_worker.interaction.tier.SLICE", 16)
    served = model(slots=1)
    length = len(served._prefix(told()))
    other = served.open("c0", replace(told(), text="Another."), lambda event: None, Past())
    served.prepare(replace(told(), participants=()))
    slices = -(-length // 16)
    assert slices > 1
    assert [served.respond() for _ in range(slices)] == [True] * (slices - 1) + [False]
    assert len(served._serving._decoder._prefixes) == 2
    served.close(other)
    assert served._serving.free == 1
    served.close(served.open("c1", told(), lambda event: None, Past()))
    assert len(served._serving._decoder._prefixes) == 2


def test_there_is_no_room_for_a_first_call_until_the_prefixes_are_computed() -> None:
    """Calls that go on are not held up by a new Instruction, nor are those that come."""
    served = model(slots=3)
    assert served.load() == 0.0
    for mode in Mode:
        served.prepare(told(mode))
    assert served.load() == 1.0
    while served.respond():
        assert served.load() == 1.0
    assert served.load() == 0.0
    call = served.open("c1", told(Mode.ANSWER), lambda event: None, Past())
    served.prepare(replace(told(), text="Another."))
    assert served.load() == pytest.approx(1 / 3)
    served.close(call)


def test_a_call_has_two_ears_at_most() -> None:
    """Slots are counted by that."""
    served = model(slots=EARS_A_CALL)
    people = (
        Participant("boss", Role.SUPERVISOR),
        Participant("voice_agent", Role.VOICE_AGENT),
        *told().participants,
        Participant("colleague", Role.HUMAN_AGENT),
    )
    stream = served.open("c1", Instruction(Mode.TRANSCRIBE, "", people), lambda event: None, Past())
    assert set(stream.sides) == {"caller", "human_agent"}
    served.close(stream)


@pytest.mark.parametrize("mode", [Mode.ANSWER, Mode.TRANSCRIBE])
def test_others_are_heard_between_two_pieces_of_what_a_call_that_ends_has_still_to_write(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = model(replace(SLOW_TIERS, threshold=0.0))
    stream = served.open("c1", told(mode), lambda event: None, Past())
    for chunk in HEARD[:8]:
        served.step([(stream, chunk)])
    assert len(stream.sides["caller"].ear.pending) == 7  # its decoder is as far behind
    pieces: list[int] = []  # of work, each time that the lock is held
    work = served._serving._work

    class Held:
        def __enter__(self) -> None:
            pieces.append(0)

        def __exit__(self, *_: object) -> None:
            pass

    def counted(ears: Sequence[Ear]) -> list[Said]:
        pieces[-1] += 1
        return work(ears)

    monkeypatch.setattr(served, "_lock", Held())
    monkeypatch.setattr(served._serving, "_work", counted)
    served.close(stream)
    assert sum(pieces) > 7
    assert max(pieces) == 1
    assert served.load() == 0.0
