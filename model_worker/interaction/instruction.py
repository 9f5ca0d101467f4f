"""What the model is told of its role on a call: the Instruction as tokens, in front of all that it hears."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tokenizers import Tokenizer

from calls.model import Card, Instruction, Mode
from model_worker.interaction.tokens import Tokens

log = logging.getLogger(__name__)

MODES = {
    Mode.ANSWER: "You are on the telephone with a caller. When the caller needs an answer, speak; else stay silent.",
    Mode.ASSIST: "You listen to a call. When the employee could use a fact or a next step, write it; else stay silent.",
    Mode.TRANSCRIBE: "You listen to one side of a call. When a sentence has ended, write it down; else stay silent.",
}


def prefix_of(instruction: Instruction, tokenizer: Tokenizer, tokens: Tokens, room: int) -> list[int]:
    """ONLINE, language, SYSTEM, TEXT_BEGIN, text, TEXT_END: at most `room` tokens.

    The text is the mode in a sentence, the tenant's policy, and as many cards as fit, in their order and whole. What is
    left out is logged, but not of a model that has no room for the sentence: its card says that it reads no policy.
    There is one language marker, English. Words that look like a marker are only words.
    """
    begin = [tokens.online, tokens.english, tokens.system, tokens.text_begin]
    room -= len(begin) + 1
    reads = len(words_of(MODES[instruction.mode], tokenizer)) < room
    level = logging.WARNING if reads else logging.DEBUG
    policy = words_of(f"{MODES[instruction.mode]}\n{instruction.text}", tokenizer)
    if len(policy) > room:
        log.log(level, "the policy has %d tokens, the model has room for %d: its end is cut off", len(policy), room)
    text = policy[:room]
    fit = _add_cards(text, instruction.cards, tokenizer, room)
    if fit < len(instruction.cards):
        log.log(level, "the model has room for %d of the %d cards", fit, len(instruction.cards))
    return [*begin, *text, tokens.text_end]


def words_of(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ordinary tokens only: a marker in `text` is spelt, never obeyed."""
    tokenizer.encode_special_tokens = True
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _add_cards(text: list[int], cards: Sequence[Card], tokenizer: Tokenizer, room: int) -> int:
    """Append cards until one does not fit. Returns how many did."""
    for number, card in enumerate(cards):
        more = words_of(f"\n\n{card.title}: {card.text}", tokenizer)
        if len(text) + len(more) > room:
            return number
        text += more
    return len(cards)
