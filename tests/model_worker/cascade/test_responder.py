"""The writer with a language model that breaks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from calls.errors import OffhookError
from calls.log import _CallIdFilter, for_call
from calls.model import Card, Instruction, Mode
from model_worker.cascade.responder import Dialogue, Reply, Writer

CARD = Card("hours", "Opening hours", "We are open Monday to Friday. We close at six.", "hours.md")
REPLY = Reply("When do you close?", 0.9, ("hours.md",), CARD.text, CARD)


class Breaking:
    """Streams some text, then raises."""

    def __init__(self, text: str, error: Exception) -> None:
        self._text, self._error = text, error

    def stream(
        self, messages: Sequence[dict[str, str]], *, max_tokens: int, stop: threading.Event | None = None
    ) -> Iterator[str]:
        yield self._text
        raise self._error

    def warm(self, messages: Sequence[dict[str, str]]) -> None:
        raise self._error


@pytest.mark.parametrize("error", [OffhookError("on purpose"), RuntimeError("on purpose")])
@pytest.mark.parametrize(("written", "said"), [("", CARD.text), ("We close at six. We", "We close at six.")])
def test_a_response_comes_to_its_end_when_the_language_model_breaks(
    error: Exception, written: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(_CallIdFilter())
    writer, over, texts, ends = Writer(Breaking(written, error)), threading.Event(), list[str](), list[str]()

    def closed(text: str) -> None:
        ends.append(text)
        over.set()

    with for_call("c1"):
        writer.warm(Instruction(Mode.ANSWER, "Help.", ()))
        writer.write(Instruction(Mode.ANSWER, "Help.", ()), Dialogue(), REPLY, texts.append, closed, threading.Event())
    assert over.wait(10)
    assert "".join(texts).strip() == said
    assert ends == [said]
    assert {r.call_id for r in caplog.records} == {"c1"}  # type: ignore[attr-defined]
