"""The knowledge base: a folder of Markdown files, each `##` heading a Card.

    ## Opening hours
    Asks: When are you open? What time do you close?
    We are open from eight to six, Monday to Friday.

The text under a heading is read aloud and shown as it stands, so it is plain sentences. A line `Asks:` holds questions
that a caller might put, divided by their question marks; they help retrieval and are never shown. A `#` heading is the
file's title and is passed over, as is everything before the first `##`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from calls.errors import OffhookError
from calls.model import Card

log = logging.getLogger(__name__)

GARAGE = Path(__file__).with_name("garage")
LONGEST_CARD = 2_000  # characters: more is a document, not something to say or to show beside a call
MOST_CARDS = 500
_ASKS = "asks:"


class KnowledgeError(OffhookError):
    """A file of the knowledge base cannot be used; the message says which line."""


class Knowledge:
    """The cards of one folder, read again when a file of it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp: object = None
        self._cards: tuple[Card, ...] = ()

    def cards(self) -> tuple[Card, ...]:
        """The cards as they are on disk now. Raises KnowledgeError on the first reading; later an error is logged
        and the cards stay as they were, because calls must go on while somebody edits."""
        try:
            stamp = _stamp(self.folder)
            if stamp != self._stamp:
                self._cards = read(self.folder)
                log.info("%d cards in %s", len(self._cards), self.folder)
                self._stamp = stamp
        except KnowledgeError as error:
            if self._stamp is None:
                raise
            log.error("knowledge stays as it was: %s", error)
        return self._cards


def _stamp(folder: Path) -> object:
    try:
        return tuple((path, (found := path.stat()).st_mtime_ns, found.st_size) for path in sorted(folder.glob("*.md")))
    except OSError as error:
        raise KnowledgeError(f"cannot read {folder}: {error}") from error


def read(folder: Path) -> tuple[Card, ...]:
    """Every card of every *.md file in `folder`, in order of file names. Raises KnowledgeError."""
    if not folder.is_dir():
        raise KnowledgeError(f"{folder} is not a folder of Markdown files")
    cards: dict[str, Card] = {}
    for path in sorted(folder.glob("*.md")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KnowledgeError(f"cannot read {path}: {error}") from error
        for line, card in parse(path.name, text):
            if card.id in cards:
                raise KnowledgeError(f'{path}:{line}: a second card "{card.title}" (also {cards[card.id].source})')
            cards[card.id] = card
    if not cards:
        raise KnowledgeError(f'{folder} has no cards: write "## Heading" and a sentence below it into a .md file')
    if len(cards) > MOST_CARDS:
        raise KnowledgeError(f"{folder} has {len(cards)} cards; {MOST_CARDS} is the most")
    return tuple(cards.values())


def parse(file_name: str, text: str) -> Iterator[tuple[int, Card]]:
    """(line number of the heading, card) for each `##` of one file. Raises KnowledgeError, naming file and line."""
    title, start = "", 0
    body: list[str] = []
    lines = text.lstrip("\ufeff").splitlines()
    for number, line in enumerate([*lines, "## "], start=1):
        if line.startswith("## "):
            if start:
                yield start, _card(file_name, start, title, body)
            title, start, body = line[3:].strip().rstrip("#").strip(), number, []
            if not title and number <= len(lines):
                raise KnowledgeError(f"{file_name}:{number}: a heading without words")
        elif start:
            body.append(line)


def _card(file_name: str, line: int, title: str, body: list[str]) -> Card:
    asks = [part for text in body if text.lower().startswith(_ASKS) for part in _questions(text[len(_ASKS) :])]
    said = " ".join(" ".join(text for text in body if not text.lower().startswith(_ASKS)).split())
    if not said:
        raise KnowledgeError(f'{file_name}:{line}: "{title}" has no text below it')
    if len(said) > LONGEST_CARD:
        raise KnowledgeError(f'{file_name}:{line}: "{title}" has {len(said)} characters; {LONGEST_CARD} is the most')
    slug = _slug(title)
    stem = _slug(file_name.removesuffix(".md"))
    return Card(id=f"{stem}-{slug}", title=title, text=said, source=f"{file_name}#{slug}", asks=tuple(asks))


def _questions(text: str) -> Iterator[str]:
    return (found.strip() for found in re.findall(r"[^?]+\?|[^?]+$", text) if found.strip())


def _slug(text: str) -> str:
    """As GitHub makes the anchor of a heading, nearly."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "card"
