"""What the bench of decisions compares is really compared: 100 policies, every action, and defects that it has to see."""

import pytest

from paroma.bench import pdp
from paroma.trust.policy import trial
from paroma.trust.policy.decide import decide
from paroma.trust.policy.facts import TYPES


@pytest.fixture(scope="module")
def policies():
    return pdp.policies_of(pdp.POLICIES)


def test_there_are_a_hundred_policies_and_every_action_is_still_allowed(policies):
    assert len(policies.rules) == 100
    assert all(decide(policies, trial.good(action)).allowed for action in TYPES)


def test_both_planted_defects_are_seen_and_plain_cedar_agrees(policies):
    found = pdp._defects(policies, [trial.good(action) for action in TYPES])
    assert [row.holds for row in found] == [True, True, True]
    assert [row.value for row in found] == [0.0, 1.0, 1.0]


def test_the_tail_is_that_of_decisions_that_were_never_asked_before(policies):
    asked = [pdp._fresh(trial.good(pdp.HEAVIEST), n) for n in range(200)]
    assert len({*asked}) == 200
    assert pdp.p99(asked, policies) > 0.02  # ms: no memory is that slow
