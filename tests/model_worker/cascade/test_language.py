from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_worker.cascade.language import LanguageModelError, LocalLanguageModel, RemoteLanguageModel

SYSTEM = {
    "role": "system",
    "content": "You answer calls for Bright Dental, in one short sentence. Open Monday to Friday 8:30 to 17:00, "
    "Saturday 9 to 12. Parking is behind the building. A check-up costs 90 dollars.",
}


def ask(question: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": question}]


def test_it_answers_from_its_instruction(language_model: LocalLanguageModel) -> None:
    language_model.warm([SYSTEM])
    pieces = list(language_model.stream(ask("Where can I park?"), max_tokens=40, stop=threading.Event()))
    assert len(pieces) > 2
    assert "building" in "".join(pieces)


def test_greedy_is_the_same_twice(language_model: LocalLanguageModel) -> None:
    def once() -> str:
        return "".join(language_model.stream(ask("How much is a check-up?"), max_tokens=30, stop=threading.Event()))

    assert once() == once()


def test_it_stops_when_told_and_answers_again(language_model: LocalLanguageModel) -> None:
    stop, pieces = threading.Event(), []
    for piece in language_model.stream(ask("Tell me a long story about teeth."), max_tokens=200, stop=stop):
        pieces.append(piece)
        if len(pieces) == 4:
            stop.set()
    assert len(pieces) == 4
    assert list(language_model.stream(ask("Where can I park?"), max_tokens=10, stop=threading.Event()))


def test_a_stop_set_before_the_start_gives_nothing(language_model: LocalLanguageModel) -> None:
    stop = threading.Event()
    stop.set()
    assert list(language_model.stream(ask("Hello?"), max_tokens=10, stop=stop)) == []


def test_two_calls_at_once(language_model: LocalLanguageModel) -> None:
    answers: dict[str, str] = {}

    def call(question: str) -> None:
        answers[question] = "".join(language_model.stream(ask(question), max_tokens=30, stop=threading.Event()))

    questions = ["Where can I park?", "How much is a check-up?"]
    threads = [threading.Thread(target=call, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "building" in answers[questions[0]]
    assert "90" in answers[questions[1]]


def test_requests_it_refuses(language_model: LocalLanguageModel) -> None:
    with pytest.raises(LanguageModelError, match="context"):
        list(language_model.stream(ask("word " * 6000), max_tokens=5, stop=threading.Event()))
    with pytest.raises(LanguageModelError, match="content"):
        list(language_model.stream([{"role": "user"}], max_tokens=5, stop=threading.Event()))


def test_files_it_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="no GGUF"):
        LocalLanguageModel(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(LanguageModelError, match="could not load"):
        LocalLanguageModel(tmp_path / "bad.gguf")


def events(texts: list[str], end: bytes = b"data: [DONE]\n\n") -> bytes:
    chunks = [{"choices": [{"delta": {"role": "assistant"}}]}]
    chunks += [{"choices": [{"delta": {"content": text}}]} for text in texts]
    return b": hello\n\n" + b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + end


def remote(handler: httpx.MockTransport) -> RemoteLanguageModel:
    return RemoteLanguageModel("http://llm/v1/", "m", api_key="k", client=httpx.Client(transport=handler))


@given(st.lists(st.text(min_size=1, max_size=20), max_size=10))
def test_remote_text_arrives_as_it_was_sent(texts: list[str]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=events(texts))

    model = remote(httpx.MockTransport(answer))
    assert list(model.stream(ask("Hi"), max_tokens=7, temperature=0.5, stop=threading.Event())) == texts
    sent = json.loads(seen[0].content)
    assert (sent["max_tokens"], sent["temperature"], sent["stream"]) == (7, 0.5, True)
    assert seen[0].headers["authorization"] == "Bearer k"
    assert str(seen[0].url) == "http://llm/v1/chat/completions"


def fail(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow")


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda request: httpx.Response(401, text="no key"), "401: no key"),
        (lambda request: httpx.Response(200, content=b"data: {oops\n\n"), "no JSON"),
        (lambda request: httpx.Response(200, content=b'data: {"error": {"message": "full"}}\n\n'), "full"),
        (fail, "too long"),
    ],
)
def test_remote_errors_are_clear(handler: httpx.MockTransport, message: str) -> None:
    model = remote(httpx.MockTransport(handler))  # type: ignore[arg-type]
    with pytest.raises(LanguageModelError, match=message):
        list(model.stream(ask("Hi"), max_tokens=5, stop=threading.Event()))


def test_a_remote_stream_that_stops_coming_is_left() -> None:
    stop, release = threading.Event(), threading.Event()

    class Slow(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield events(["one"], end=b"")
            release.wait(20)

    model = remote(httpx.MockTransport(lambda request: httpx.Response(200, stream=Slow())))
    pieces = []
    for piece in model.stream(ask("Hi"), max_tokens=5, stop=stop):
        pieces.append(piece)
        stop.set()
    release.set()
    assert pieces == ["one"]
