"""Packs as data: every test that lies beside a pack comes out, and what is added can only make a decision stricter."""

import pytest

from paroma.trust.policy import packs, trial
from paroma.trust.policy.decide import decide, load
from paroma.trust.policy.engine import PolicyInvalid
from paroma.trust.policy.facts import TYPES
from paroma.trust.policy.packs import PackInvalid

NAMES = (*packs.RELEASED, "house")
FORBID = '@id("ours") @because("b") @to_change("c") @change("checkpoint_age = 1") forbid(principal, action == Action::"Vote", resource);'


@pytest.mark.promise(3)
@pytest.mark.parametrize("name", NAMES)
def test_the_tests_that_lie_beside_a_pack_come_out(name):
    outcomes = trial.released(name)
    assert len(outcomes) >= 5
    assert [(one.says, one.wrong) for one in outcomes if one.wrong] == []


@pytest.mark.parametrize("name", packs.RELEASED)
def test_each_forbid_of_a_pack_is_spoken_of_by_a_test_beside_it(name):
    pack = packs.released(name)
    tested = {case.policy for case in pack.cases}
    assert {rule.id for rule in pack.rules if rule.effect == "forbid"} <= tested


@pytest.mark.promise(3)
def test_a_pack_whose_policy_is_lost_fails_its_own_tests(own):
    """The planted defect: a test beside a pack is worth something only if it fails without the policy."""
    tests = '[[test]]\nsays = "no vote"\naction = "Vote"\ndecision = "refused"\npolicy = "ours"\n'
    right, _ = own(FORBID, tests)
    assert [one.wrong for one in trial.run(right, own=[right])] == [""]
    assert trial.run(right)[0].wrong == "it is allowed, expected is refused"


def test_there_is_one_allowed_request_for_every_action(policies):
    for action in TYPES:
        assert decide(policies, trial.good(action)).allowed, action


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param('@id("a") @because("b") @to_change("c") @change("d = 1") permit(principal, action, resource);', "allows something", id="a permit"),
        pytest.param("forbid(principal, action, resource);", "has no @id", id="no id"),
        pytest.param('@id("a") forbid(principal, action, resource);', "has no @because", id="no reason"),
        pytest.param('@id("a") @because("b") forbid(principal, action, resource);', "has no @to_change", id="no way out"),
        pytest.param("forbid please", "cannot be read", id="no Cedar"),
        pytest.param("x" * (packs.MOST_BYTES + 1), "are the most", id="too long"),
    ],
)  # fmt: skip
def test_a_pack_that_allows_or_does_not_explain_itself_is_refused(own, text, sentence):
    with pytest.raises((PackInvalid, PolicyInvalid), match=sentence) as caught:
        own(text)
    assert caught.value.do


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(FORBID.replace("resource)", "resource) when { context.moon }"), "does not fit the schema", id="facts"),
        pytest.param(FORBID.replace('"ours"', '"floor"'), "two policies have the id `floor`", id="an id of the release"),
        pytest.param(FORBID.replace('"ours"', '"facts-complete"'), "one id", id="an id that is built in"),
        pytest.param('@id("a") @because("b") @limit @obliges("hope <= 3") permit(principal, action, resource);', "nobody can do", id="hope"),
        pytest.param('@id("a") @because("b") @limit @obliges("seconds >= 3") permit(principal, action, resource);', "nobody can do", id="sign"),
        pytest.param('@id("a") @because("b") @limit @obliges("seconds <= 3; seconds <= 4") permit(principal, action, resource);', "twice", id="twice"),
    ],
)  # fmt: skip
def test_a_pack_that_does_not_fit_is_refused_before_it_decides_anything(own, text, sentence):
    pack, _ = own(text)
    with pytest.raises(PolicyInvalid, match=sentence):
        load(own=[pack])


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    "scope",
    [
        "action",
        'action in Action::"Stopping"',
        'action in Action::"ByPerson"',
        'action == Action::"Withdraw"',
        'action in [Action::"Vote", Action::"Pause"]',
    ],
)
def test_no_pack_of_ones_own_keeps_anybody_from_stopping_something(own, scope):
    with pytest.raises(PackInvalid, match="kept from stopping"):
        own(FORBID.replace('action == Action::"Vote"', scope))
    for allowed in ('action in Action::"Using"', 'action in Action::"Reviewing"', 'action == Action::"Apply"'):
        own(FORBID.replace('action == Action::"Vote"', allowed))


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    "limit",
    [
        pytest.param('@obliges("mode = masked") permit(principal, action, resource);', id="a word that another contradicts"),
        pytest.param(
            '@obliges("retention_days <= 9") permit(principal, action in Action::"Stopping", resource) when { 9223372036854775807 + 1 > 0 };',
            id="a condition that cannot be evaluated",
        ),
    ],
)  # fmt: skip
def test_no_limit_of_ones_own_keeps_anybody_from_stopping_something(own, limit):
    with pytest.raises(PackInvalid, match="kept from stopping"):
        own('@id("a") @because("b") @limit ' + limit)
    own('@id("a") @because("b") @limit @obliges("retention_days <= 9") permit(principal, action, resource);')


def test_a_pack_under_a_name_of_the_release_is_refused(own):
    with pytest.raises(PackInvalid, match="a pack of the release"):
        own(FORBID, name="gdpr")
    with pytest.raises(PackInvalid, match=r"has no `tests\.toml`"):
        packs.read({"pack.toml": b"", "policies.cedar": b""})


def test_the_text_of_a_policy_is_found_where_it_stands():
    text = packs.source_of(load().text, "take-part-attestation-none")
    assert text.startswith('@id("take-part-attestation-none")')
    assert text.endswith('context.attestation_asked == "none" };')
    assert packs.source_of(load().text, "facts-complete") == ""
