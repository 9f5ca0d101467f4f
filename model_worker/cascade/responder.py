"""What the model says to a caller's turn: which card answers it, and in which words.

A card's text is written to be read aloud, so for the language model of a CPU reading it is both quicker and safer than
writing anew: no first token to wait for, and no price that was never true. With a language model worth waiting for
(one behind a URL) the reply is written from the card, clause by clause, and each sentence is checked: a number or too
many words that neither the card nor the caller said, and the card is read instead.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field

from calls.clauses import clauses
from calls.errors import OffhookError
from calls.model import Answer, Card, Instruction
from model_worker.cascade.knowledge import FLOOR, READ_ALL, Found, Library
from model_worker.cascade.language import LanguageModel
from model_worker.cascade.retrieval import terms

log = logging.getLogger(__name__)

HISTORY = 6  # lines of dialogue that the language model sees
MAX_TOKENS = 90
STRANGE = 0.5  # a sentence with a larger share of words that are nowhere in the card is not from it
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NUMBER = re.compile(
    r"\d+(?:[.:,]\d+)*|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty"
    r"|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|half|free)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What would be said to `heard`. Without a source nothing is known, and `text` is empty."""

    heard: str
    score: float
    sources: tuple[str, ...] = ()
    text: str = ""
    card: Card | None = None

    @property
    def is_long(self) -> bool:
        return self.card is not None and is_long(self.card)

    @property
    def opening(self) -> list[str]:
        """The clauses that the agent will have spoken first, to the character: what the voice may get ready. The first
        one is short, so the one after it is needed almost as soon."""
        return clauses(self.text)[:2]


@dataclass(slots=True)
class Dialogue:
    """What was said on the call, for the questions that only make sense with the one before."""

    lines: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=HISTORY))  # ("user" | "assistant", text)

    def caller(self, text: str) -> None:
        self.lines.append(("user", text))

    def agent(self, answer: Answer) -> None:
        if answer.heard_text:
            self.lines.append(("assistant", answer.heard_text))

    def last_question(self) -> str:
        return next((text for who, text in reversed(self.lines) if who == "user"), "")


def reply(heard: str, library: Library, dialogue: Dialogue) -> Reply:
    """The reply that is read from the cards. A question of hardly a word ("and on Sunday?", "how much is it?") that
    finds nothing is looked up again together with the question before it."""
    found = library.find(heard)
    query = heard
    before = dialogue.last_question()
    if before and len(terms(heard)) <= 1 and (found is None or found.score < FLOOR):
        query = f"{before} {heard}"
        again = library.find(query)
        if again is not None and again.score >= FLOOR and _adds(again, found):
            found = again
    if found is None or found.score < FLOOR:
        return Reply(heard, found.score if found else 0.0)
    return Reply(heard, found.score, (found.card.source,), library.reading(found.card, query), found.card)


def _adds(again: Found, found: Found | None) -> bool:
    return found is None or again.score > found.score


class Writer:
    """Writes replies with a language model, on threads of its own."""

    def __init__(self, language: LanguageModel, at_once: int = 4) -> None:
        self._language = language
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="writer")

    def warm(self, instruction: Instruction) -> None:
        """Have the model read the instruction before it is needed."""
        self._pool.submit(copy_context().run, self._warm, [{"role": "system", "content": instruction.text}])

    def _warm(self, prefix: Sequence[dict[str, str]]) -> None:
        try:
            self._language.warm(prefix)
        except OffhookError as error:
            log.warning("the language model could not be warmed: %s", error)
        except Exception:
            log.exception("warming the language model failed")  # as below; nobody waits for the pool's results

    def write(
        self,
        instruction: Instruction,
        dialogue: Dialogue,
        reply: Reply,
        say: Callable[[str], None],
        closed: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        """Start writing; `say` gets each sentence, `closed` the whole at the end. Both from another thread."""
        lines = list(dialogue.lines)
        self._pool.submit(copy_context().run, self._write, instruction, lines, reply, say, closed, stop)

    def _write(
        self,
        instruction: Instruction,
        lines: Sequence[tuple[str, str]],
        reply: Reply,
        say: Callable[[str], None],
        closed: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        said: list[str] = []
        try:
            for sentence in self._sentences(instruction, lines, reply, stop):
                if stop.is_set():
                    break
                assert reply.card is not None
                if not is_grounded(sentence, reply.card, reply.heard):
                    log.warning("not in the card, so not said: %s", sentence)
                    break
                said.append(sentence)
                say(sentence + " ")
        except OffhookError as error:
            log.warning("the language model failed: %s", error)
        except Exception:
            # The boundary between the language model and the calls: the response must come to its end.
            log.exception("writing a response failed")
        if not said and not stop.is_set():
            said.append(reply.text)
            say(reply.text)
        closed(" ".join(said))

    def _sentences(
        self, instruction: Instruction, lines: Sequence[tuple[str, str]], reply: Reply, stop: threading.Event
    ) -> Iterator[str]:
        assert reply.card is not None
        messages = [
            {"role": "system", "content": instruction.text},
            *({"role": who, "content": text} for who, text in lines if text != reply.heard),
            {"role": "user", "content": f"Notes: {reply.card.title}. {reply.card.text}\n\nCaller: {reply.heard}"},
        ]
        pending = ""
        for delta in self._language.stream(messages, max_tokens=MAX_TOKENS, stop=stop):
            pending += delta
            *whole, pending = _SENTENCE_END.split(pending)
            yield from whole
        if pending.strip():
            yield pending.strip()


def is_long(card: Card) -> bool:
    """More than a caller will listen to: it should be put in fewer words."""
    return len(card.text.split()) > READ_ALL


def is_grounded(sentence: str, card: Card, heard: str) -> bool:
    """Every number of the sentence, and most of its words, are the card's or the caller's."""
    known = f"{card.title} {card.text} {heard}"
    if set(_NUMBER.findall(sentence.lower())) - set(_NUMBER.findall(known.lower())):
        return False
    used, there = terms(sentence), set(terms(known))
    return not used or sum(term not in there for term in used) / len(used) <= STRANGE
