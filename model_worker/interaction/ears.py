"""The books of serving.py: what each ear has heard and written, counted by the host as the device does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from model_worker.interaction.tier import NOTHING


@dataclass(slots=True)
class Track:
    """What one tier has appended for an ear."""

    chunks: int = 0  # the number of the next Chunk
    control: int = NOTHING  # the control token of the last Chunk, to be appended with the next
    texts: int = 0  # text tokens written so far

    def heard(self, control: int) -> None:
        """One more Chunk, and what was decided at it."""
        self.chunks += 1
        self.control = control


@dataclass(slots=True)
class Text:
    """A response under way."""

    index: int  # of the Chunk that is responded to, as the call counts
    chunk: int  # its number, as the decoder counts
    token: int  # chosen, and not yet written
    said: int = 0  # tokens written
    quota: int = 0  # tokens that may be written before the next Chunk
    known: deque[int] = field(default_factory=deque)  # to be chosen next, whatever is likely


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of Chunks that an earlier worker decided, and that are heard again."""

    until: int = -1  # the last of them
    responses: dict[int, list[int]] = field(default_factory=dict)  # by Chunk: the first tokens, as far as known


@dataclass(eq=False, slots=True)
class Ear:
    """One participant of one call. Only Serving changes it."""

    slot: int
    judge: Track  # of the tier that decides
    voice: Track  # of the tier that speaks: the same one, unless the model has two
    mode: str = "answer"  # of the call
    due: int | None = None  # the index that comes next; None: whichever comes is the first
    lost: int = 0  # Chunks whose audio never came
    text: Text | None = None
    known: Known = field(default_factory=Known)
    kept: int = 0  # Chunks whose features were kept for the tier that speaks: the number of the next one
    unheard: deque[tuple[int, bool]] = field(default_factory=deque)  # by that tier: such a number, responded?
    waking: int = 0  # how many of them it must hear before it speaks
    stopping: bool = False  # what it says ends before the next Chunk
    pending: deque[tuple[int, bool, bool]] = field(
        default_factory=deque
    )  # not yet come to, see serving.py: index, responded?, does what was said before it end?

    @property
    def behind(self) -> bool:
        """Whether it owes words or a waking before its next Chunk."""
        return self.waking > 0 or (self.text is not None and self.text.quota > 0)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was decided at a Chunk."""

    ear: Ear
    index: int
    respond: bool
    score: float  # P(respond)


@dataclass(frozen=True, slots=True)
class Said:
    """The next tokens of a response, an emotion possibly first. `cut`: it was stopped, or a new one begins."""

    ear: Ear
    index: int  # of the Chunk that is responded to
    tokens: tuple[int, ...]
    ended: bool
    cut: bool = False
