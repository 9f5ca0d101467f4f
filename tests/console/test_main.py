"""The process itself: it starts from settings, serves, by HTTPS if asked, and stops cleanly on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from calls.bus import Bus
from offhook.servers import free_port
from tests.console.conftest import BEARER_JSON, PASSWORD

ROOT = Path(__file__).parents[2]


async def start(folder: Path, **settings: str) -> asyncio.subprocess.Process:
    env = {key: value for key, value in os.environ.items() if not key.startswith("OFFHOOK_")}
    env |= {f"OFFHOOK_{key.upper()}": value for key, value in settings.items()}
    env["PYTHONPATH"] = str(ROOT)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "console", cwd=folder, env=env, stderr=asyncio.subprocess.PIPE
    )


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def answer(client: httpx.AsyncClient, path: str) -> httpx.Response:
    while True:
        try:
            return await client.get(path)
        except httpx.ConnectError:
            await asyncio.sleep(0.1)


async def test_it_serves_by_https_and_stops_on_sigterm(
    bus_url: str, database_url: str, bus: Bus, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    port = free_port()
    process = await start(
        tmp_path, redis_url=bus_url, database_url=database_url, password=PASSWORD, secret="s", port=str(port),
        tls_cert=str(cert), tls_key=str(key), data=str(tmp_path),
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(cert))
    async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as client:
        health = await answer(client, "/healthz")
        assert health.status_code == 503
        assert "strict-transport-security" in health.headers
        listed = await client.get("/api/v1/calls", headers=BEARER_JSON)
        assert listed.json() == {"calls": [], "limit": 50, "offset": 0, "more": False}
        form = {"password": PASSWORD}
        done = await client.post("/login", data=form, headers={"origin": f"https://localhost:{port}"})
        assert "Secure" in done.headers["set-cookie"]
        assert "console" in await bus.services()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    log = (await process.stderr.read()).decode() if process.stderr else ""
    assert "Traceback" not in log


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    process = await start(tmp_path, password="x")
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"OFFHOOK_REDIS_URL is not set" in said
