from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calls.audio import CHUNK_FRAMES, FRAME_BYTES, SILENT_FRAME
from telephony.framer import FADE_FRAMES, Concealer, Framer
from tests.telephony.sounds import frames, spoken

LOUD = frames(spoken(1))[8]


@given(st.integers(0, 130))
def test_chunks_hold_every_frame_in_order(count: int) -> None:
    framer = Framer("c", "caller")
    pushed = [bytes([n % 251]) * FRAME_BYTES for n in range(count)]
    chunks = [chunk for frame in pushed if (chunk := framer.push(frame))]
    rest = framer.rest()
    if rest:
        chunks.append(rest)
    assert [chunk.index for chunk in chunks] == list(range(-(-count // CHUNK_FRAMES)))
    heard = b"".join(chunk.pcm for chunk in chunks)
    assert heard[: count * FRAME_BYTES] == b"".join(pushed)
    assert not any(heard[count * FRAME_BYTES :])


def test_lost_frames_are_counted_in_their_chunk() -> None:
    framer = Framer("c", "caller")
    chunks = [framer.push(SILENT_FRAME, lost=n in (3, 4, 25)) for n in range(40)]
    assert [chunk.lost for chunk in chunks if chunk] == [2, 1]


def test_a_hole_fades_out_and_ends_in_silence() -> None:
    concealer = Concealer()
    assert concealer.fill(LOUD) == LOUD
    filled = [np.frombuffer(concealer.fill(None), "<i2").astype(float) for _ in range(FADE_FRAMES + 2)]
    levels = [float(np.sqrt((frame**2).mean())) for frame in filled]
    assert levels[0] > levels[1] > levels[2] > 0
    assert levels[3:] == [0, 0]
    assert concealer.fill(LOUD) == LOUD


def test_nothing_is_made_up_before_the_first_frame() -> None:
    concealer = Concealer()
    assert [concealer.fill(None) for _ in range(3)] == [SILENT_FRAME] * 3
