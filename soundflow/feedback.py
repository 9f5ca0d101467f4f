"""What people made of the hints they were shown, as streams to learn from: accepted ones deserved a response, dismissed
ones deserved none.

A verdict says little: that at one Chunk of one participant it was right, or wrong, to speak. So of the stretch around
a hint only that is scored which follows from a verdict; of the rest nobody knows what was right (Item.unscored):

    respond    the Chunk at which an accepted hint was decided
    silent     the words that led to a dismissed hint, that Chunk, and the two after it
               the two Chunks after an accepted hint: it has just been told
               a line that fell quiet 0.8 to 4 s ago, where the model stayed silent: any answer belonged to the end of
               what was said, and it is not yet dead air
    either     everything else, and every Chunk of another response
"""

from __future__ import annotations

import hashlib
import math
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calls.audio import CHUNK_S, CHUNK_SAMPLES, SAMPLE_BYTES, SAMPLE_RATE
from calls.model import Choice, Mode, Role
from calls.store import main_recording
from calls.trace import unpack
from soundflow.errors import SoundflowError
from soundflow.items import Audio, Item, Split, Turn

Story = Mapping[str, Any]
"""A call as calls.store.Store.call tells it."""

TASK: Final = "feedback"
KIND: Final = "feedback/hint"
VERDICTS: Final = {"accepted": True, "dismissed": False}
CHANNELS: Final = (Role.CALLER, Role.HUMAN_AGENT)  # left, right
AFTER = 2  # Chunks after a hint in which another would be one too many
WORDS_S = 6.0  # of what was said before a hint, at most: earlier words did not lead to it
_QUIET_DB = -55.0  # of full scale, root mean square of a Chunk: nobody speaks, and a telephone line is no louder
_QUIET_CHUNKS = (3, 10)  # quiet for so many Chunks, the first and the last that count
_SPEAKING = (Choice.ASSIST, Choice.ANSWER)


@dataclass(frozen=True, slots=True)
class Around:
    """How much of the call is taken around a hint, in seconds."""

    before: float = 24.0
    after: float = 4.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A hint with a verdict: on whose words it was decided, and when."""

    number: int  # among the call's hints
    accepted: bool
    text: str
    participant: str
    role: Role
    chunk: int
    begin_s: float  # of the words that led to it


class Decided:
    """What was decided on a call, by participant."""

    def __init__(self, story: Story) -> None:
        self._choices: dict[str, dict[int, tuple[Choice, float]]] = {}
        for row in story["decision_traces"]:
            own = self._choices.setdefault(row["participant_id"], {})
            for one in unpack(row["participant_id"], row["minute"], row["trace"]):
                own[one.chunk] = (one.choice, one.score)

    def spoke(self, participant: str) -> set[int]:
        """The Chunks at which a response was decided."""
        return {chunk for chunk, (choice, _) in self._choices.get(participant, {}).items() if choice in _SPEAKING}

    def was_silent(self, participant: str, chunk: int) -> bool:
        return self._choices.get(participant, {}).get(chunk, (None, 0.0))[0] is Choice.SILENT

    def hint(self, trigger_s: float, at_s: float, score: float) -> tuple[str, int] | None:
        """(participant, Chunk) of the decision that a hint came of: the first to assist from the end of the words that
        caused it to when it was shown, one with the hint's own score before any other."""
        first, last = math.ceil(trigger_s / CHUNK_S - 1e-6) - 1, math.floor(at_s / CHUNK_S + 1e-6)
        found = [
            (abs(own - score) > 1 / 255, chunk, participant)
            for participant, choices in self._choices.items()
            for chunk, (choice, own) in choices.items()
            if choice is Choice.ASSIST and first <= chunk <= last
        ]
        return (min(found)[2], min(found)[1]) if found else None


def judged(story: Story, decided: Decided) -> tuple[list[Judged], list[str]]:
    """The hints of a call that have a verdict, in order of time, and why others of them cannot be used."""
    roles = {row["id"]: Role(row["role"]) for row in story["participants"]}
    found: list[Judged] = []
    notes: list[str] = []
    for number, hint in enumerate(story["hints"]):
        if hint["verdict"] not in VERDICTS:
            continue
        when = decided.hint(hint["trigger_s"], hint["at_s"], hint["score"])
        role = roles.get(when[0]) if when else None
        if when is None or role not in CHANNELS:
            notes.append(f"the hint at {hint['at_s']:.1f} s: it is not stored when it was decided")
            continue
        participant, chunk = when
        if any((participant, chunk) == (one.participant, one.chunk) for one in found):
            notes.append(f"the hint at {hint['at_s']:.1f} s: another was decided at the same moment")
            continue
        begin_s = _begin_s(story, participant, chunk, decided.spoke(participant))
        accepted = VERDICTS[hint["verdict"]]
        found.append(Judged(number, accepted, hint["text"], participant, role, chunk, begin_s))
    return sorted(found, key=lambda one: one.chunk), notes


def _begin_s(story: Story, participant: str, chunk: int, spoke: set[int]) -> float:
    """Where the words that led to a decision begin: after the response before it, and where nothing was said or written
    with the Chunk itself."""
    end_s = (chunk + 1) * CHUNK_S
    begun = [
        row["start_s"]
        for row in story["utterances"]
        if row["participant_id"] == participant and row["start_s"] < end_s and row["end_s"] > end_s - WORDS_S
    ]
    before = max((other for other in spoke if other < chunk), default=-1)
    earliest = max(0.0, end_s - WORDS_S, (before + 1) * CHUNK_S)
    return min(max(max(begun, default=math.inf), earliest), chunk * CHUNK_S)


class Recorded:
    """The recording of a call. Raises SoundflowError if it is not there or is none of offhook's."""

    def __init__(self, story: Story, folder: Path) -> None:
        row = main_recording(story["recordings"])
        if row is None:
            raise SoundflowError("it was not recorded")
        root = folder.resolve()
        self._path = (root / row["path"]).resolve()
        if not self._path.is_relative_to(root):
            raise SoundflowError("its recording lies outside the recordings folder")
        if not self._path.is_file():
            raise SoundflowError(f"its recording is not in {folder} any more")
        try:
            with wave.open(str(self._path)) as file:
                shape = (file.getnchannels(), file.getframerate(), file.getsampwidth())
                self.chunks = file.getnframes() // CHUNK_SAMPLES
        except (OSError, EOFError, wave.Error) as error:
            raise SoundflowError(f"its recording cannot be read: {error}") from error
        if shape != (len(CHANNELS), SAMPLE_RATE, SAMPLE_BYTES):
            raise SoundflowError("its recording is not of 16 kHz, 16 bits and two channels")

    def hear(self, role: Role, first: int, end: int) -> Audio:
        """int16 [(end - first) * 6,400]: Chunks of one participant. Raises SoundflowError."""
        try:
            with wave.open(str(self._path)) as file:
                file.setpos(first * CHUNK_SAMPLES)
                frames = file.readframes((end - first) * CHUNK_SAMPLES)
        except (OSError, EOFError, wave.Error) as error:
            raise SoundflowError(f"its recording cannot be read: {error}") from error
        stereo = np.frombuffer(frames, "<i2").reshape(-1, len(CHANNELS))
        if len(stereo) != (end - first) * CHUNK_SAMPLES:
            raise SoundflowError("its recording is shorter than it says")
        return np.ascontiguousarray(stereo[:, CHANNELS.index(role)]).astype(np.int16)


def items(
    story: Story, folder: Path, split: Split, instruction: str, around: Around, notes: list[str]
) -> Iterator[tuple[Judged, Item]]:
    """An Item for each hint of a call with a verdict; what is skipped is told in `notes`. Raises SoundflowError if the
    call has no recording that can be read. `instruction` is what the model is told on such a call."""
    decided = Decided(story)
    hints, unusable = judged(story, decided)
    notes += unusable
    recorded = Recorded(story, folder)
    for hint in hints:
        if hint.chunk >= recorded.chunks:
            notes.append(f"the hint at {(hint.chunk + 1) * CHUNK_S:.1f} s: the recording ends before it")
            continue
        own = [other for other in hints if other.participant == hint.participant]
        yield hint, _item(story, hint, own, decided, recorded, split, instruction, around)


def _item(
    story: Story,
    hint: Judged,
    own: Sequence[Judged],
    decided: Decided,
    recorded: Recorded,
    split: Split,
    instruction: str,
    around: Around,
) -> Item:
    """The stretch around `hint`; `own` are all judged hints of the same participant."""
    first = max(0, hint.chunk + 1 - max(1, round(around.before / CHUNK_S)))
    end = min(recorded.chunks, hint.chunk + 1 + round(around.after / CHUNK_S))
    inside = [one for one in own if first <= one.chunk < end and one.begin_s >= first * CHUNK_S]
    inside = inside if hint in inside else [*inside, hint]
    audio = recorded.hear(hint.role, first, end)
    known = _known(hint.participant, inside, decided, first, end) | _quiet(audio, hint.participant, decided, first)
    return Item(
        id=f"{story['id']}/{hint.number}",
        task=TASK,
        mode=Mode(story["mode"]),
        instruction=instruction,
        audio=audio,
        turns=tuple(_turn(one, first) for one in inside),
        split=split,
        seed=0,
        channel=story["bridge"],
        unscored=_stretches(~known),
    )


def _turn(hint: Judged, first: int) -> Turn:
    begin_s = max(0.0, hint.begin_s - first * CHUNK_S)
    end_s = (hint.chunk + 1 - first) * CHUNK_S
    reply = hint.text if hint.accepted else ""
    # Who spoke, not what: the words of a call are in its audio and nowhere else.
    return Turn(KIND, round(begin_s, 3), round(end_s, 3), hint.accepted, hint.role.value, "hint", reply)


Known = npt.NDArray[np.bool_]


def _known(participant: str, inside: Sequence[Judged], decided: Decided, first: int, end: int) -> Known:
    """[Chunks] True where a verdict says what is right."""
    known = np.zeros(end - first, np.bool_)
    for one in inside:
        begin = one.chunk if one.accepted else max(first, int(one.begin_s / CHUNK_S + 1e-6))
        known[begin - first : one.chunk + 1 + AFTER - first] = True
    judged_here = {one.chunk for one in inside}
    for chunk in decided.spoke(participant) - judged_here:  # nobody said whether that was right
        if first <= chunk < end:
            known[chunk - first] = False
    return known


def _quiet(audio: Audio, participant: str, decided: Decided, first: int) -> Known:
    """[Chunks] True where silence is right because nothing was said just before."""
    power = np.square(audio.reshape(-1, CHUNK_SAMPLES).astype(np.float64) / 32768).mean(axis=1)
    run = 0
    known = np.zeros(len(power), np.bool_)
    for chunk, quiet in enumerate(10 * np.log10(power + 1e-12) < _QUIET_DB):
        run = run + 1 if quiet else 0
        began_here = run == chunk + 1  # for how long it has been quiet is not known
        in_time = _QUIET_CHUNKS[0] <= run <= _QUIET_CHUNKS[1] and not began_here
        known[chunk] = in_time and decided.was_silent(participant, first + chunk)
    return known


def _stretches(chosen: Known) -> tuple[tuple[int, int], ...]:
    """Runs of True as [first, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def divide(call_ids: Sequence[str], dev_share: float) -> dict[str, Split]:
    """Calls between train and dev, each on its own account, so that one that was trained on is never measured on later.

    Of several calls at least one is in each.
    """
    place = {call: int.from_bytes(hashlib.sha256(call.encode()).digest()[:8], "big") / 2**64 for call in call_ids}
    dev = {call for call, at in place.items() if at < dev_share}
    by_place = sorted(place, key=lambda call: place[call])
    if not dev and dev_share > 0:
        dev = set(by_place[:1])
    if len(dev) == len(place):
        dev -= set(by_place[-1:])
    return {call: "dev" if call in dev else "train" for call in call_ids}
