"""The story of one call in the shape that the API promises, from database rows or from the events on the bus.

Both ways give the same keys, so a live call, a call while the database is away, and a call of last year read alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from calls.audio import CHUNK_S
from calls.bus import Message
from calls.events import (
    Answered,
    CallEnded,
    CallOffered,
    CallStarted,
    Decided,
    HintJudged,
    HintShown,
    Notice,
    RecordingSaved,
    Uttered,
)
from calls.model import LIVE_STATE, Answer, Choice, Decision, Hint, State, Utterance
from calls.store import main_recording
from calls.trace import unpack

Story = dict[str, Any]


def iso(moment: datetime | float | None) -> str | None:
    """Unix seconds or a datetime as ISO 8601 in UTC."""
    if moment is None:
        return None
    when = moment if isinstance(moment, datetime) else datetime.fromtimestamp(moment, UTC)
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def brief_from_row(row: dict[str, Any]) -> Story:
    """A call as it stands in lists."""
    return {
        "id": row["id"],
        "mode": row["mode"],
        "state": row["state"],
        "bridge": row["bridge"],
        "from": row["from_"],
        "to": row["to"],
        "offered_at": iso(row["offered_at"]),
        "started_at": iso(row["started_at"]),
        "ended_at": iso(row["ended_at"]),
        "duration_s": row["duration_s"],
        "summary": row["summary"],
        "disposition": row["disposition"],
        "wrap_up": row["wrap_up"],
        "reason": row["reason"],
        "headline": row.get("headline", ""),
    }


def from_rows(rows: dict[str, Any]) -> Story:
    """What `Store.call` gave, as the API's call."""
    brief = brief_from_row(rows)
    del brief["offered_at"], brief["headline"]
    recording = main_recording(rows["recordings"])
    return {
        **brief,
        "participants": [{"id": p["id"], "role": p["role"]} for p in rows["participants"]],
        "utterances": [_utterance_row(row) for row in rows["utterances"]],
        "decisions": count(decisions_from_rows(rows)),
        "hints": [_pick(row, _HINT) for row in rows["hints"]],
        "answers": [_pick(row, _ANSWER) for row in rows["answers"]],
        "recording": _pick(recording, _RECORDING) if recording else None,
        "notices": [_pick(row, _NOTICE) for row in rows["notices"]],
    }


_HINT = ("id", "at_s", "trigger_s", "title", "text", "source", "score", "verdict")
_ANSWER = ("id", "at_s", "text", "heard_text", "interrupted", "response_ms", "sources")
_RECORDING = ("path", "duration_s", "channels", "complete")
_NOTICE = ("kind", "text", "at_s")


def _pick(row: dict[str, Any], keys: tuple[str, ...]) -> Story:
    return {key: row[key] for key in keys}


def _utterance_row(row: dict[str, Any]) -> Story:
    words = [{"text": w["text"], "start_s": w["start_s"], "end_s": w["end_s"]} for w in row["words"]]
    keys = ("id", "start_s", "end_s", "text", "confidence", "revision")
    return {**_pick(row, keys), "participant": row["participant_id"], "words": words}


def decisions_from_rows(rows: dict[str, Any]) -> list[Decision]:
    """Every Decision of the call, by participant and Chunk."""
    return [
        decision
        for row in rows["decision_traces"]
        for decision in unpack(row["participant_id"], row["minute"], bytes(row["trace"]))
    ]


def count(decisions: Iterable[Decision]) -> dict[str, int]:
    """How often each choice was made. `chunks` counts the Chunks of every participant."""
    totals = {"chunks": 0, **{choice.value: 0 for choice in Choice}, "missed_deadlines": 0}
    for decision in decisions:
        totals["chunks"] += 1
        totals[decision.choice.value] += 1
        totals["missed_deadlines"] += decision.late
    return totals


def decision_json(decision: Decision) -> Story:
    return {
        "participant": decision.participant_id,
        "chunk": decision.chunk,
        "at_s": round(decision.chunk * CHUNK_S, 3),
        "choice": decision.choice.value,
        "score": round(decision.score, 4),
        "late": decision.late,
        "stopped": decision.stopped,
    }


class LiveStory:
    """One call folded from its events. An event that comes twice changes nothing."""

    def __init__(self, call_id: str) -> None:
        self._call: Story = {
            "id": call_id, "mode": "", "state": State.RINGING.value, "bridge": "", "from": "", "to": "",
            "started_at": None, "ended_at": None, "duration_s": None, "summary": "", "disposition": "",
            "wrap_up": "", "reason": "",
        }  # fmt: skip
        self._mode_state = State.TRANSCRIBING
        self._participants: dict[str, str] = {}
        self._utterances: dict[str, Utterance] = {}
        self._hints: dict[str, Hint] = {}
        self._verdicts: dict[str, str] = {}
        self._answers: dict[str, Answer] = {}
        self._recording: Story | None = None
        self._notices: dict[tuple[str, str, float], None] = {}
        self._decisions: dict[tuple[str, int], Decision] = {}

    def take(self, message: Message) -> None:
        """Fold one event in."""
        match message.event:
            case CallOffered() as event:
                self._call |= {
                    "mode": event.mode.value, "bridge": event.bridge, "from": event.from_, "to": event.to,
                }  # fmt: skip
                self._mode_state = LIVE_STATE[event.mode]
                self._participants |= {p.id: p.role.value for p in event.participants}
            case CallStarted() as event:
                self._call |= {"state": self._mode_state.value, "started_at": iso(event.started_at)}
            case CallEnded() as event:
                self._call |= {
                    "state": event.state.value, "reason": event.reason, "ended_at": iso(event.ended_at),
                    "duration_s": event.duration_s,
                }  # fmt: skip
            case Decided() as event:
                key = (event.participant_id, event.chunk)
                self._decisions[key] = Decision(*key, event.choice, event.score, event.late, event.stopped)
            case Uttered(utterance=said):
                held = self._utterances.get(said.id)
                if held is None or said.revision >= held.revision:
                    self._utterances[said.id] = said
            case HintShown(hint=hint):
                self._hints[hint.id] = hint
            case HintJudged() as event:
                self._verdicts[event.hint_id] = event.verdict
            case Answered(answer=answer):
                self._answers[answer.id] = answer
            case RecordingSaved() as event:
                recording = {key: getattr(event, key) for key in _RECORDING}
                self._recording = main_recording([recording, *([self._recording] if self._recording else [])])
            case Notice() as event:
                self._notices[event.kind, event.text, event.at_s] = None

    @property
    def decisions(self) -> list[Decision]:
        return [self._decisions[key] for key in sorted(self._decisions)]

    def story(self) -> Story:
        """The call as the API gives it."""
        said = sorted(self._utterances.values(), key=lambda u: (u.start_s, u.id))
        hints = sorted(self._hints.values(), key=lambda h: h.at_s)
        answers = sorted(self._answers.values(), key=lambda a: a.at_s)
        return {
            **self._call,
            "participants": [{"id": key, "role": role} for key, role in self._participants.items()],
            "utterances": [_utterance(u) for u in said],
            "decisions": count(self._decisions.values()),
            "hints": [
                {key: getattr(h, key) for key in _HINT} | {"verdict": self._verdicts.get(h.id, h.verdict)}
                for h in hints
            ],
            "answers": [{key: getattr(a, key) for key in _ANSWER} | {"sources": list(a.sources)} for a in answers],
            "recording": self._recording,
            "notices": [{"kind": kind, "text": text, "at_s": at_s} for kind, text, at_s in self._notices],
        }


def _utterance(said: Utterance) -> Story:
    return {
        "id": said.id,
        "participant": said.participant_id,
        "start_s": said.start_s,
        "end_s": said.end_s,
        "text": said.text,
        "confidence": said.confidence,
        "revision": said.revision,
        "words": [{"text": w.text, "start_s": w.start_s, "end_s": w.end_s} for w in said.words],
    }
