"""A call's story folded, as a worker that takes over reads it."""

from __future__ import annotations

from calls.audio import CHUNK_S
from calls.bus import Message
from calls.events import (
    Answered,
    AnyEvent,
    AudioChunk,
    CallAccepted,
    CallEnded,
    CancelResponse,
    Decided,
    PlayoutEnded,
    ResponseClosed,
    ResponseDelta,
    ResponseOpened,
    Say,
    Speech,
    StopSaying,
    Uttered,
)
from calls.model import Answer, Choice, State, Utterance
from model_worker.recall import FRESH_S, Recollection, recollect
from model_worker.stream import Fate, PastResponse


def fold(*story: AnyEvent, speech: tuple[AnyEvent, ...] = ()) -> Recollection:
    def lay(stream: str, events: tuple[AnyEvent, ...]) -> list[Message]:
        return [Message(stream, f"{index + 1}-0", event) for index, event in enumerate(events)]

    return recollect(lay("call:c", story), lay("speech:c", speech))


def uttered(id: str, start_s: float, end_s: float, revision: int = 0, text: str = "hello") -> Uttered:
    return Uttered(call_id="c", utterance=Utterance(id, "caller", start_s, end_s, text, revision=revision))


def decided(participant: str, chunk: int) -> Decided:
    return Decided(call_id="c", participant_id=participant, chunk=chunk, choice=Choice.SILENT, score=1.0)


def opened(id: str) -> ResponseOpened:
    return ResponseOpened(
        call_id="c", response_id=id, choice=Choice.ANSWER, participant_id="caller", chunk=9, score=1.0, trigger_s=3.0,
        heard="hello", confidence=1.0,
    )  # fmt: skip


def say(answer: str, seq: int, last: bool = False) -> Say:
    return Say(call_id="c", answer_id=answer, seq=seq, text=f"clause {seq}", last=last)


def speech(answer: str, seq: int, piece: int, last: bool = False) -> Speech:
    return Speech(call_id="c", answer_id=answer, seq=seq, piece=piece, pcm=b"", last=last)


def test_a_new_call_has_no_past() -> None:
    known = fold()
    assert known.past().utterances == ()
    assert not known.accepted_before
    assert known.hear_from("caller") == 0
    assert known.position == "0-0"


def test_the_newest_revision_of_each_utterance_in_order() -> None:
    known = fold(uttered("b", 5.0, 7.3), uttered("a", 0.0, 2.0, 1, "better"), uttered("a", 0.0, 2.0, 0, "worse"))
    assert [(u.id, u.text) for u in known.past().utterances] == [("a", "better"), ("b", "hello")]
    assert known.hear_from("caller") == 18, "the Chunk that holds second 7.3"
    assert known.hear_from("human_agent") == 0


def test_decisions_answers_and_the_end() -> None:
    answer = Answer("greeting", 0.2, "Hello.", "Hello.", False, None)
    known = fold(
        CallAccepted(call_id="c", worker="w1", model="echo"),
        decided("caller", 3), decided("caller", 4), decided("human_agent", 4), decided("caller", 2),
        Answered(call_id="c", answer=answer),
        CallEnded(call_id="c", state=State.ENDED, reason="", ended_at=0.0, duration_s=2.0),
    )  # fmt: skip
    assert known.accepted_before
    assert known.ended
    assert dict(known.past().decided) == {"caller": 4, "human_agent": 4}
    assert known.past().answers == (answer,)


def test_a_response_that_was_cut_short() -> None:
    known = fold(
        opened("r1"), ResponseDelta(call_id="c", response_id="r1", seq=0, text="All done."),
        ResponseClosed(call_id="c", response_id="r1", text="All done."),
        opened("r2"), ResponseDelta(call_id="c", response_id="r2", seq=0, text="We "),
        ResponseDelta(call_id="c", response_id="r2", seq=1, text="open "),
    )  # fmt: skip
    assert known.torn_responses() == [("r2", "We open ")]
    assert known.past().responses == (
        PastResponse("r1", "caller", 9, "normal", "All done.", 1, Fate.FINISHED),
        PastResponse("r2", "caller", 9, "normal", "We open ", 2, Fate.UNWANTED),  # there is no audio to go on with
    )


def audio(*indices: int) -> list[Message]:
    chunks = [AudioChunk(call_id="c", participant_id="caller", index=index, pcm=b"") for index in indices]
    return [Message("audio:c", f"{n + 1}-0", chunk) for n, chunk in enumerate(chunks)]


def test_a_response_that_was_torn_a_moment_ago_may_go_on() -> None:
    delta = ResponseDelta(call_id="c", response_id="r1", seq=0, text="We ")
    cancelled = CancelResponse(call_id="c", response_id="r1", reason="interrupted")
    late = 10 + round(FRESH_S / CHUNK_S)
    for newest, more, fate in ((late, (), Fate.TORN), (late + 1, (), Fate.UNWANTED), (11, (cancelled,), Fate.UNWANTED)):
        known = fold(opened("r1"), delta, delta, decided("caller", 10), *more)
        [response] = known.past(audio(*range(4, newest + 1))).responses
        assert (response.fate, response.text, response.pieces) == (fate, "We ", 1)
        assert known.torn_responses() == [("r1", "We ")]


def test_what_is_heard_again_and_what_was_decided_there() -> None:
    story = (
        decided("caller", 3),
        Decided(call_id="c", participant_id="caller", chunk=4, choice=Choice.ANSWER, score=1.0, stopped=True),
        uttered("a", 0.0, 4.5),
    )
    past = fold(*story).past(audio(7, 8, 20))
    assert (past.responded, past.stopped) == ((("caller", 4),), (("caller", 4),))
    assert dict(past.again) == {"caller": 11}
    assert dict(past.fresh) == {"caller": 20 - round(FRESH_S / CHUNK_S)}
    known = recollect([], [], all_again=True)
    known.utterances = fold(*story).utterances
    assert dict(known.past(audio(7, 8)).again) == {"caller": 7}


def test_clauses_without_speech_are_spoken_by_the_next_worker() -> None:
    known = fold(
        say("greeting", 0, last=True),
        say("a1", 0), say("a1", 1), say("a1", 2, last=True),
        say("a2", 0), StopSaying(call_id="c", answer_id="a2", reason="barge-in"),
        say("a3", 0), PlayoutEnded(call_id="c", answer_id="a3", at_s=1.0, heard_text="", interrupted=True),
        speech=(speech("greeting", 0, 0, last=True), speech("a1", 0, 0), speech("a1", 0, 1), speech("a1", 1, 0)),
    )  # fmt: skip
    assert [(s.answer_id, s.seq, skip) for s, skip in known.unsaid()] == [("a1", 1, 1), ("a1", 2, 0)]
