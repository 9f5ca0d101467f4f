"""Audio inside the house: 16 kHz mono signed 16-bit little-endian PCM, in Frames of 20 ms and Chunks of 0.4 s.

Media time is a count of samples since the call was answered, never a wall clock, so that the recording, the
transcript and the decisions all tell the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16_000  # samples a second
SAMPLE_BYTES = 2  # bytes a sample

FRAME_S = 0.02  # seconds a Frame
FRAME_SAMPLES = 320  # samples a Frame
FRAME_BYTES = FRAME_SAMPLES * SAMPLE_BYTES

CHUNK_FRAMES = 20  # Frames a Chunk
CHUNK_S = 0.4  # seconds a Chunk
CHUNK_SAMPLES = FRAME_SAMPLES * CHUNK_FRAMES  # 6,400 samples
CHUNK_BYTES = CHUNK_SAMPLES * SAMPLE_BYTES

SILENT_FRAME = bytes(FRAME_BYTES)

Frame = bytes
"""20 ms of audio: exactly FRAME_BYTES bytes."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """0.4 s of one participant's audio: the unit of perception and of decision.

    `index` counts from 0 at the moment the call was answered, so the chunk covers
    [index * CHUNK_S, (index + 1) * CHUNK_S) on the call's clock. `lost` is how many of its 20 Frames were
    concealed because nothing arrived in time (0..20).
    """

    call_id: str
    participant_id: str
    index: int
    pcm: bytes
    lost: int = 0

    def __post_init__(self) -> None:
        if len(self.pcm) != CHUNK_BYTES:
            raise ValueError(f"a Chunk is {CHUNK_BYTES} bytes of PCM, not {len(self.pcm)}")

    @property
    def start_s(self) -> float:
        return self.index * CHUNK_S

    @property
    def end_s(self) -> float:
        return (self.index + 1) * CHUNK_S


def seconds(samples: int) -> float:
    """A sample count as seconds."""
    return samples / SAMPLE_RATE
