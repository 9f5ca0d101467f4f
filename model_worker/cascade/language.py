"""The language model of the cascade: a GGUF on this machine through llama.cpp, or any OpenAI-compatible server.

Both stream text as it is made and can be stopped at any moment, because most of what a voice agent begins to say after
an interruption is never wanted. Messages are OpenAI's: `{"role": "system" | "user" | "assistant", "content": str}`.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import xllamacpp

from calls.errors import OffhookError

Messages = Sequence[dict[str, str]]
Emit = Callable[[str], bool]
_POLL_S = 0.02
# A stopped request gives its slot back at its next token. A request that comes sooner would be put in another slot, one
# that has not read the instruction yet, and that costs a second or more.
_LINGER_S = 0.15


class LanguageModelError(OffhookError):
    """The language model could not be loaded, reached, or refused the request."""


class LanguageModel(Protocol):
    """What the cascade needs of a language model. Safe to call from several threads."""

    def stream(
        self, messages: Messages, *, max_tokens: int, temperature: float = 0.0, stop: threading.Event
    ) -> Iterator[str]:
        """Yield the reply piece by piece; end soon after `stop` is set. Raises `LanguageModelError`."""

    def warm(self, prefix_messages: Messages) -> None:
        """Read the start of a conversation ahead of time, so that a later `stream` reads only what is new."""


class LocalLanguageModel:
    """A GGUF through llama.cpp. Keys and values of a prompt's longest known prefix are used again, slot by slot.

    `slots` requests run at once (they share the threads and batch together); a further one waits. Each slot holds
    `context` tokens; a longer prompt is refused with `LanguageModelError`.
    """

    def __init__(self, gguf: Path, *, threads: int = 2, slots: int = 2, context: int = 4096) -> None:
        if not gguf.is_file():
            raise LanguageModelError(f"no GGUF at {gguf}")
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.offline = True
        params.n_gpu_layers = 0
        params.n_parallel = slots
        params.n_ctx = slots * context
        params.n_batch = params.n_ubatch = 256  # short steps: a long prompt may not hold up another call's next token
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        # Waiting threads sleep: spinning at a barrier for a thread that lost its core costs the others theirs.
        params.cpuparams.poll = params.cpuparams_batch.poll = 0
        params.cache_ram_mib = 512
        params.n_threads_http = 2
        params.verbosity = -1
        # The library also listens on a port of the loopback interface, which we do not use: nobody else may either.
        params.api_keys = [secrets.token_hex(32)]
        params.ui = params.endpoint_slots = params.endpoint_props = False
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise LanguageModelError(f"llama.cpp could not load {gguf}: {error}") from error

    def stream(
        self, messages: Messages, *, max_tokens: int, temperature: float = 0.0, stop: threading.Event
    ) -> Iterator[str]:
        """See `LanguageModel.stream`. Greedy at temperature 0. A stop takes effect within 0.2 s for the caller, even
        while a long prompt is being read; llama.cpp itself lets go at its next token."""
        request = {
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
            "cache_prompt": True,
        }
        return _pump(lambda emit: self._complete(request, emit), stop, _LINGER_S)

    def warm(self, prefix_messages: Messages) -> None:
        """See `LanguageModel.warm`. Blocks until the prefix has been read."""
        request = {"messages": list(prefix_messages), "max_tokens": 1, "stream": True, "cache_prompt": True}
        self._complete(request, lambda text: False)

    def _complete(self, request: dict[str, Any], emit: Emit) -> None:
        failure: list[str] = []

        def on_chunk(chunk: Any) -> bool:
            """Called by llama.cpp for each token; True makes it stop."""
            parts = chunk if isinstance(chunk, list) else [chunk]
            for part in parts:
                if message := _error_of(part):
                    failure.append(message)
                    return True
                text = _delta_of(part)
                if text is not None and not emit(text):
                    return True
            return False

        try:
            self._server.handle_chat_completions(request, on_chunk)
        except (RuntimeError, ValueError) as error:
            raise LanguageModelError(f"llama.cpp refused the request: {error}") from error
        if failure:
            raise LanguageModelError(f"llama.cpp refused the request: {failure[0]}")


class RemoteLanguageModel:
    """Any server with OpenAI's `POST {base_url}/chat/completions` and streaming (vLLM, llama-server, a cloud)."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        connect_timeout_s: float = 2.0,
        token_timeout_s: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = client or httpx.Client(timeout=httpx.Timeout(token_timeout_s, connect=connect_timeout_s))

    def stream(
        self, messages: Messages, *, max_tokens: int, temperature: float = 0.0, stop: threading.Event
    ) -> Iterator[str]:
        """See `LanguageModel.stream`. The connection is closed at the first token after `stop`."""
        request = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
        }
        return _pump(lambda emit: self._complete(request, emit), stop)

    def warm(self, prefix_messages: Messages) -> None:
        """Nothing to do: such servers cache prefixes by themselves, and asking costs the tenant money."""

    def _complete(self, request: dict[str, Any], emit: Emit) -> None:
        try:
            with self._client.stream("POST", self._url, json=request, headers=self._headers) as response:
                if response.status_code != 200:
                    body = response.read()[:300].decode("utf-8", "replace")
                    raise LanguageModelError(f"{self._url} answered {response.status_code}: {body}")
                for text in _server_sent_deltas(response.iter_lines()):
                    if not emit(text):
                        return
        except httpx.TimeoutException as error:
            raise LanguageModelError(f"{self._url} took too long ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise LanguageModelError(f"{self._url} cannot be used: {error}") from error


def _server_sent_deltas(lines: Iterator[str]) -> Iterator[str]:
    """The text deltas of a chat-completions event stream, up to `[DONE]`."""
    for line in lines:
        field, _, value = line.partition(":")
        if field != "data":
            continue
        if value.strip() == "[DONE]":
            return
        try:
            chunk = json.loads(value)
        except json.JSONDecodeError as error:
            raise LanguageModelError(f"the language server sent no JSON: {value[:200]}") from error
        if message := _error_of(chunk):
            raise LanguageModelError(f"the language server gave up: {message}")
        text = _delta_of(chunk)
        if text:
            yield text


def _delta_of(chunk: dict[str, Any]) -> str | None:
    """The text in a chunk; "" for a chunk that only names the role or the end; None for one of another kind."""
    choices = chunk.get("choices")
    if not choices:
        return None
    return choices[0].get("delta", {}).get("content") or ""


def _error_of(chunk: dict[str, Any]) -> str:
    error = chunk.get("error") if isinstance(chunk, dict) else None
    if error is None and isinstance(chunk, dict) and "choices" not in chunk and "message" in chunk:
        error = chunk
    return str(error.get("message", error)) if isinstance(error, dict) else str(error or "")


def _pump(produce: Callable[[Emit], None], stop: threading.Event, linger_s: float = 0.0) -> Iterator[str]:
    """Run `produce` on a thread and yield what it emits, so that the reader is never held by a slow producer.

    After a stop the producer is waited for, `linger_s` at most.

    `emit` answers False once the reader has stopped or gone; an error of the producer is raised at the reader. The
    queue needs no bound: it holds at most `max_tokens` short strings.
    """
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    gone = threading.Event()

    def emit(text: str) -> bool:
        if text:
            pieces.put(text)
        return not (gone.is_set() or stop.is_set())

    def run() -> None:
        try:
            produce(emit)
            pieces.put(None)
        except BaseException as error:  # raised again at the reader
            pieces.put(error)

    thread = threading.Thread(target=run, name="language", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                piece = pieces.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if piece is None:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        gone.set()
        thread.join(linger_s)
