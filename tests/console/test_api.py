"""The REST API against a real bus and database."""

from __future__ import annotations

from pathlib import Path

import httpx

from calls.bus import Bus
from calls.store import Store
from tests.console import seed
from tests.console.conftest import Served, until

KEYS = {
    "id", "mode", "state", "bridge", "from", "to", "started_at", "ended_at", "duration_s", "summary", "disposition",
    "wrap_up", "reason", "participants", "utterances", "decisions", "hints", "answers", "recording", "notices",
}  # fmt: skip


async def test_a_call_has_exactly_the_promised_shape(store: Store, api: httpx.AsyncClient, served: Served) -> None:
    await seed.to_store(store, seed.assist_call("garage1", recordings=served.recordings))
    call = (await api.get("/api/v1/calls/garage1")).json()
    assert set(call) == KEYS
    assert call["from"] == "sip:suzanne@192.0.2.10"
    assert call["state"] == "ended"
    assert call["started_at"].endswith("Z")
    assert call["participants"] == [{"id": "caller", "role": "caller"}, {"id": "human_agent", "role": "human_agent"}]
    first = call["utterances"][0]
    assert set(first) == {"id", "participant", "start_s", "end_s", "text", "confidence", "revision", "words"}
    assert first["words"][0] == {"text": "Good", "start_s": 0.0, "end_s": first["words"][0]["end_s"]}
    counts = call["decisions"]
    assert counts["chunks"] == 2 * int(seed.DURATION_S / 0.4)
    assert counts["chunks"] == sum(counts[choice] for choice in ("silent", "transcribe", "assist", "answer"))
    assert counts["assist"] == len(seed.HINTS)
    assert counts["missed_deadlines"] >= 1
    assert set(call["hints"][0]) == {"id", "at_s", "trigger_s", "title", "text", "source", "score", "verdict"}
    assert [hint["verdict"] for hint in call["hints"]] == ["accepted", "", "", "dismissed"]
    assert call["recording"] == {"path": "garage1.wav", "duration_s": 150.0, "channels": 2, "complete": True}
    assert call["notices"] == [{"kind": "takeover", "text": "Another model worker took the call over.", "at_s": 114.2}]


async def test_the_same_call_reads_alike_from_the_bus_and_from_the_database(
    bus: Bus, store: Store, api: httpx.AsyncClient, served: Served
) -> None:
    seeded = seed.answer_call("same1", recordings=served.recordings)
    await seed.to_bus(bus, seeded)
    from_bus = (await api.get("/api/v1/calls/same1")).json()
    bus_decisions = (await api.get("/api/v1/calls/same1/decisions")).json()
    await seed.to_store(store, seeded)
    from_rows = (await api.get("/api/v1/calls/same1")).json()
    for key in ("summary", "disposition", "wrap_up"):  # written after the call, never on the bus
        from_bus[key] = from_rows[key]
    for key in ("hints", "answers", "utterances"):
        assert len(from_bus[key]) == len(from_rows[key])
    assert from_bus == from_rows
    row_decisions = (await api.get("/api/v1/calls/same1/decisions")).json()
    pairs = list(zip(bus_decisions["decisions"], row_decisions["decisions"], strict=True))
    assert all(abs(a.pop("score") - b.pop("score")) < 0.005 for a, b in pairs)  # the database keeps 8 bits of it
    assert all(a == b for a, b in pairs)


async def test_an_interrupted_answer_tells_what_was_heard(store: Store, api: httpx.AsyncClient) -> None:
    await seed.to_store(store, seed.answer_call("cut1"))
    answers = (await api.get("/api/v1/calls/cut1")).json()["answers"]
    cut = [answer for answer in answers if answer["interrupted"]]
    assert len(cut) == 1
    assert cut[0]["text"].startswith(cut[0]["heard_text"])
    assert len(cut[0]["heard_text"]) < len(cut[0]["text"])
    assert answers[0]["response_ms"] is None


async def test_decisions_are_given_chunk_by_chunk(store: Store, api: httpx.AsyncClient) -> None:
    await seed.to_store(store, seed.assist_call("dec1"))
    told = (await api.get("/api/v1/calls/dec1/decisions")).json()
    assert told["chunk_s"] == 0.4
    mine = [d for d in told["decisions"] if d["participant"] == "caller"]
    assert [d["chunk"] for d in mine] == list(range(int(seed.DURATION_S / 0.4)))
    trigger = mine[int(seed.HINTS[0].trigger_s / 0.4)]
    assert trigger["choice"] == "assist"
    assert abs(trigger["score"] - seed.HINTS[0].score) < 0.01
    assert abs(trigger["at_s"] - trigger["chunk"] * 0.4) < 1e-6
    assert sum(d["late"] for d in told["decisions"]) == 1


async def test_an_id_may_be_a_unique_prefix(store: Store, api: httpx.AsyncClient) -> None:
    for name in ("abc1", "abd1"):
        await seed.to_store(store, seed.assist_call(name, until_s=10))
    assert (await api.get("/api/v1/calls/abc")).json()["id"] == "abc1"
    several = await api.get("/api/v1/calls/ab")
    assert several.status_code == 404
    assert "several" in several.json()["error"]
    unknown = await api.get("/api/v1/calls/zzz")
    assert unknown.status_code == 404
    assert set(unknown.json()) == {"error", "hint"}
    assert (await api.get("/api/v1/calls/%25")).status_code == 404  # no wildcards
    assert (await api.get("/api/v1/calls/%00")).status_code == 404
    assert (await api.get("/api/v1/calls", params={"search": "a\0b"})).status_code == 200


async def test_calls_are_listed_searched_filtered_and_paged(store: Store, api: httpx.AsyncClient) -> None:
    for number in range(5):
        await seed.to_store(store, seed.assist_call(f"list{number}", until_s=30, started_at=seed.STARTED_AT + number))
    await seed.to_store(store, seed.answer_call("list9"))
    listed = (await api.get("/api/v1/calls", params={"limit": 4})).json()
    assert [call["id"] for call in listed["calls"]] == ["list9", "list4", "list3", "list2"]
    assert listed["more"]
    rest = (await api.get("/api/v1/calls", params={"limit": 4, "offset": 4})).json()
    assert [call["id"] for call in rest["calls"]] == ["list1", "list0"]
    assert not rest["more"]
    found = (await api.get("/api/v1/calls", params={"search": "properly safe"})).json()["calls"]
    assert [call["id"] for call in found] == ["list9"]
    assert "«" in found[0]["headline"]
    assert len((await api.get("/api/v1/calls", params={"mode": "assist"})).json()["calls"]) == 5
    assert (await api.get("/api/v1/calls", params={"state": "refused"})).json()["calls"] == []
    for bad in ({"limit": 0}, {"limit": 10_000}, {"offset": -1}, {"mode": "x"}):
        refused = await api.get("/api/v1/calls", params=bad)
        assert refused.status_code == 422
        assert set(refused.json()) == {"error", "hint"}


async def test_live_calls_come_from_the_bus(bus: Bus, api: httpx.AsyncClient, served: Served) -> None:
    import time

    seeded = seed.assist_call("live1", ended=False, until_s=70, started_at=time.time() - 70)
    await seed.to_bus(bus, seeded)
    await until(lambda: (call := served.console.hub.get("live1")) and len(call.hints) == 2 and call.last_words)
    listed = (await api.get("/api/v1/calls", params={"live": "true"})).json()["calls"]
    assert [call["id"] for call in listed] == ["live1"]
    assert listed[0]["hints"] == 2
    assert listed[0]["state"] == "assisting"
    assert len(listed[0]["strips"]["caller"]["cells"]) == 75
    call = (await api.get("/api/v1/calls/live1")).json()
    assert set(call) == KEYS
    assert call["duration_s"] is None
    assert call["recording"] is None
    assert call["hints"][0]["verdict"] == "accepted"
    end = seed.assist_call("live1", until_s=70).events[-1:]
    await seed.to_bus(bus, seed.Seeded("live1", [], end))
    await until(lambda: not served.console.hub.live())


async def test_a_call_without_any_event_for_long_is_not_live(bus: Bus, served: Served) -> None:
    import time

    await seed.to_bus(bus, seed.assist_call("gone1", ended=False, until_s=5))
    await until(lambda: served.console.hub.live())
    served.console.hub.sweep(time.time() + 60)
    assert served.console.hub.live()
    served.console.hub.sweep(time.time() + 600)
    assert not served.console.hub.live()


async def test_a_verdict_on_a_hint_goes_onto_the_calls_stream(bus: Bus, store: Store, api: httpx.AsyncClient) -> None:
    await seed.to_bus(bus, seed.assist_call("judge1", ended=False, until_s=40))
    given = await api.post("/api/v1/calls/judge1/hints/h1/verdict", json={"verdict": "dismissed"})
    assert given.status_code == 202
    assert given.json() == {"hint": "h1", "verdict": "dismissed", "delivered": True}
    assert (await api.get("/api/v1/calls/judge1")).json()["hints"][0]["verdict"] == "dismissed"
    assert (await api.post("/api/v1/calls/judge1/hints/h9/verdict", json={"verdict": "accepted"})).status_code == 404
    assert (await api.post("/api/v1/calls/judge1/hints/h1/verdict", json={"verdict": "maybe"})).status_code == 422
    await seed.to_store(store, seed.assist_call("judge2"))
    late = await api.post("/api/v1/calls/judge2/hints/h1/verdict", json={"verdict": "accepted"})
    assert late.status_code == 409


async def test_a_range_of_the_recording(store: Store, api: httpx.AsyncClient, served: Served) -> None:
    await seed.to_store(store, seed.assist_call("rec1", recordings=served.recordings, until_s=20))
    whole = (served.recordings / "rec1.wav").read_bytes()
    full = await api.get("/api/v1/calls/rec1/recording")
    assert full.status_code == 200
    assert full.headers["content-type"] == "audio/wav"
    assert full.headers["accept-ranges"] == "bytes"
    assert full.content == whole
    part = await api.get("/api/v1/calls/rec1/recording", headers={"range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.content == whole[1000:2000]
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole)}"
    tail = await api.get("/api/v1/calls/rec1/recording", headers={"range": "bytes=-500"})
    assert tail.content == whole[-500:]
    beyond = await api.get("/api/v1/calls/rec1/recording", headers={"range": f"bytes={len(whole) + 5}-"})
    assert beyond.status_code == 416
    kept = await api.get("/api/v1/calls/rec1/recording", params={"download": "1"})
    assert "attachment" in kept.headers["content-disposition"]


async def test_never_a_file_outside_the_recordings_folder(store: Store, api: httpx.AsyncClient, served: Served) -> None:
    secret = served.recordings.parent / "secret.wav"
    seed.record(secret, 1.0)
    (served.recordings / "link.wav").symlink_to(secret)
    for number, path in enumerate(("../secret.wav", str(secret), "link.wav", ".", "", "missing.wav", "a\0b")):
        if "\0" in path:
            continue  # PostgreSQL itself refuses it
        call = seed.assist_call(f"out{number}", until_s=5)
        place = {
            "call_id": call.call_id,
            "tenant_id": "default",
            "path": path,
            "duration_s": 1.0,
            "channels": 2,
            "complete": True,
        }
        await store.write([*call.rows, ("recordings", place)])
        for what in ("recording", "peaks"):
            refused = await api.get(f"/api/v1/calls/{call.call_id}/{what}")
            assert refused.status_code == 404, path
            assert set(refused.json()) == {"error", "hint"}
    assert (await api.get("/static/../app.py")).status_code == 404
    assert (await api.get("/static/..%2fapp.py")).status_code == 404


async def test_the_waveform(store: Store, api: httpx.AsyncClient, served: Served) -> None:
    await seed.to_store(store, seed.assist_call("peak1", recordings=served.recordings, until_s=30))
    view = (await api.get("/api/v1/calls/peak1/peaks", params={"bins": 300})).json()
    assert view["bins"] == 300
    assert len(view["channels"]) == 2
    assert abs(view["duration_s"] - 30) < 0.01
    agent, caller = view["channels"][1], view["channels"][0]
    assert max(agent["max"][:15]) > 0.1 > max(caller["max"][2:15])  # the agent opens the call
    near = (await api.get("/api/v1/calls/peak1/peaks", params={"bins": 500, "from_s": 3, "to_s": 4})).json()
    assert (near["from_s"], near["to_s"], near["bins"]) == (3, 4, 500)
    damaged = served.recordings / "peak1.wav"
    damaged.write_bytes(b"not a recording")
    assert (await api.get("/api/v1/calls/peak1/peaks")).status_code == 404


async def test_offers_go_to_telephony_and_its_absence_is_said(api: httpx.AsyncClient) -> None:
    away = await api.post("/api/v1/webrtc/offer", json={"sdp": "v=0", "type": "offer", "mode": "answer"})
    assert away.status_code == 503
    assert set(away.json()) == {"error", "hint"}
    assert (await api.post("/api/v1/webrtc/offer", json={"sdp": "v=0", "mode": "shout"})).status_code == 422
    assert (await api.post("/api/v1/webrtc/offer", content=b"x" * 300_000)).status_code == 413


async def test_the_models_are_those_of_live_workers(bus: Bus, api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/v1/models")).json() == {"models": []}
    info: dict[str, str | int | float] = {"model": "cascade", "room": 3, "calls": 2, "load": 0.25, "step_ms_p99": 41.5}
    for worker in ("w2", "w1"):
        await bus.beat("worker", worker, {**info, "missed": 1}, ttl_s=30)
    await bus.beat("worker", "w3", {"model": "echo", "room": 1}, ttl_s=30)  # a heartbeat may say less
    await bus.beat("console", "c1", {"browsers": 1})
    cascade, echo = (await api.get("/api/v1/models")).json()["models"]
    assert (cascade["name"], cascade["calls"], cascade["room"]) == ("cascade", 4, 6)
    assert [worker["name"] for worker in cascade["workers"]] == ["w1", "w2"]
    assert cascade["workers"][0] == {
        "name": "w1", "calls": 2, "room": 3, "load": 0.25, "step_ms_p99": 41.5, "missed_deadlines": 1,
    }  # fmt: skip
    assert (echo["name"], echo["room"], [worker["name"] for worker in echo["workers"]]) == ("echo", 1, ["w3"])


async def test_openapi_describes_every_route(api: httpx.AsyncClient) -> None:
    document = (await api.get("/api/v1/openapi.json")).json()
    assert {"/api/v1/calls", "/api/v1/calls/{call_id}", "/api/v1/calls/{call_id}/recording"} <= set(document["paths"])
    assert "CallShape" in document["components"]["schemas"]
    answer = document["paths"]["/api/v1/models"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ModelList"}


async def test_one_password_opens_many_requests_at_once(store: Store, api: httpx.AsyncClient, tmp_path: Path) -> None:
    import asyncio

    await seed.to_store(store, seed.assist_call("many1"))
    answers = await asyncio.gather(*(api.get("/api/v1/calls/many1") for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
