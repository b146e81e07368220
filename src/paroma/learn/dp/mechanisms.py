"""Rows cut to a length and put on an integer grid; exact discrete Gaussian noise.

The sampler uses integers only, so no attack on floating point (Mironov 2012) applies, and no approximation enters the
proof. BUG: how long it draws depends on what it draws. The time stays inside the site's program and must not be
answered to anybody.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import Randomness
from paroma.learn.dp.bound import LARGEST_SIGMA, Bound

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
FURTHEST = 64  # sigmas
MARGIN = 1 - 2.0**-40  # more than the rounding of a length of up to 2^12 numbers


class RowsNotFinite(BadInput):
    """A row has a value that is not finite: it cannot be cut to a length."""

    def __init__(self) -> None:
        super().__init__("a row has a value that is not finite", do="look at the computation of the rows")


class Noise(Protocol):
    """Draws integer noise."""

    def draw(self, sigma: int, length: int) -> I64:
        """`length` independent discrete Gaussians with standard deviation parameter `sigma` (steps)."""


def clip(rows: F64, bound: Bound) -> I64:
    """Cut each row to L2 length `bound.norm`, then truncate it toward zero to the grid.

    rows: (patients, weights), in the unit of the norm. Returns the same shape in steps; no row is longer than
    norm * 2^scale_bits, so a total moves by at most that when one patient comes or goes. Raises RowsNotFinite.
    Source: Abadi et al. 2016 (arXiv:1607.00133), Algorithm 1, with the sum in place of the mean.
    """
    if not np.isfinite(rows).all():
        raise RowsNotFinite
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0.0), 1.0)  # squares must not overflow
    rows = rows / largest
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # Truncation shortens; only the rounding of lengths and quotients can lengthen, and the margin is wider than that.
    shorter = rows * (bound.norm * MARGIN / np.maximum(lengths, bound.norm / largest))
    steps: I64 = np.trunc(np.ldexp(shorter, bound.scale_bits)).astype(np.int64)
    return steps


class DiscreteGaussian:
    """Exact samples of the discrete Gaussian, many at a time, from random bytes.

    Source: Canonne, Kamath, Steinke 2020 (arXiv:2004.00010), Algorithms 1 to 3, with t = sigma in place of
    floor(sigma) + 1 (any t is exact), so that the last trial is exp(-(|y| - sigma)^2 / (2 sigma^2)) in 63-bit
    integers.
    """

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness

    def draw(self, sigma: int, length: int) -> I64:
        """`length` independent samples of N_Z(0, sigma^2). sigma: 1 to 2^25 steps. Raises ValueError for another
        sigma.
        """
        if not 1 <= sigma <= LARGEST_SIGMA:
            raise ValueError(f"sigma {sigma} lies outside 1 to {LARGEST_SIGMA} steps")
        out = np.empty(length, np.int64)
        filled = 0
        while filled < length:
            wanted = length - filled
            y = self._laplace(sigma, 3 * wanted + 8)  # somewhat fewer than half come through both rejections
            # Beyond 64 sigma a sample would pass with probability below 2^-2800: cut there, so that `far` squared
            # fits 63 bits.
            y = y[np.abs(y) <= FURTHEST * sigma]
            far = np.abs(y) - sigma
            y = y[self._exp(far * far, 2 * sigma * sigma)][:wanted]
            out[filled : filled + len(y)] = y
            filled += len(y)
        return out

    def _laplace(self, t: int, n: int) -> I64:
        """About `n` or fewer samples of the discrete Laplace with scale `t` (Algorithm 2), independent of how many
        there are.
        """
        u = self._below(np.full(n, t, np.int64))
        u = u[self._exp(u, t)]
        v = np.zeros(len(u), np.int64)
        going = np.arange(len(u))
        while len(going):  # a geometric number of successes of exp(-1)
            going = going[self._exp(np.ones(len(going), np.int64), 1)]
            v[going] += 1
        x = u + t * v
        negative = self._bits(len(x))
        x = np.where(negative, -x, x)
        y: I64 = x[~(negative & (x == 0))]
        return y

    def _exp(self, x: I64, y: int) -> Bool:
        """Independent trials with probability exp(-x / y), x >= 0 (Algorithm 1)."""
        whole, rest = np.divmod(x, y)
        passed = self._exp_fraction(rest, y)
        left = np.flatnonzero(passed & (whole > 0))
        done = np.zeros(len(x), np.int64)
        while len(left):  # one trial of exp(-1) for each whole unit
            one = self._exp_fraction(np.ones(len(left), np.int64), 1)
            passed[left[~one]] = False
            left = left[one]
            done[left] += 1
            left = left[done[left] < whole[left]]
        return passed

    def _exp_fraction(self, x: I64, y: int) -> Bool:
        """Independent trials with probability exp(-x / y), 0 <= x <= y: K is odd, where A_k ~ Bernoulli(x / (y k))
        first fails at K.
        """
        k = np.ones(len(x), np.int64)
        going = np.arange(len(x))
        while len(going):
            below = self._below(y * k[going]) < x[going]
            going = going[below]
            k[going] += 1
        odd: Bool = k % 2 == 1
        return odd

    def _below(self, m: I64) -> I64:
        """Independent uniform integers in [0, m), m >= 1 each: bits under a mask, again where they are m or more."""
        masks = m - 1
        for shift in (1, 2, 4, 8, 16, 32):
            masks |= masks >> shift
        out = np.empty(len(m), np.int64)
        going = np.arange(len(m))
        while len(going):
            drawn = np.frombuffer(self._randomness.take(8 * len(going)), "<i8") & masks[going]
            good = drawn < m[going]
            out[going[good]] = drawn[good]
            going = going[~good]
        return out

    def _bits(self, n: int) -> Bool:
        drawn = np.frombuffer(self._randomness.take((n + 7) // 8), np.uint8)
        return np.unpackbits(drawn, count=n).astype(np.bool_)
