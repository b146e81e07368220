import pytest
from hypothesis import given, settings, strategies as st

from paroma.data.consent.evaluate import Request, decide, evaluate, next_change
from paroma.data.consent.purposes import ACT_REASON, OWN, Coding, covers, named
from paroma.data.consent.statement import EVERYTHING, Choice, DataRef, Override, Rule, Scope, Statement, Use
from paroma.trust.policy.purposes import ALLOWED, PROHIBITED

RESEARCH = Coding(ACT_REASON, "HRESCH")
USE = Use(purpose="scientific-research", study="study-1")
NOW = 1000.0


def says(type_="permit", *, purposes=(RESEARCH,), active=True, id_="c1", **rule):
    return Statement(id=id_, patient="p", given=10.0, active=active, rule=Rule(type=type_, purposes=purposes, **rule))


def chose(says_, scope=EVERYTHING, at=500.0):
    return Choice(number="AAAA-BBBB", seq=1, patient="p", scope=scope, says=says_, by="patient", at=at, salt=b"")


UNCLEAR = Statement(id="u", patient="p", given=None, active=True, rule=None, unclear="it was not verified")
ORDER = Override(id="o", purpose="scientific-research", study="", law="Law 1", starts=900.0, ends=1100.0)


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("consents", "choices", "overrides", "use", "allowed", "rule"),
    [
        pytest.param([says()], [], [], USE, True, "consent c1 of 1970-01-01", id="consent stands"),
        pytest.param([], [], [], USE, False, "no consent", id="never asked, so no"),
        pytest.param([says(active=False)], [], [], USE, False, "no consent", id="consent is not active"),
        pytest.param([says(ends=NOW)], [], [], USE, False, "no consent", id="ended at that very instant"),
        pytest.param([says(starts=NOW)], [], [], USE, True, None, id="starts at that very instant"),
        pytest.param([says(starts=NOW + 1)], [], [], USE, False, "no consent", id="not yet"),
        pytest.param([says()], [chose("no")], [], USE, False, "opt-out AAAA-BBBB of 1970-01-01", id="withdrawn"),
        pytest.param([says()], [chose("no", at=NOW)], [], USE, False, None, id="withdrawn at that very instant"),
        pytest.param(
            [says()], [chose("no", at=NOW + 60)], [], USE, False, None, id="withdrawn, then the clock was set back"
        ),
        pytest.param(
            [says()], [chose("no", Scope("study", "study-1"))], [], USE, False, None, id="withdrawn from this study"
        ),
        pytest.param(
            [says()], [chose("no", Scope("study", "study-2"))], [], USE, True, None, id="withdrawn from another study"
        ),
        pytest.param(
            [says()],
            [chose("no", Scope("purpose", "scientific-research"))],
            [],
            USE,
            False,
            None,
            id="from the purpose",
        ),
        pytest.param(
            [says()], [chose("no", Scope("purpose", "statistics"))], [], USE, True, None, id="from another purpose"
        ),
        pytest.param(
            [], [chose("yes", Scope("study", "study-1"))], [], USE, True, None, id="said yes to this study here"
        ),
        pytest.param([], [chose("yes")], [], USE, False, "no consent", id="a yes to everything only takes back a no"),
        pytest.param(
            [says(), says("deny", id_="c2")], [], [], USE, False, "consent c2: denies it", id="two that disagree"
        ),
        pytest.param(
            [says(), UNCLEAR], [], [], USE, False, "consent u: it was not verified", id="one that is not computable"
        ),
        pytest.param([says(purposes=())], [], [], USE, False, "no consent", id="no purpose named is no yes"),
        pytest.param([says("deny", purposes=())], [], [], USE, False, None, id="no purpose named is a no to all"),
        pytest.param(
            [says(), says("deny", purposes=(Coding(ACT_REASON, "CLINTRCH"),), id_="c2")],
            [],
            [],
            USE,
            False,
            None,
            id="part of it denied",
        ),
        pytest.param(
            [says(purposes=(Coding(ACT_REASON, "CLINTRCH"),))], [], [], USE, False, None, id="only part of it allowed"
        ),
        pytest.param(
            [says(), says("deny", purposes=(Coding("", "HRESCH"),), id_="c2")],
            [],
            [],
            USE,
            False,
            None,
            id="denied under a code of no system",
        ),
        pytest.param(
            [says(), says("deny", purposes=(Coding(ACT_REASON, "XYZ"),), id_="c2")],
            [],
            [],
            USE,
            False,
            None,
            id="denied under an unknown code",
        ),
        pytest.param(
            [says(), says("deny", purposes=(Coding(ACT_REASON, "HMARKT"),), id_="c2")],
            [],
            [],
            USE,
            True,
            None,
            id="marketing denied",
        ),
        pytest.param([says(recipients=("Organization/1",))], [], [], USE, False, None, id="recipient unknown"),
        pytest.param([says(other_actors=True)], [], [], USE, False, None, id="people in other roles"),
        pytest.param([says(actions=("collect",))], [], [], USE, False, None, id="collecting is not using"),
        pytest.param([says(actions=("use",))], [], [], USE, True, None, id="using"),
        pytest.param([says(narrowed=True)], [], [], USE, False, None, id="some classes only"),
        pytest.param(
            [says(data=(DataRef("instance", "Observation/1"),))], [], [], USE, False, None, id="some data only"
        ),
        pytest.param(
            [says(inner=(Rule(type="deny", data_starts=0.0, data_ends=1.0),))],
            [],
            [],
            USE,
            False,
            None,
            id="the data may be denied",
        ),
        pytest.param([], [], [ORDER], USE, True, "override: Law 1", id="the law orders it"),
        pytest.param([says("deny")], [chose("no")], [ORDER], USE, True, "override: Law 1", id="whatever was said"),
        pytest.param([], [], [ORDER], Use(purpose="statistics"), False, None, id="the law orders something else"),
        pytest.param(
            [], [], [], Use(purpose="scientific-research", basis="no-opt-out"), True, "no opt-out", id="no opt-out"
        ),
        pytest.param(
            [], [chose("no")], [], Use(purpose="scientific-research", basis="no-opt-out"), False, None, id="opted out"
        ),
        pytest.param(
            [says("deny")],
            [],
            [],
            Use(purpose="scientific-research", basis="no-opt-out"),
            False,
            None,
            id="denied on paper",
        ),
        pytest.param(
            [says("deny")],
            [],
            [],
            Use(purpose="algorithm-training", basis="no-opt-out"),
            False,
            None,
            id="denied the wider purpose",
        ),
        pytest.param(
            [says()], [], [], Use(purpose="algorithm-training"), False, "no consent", id="the wider yes is not enough"
        ),
        pytest.param([says()], [], [ORDER], Use(purpose="marketing"), False, "unknown purpose", id="forbidden purpose"),
        pytest.param([says()], [], [], Use(purpose="whatever"), False, "unknown purpose", id="unknown purpose"),
    ],
)
def test_who_may_be_used(consents, choices, overrides, use, allowed, rule):  # the columns of the table
    verdict = evaluate(consents, choices, overrides, use, NOW)
    assert verdict.allowed is allowed
    assert rule is None or verdict.rule == rule


codes = st.sampled_from(["HRESCH", "CLINTRCH", "CLINTRCHPC", "TREAT", "PUBHLTH", "HOPERAT"])
times = st.none() | st.floats(0, 2000)
rules = st.builds(
    Rule,
    type=st.sampled_from(["permit", "deny"]),
    starts=times,
    ends=times,
    purposes=st.lists(st.builds(Coding, st.just(ACT_REASON), codes), max_size=2).map(tuple),
    recipients=st.lists(st.sampled_from(["Organization/1", "Organization/2"]), max_size=1).map(tuple),
    narrowed=st.booleans(),
)
nested = st.builds(
    lambda root, inner: Rule(
        **{f: getattr(root, f) for f in root.__struct_fields__ if f != "inner"}, inner=tuple(inner)
    ),
    rules,
    st.lists(rules, max_size=2),
)
statements = st.lists(
    st.builds(
        lambda rule, n: Statement(id=f"c{n}", patient="p", given=None, active=True, rule=rule),
        nested,
        st.integers(0, 99),
    ),
    max_size=3,
)


@pytest.mark.promise(2)
@settings(max_examples=150, deadline=None)
@given(statements, st.floats(0, 2000))
def test_one_more_no_never_turns_a_no_into_a_yes(consents, at):
    before = evaluate(consents, [], [], USE, at)
    assert not evaluate(consents, [chose("no", at=0.0)], [], USE, at).allowed
    if not before.allowed:
        assert not evaluate([*consents, says("deny", id_="more")], [], [], USE, at).allowed
        assert not evaluate([*consents, UNCLEAR], [], [], USE, at).allowed


@pytest.mark.promise(2)
@settings(max_examples=150, deadline=None)
@given(statements, st.floats(0, 2000))
def test_a_yes_rests_on_a_rule_that_permits_this_purpose_at_this_time(consents, at):
    if evaluate(consents, [], [], USE, at).allowed:
        permits = [r for c in consents for r in (c.rule, *c.rule.inner) if r.type == "permit"]
        assert any((r.starts is None or r.starts <= at) and (r.ends is None or at < r.ends) for r in permits)
        assert any(RESEARCH in r.purposes for c in consents for r in (c.rule, *c.rule.inner))


@settings(max_examples=100, deadline=None)
@given(statements, st.floats(0, 2000), st.floats(0, 1))
def test_no_answer_changes_before_the_next_change(consents, at, part):
    change = next_change(consents, [ORDER], at)
    later = at + (min(change or 2001.0, 5000.0) - at) * part * 0.999
    assert evaluate(consents, [], [ORDER], USE, at) == evaluate(consents, [], [ORDER], USE, later)


def test_every_purpose_of_the_law_can_be_consented_to_and_no_forbidden_one():
    for purpose in ALLOWED:
        assert named(purpose)[0] == Coding(OWN, purpose)
        assert evaluate([says(purposes=(named(purpose)[0],))], [], [], Use(purpose=purpose), NOW).allowed
    assert not [p for p in PROHIBITED if named(p)]


def test_a_code_covers_what_lies_below_it_and_nothing_of_another_system():
    assert covers(RESEARCH, Coding(ACT_REASON, "CLINTRCHPC"))
    assert not covers(Coding(ACT_REASON, "CLINTRCHPC"), RESEARCH)
    assert not covers(Coding("http://example.org", "HRESCH"), RESEARCH)


def test_an_inner_rule_stays_inside_the_outer_period_and_purposes():
    inner = Rule(type="permit", recipients=("Organization/1",))
    statement = says("permit", purposes=(RESEARCH,), recipients=("Organization/2",), ends=900.0, inner=(inner,))

    def asked(code, at):
        return decide(statement, Request(purposes=(Coding(ACT_REASON, code),), at=at, recipients=("Organization/1",)))

    assert asked("HRESCH", 800.0) is True
    assert asked("HRESCH", 950.0) is None
    assert asked("TREAT", 800.0) is None
