"""Whether a question's figures fit a permit's noise, found before anybody is asked, and what would fit instead."""

import math

import msgspec

from paroma.learn.dp import accountants, bound
from paroma.learn.dp.accountants import NoiseTooCoarse
from paroma.trust.permit.permit import Permit, Privacy

NARROWER = 0.95  # by which epsilon is lowered, again and again, to find one that passes
LEAST_EPSILON = 0.01


def check(permit: Permit, figures: int) -> None:
    """Whether a question of so many noisy figures can be answered at all. The door checks the same, at the site.

    Raises NoiseOutOfRange, and NoiseTooCoarse with what would pass. Nothing without differential privacy.
    """
    privacy = permit.privacy
    if privacy is None:
        return
    share = bound.share(permit, privacy)
    if accountants.cost(privacy) > accountants.limit(privacy):
        least = accountants.noise_multiplier(privacy.epsilon, privacy.delta, privacy.questions)
        raise NoiseTooCoarse(
            f"epsilon {privacy.epsilon:g} does not cover one question with so little noise",
            do=f"apply with a noise multiplier of at least {_up(least):g}, for {privacy.questions} questions",
        )
    most = accountants.most_figures(share, privacy)
    if figures <= most:
        return
    ways = [f"ask for at most {most} figures a question (fewer features, levels or bins)"] if most else []
    narrower = _passing_epsilon(permit, privacy, figures)
    if narrower is not None:
        ways.append(f"apply with epsilon {narrower:g}")
    raise NoiseTooCoarse(
        f"{figures} noisy figures a question are too many for epsilon {privacy.epsilon:g} and delta {privacy.delta:g}",
        do=", or ".join(ways) or "apply with a lower cap of patients, or for fewer figures",
    )


def _passing_epsilon(permit: Permit, privacy: Privacy, figures: int) -> float | None:
    """A lower epsilon, of two figures, at which as many questions of so many figures pass; None where none was found."""
    lower = privacy.epsilon
    while (lower := lower * NARROWER) > LEAST_EPSILON:
        said = _down(lower)
        try:
            noise = accountants.noise_multiplier(said, privacy.delta, privacy.questions)
            there = msgspec.structs.replace(privacy, epsilon=said, noise_multiplier=noise)
            if figures <= accountants.most_figures(bound.share(permit, there), there):
                return said
        except (NoiseTooCoarse, bound.NoiseOutOfRange):
            return None
    return None


def _down(value: float) -> float:
    """To two significant figures, never up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit + 1e-9) * unit:.2g}")


def _up(value: float) -> float:
    """To three significant figures, never down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.3g}")
