"""A realistic call to show: the two-party garage call with its words, as database rows and as bus events.

`garage_call.json` holds what was said, [participant, [[word, start_s, end_s], ...]] an utterance; the sound is the
recording in offhook/demo. Decisions are laid out as a model would make them: "transcribe" where somebody speaks,
"assist" where the words call for a hint, "answer" at the end of a caller's turn.
"""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calls.audio import CHUNK_S, SAMPLE_RATE
from calls.bus import Bus
from calls.events import (
    CALLS,
    Answered,
    BargeIn,
    CallAccepted,
    CallEnded,
    CallOffered,
    CallStarted,
    Decided,
    Event,
    HintJudged,
    HintShown,
    Notice,
    Partial,
    PlayoutEnded,
    PlayoutStarted,
    RecordingSaved,
    Say,
    Uttered,
    call_stream,
)
from calls.model import Answer, Choice, Decision, Hint, Mode, Participant, Role, State, Utterance, Word
from calls.store import Row, Store
from calls.trace import CHUNKS_A_MINUTE, pack
from console.story import LiveStory

HERE = Path(__file__).parent
SOUND = HERE.parents[1] / "offhook" / "demo" / "garage-call"
DURATION_S = 150.0
STARTED_AT = 1_790_000_000.0

CALLER, AGENT, VOICE = (Participant(role.value, role) for role in (Role.CALLER, Role.HUMAN_AGENT, Role.VOICE_AGENT))

HINTS = (
    Hint("h1", 25.6, 25.04, "Oil light after a service",
         "Ask whether it is red or amber. Red: stop the engine. Amber or “oil change due”: the reminder was not reset; "
         "the car is safe to drive.", "lights.md#oil-light-after-a-service", 0.83),
    Hint("h2", 66.3, 65.72, "Offer to reset it by phone",
         "Most reminders reset in under a minute from the driver's seat. If the customer would rather come by: no "
         "appointment needed, no charge.", "service-reminder.md#reset", 0.64),
    Hint("h3", 94.1, 93.6, "Hyundai Elantra: reset the reminder",
         "Ignition on, engine off. Hold OK on the wheel (or both small buttons under the dash) for 10 s until the "
         "light goes out.", "service-reminder.md#resetting-the-maintenance-light-of-a-hyundai-elantra-yourself", 0.91),
    Hint("h4", 141.0, 140.5, "Warranty on our work", "12 months or 12,000 miles on parts and labour.",
         "prices.md#warranty", 0.48),
)  # fmt: skip
VERDICTS = {"h1": "accepted", "h4": "dismissed"}


@dataclass(frozen=True, slots=True)
class Seeded:
    """One call, ready to be written or posted."""

    call_id: str
    rows: list[tuple[str, Row]]
    events: list[tuple[float, Event]]  # when on the call's clock, in order


def utterances(until_s: float = DURATION_S) -> list[Utterance]:
    found = []
    for number, (who, words) in enumerate(json.loads((HERE / "garage_call.json").read_text())):
        said = tuple(Word(text, start, end) for text, start, end in words)
        if said[-1].end_s <= until_s:
            text = " ".join(word.text for word in said)
            found.append(Utterance(f"u{number}", who, said[0].start_s, said[-1].end_s, text, said, 0.93))
    return found


def decisions(said: Iterable[Utterance], hints: Iterable[Hint], until_s: float, mode: Mode) -> list[Decision]:
    """Every Chunk of both sides."""
    found: list[Decision] = []
    said = list(said)
    triggers = {int(hint.trigger_s / CHUNK_S): hint.score for hint in hints}
    sides = (CALLER.id, AGENT.id) if mode is not Mode.ANSWER else (CALLER.id,)
    for who in sides:
        mine = [u for u in said if u.participant_id == who]
        ends = {int(u.end_s / CHUNK_S) + 1 for u in mine if len(u.words) > 4}
        for chunk in range(int(until_s / CHUNK_S)):
            at_s = (chunk + 0.5) * CHUNK_S
            speaking = any(u.start_s - 0.2 <= at_s <= u.end_s + 0.2 for u in mine)
            wave_ = 0.5 + 0.5 * math.sin(chunk * 1.7) * math.sin(chunk * 0.31)
            if who == CALLER.id and chunk in triggers:
                found.append(Decision(who, chunk, Choice.ASSIST, triggers[chunk]))
            elif mode is Mode.ANSWER and chunk in ends:
                found.append(Decision(who, chunk, Choice.ANSWER, 0.7 + 0.25 * wave_))
            elif speaking:
                found.append(Decision(who, chunk, Choice.TRANSCRIBE, 0.45 + 0.5 * wave_, late=chunk == 211))
            else:
                found.append(Decision(who, chunk, Choice.SILENT, 0.9))
    return found


def record(path: Path, until_s: float = DURATION_S, mute_agent_from_s: float | None = None) -> None:
    """The recording: 16 kHz stereo, caller left, agent right."""
    sides = []
    for name in ("caller", "agent"):
        with wave.open(str(SOUND / f"{name}.wav")) as file:
            rate = file.getframerate()
            pcm = np.frombuffer(file.readframes(int(until_s * rate)), "<i2")
        wide = np.interp(np.arange(int(until_s * SAMPLE_RATE)) * rate / SAMPLE_RATE, np.arange(len(pcm)), pcm)
        sides.append(wide.astype("<i2"))
    if mute_agent_from_s is not None:
        sides[1][int(mute_agent_from_s * SAMPLE_RATE) : int((mute_agent_from_s + 3.4) * SAMPLE_RATE)] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.stack(sides, axis=1).tobytes())


def assist_call(
    call_id: str,
    *,
    recordings: Path | None = None,
    until_s: float = DURATION_S,
    ended: bool = True,
    started_at: float = STARTED_AT,
    from_: str = "sip:suzanne@192.0.2.10",
) -> Seeded:
    """The garage call, a person on both sides."""
    said = utterances(until_s)
    hints = [hint for hint in HINTS if hint.at_s <= until_s]
    decided = decisions(said, hints, until_s, Mode.ASSIST)
    path = f"{call_id}.wav"
    if recordings is not None:
        record(recordings / path, until_s)
    events = _life(call_id, Mode.ASSIST, from_, (CALLER, AGENT), started_at)
    events += _talk(call_id, said, until_s, open_end=not ended)
    events += [((d.chunk + 1) * CHUNK_S + 0.05, _decided(call_id, d)) for d in decided]
    events += [(hint.at_s, HintShown(call_id=call_id, hint=hint)) for hint in hints]
    judged = [(hint.at_s + 3.0, hint.id) for hint in hints if hint.id in VERDICTS and hint.at_s + 3.0 <= until_s]
    events += [(at, HintJudged(call_id=call_id, hint_id=name, verdict=VERDICTS[name])) for at, name in judged]
    if until_s > 114:
        notice = Notice(call_id=call_id, kind="takeover", text="Another model worker took the call over.", at_s=114.2)
        events.append((114.2, notice))
    if ended:
        events += _end(call_id, path if recordings else None, until_s, started_at)
    return _seeded(call_id, events, started_at)


def answer_call(
    call_id: str,
    *,
    recordings: Path | None = None,
    ended: bool = True,
    started_at: float = STARTED_AT + 600,
    until_s: float = 76.0,
) -> Seeded:
    """The same caller with the voice agent, who is interrupted once."""
    said = [u for u in utterances(until_s) if u.participant_id == CALLER.id]
    cut_s = 58.2
    spoken = [  # start, end, text, response_ms
        (0.0, 1.7, "Good afternoon, this is Kestrel Garage's assistant, an AI. The call is recorded. "
         "How can I help you?", None),
        (25.6, 30.4, "Got it: you just had it serviced, and when you drove off the light was still on. "
         "Is that right?", 640),
        (34.6, 52.9, "This happens now and then. The car counts the miles since the last service, and somebody has "
         "to tell it that the service was done.", 710),
        (53.1, 61.6, "The service itself was done properly and your car is safe to drive. Somebody only forgot to "
         "reset the reminder, and I can tell you how.", 580),
        (65.4, 74.9, "Let us get that fixed. Would you rather come by, or reset it yourself from the driver's "
         "seat?", 655),
    ]  # fmt: skip
    events = _life(call_id, Mode.ANSWER, "webrtc:browser", (CALLER, VOICE), started_at)
    events += _talk(call_id, said, until_s, open_end=False)
    decided = decisions(said, (), until_s, Mode.ANSWER)
    events += [((d.chunk + 1) * CHUNK_S + 0.05, _decided(call_id, d)) for d in decided]
    for number, (start_s, end_s, text, response_ms) in enumerate(spoken):
        name = "greeting" if number == 0 else f"r{number}"
        if start_s > until_s:
            continue
        clauses = text.replace(". ", ".|").split("|")
        for seq, clause in enumerate(clauses):
            events.append((start_s - 0.3, Say(call_id=call_id, answer_id=name, seq=seq, text=clause)))
        events.append((start_s - 0.2, Say(call_id=call_id, answer_id=name, seq=len(clauses), text="", last=True)))
        events.append((start_s, PlayoutStarted(call_id=call_id, answer_id=name, at_s=start_s)))
        if not ended and end_s > until_s:
            continue
        cut = start_s < cut_s < end_s
        heard = "The service itself was done properly and your car is safe to drive." if cut else text
        if cut:
            end_s = cut_s
            events.append((cut_s - 0.1, BargeIn(call_id=call_id, answer_id=name, at_s=cut_s)))
        over = PlayoutEnded(call_id=call_id, answer_id=name, at_s=end_s, heard_text=heard, interrupted=cut)
        sources = ("lights.md#oil-light-after-a-service",) if number in (2, 3) else ()
        answer = Answer(name, start_s, text, heard, cut, response_ms, sources)
        events += [(end_s, over), (end_s + 0.01, Answered(call_id=call_id, answer=answer))]
    path = f"{call_id}.wav"
    if recordings is not None:
        record(recordings / path, until_s, mute_agent_from_s=cut_s)
    if ended:
        events += _end(call_id, path if recordings else None, until_s, started_at)
    return _seeded(call_id, events, started_at)


async def to_store(store: Store, seeded: Seeded) -> None:
    await store.write(seeded.rows)


async def to_bus(bus: Bus, seeded: Seeded, after_s: float = -math.inf, until_s: float = math.inf) -> None:
    """Post the events of a stretch of the call; life-cycle events also on `calls`."""
    for at_s, event in seeded.events:
        if after_s < at_s <= until_s:
            bus.post(call_stream(seeded.call_id), event)
            if isinstance(event, CallOffered | CallStarted | CallEnded):
                bus.post(CALLS, event)
    assert await bus.outbox.flush(30.0)


def _decided(call_id: str, d: Decision) -> Decided:
    return Decided(
        call_id=call_id, participant_id=d.participant_id, chunk=d.chunk, choice=d.choice, score=d.score, late=d.late
    )


def _life(
    call_id: str, mode: Mode, from_: str, people: tuple[Participant, ...], started_at: float
) -> list[tuple[float, Event]]:
    offered = CallOffered(
        call_id=call_id, tenant="default", mode=mode, bridge="webrtc" if from_.startswith("webrtc") else "sip",
        from_=from_, to="sip:garage@127.0.0.1", participants=people, offered_at=started_at - 1.2,
    )  # fmt: skip
    accepted = CallAccepted(call_id=call_id, worker="worker-1", model="cascade")
    return [(-1.2, offered), (-1.0, accepted), (-0.5, CallStarted(call_id=call_id, started_at=started_at))]


def _talk(call_id: str, said: list[Utterance], until_s: float, *, open_end: bool) -> list[tuple[float, Event]]:
    events: list[tuple[float, Event]] = []
    for u in said:
        for count in range(3, len(u.words), 4):
            word = u.words[count - 1]
            text = " ".join(w.text for w in u.words[:count])
            partial = Partial(
                call_id=call_id,
                utterance_id=u.id,
                participant_id=u.participant_id,
                start_s=u.start_s,
                end_s=word.end_s,
                text=text,
            )
            events.append((word.end_s + 0.3, partial))
        events.append((u.end_s + 0.5, Uttered(call_id=call_id, utterance=u)))
    if open_end:  # somebody is in the middle of a sentence
        going = next((u for u in utterances() if u.start_s < until_s - 1.0 and u.end_s > until_s), None)
        if going is not None:
            words = [w for w in going.words if w.end_s <= until_s]
            partial = Partial(
                call_id=call_id, utterance_id=going.id, participant_id=going.participant_id, start_s=going.start_s,
                end_s=words[-1].end_s, text=" ".join(w.text for w in words),
            )  # fmt: skip
            events.append((until_s, partial))
    return events


def _end(call_id: str, path: str | None, until_s: float, started_at: float) -> list[tuple[float, Event]]:
    events: list[tuple[float, Event]] = []
    if path is not None:
        events.append((until_s + 1, RecordingSaved(call_id=call_id, path=path, duration_s=until_s, channels=2)))
    ended = CallEnded(
        call_id=call_id,
        state=State.ENDED,
        reason="the caller hung up",
        ended_at=started_at + until_s,
        duration_s=until_s,
    )
    return [*events, (until_s + 2, ended)]


def _seeded(call_id: str, events: list[tuple[float, Event]], started_at: float) -> Seeded:
    events.sort(key=lambda pair: pair[0])
    return Seeded(call_id, _rows(call_id, [event for _, event in events], started_at), events)


def _rows(call_id: str, events: list[Event], started_at: float) -> list[tuple[str, Row]]:
    """The rows that a scribe would write from these events."""
    from datetime import UTC, datetime

    from calls.bus import Message

    fold = LiveStory(call_id)
    for number, event in enumerate(events):
        fold.take(Message(call_stream(call_id), f"{number}-0", event))  # type: ignore[arg-type]
    story = fold.story()
    key: dict[str, Any] = {"call_id": call_id, "tenant_id": "default"}
    when = datetime.fromtimestamp(started_at, UTC)
    over = story["state"] == "ended"
    summary = (
        "The caller's oil light stayed on after a service earlier today. The reminder had not been reset; the agent "
        "walked her through resetting it from the driver's seat."
    )
    rows: list[tuple[str, Row]] = [
        ("calls", {
            "id": call_id, "tenant_id": "default", "mode": story["mode"], "state": story["state"],
            "bridge": story["bridge"], "from_": story["from"], "to": story["to"], "started_at": when,
            "offered_at": datetime.fromtimestamp(started_at - 1.2, UTC),
            "ended_at": datetime.fromtimestamp(started_at + story["duration_s"], UTC) if over else None,
            "duration_s": story["duration_s"], "reason": story["reason"], "summary": summary if over else "",
            "disposition": "resolved" if over else "", "wrap_up": "done" if over else "",
        }),
    ]  # fmt: skip
    rows += [("participants", {**key, **p}) for p in story["participants"]]
    for u in story["utterances"]:
        words = [{**word, "probability": 0.9} for word in u["words"]]
        row = {k: u[k] for k in ("id", "start_s", "end_s", "text", "confidence", "revision")}
        rows.append(("utterances", {**key, **row, "participant_id": u["participant"], "words": words}))
    rows += [("hints", {**key, **hint}) for hint in story["hints"]]
    rows += [("answers", {**key, **answer}) for answer in story["answers"]]
    if story["recording"]:
        rows.append(("recordings", {**key, **story["recording"]}))
    rows += [("notices", {**key, "id": f"n{number}", **notice}) for number, notice in enumerate(story["notices"])]
    by_minute: dict[tuple[str, int], list[Decision]] = {}
    for d in fold.decisions:
        by_minute.setdefault((d.participant_id, d.chunk // CHUNKS_A_MINUTE), []).append(d)
    for (who, minute), found in by_minute.items():
        row = {"participant_id": who, "minute": minute, "trace": pack(minute, found)}
        rows.append(("decision_traces", {**key, **row}))
    return rows
