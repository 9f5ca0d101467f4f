"""What the far side has really played, from acknowledged marks. Sans-IO; positions are samples at 16 kHz.

The provider buffers the media we send and returns each mark when the media before it has been played. It returns all
outstanding marks at once after a `clear`, too: those say nothing, so a mark's name carries its epoch and a `clear`
begins the next one.
"""

from __future__ import annotations

from collections import deque

from calls.audio import FRAME_SAMPLES, SAMPLE_RATE

MARK_EVERY = 5  # Frames (100 ms) from one mark to the next
TRAILING = 10  # Frames (200 ms) of silence that are still sent after speech; then the line rests
PATIENCE = 5 * SAMPLE_RATE
_MAX_OUTSTANDING = 600  # marks (one minute): a peer that never returns any costs no more memory than that


class MarkLedger:
    """Call `frame` for every Frame, in order; then send the media if it says so, and then the mark if it gives one."""

    def __init__(self) -> None:
        self._epoch = 0
        self._serial = 0
        self._written = 0  # every Frame, also those that were not sent because the line rests
        self._acknowledged = 0
        self._last_sent = 0  # the position after the last Frame that was sent
        self._outstanding: deque[tuple[str, int]] = deque(maxlen=_MAX_OUTSTANDING)
        self._since_mark = 0
        self._silent = TRAILING  # Frames of silence in a row

    def frame(self, silent: bool) -> tuple[bool, str | None]:
        """A Frame was written. Returns (send it?, the name of the mark to send after it or None).

        A mark follows the first Frame after a rest (it tells when the answer's first sound was played), every
        MARK_EVERY-th Frame, and the last one before a rest.
        """
        self._written += FRAME_SAMPLES
        rested = self._silent >= TRAILING
        self._silent = self._silent + 1 if silent else 0
        if self._silent > TRAILING:
            return False, None
        self._last_sent = self._written
        self._since_mark += 1
        if rested or self._since_mark >= MARK_EVERY or self._silent == TRAILING:
            return True, self._mark()
        return True, None

    def _mark(self) -> str:
        self._since_mark = 0
        self._serial += 1
        name = f"{self._epoch}.{self._serial}"
        self._outstanding.append((name, self._written))
        return name

    def returned(self, name: str) -> bool:
        """A mark came back. True when it tells that more was played; False for a cleared, repeated or foreign one."""
        if not any(name == known for known, _ in self._outstanding):
            return False
        while self._outstanding:
            known, position = self._outstanding.popleft()
            self._acknowledged = position
            if known == name:
                break
        return True

    def unplayed(self) -> int:
        """Samples written and not known to have been played; 0 on a resting line that acknowledged all it was sent.

        A peer that never returns the last mark is believed to have played it after PATIENCE of rest.
        """
        owed = self._last_sent - self._acknowledged
        if owed <= 0 or self._written - self._last_sent > owed + PATIENCE:
            return 0
        return self._written - self._acknowledged

    def clear(self) -> int:
        """What was not played is dropped. Returns how many samples; marks still outstanding count no more."""
        dropped = self.unplayed()
        self._epoch += 1
        self._outstanding.clear()
        self._acknowledged = self._last_sent = self._written
        self._since_mark = 0
        self._silent = TRAILING
        return dropped
