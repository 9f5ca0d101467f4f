from __future__ import annotations

import time
import wave
from pathlib import Path

from calls.bus import Bus
from calls.events import CALLS, CallEnded, CallOffered, CallStarted, RecordingSaved, call_stream
from calls.model import Mode, State
from telephony.orphans import REASON, bury
from telephony.recorder import place


def offered(call_id: str, instance: str) -> CallOffered:
    return CallOffered(
        call_id=call_id, tenant="default", mode=Mode.ANSWER, bridge="sip", from_="1", to="2", participants=(),
        offered_at=time.time(), instance=instance,
    )  # fmt: skip


async def test_calls_of_a_dead_process_are_ended_and_no_others(bus: Bus, tmp_path: Path) -> None:
    await bus.beat("telephony", "alive", {})
    started_at = time.time() - 60
    for call_id, instance in (("lost", "dead"), ("ringing", "dead"), ("over", "dead"), ("live", "alive"), ("old", "")):
        bus.post(CALLS, offered(call_id, instance))
    bus.post(CALLS, CallStarted(call_id="lost", started_at=started_at))
    bus.post(CALLS, CallEnded(call_id="over", state=State.ENDED, reason="bye", ended_at=0, duration_s=1))
    path = tmp_path / place("lost", started_at)
    path.parent.mkdir(parents=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(4 * 16_000 * 3))
    await bus.outbox.flush()
    await bury(bus, tmp_path, wait_s=0)
    await bus.outbox.flush()
    ends = [m.event for m in await bus.read(CALLS) if isinstance(m.event, CallEnded) and m.event.reason == REASON]
    assert {(end.call_id, end.state, end.duration_s) for end in ends} == {
        ("lost", State.FAILED, 3.0),
        ("ringing", State.FAILED, 0.0),
    }
    saved, ended = [message.event for message in await bus.read(call_stream("lost"))]
    assert isinstance(saved, RecordingSaved)
    assert isinstance(ended, CallEnded)
    assert (saved.path, saved.duration_s, saved.complete) == (place("lost", started_at), 3.0, False)
