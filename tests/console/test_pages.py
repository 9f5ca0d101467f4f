"""The pages in a real browser, with pictures of them in artefacts/ (set OFFHOOK_PICTURES=0 to take none)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Error, Page, async_playwright

from calls.bus import Bus
from calls.store import Store
from tests.console import seed
from tests.console.conftest import PASSWORD, Served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--mute-audio", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
PICTURES = Path(__file__).resolve().parents[2] / "artefacts" / "console"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


async def comes(page: Page, script: str) -> None:
    """Wait until the expression is true. (Playwright's own wait_for_function wants eval, which our policy forbids.)"""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Error):  # the page is being left
                if await page.evaluate(script):
                    return
            await page.wait_for_timeout(40)


@dataclass
class Seat:
    """Somebody at a browser, signed in."""

    page: Page
    url: str
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Remember what the browser complains of."""
        page, found = self.page, self.complaints
        page.on("console", lambda m: found.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: found.append(str(error)))

    async def picture(self, name: str, themes: tuple[str, ...] = ("light", "dark")) -> None:
        if os.environ.get("OFFHOOK_PICTURES") == "0":
            return
        for theme in themes:
            await self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
            await self.page.wait_for_timeout(250)
            await self.page.screenshot(path=PICTURES / f"{name}-{theme}.png")


async def sign_in(seat: Seat) -> None:
    await seat.page.goto(f"{seat.url}/login")
    await seat.page.fill("#password", PASSWORD)
    await seat.page.press("#password", "Enter")
    await seat.page.wait_for_url(f"{seat.url}/")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture
async def seat(browser: Browser, served: Served) -> AsyncIterator[Seat]:
    scale = float(os.environ.get("OFFHOOK_PICTURE_SCALE", "1"))
    context = await browser.new_context(
        viewport={"width": 1360, "height": 860}, device_scale_factor=scale, locale="en-GB", timezone_id="UTC"
    )
    page = await context.new_page()
    page.set_default_timeout(15_000)
    seat = Seat(page, served.url, context)
    seat.listen()
    await sign_in(seat)
    yield seat
    # /healthz is 503 in these tests: there is no telephony beside the console.
    complaints = [text for text in seat.complaints if "503" not in text]
    assert not complaints
    await context.close()


async def everything_lives(bus: Bus) -> None:
    """Heartbeats of the services that these tests do not start."""
    for service in ("telephony", "agent", "worker"):
        await bus.beat(service, "one", {"room": 4}, ttl_s=60.0)


async def test_signing_in_and_out(browser: Browser, served: Served) -> None:
    context = await browser.new_context(viewport={"width": 1000, "height": 760})
    page = await context.new_page()
    await page.goto(f"{served.url}/calls?mode=assist")
    assert "/login?next=" in page.url
    await page.fill("#password", "wrong")
    await page.press("#password", "Enter")
    await page.wait_for_selector("#error")
    await Seat(page, served.url, context).picture("login")
    await page.fill("#password", PASSWORD)
    await page.press("#password", "Enter")
    await page.wait_for_url(f"{served.url}/calls?mode=assist")
    cookie = (await context.cookies())[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    await page.click("[aria-label='Sign out']")
    await page.wait_for_url(f"{served.url}/login")
    await page.goto(f"{served.url}/")
    assert "/login" in page.url
    await context.close()


async def test_an_empty_house_tells_how_to_call(seat: Seat) -> None:
    await seat.page.wait_for_selector("#empty:not([hidden])")
    assert "sip:answer@127.0.0.1:5060" in await seat.page.inner_text("#empty")
    await seat.picture("home-empty")


async def test_live_calls_move(seat: Seat, bus: Bus) -> None:
    now = time.time()
    await seed.to_bus(bus, seed.answer_call("k3v9-answer", ended=False, until_s=58.0, started_at=now - 58))
    await seed.to_bus(bus, seed.assist_call("k3v8-assist", ended=False, until_s=94.5, started_at=now - 94.5))
    other = seed.assist_call(
        "k3v7-other", ended=False, until_s=24.0, started_at=now - 24, from_="sip:+442079460123@192.0.2.8"
    )
    await seed.to_bus(bus, other)
    page = seat.page
    await comes(page, "document.querySelectorAll('#calls li').length === 3")
    await comes(page, "document.querySelector('#calls').textContent.includes('Hyundai')")
    assert "1 answering" in await page.inner_text("#figures")
    await seat.picture("home")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    assert await page.evaluate("document.activeElement.href.includes('/live/')")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/live/*")


async def test_a_live_assist_call(seat: Seat, bus: Bus) -> None:
    page, moment = seat.page, 99.0
    await everything_lives(bus)
    call = seed.assist_call("k3v8-assist", ended=True)
    live = seed.assist_call("k3v8-assist", ended=False, until_s=moment, started_at=time.time() - moment)
    await seed.to_bus(bus, live)
    await page.goto(f"{seat.url}/live/k3v8-assist")
    await page.wait_for_selector(".hint:nth-child(3)")
    await page.wait_for_selector(".turn.partial")
    assert await page.locator(".hint.accepted").count() == 1
    assert "Hyundai Elantra" in await page.inner_text(".hint.current h3")
    await page.wait_for_timeout(300)
    talk = "document.querySelector('#talk')"
    at_end = f"{talk}.scrollHeight - {talk}.scrollTop - {talk}.clientHeight < 60"
    assert await page.evaluate(at_end)
    # A long source is cut short; it does not push the cards off the screen.
    inside = "[...document.querySelectorAll('.hint')].every((h) => h.getBoundingClientRect().right <= innerWidth - 8)"
    assert await page.evaluate(inside)
    await seat.picture("live-assist")

    await page.keyboard.press("a")
    await comes(page, "document.querySelectorAll('.hint.accepted').length === 2")
    await page.keyboard.press("d")
    await page.wait_for_selector(".hint.dismissed")
    messages = await bus.read("call:k3v8-assist")
    judged = [(m.event.hint_id, m.event.verdict) for m in messages if type(m.event).__name__ == "HintJudged"]
    assert ("h3", "accepted") in judged
    assert ("h2", "dismissed") in judged

    # A reader who scrolls up is left there; the button brings the newest words back.
    await page.evaluate("document.querySelector('#talk').scrollTop = 0")
    await page.wait_for_selector("#jump:not([hidden])")
    await seed.to_bus(bus, call, after_s=moment, until_s=130.0)
    await comes(page, "document.querySelector('#talk').textContent.includes('walk you through')")
    assert await page.evaluate("document.querySelector('#talk').scrollTop") == 0
    await page.click("#jump")
    assert await page.evaluate(at_end)

    await seed.to_bus(bus, call, after_s=130.0)
    await page.wait_for_selector(".banner a")
    await page.click(".banner a")
    await page.wait_for_url("**/calls/k3v8-assist")


async def test_a_live_answer_call_with_an_interruption(seat: Seat, bus: Bus) -> None:
    call = seed.answer_call("k3v9-answer", ended=False, until_s=70.0, started_at=time.time() - 70)
    await seed.to_bus(bus, call)
    page = seat.page
    await page.goto(f"{seat.url}/live/k3v9-answer")
    await page.wait_for_selector(".turn.saying")
    assert "I can tell you how" in await page.inner_text(".unheard")
    assert await page.locator(".event.barge").count() == 1
    await seat.picture("live-answer")


async def test_past_calls_are_searched(seat: Seat, store: Store) -> None:
    names = ("sip:suzanne@192.0.2.10", "sip:+442079460123@192.0.2.8", "sip:marek@192.0.2.31", "webrtc:browser")
    for number in range(34):
        made = seed.answer_call if number % 3 == 0 else seed.assist_call
        options = {} if number % 3 == 0 else {"from_": names[number % 4], "until_s": 60.0}
        call = made(f"past{number:02d}", started_at=seed.STARTED_AT + 4000 * number, **options)  # type: ignore[operator]
        await seed.to_store(store, call)
    page = seat.page
    await page.goto(f"{seat.url}/calls")
    await comes(page, "document.querySelectorAll('#past li').length === 30")
    await seat.picture("past")
    await page.click("#older")
    await comes(page, "document.querySelectorAll('#past li').length === 4")
    await page.keyboard.press("/")
    await page.keyboard.type("oil light")
    await comes(page, "document.querySelectorAll('#past mark').length > 10")
    assert "search=oil+light" in page.url
    await seat.picture("past-search", ("light",))
    await page.keyboard.press("Enter")
    await comes(page, "document.activeElement.closest('#past')")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/calls/past*")


async def test_the_review_page(seat: Seat, bus: Bus, store: Store, served: Served) -> None:
    await seed.to_store(store, seed.assist_call("r7-garage", recordings=served.recordings))
    await everything_lives(bus)
    page = seat.page
    await page.goto(f"{seat.url}/calls/r7")  # a unique prefix will do
    await page.wait_for_selector(".turn .w")
    await comes(page, "document.querySelector('audio').readyState > 0")
    assert await page.locator(".marker").count() == len(seed.HINTS) + 1

    # A click on a word plays from that word, and the words light up as they are heard.
    word = page.locator(".w", has_text="Elantra.").first
    start = float(await word.get_attribute("data-start") or 0)
    await word.click()
    await comes(page, f"document.querySelector('audio').currentTime > {start}")
    await page.wait_for_selector(".w.lit")
    await page.keyboard.press(" ")
    await comes(page, "document.querySelector('audio').paused")
    now = await page.evaluate("document.querySelector('audio').currentTime")
    assert start <= now < start + 8
    in_step = """() => { const t = document.querySelector('audio').currentTime;
      return [...document.querySelectorAll('.w.lit')].every((w) => Math.abs(Number(w.dataset.start) - t) < 2); }"""
    assert await page.evaluate(in_step)
    await page.keyboard.press("ArrowLeft")
    await comes(page, f"Math.abs(document.querySelector('audio').currentTime - {max(0, now - 2)}) < 0.2")

    # Every hint's trigger can be reached from the keyboard, and so can every decision.
    await page.keyboard.press("0")
    await page.evaluate("document.querySelector('audio').currentTime = 0")
    await page.keyboard.press("n")
    await comes(page, f"Math.abs(document.querySelector('audio').currentTime - {seed.HINTS[0].trigger_s}) < 0.1")
    await page.focus(".timeline .focus")
    await page.keyboard.press("ArrowRight")
    assert "Caller" in (await page.get_attribute(".timeline .focus", "aria-valuetext") or "")
    await page.keyboard.press("ArrowLeft")
    tip = await page.inner_text(".tip")
    assert tip.startswith("assist · 0.83")
    assert "oil light" in tip or "know why" in tip
    await seat.picture("review-tip", ("light",))

    await page.evaluate("document.activeElement.blur()")
    await page.locator(".w", has_text="Hyundai").nth(1).click()
    await page.wait_for_selector(".w.lit")
    await page.wait_for_timeout(900)
    await page.keyboard.press(" ")
    await page.mouse.move(5, 5)
    await seat.picture("review")
    await page.evaluate("scrollTo(0, 0)")
    await seat.picture("review-top", ("light",))
    for _ in range(4):
        await page.keyboard.press("+")
    await page.wait_for_timeout(500)
    await seat.picture("review-zoomed", ("light",))
    await page.keyboard.press("?")
    await page.wait_for_selector("#help[open]")
    await seat.picture("help", ("light",))


async def test_the_review_of_an_interrupted_answer(seat: Seat, store: Store, served: Served) -> None:
    await seed.to_store(store, seed.answer_call("r8-answer", recordings=served.recordings))
    page = seat.page
    await page.goto(f"{seat.url}/calls/r8-answer")
    await page.wait_for_selector(".marker.cutshort")
    assert "I can tell you how" in await page.inner_text(".turn .unheard")
    await page.click(".marker.cutshort")
    await comes(page, "Math.abs(document.querySelector('audio').currentTime - 53.1) < 0.2")
    await page.wait_for_timeout(500)
    await seat.picture("review-answer")


async def test_what_callers_say_is_never_markup(seat: Seat, bus: Bus, store: Store) -> None:
    name = "sip:<img src=x onerror=alert(1)>@192.0.2.1"
    await seed.to_bus(bus, seed.assist_call("evil1", ended=False, until_s=12, started_at=time.time() - 12, from_=name))
    await seed.to_store(store, seed.assist_call("evil2", until_s=12, from_=name))
    page = seat.page
    for path in ("/", "/live/evil1", "/calls", "/calls/evil2"):
        await page.goto(seat.url + path)
        await comes(page, "document.querySelector('main').textContent.includes('<img src=x')")
        assert await page.locator("main img").count() == 0
    await page.goto(f"{seat.url}/live/%3Cscript%3Ealert(1)")
    await page.wait_for_selector(".banner")
    assert await page.locator("main script").count() == 0


async def test_small_screens(seat: Seat, bus: Bus, store: Store, served: Served) -> None:
    await seed.to_store(store, seed.assist_call("r7-garage", recordings=served.recordings, until_s=60))
    await seed.to_bus(bus, seed.assist_call("k3v8-assist", ended=False, until_s=99, started_at=time.time() - 99))
    page = seat.page
    await page.set_viewport_size({"width": 390, "height": 844})
    for name, path in (
        ("home", "/"),
        ("live", "/live/k3v8-assist"),
        ("past", "/calls"),
        ("review", "/calls/r7-garage"),
        ("call", "/call"),
    ):
        await page.goto(seat.url + path)
        await page.wait_for_timeout(800)
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{path} is {wide} px wide"
        await seat.picture(f"small-{name}", ("light",))


async def test_the_pages_stand_while_the_database_is_away(browser: Browser, bus: Bus, tmp_path: Path) -> None:
    from tests.console.conftest import serving

    store = Store("postgresql+asyncpg://nobody@127.0.0.1:9/none")
    async with serving(bus, store, tmp_path / "recordings") as served:
        await seed.to_bus(bus, seed.assist_call("away1", ended=False, until_s=40, started_at=time.time() - 40))
        context = await browser.new_context(extra_http_headers={"authorization": f"Bearer {PASSWORD}"})
        page = await context.new_page()
        await page.goto(f"{served.url}/calls")
        await comes(page, "document.querySelector('#none').textContent.includes('database is away')")
        await page.goto(f"{served.url}/")
        await comes(page, "document.querySelectorAll('#calls li').length === 1")
        await context.close()
    await store.close()


async def test_the_call_in_page_says_what_is_wrong(seat: Seat) -> None:
    page = seat.page
    await page.goto(f"{seat.url}/call")
    await page.check("input[value=assist]", force=True)
    await page.wait_for_selector("#pair:not([hidden])")
    assert "role=human_agent" in (await page.get_attribute("#invite", "href") or "")
    await seat.picture("call-in")
    await page.check("input[value=answer]", force=True)
    await page.click("#dial")  # the fake microphone is there, telephony is not
    await page.wait_for_selector("#trouble:not([hidden])")
    assert "telephony does not answer" in await page.inner_text("#trouble")
