"""What goes wrong on the threads that write stays with its call, and says whose it was."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from calls.log import _CallIdFilter
from model_worker.cascade.ear import Pcm
from model_worker.cascade.transcriber import Refiner, Transcriber, Urgency

PCM = np.zeros(1600, np.float32)


@dataclass(frozen=True)
class Read:
    text: str
    confidence: float = 1.0


class Reader:
    def transcribe(self, pcms: Sequence[Pcm]) -> Sequence[Read]:
        return [Read("hello") for _ in pcms]


def fail(result: object) -> None:
    raise RuntimeError("on purpose")


def test_what_follows_from_a_text_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(_CallIdFilter())
    transcriber = Transcriber(Reader())
    try:
        failed = transcriber.submit("bad", PCM, Urgency.RUNNING, fail)
        assert failed.done.wait(10)
        good = transcriber.submit("good", PCM, Urgency.RUNNING)
        assert good.done.wait(10)
    finally:
        transcriber.close()
    assert good.result == Read("hello")
    assert [r.call_id for r in caplog.records] == ["bad"]  # type: ignore[attr-defined]


def test_a_final_that_fails_leaves_the_next_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(_CallIdFilter())
    refiner: Refiner[Read] = Refiner(lambda pcm: Read("hello"))
    over = threading.Event()
    try:
        assert refiner.submit("bad", PCM, fail)
        assert refiner.submit("good", PCM, lambda final: over.set())
        assert over.wait(10)
    finally:
        refiner.close()
    assert [r.call_id for r in caplog.records] == ["bad"]  # type: ignore[attr-defined]
