import re

import cedarpy
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from paroma.kernel.errors import Refused
from paroma.trust.policy import decide as deciding, engine, house as houses, purposes
from paroma.trust.policy.decide import (
    CONTRADICTION,
    NO_CLEAN_ANSWER,
    NOTHING_ALLOWS,
    Ask,
    decide,
    decide_afresh,
    decide_context,
    load,
)
from paroma.trust.policy.facts import MOST, TYPES, Entity, FactsInvalid, TakePart, context, fields
from paroma.trust.policy.obligations import NOTHING

EVERY = [pytest.param(action, id=action) for action in TYPES]
EVERY_FACT = [pytest.param(a, name, kind, id=f"{a}-{name}") for a, k in TYPES.items() for name, kind in fields(k)]
WRONG = [None, 1.0, "1", b"true", 2, True, ("a",), frozenset({1}), {"a": 1}, MOST + 1]
JSON_WRONG = {bool: ["true", 1, None], int: ["1", True, 1.5, None, MOST + 1], str: [1, True, None, ["x"]]}


@pytest.mark.promise(3)
@pytest.mark.parametrize("action", EVERY)
def test_each_action_is_allowed_on_good_facts_and_says_which_policy_allowed_it(policies, ask, action):
    decision = decide(policies, ask(action))
    assert decision.allowed, decision.reasons
    assert all(policies.named[reason.policy].effect == "permit" and reason.because for reason in decision.reasons)
    decision.require()


@pytest.mark.promise(3)
@pytest.mark.parametrize(("action", "name", "kind"), EVERY_FACT)
def test_a_wrongly_typed_or_missing_fact_never_decides(policies, ask, action, name, kind):
    good = ask(action)
    given = {field: getattr(good.facts, field) for field, _ in fields(type(good.facts))}
    for wrong in WRONG:
        if type(wrong) is kind and wrong != MOST + 1:
            continue
        with pytest.raises(FactsInvalid, match=name):
            type(good.facts)(**given | {name: wrong})
    with pytest.raises(TypeError, match=name):
        type(good.facts)(**{field: value for field, value in given.items() if field != name})
    whole = context(good.facts)
    assert decide_context(policies, good, whole).allowed
    for wrong in JSON_WRONG.get(kind, [[1], "x", None, True]):
        assert refused_as_unclear(decide_context(policies, good, whole | {name: wrong})), wrong
    assert refused_as_unclear(decide_context(policies, good, {k: v for k, v in whole.items() if k != name}))
    assert refused_as_unclear(decide_context(policies, good, whole | {"more": 1}))


def refused_as_unclear(decision):
    return not decision.allowed and decision.reasons[0].policy == NO_CLEAN_ANSWER and decision.reasons[0].to_change


@pytest.mark.promise(3)
def test_the_facts_of_another_action_never_decide(policies, ask):
    for action in ("TakePart", "Answer", "Nothing"):
        assert refused_as_unclear(
            decide(
                policies,
                Ask(
                    action=action, principal=Entity("Hub", "h"), resource=Entity("Study", "s"), facts=ask("Vote").facts
                ),
            )
        )


@pytest.mark.promise(3)
def test_a_principal_of_another_kind_is_refused(policies, ask):
    for action in TYPES:
        asked = msgspec.structs.replace(ask(action), principal=Entity("Federation", "f"))
        assert not decide(policies, asked).allowed
    by_the_desk = msgspec.structs.replace(ask("Withdraw"), principal=Entity("Hub", "h"))
    assert not decide(policies, by_the_desk).allowed


@pytest.mark.promise(3)
def test_a_forbid_that_fails_to_evaluate_refuses(policies, ask, own):
    """Cedar skips it and would allow."""
    text = (
        '@id("own-overflow") @because("b") @to_change("c") @change("checkpoint_age = 1") '
        'forbid(principal, action == Action::"TakePart", resource) when { context.checkpoint_age * 9223372036854775807 > 1 };'
    )
    asked = ask("TakePart", checkpoint_age=2)
    assert decide(policies, asked).allowed
    skipped = load(own=[own(text)[0]])
    handle = skipped.slice(asked).handle
    request = {
        "principal": {"type": "Hub", "id": "one"},
        "action": {"type": "Action", "id": "TakePart"},
        "resource": {"type": "Study", "id": "one"},
        "context": context(asked.facts),
    }
    raw = cedarpy.is_authorized(request, handle, skipped.nothing, skipped.schema)
    assert raw.decision == cedarpy.Decision.Allow
    assert raw.diagnostics.errors
    assert refused_as_unclear(decide(skipped, asked))


@pytest.mark.promise(3)
def test_without_a_permit_everything_is_refused(policies, ask):
    none = deciding.assemble(tuple(rule for rule in policies.rules if rule.effect == "forbid"), deciding.schema_text())
    for action in TYPES:
        decision = decide(none, ask(action))
        assert not decision.allowed
        assert decision.reasons[0].policy == NOTHING_ALLOWS


@pytest.mark.promise(3)
@pytest.mark.parametrize("action", EVERY)
def test_a_slice_holds_every_forbid_and_every_permit_that_could_match(strict, ask, action):
    asked = ask(action)
    cut = strict.slice(asked)
    assert {rule.id for rule in strict.rules if rule.effect == "forbid"} <= {rule.id for rule in cut.rules}
    assert any(rule.effect == "permit" and not rule.limit for rule in cut.rules)
    whole = engine.handle(strict.rules)
    request = {
        "principal": {"type": asked.principal.kind, "id": "one"},
        "action": {"type": "Action", "id": action},
        "resource": {"type": asked.resource.kind, "id": "one"},
        "context": context(asked.facts),
    }
    assert engine.answer(request, whole, strict.nothing, strict.schema) == engine.answer(
        request, cut.handle, strict.nothing, strict.schema
    )


def test_the_schema_has_exactly_the_facts_of_each_action():
    names = {bool: "Bool", int: "Long", str: "String", frozenset[str]: "Set<String>"}
    written = {
        action: dict(re.findall(r"(\w+): ([\w<>]+)", body))
        for action, body in re.findall(
            r"action (\w+)(?: in \[[^]]*\])? appliesTo \{.*?context: \{(.*?)\}", deciding.schema_text(), re.DOTALL
        )
    }
    assert written == {action: {name: names[kind] for name, kind in fields(facts)} for action, facts in TYPES.items()}


def test_the_policies_know_exactly_the_purposes_of_the_regulation(policies, ask):
    for purpose in (*purposes.ALLOWED, *purposes.PROHIBITED, "curiosity", ""):
        assert decide(policies, ask("Apply", purpose=purpose)).allowed is (purpose in purposes.ALLOWED)
    prohibited = decide(policies, ask("Apply", purpose="marketing")).reasons
    assert [reason.policy for reason in prohibited] == ["purpose-prohibited"]


@pytest.mark.promise(3)
def test_attestation_none_passes_by_name_only_and_the_log_has_to_say_so(policies, ask):
    decision = decide(policies, ask("TakePart"))
    assert [reason.policy for reason in decision.reasons] == ["take-part-attestation-none"]
    assert decision.obligations.log == ("use",)
    assert decision.obligations.say == ("attestation none",)
    verified = decide(policies, ask("TakePart", attestation="verified", attestation_asked="verified"))
    assert verified.allowed
    assert verified.obligations.log == ("use",)
    assert verified.obligations.say == ()
    for attestation, asked in (
        ("none", "verified"),
        ("unknown", "none"),
        ("failed", "none"),
        ("", "none"),
        ("none", ""),
    ):
        assert not decide(policies, ask("TakePart", attestation=attestation, attestation_asked=asked)).allowed


@pytest.mark.promise(2)
def test_a_withdrawal_is_never_refused_for_want_of_the_hub():
    """No fact about the hub, its log or the permit is even asked for."""
    assert {name for name, _ in fields(TYPES["Withdraw"])} == {"proven", "enrolled", "roles"}
    assert {name for name, _ in fields(TYPES["Pause"])} == {"proven", "enrolled", "roles"}


@pytest.mark.promise(2)
def test_patients_read_and_withdraw_their_own_and_nobody_elses(policies, ask):
    for action in ("ReadOwnUses", "Withdraw"):
        own = msgspec.structs.replace(ask(action), principal=Entity("Patient", "one"))
        if action == "Withdraw":
            own = msgspec.structs.replace(own, facts=msgspec.structs.replace(own.facts, roles=frozenset()))
        assert decide(policies, own).allowed
        assert not decide(policies, msgspec.structs.replace(own, principal=Entity("Patient", "two"))).allowed
        assert not decide(
            policies, msgspec.structs.replace(own, facts=msgspec.structs.replace(own.facts, proven=False))
        ).allowed


REFUSALS = [
    ("TakePart", {"purpose": "marketing"}, "purpose-prohibited", "scientific-research"),
    ("TakePart", {"purpose": "curiosity"}, "purpose-known", "scientific-research"),
    ("TakePart", {"now": 200}, "permit-ended", "new permit"),
    ("TakePart", {"now": 49}, "permit-begun", "start"),
    ("TakePart", {"permit_state": "revoked"}, "permit-valid", "new permit"),
    ("TakePart", {"permit_signed": False}, "permit-signed", "sign"),
    ("TakePart", {"takes_part": False}, "participant", "names this site"),
    ("TakePart", {"member": "quarantined"}, "member-admitted", "operator"),
    ("TakePart", {"log": "inconsistent"}, "log-consistent", "consistent"),
    ("TakePart", {"checkpoint_age": 61}, "checkpoint-fresh", "newer checkpoint"),
    ("TakePart", {"checkpoint_age": -1}, "checkpoint-fresh", "newer checkpoint"),
    ("TakePart", {"cosignatures": 2}, "checkpoint-cosigned", "more participants"),
    ("TakePart", {"quorum": 0}, "checkpoint-cosigned", "more participants"),
    ("TakePart", {"paused": True}, "not-paused", "resume"),
    ("TakePart", {"walls_missing": frozenset({"landlock"})}, "walls-stand", "doctor"),
    ("TakePart", {"floor_reached": False}, "floor", "lower floor"),
    ("TakePart", {"budget_enough": False}, "budget", "new permit"),
    ("TakePart", {"algorithm": "flower"}, "algorithm-permitted", "permit"),
    ("TakePart", {"features": frozenset({"genome"})}, "features-permitted", "permitted features"),
    ("TakePart", {"questions_left": 0}, "questions", "new permit"),
    ("TakePart", {"attempts_left": 0}, "attempts", "attempts"),
    ("Vote", {"log": "unknown"}, "log-consistent", "consistent"),
    ("Answer", {"now": 10**9}, "permit-ended", "new permit"),
    ("Exchange", {"member": "left"}, "member-talks", "operator"),
    ("Exchange", {"proven": False}, "exchange", "proof"),
    ("Join", {"invitation": "expired"}, "join", "new invitation"),
    ("OpenRun", {"is_applicant": False}, "open-run", "applicant"),
    ("OpenRun", {"sites_online": 2}, "run-sites", "online"),
    ("Apply", {"roles": frozenset()}, "apply", "scientist"),
    ("Apply", {"proven": False}, "person-proven", "sign in"),
    ("SignPermit", {"enrolled": False}, "person-enrolled", "link"),
    ("SignPermit", {"roles": frozenset({"scientist"})}, "sign-permit", "officer"),
    ("DecideApplication", {"is_applicant": True}, "decide-application", "another member"),
]


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("action", "changed", "policy", "to_change"), [pytest.param(*row, id=f"{row[0]}-{row[2]}") for row in REFUSALS]
)
def test_a_refusal_names_its_policy_and_what_would_change_it(
    policies, ask, action, changed, policy, to_change
):  # a table
    decision = decide(policies, ask(action, **changed))
    assert not decision.allowed
    assert decision.obligations == NOTHING
    assert decision.reasons[0].policy == policy
    assert to_change in decision.reasons[0].to_change
    assert "{" not in decision.reasons[0].because
    with pytest.raises(Refused, match=f"policy `{policy}`") as caught:
        decision.require()
    assert caught.value.do == decision.reasons[0].to_change


def test_every_policy_has_all_it_must_say(strict):
    for rule in strict.rules:
        needed = {"id", "because"} if rule.limit else {"id", "because", "to_change", "change"}
        needed |= {"otherwise"} if rule.effect == "permit" and not rule.limit else set()
        assert needed <= set(rule.notes), rule.id


def test_what_came_from_outside_is_shown_short_and_printable(policies, ask):
    because = decide(policies, ask("Apply", purpose="x\n\x1b[31m" + "y" * 5000)).reasons[0].because
    assert because.isprintable()
    assert len(because) < 700


@pytest.mark.promise(1)
def test_a_refusal_below_the_floor_is_the_same_whatever_the_cohort(policies, ask):
    """The facts hold no count, so there is nothing that could show."""
    assert not {"patients", "cohort", "rows"} & {name for name, _ in fields(TakePart)}
    assert decide(policies, ask("TakePart", floor_reached=False)) == decide_afresh(
        policies, ask("TakePart", floor_reached=False)
    )


def test_the_house_refuses_a_purpose_and_says_what_passes(ask):
    house = load(house=[houses.parse("no-purpose purpose=product-development")])
    refused = decide(house, ask("Consider", purpose="product-development"))
    assert not refused.allowed
    assert refused.reasons[0].policy == "house-no-product-development"
    assert "scientific-research" in refused.reasons[0].to_change
    assert decide(house, ask("Consider")).allowed
    assert decide(load(), ask("Consider", purpose="product-development")).allowed


@pytest.mark.promise(3)
def test_text_that_is_no_text_decides_nothing(policies, ask):
    assert refused_as_unclear(decide(policies, ask("Apply", purpose="half \ud800")))
    somebody = msgspec.structs.replace(ask("Apply"), principal=Entity("Person", "half \ud800"))
    assert refused_as_unclear(decide(policies, somebody))


@pytest.mark.promise(3)
def test_a_limit_obliges_and_allows_nothing(policies, ask):
    limits = tuple(rule for rule in policies.rules if rule.limit)
    assert len(limits) >= 3
    alone = deciding.assemble(limits, deciding.schema_text())
    for action in TYPES:
        assert not decide(alone, ask(action)).allowed, action


def test_a_contradiction_between_policies_is_a_refusal_that_says_so(policies, ask, own):
    text = """
    @id("ours-open") @because("b") @limit @obliges("mode = per-site")
    permit(principal is Hub, action == Action::"TakePart", resource is Study);"""
    both = load(own=[own(text)[0]])
    refused = decide(both, ask("TakePart"))
    assert not refused.allowed
    assert refused.reasons[0].policy == CONTRADICTION
    assert "`masked` and `per-site`" in refused.reasons[0].because
    assert decide(policies, ask("TakePart")).allowed


def test_the_digest_names_the_policies():
    def ticked(*rules):
        return load(house=[houses.parse(rule) for rule in rules]).digest

    assert load().digest == load().digest
    assert load().digest != ticked("private-only")
    assert ticked("private-only", "at-least-patients patients=20") == ticked(
        "at-least-patients patients=20", "private-only"
    )


def test_a_decision_is_remembered_for_exactly_these_facts(ask):
    policies = load()
    first = decide(policies, ask("TakePart"))
    assert decide(policies, ask("TakePart")) is first
    assert decide(policies, ask("TakePart", now=101)) is not first
    assert decide(policies, ask("Vote")) is not first
    assert not decide(policies, ask("TakePart", paused=True)).allowed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_facts_a_decision_has_reasons_and_the_memory_agrees(policies, ask, data):
    action = data.draw(st.sampled_from(sorted(TYPES)))
    drawn = {
        bool: st.booleans(),
        int: st.integers(-(2**63), MOST),
        str: st.text(max_size=20),
        frozenset[str]: st.frozensets(st.text(max_size=5), max_size=3),
    }
    names = [name for name, _ in fields(TYPES[action])]
    changed = {
        name: data.draw(drawn[kind])
        for name, kind in fields(TYPES[action])
        if name in data.draw(st.sets(st.sampled_from(names), max_size=3))
    }
    asked = ask(action, **changed)
    decision = decide(policies, asked)
    assert decision == decide_afresh(policies, asked)
    assert decision.reasons
    if not decision.allowed:
        assert all(reason.policy and reason.because and reason.to_change for reason in decision.reasons)
