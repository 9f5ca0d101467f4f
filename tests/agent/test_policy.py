"""The rules as tables."""

from __future__ import annotations

import pytest

from agent.phrases import VARIANTS, Phrase, fixed_phrases, phrase
from agent.policy import OWN_WORDS, SCRIPT, Asked, Move, Rules, Turn, instruct, move, why_not_hint
from agent.words import is_backchannel
from calls.events import ResponseOpened
from calls.model import Card, Choice, Hint, Mode
from tests.agent.story import RULES, offered

ANYTIME = [
    ("When are you open?", Move.ANSWER),
    ("My oil light is still on.", Move.ANSWER),
    ("I need someone to look at my brakes.", Move.ANSWER),
    ("What time do people usually come in?", Move.ANSWER),
    ("No, what about tyres?", Move.ANSWER),
    ("Wait, are you open on Saturday?", Move.ANSWER),
    ("Is that all?", Move.ANSWER),
    ("Thanks, and how much is a service?", Move.ANSWER),
    ("Hello, I wanted to ask about my car.", Move.ANSWER),
    ("", Move.IGNORE),
    ("...", Move.IGNORE),
    ("Mhm.", Move.IGNORE),
    ("Bye!", Move.GOODBYE),
    ("Okay, thank you, bye bye.", Move.GOODBYE),
    ("That's all, thanks.", Move.GOODBYE),
    ("Great, have a nice day!", Move.GOODBYE),
    ("Can I speak to a real person?", Move.PERSON),
    ("I'd like to talk to somebody about my bill.", Move.PERSON),
    ("Could you put me through to the workshop?", Move.PERSON),
    ("Operator.", Move.PERSON),
    ("I want a human.", Move.PERSON),
    ("Are you a robot?", Move.IDENTITY),
    ("Who am I speaking to?", Move.IDENTITY),
    ("Sorry?", Move.REPEAT),
    ("Can you repeat that, please?", Move.REPEAT),
    ("Hold on a second.", Move.TAKE_TIME),
    ("Just a moment, let me get my papers.", Move.TAKE_TIME),
    ("Thanks a lot.", Move.WELCOME),
    ("Hello? Can you hear me?", Move.HELLO),
    ("My number is 07700 900123.", Move.READ_BACK),
    ("The registration is AB12 CDE.", Move.READ_BACK),
    ("Can I book it in for Tuesday at nine?", Move.READ_BACK),
    ("Do I need an appointment on Saturday?", Move.ANSWER),
]


@pytest.mark.parametrize(("heard", "expected"), ANYTIME)
def test_move_when_nothing_was_asked(heard: str, expected: Move) -> None:
    assert move(Turn(heard, 1.0, sources=("a.md#b",)), Asked.NOTHING, RULES) is expected


ASKED = [
    (Asked.MORE, "No, thank you.", Move.GOODBYE),
    (Asked.MORE, "No, that's fine, thanks.", Move.GOODBYE),
    (Asked.MORE, "Yes, please.", Move.GO_AHEAD),
    (Asked.MORE, "Yes, what does a tyre cost?", Move.ANSWER),
    (Asked.MORE, "Right.", Move.IGNORE),
    (Asked.MESSAGE, "Yes please.", Move.TAKE_MESSAGE),
    (Asked.MESSAGE, "Okay.", Move.TAKE_MESSAGE),
    (Asked.MESSAGE, "That would be great, yes.", Move.ANSWER),
    (Asked.MESSAGE, "No thanks.", Move.DECLINED),
    (Asked.MESSAGE, "No, but what about parking?", Move.ANSWER),
    (Asked.MESSAGE, "Yes, it's 07700 900123.", Move.READ_BACK),
    (Asked.NUMBER, "555", Move.READ_BACK),
    (Asked.NUMBER, "Never mind.", Move.DECLINED),
    (Asked.RIGHT, "Yes.", Move.CONFIRMED),
    (Asked.RIGHT, "Right.", Move.CONFIRMED),
    (Asked.RIGHT, "Yeah, that's it, thanks.", Move.CONFIRMED),
    (Asked.RIGHT, "No, it's nine, not five.", Move.NOT_RIGHT),
    (Asked.RIGHT, "No, it's 07700 900124.", Move.READ_BACK),
    (Asked.RIGHT, "How long does that take?", Move.ANSWER),
]


@pytest.mark.parametrize(("asked", "heard", "expected"), ASKED)
def test_move_after_a_question_of_ours(asked: Asked, heard: str, expected: Move) -> None:
    assert move(Turn(heard, 1.0, sources=("a.md#b",)), asked, RULES) is expected


@pytest.mark.parametrize(
    ("asked", "confidence", "expected"),
    [
        (Asked.NOTHING, 0.9, Move.UNKNOWN),
        (Asked.NOTHING, 0.3, Move.REPAIR),
        (Asked.NUMBER, 0.9, Move.REPAIR),
    ],
)
def test_without_a_source_nothing_is_made_up(asked: Asked, confidence: float, expected: Move) -> None:
    assert move(Turn("Do you paint cars?", 1.0, confidence), asked, RULES) is expected


def test_a_yes_that_was_asked_for_needs_less_certainty() -> None:
    assert move(Turn("Yes.", 1.0, confidence=0.4), Asked.RIGHT, RULES) is Move.CONFIRMED
    assert move(Turn("Nine.", 1.0, confidence=0.4), Asked.NOTHING, RULES) is Move.REPAIR


@pytest.mark.parametrize("text", ["mhm", "Uh-huh.", "Yeah.", "Okay", "Right, right.", "I see.", "", "you"])
def test_signs_of_listening(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize("text", ["no", "stop", "yes please", "okay but", "wait", "what", "hello"])
def test_not_merely_signs_of_listening(text: str) -> None:
    assert not is_backchannel(text)


def opened(
    source: str = "a.md#oil", title: str = "Oil light", score: float = 0.8, heard: str = "it came on"
) -> ResponseOpened:
    return ResponseOpened(
        call_id="c1",
        response_id="r1",
        choice=Choice.ASSIST,
        participant_id="caller",
        chunk=1,
        score=score,
        trigger_s=1.0,
        heard=heard,
        confidence=1.0,
        sources=(source,) if source else (),
        title=title,
    )


def shown(at_s: float, source: str, title: str) -> Hint:
    return Hint("h", at_s, at_s, title, "text", source, 0.9)


@pytest.mark.parametrize(
    ("response", "before", "reason"),
    [
        (opened(), [], ""),
        (opened(source=""), [], "no source"),
        (opened(source="", heard=""), [], ""),
        (opened(source="", heard="", score=0.4), [], "score 0.40 is under 0.45"),
        (opened(source="", heard=""), [shown(1, OWN_WORDS, "Suggestion")], ""),
        (opened(score=0.44), [], "score 0.44 is under 0.45"),
        (opened(), [shown(1, "a.md#oil", "Other")], "shown before"),
        (opened(), [shown(1, "b.md#b", "The oil light")], "shown before"),
        (opened(title="Price of an oil change"), [shown(1, "b.md#b", "Price of tyres")], ""),
        (opened(title=""), [shown(1, "b.md#b", "")], ""),
        (opened(), [shown(50, f"{n}.md", f"Title {n}") for n in range(4)], "4 hints in the last minute"),
        (opened(), [shown(39, f"{n}.md", f"Title {n}") for n in range(4)], ""),
    ],
)
def test_why_not_hint(response: ResponseOpened, before: list[Hint], reason: str) -> None:
    assert why_not_hint(response, before, 100.0, RULES) == reason


def test_no_hints_at_all() -> None:
    assert why_not_hint(opened(), [], 0.0, Rules("K", hints_per_minute=0)) == "0 hints in the last minute"


@pytest.mark.parametrize("mode", list(Mode))
def test_the_instruction(mode: Mode) -> None:
    cards = [Card("id", "Title", "Text.", "a.md#title")]
    instruction = instruct(mode, offered(mode).participants, cards, RULES)
    assert "Kestrel Garage" in instruction.text
    assert len(instruction.text.split()) < 80
    assert bool(instruction.cards) == (mode is not Mode.TRANSCRIBE)
    assert bool(instruction.options["phrases"]) == (mode is Mode.ANSWER)


def test_every_phrase_can_be_prepared() -> None:
    prepared = fixed_phrases("Kestrel Garage")
    assert len(prepared) == len(set(prepared))
    assert not any("{" in text or "\n" in text or not text for text in prepared)
    assert set(VARIANTS) == set(Phrase)
    assert {line.phrase for line in SCRIPT.values()} <= set(Phrase)
    for kind, variants in VARIANTS.items():
        assert len({phrase(kind, "K", nth) for nth in range(10)}) == len(variants)
