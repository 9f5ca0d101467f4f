"""The rules of a call, pure: what the agent does about a turn of the caller, and which hints may be shown.

Nothing here keeps state or knows of events on the bus; conversation.py asks and remembers. The order of the rules in
`move` is the order of their importance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto

from agent import words
from agent.phrases import Phrase, fixed_phrases
from agent.readback import SHORTEST_NUMBER, Details, details
from agent.words import plain_words
from calls.events import ResponseOpened
from calls.model import Card, Hint, Instruction, Mode, Participant

OWN_WORDS = "the model's own words"  # the source of a hint that stands on no card that could be named
OWN_TITLE = "Suggestion"


@dataclass(frozen=True, slots=True)
class Rules:
    """One tenant's settings."""

    company: str
    hints_per_minute: int = 4
    hint_min_score: float = 0.45
    repair_below: float = 0.55  # recogniser's confidence under which the caller is asked again: good lines have 0.7
    interrupt_above: float = 0.7  # over an answer, words less sure are a hum or a cough: hums have up to 0.64
    repairs_in_a_row: int = 2  # after so many the agent offers to take a message instead
    prompt_after_s: float = 8.0  # of silence after an answer
    dead_air_after_s: float = 20.0  # more, after the prompt
    patience_s: float = 60.0  # instead of prompt_after_s when the caller asked us to wait, or may be speaking unheard
    answer_words: int = 60  # a model's answer is ended at the first clause after so many words
    unheard_after_s: float = 12.0  # an answer not on the wire by then is given up


class Asked(StrEnum):
    """What the agent's last words asked for."""

    NOTHING = auto()
    MORE = auto()  # "is there anything else?"
    MESSAGE = auto()  # "shall I take a message?"
    NUMBER = auto()  # "what number can we ring you on?"
    RIGHT = auto()  # "did I get that right?"


class Move(StrEnum):
    """What the agent does about one turn of the caller."""

    IGNORE = auto()  # "mhm": nothing was asked
    ANSWER = auto()  # the model's own words
    REPAIR = auto()
    GOODBYE = auto()
    PERSON = auto()
    TAKE_TIME = auto()
    REPEAT = auto()
    READ_BACK = auto()
    CONFIRMED = auto()
    NOT_RIGHT = auto()
    TAKE_MESSAGE = auto()
    DECLINED = auto()
    GO_AHEAD = auto()
    WELCOME = auto()
    HELLO = auto()
    IDENTITY = auto()
    UNKNOWN = auto()


# Moves that need no model: they are made as soon as the caller's words are known, whether the model responds or not.
# UNKNOWN and REPAIR wait for the model, which alone knows that it should respond and has no source.
SCRIPTED = frozenset(Move) - {Move.IGNORE, Move.ANSWER, Move.UNKNOWN, Move.REPAIR}


@dataclass(frozen=True, slots=True)
class Line:
    """The fixed phrase of a move and what it asks for."""

    phrase: Phrase
    asks: Asked = Asked.NOTHING
    ends_call: bool = False


SCRIPT: dict[Move, Line] = {
    Move.REPAIR: Line(Phrase.REPAIR),
    Move.GOODBYE: Line(Phrase.GOODBYE, ends_call=True),
    Move.PERSON: Line(Phrase.PERSON, Asked.MESSAGE),
    Move.TAKE_TIME: Line(Phrase.TAKE_TIME),
    Move.TAKE_MESSAGE: Line(Phrase.ASK_NUMBER, Asked.NUMBER),
    Move.NOT_RIGHT: Line(Phrase.ASK_AGAIN, Asked.NUMBER),
    Move.CONFIRMED: Line(Phrase.NOTED, Asked.MORE),
    Move.DECLINED: Line(Phrase.DECLINED, Asked.MORE),
    Move.GO_AHEAD: Line(Phrase.GO_AHEAD),
    Move.WELCOME: Line(Phrase.WELCOME, Asked.MORE),
    Move.HELLO: Line(Phrase.HELLO),
    Move.IDENTITY: Line(Phrase.IDENTITY),
    Move.UNKNOWN: Line(Phrase.UNKNOWN, Asked.MESSAGE),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What the caller said. `confidence` is the recogniser's; `sources` what the model's response stands on.

    `wordless`: a model that writes no transcript responds to it, so that there is nothing to judge it by: it is said.
    """

    heard: str
    end_s: float
    confidence: float = 1.0
    sources: tuple[str, ...] = ()
    wordless: bool = False


def given(text: str, asked: Asked) -> Details:
    """What in `text` must be read back: numbers always; days and times only where they are an appointment, so that
    "are you open on Saturday?" is answered and not read back."""
    found = details(text, shortest=3 if asked is Asked.NUMBER else SHORTEST_NUMBER)
    said = plain_words(text)
    answering = asked in (Asked.NUMBER, Asked.RIGHT)
    appointment = (answering or words.BOOKING.search(said)) and not words.QUESTION.match(said)
    return found if appointment else Details(found.number, found.plate)


def move(turn: Turn, asked: Asked, rules: Rules) -> Move:
    """What to do about `turn` when the agent's last words asked for `asked`."""
    if turn.wordless:
        return Move.ANSWER
    said = plain_words(turn.heard)
    if not said:
        return Move.IGNORE
    if words.is_backchannel(turn.heard) and not _reply(said, asked):
        return Move.IGNORE
    if turn.confidence < rules.repair_below and not _reply(said, asked):
        return Move.REPAIR  # a yes or no that we asked for is likely enough to be one
    if given(turn.heard, asked):
        return Move.READ_BACK
    if asked is Asked.RIGHT and (reply := _reply(said, asked)):
        return reply
    if len(said.split()) <= 12 and words.GOODBYE.search(said) and not turn.heard.rstrip().endswith("?"):
        return Move.GOODBYE
    if reply := _reply(said, asked):
        return reply
    if words.PERSON.search(said):
        return Move.PERSON
    if words.IDENTITY.search(said):
        return Move.IDENTITY
    for pattern, reaction in ((words.REPEAT, Move.REPEAT), (words.WAIT, Move.TAKE_TIME), (words.THANKS, Move.WELCOME)):
        if pattern.match(said):
            return reaction
    if words.HELLO.match(said):
        return Move.HELLO
    if turn.sources:
        return Move.ANSWER
    return Move.REPAIR if asked is Asked.NUMBER else Move.UNKNOWN


def _reply(said: str, asked: Asked) -> Move | None:
    """A yes or no to what the agent asked. With more in it ("no, what about tyres?") it is a turn of its own, except
    where the number just read back was wrong ("no, it's nine, not five")."""
    if asked is Asked.RIGHT:
        return Move.CONFIRMED if words.YES.match(said) else Move.NOT_RIGHT if words.NO.match(said) else None
    if asked is not Asked.NOTHING and words.PLAIN_NO.match(said):
        # "No, thank you" to "is there anything else?" is how most callers say goodbye.
        return Move.GOODBYE if asked is Asked.MORE else Move.DECLINED
    if asked is Asked.MESSAGE and words.PLAIN_YES.match(said):
        return Move.TAKE_MESSAGE
    if words.PLAIN_YES.match(said) and (asked is Asked.MORE or not words.is_backchannel(said)):
        return Move.GO_AHEAD if said.startswith(("ye", "sure", "please", "ok")) else Move.IGNORE
    return Move.DECLINED if words.PLAIN_NO.match(said) else None


def source_of(opened: ResponseOpened) -> str:
    """Where a hint comes from, as the human agent and the supervisor see it: a Card; OWN_WORDS for what a model says
    that writes no transcript, which knows its cards by heart and cannot name one; "" for what has no source."""
    if opened.sources:
        return opened.sources[0]
    return "" if opened.heard else OWN_WORDS


def why_not_hint(opened: ResponseOpened, shown: Sequence[Hint], now_s: float, rules: Rules) -> str:
    """Why a hint must not be shown, in words, or "" if it may. `shown` are the hints of this call so far. Whether a
    hint in the model's own words was shown before is known when they are written: see `says_again`."""
    source = source_of(opened)
    if not source:
        return "no source"
    if opened.score < rules.hint_min_score:
        return f"score {opened.score:.2f} is under {rules.hint_min_score:.2f}"
    known = source != OWN_WORDS
    if known and any(hint.source == source or _alike(hint.title, opened.title) for hint in shown):
        return "shown before"
    if sum(hint.at_s > now_s - 60 for hint in shown) >= rules.hints_per_minute:
        return f"{rules.hints_per_minute} hints in the last minute"
    return ""


def says_again(hint: Hint, shown: Sequence[Hint]) -> bool:
    """A hint in the model's own words that one before it had as well."""
    return hint.source == OWN_WORDS and any(_alike(hint.text, other.text) for other in shown)


def _alike(one: str, other: str) -> bool:
    """Texts that share most of their words."""
    a, b = set(plain_words(one).split()), set(plain_words(other).split())
    return bool(a and b) and len(a & b) / len(a | b) >= 0.6


_ROLES = {
    Mode.ANSWER: (
        "You answer the telephone for {company}. Use only the notes. Reply in one or two short sentences of plain "
        "spoken English. Say prices, times and names exactly as in the notes. No lists. Do not invent anything. "
        "If the notes do not answer the question, say only: I don't have that in my notes."
    ),
    Mode.ASSIST: (
        "You help an employee of {company} who is on the telephone with a customer. Use only the notes. In one or "
        "two short sentences, write the fact or the next step that helps with what the customer just said. "
        "Do not invent anything."
    ),
    Mode.TRANSCRIBE: "You write down what is said on a call with {company}. You never speak.",
}


def instruct(mode: Mode, participants: tuple[Participant, ...], cards: Sequence[Card], rules: Rules) -> Instruction:
    """The model's Instruction for a call. Options: `company`, and `phrases`, the texts (one a line) that the voice
    should have ready."""
    phrases = fixed_phrases(rules.company) if mode is Mode.ANSWER else []
    return Instruction(
        mode=mode,
        text=_ROLES[mode].format(company=rules.company),
        participants=participants,
        cards=() if mode is Mode.TRANSCRIBE else tuple(cards),
        options={"company": rules.company, "phrases": "\n".join(phrases)},
    )
