"""The conversation, told as stories of calls."""

from __future__ import annotations

import pytest

from agent.policy import Rules
from calls import events as ev
from calls.model import Choice, Mode, State
from tests.agent.story import CALL, RULES, Story

REPLY = "We are open from eight to six, Monday to Friday. On Saturday we are open from nine to one."


# --- a good call -------------------------------------------------------------------------------------------------


def test_greeting_says_who_that_it_is_an_ai_and_that_it_records() -> None:
    story = Story()
    assert story.said("greeting") == [
        "Hello, this is Kestrel Garage.",
        "I'm an AI, and this call is recorded.",
        "How can I help?",
    ]
    says = story.all(ev.Say)
    assert [say.seq for say in says] == [0, 1, 2]
    assert [say.last for say in says] == [False, False, True]
    assert says[0].prompted_s is None


def test_nothing_is_said_before_the_call_is_answered() -> None:
    assert Story(answered=False).all(ev.Say) == []


def test_a_question_is_answered_clause_by_clause() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    assert story.said(response_id) == [
        "We are open from eight to six,",
        "Monday to Friday.",
        "On Saturday we are open from nine to one.",
    ]
    says = [say for say in story.all(ev.Say) if say.answer_id == response_id]
    assert [say.last for say in says].count(True) == 1
    assert says[-1].last
    assert {say.prompted_s for say in says} == {story.now_s - 0.4}


def test_what_was_heard_becomes_the_answer() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    story.plays(response_id)
    answer = story.answers[-1]
    assert (answer.id, answer.text, answer.heard_text, answer.interrupted) == (response_id, REPLY, REPLY, False)
    assert answer.response_ms == 500
    assert answer.sources == ("hours-and-place.md#opening-hours",)
    assert story.answers[0].id == "greeting"
    assert story.answers[0].response_ms is None


def test_goodbye_is_answered_and_the_call_ends_once_it_was_heard() -> None:
    story = Story().greets()
    story.utters("Thanks, bye bye.")
    assert "Goodbye!" in story.last_said
    assert story.all(ev.HangUp) == []
    story.plays(story.last_answer)
    assert [hang_up.reason for hang_up in story.all(ev.HangUp)] == ["goodbye"]


def test_goodbye_answers_once_though_the_model_responds_to_it_as_well() -> None:
    story = Story().greets()
    story.utters("Okay, goodbye.")
    response_id = story.asks("Okay, goodbye.", "Goodbye, have a nice day.")
    assert story.said(response_id) == []
    assert sum("Goodbye!" in say.text for say in story.all(ev.Say)) == 1 or story.all(ev.HangUp)


def test_a_caller_who_goes_on_after_the_goodbye_is_answered() -> None:
    story = Story().greets()
    story.utters("Bye.")
    goodbye = story.last_answer
    story.plays(goodbye, heard="Thank you")
    assert story.all(ev.HangUp) == []
    response_id = story.asks("Oh wait, are you open on Saturday?", REPLY)
    assert story.said(response_id)
    story.plays(response_id)
    story.utters("Bye.")
    assert [hang_up.reason for hang_up in story.all(ev.HangUp)] == ["goodbye"]


# --- interruptions -----------------------------------------------------------------------------------------------


def barges_in(story: Story, answer_id: str) -> None:
    story.happens(ev.PlayoutStarted(call_id=CALL, answer_id=answer_id, at_s=story.now_s))
    story.passes(0.8)
    story.happens(ev.BargeIn(call_id=CALL, answer_id=answer_id, at_s=story.now_s))
    story.passes(0.4)


def test_words_over_an_answer_stop_it() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    barges_in(story, response_id)
    story.partial("no I meant the address")
    assert [stop.answer_id for stop in story.all(ev.StopSaying)] == [response_id]


@pytest.mark.parametrize("sound", ["Mhm.", "uh-huh", "Yeah", "Okay.", "right, right", "", "you"])
def test_signs_of_listening_do_not_stop_an_answer(sound: str) -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    barges_in(story, response_id)
    story.partial(sound)
    story.happens(ev.PlayoutResumed(call_id=CALL, answer_id=response_id, at_s=story.now_s))
    story.utters(sound)
    assert story.all(ev.StopSaying) == []


@pytest.mark.parametrize(
    ("taken_for", "confidence", "sources"),
    [
        ("I thought.", 0.46, ()),
        ("I don't know.", 0.64, ()),
        ("No, no.", 0.58, ()),
        ("Not that.", 0.57, ("hours.md#x",)),
    ],
)
def test_a_hum_that_the_recogniser_took_for_words_neither_stops_an_answer_nor_is_asked_about(
    taken_for: str, confidence: float, sources: tuple[str, ...]
) -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    barges_in(story, response_id)
    heard = ev.Partial(
        call_id=CALL,
        utterance_id="u9",
        participant_id="caller",
        start_s=story.now_s - 0.4,
        end_s=story.now_s,
        text=taken_for,
        confidence=confidence,
    )
    assert story.happens(heard) == []
    story.happens(ev.PlayoutResumed(call_id=CALL, answer_id=response_id, at_s=story.now_s))
    story.asks(taken_for, sources=sources, confidence=confidence)
    assert {type(command).__name__ for command in story.news} == {"CancelResponse"}


def test_a_doubtful_mhm_needs_no_repair() -> None:
    story = Story().greets()
    story.plays(story.asks("When are you open?", REPLY))
    story.asks("Mm-hmm.", confidence=0.4)
    assert [type(command).__name__ for command in story.news] == ["CancelResponse"]


def test_words_spoken_before_the_pause_do_not_stop_an_answer() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    before_s = story.now_s
    barges_in(story, response_id)
    late = ev.Partial(
        call_id=CALL, utterance_id="u1", participant_id="caller", start_s=0.0, end_s=before_s, text="When are you open?"
    )
    assert story.happens(late) == []


def test_an_interrupted_answer_is_not_written_on() -> None:
    story = Story().greets()
    story.passes(2)
    story.happens(
        ev.ResponseOpened(
            call_id=CALL,
            response_id="r9",
            choice=Choice.ANSWER,
            participant_id="caller",
            chunk=story.chunk,
            score=0.9,
            trigger_s=story.now_s,
            heard="When are you open?",
            confidence=0.9,
            sources=("a.md#b",),
        ),
        ev.ResponseDelta(call_id=CALL, response_id="r9", seq=0, text="We are open today. And "),
    )
    barges_in(story, "r9")
    story.partial("no, tell me the address")
    assert [type(command).__name__ for command in story.news] == ["CancelResponse", "StopSaying"]
    story.happens(
        ev.ResponseDelta(call_id=CALL, response_id="r9", seq=1, text="tomorrow. And "),
        ev.PlayoutEnded(call_id=CALL, answer_id="r9", at_s=story.now_s, heard_text="We are", interrupted=True),
        ev.ResponseDelta(call_id=CALL, response_id="r9", seq=2, text="on Monday."),
        ev.ResponseClosed(call_id=CALL, response_id="r9", text="...", cancelled=True),
    )
    assert story.said("r9") == ["We are open today."]
    assert story.answers[-1].heard_text == "We are"
    assert story.answers[-1].interrupted


def test_telephony_may_interrupt_by_itself() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    story.plays(response_id, heard="We are open from")
    assert story.answers[-1].interrupted
    assert story.answers[-1].text == REPLY


def test_a_newer_answer_replaces_one_that_has_not_begun() -> None:
    story = Story().greets()
    first = story.asks("When are you open?", REPLY)
    second = story.asks("And where are you?", "We are at fourteen Mill Lane.")
    assert [stop.answer_id for stop in story.all(ev.StopSaying)] == [first]
    assert story.said(second) == ["We are at fourteen Mill Lane."]
    story.plays(second)
    assert [answer.id for answer in story.answers] == ["greeting", second]


# --- repair, honesty, people -------------------------------------------------------------------------------------


def test_unsure_recognition_is_repaired_twice_and_then_a_message_is_offered() -> None:
    story = Story().greets()
    said = []
    for _ in range(3):
        story.asks("mumble mumble", "Whatever.", confidence=0.2)
        said.append(story.last_said)
        story.plays(story.last_answer)
    assert "didn't catch" in said[0]
    assert said[1] != said[0]
    assert "message" in said[2]
    story.utters("Yes please.")
    assert "What number" in story.last_said


def test_a_good_turn_ends_the_row_of_repairs() -> None:
    story = Story().greets()
    for confidence in (0.2, 0.9, 0.2, 0.9, 0.2):
        story.asks("something about opening", REPLY, confidence=confidence)
    assert not any("message" in say.text for say in story.all(ev.Say))


def test_no_source_is_admitted_each_time_in_other_words() -> None:
    story = Story().greets()
    first = story.asks("Do you paint cars?", "Yes, we paint cars for ten dollars.", sources=())
    said = story.last_said
    story.plays(story.last_answer)
    second = story.asks("Do you sell boats?", "Yes, boats.", sources=())
    assert "notes" in said
    assert story.last_said != said
    assert story.said(first) == story.said(second) == []
    assert [cancel.response_id for cancel in story.all(ev.CancelResponse)] == [first, second]


def test_a_person_is_asked_for_and_a_message_is_taken() -> None:
    story = Story().greets()
    story.utters("Can I talk to a real person please?")
    assert "can't put you through" in story.last_said
    story.plays(story.last_answer)
    story.utters("Yes, please.")
    story.plays(story.last_answer)
    story.utters("It's 07700 900123.")
    assert story.said(story.last_answer) == [
        "Let me read that back.",
        "The number is zero seven seven,",
        "zero zero nine, zero zero one, two three.",
        "Did I get that right?",
    ]
    story.plays(story.last_answer)
    story.utters("Yes, that's right.")
    notice = story.all(ev.Notice)[-1]
    assert notice.kind == "message"
    assert "07700900123" in notice.text
    assert "Can I talk to a real person please?" in notice.text
    assert "Anything else" in story.last_said or "anything else" in story.last_said
    story.plays(story.last_answer)
    story.utters("No, thank you.")
    assert "Goodbye!" in story.last_said


def test_a_number_that_was_wrong_is_asked_for_again_and_then_typed() -> None:
    story = Story().greets()
    story.utters("My number is 555 0123.")
    story.utters("No.")
    assert "once more" in story.last_said
    story.utters("It is five five five oh one two four.")
    assert "five five five" in story.last_said
    story.utters("No, that's wrong.")
    assert "keypad" in story.last_said
    for digit in "5550125#":
        story.happens(ev.Dtmf(call_id=CALL, participant_id="caller", digit=digit, at_s=story.now_s))
        story.passes(0.4)
    assert "The number is five five five, zero one two five." in story.last_said
    story.utters("Yes.")
    assert "5550125" in story.all(ev.Notice)[-1].text


def test_typed_digits_without_hash_are_taken_after_a_while() -> None:
    story = Story().greets()
    story.utters("I want to leave my number for a person, can I speak to someone?")
    story.utters("Yes.")
    for digit in "5550125":
        story.happens(ev.Dtmf(call_id=CALL, participant_id="caller", digit=digit, at_s=story.now_s))
    assert story.passes(2.4) == []
    story.passes(1.2)
    assert "zero one two five" in story.last_said


def test_zero_asks_for_a_person() -> None:
    story = Story().greets()
    story.happens(ev.Dtmf(call_id=CALL, participant_id="caller", digit="0", at_s=story.now_s))
    assert "can't put you through" in story.last_said


def test_an_appointment_is_read_back_and_a_number_asked_for() -> None:
    story = Story().greets()
    story.asks("Can I book it in for next Tuesday at nine?", "Sure, booked!", sources=("booking.md#booking",))
    assert "That's next Tuesday at nine." in story.last_said
    story.plays(story.last_answer)
    story.utters("Yes.")
    assert "What number" in story.last_said
    story.utters("555 0123")
    story.utters("Correct.")
    assert "when next Tuesday at nine" in story.all(ev.Notice)[-1].text


def test_a_question_about_a_day_is_answered_not_read_back() -> None:
    story = Story().greets()
    response_id = story.asks("Are you open on Saturday?", REPLY)
    assert story.said(response_id)


def test_pardon_repeats_the_last_answer() -> None:
    story = Story().greets()
    response_id = story.asks("Where are you?", "We are at fourteen Mill Lane.")
    story.plays(response_id)
    story.utters("Sorry, can you say that again?")
    assert story.last_said == "We are at fourteen Mill Lane."


def test_it_says_that_it_is_a_machine() -> None:
    story = Story().greets()
    story.utters("Am I talking to a robot?")
    assert "AI assistant" in story.last_said


# --- silence -----------------------------------------------------------------------------------------------------


def test_silence_is_met_with_one_prompt_and_then_a_goodbye() -> None:
    story = Story().greets()
    assert story.passes(7.6) == []
    story.passes(0.8)
    assert story.last_answer == "prompt-1"
    story.plays("prompt-1")
    assert story.passes(19) == []
    story.passes(1.6)
    assert story.last_answer == "dead-air-1"
    story.plays("dead-air-1")
    assert [hang_up.reason for hang_up in story.all(ev.HangUp)] == ["the caller is silent"]
    assert story.passes(60) == []


def test_a_caller_who_speaks_is_not_prompted() -> None:
    story = Story().greets()
    for _ in range(10):
        story.passes(4)
        story.partial("and then the car made this noise")
    assert story.last_answer == "greeting"


def test_a_caller_who_asks_to_wait_is_given_time() -> None:
    story = Story().greets()
    story.utters("Hold on a second.")
    assert "take your time" in story.last_said
    story.plays(story.last_answer)
    assert story.passes(50) == []


def test_a_caller_on_hold_is_left_alone() -> None:
    story = Story().greets()
    story.happens(ev.HoldChanged(call_id=CALL, participant_id="caller", held=True, at_s=story.now_s))
    assert story.passes(120) == []
    story.happens(ev.HoldChanged(call_id=CALL, participant_id="caller", held=False, at_s=story.now_s))
    story.passes(9)
    assert story.last_answer == "prompt-1"


def test_a_voice_that_never_speaks_does_not_keep_the_call_for_ever() -> None:
    story = Story()
    story.passes(120)
    assert [hang_up.reason for hang_up in story.all(ev.HangUp)] == ["nothing can be said"]


def test_a_response_without_a_word_is_owned_up_to() -> None:
    story = Story().greets()
    story.asks("When are you open?", "")
    assert "lost my thread" in story.last_said


# --- a small model's ways ------------------------------------------------------------------------------------------


def test_a_model_that_repeats_itself_is_cut_short() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", "We open at eight. " * 8 + "Bye.")
    assert story.said(response_id) == ["We open at eight."]
    assert response_id in [cancel.response_id for cancel in story.all(ev.CancelResponse)]


def test_a_model_that_goes_on_and_on_is_cut_short() -> None:
    story = Story(rules=Rules("Kestrel Garage", answer_words=12)).greets()
    response_id = story.asks("Tell me all.", " ".join(f"This is sentence number {n}." for n in range(20)))
    assert len(story.said(response_id)) == 3


def test_events_that_come_twice_change_nothing() -> None:
    story = Story().greets()
    response_id = story.asks("When are you open?", REPLY)
    story.plays(response_id)
    before = len(story.all(ev.Say)), len(story.answers)
    for event in [event for event in story.stream if not isinstance(event, ev.Decided)]:
        assert story.conversation.apply(event) == []
    assert (len(story.all(ev.Say)), len(story.answers)) == before


# --- assist and transcribe -----------------------------------------------------------------------------------------


def hint(story: Story, title: str, source: str, score: float = 0.8) -> None:
    story.asks("my oil light is on", "Reset it.", sources=(source,), choice=Choice.ASSIST, title=title, score=score)


def test_hints_are_shown_and_nothing_is_said() -> None:
    story = Story(Mode.ASSIST)
    hint(story, "Oil light", "warning-lights.md#oil-light")
    assert [(shown.title, shown.text, shown.source) for shown in story.hints] == [
        ("Oil light", "Reset it.", "warning-lights.md#oil-light")
    ]
    assert story.hints[0].at_s >= story.hints[0].trigger_s > 0
    assert story.all(ev.Say) == []


def test_no_hint_twice_and_none_under_the_score() -> None:
    story = Story(Mode.ASSIST)
    hint(story, "Oil light", "a.md#oil")
    hint(story, "Something else", "a.md#oil")
    hint(story, "The oil light", "b.md#light")
    hint(story, "Opening hours", "c.md#hours", score=0.3)
    assert len(story.hints) == 1
    reasons = [cancel.reason for cancel in story.all(ev.CancelResponse)]
    assert reasons == ["shown before", "shown before", "score 0.30 is under 0.45"]


def test_only_so_many_hints_a_minute() -> None:
    story = Story(Mode.ASSIST)
    for n, title in enumerate(["Oil", "Tyres", "Hours", "Parking", "Payment", "Warranty"]):
        hint(story, title, f"{n}.md#{n}")
    assert len(story.hints) == RULES.hints_per_minute
    story.passes(60)
    hint(story, "Address", "9.md#9")
    assert story.hints[-1].title == "Address"


def test_a_verdict_is_remembered() -> None:
    story = Story(Mode.ASSIST)
    hint(story, "Oil light", "a.md#oil")
    story.happens(ev.HintJudged(call_id=CALL, hint_id=story.hints[0].id, verdict="accepted"))
    assert story.conversation.hints.shown[0].verdict == "accepted"


def test_a_hint_is_dated_by_when_it_reached_the_bus() -> None:
    story = Story(Mode.ASSIST)
    story.asks("oil light", "", sources=("a.md#b",), choice=Choice.ASSIST)
    story.happens(
        ev.ResponseOpened(
            call_id=CALL,
            response_id="late",
            choice=Choice.ASSIST,
            participant_id="caller",
            chunk=1,
            score=1.0,
            trigger_s=story.now_s,
            heard="tyres",
            confidence=1.0,
            sources=("c.md#d",),
        )
    )
    closed = ev.ResponseClosed(call_id=CALL, response_id="late", text="Check all four.")
    (shown,) = story.conversation.apply(closed, posted_s=story.now_s + 0.7)
    assert isinstance(shown, ev.HintShown)
    assert shown.hint.at_s == pytest.approx(story.now_s + 0.7)


def test_an_assist_call_never_answers() -> None:
    story = Story(Mode.ASSIST)
    response_id = story.asks("When are you open?", REPLY)
    story.utters("Bye bye.")
    story.passes(120)
    assert not story.all(ev.Say)
    assert not story.all(ev.HangUp)
    assert [cancel.response_id for cancel in story.all(ev.CancelResponse)] == [response_id]


def test_transcribing_neither_says_nor_shows() -> None:
    story = Story(Mode.TRANSCRIBE)
    story.asks("When are you open?", REPLY)
    hint(story, "Oil light", "a.md#oil")
    assert not story.all(ev.Say)
    assert not story.all(ev.HintShown)
    assert len(story.all(ev.CancelResponse)) == 2


# --- the end -------------------------------------------------------------------------------------------------------


def test_nothing_is_done_after_the_end_but_what_was_heard_is_kept() -> None:
    story = Story()
    story.happens(ev.PlayoutStarted(call_id=CALL, answer_id="greeting", at_s=0.1))
    story.ends()
    assert story.conversation.state is State.ENDED
    story.happens(ev.PlayoutEnded(call_id=CALL, answer_id="greeting", at_s=1.0, heard_text="Kestrel", interrupted=True))
    assert story.answers[-1].heard_text == "Kestrel"
    response_id = story.asks("Hello?", "Hi.")
    assert story.said(response_id) == []


@pytest.mark.parametrize("state", [State.ENDED, State.FAILED, State.REFUSED])
def test_a_call_may_end_before_it_was_answered(state: State) -> None:
    story = Story(answered=False)
    story.happens(ev.CallEnded(call_id=CALL, state=state, reason="", ended_at=1.0, duration_s=0.0))
    assert story.conversation.state in (State.REFUSED, State.FAILED)
