"""The scripted caller, tick by tick, without any transport."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calls.audio import FRAME_BYTES, SILENT_FRAME
from offhook.phone.script import HangUp, Pause, Play, Script, Step, WaitForQuiet, WaitForSpeech, from_pcm

LOUD = (np.sin(np.arange(320) / 5) * 6000).astype("<i2").tobytes()
IDLE = (np.arange(320) % 2 * 16 - 8).astype("<i2").tobytes()  # what G.711 makes of silence


def run(script: Script, heard: list[bytes | None]) -> list[bytes]:
    out = []
    for frame in heard:
        sent = script.tick(frame)
        if sent is None:
            return out
        out.append(sent)
    return out


def test_a_file_is_played_whole_and_the_phone_lingers() -> None:
    script = from_pcm(LOUD * 2 + LOUD[:100], linger_s=0.1)
    sent = run(script, [None] * 100)
    assert sent == [LOUD, LOUD, LOUD[:100].ljust(FRAME_BYTES, b"\0"), *[SILENT_FRAME] * 5]
    assert script.over
    assert script.tick(None) is None


def test_it_interrupts_when_the_far_end_has_spoken_and_waits_until_it_is_quiet() -> None:
    script = Script([Play(LOUD), WaitForSpeech(0.1), Play(LOUD), WaitForQuiet(0.06), HangUp(), Play(LOUD)])
    heard = [None, IDLE, LOUD, LOUD, None, LOUD, LOUD, LOUD, LOUD, LOUD, IDLE, None, IDLE, IDLE]
    sent = run(script, heard)
    assert [frame == LOUD for frame in sent].index(True, 1) == 7  # the tick of the fifth audible frame
    assert script.over
    assert not script.timed_out
    assert script.last_audible_s == 10 * 0.02
    assert len(sent) == 12


def test_a_wait_that_never_ends_gives_up() -> None:
    script = Script([WaitForSpeech(1, timeout_s=0.2), WaitForQuiet(1, timeout_s=0.2)])
    assert len(run(script, [None] * 10 + [LOUD] * 20)) == 20
    assert script.timed_out == [0, 1]


steps = st.lists(
    st.one_of(
        st.builds(Play, st.binary(max_size=4000)),
        st.builds(Pause, st.floats(0, 1)),
        st.builds(WaitForSpeech, st.floats(0, 1), st.floats(0, 1)),
        st.builds(WaitForQuiet, st.floats(0, 1), st.floats(0, 1)),
        st.just(HangUp()),
    ),
    max_size=5,
)


@given(steps, st.lists(st.sampled_from([None, LOUD, IDLE]), min_size=300, max_size=300))
def test_every_script_ends_and_sends_whole_frames(steps: list[Step], heard: list[bytes | None]) -> None:
    script = Script(steps)
    sent = run(script, heard * 2)
    assert script.over
    assert all(len(frame) == FRAME_BYTES for frame in sent)
