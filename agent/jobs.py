"""After the call: the better final transcript and a short summary, as a Celery task. Never on the live path.

The task is thin: it runs `python -m model_worker.offline` as a process of its own, at low priority, and stores what
that prints. It may run any number of times with the same result: utterance ids come from their place in the call, and
a call that is done, or that another worker has claimed in the database, is left alone. A worker that is killed in
mid-job is asked again: its message was not acknowledged, and a worker that starts queues what the database says is
unfinished. Only where the database restarts in mid-job can two workers do the same job, with the same result.

The app is configured when it is first used, from the settings; importing this module reads nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import worker_ready
from kombu.exceptions import OperationalError

from calls.errors import NotFound, OffhookError, StoreError
from calls.log import for_call
from calls.settings import Settings
from calls.store import Row, Store, main_recording

log = logging.getLogger(__name__)

TASK = "offhook.wrap_up"
QUEUE = "wrap-up"
RETRIES = 5
LONGEST_S = 4 * 3600  # of one job; the queue then believes that its worker is gone
NICE = 10
PR_SET_PDEATHSIG = 1  # prctl(2): a killed worker leaves no transcriber behind


class JobFailed(OffhookError):
    """The transcript could not be made; the text is the last line that the process wrote."""


def _configuration() -> dict[str, Any]:
    settings = Settings()
    return {
        "broker_url": settings.redis_url.replace("unix://", "redis+socket://"),
        "broker_transport_options": {"global_keyprefix": "offhook:celery:", "visibility_timeout": LONGEST_S},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_default_queue": QUEUE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
    }


app = Celery("offhook", set_as_current=False)
app.add_defaults(_configuration)


@app.task(name=TASK, bind=True, max_retries=RETRIES)  # type: ignore[untyped-decorator]
def wrap_up(self: Task, call_id: str, tenant: str) -> None:
    """Refine one call. Retried with growing pauses; what fails for good is written on the call."""
    with for_call(call_id):
        settings = Settings()
        last = self.request.retries >= RETRIES
        try:
            asyncio.run(refine(call_id, tenant, settings, give_up=last))
        except NotFound as error:
            log.error("nothing to wrap up: %s", error)
        except (StoreError, JobFailed) as error:
            if not last:
                pause_s = 2 ** (self.request.retries + 1)
                log.warning("wrap-up again in %d s: %s", pause_s, error)
                raise self.retry(exc=error, countdown=pause_s) from error
            log.error("wrap-up failed: %s", error)


async def refine(call_id: str, tenant: str, settings: Settings, give_up: bool = False) -> None:
    """Transcribe, summarise and store one call, unless that is done, or being done elsewhere. Raises NotFound,
    StoreError, JobFailed; with `give_up` a JobFailed is also written on the call."""
    store = Store(settings.database_url)
    try:
        async with store.claim(call_id) as ours:
            if ours:
                await _refine(store, call_id, tenant, settings, give_up)
            else:
                log.info("another worker is at it")
    finally:
        await store.close()


async def _refine(store: Store, call_id: str, tenant: str, settings: Settings, give_up: bool) -> None:
    story = await store.call(call_id, tenant)
    if story["wrap_up"] == "done":
        return
    await store.refine(call_id, tenant, [], {"wrap_up": "running"})
    try:
        result = await _transcribe(story, settings)
    except JobFailed as error:
        if give_up:
            await store.refine(call_id, tenant, [], {"wrap_up": f"failed: {error}"})
        raise
    outcome = {"summary": result["summary"], "disposition": result["disposition"], "wrap_up": "done"}
    await store.refine(call_id, tenant, _rows(call_id, tenant, result["utterances"]), outcome)
    log.info("wrapped up: %d utterances, %s", len(result["utterances"]), result["disposition"])


def _rows(call_id: str, tenant: str, utterances: list[dict[str, Any]]) -> list[Row]:
    """Rows of revision 1. Ids count from the start of the call, so a second run makes the same ones."""
    return [
        {
            "call_id": call_id,
            "tenant_id": tenant,
            "id": f"final-{number:04d}",
            "revision": 1,
            **{name: said[name] for name in ("participant_id", "start_s", "end_s", "text", "words", "confidence")},
        }
        for number, said in enumerate(utterances)
    ]


async def _transcribe(story: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Run the offline transcriber on the call's recording."""
    recording = main_recording(story["recordings"])
    if recording is None:
        raise JobFailed("the call has no recording")
    path = settings.recordings / recording["path"]
    # The recording's channels: the caller left, the agent right. What a voice agent said is known without listening.
    heard = [row["id"] for row in story["participants"] if row["role"] in ("caller", "human_agent")]
    known = {"answers": [{"id": row["id"], "at_s": row["at_s"], "text": row["heard_text"]} for row in story["answers"]]}
    return await _run(path, sorted(heard), known, settings)


async def _run(path: Path, participants: list[str], known: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    command = [sys.executable, "-m", "model_worker.offline", "--recording", str(path), "--json"]
    for participant_id in participants:
        command += ["--only", participant_id]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OFFHOOK_MODELS": str(settings.models)},
        preexec_fn=_be_nice,
    )
    try:
        async with asyncio.timeout(LONGEST_S / 2):
            out, complaints = await process.communicate(json.dumps(known).encode())
    except TimeoutError as error:
        raise JobFailed("the offline transcriber took too long") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = complaints.decode(errors="replace").strip().splitlines() or ["no message"]
        raise JobFailed(f"offline transcriber, status {process.returncode}: {lines[-1][:300]}")
    try:
        result: dict[str, Any] = json.loads(out)
    except ValueError as error:
        raise JobFailed(f"the offline transcriber wrote no JSON: {out[:100]!r}") from error
    return result


def _be_nice() -> None:
    """In the new process: live calls come first, and it ends with its parent."""
    os.nice(NICE)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


async def enqueue(call_id: str, tenant: str) -> None:
    """Queue the job. Raises ConnectionError (an OSError) when the queue cannot be reached."""

    def send() -> None:
        app.send_task(TASK, (call_id, tenant), retry=False)

    try:
        await asyncio.to_thread(send)
    except OperationalError as error:
        raise ConnectionError(f"cannot queue the wrap-up: {error}") from error


@worker_ready.connect  # type: ignore[untyped-decorator]
def queue_unfinished(**_: Any) -> None:
    """A worker starts: whatever is unfinished is queued again. A job that another worker is still at is not begun
    again, since that one has claimed it."""

    async def unfinished() -> list[tuple[str, str]]:
        store = Store(Settings().database_url)
        try:
            return await store.unfinished()
        finally:
            await store.close()

    try:
        for call_id, tenant in asyncio.run(unfinished()):
            app.send_task(TASK, (call_id, tenant))
    except (StoreError, OperationalError) as error:
        log.warning("cannot look for unfinished wrap-ups: %s", error)
