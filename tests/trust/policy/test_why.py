import itertools
import random

import pytest

from paroma.trust.policy.decide import NO_CLEAN_ANSWER, decide, load
from paroma.trust.policy.facts import TYPES, Entity, fields
from paroma.trust.policy.why import why

BAD = {
    "proven": [False], "enrolled": [False], "roles": [frozenset()], "member": ["left", "invited", "quarantined"],
    "attestation": ["failed", "unknown", "verified"], "attestation_asked": ["verified", "secret"], "log": ["inconsistent", "unknown"],
    "checkpoint_age": [61, 10**9, -1], "grace": [0], "cosignatures": [0, 2], "quorum": [4, 0], "paused": [True],
    "permit_state": ["ended", "revoked"], "permit_signed": [False], "takes_part": [False], "purpose": ["marketing", "curiosity", "education"],
    "now": [0, 200, 10**10], "starts": [150, 300], "ends": [10, 50], "algorithms": [frozenset({"flower"}), frozenset()], "private": [False],
    "epsilon_thousandths": [9000], "least_patients": [3, 30], "algorithm": ["flower"], "features": [frozenset({"genome"})],
    "permitted_features": [frozenset()], "floor_reached": [False], "budget_enough": [False], "questions_left": [0],
    "attempts_left": [0], "walls_missing": [frozenset({"seccomp"})], "invitation": ["used", "expired", "unknown"], "is_applicant": [False, True],
    "sites_online": [1], "least_sites": [9, 2], "kinds": [frozenset({"genetic"}), frozenset({"unknown"}), frozenset({"genetic", "unknown"})],
    "organisation": ["Acme Ltd", "unknown"], "organisation_kind": ["company", "unknown"], "country": ["US", "unknown"],
    "hour": [23, 2], "computing": [32, 5], "run_seconds": [-1, 4000, 10**7], "run_mib": [-1, 10**6],
}  # fmt: skip
CORPUS = [(action, {name: bad}) for action, kind in TYPES.items() for name, _ in fields(kind) for bad in BAD[name]]
_dice = random.Random(7)
for _action in ("TakePart", "SignPermit", "OpenRun", "Vote"):
    _names = [name for name, _ in fields(TYPES[_action])]
    for _size in (2, 2, 3, 3, 4, 6):
        CORPUS.append((_action, {name: _dice.choice(BAD[name]) for name in _dice.sample(_names, _size)}))


@pytest.mark.promise(3)
@pytest.mark.parametrize("house", [False, True], ids=["federation", "strict house"])
def test_every_refusal_of_the_corpus_has_a_named_policy_and_changes_that_turn_it(policies, strict, ask, house):
    chosen = strict if house else policies
    refusals = 0
    for action, changed in CORPUS:
        asked = ask(action, **changed)
        decision = decide(chosen, asked)
        if decision.allowed:
            continue
        refusals += 1
        found = why(chosen, asked)
        assert found.reasons == decision.reasons
        assert all(reason.policy in chosen.named for reason in found.reasons), (action, changed)
        assert found.changes, (action, changed, decision.reasons)
        assert decide(chosen, found.turned).allowed
        altered = {
            name
            for name, _ in fields(type(asked.facts))
            if getattr(asked.facts, name) != getattr(found.turned.facts, name)
        }
        assert altered == {change.fact for change in found.changes} - {"principal"}
    assert refusals > 80


@pytest.mark.promise(3)
def test_one_wrong_fact_needs_one_change(policies, ask):
    for action, name, bad in (
        ("TakePart", "purpose", "marketing"),
        ("TakePart", "attestation", "unknown"),
        ("Vote", "now", 900),
        ("Join", "invitation", "used"),
    ):
        assert [change.fact for change in why(policies, ask(action, **{name: bad})).changes] == [name]


def test_no_fewer_changes_would_do(policies, ask):
    wrong = {"purpose": "marketing", "paused": True, "floor_reached": False}
    found = why(policies, ask("TakePart", **wrong))
    assert {change.fact for change in found.changes} == set(wrong)
    for size in (1, 2):
        for kept in itertools.combinations(wrong, size):
            assert not decide(policies, ask("TakePart", **{name: wrong[name] for name in kept})).allowed


def test_a_patient_who_asks_for_anothers_uses_is_told_to_sign_in_as_her(policies, ask):
    import msgspec

    asked = msgspec.structs.replace(ask("ReadOwnUses"), principal=Entity("Patient", "two"))
    found = why(policies, asked)
    assert [(change.fact, change.value) for change in found.changes] == [("principal", "one")]


def test_an_allowed_request_needs_no_change(policies, ask):
    found = why(policies, ask("TakePart"))
    assert found.changes == ()
    assert found.turned == ask("TakePart")


def test_where_nothing_helps_nothing_is_invented(ask, own):
    closed = load(
        own=[
            own(
                '@id("closed") @because("closed for good") @to_change("nothing helps") @change("checkpoint_age = 1") '
                'forbid(principal, action == Action::"TakePart", resource);'
            )[0]
        ]
    )
    found = why(closed, ask("TakePart"))
    assert found.reasons[0].policy == "closed"
    assert found.changes == ()
    assert found.turned is None
    assert NO_CLEAN_ANSWER not in {reason.policy for reason in found.reasons}
