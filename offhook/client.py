"""The command line's side of the REST API and of the live events."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import websockets

from calls.errors import OffhookError
from offhook.local import Running

OVER = ("ended", "refused", "failed")


class ApiError(OffhookError):
    """The service answered with an error, or not at all."""


class Client:
    """Speaks to a running service. Certificates of this machine's own service are not verified: it made them itself."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._verify = not running.pid

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at `path`. Raises ApiError with the service's own words."""
        try:
            response = httpx.get(
                self.running.url + path,
                params=query,
                headers={"Authorization": f"Bearer {self.running.password}"},
                timeout=10.0,
                verify=self._verify,
            )
        except httpx.HTTPError as error:
            raise ApiError(f"no answer from {self.running.url}: {error}") from error
        if response.is_error:
            raise ApiError(_said(response))
        return response.json()

    def download(self, path: str, to: Path) -> None:
        """Write the file at `path` to `to`, whatever its size. Raises ApiError."""
        headers = {"Authorization": f"Bearer {self.running.password}"}
        try:
            with httpx.stream(
                "GET", self.running.url + path, headers=headers, timeout=30.0, verify=self._verify
            ) as response:
                if response.is_error:
                    response.read()
                    raise ApiError(_said(response))
                with to.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
        except httpx.HTTPError as error:
            raise ApiError(f"no answer from {self.running.url}: {error}") from error

    def call(self, call_id: str) -> dict[str, Any]:
        return dict(self.get(f"/api/v1/calls/{call_id}"))

    def calls(self, **query: Any) -> list[dict[str, Any]]:
        found = self.get("/api/v1/calls", **query)
        return list(found["calls"] if isinstance(found, dict) else found)

    def wait_until_written(self, call_id: str, timeout_s: float = 30.0, wrapped_up: bool = False) -> dict[str, Any]:
        """The call's story once it is over and all in the database (and, if asked, wrapped up). Raises ApiError."""
        deadline = time.monotonic() + timeout_s
        story: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                story = self.call(call_id)
            except ApiError:
                if self.running.stopped:
                    raise ApiError(
                        f"the service has stopped; when it is up again, see the call by `offhook show {call_id}`"
                    ) from None
                story = {}
            if story.get("state") in OVER:
                # "" until the last row is written: the last words of a busy worker come after the hang-up.
                step = story["wrap_up"]
                if story["state"] != "ended" or (step.startswith(("done", "failed", "none")) if wrapped_up else step):
                    return story
            time.sleep(0.2)
        if story:
            return story
        raise ApiError(f"the call {call_id} did not reach the database within {timeout_s:.0f} s")

    async def events(self, call_id: str) -> AsyncIterator[dict[str, Any]]:
        """The live events of one call, from its beginning to its CallEnded."""
        parts = urlsplit(self.running.url)
        secure = parts.scheme == "https"
        context = None
        if secure:
            context = ssl.create_default_context()
            if not self._verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        url = f"{'wss' if secure else 'ws'}://{parts.netloc}/api/v1/calls/{call_id}/live"
        headers = {"Authorization": f"Bearer {self.running.password}"}
        async with websockets.connect(url, additional_headers=headers, ssl=context, max_size=1 << 20) as socket:
            async for message in socket:
                event = json.loads(message)
                yield event
                if event.get("type") == "CallEnded":
                    return


def _said(response: httpx.Response) -> str:
    try:
        body = response.json()
        return f"{body['error']}. {body.get('hint', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return f"{response.request.url.path}: HTTP {response.status_code}"
