"""How much privacy noisy sums cost, in epsilon and delta.

Full-batch Gaussian sums compose exactly: their mu^2 = (sensitivity / standard deviation)^2 add up, whatever was asked
in between (Dong, Roth, Su 2022, Corollary 3.3, also for adaptive questions), and epsilon follows in closed form
(Balle and Wang 2018, Theorem 8). What sites really add is discrete, and shared between them; `slack` is the proven
price of that.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from paroma.kernel.errors import Refused
from paroma.learn.dp.bound import Share
from paroma.trust.permit.permit import Privacy

UNIT = 1 << 40  # mu^2 is kept in whole steps of 2^-40, rounded up, so that sums do not depend on their order
SPARE = 1e-3  # the part of delta that is set aside for `slack`
CARE = 1e-9  # relative: more than the rounding of `delta`, so that a bisection never ends on the promising side
MOST_EPSILON = 1e4
MOST_MU_SQUARED = 1e6


class NoiseTooCoarse(Refused):
    """The steps of noise or of the budget are too coarse for what is promised."""


def delta(epsilon: float, mu_squared: float) -> float:
    """The least delta of Gaussian sums with the total `mu_squared` at `epsilon` (Balle and Wang 2018, Theorem 8).

    Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).
    """
    if mu_squared <= 0:
        return 0.0
    mu = math.sqrt(mu_squared)
    second = _log_phi(-mu / 2 - epsilon / mu) + epsilon
    return max(0.0, _phi(mu / 2 - epsilon / mu) - math.exp(min(second, 0.0)))


def epsilon(mu_squared: float, delta_allowed: float) -> float:
    """The least epsilon >= 0 of Gaussian sums with the total `mu_squared`, at `delta_allowed`; never below the exact
    value.
    """
    if delta(0.0, mu_squared) * (1 + CARE) <= delta_allowed:
        return 0.0
    return _bisect(lambda e: delta(e, mu_squared) * (1 + CARE) <= delta_allowed, 0.0, MOST_EPSILON)[1]


def most_mu_squared(epsilon_allowed: float, delta_allowed: float) -> float:
    """The largest total of mu^2 that stays within (epsilon, delta); never above the exact value."""
    return _bisect(lambda m: delta(epsilon_allowed, m) * (1 + CARE) > delta_allowed, 0.0, MOST_MU_SQUARED)[0]


def noise_multiplier(epsilon_allowed: float, delta_allowed: float, questions: int) -> float:
    """Sigma of one question, relative to the clipping norm, so that `questions` of them stay within (epsilon, delta).

    A repeated attempt is a question of its own here: it carries fresh noise and is debited again.
    """
    each = math.floor(most_mu_squared(epsilon_allowed, delta_allowed * (1 - SPARE)) * UNIT) // questions
    if each < 1:
        raise NoiseTooCoarse("the budget is too small for so many questions", do="ask fewer, or take a larger epsilon")
    sigma = math.sqrt(UNIT / each)
    while each * Fraction(sigma) ** 2 < UNIT:  # a float or two up, so that the cost rounds up to `each` at most
        sigma = math.nextafter(sigma, math.inf)
    return sigma


def cost(privacy: Privacy) -> int:
    """mu^2 of one question, in steps of 2^-40, rounded up."""
    return math.ceil(UNIT / Fraction(privacy.noise_multiplier) ** 2)


def limit(privacy: Privacy) -> int:
    """The most mu^2 that a permit's (epsilon, delta) allows one patient, in steps of 2^-40, rounded down."""
    return math.floor(most_mu_squared(privacy.epsilon, privacy.delta * (1 - SPARE)) * UNIT)


def spent(privacy: Privacy, questions: int) -> float:
    """Epsilon, at the permit's delta, of so many questions, with everything set aside that `slack` may need.

    Rounded up to 1e-6, because libraries of mathematics differ in the last bits and hub and sites must say the same.
    """
    total = questions * cost(privacy)
    figure = math.ceil(epsilon(total / UNIT, privacy.delta * (1 - SPARE)) * 1e6) / 1e6
    return min(figure, privacy.epsilon) if total <= limit(privacy) else figure


def slack(share: Share, coordinates: int) -> float:
    """An upper bound of the total variation distance between the noise in one sum and rounded Gaussians of the
    charged size.

    Two parts for each coordinate. (1) The sum of k discrete Gaussians against one of k times the variance: its log
    ratio is at most tau = 10 sum_j exp(-2 pi^2 sigma^2 j / (j + 1)) (Kairouz, Liu, Steinke 2021, Theorem 9), so the
    distance is at most tau for tau <= 1. (2) A discrete Gaussian p against a rounded one q, s^2 = k sigma^2: q(x) /
    phi(x) is at least 1 - 1 / (24 s^2), as exp(-u^2 / 2s^2) >= 1 - u^2 / 2s^2 and cosh >= 1 on the cell, and p(x) <=
    phi(x) by Poisson summation; so the sum of (p - q)+ is at most (1 + tiny) / (24 s^2). A rounded Gaussian on
    integer totals is the Gaussian mechanism, rounded afterwards.
    """
    variance = share.carriers * share.sigma**2
    return coordinates * (_tau(share) + 1.001 / (24 * variance))


def most_figures(share: Share, privacy: Privacy) -> int:
    """The most noisy figures a question may have, so that the set-aside part of delta covers all questions that the budget
    can pay.

    A mechanism within distance d of an (epsilon, delta) one is (epsilon, delta + (1 + e^epsilon) d).
    """
    questions = max(1, limit(privacy) // cost(privacy))
    each = questions * slack(share, 1) * (1 + math.exp(privacy.epsilon))
    return math.floor(SPARE * privacy.delta / each)


def check_slack(share: Share, coordinates: int, privacy: Privacy) -> None:
    """Raise NoiseTooCoarse for more than `most_figures`."""
    if coordinates > most_figures(share, privacy):
        raise NoiseTooCoarse(
            f"{coordinates} noisy figures a question are too many for delta {privacy.delta:g}",
            do="ask for fewer figures, or apply for a permit with a larger delta",
        )


def concentrated(share: Share, coordinates: int) -> float:
    """Epsilon^2 / 2 of one noisy sum, as concentrated privacy, by Kairouz, Liu, Steinke 2021, Theorem 1 (without its
    Delta_1 case).

    A second opinion on the same noise: it needs no total variation distance, and is looser when turned into (epsilon,
    delta).
    """
    tau = _tau(share)
    ratio = share.bound.steps / (math.sqrt(share.carriers) * share.sigma)
    return min(ratio**2 + tau * coordinates / 2, (ratio + tau * math.sqrt(coordinates)) ** 2) / 2


def _tau(share: Share) -> float:
    return 10 * sum(math.exp(-2 * math.pi**2 * share.sigma**2 * j / (j + 1)) for j in range(1, share.carriers))


def _bisect(beyond: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """The two neighbouring floats around the point where `beyond` becomes true: false at the first, true at the
    second.
    """
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return low, high
        low, high = (low, middle) if beyond(middle) else (middle, high)


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_phi(x: float) -> float:
    """The logarithm of Phi(x), also where Phi(x) is below the smallest float (Laplace's continued fraction)."""
    if x > -30:
        return math.log(_phi(x))
    rest = -x
    for k in range(60, 0, -1):
        rest = -x + k / rest
    return -x * x / 2 - math.log(math.sqrt(2 * math.pi) * rest)
