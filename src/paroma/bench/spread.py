"""How sure a ratio is that was measured in pairs: its median, and an interval that needs no assumption."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of paired ratios; low, high: an interval that covers the true median with at least 95 %."""

    median: float
    low: float
    high: float
    pairs: int


def spread(ratios: Sequence[float]) -> Spread:
    """The median and its interval by order statistics: the k-th smallest and k-th largest, k as large as 95 % allow.

    ratios: at least 6; with fewer no interval covers as much. Raises ValueError.
    Source: David and Nagaraja, Order Statistics (2003), section 7.1: the number of values below the median is binomial.
    """
    n, tail, k = len(ratios), 0.0, 0
    while k < n // 2 and 2 * (tail + comb(n, k) / 2**n) <= 1 - LEVEL:
        tail += comb(n, k) / 2**n
        k += 1
    if k == 0:
        raise ValueError(f"{n} pairs give no interval of {LEVEL:.0%}")
    ordered = sorted(ratios)
    return Spread(median=statistics.median(ordered), low=ordered[k - 1], high=ordered[n - k], pairs=n)
