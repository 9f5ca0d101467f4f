"""Every fixed phrase that the voice agent says, in one place.

They are plain speech, honest about what the agent is and what it cannot do. The voice synthesises them once, before
they are needed (`fixed_phrases`), so each clause here is exactly the text of one Say.
"""

from __future__ import annotations

from enum import StrEnum

from calls.clauses import clauses


class Phrase(StrEnum):
    """What a fixed phrase is for. Its value begins the answer's id ("repair-2")."""

    GREETING = "greeting"
    HELLO = "hello"
    WELCOME = "welcome"
    GO_AHEAD = "go-ahead"
    IDENTITY = "identity"
    REPAIR = "repair"
    TROUBLE = "trouble"
    UNKNOWN = "unknown"
    PERSON = "person"
    ASK_NUMBER = "ask-number"
    ASK_AGAIN = "ask-again"
    ASK_KEYS = "ask-keys"
    ASK_CALLBACK = "ask-callback"
    NOTED = "noted"
    DECLINED = "declined"
    TAKE_TIME = "take-time"
    STUMBLE = "stumble"
    PROMPT = "prompt"
    GOODBYE = "goodbye"
    DEAD_AIR = "dead-air"


# Variants are used in turn, so that a caller who meets the same obstacle twice does not hear the same words twice.
VARIANTS: dict[Phrase, tuple[str, ...]] = {
    Phrase.GREETING: ("Hello, this is {company}. I'm an AI, and this call is recorded. How can I help?",),
    Phrase.HELLO: ("Hello, I can hear you. How can I help?", "Yes, I'm here. What can I do for you?"),
    Phrase.WELCOME: ("You're welcome. Is there anything else?", "My pleasure. Anything else I can help with?"),
    Phrase.GO_AHEAD: ("Of course. What would you like to know?", "Sure, go ahead."),
    Phrase.IDENTITY: ("I'm an AI assistant for {company}, not a person. I can answer questions or take a message.",),
    Phrase.REPAIR: (
        "Sorry, I didn't catch that. Could you say it again?",
        "I'm sorry, I still didn't get that. Could you put it another way?",
        "Sorry, I missed that. Would you repeat it, please?",
        "I beg your pardon, the line isn't clear. Could you say that once more?",
    ),
    Phrase.TROUBLE: ("I'm sorry, I'm having trouble hearing you. Shall I take a message, so that someone rings you?",),
    Phrase.UNKNOWN: (
        "I'm sorry, I don't have that in my notes. Shall I take a message for the team?",
        "That's not something I have in my notes. Would you like someone to ring you back?",
        "I'm afraid my notes don't say. I can take a message, if you like?",
    ),
    Phrase.PERSON: (
        "I can't put you through from here, I'm sorry. Shall I take a message, so that someone rings you back?",
        "I can't transfer you myself. Would you like to leave a number, and someone will ring you back?",
    ),
    Phrase.ASK_NUMBER: ("Certainly. What number can we ring you on?", "All right. Which number should we ring?"),
    Phrase.ASK_AGAIN: ("Sorry about that. Please say it once more, slowly.",),
    Phrase.ASK_KEYS: ("I'm sorry. Please type the number on your phone's keypad, and press the hash key.",),
    Phrase.ASK_CALLBACK: ("Thank you. The team will confirm it. What number can they ring you on?",),
    Phrase.NOTED: ("Thank you, I've noted that for the team. Is there anything else?",),
    Phrase.DECLINED: ("All right. Is there anything else I can help with?", "No problem. Anything else?"),
    Phrase.TAKE_TIME: ("Of course, take your time.", "No hurry, I'm here."),
    Phrase.STUMBLE: ("Sorry, I lost my thread for a moment. Could you say that again?",),
    Phrase.PROMPT: ("Are you still there?", "Is there anything I can help you with?"),
    Phrase.GOODBYE: ("Thank you for calling {company}. Goodbye!",),
    Phrase.DEAD_AIR: ("I can't hear anyone, so I'll end the call now. Please ring again any time. Goodbye!",),
}

READ_BACK = "Let me read that back."
RIGHT = "Did I get that right?"


def phrase(kind: Phrase, company: str, nth: int = 0) -> str:
    """The `nth` time (from 0) that `kind` is said on a call."""
    variants = VARIANTS[kind]
    return variants[nth % len(variants)].format(company=company)


def fixed_phrases(company: str) -> list[str]:
    """The text of every Say that does not depend on the call, without repeats."""
    whole = (variant.format(company=company) for variants in VARIANTS.values() for variant in variants)
    said = [clause for text in (*whole, READ_BACK, RIGHT) for clause in clauses(text)]
    return list(dict.fromkeys(said))
