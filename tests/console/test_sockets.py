"""Live events over real WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from calls.bus import Bus
from calls.events import Notice, call_stream
from calls.store import Store
from console.auth import COOKIE, Sessions
from tests.console import seed
from tests.console.conftest import PASSWORD, Served, serving, until

BEARER = {"authorization": f"Bearer {PASSWORD}"}


def join(served: Served, path: str, **options: Any) -> connect:
    options.setdefault("additional_headers", BEARER)
    options.setdefault("close_timeout", 0.3)
    return connect(served.url.replace("http", "ws") + "/api/v1" + path, proxy=None, **options)


async def read_all(socket: ClientConnection) -> list[dict[str, Any]]:
    events = []
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            events.append(json.loads(await socket.recv()))
    return events


async def test_a_call_from_its_beginning_to_its_end(served: Served, bus: Bus) -> None:
    call = seed.assist_call("sock1", until_s=20)
    await seed.to_bus(bus, call, until_s=10.0)
    async with join(served, "/calls/sock1/live") as socket:
        reading = asyncio.create_task(read_all(socket))
        await seed.to_bus(bus, call, after_s=10.0)
        events = await reading
        assert socket.close_code == 1000
    assert len(events) == len(call.events)
    assert events[0]["type"] == "CallOffered"
    assert events[-1]["type"] == "CallEnded"
    assert all(event["call_id"] == "sock1" and event["position"] for event in events)
    chunks = [event["chunk"] for event in events if event["type"] == "Decided" and event["participant_id"] == "caller"]
    assert chunks == list(range(50))


async def test_a_browser_resumes_where_it_was(served: Served, bus: Bus) -> None:
    call = seed.assist_call("sock2", until_s=20)
    await seed.to_bus(bus, call)
    async with join(served, "/calls/sock2/live") as socket:
        first = [json.loads(await socket.recv()) for _ in range(30)]
    async with join(served, f"/calls/sock2/live?after={first[-1]['position']}") as socket:
        rest = await read_all(socket)
    assert len(first) + len(rest) == len(call.events)
    async with join(served, f"/calls/sock2/live?batch=1&after={first[-1]['position']}") as socket:
        assert [event for events in await read_all(socket) for event in events] == rest
    with pytest.raises(websockets.InvalidStatus):
        async with join(served, "/calls/sock2/live?after=nonsense"):
            pass


async def test_an_unknown_call_is_said_by_the_close_code(served: Served, store: Store) -> None:
    async with join(served, "/calls/nothing/live") as socket:
        assert await read_all(socket) == []
        assert socket.close_code == 4404
    await seed.to_store(store, seed.assist_call("old1", until_s=5))
    async with join(served, "/calls/old1/live") as socket:
        await read_all(socket)
        assert socket.close_code == 4404
        assert "over" in str(socket.close_reason)


async def test_the_list_of_live_calls(served: Served, bus: Bus) -> None:
    async with join(served, "/live") as socket:
        assert json.loads(await socket.recv())["calls"] == []
        call = seed.answer_call("sock3", until_s=30)
        await seed.to_bus(bus, call, until_s=20)
        message = json.loads(await socket.recv())
        assert message["type"] == "call"
        while not message.get("call", {}).get("last_words"):
            message = json.loads(await socket.recv())
        assert message["call"]["mode"] == "answer"
        assert message["call"]["strips"]["caller"]["cells"]
        await seed.to_bus(bus, call, after_s=20)
        while message["type"] != "gone":
            message = json.loads(await socket.recv())
        assert (message["id"], message["state"]) == ("sock3", "ended")


async def test_a_socket_needs_the_password_or_the_cookie_from_our_own_page(served: Served) -> None:
    sessions: Sessions = served.app.state.sessions
    cookie = {"cookie": f"{COOKIE}={sessions.issue(time.time())}"}
    refused: list[dict[str, Any]] = [
        {"additional_headers": {}},
        {"additional_headers": {"authorization": "Bearer wrong"}},
        {"additional_headers": cookie},
        {"additional_headers": cookie, "origin": "https://evil.example"},
        {"additional_headers": {"cookie": f"{COOKIE}=made.up.cookie"}, "origin": served.url},
    ]
    for options in refused:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with join(served, "/live", **options):
                pass
        assert caught.value.response.status_code == 403
    async with join(served, "/live", additional_headers=cookie, origin=served.url) as socket:
        assert json.loads(await socket.recv())["type"] == "calls"


async def test_a_slow_browser_is_dropped_and_not_buffered(bus: Bus, store: Store, tmp_path: Any) -> None:
    call = seed.assist_call("slow1", ended=False, until_s=5, started_at=time.time())
    await seed.to_bus(bus, call)
    for number in range(1500):  # 31 MB of events: more than every buffer between here and there
        text = f"{number} " + "words " * 3500
        bus.post(call_stream("slow1"), Notice(call_id="slow1", kind="transport", text=text, at_s=5.0))
    assert await bus.outbox.flush(30)
    async with serving(bus, store, tmp_path / "recordings", send_timeout_s=0.5) as served:
        async with join(
            served, "/calls/slow1/live", max_queue=1, compression=None, ping_interval=None, close_timeout=0.2
        ) as socket:
            await until(lambda: served.console.sockets)
            await until(lambda: not served.console.sockets)  # it took nothing, and was let go
            taken = await read_all(socket)
            assert len(taken) < 1500
        async with served.client() as client:  # everybody else is served on
            assert (await client.get("/api/v1/calls", params={"live": "1"})).status_code == 200


async def test_a_call_lives_on_while_valkey_is_restarted(own_valkey: Any, store: Store, tmp_path: Any) -> None:
    bus = Bus(own_valkey.url)
    sender = asyncio.create_task(bus.outbox.run())
    call = seed.assist_call("again1", until_s=20, started_at=time.time())
    try:
        async with serving(bus, store, tmp_path / "recordings") as served:
            await seed.to_bus(bus, call, until_s=10.0)
            async with join(served, "/calls/again1/live") as socket:
                reading = asyncio.create_task(read_all(socket))
                await until(lambda: served.console.hub.live())
                own_valkey.process.kill()
                own_valkey.process.wait()
                async with served.client() as client:
                    assert "bus" in (await client.get("/healthz")).json()["missing"]
                own_valkey.start()
                await seed.to_bus(bus, call, after_s=10.0)
                events = await reading
        keys = {json.dumps({k: v for k, v in event.items() if k != "position"}) for event in events}
        assert len(keys) == len(call.events)  # nothing is missing; an event may come twice
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await bus.close()
