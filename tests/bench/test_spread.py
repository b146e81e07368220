"""The interval of a median: by order statistics, so it holds for whatever distribution the ratios have."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from paroma.bench.spread import spread

RATIOS = st.lists(st.floats(0.01, 100), min_size=6, max_size=60)


@given(RATIOS)
def test_the_interval_holds_the_median_and_both_ends_are_ratios_that_were_measured(ratios):
    found = spread(ratios)
    assert found.low <= found.median <= found.high
    assert {found.low, found.high} <= set(ratios)
    assert found.pairs == len(ratios)


@given(RATIOS)
def test_the_order_in_which_the_pairs_were_measured_does_not_matter(ratios):
    assert spread(ratios) == spread(ratios[::-1])


@pytest.mark.parametrize(("pairs", "rank"), [(6, 1), (8, 1), (9, 2), (15, 4), (25, 8)])
def test_the_ranks_are_those_of_the_published_tables(pairs, rank):
    """Conover, Practical Nonparametric Statistics, table A3: the largest k with 2 P(Bin(n, 1/2) < k) <= 0.05."""
    found = spread([float(place) for place in range(1, pairs + 1)])
    assert (found.low, found.high) == (rank, pairs + 1 - rank)


def test_with_too_few_pairs_there_is_no_interval():
    with pytest.raises(ValueError, match="5 pairs"):
        spread([1.0] * 5)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    draw = np.random.default_rng(3)
    found = [spread(draw.lognormal(1.0, 0.5, 15).tolist()) for _ in range(2000)]
    covered = np.mean([one.low <= math.e <= one.high for one in found])
    assert covered > 0.94
