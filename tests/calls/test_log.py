from __future__ import annotations

import asyncio
import logging

import pytest

from calls.log import for_call, setup


async def test_lines_carry_the_call_id_also_from_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log = logging.getLogger("some.module")

    async def work(call_id: str) -> None:
        with for_call(call_id):
            await asyncio.sleep(0)
            log.info("inside %s", call_id)
            await asyncio.create_task(deeper(call_id))

    async def deeper(call_id: str) -> None:
        log.info("deeper %s", call_id)

    try:
        setup("INFO", "telephony")
        await asyncio.gather(work("a"), work("b"))
        log.info("outside")
        log.info("explicit", extra={"call_id": "c"})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    for call_id in "ab":
        assert sum(f"call={call_id} some.module" in line and line.endswith(call_id) for line in lines) == 2
    assert "call=- some.module: outside" in lines[-2]
    assert "call=c some.module: explicit" in lines[-1]
