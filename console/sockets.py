"""Live events to browsers: WS /api/v1/live (all live calls) and WS /api/v1/calls/{id}/live (one call's events).

Nothing is queued for a browser. The list sends the newest state of what changed; one call's events wait on the bus
until the browser has taken the ones before. A browser that takes nothing for `send_timeout_s` is dropped with code
1013 and may come back with `?after=` the last position it saw.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, WebSocket, WebSocketDisconnect

from calls.bus import FROM_START
from calls.errors import Ambiguous, BusError, NotFound, StoreError
from calls.events import CallEnded, call_stream, to_json
from console.config import Console, console_of

router = APIRouter(prefix="/api/v1")
Here = Annotated[Console, Depends(console_of)]

PACE_S = 0.25  # the list is sent at most so often
TICK_S = 5.0  # and a sign of life at least so often
PAGE = 500  # events of the past in one message
NO_SUCH_CALL = 4404
TOO_SLOW = 1013


class TooSlow(Exception):
    """The browser took nothing for too long."""


class _Gone(Exception):
    """The browser hung up."""


async def _send(ws: WebSocket, data: bytes, timeout_s: float) -> None:
    """Send one text message, or raise TooSlow. The socket's own small buffer is the only one."""
    try:
        async with asyncio.timeout(timeout_s):
            await ws.send_text(data.decode())
    except TimeoutError:
        raise TooSlow from None


async def _listen(ws: WebSocket) -> None:
    """Browsers say nothing here; reading tells when they leave."""
    while (await ws.receive())["type"] != "websocket.disconnect":
        pass
    raise _Gone


async def _serve(ws: WebSocket, console: Console, pump: Any) -> None:
    """Run `pump` (a coroutine that sends) until it ends, the browser leaves, or it is too slow."""
    console.sockets.add(ws)
    gone, code, reason = False, 1000, ""
    try:
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_listen(ws))
            group.create_task(pump).add_done_callback(lambda _: listening.cancel())
    except* (_Gone, WebSocketDisconnect, RuntimeError):
        gone = True  # RuntimeError: starlette's word for sending on a socket that just closed
    except* TooSlow:
        code, reason = TOO_SLOW, "too slow: reconnect with ?after=POSITION"
    finally:
        console.sockets.discard(ws)
    if not gone:
        await _close(ws, code, reason)


async def _close(ws: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(1.0):
            await ws.close(code, reason)
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass  # its buffer is full, or it has gone: uvicorn drops the connection when we return


@router.websocket("/live")
async def live_calls(ws: WebSocket, console: Here) -> None:
    """{"type": "calls", calls} once, then {"type": "call", call} and {"type": "gone", id, state} as they change."""
    await ws.accept()
    await _serve(ws, console, _pump_list(ws, console))


async def _pump_list(ws: WebSocket, console: Console) -> None:
    timeout_s = console.config.send_timeout_s
    with console.hub.watch() as watch:
        calls = [call.json() for call in console.hub.live()]
        await _send(ws, msgspec.json.encode({"type": "calls", "now": time.time(), "calls": calls}), timeout_s)
        while True:
            changed = await watch.changed(TICK_S)
            if not changed:
                await _send(ws, msgspec.json.encode({"type": "tick", "now": time.time()}), timeout_s)
            for call_id in changed:
                call = console.hub.get(call_id)
                message: dict[str, Any]
                if call is None or not call.live:
                    state = call.state.value if call else "ended"
                    message = {"type": "gone", "id": call_id, "state": state, "reason": call.reason if call else ""}
                else:
                    message = {"type": "call", "now": time.time(), "call": call.json()}
                await _send(ws, msgspec.json.encode(message), timeout_s)
            await asyncio.sleep(PACE_S)


@router.websocket("/calls/{call_id}/live")
async def one_call(
    ws: WebSocket,
    call_id: str,
    console: Here,
    after: Annotated[str, Query(pattern=r"^\d{1,15}(-\d{1,10})?$")] = "",
    batch: bool = False,
) -> None:
    """Every event of the call as {"type", ..., "position"}, from its beginning or after a position. Ends with code
    1000 after CallEnded, 4404 if the bus knows no such call. With `batch`, what has already happened comes as lists
    of events, which is several times faster on a long call."""
    await ws.accept()
    try:
        full_id = await _full_id(console, call_id)
    except (NotFound, BusError) as error:
        await _close(ws, NO_SUCH_CALL if isinstance(error, NotFound) else TOO_SLOW, str(error))
        return
    await _serve(ws, console, _pump_call(ws, console, full_id, after or FROM_START, batch))


async def _full_id(console: Console, call_id: str) -> str:
    known = console.hub.resolve(call_id)
    if known is not None:
        return known.id
    if not call_id.isprintable():
        raise NotFound("no such call")
    if await console.bus.newest(call_stream(call_id)) != FROM_START:
        return call_id
    try:
        rows = await console.store.call(call_id)
    except (Ambiguous, StoreError) as error:
        raise NotFound(str(error)) from error
    if await console.bus.newest(call_stream(rows["id"])) == FROM_START:
        raise NotFound("the call is over; read it with GET /api/v1/calls/{id}")
    return str(rows["id"])


async def _pump_call(ws: WebSocket, console: Console, call_id: str, after: str, batch: bool) -> None:
    timeout_s = console.config.send_timeout_s
    stream = call_stream(call_id)
    while batch:
        try:
            page = await console.bus.read(stream, after=after, count=PAGE)
        except BusError:
            break  # the follower below waits for it
        if not page:
            break
        after = page[-1].position
        await _send(ws, b"[" + b",".join(to_json(m.event, m.position) for m in page) + b"]", timeout_s)
        if isinstance(page[-1].event, CallEnded):
            return
    follower = console.bus.follower(f"browser-{secrets.token_hex(6)}")
    follower.add(stream, after)
    async with aclosing(follower.messages()) as messages:  # type: ignore[type-var]
        async for message in messages:
            await _send(ws, to_json(message.event, message.position), timeout_s)
            if isinstance(message.event, CallEnded):
                return
