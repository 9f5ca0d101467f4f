"""What a config says of its thresholds, and on which scale a score is told."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the interaction extra (torch, transformers) is not installed: scripts/setup test")

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from model_worker.interaction.config import SMALL

SHARES = st.floats(0.0, 1.0)


@given(SHARES, st.floats(0.01, 0.99), st.sampled_from(["assist", "answer"]))
def test_a_score_is_over_one_half_where_it_is_responded_to(probability: float, threshold: float, mode: str) -> None:
    config = replace(SMALL, threshold=threshold, answering=0.9)
    sure = config.sureness(probability, mode)
    assert 0.0 <= sure <= 1.0
    if abs(probability - config.threshold_in(mode)) > 1e-9:
        assert (sure > 0.5) == (probability > config.threshold_in(mode))


@given(SHARES, SHARES, st.floats(0.01, 0.99))
def test_who_is_surer_stays_surer(one: float, other: float, threshold: float) -> None:
    config = replace(SMALL, threshold=threshold)
    low, high = (config.sureness(probability, "assist") for probability in sorted((one, other)))
    assert low <= high + 1e-12


@pytest.mark.parametrize(("threshold", "probability"), [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 0.3), (0.5, 0.7)])
def test_thresholds_at_the_edges_divide_nothing_by_nothing(threshold: float, probability: float) -> None:
    assert 0.0 <= replace(SMALL, threshold=threshold).sureness(probability, "assist") <= 1.0
