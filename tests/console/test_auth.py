"""Who gets in, and who does not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.bus import Bus
from calls.store import Store
from console.auth import COOKIE, FREE_FAILURES, LONGEST_WAIT_S, SESSION_S, Sessions, Throttle, safe_next, same_password
from tests.console.conftest import PASSWORD, Served


def test_a_session_is_ours_and_ends() -> None:
    sessions = Sessions("secret", "password")
    cookie = sessions.issue(1000.0)
    assert sessions.valid(cookie, 1000.0 + SESSION_S - 1)
    assert not sessions.valid(cookie, 1000.0 + SESSION_S)
    assert not Sessions("another", "password").valid(cookie, 1000.0)
    assert not Sessions("secret", "new password").valid(cookie, 1000.0)
    expiry, nonce, signature = cookie.split(".")
    assert not sessions.valid(f"{int(expiry) + 1}.{nonce}.{signature}", 1000.0)


@given(st.text(max_size=80))
def test_no_made_up_cookie_is_valid(cookie: str) -> None:
    assert not Sessions("secret", "password").valid(cookie, 0.0)


@given(st.text(max_size=60))
def test_after_the_login_one_stays_on_this_site(target: str) -> None:
    chosen = safe_next(target)
    assert chosen.startswith("/")
    assert not chosen.startswith("//")
    assert "\\" not in chosen
    assert "\n" not in chosen


def test_an_empty_password_opens_nothing() -> None:
    assert same_password("a", "a")
    assert not same_password("", "")
    assert not same_password("é", "e")


def test_guessing_gets_slower_for_that_address_only() -> None:
    throttle = Throttle()
    for _ in range(FREE_FAILURES - 1):
        throttle.failed("a", 0.0)
    assert throttle.wait_s("a", 0.0) == 0
    waits = []
    for _ in range(9):
        throttle.failed("a", 0.0)
        waits.append(throttle.wait_s("a", 0.0))
    assert waits == [1, 2, 4, 8, 16, 32, *[LONGEST_WAIT_S] * 3]
    assert throttle.wait_s("b", 0.0) == 0
    assert throttle.wait_s("a", LONGEST_WAIT_S) == 0
    throttle.succeeded("a")
    assert throttle.wait_s("a", 0.0) == 0


async def test_everything_is_closed_without_the_password(served: Served) -> None:
    async with served.client("") as stranger:
        for path in ("/api/v1/calls", "/api/v1/calls/x/recording", "/api/v1/openapi.json"):
            refused = await stranger.get(path)
            assert refused.status_code == 401, path
            assert set(refused.json()) == {"error", "hint"}
        for path in ("/", "/calls/x?t=3", "/api", "/live/x"):
            sent = await stranger.get(path)
            assert sent.status_code == 303
            assert sent.headers["location"].startswith("/login?next=%2F")
        assert (await stranger.post("/api/v1/webrtc/offer", json={"sdp": "x"})).status_code == 401
        for path in ("/login", "/static/console.css", "/healthz"):
            assert (await stranger.get(path)).status_code in (200, 503)
    async with served.client("wrong") as stranger:
        assert (await stranger.get("/api/v1/calls")).status_code == 401


async def test_wrong_passwords_are_slowed_down(served: Served) -> None:
    async with served.client("wrong") as stranger:
        statuses = [(await stranger.get("/api/v1/calls")).status_code for _ in range(FREE_FAILURES + 1)]
        assert statuses == [401] * FREE_FAILURES + [429]
        slow = await stranger.get("/api/v1/calls")
        assert int(slow.headers["retry-after"]) >= 1
        form = {"password": PASSWORD}
        blocked = await stranger.post("/login", data=form, headers={"origin": served.url, "authorization": ""})
        assert blocked.status_code == 429


async def test_a_form_from_elsewhere_signs_nobody_in(served: Served) -> None:
    async with served.client("") as browser:
        form = {"password": PASSWORD, "next": "//evil.example/"}
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}, {}):
            assert (await browser.post("/login", data=form, headers=headers)).status_code == 403
        done = await browser.post("/login", data=form, headers={"origin": served.url})
        assert done.status_code == 303
        assert done.headers["location"] == "/"
        cookie = done.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie


async def test_a_request_with_the_cookie_must_come_from_our_pages(served: Served) -> None:
    sessions: Sessions = served.app.state.sessions
    async with served.client("") as browser:
        browser.cookies.set(COOKIE, sessions.issue(time.time()))
        assert (await browser.get("/api/v1/calls")).status_code == 200
        body = {"sdp": "x"}
        for headers in ({"origin": "https://evil.example"}, {}):
            assert (await browser.post("/api/v1/webrtc/offer", json=body, headers=headers)).status_code == 403
        mine = await browser.post("/api/v1/webrtc/offer", json=body, headers={"origin": served.url})
        assert mine.status_code == 503  # let through, and telephony is not there


async def test_every_answer_carries_the_security_headers(served: Served) -> None:
    async with served.client() as client:
        for path in ("/", "/api/v1/calls", "/static/js/dom.js", "/nowhere", "/login"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
        assert (await client.get("/api/v1/calls")).headers["cache-control"] == "no-store"
        assert (await client.get("/nowhere")).status_code == 404


async def test_health_says_what_is_missing(served: Served, bus: Bus) -> None:
    async with served.client("") as anyone:
        away = await anyone.get("/healthz")
        assert away.status_code == 503
        assert away.json()["missing"] == ["telephony", "agent", "model worker"]
        for service in ("telephony", "agent"):
            await bus.beat(service, "one", {}, ttl_s=60)
        await bus.beat("worker", "w1", {"room": 0}, ttl_s=60)
        assert (await anyone.get("/healthz")).json()["missing"] == ["a model worker with room"]
        await bus.beat("worker", "w2", {"room": 3}, ttl_s=60)
        ready = await anyone.get("/healthz")
        assert ready.status_code == 200
        assert ready.json()["ready"] is True


async def test_a_database_that_is_away_is_said(bus: Bus, tmp_path: object) -> None:
    from pathlib import Path

    from tests.console import seed
    from tests.console.conftest import serving, until

    store = Store("postgresql+asyncpg://nobody@127.0.0.1:9/none")
    async with serving(bus, store, Path(str(tmp_path)) / "recordings") as served, served.client() as api:
        assert "database" in (await api.get("/healthz")).json()["missing"]
        away = await api.get("/api/v1/calls")
        assert away.status_code == 503
        assert away.json()["error"] == "the database is away"
        assert away.json()["hint"]
        assert (await api.get("/api/v1/calls/none")).status_code == 503
        live = seed.assist_call("still1", ended=False, until_s=30, started_at=time.time())
        await seed.to_bus(bus, live)
        await until(lambda: served.console.hub.live())
        assert [c["id"] for c in (await api.get("/api/v1/calls", params={"live": "1"})).json()["calls"]] == ["still1"]
        assert (await api.get("/api/v1/calls/still1")).json()["state"] == "assisting"
        await seed.to_bus(bus, seed.assist_call("over1", until_s=10))
        await until(lambda: served.console.hub.get("over1"))
        assert (await api.get("/api/v1/calls/over1")).json()["state"] == "ended"  # the bus still knows
    await store.close()


@pytest.mark.parametrize("name", ["redis_url", "database_url", "password", "secret"])
def test_settings_that_are_missing_are_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from calls.errors import SettingsError
    from calls.settings import Settings
    from console.__main__ import config_from

    values = {key: "x" for key in ("redis_url", "database_url", "password", "secret") if key != name}
    settings = Settings(_env_file=None, **{name: ""}, **values)  # type: ignore[arg-type, call-arg]
    with pytest.raises(SettingsError, match=f"OFFHOOK_{name.upper()}"):
        config_from(settings)
