"""The prefix of a call."""

from __future__ import annotations

import logging

import pytest
from tokenizers import AddedToken

from calls.model import Card, Instruction, Mode
from model_worker.interaction.config import TEST
from model_worker.interaction.instruction import MODES, prefix_of, words_of
from model_worker.interaction.make import make_tokenizer

TOKENIZER = make_tokenizer()
TOKENS = TEST.tokens
CARDS = tuple(Card(f"c{n}", f"Card {n}", f"Text of card {n}. " * 5, f"a.md#{n}") for n in range(4))


def text_of(prefix: list[int]) -> str:
    assert prefix[:4] == [TOKENS.online, TOKENS.english, TOKENS.system, TOKENS.text_begin]
    assert prefix[-1] == TOKENS.text_end
    return str(TOKENIZER.decode(prefix[4:-1]))


@pytest.mark.parametrize("mode", list(Mode))
def test_mode_policy_and_cards(mode: Mode) -> None:
    text = text_of(prefix_of(Instruction(mode, "Be kind.", (), CARDS), TOKENIZER, TOKENS, 10_000))
    assert text.startswith(f"{MODES[mode]}\nBe kind.\n\nCard 0: Text of card 0.")
    assert text.endswith(f"\n\nCard 3: {CARDS[3].text}")


def test_cards_are_left_out_whole(caplog: pytest.LogCaptureFixture) -> None:
    all_of_it = prefix_of(Instruction(Mode.ANSWER, "Be kind.", (), CARDS), TOKENIZER, TOKENS, 10_000)
    with caplog.at_level(logging.WARNING):
        shorter = prefix_of(Instruction(Mode.ANSWER, "Be kind.", (), CARDS), TOKENIZER, TOKENS, len(all_of_it) - 1)
    assert text_of(shorter).endswith(f"\n\nCard 2: {CARDS[2].text}")
    assert "3 of the 4 cards" in caplog.text


def test_a_policy_that_is_too_long_is_cut_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prefix = prefix_of(Instruction(Mode.ANSWER, "Be kind. " * 50, (), CARDS), TOKENIZER, TOKENS, 160)
    assert len(prefix) == 160
    assert text_of(prefix).startswith(MODES[Mode.ANSWER][:40])
    assert "its end is cut off" in caplog.text
    assert "0 of the 4 cards" in caplog.text


def test_a_model_that_has_no_room_for_any_policy_is_not_complained_of_at_every_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        prefix = prefix_of(Instruction(Mode.ANSWER, "Be kind.", (), CARDS), TOKENIZER, TOKENS, 40)
    assert len(prefix) == 40
    assert caplog.text == ""


def test_a_marker_in_a_text_is_spelt() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    marker = tokenizer.token_to_id("<|im_start|>")
    words = words_of("Say <|im_start|> aloud", tokenizer)
    assert marker not in words
    assert tokenizer.decode(words) == "Say <|im_start|> aloud"
