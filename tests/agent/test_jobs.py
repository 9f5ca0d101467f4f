"""The wrap-up, run by a real Celery worker on a real broker: once is enough, killed it is done again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import jobs
from agent.scribe import Scribe
from calls import events as ev
from calls.settings import Settings
from calls.store import Store
from model_worker.catalogue import Catalogue
from offhook.servers import EmbeddedValkey
from tests.agent.story import CALL, Story
from tests.agent.test_scribe import messages

SPEECH = Path(__file__).resolve().parents[2] / "offhook" / "demo" / "caller" / "1-hours.wav"
RESULT = {
    "utterances": [
        {
            "participant_id": "caller",
            "start_s": 2.0,
            "end_s": 3.0,
            "text": "When are you open?",
            "words": [{"text": "When", "start_s": 2.0, "end_s": 2.2, "probability": 1.0}],
            "confidence": 0.9,
        }
    ],
    "summary": "The caller asked when the garage is open.",
    "disposition": "resolved",
}

# Stands in for model_worker.offline where the job and not the transcript is tested: notes that it ran, waits while
# `hold` is there, fails while `fail` is there.
STAND_IN = """
    import json, pathlib, sys, time
    here = pathlib.Path({here!r})
    with open(here / "runs", "a") as runs:
        runs.write(json.dumps([sys.argv[1:], json.loads(sys.stdin.read())]) + "\\n")
    while (here / "hold").exists():
        time.sleep(0.05)
    if (here / "fail").exists():
        sys.exit("it went wrong")
    print({result!r})
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    package = tmp_path / "path" / "model_worker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = textwrap.dedent(STAND_IN).format(here=str(tmp_path), result=json.dumps(RESULT))
    (package / "offline.py").write_text(text)
    return tmp_path


@pytest.fixture
async def ended(store: Store, tmp_path: Path) -> str:
    """A call that ended and wants its wrap-up."""
    story = Story().greets()
    story.utters("When uh open?")
    story.happens(ev.RecordingSaved(call_id=CALL, path="c1.wav", duration_s=4.0, channels=2))
    story.ends()

    async def nothing(call_id: str) -> list[Any]:
        return []

    scribe = Scribe(store, nothing)
    for message in messages(story.stream):
        scribe.note(message)
    writer = asyncio.create_task(scribe.run())
    assert await scribe.finish(CALL, lambda rows: "queued" if rows.recorded else "none") == "queued"
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    return CALL


def environment(stand_in: Path, redis_url: str, database_url: str) -> dict[str, str]:
    """Of a worker; it runs in a folder of its own, so that the stand-in is what it finds as model_worker."""
    return {
        **os.environ,
        "OFFHOOK_REDIS_URL": redis_url,
        "OFFHOOK_DATABASE_URL": database_url,
        "OFFHOOK_DATA": str(stand_in),
    }


Start = Callable[[dict[str, str]], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(stand_in: Path) -> Iterator[Start]:
    """Start Celery workers; the transcriber that they run is the stand-in."""
    started: list[subprocess.Popen[bytes]] = []

    def run(environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "agent.jobs", "worker", "--concurrency", "1"]
        started.append(
            subprocess.Popen(
                [*command, "--loglevel", "INFO"],
                env={**environment, "PYTHONPATH": str(stand_in / "path")},
                cwd=stand_in,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The worker, its pool process and what that started: they are a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def runs(stand_in: Path) -> list[Any]:
    path = stand_in / "runs"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come to that")


async def wrapped_up(store: Store, word: str = "done") -> dict[str, Any]:
    for _ in range(600):
        if (await store.wrap_ups([CALL]))[CALL] == word:
            return await store.call(CALL)
        await asyncio.sleep(0.1)
    raise AssertionError(f"never {word}: {await store.wrap_ups([CALL])}")


async def test_the_better_transcript_replaces_the_live_one(
    ended: str, store: Store, stand_in: Path, bus_url: str, database_url: str, start: Start
) -> None:
    start(environment(stand_in, bus_url, database_url))
    story = await wrapped_up(store)
    assert [(said["id"], said["text"], said["revision"]) for said in story["utterances"]] == [
        ("final-0000", "When are you open?", 1)
    ]
    assert (story["summary"], story["disposition"]) == (RESULT["summary"], "resolved")
    ((arguments, known),) = runs(stand_in)
    assert arguments == ["--recording", str(stand_in / "recordings" / "c1.wav"), "--json", "--only", "caller"]
    assert [answer["id"] for answer in known["answers"]] == ["greeting"]


async def test_for_real(ended: str, store: Store, tmp_path: Path, database_url: str) -> None:
    """The real transcriber and language model on real speech."""
    catalogue = Catalogue(overrides=dict(os.environ))
    for model in ("silero-vad", "whisper-base", "qwen-0.5b"):
        catalogue.pull(model)
    (tmp_path / "recordings").mkdir()
    with wave.open(str(SPEECH)) as file:
        left = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    with wave.open(str(tmp_path / "recordings" / "c1.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.stack([left, left], axis=1).tobytes())
    settings = Settings(database_url=database_url, data=tmp_path)
    await store.refine(CALL, "default", [], {"wrap_up": "queued"})
    await jobs.refine(CALL, "default", settings)
    story = await store.call(CALL)
    said = story["utterances"]
    assert "open on Saturday" in " ".join(each["text"] for each in said)
    assert {(each["participant_id"], each["revision"]) for each in said} == {("caller", 1)}
    assert said[0]["words"][0]["start_s"] >= 0
    assert len(story["summary"].split()) >= 6
    assert (story["wrap_up"], story["disposition"]) == ("done", "completed")


async def test_done_is_done(ended: str, store: Store, stand_in: Path, database_url: str) -> None:
    settings = Settings(database_url=database_url, data=stand_in)
    await store.refine(CALL, "default", [], {"wrap_up": "done", "summary": "As it was."})
    await jobs.refine(CALL, "default", settings)
    assert (await store.call(CALL))["summary"] == "As it was."


async def test_a_job_that_comes_twice_is_done_once(
    ended: str, store: Store, stand_in: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(stand_in / "path"))
    monkeypatch.chdir(stand_in)
    (stand_in / "hold").touch()
    settings = Settings(database_url=database_url, data=stand_in)
    first = asyncio.create_task(jobs.refine(CALL, "default", settings))
    await until(lambda: runs(stand_in))
    await jobs.refine(CALL, "default", settings)
    assert (await store.wrap_ups([CALL]))[CALL] == "running"
    (stand_in / "hold").unlink()
    await first
    await jobs.refine(CALL, "default", settings)
    assert (await store.wrap_ups([CALL]))[CALL] == "done"
    assert len(runs(stand_in)) == 1


async def test_a_worker_killed_in_mid_job_leaves_it_to_the_next(
    ended: str, store: Store, stand_in: Path, bus_url: str, database_url: str, start: Start
) -> None:
    (stand_in / "hold").touch()
    first = start(environment(stand_in, bus_url, database_url))
    await until(lambda: runs(stand_in))
    kill(first)
    (stand_in / "hold").unlink()
    assert (await store.wrap_ups([CALL]))[CALL] == "running"
    start(environment(stand_in, bus_url, database_url))
    story = await wrapped_up(store)
    assert len(story["utterances"]) == 1
    assert len(runs(stand_in)) == 2


async def test_it_outlives_its_broker(
    ended: str, store: Store, stand_in: Path, own_valkey: EmbeddedValkey, database_url: str, start: Start
) -> None:
    (stand_in / "hold").touch()
    start(environment(stand_in, own_valkey.url, database_url))
    await until(lambda: runs(stand_in))
    own_valkey.stop()
    (stand_in / "hold").unlink()
    await wrapped_up(store)
    own_valkey.start()
    # The worker takes jobs again: the same one, which is done already, and one more.
    await store.refine(CALL, "default", [], {"wrap_up": "queued"})
    send = "import asyncio; from agent import jobs; asyncio.run(jobs.enqueue('c1', 'default'))"
    subprocess.run([sys.executable, "-c", send], env=environment(stand_in, own_valkey.url, database_url), check=True)
    await wrapped_up(store)
    assert len(runs(stand_in)) >= 2


async def test_what_fails_for_good_is_written_on_the_call(
    ended: str, store: Store, stand_in: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand_in / "fail").touch()
    monkeypatch.setenv("PYTHONPATH", str(stand_in / "path"))
    monkeypatch.chdir(stand_in)
    settings = Settings(database_url=database_url, data=stand_in)
    with pytest.raises(jobs.JobFailed, match="it went wrong"):
        await jobs.refine(CALL, "default", settings)
    assert (await store.wrap_ups([CALL]))[CALL] == "running"
    with pytest.raises(jobs.JobFailed):
        await jobs.refine(CALL, "default", settings, give_up=True)
    story = await store.call(CALL)
    assert story["wrap_up"].startswith("failed: offline transcriber, status 1: it went wrong")
    assert story["utterances"][0]["text"] == "When uh open?"


async def test_a_queue_out_of_reach_is_an_error_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = "import asyncio; from agent import jobs; asyncio.run(jobs.enqueue('c1', 'default'))"
    found = subprocess.run(
        [sys.executable, "-c", sent],
        env={**os.environ, "OFFHOOK_REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
    )
    assert "ConnectionError: cannot queue the wrap-up" in found.stderr
