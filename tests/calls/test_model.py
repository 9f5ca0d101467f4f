from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.errors import IllegalTransition
from calls.model import Choice, Decision, Happening, Mode, State, next_state
from calls.trace import CHUNKS_A_MINUTE, pack, unpack


@pytest.mark.parametrize(
    ("mode", "state"),
    [(Mode.ANSWER, State.ANSWERING), (Mode.ASSIST, State.ASSISTING), (Mode.TRANSCRIBE, State.TRANSCRIBING)],
)
def test_an_answered_call_is_in_the_state_of_its_mode(mode: Mode, state: State) -> None:
    assert next_state(State.RINGING, Happening.ANSWERED, mode) is state


@pytest.mark.parametrize("over", [State.ENDED, State.REFUSED, State.FAILED])
@pytest.mark.parametrize("happening", list(Happening))
def test_nothing_happens_to_a_call_that_is_over(over: State, happening: Happening) -> None:
    with pytest.raises(IllegalTransition, match=over):
        next_state(over, happening, Mode.ANSWER)


@given(
    st.integers(0, 200),
    st.dictionaries(
        st.integers(0, CHUNKS_A_MINUTE - 1), st.tuples(st.sampled_from(list(Choice)), st.floats(0, 1), st.booleans())
    ),
)
def test_a_packed_minute_comes_back(minute: int, chosen: dict[int, tuple[Choice, float, bool]]) -> None:
    decisions = [
        Decision(
            "caller", minute * CHUNKS_A_MINUTE + place, choice, round(score * 255) / 255, late, stopped=place % 2 == 0
        )
        for place, (choice, score, late) in sorted(chosen.items())
    ]
    trace = pack(minute, decisions)
    assert list(unpack("caller", minute, trace)) == decisions
    assert len(trace) <= 2 * CHUNKS_A_MINUTE


def test_a_decision_of_another_minute_is_refused() -> None:
    with pytest.raises(ValueError, match="not in minute"):
        pack(1, [Decision("caller", 149, Choice.SILENT, 0.5)])
