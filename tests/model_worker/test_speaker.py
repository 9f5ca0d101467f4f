"""The speaker with a voice that notes what it was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from calls.events import Say, Speech
from model_worker.speaker import Speaker


class Slow:
    """A voice that takes as long for a clause as the test likes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.began, self.go_on = threading.Event(), threading.Event()

    def say(self, text: str, *, style: str = "normal") -> Iterator[npt.NDArray[np.float32]]:
        self.asked.append(text)
        self.began.set()
        assert self.go_on.wait(10)
        yield np.zeros(1600, np.float32)

    def prepare(self, texts: Iterable[str], *, style: str = "normal") -> None:
        pass


def say(answer_id: str, seq: int, text: str, last: bool = False) -> Say:
    return Say(call_id="c1", answer_id=answer_id, seq=seq, text=text, last=last)


def test_the_voice_is_not_asked_for_an_answer_that_was_stopped() -> None:
    voice, posted, over = Slow(), list[Speech](), threading.Event()

    def post(call_id: str, speech: Speech) -> None:
        posted.append(speech)
        if speech.last:
            over.set()

    speaker = Speaker(voice, post)
    thread = threading.Thread(target=speaker.run)
    thread.start()
    try:
        for clause in (say("a1", 0, "One."), say("a1", 1, "Two."), say("a1", 2, "Three.", last=True)):
            speaker.say(clause)
        assert voice.began.wait(10)
        speaker.stop("c1", "a1")
        speaker.say(say("a2", 0, "Other.", last=True))
        voice.go_on.set()
        assert over.wait(10)
    finally:
        speaker.close()
        thread.join(10)
    assert voice.asked == ["One.", "Other."]
    assert {speech.answer_id for speech in posted} == {"a2"}
