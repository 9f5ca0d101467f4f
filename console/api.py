"""The REST API, /api/v1: calls as they are and were, their recordings, verdicts on hints, WebRTC offers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import msgspec
from fastapi import APIRouter, Depends, Query, Response, Security
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from starlette.requests import Request

from calls.audio import CHUNK_S
from calls.errors import Ambiguous, NotFound, StoreError
from calls.events import HintJudged, call_stream
from calls.model import Decision
from console.config import Console, console_of
from console.errors import BadRecording, ConsoleError
from console.health import models
from console.recordings import locate
from console.shapes import (
    CallList,
    CallShape,
    DecisionList,
    ErrorShape,
    ModelList,
    OfferIn,
    PeaksShape,
    VerdictIn,
    VerdictOut,
)
from console.story import LiveStory, Story, brief_from_row, count, decision_json, decisions_from_rows, from_rows

FINAL = ("ended", "refused", "failed")
PAGE = 2000  # events read from the bus at a time, so that other requests get their turn

_problems: dict[int | str, dict[str, Any]] = {status: {"model": ErrorShape} for status in (401, 404, 429, 503)}
router = APIRouter(
    prefix="/api/v1",
    # The guard (console/auth.py) does the checking; this tells the OpenAPI document about it.
    dependencies=[Security(HTTPBearer(auto_error=False, description="the console's password"))],
    responses=_problems,
)
Here = Annotated[Console, Depends(console_of)]


@dataclass(frozen=True, slots=True)
class Found:
    """A call from either source."""

    story: Story
    decisions: list[Decision]


async def from_bus(console: Console, call_id: str) -> Found | None:
    """The call as its events tell it; None if the bus holds none. Raises BusError."""
    fold, position, seen = LiveStory(call_id), "0-0", False
    while messages := await console.bus.read(call_stream(call_id), after=position, count=PAGE):
        for message in messages:
            fold.take(message)
        seen, position = True, messages[-1].position
        await asyncio.sleep(0)
    return Found(fold.story(), fold.decisions) if seen else None


async def find(console: Console, call_id: str) -> Found:
    """The call of this id or unique prefix: from the bus while it is live or not yet wholly in the database, else
    from the database. Raises NotFound, Ambiguous, StoreError, BusError."""
    if not call_id.isprintable():
        raise NotFound("no such call")  # PostgreSQL would not even compare it
    known = console.hub.get(call_id)
    if known is not None and known.live and (found := await from_bus(console, known.id)):
        return found
    try:
        rows = await console.store.call(call_id)
    except Ambiguous:
        raise
    except (NotFound, StoreError):
        known = console.hub.resolve(call_id)
        if known is not None and (found := await from_bus(console, known.id)):
            return found
        raise
    behind = rows["state"] not in FINAL  # live, or the scribe has not written its end yet
    if behind and (found := await from_bus(console, rows["id"])):
        return found
    return Found(from_rows(rows), decisions_from_rows(rows))


@router.get("/calls", response_model=CallList, tags=["calls"], summary="Calls, newest first")
async def list_calls(
    console: Here,
    search: Annotated[str, Query(max_length=500, description="words said on the call (web-search syntax)")] = "",
    mode: Annotated[str, Query(pattern="^(answer|assist|transcribe)?$")] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    live: Annotated[bool | None, Query(description="only calls that are going on now (from the bus)")] = None,
) -> Any:
    if live:
        calls = [call.json() for call in console.hub.live() if mode in ("", call.offer.mode.value)]
        page = calls[offset : offset + limit]
        return {"calls": page, "limit": limit, "offset": offset, "more": len(calls) > offset + limit}
    search = search.replace("\0", "")
    rows = await console.store.list_calls(search=search, mode=mode, state=state, limit=limit + 1, offset=offset)
    briefs = [brief_from_row(row) for row in rows[:limit]]
    if live is False:
        briefs = [brief for brief in briefs if brief["state"] in FINAL]
    return {"calls": briefs, "limit": limit, "offset": offset, "more": len(rows) > limit}


@router.get("/calls/{call_id}", response_model=CallShape, tags=["calls"], summary="The whole story of one call")
async def get_call(call_id: str, console: Here) -> Story:
    return (await find(console, call_id)).story


@router.get(
    "/calls/{call_id}/decisions",
    response_model=DecisionList,
    tags=["calls"],
    summary="What was decided at every 0.4 s chunk of every participant",
)
async def get_decisions(call_id: str, console: Here) -> Response:
    found = await find(console, call_id)
    body = {"chunk_s": CHUNK_S, "decisions": [decision_json(decision) for decision in found.decisions]}
    # An hour of two participants is 18,000 decisions: encoded directly, not validated one by one.
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _recording(console: Console, call_id: str) -> tuple[Story, Any]:
    story = (await find(console, call_id)).story
    if story["recording"] is None:
        raise ConsoleError(404, "this call has no recording", "It is saved when the call ends.")
    try:
        return story, await asyncio.to_thread(locate, console.config.recordings, story["recording"]["path"])
    except BadRecording as error:
        raise ConsoleError(404, str(error), "Look at the recordings folder and at the call's notices.") from error


@router.get(
    "/calls/{call_id}/recording",
    response_class=FileResponse,
    tags=["recordings"],
    summary="The recording (WAV, range requests): caller left, agent right",
)
async def get_recording(call_id: str, console: Here, download: bool = False) -> FileResponse:
    story, path = await _recording(console, call_id)
    return FileResponse(
        path,
        media_type="audio/wav",
        filename=f"offhook-{story['id']}.wav",
        content_disposition_type="attachment" if download else "inline",
        headers={"cache-control": "private, no-cache"},
    )


@router.get("/calls/{call_id}/peaks", response_model=PeaksShape, tags=["recordings"], summary="The waveform")
async def get_peaks(
    call_id: str,
    console: Here,
    bins: Annotated[int, Query(ge=1, le=8000)] = 1000,
    from_s: Annotated[float, Query(ge=0)] = 0.0,
    to_s: Annotated[float | None, Query(ge=0)] = None,
) -> Response:
    _, path = await _recording(console, call_id)
    try:
        view = await asyncio.to_thread(console.peaks.view, path, bins, from_s, to_s)
    except (BadRecording, OSError) as error:
        raise ConsoleError(404, f"the recording cannot be read: {error}", "The file may be damaged.") from error
    return Response(msgspec.json.encode(view), media_type="application/json")


@router.post(
    "/calls/{call_id}/hints/{hint_id}/verdict",
    response_model=VerdictOut,
    status_code=202,
    tags=["calls"],
    summary="Accept or dismiss a hint of a live call",
)
async def judge(call_id: str, hint_id: str, verdict: VerdictIn, console: Here) -> dict[str, Any]:
    found = await find(console, call_id)
    if all(hint["id"] != hint_id for hint in found.story["hints"]):
        raise NotFound(f"no hint {hint_id} on this call")
    if found.story["state"] in FINAL:
        raise ConsoleError(409, "the call has ended", "Hints can be judged while the call goes on.")
    event = HintJudged(call_id=found.story["id"], hint_id=hint_id, verdict=verdict.verdict)
    console.bus.post(call_stream(event.call_id), event)
    delivered = await console.bus.outbox.flush(2.0)
    return {"hint": hint_id, "verdict": verdict.verdict, "delivered": delivered}


@router.get("/models", response_model=ModelList, tags=["models"], summary="The models that live workers serve")
async def list_models(console: Here) -> dict[str, Any]:
    """Empty while no worker lives. The weights of each are listed by `offhook models list`, on the worker's machine."""
    services = await console.bus.services()
    return {"models": models(services.get("worker", {}))}


@router.post("/webrtc/offer", tags=["webrtc"], summary="Call in: an SDP offer for an SDP answer and the call's id")
async def webrtc_offer(offer: OfferIn, request: Request, console: Here) -> Response:
    client: httpx.AsyncClient = request.app.state.media
    try:
        answer = await client.post(
            f"{console.config.media_url}/webrtc/offer",
            json=offer.model_dump(exclude_none=True, by_alias=True),
            headers={"authorization": f"Bearer {console.config.secret}"},
        )
    except httpx.HTTPError as error:
        raise ConsoleError(
            503, f"telephony does not answer ({type(error).__name__})", "Is it running? See /healthz."
        ) from error
    if answer.headers.get("content-type", "").startswith("application/json"):
        return Response(answer.content, answer.status_code, media_type="application/json")
    reason = answer.text.strip()[:300] or "telephony refused the call"
    status = answer.status_code if answer.status_code in (400, 403, 404, 415, 422, 429, 486, 503) else 502
    raise ConsoleError(503 if status == 486 else status, reason, "Try again in a moment.")


__all__ = ["count", "find", "from_bus", "router"]
