import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from paroma.kernel.randomness import OsRandomness, SeededRandomness
from paroma.learn.dp.bound import LARGEST_SIGMA, Bound
from paroma.learn.dp.mechanisms import DiscreteGaussian, RowsNotFinite, clip

ROWS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    elements=st.floats(-1e6, 1e6) | st.floats(-2, 2) | st.sampled_from([0.0, 1.0, -1.0, 1e300, 5e-324]),
)
BOUNDS = st.builds(Bound, norm=st.floats(1e-3, 1e3), scale_bits=st.integers(0, 26))


class HalvedNoise:
    """A planted defect."""

    def __init__(self, real):
        self.real = real

    def draw(self, sigma, length):
        return self.real.draw(max(1, sigma // 2), length)


def chi_square(samples, sigma):
    """p-value of samples against the exhaustive mass function of the discrete Gaussian."""
    reach = 10 * sigma + 10
    k = np.arange(-reach, reach + 1)
    mass = np.exp(-(k**2) / (2.0 * sigma**2))
    expected = mass / mass.sum() * len(samples)
    seen = np.bincount(samples + reach, minlength=len(k))
    middle = expected >= 10
    both = np.append(seen[middle], seen[~middle].sum()), np.append(expected[middle], expected[~middle].sum())
    return stats.chisquare(*both).pvalue


@pytest.mark.parametrize("sigma", [1, 2, 7, 40])
def test_noise_has_the_mass_function_of_the_discrete_gaussian(sigma):
    samples = DiscreteGaussian(SeededRandomness(sigma, "noise")).draw(sigma, 60_000)
    assert chi_square(samples, sigma) > 1e-4


@pytest.mark.parametrize("sigma", [2, 40])
def test_halved_noise_is_noticed(sigma):
    samples = HalvedNoise(DiscreteGaussian(SeededRandomness(1))).draw(sigma, 20_000)
    assert chi_square(samples, sigma) < 1e-10


@pytest.mark.parametrize("sigma", [1000, 1 << 20, LARGEST_SIGMA])
def test_large_noise_has_the_right_spread_and_is_not_on_a_coarser_grid(sigma):
    samples = DiscreteGaussian(SeededRandomness(7)).draw(sigma, 40_000)
    assert stats.kstest(samples / sigma, "norm").pvalue > 1e-4
    assert abs(np.mean(samples % 2) - 0.5) < 0.02
    assert abs(np.mean(samples % 256) - 127.5) < 2.5


def test_noise_differs_from_draw_to_draw_with_the_operating_systems_randomness():
    noise = DiscreteGaussian(OsRandomness())
    assert not np.array_equal(noise.draw(1 << 20, 100), noise.draw(1 << 20, 100))


def test_the_same_seed_gives_the_same_noise():
    first, second = (DiscreteGaussian(SeededRandomness(3)).draw(99, 50) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("sigma", [0, -1, LARGEST_SIGMA + 1])
def test_a_sigma_outside_the_samplers_integers_is_an_error(sigma):
    with pytest.raises(ValueError, match="outside"):
        DiscreteGaussian(SeededRandomness(0)).draw(sigma, 1)


@pytest.mark.promise(1)
@settings(max_examples=60, deadline=None)
@given(ROWS, BOUNDS)
def test_one_patient_more_or_less_moves_the_total_by_at_most_the_norm(rows, bound):
    with_her, without = (clip(part, bound).sum(axis=0) for part in (rows, rows[1:]))
    moved = sum(int(step) ** 2 for step in with_her - without)
    assert moved <= (bound.norm * 2.0**bound.scale_bits) ** 2
    assert moved <= bound.steps**2


@pytest.mark.promise(1)
def test_without_the_clip_the_same_test_fails():
    rows, bound = np.array([[3.0, 4.0], [0.1, 0.1]]), Bound(norm=1.0, scale_bits=10)
    unclipped = np.trunc(np.ldexp(rows, bound.scale_bits)).astype(np.int64)
    assert math.hypot(*(unclipped.sum(axis=0) - unclipped[1:].sum(axis=0))) > bound.steps


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_short_rows_are_only_put_on_the_grid(rows):
    bound = Bound(norm=2e300, scale_bits=0)
    small = np.clip(rows, -1e6, 1e6)
    assert np.abs(clip(small, bound) - small).max() <= 1.0 + 1e6 * 2.0**-39


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_refused(value):
    with pytest.raises(RowsNotFinite):
        clip(np.array([[0.0, value]]), Bound(norm=1.0, scale_bits=4))
