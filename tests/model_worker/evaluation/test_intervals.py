"""Against published values."""

from __future__ import annotations

import numpy as np
import pytest

from model_worker.evaluation.intervals import bootstrap, mean_of_two, poisson, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (50, 100, 0.4038, 0.5962), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_two_shares_as_newcombe_1998_has_it() -> None:
    """His first example, method 10: 56/70 - 48/80 = 0.2, 0.0524 to 0.3339. A difference is a sum with the other's
    complement."""
    low, high = mean_of_two(56, 70, 80 - 48, 80)
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_two_perfect_shares_are_not_certain() -> None:
    low, high = mean_of_two(10, 10, 20, 20)
    assert high == 1.0
    assert 0.8 < low < 0.9


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (100, 81.3640, 121.6270)]
)
def test_poisson(count: int, low: float, high: float) -> None:
    assert poisson(count) == pytest.approx((low, high), abs=1e-3)


def test_bootstrap_of_a_mean_is_about_the_normal_one() -> None:
    numbers = np.random.default_rng(1).normal(5.0, 2.0, 400).tolist()
    half = 1.96 * np.std(numbers) / 20
    assert bootstrap(numbers) == pytest.approx((np.mean(numbers) - half, np.mean(numbers) + half), abs=0.03)
    assert bootstrap(numbers) == bootstrap(numbers)


def test_bootstrap_of_a_ratio_weighs_items_by_their_size() -> None:
    assert bootstrap([1.0, 0.0], [1.0, 99.0]) == (0.0, 1.0)
    assert bootstrap([2.0] * 9, [4.0] * 9) == (0.5, 0.5)


@pytest.mark.parametrize(("tops", "bottoms"), [([], None), ([1.5], None), ([3.0], [3.0]), ([1.0], [4.0])])
def test_one_item_does_not_say_how_sure_it_is(tops: list[float], bottoms: list[float] | None) -> None:
    assert bootstrap(tops, bottoms) is None
