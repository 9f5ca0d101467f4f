"""Hints with a verdict become streams to learn from, and nothing else of a call is taken for right or wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from calls.audio import CHUNK_S, CHUNK_SAMPLES
from calls.errors import OffhookError
from calls.model import Choice, Decision, Mode
from calls.settings import Settings
from calls.store import Row, Store, calls, tenants
from calls.trace import CHUNKS_A_MINUTE, pack
from soundflow.commands import feedback as command
from soundflow.feedback import Decided, divide, judged
from soundflow.items import EITHER, RESPOND, SILENT, Item
from soundflow.shards import read

ROOT = Path(__file__).resolve().parents[2]
CHUNKS = 100
WORDS = "Reset the oil light with the key at position two."
LOUD = (10, 31)  # the Chunks in which the caller speaks


@dataclass(frozen=True)
class Shown:
    """A hint of a call that is made here."""

    chunk: int
    verdict: str
    participant: str = "caller"
    decided: bool = True


def rows(call: str, hints: list[Shown], tenant: str = "default", day: int = 1) -> list[tuple[str, Row]]:
    """As the scribe would write them. The caller speaks in LOUD, the agent never."""
    key: dict[str, Any] = {"call_id": call, "tenant_id": tenant}
    made: list[tuple[str, Row]] = [
        ("calls", {"id": call, "tenant_id": tenant, "mode": "assist", "state": "ended", "bridge": "sip", "from_": "+1",
                   "to": "x", "offered_at": datetime(2026, 11, day, tzinfo=UTC), "wrap_up": "done"}),
        ("participants", {**key, "id": "caller", "role": "caller"}),
        ("participants", {**key, "id": "agent", "role": "human_agent"}),
        ("utterances", {**key, "id": "u1", "participant_id": "caller", "start_s": LOUD[0] * CHUNK_S, "text": "secret",
                        "end_s": LOUD[1] * CHUNK_S, "words": [], "confidence": 1.0, "revision": 0}),
        ("recordings", {**key, "path": f"{call}.wav", "duration_s": CHUNKS * CHUNK_S, "channels": 2, "complete": True}),
    ]  # fmt: skip
    for number, hint in enumerate(hints):
        at_s = (hint.chunk + 1) * CHUNK_S
        made.append(("hints", {**key, "id": f"h{number}", "at_s": at_s + 0.9, "trigger_s": at_s - 0.1, "title": "Oil",
                               "text": WORDS, "source": "s", "score": 0.8, "verdict": hint.verdict}))  # fmt: skip
    for who in ("caller", "agent"):
        spoke = {hint.chunk for hint in hints if hint.participant == who and hint.decided}
        every = [Decision(who, n, Choice.ASSIST if n in spoke else Choice.SILENT, 0.8) for n in range(CHUNKS)]
        trace = pack(0, [one for one in every if one.chunk < CHUNKS_A_MINUTE])
        made.append(("decision_traces", {**key, "participant_id": who, "minute": 0, "trace": trace}))
    return made


def record(folder: Path, call: str) -> None:
    """The caller's noise on the left, the agent's constant 7 on the right."""
    folder.mkdir(parents=True, exist_ok=True)
    stereo = np.full((CHUNKS * CHUNK_SAMPLES, 2), 7, "<i2")
    stereo[:, 0] = 0
    first, end = (at * CHUNK_SAMPLES for at in LOUD)
    stereo[first:end, 0] = np.random.default_rng(1).integers(-9000, 9000, end - first)
    with wave.open(str(folder / f"{call}.wav"), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(stereo.tobytes())


def settings(database_url: str, data: Path) -> Settings:
    return Settings(database_url=database_url, data=data)


@pytest.fixture
async def two_calls(store: Store, tmp_path: Path) -> AsyncIterator[Path]:
    """Two calls with verdicts, one without, one of another tenant; returns the data folder."""
    async with store.engine.begin() as connection:
        await connection.execute(pg.insert(tenants).values(id="other", name="Other").on_conflict_do_nothing())
    await store.write(rows("01AAA", [Shown(30, "accepted"), Shown(60, "dismissed", "agent")]))
    await store.write(rows("01BBB", [Shown(20, "dismissed"), Shown(30, "")], day=5))
    await store.write(rows("01CCC", [Shown(30, "")]))
    await store.write(rows("01DDD", [Shown(30, "accepted")], tenant="other"))
    for call in ("01AAA", "01BBB", "01CCC", "01DDD"):
        record(tmp_path / "recordings", call)
    yield tmp_path
    async with store.engine.begin() as connection:  # other tests know one tenant
        await connection.execute(sa.delete(calls).where(calls.c.tenant_id == "other"))
        await connection.execute(sa.delete(tenants).where(tenants.c.id == "other"))


async def run(database_url: str, data: Path, *arguments: str) -> int:
    """The command, which has an event loop of its own."""
    return await asyncio.to_thread(command.main, [*arguments], settings(database_url, data))


def by_id(folder: Path) -> Mapping[str, Item]:
    return {item.id: item for split in ("train", "dev") for item in read(folder, split)}


async def test_verdicts_become_labels_and_the_rest_is_not_scored(
    two_calls: Path, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert await run(database_url, two_calls, "--consent", str(out)) == 0
    made = by_id(out)
    assert set(made) == {"01AAA/0", "01AAA/1", "01BBB/0"}
    one = made["01AAA/0"]
    assert (one.mode, one.chunks) == (Mode.ASSIST, 41)  # from the beginning of the call to 4 s after the hint
    assert one.replies() == {30: ("normal", WORDS)}
    labels = one.labels().tolist()
    assert labels[30] == RESPOND
    assert labels[31:33] == [SILENT, SILENT]
    assert labels[33:] == [SILENT] * 8  # the line fell quiet at 31
    assert set(labels[:30]) == {EITHER}  # for how long it was quiet before is not known, and speech is anybody's guess
    assert np.abs(one.audio).max() > 5000
    other = made["01AAA/1"]
    assert set(other.audio.tolist()) == {7}  # the agent's channel
    assert other.labels().tolist() == [EITHER] * 59 + [SILENT] * 3 + [EITHER] * 8  # 24 s before, 4 after
    assert not other.replies()
    dismissed = made["01BBB/0"].labels().tolist()
    assert dismissed[10:23] == [SILENT] * 13  # its words began in Chunk 10
    assert dismissed[:10] == [EITHER] * 10
    assert dismissed[30] == EITHER  # a hint without a verdict
    assert "secret" not in json.dumps([item.meta() for item in made.values()])
    assert "call" not in " ".join(path.name for path in out.iterdir())
    told = capsys.readouterr().out
    assert "1 accepted" in told.replace("     ", " ").replace("    ", " ")


async def test_a_call_is_in_one_split_and_both_splits_are_there(
    two_calls: Path, database_url: str, tmp_path: Path
) -> None:
    await run(database_url, two_calls, "--consent", str(tmp_path / "out"))
    found = {split: {item.id.split("/")[0] for item in read(tmp_path / "out", split)} for split in ("train", "dev")}
    assert found["train"]
    assert found["dev"]
    assert not found["train"] & found["dev"]


async def test_nothing_is_written_without_consent(two_calls: Path, database_url: str, tmp_path: Path) -> None:
    with pytest.raises(OffhookError, match=r"3 judged hints on 2 calls .*--consent"):
        await run(database_url, two_calls, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


async def test_calls_are_left_out(
    two_calls: Path, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    await run(database_url, two_calls, "--consent", str(out))
    listed = tmp_path / "leave-out.txt"
    listed.write_text("01AAA\n\n01ZZZ\n")
    await run(database_url, two_calls, "--consent", "--dev-share", "0", "--without-file", str(listed), str(out))
    assert [item.id for item in read(out, "train")] == ["01BBB/0"]
    assert not list(out.glob("dev-*"))  # what was written before is gone
    assert "01ZZZ: no call" in capsys.readouterr().err
    with pytest.raises(OffhookError, match="left out"):
        await run(database_url, two_calls, "--consent", "--without", "01A", "--without", "01BBB", str(out))


async def test_since_and_tenant(two_calls: Path, database_url: str, tmp_path: Path) -> None:
    await run(database_url, two_calls, "--consent", "--dev-share", "0", "--since", "2026-11-03", str(tmp_path / "a"))
    assert [item.id for item in read(tmp_path / "a", "train")] == ["01BBB/0"]
    await run(database_url, two_calls, "--consent", "--tenant", "other", str(tmp_path / "b"))
    assert [item.id for item in read(tmp_path / "b", "train")] == ["01DDD/0"]
    with pytest.raises(OffhookError, match="0 hints on 0 calls"):
        await run(database_url, two_calls, "--tenant", "nobody", str(tmp_path / "c"))


async def test_no_verdict_yet(store: Store, database_url: str, tmp_path: Path) -> None:
    await store.write(rows("01CCC", [Shown(30, ""), Shown(50, "")]))
    with pytest.raises(OffhookError, match=r"no hint was accepted or dismissed yet .*2 hints on 1 calls.*console"):
        await run(database_url, tmp_path, "--consent", str(tmp_path / "out"))


async def test_what_cannot_be_used_is_told_and_skipped(
    two_calls: Path, database_url: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (two_calls / "recordings" / "01AAA.wav").unlink()
    await store.write(rows("01EEE", [Shown(30, "accepted", decided=False)]))
    await store.write(rows("01FFF", [Shown(30, "accepted")]))
    (two_calls / "recordings" / "01FFF.wav").write_bytes(b"RIFF nonsense")
    await run(database_url, two_calls, "--consent", str(tmp_path / "out"))
    assert [item.id for item in read(tmp_path / "out", "train")] + [i.id for i in _dev(tmp_path / "out")] == ["01BBB/0"]
    said = capsys.readouterr().err
    assert "call 01AAA skipped: its recording is not in" in said
    assert "call 01EEE skipped: the hint at 13.3 s" in said
    assert "call 01FFF skipped: its recording cannot be read" in said
    with pytest.raises(OffhookError, match="nothing was written"):
        await run(database_url, two_calls, "--consent", "--without", "01B", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def _dev(folder: Path) -> list[Item]:
    return list(read(folder, "dev")) if list(folder.glob("dev-*")) else []


async def test_other_shards_are_not_touched(two_calls: Path, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000.shard").touch()
    with pytest.raises(OffhookError, match="other shards"):
        await run(database_url, two_calls, "--consent", str(tmp_path / "data"))


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "soundflow", "feedback", str(tmp_path / "out")],
        cwd=ROOT, env={**os.environ, "OFFHOOK_DATABASE_URL": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "offhook up" in done.stderr) == (1, True)


def test_the_help_says_that_recordings_leave_the_database(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"], Settings())
    assert "leave the database" in capsys.readouterr().out


def story(*hints: tuple[float, float, float], traces: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """Hints as (trigger_s, at_s, score); Chunk -> score of what was decided to assist."""
    return {
        "participants": [{"id": "caller", "role": "caller"}, {"id": "agent", "role": "human_agent"}],
        "utterances": [],
        "hints": [
            {"trigger_s": trigger, "at_s": at, "score": score, "text": WORDS, "verdict": "accepted"}
            for trigger, at, score in hints
        ],
        "decision_traces": [
            {"participant_id": who, "minute": 0,
             "trace": pack(0, [Decision(who, chunk, Choice.ASSIST, score) for chunk, score in own.items()])}
            for who, own in traces.items()
        ],
    }  # fmt: skip


def test_whose_decision_a_hint_came_of() -> None:
    told = story((4.0, 6.1, 0.9), (8.1, 9.0, 0.5), traces={"caller": {10: 0.7, 12: 0.6}, "agent": {11: 0.9, 21: 0.6}})
    found, notes = judged(told, Decided(told))
    # Of the first, the one with its own score; of the second, the only one between its words and its being shown.
    assert [(one.participant, one.chunk) for one in found] == [("agent", 11), ("agent", 21)]
    assert found[1].begin_s == pytest.approx(21 * CHUNK_S)
    assert not notes


def test_the_end_of_the_chunk_belongs_to_it() -> None:
    """A model that writes no transcript gives the end of the Chunk as the trigger."""
    told = story((4.4, 4.4, 0.7), traces={"caller": {10: 0.7, 11: 0.7}})
    assert [one.chunk for one in judged(told, Decided(told))[0]] == [10]


def test_a_call_stays_where_it_is_when_others_come() -> None:
    names = [f"01J{number}" for number in range(200)]
    few, many = divide(names[:60], 0.15), divide(names, 0.15)
    assert all(many[name] == split for name, split in few.items())
    assert 10 < list(many.values()).count("dev") < 60
    assert divide(names[:1], 0.15) == {names[0]: "train"}
    assert sorted(divide(names[:2], 0.15).values()) == ["dev", "train"]
