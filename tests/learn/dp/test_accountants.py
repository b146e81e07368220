import json
import math
import os
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import SeededRandomness
from paroma.learn.dp import accountants, bound
from paroma.learn.dp.bound import NoiseOutOfRange, Share
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.trust.permit.permit import Privacy


@pytest.mark.data
def test_epsilon_equals_the_reference_for_composed_gaussians():
    rows = json.loads(Path(os.environ["PAROMA_DATA"], "vectors/dp/epsilon_reference.json").read_text())["rows"]
    rows = [row for row in rows if row["kind"] == "gaussian_composed"]
    assert len(rows) == 6
    for row in rows:
        epsilon = accountants.epsilon(row["steps"] / row["noise_multiplier"] ** 2, row["delta"])
        exact = row["epsilon_exact_closed_form"]
        assert exact - 1e-12 * exact <= epsilon <= exact + 1e-8
        assert epsilon <= row["epsilon_pld"]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 8), st.sampled_from([1e-3, 1e-5, 1e-7]))
def test_sigma_and_epsilon_agree_with_dp_accounting(epsilon, delta):
    sigma = dp_accounting.get_sigma_gaussian(epsilon, delta)
    assert math.isclose(math.sqrt(1 / accountants.most_mu_squared(epsilon, delta)), sigma, rel_tol=1e-7)
    assert math.isclose(accountants.epsilon(1 / sigma**2, delta), epsilon, rel_tol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 8), st.sampled_from([1e-3, 1e-5, 1e-7]), st.integers(1, 200))
def test_a_budget_pays_exactly_the_questions_it_was_planned_for(epsilon, delta, questions):
    z = accountants.noise_multiplier(epsilon, delta, questions)
    privacy = Privacy(epsilon=epsilon, delta=delta, noise_multiplier=z, clipping_norm=1.0, questions=questions)
    assert accountants.limit(privacy) // accountants.cost(privacy) == questions
    assert accountants.spent(privacy, questions) <= epsilon
    assert accountants.spent(privacy, questions + 1) > epsilon


def test_mixed_questions_add_their_mu_squared():
    mixed = accountants.epsilon(1 / 4 + 10 / 25, 1e-5)
    event = dp_accounting.ComposedDpEvent(
        [dp_accounting.GaussianDpEvent(2.0), dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(5.0), 10)]
    )
    pld = dp_accounting.pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    assert math.isclose(mixed, pld, rel_tol=1e-4)
    assert accountants.epsilon(0.0, 1e-5) == 0.0


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param((4, 0, 1), 3, id="one may be lost"),
        pytest.param((4, 0, 0), 3, id="a decline makes the set as small as the threshold, whatever the permit hopes"),
        pytest.param((5, 1, 1), 3, id="a colluder leaves its noise out"),
        pytest.param((16, 5, 2), 6, id="the threshold counts"),
    ],
)
def test_noise_of_the_fewest_honest_survivors_carries_sigma(make_permit, privacy, case, expected):
    sites, colluders, dropouts = case
    permit = make_permit(sites, colluders=colluders, dropouts=dropouts)
    share = bound.share(permit, privacy)
    assert share.carriers == expected
    wanted = privacy.noise_multiplier * privacy.clipping_norm * 2.0**share.bound.scale_bits
    assert share.carriers * share.sigma**2 >= wanted**2
    assert share.carriers * (share.sigma - 1) ** 2 < wanted**2


@pytest.mark.promise(1)
def test_halving_a_sites_share_is_noticed_in_the_sum(make_permit, privacy):
    permit = make_permit()
    share = bound.share(permit, privacy)
    wanted = privacy.noise_multiplier * share.bound.steps
    noise = DiscreteGaussian(SeededRandomness(5))

    def spread(sigma):
        return np.std(sum(noise.draw(sigma, 20_000) for _ in range(share.carriers)))

    assert spread(share.sigma) >= 0.98 * wanted
    assert spread(share.sigma // 2) < 0.98 * wanted


def test_noise_too_large_for_the_grid_is_refused(make_permit):
    privacy = Privacy(epsilon=1.0, delta=1e-5, noise_multiplier=1e6, clipping_norm=1e6, questions=1)
    with pytest.raises(NoiseOutOfRange):
        bound.share(make_permit(), privacy)


@pytest.mark.promise(1)
def test_the_grid_is_fine_enough_that_discreteness_costs_less_than_was_set_aside(make_permit, privacy):
    share = bound.share(make_permit(), privacy)
    accountants.check_slack(share, 64, privacy)
    with pytest.raises(accountants.NoiseTooCoarse):
        accountants.check_slack(Share(bound=share.bound, sigma=20, carriers=3), 64, privacy)


@pytest.mark.parametrize(("sigma", "carriers"), [(1, 1), (2, 1), (1, 3), (2, 4), (5, 3)])
def test_slack_bounds_the_exact_distance_from_a_rounded_gaussian(sigma, carriers):
    """Exhaustive: convolve the mass functions, and compare with the normal distribution on each cell."""
    k = np.arange(-400, 401)
    mass = np.exp(-(k**2) / (2.0 * sigma**2))
    one = mass / mass.sum()
    total = one
    for _ in range(carriers - 1):
        total = np.convolve(total, one, mode="same")
    s = sigma * math.sqrt(carriers)
    edges = np.array([0.5 * math.erfc(-(x - 0.5) / (s * math.sqrt(2))) for x in range(-400, 402)])
    distance = 0.5 * np.abs(total - np.diff(edges)).sum()
    assert distance <= accountants.slack(
        Share(bound=bound.Bound(norm=1.0, scale_bits=0), sigma=sigma, carriers=carriers), 1
    )


def test_the_concentrated_bound_agrees_with_the_exact_one_from_above(make_permit, privacy):
    share = bound.share(make_permit(), privacy)
    rho = accountants.concentrated(share, 14)
    assert math.isclose(rho, 1 / (2 * privacy.noise_multiplier**2), rel_tol=1e-5)
    through_renyi = rho + 2 * math.sqrt(rho * math.log(1e5))
    assert accountants.epsilon(2 * rho, 1e-5) < through_renyi
