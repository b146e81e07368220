"""House rules: typed sentences become Cedar that says exactly this, and nothing that is filled in can say more."""

import re

import pytest
from hypothesis import given, settings, strategies as st

from paroma.trust.policy import engine, house
from paroma.trust.policy.decide import decide, load
from paroma.trust.policy.facts import TYPES
from paroma.trust.policy.house import HouseRule, RuleInvalid


@pytest.mark.promise(3)
def test_no_house_rule_ever_allows_what_was_refused(policies, every_sentence, ask):
    """Each by itself, on every action, allowed and refused requests alike."""
    requests = [ask(action) for action in TYPES]
    requests += [ask("TakePart", **bad) for bad in ({"paused": True}, {"floor_reached": False}, {"member": "left"})]
    for rule in every_sentence:
        ticked = load(house=[rule])
        assert all(one.effect == "forbid" or one.limit for one in engine.read_rules(house.cedar([rule])))
        for asked in requests:
            assert decide(policies, asked).allowed or not decide(ticked, asked).allowed


@pytest.mark.promise(3)
def test_a_house_that_adds_up_only_with_many_says_so_where_the_set_is_known(ask):
    """The participants of a permit may be many and the set that the hub proposes small: the vote has to know the limit."""
    ticked = load(house=[house.parse("at-least-sites sites=5")])
    for action in ("TakePart", "Vote"):
        assert decide(ticked, ask(action)).obligations.least_sites == 5


def test_every_sentence_can_be_ticked_says_something_and_has_an_id_of_its_own(every_sentence):
    assert {rule.sentence for rule in every_sentence} == set(house.sentences())
    ids = [house.policy_id(rule) for rule in every_sentence]
    assert len(set(ids)) == len(ids)
    assert all("<" not in house.said(rule) for rule in every_sentence)
    assert not re.search("<[a-z]", house.cedar(every_sentence))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("of-cards", "no sentence `of-cards`", id="unknown"),
        pytest.param("never-kind", "needs kind=", id="nothing given"),
        pytest.param("never-kind kind=blue", "asked for is which kind", id="not in the list"),
        pytest.param("never-kind kind=genetic more=1", "needs kind=", id="too much"),
        pytest.param("never-kind kind=genetic kind=genetic", "needs kind=", id="twice"),
        pytest.param("private-only now", "is no parameter", id="no parameter"),
        pytest.param("epsilon-at-most epsilon=0", "asked for is which epsilon", id="too low"),
        pytest.param("epsilon-at-most epsilon=-3", "asked for is which epsilon", id="negative"),
        pytest.param("epsilon-at-most epsilon=3.5", "asked for is which epsilon", id="not whole"),
        pytest.param("epsilon-at-most epsilon=³", "asked for is which epsilon", id="no plain digit"),
        pytest.param("nobody-from-country country=Germany", "two letters", id="no code"),
        pytest.param('nobody-from-organisation organisation=" } || true', "organisation", id="Cedar inside"),
        pytest.param("only-organisations kinds=university,circus", "asked for is which kinds", id="one is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_asked_for(text, sentence):
    with pytest.raises(RuleInvalid, match=sentence) as caught:
        house.parse(text)
    assert caught.value.do


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
def test_whatever_is_filled_in_stays_a_value(organisation):
    rule = HouseRule(sentence="nobody-from-organisation", given=(("organisation", organisation),))
    try:
        text = house.cedar([rule])
    except RuleInvalid:
        return
    (one,) = engine.read_rules(text)
    assert one.effect == "forbid"
    (condition,) = one.body["conditions"]
    asked = condition["body"]["||"]["left"]["=="]["right"]
    assert asked == {"Value": organisation}


def test_a_rule_is_written_as_it_is_read(every_sentence):
    for rule in every_sentence:
        assert house.parse(str(rule)) == rule


def test_too_many_rules_are_refused():
    many = [house.parse(f"at-least-patients patients={n}") for n in range(2, 3 + house.MOST_RULES)]
    with pytest.raises(RuleInvalid, match="are the most"):
        house.cedar(many)


@pytest.mark.parametrize(("hour", "allowed"), [(21, True), (22, False), (0, False), (5, False), (6, True), (12, True)])
def test_the_night_goes_over_midnight(ask, hour, allowed):
    night = load(house=[house.parse("not-between-hours from=22 to=6")])
    assert decide(night, ask("TakePart", hour=hour)).allowed is allowed


def test_an_hour_to_itself_is_no_time(ask):
    never = load(house=[house.parse("not-between-hours from=7 to=7")])
    assert all(decide(never, ask("TakePart", hour=hour)).allowed for hour in range(24))
