"""A model that writes no transcript: its responses have nothing that they could be judged by."""

from __future__ import annotations

from agent.policy import OWN_WORDS, Asked, Move, Turn, move
from calls import events as ev
from calls.model import Choice, Mode
from tests.agent.story import CALL, RULES, Story

REPLY = "We are open from eight to six. On Saturday we are open from nine to one."


def wordless(mode: Mode = Mode.ANSWER) -> Story:
    story = Story(mode, answered=False)
    story.happens(ev.CallAccepted(call_id=CALL, worker="w1", model="interaction:x", transcribes=False))
    story.happens(ev.CallStarted(call_id=CALL, started_at=1_700_000_001.0))
    return story.greets() if mode is Mode.ANSWER else story


def opens(story: Story, chunk: int, emotion: str = "normal", score: float = 0.8) -> str:
    """The model begins a response to a Chunk; returns its id."""
    choice = Choice.ANSWER if story.mode is Mode.ANSWER else Choice.ASSIST
    name = f"{choice}-caller-{chunk}"
    story.happens(
        ev.ResponseOpened(
            call_id=CALL,
            response_id=name,
            choice=choice,
            participant_id="caller",
            chunk=chunk,
            score=score,
            trigger_s=round((chunk + 1) * 0.4, 3),
            heard="",
            confidence=1.0,
            emotion=emotion,
        )
    )
    return name


def writes(story: Story, name: str, text: str, cancelled: bool = False) -> None:
    story.happens(ev.ResponseDelta(call_id=CALL, response_id=name, seq=0, text=text))
    story.happens(ev.ResponseClosed(call_id=CALL, response_id=name, text=text, cancelled=cancelled))


def test_it_is_said_in_the_mood_that_it_names() -> None:
    story = wordless()
    name = opens(story, 30, emotion="sad")
    writes(story, name, REPLY)
    assert " ".join(story.said(name)) == REPLY
    assert {say.style for say in story.all(ev.Say) if say.answer_id == name} == {"sad"}
    assert not story.all(ev.CancelResponse)


def test_what_it_begins_over_its_own_answer_replaces_that() -> None:
    story = wordless()
    first = opens(story, 30)
    story.happens(ev.ResponseDelta(call_id=CALL, response_id=first, seq=0, text=REPLY))
    story.happens(ev.PlayoutStarted(call_id=CALL, answer_id=first, at_s=13.0))
    story.happens(ev.ResponseClosed(call_id=CALL, response_id=first, text=REPLY, cancelled=True))
    second = opens(story, 31)  # 0.4 s later: it alone knows that this is another turn
    assert [(stop.answer_id, stop.reason) for stop in story.all(ev.StopSaying)] == [(first, "replaced")]
    writes(story, second, "Of course.")
    assert story.said(second)[0] == "Of course."


def test_words_that_are_only_a_sound_are_still_ignored() -> None:
    assert move(Turn("...", 1.0), Asked.NOTHING, RULES) is Move.IGNORE
    assert move(Turn("", 1.0), Asked.NOTHING, RULES) is Move.IGNORE
    assert move(Turn("", 1.0, wordless=True), Asked.RIGHT, RULES) is Move.ANSWER


def test_a_caller_who_may_be_speaking_is_not_asked_whether_he_is_there() -> None:
    story = wordless()
    story.passes(RULES.patience_s - 1)
    assert {say.answer_id for say in story.all(ev.Say)} == {"greeting"}
    story.passes(3)
    assert story.last_answer.startswith("prompt")


def test_its_hints_say_that_they_are_its_own() -> None:
    story = wordless(Mode.ASSIST)
    writes(story, opens(story, 30), "Ask for the number plate.")
    assert [(hint.title, hint.text, hint.source) for hint in story.hints] == [
        ("Suggestion", "Ask for the number plate.", OWN_WORDS)
    ]


def test_its_hints_are_shown_once_and_while_they_are_new() -> None:
    story = wordless(Mode.ASSIST)
    writes(story, opens(story, 30), "Ask for the number plate.")
    writes(story, opens(story, 40), "Ask for the number plate!")
    writes(story, opens(story, 50), "The oil is changed every year.")
    assert [hint.text for hint in story.hints] == ["Ask for the number plate.", "The oil is changed every year."]
    opens(story, 60, score=0.3)
    assert [cancel.reason for cancel in story.all(ev.CancelResponse)] == ["score 0.30 is under 0.45"]
