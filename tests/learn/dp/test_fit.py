"""What does not fit a permit's noise is found before anybody is asked, and what is said to pass does pass."""

import re

import pytest

from paroma.learn.dp import accountants, bound, fit
from paroma.learn.dp.accountants import NoiseTooCoarse
from paroma.trust.permit.permit import Privacy


def privacy(epsilon, questions=10, delta=1e-5):
    return Privacy(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=accountants.noise_multiplier(epsilon, delta, questions),
        clipping_norm=1.0,
        questions=questions,
    )


@pytest.mark.promise(1)
@pytest.mark.parametrize(("epsilon", "figures"), [(18.0, 64), (24.0, 1), (40.0, 200)])
def test_what_a_refusal_says_would_pass_passes(make_permit, epsilon, figures):
    permit = make_permit(privacy=privacy(epsilon))
    with pytest.raises(NoiseTooCoarse) as refusal:
        fit.check(permit, figures)
    said = refusal.value.do
    fewer = re.search(r"at most (\d+) figures", said)
    lower = re.search(r"epsilon ([\d.]+)", said)
    assert fewer or lower, said
    if fewer:
        fit.check(permit, int(fewer[1]))
        with pytest.raises(NoiseTooCoarse):
            fit.check(permit, int(fewer[1]) + 1)
    if lower:
        fit.check(make_permit(privacy=privacy(float(lower[1]))), figures)


@pytest.mark.promise(1)
def test_noise_too_small_for_one_question_is_told_with_the_least_that_passes(make_permit):
    thin = Privacy(epsilon=1.0, delta=1e-5, noise_multiplier=0.5, clipping_norm=1.0, questions=3)
    with pytest.raises(NoiseTooCoarse) as refusal:
        fit.check(make_permit(privacy=thin), 2)
    least = float(re.search(r"at least ([\d.]+)", refusal.value.do)[1])
    fit.check(
        make_permit(
            privacy=Privacy(**{f: getattr(thin, f) for f in thin.__struct_fields__} | {"noise_multiplier": least})
        ),
        2,
    )


def test_the_door_and_the_application_draw_one_line(make_permit):
    permit = make_permit(privacy=privacy(12.0))
    share = bound.share(permit, permit.privacy)
    most = accountants.most_figures(share, permit.privacy)
    assert most > 0
    accountants.check_slack(share, most, permit.privacy)
    with pytest.raises(NoiseTooCoarse):
        accountants.check_slack(share, most + 1, permit.privacy)


def test_without_noise_everything_fits(make_permit):
    fit.check(make_permit(), 10**9)
