"""A party on a SIP call as the session's Leg: RTP on one side, Frames on the session's tick on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from calls.audio import Frame
from calls.model import Participant
from telephony.bridge import LegEvents
from telephony.sip.media import MediaStream
from telephony.sip.net import RtpSocket
from telephony.sip.sdp import Agreed

HOLD_LIMIT_S = 3600.0  # a party that may be silent by agreement (hold) is given up after so long


class SipLeg:
    """Every Frame written goes out at once as one packet: the session's tick is the pacing, so nothing is ever queued
    here, and when the session stops writing speech the very next packet is without it."""

    def __init__(
        self, participant: Participant, media: MediaStream, rtp: RtpSocket, end: Callable[[str], None]
    ) -> None:
        self.participant = participant
        self.events = LegEvents()
        self.media = media
        self.over = asyncio.Event()
        self._rtp = rtp
        self._end = end
        self._held = media.agreed.held

    def read(self) -> Frame | None:
        return None if self.over.is_set() else self.media.take()

    def write(self, frame: Frame) -> None:
        if self.over.is_set():
            return
        made = self.media.make(frame)
        if made is not None:
            self._rtp.send(*made)

    def flush(self) -> int:
        """Nothing is queued here: what was written has been sent."""
        return 0

    def unplayed(self) -> int:
        return 0

    async def hang_up(self, reason: str) -> None:
        """BYE. The session hears `closed` as for any other end."""
        self._end(reason)

    # -- what the bridge tells it

    def heard_events(self) -> None:
        """Pass on the keys that were pressed."""
        while self.media.digits:
            self.events.dtmf(self.media.digits.pop(0))

    def announce(self) -> None:
        """The session listens now: tell it what happened before."""
        if self._held:
            self.events.held(True)
        self.heard_events()

    def renegotiated(self, agreed: Agreed, now: float) -> None:
        """A re-INVITE changed the session."""
        self.media.renegotiate(agreed)
        self.media.counts.heard_s = now  # the time-out begins anew
        if agreed.held != self._held:
            self._held = agreed.held
            self.events.held(agreed.held)

    def silent_for(self, now: float) -> float:
        return now - self.media.counts.heard_s

    def is_dead(self, now: float, timeout_s: float) -> bool:
        """No packet for so long that the party must be gone; on hold it need not send any."""
        agreed = self.media.agreed
        may_be_silent = agreed.held or not agreed.receives
        return self.silent_for(now) > (HOLD_LIMIT_S if may_be_silent else timeout_s)

    def close(self, reason: str, lost: bool) -> None:
        """The call is over; the session is told once."""
        if self.over.is_set():
            return
        self.over.set()
        self._rtp.close()
        self.events.closed(reason, lost)
