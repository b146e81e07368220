"""How far one patient reaches, on which grid, and how much noise each site adds: all three follow from the permit
alone.

The hub and every site compute the same figures, so nothing about them is negotiated. The grid is as fine as the sampler
allows, because a finer grid makes the discrete noise closer to the Gaussian that the accountant speaks of.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import msgspec

from paroma.kernel.errors import Refused
from paroma.trust.permit.permit import Permit, Privacy, threshold

LARGEST_SIGMA = 1 << 25  # steps; up to here the sampler's integers stay within 63 bits
ROOM = 62  # bits of a total over all sites, in a signed ring of 64


class Bound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far one patient reaches: her row is cut to L2 length `norm`, then truncated to multiples of 2^-scale_bits."""

    norm: float
    scale_bits: int

    @property
    def steps(self) -> int:
        """The sensitivity of an integer total, in steps, rounded up: one patient more or less moves it no further
        (L2).
        """
        return math.ceil(Fraction(self.norm) * Fraction(2) ** self.scale_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one site adds to each noised coordinate: a discrete Gaussian with standard deviation `sigma` steps.

    carriers: the fewest honest sites whose noise is in any sum that can open.
    """

    bound: Bound
    sigma: int
    carriers: int


class NoiseOutOfRange(Refused):
    """The permit's noise does not fit the sampler or the ring."""


def carriers(permit: Permit) -> int:
    """The fewest honest sites in a sum that can open: survivors as few as the vote allows, less the colluders.

    A colluder knows its own noise and can leave it out; a dropout's never arrives.
    """
    n, m, c = len(permit.participants), permit.least_owners, permit.colluders
    return min(n - permit.dropouts, max(threshold(n), m + c)) - c


def share(permit: Permit, privacy: Privacy) -> Share:
    """The grid and each site's noise. Raises NoiseOutOfRange."""
    k = carriers(permit)
    wanted = privacy.noise_multiplier * privacy.clipping_norm  # of the sum, in the algorithm's unit
    if k < 1 or not (math.isfinite(wanted) and wanted > 0):
        raise NoiseOutOfRange("nobody honest is left to carry the noise", do="tolerate fewer dropouts or colluders")
    finest = math.frexp(LARGEST_SIGMA * math.sqrt(k) / wanted)[1] - 2  # one bit to spare for rounding up
    reach = len(permit.participants) * (permit.most_patients * privacy.clipping_norm + 64 * wanted)
    scale_bits = min(finest, ROOM - math.frexp(reach)[1])
    if scale_bits < 0:
        raise NoiseOutOfRange(
            "the noise is too large for the grid", do="choose a smaller clipping norm, or a smaller noise multiplier"
        )
    exact = Fraction(privacy.noise_multiplier) * Fraction(privacy.clipping_norm) * 2**scale_bits
    sigma = math.isqrt(math.ceil(exact * exact / k) - 1) + 1  # the least integer with k sigma^2 >= exact^2
    return Share(bound=Bound(norm=privacy.clipping_norm, scale_bits=scale_bits), sigma=sigma, carriers=k)
