"""The pages: thin HTML shells around ES modules that speak to the API. No database stands between a page and its
first paint, so they open while the database is away and say so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import RedirectResponse, Response
from starlette.requests import Request
from starlette.templating import Jinja2Templates

from console.auth import COOKIE, SESSION_S, Sessions, address_of, from_own_page, safe_next, same_password
from console.config import Console, console_of
from console.health import health

HERE = Path(__file__).parent
templates = Jinja2Templates(directory=HERE / "templates")
router = APIRouter(include_in_schema=False)
Here = Annotated[Console, Depends(console_of)]


def page(request: Request, name: str, title: str, status: int = 200, **values: object) -> Response:
    config = console_of(request).config
    context = {"title": title, "config": config, "ice_servers": list(config.ice_servers), "page": name, **values}
    return templates.TemplateResponse(request, f"{name}.html", context, status_code=status)


@router.get("/")
async def home(request: Request) -> Response:
    return page(request, "home", "Live calls")


@router.get("/live/{call_id}")
async def live_call(request: Request, call_id: str) -> Response:
    return page(request, "live_call", "Live call", call_id=call_id)


@router.get("/call")
async def call_in(request: Request) -> Response:
    return page(request, "call_in", "Call in")


@router.get("/calls")
async def past_calls(request: Request) -> Response:
    return page(request, "past_calls", "Past calls")


@router.get("/calls/{call_id}")
async def review(request: Request, call_id: str) -> Response:
    return page(request, "review", "Review", call_id=call_id)


@router.get("/api")
async def api_reference(request: Request) -> Response:
    document = request.app.openapi()
    return page(request, "api_reference", "API", paths=document["paths"])


@router.get("/login")
async def login_form(request: Request, target: Annotated[str, Query(alias="next")] = "/") -> Response:
    return page(request, "login", "Sign in", next=safe_next(target), error="")


@router.post("/login")
async def login(
    request: Request,
    console: Here,
    password: Annotated[str, Form(max_length=1000)] = "",
    target: Annotated[str, Form(alias="next", max_length=2000)] = "/",
) -> Response:
    """The form's answer. Only from our own page: nobody else may sign a browser in (login CSRF)."""
    sessions: Sessions = request.app.state.sessions
    address, now = address_of(request), time.monotonic()
    target = safe_next(target)
    if not from_own_page(request.headers):
        return page(request, "login", "Sign in", 403, next=target, error="Please sign in from this page.")
    wait_s = console.throttle.wait_s(address, now)
    if wait_s > 0:
        error = f"Too many wrong passwords. Wait {int(wait_s) + 1} s and try again."
        response = page(request, "login", "Sign in", 429, next=target, error=error)
        response.headers["retry-after"] = str(int(wait_s) + 1)
        return response
    if not same_password(password, console.config.password):
        console.throttle.failed(address, now)
        return page(request, "login", "Sign in", 401, next=target, error="That is not the password.")
    console.throttle.succeeded(address)
    response = RedirectResponse(target, status_code=303)
    response.set_cookie(
        COOKIE,
        sessions.issue(time.time()),
        max_age=SESSION_S,
        httponly=True,
        samesite="lax",
        secure=console.config.secure or request.url.scheme == "https",
    )
    return response


@router.post("/logout")
async def logout() -> Response:
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/healthz")
async def healthz(console: Here) -> Response:
    import msgspec

    ready, told = await health(console)
    return Response(msgspec.json.encode(told), 200 if ready else 503, media_type="application/json")


@router.get("/favicon.ico")
async def favicon() -> Response:
    return RedirectResponse("/static/icon.svg", status_code=308)
