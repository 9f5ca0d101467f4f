"""Markdown into cards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.knowledge import GARAGE, Knowledge, KnowledgeError, parse, read

HOURS = """\
# Hours

Passed over.

## Opening hours ##
Asks: When are you open? What time do you close?
We are open from eight to six,
Monday to Friday.

asks: Are you open now
## Parking

You can park in the yard.
"""


def test_each_heading_is_a_card() -> None:
    (line, hours), (_, parking) = parse("hours.md", HOURS)
    assert line == 5
    assert (hours.id, hours.title, hours.source) == ("hours-opening-hours", "Opening hours", "hours.md#opening-hours")
    assert hours.text == "We are open from eight to six, Monday to Friday."
    assert hours.asks == ("When are you open?", "What time do you close?", "Are you open now")
    assert (parking.text, parking.asks) == ("You can park in the yard.", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## Hours\n\n## Parking\nYes.", r'x\.md:1: "Hours" has no text'),
        ("\n## Hours\nAsks: When?\n", r'x\.md:2: "Hours" has no text'),
        ("## \ntext", r"x\.md:1: a heading without words"),
        ("## Hours\n" + "a " * 1500, r'x\.md:1: "Hours" has 2999 characters'),
        ("## Hours\nEight.\n\n## hours!\nNine.", r'x\.md:4: a second card "hours!"'),
    ],
)
def test_mistakes_are_named_with_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text(text)
    with pytest.raises(KnowledgeError, match=message):
        read(tmp_path)


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="has no cards"):
        read(tmp_path)
    with pytest.raises(KnowledgeError, match="is not a folder"):
        read(tmp_path / "absent")
    (tmp_path / "x.md").write_bytes(b"\xff\xfe## A\n")
    with pytest.raises(KnowledgeError, match="cannot read"):
        read(tmp_path)


def test_new_calls_get_what_was_edited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.md"
    path.write_text("## Hours\nEight.")
    knowledge = Knowledge(tmp_path)
    assert knowledge.cards()[0].text == "Eight."
    assert knowledge.cards() is knowledge.cards()
    path.write_text("## Hours\nNine o'clock.")
    assert knowledge.cards()[0].text == "Nine o'clock."
    path.write_text("## Hours\n")
    assert knowledge.cards()[0].text == "Nine o'clock."
    assert "stays as it was" in caplog.text
    path.write_text("## Hours\nTen.")
    os.utime(path, (1, 1))
    assert knowledge.cards()[0].text == "Ten."


@given(st.text(max_size=300))
def test_any_text_gives_cards_or_a_reason(text: str) -> None:
    try:
        cards = [card for _, card in parse("x.md", f"## A\n{text}")]
    except KnowledgeError:
        return
    assert all(card.text and card.title and "\n" not in card.text for card in cards)


def test_the_garage_can_be_read_aloud() -> None:
    cards = read(GARAGE)
    assert 20 <= len(cards) <= 30
    for card in cards:
        assert card.asks, card.id
        assert len(card.text.split()) <= 40, card.id
        assert card.text.endswith("."), card.id
        # Figures are written as words, but for a model year: they are read aloud as they stand.
        assert not any(character in card.text for character in "*#[]()$£/"), card.id
