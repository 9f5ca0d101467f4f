"""A jitter buffer for 20 ms frames, sans-IO: its only clock is the count of `pop` calls, one every 20 ms.

Frames are keyed by their place in the stream (a sequence number, or a media timestamp divided by 20 ms). The buffer
puts them in order, drops late and duplicate ones, and holds as many as the stream's own jitter asks for, between
`shallowest` and `deepest`. When nothing is there it waits in place, so audio that is only delayed is not lost; the
delay won that way (or by a sender whose clock is faster than ours) is given back by leaving frames out: quiet ones at
once, others one in half a second. A jump in the numbering starts afresh at the second frame that agrees with it
(the probation of RFC 3550, appendix A.1), so that one wild packet cannot silence a call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")

_SHRINK_TICKS = 25  # half a second: the delay must have been too long for so long before speech is left out
_TRANSITS = 250  # the newest frames (5 s) from whose arrival the depth is learnt
_LEARN_EVERY = 10  # frames


@dataclass(slots=True)
class JitterCounts:
    received: int = 0
    played: int = 0
    late: int = 0
    duplicate: int = 0
    lost: int = 0  # places that were passed although nothing had come for them
    left_out: int = 0  # frames that came and were dropped to shorten the delay
    starved: int = 0  # ticks in which nothing was there


class Unwrapper:
    """Counters of `bits` bits (RTP sequence numbers, timestamps) as integers that never wrap."""

    def __init__(self, bits: int) -> None:
        self._modulus = 1 << bits
        self._last: int | None = None

    def __call__(self, value: int) -> int:
        """The integer congruent to `value` that is nearest to the newest one seen."""
        if self._last is None:
            self._last = value
            return value
        half = self._modulus >> 1
        unwrapped = self._last + (value - self._last + half) % self._modulus - half
        self._last = max(self._last, unwrapped)
        return unwrapped


class _State(Enum):
    FRESH = "fresh"  # nothing was played since the numbering began
    PLAYING = "playing"
    DRY = "dry"  # it ran empty and fills again


class JitterBuffer(Generic[T]):
    """See the module's text. Depths are in frames; `capacity` bounds what is ever held.

    `expendable` says of a frame that leaving it out is not heard (silence).
    """

    def __init__(
        self,
        shallowest: int = 2,
        deepest: int = 8,
        capacity: int = 50,
        expendable: Callable[[T], bool] = lambda frame: False,
    ) -> None:
        if not 1 <= shallowest <= deepest < capacity:
            raise ValueError("1 <= shallowest <= deepest < capacity")
        self._shallowest, self._deepest, self._capacity = shallowest, deepest, capacity
        self._expendable = expendable
        self._frames: dict[int, T] = {}
        self._state = _State.FRESH
        self._next: int | None = None  # the place to play next; None before the first frame
        self._newest = 0  # the highest place that came
        self._waited = 0  # ticks spent filling with something held
        self._ticks = 0
        self._transits: deque[int] = deque(maxlen=_TRANSITS)
        self._suspect: tuple[int, T] | None = None  # came from far away: a jump, if the next one agrees
        self._least = capacity  # the shortest queue of this half second
        self._window = 0
        self.depth = shallowest  # the target
        self.counts = JitterCounts()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def delay(self) -> int:
        """How many ticks the newest frame will wait: the places from the next one to the newest."""
        return 0 if self._next is None or not self._frames else self._newest - self._next + 1

    def push(self, place: int, frame: T) -> None:
        """A frame came. Never raises; what does not fit is dropped and counted."""
        self.counts.received += 1
        if self._next is None:
            self._restart(place)
        elif abs(place - self._next) >= self._capacity:
            if self._suspect is None or place != self._suspect[0] + 1:
                self._suspect = (place, frame)
                return
            first = self._suspect
            self._restart(first[0])
            self._put(*first)
        self._suspect = None
        self._put(place, frame)

    def pop(self) -> T | None:
        """20 ms have passed: the next frame, or None for the caller to conceal."""
        self._ticks += 1
        if not self._ready():
            self.counts.starved += 1
            return None
        self._shorten()
        return self._take()

    def _restart(self, place: int) -> None:
        self.counts.left_out += len(self._frames)
        self._frames.clear()
        self._transits.clear()
        self._next = self._newest = place
        self._state = _State.FRESH
        self._waited = 0

    def _put(self, place: int, frame: T) -> None:
        assert self._next is not None
        self._learn(place)
        if place < self._next:
            if self._state is not _State.FRESH or self._newest - place >= self._capacity:
                self.counts.late += 1
                return
            self._next = place  # nothing was played yet: an older frame may still go first
        if place in self._frames:
            self.counts.duplicate += 1
            return
        self._frames[place] = frame
        self._newest = max(self._newest, place)

    def _learn(self, place: int) -> None:
        """The depth that would have had (nearly) every recent frame in time: the spread of arrival against media."""
        self._transits.append(self._ticks - place)
        if self.counts.received % _LEARN_EVERY:
            return
        ordered = sorted(self._transits)
        # Early frames are the measure; the latest 2 % may be lost, else one spike would cost 5 s of delay.
        spread = ordered[max(len(ordered) - 1 - len(ordered) // 50, 0)] - ordered[0]
        self.depth = min(max(spread + 1, self._shallowest), self._deepest)

    def _ready(self) -> bool:
        """May a frame be played now? After running dry the queue fills again first, for `depth` ticks at most."""
        if not self._frames:
            if self._state is _State.PLAYING:
                self._state = _State.DRY
            return False
        if self._state is _State.PLAYING:
            return True
        self._waited += 1
        if self.delay < self.depth and self._waited < self.depth:
            return False
        self._waited = 0
        self._state = _State.PLAYING
        self._next = min(self._frames)  # places passed while dry are not waited for
        self._least, self._window = self._capacity, 0
        return True

    def _shorten(self) -> None:
        """Give delay back: quiet frames at once, any frame when the queue was too long for half a second on end."""
        assert self._next is not None
        while self.delay > self._capacity:
            self._leave_out()
        if self.delay > self.depth + 1 and self._next in self._frames and self._expendable(self._frames[self._next]):
            self._leave_out()
        self._least = min(self._least, self.delay)
        self._window += 1
        if self._window >= _SHRINK_TICKS:
            if self._least > self.depth:
                self._leave_out()
            self._least, self._window = self._capacity, 0

    def _leave_out(self) -> None:
        assert self._next is not None
        if self._frames.pop(self._next, None) is not None:
            self.counts.left_out += 1
        else:
            self.counts.lost += 1
        self._next += 1

    def _take(self) -> T | None:
        assert self._next is not None
        frame = self._frames.pop(self._next, None)
        self._next += 1
        if frame is None:
            self.counts.lost += 1
        else:
            self.counts.played += 1
        return frame
