"""95 % confidence intervals, without a statistics library. Each returns (low, high); the bootstrap None of one item.

a share                      Wilson's score interval (Wilson 1927): sound also for 0 of n and n of n
the mean of two shares       the two Wilson intervals combined (Newcombe 1998, method 10; "MOVER")
events in so many hours      exact Poisson (Garwood 1936)
a rate or mean over items    percentile bootstrap over the items, 2,000 draws, fixed seed
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Numbers = npt.NDArray[np.float64]

Z = 1.959963984540054  # the standard normal's 97.5 % quantile
ALPHA = 0.05
DRAWS = 2_000


def wilson(hits: int, n: int) -> Interval:
    """Of `hits` out of `n`. Without a trial nothing is known: (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if hits == 0 else middle - half
    high = 1.0 if hits == n else middle + half
    return max(0.0, low), min(1.0, high)


def mean_of_two(hits: int, n: int, other_hits: int, other_n: int) -> Interval:
    """Of (hits / n + other_hits / other_n) / 2, the two being independent."""
    one, other = hits / n, other_hits / other_n
    (low, high), (other_low, other_high) = wilson(hits, n), wilson(other_hits, other_n)
    middle = (one + other) / 2
    below = math.hypot(one - low, other - other_low) / 2
    above = math.hypot(high - one, other_high - other) / 2
    return max(0.0, middle - below), min(1.0, middle + above)


def poisson(count: int) -> Interval:
    """Of the expected number, when `count` events were seen."""
    low = 0.0 if count == 0 else _solve(lambda mean: 1 - _poisson_cdf(count - 1, mean) - ALPHA / 2, count)
    return low, _solve(lambda mean: ALPHA / 2 - _poisson_cdf(count, mean), count)


def bootstrap(tops: Sequence[float], bottoms: Sequence[float] | None = None) -> Interval | None:
    """Of sum(tops) / sum(bottoms) over items, of the mean of `tops` without bottoms. Items are drawn with
    replacement. None of fewer than two: all draws of one item are alike, and say nothing of how sure it is."""
    if len(tops) < 2:
        return None
    top = np.asarray(tops, np.float64)
    bottom = np.ones_like(top) if bottoms is None else np.asarray(bottoms, np.float64)
    draws = np.random.default_rng(0).integers(0, len(top), (DRAWS, len(top)))
    values: Numbers = top[draws].sum(1) / np.maximum(bottom[draws].sum(1), 1e-9)
    low, high = np.quantile(values, (ALPHA / 2, 1 - ALPHA / 2))
    return float(low), float(high)


def _poisson_cdf(count: int, mean: float) -> float:
    """The chance of at most `count` events."""
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(count + 1)]
    return math.fsum(math.exp(log) for log in logs)


def _solve(rises: Callable[[float], float], count: int) -> float:
    """Where a rising function of the mean is 0: by halving."""
    low, high = 1e-12, 10.0 + 2 * count + 10 * math.sqrt(count)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) < 0 else (low, middle)
    return high
