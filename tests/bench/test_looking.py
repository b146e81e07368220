"""What the benches look up in logs, on logs made by hand: each finds what was planted."""

import pytest

from paroma.bench import kills, rounds
from paroma.trust.audit.entries import Entry, open_entry, seal


def log(*entries) -> list[Entry]:
    return [
        open_entry(seal(kind, float(number), {"number": number, **facts}), number)
        for number, (kind, facts) in enumerate(entries)
    ]


def whole_round(entry, step):
    return [
        ("allowed", {"action": "TakePart", "run": "run-1"}),
        ("contribution-made", {"run": "run-1", "entry": entry, "step": step, "attempt": 0, "budget": "b"}),
        ("allowed", {"action": "Vote", "run": "run-1"}),
        ("vote-signed", {"run": "run-1", "entry": entry}),
        ("allowed", {"action": "Answer", "run": "run-1"}),
        ("answer-given", {"run": "run-1", "entry": entry}),
    ]


@pytest.mark.parametrize("gone", range(6))
def test_a_round_counts_only_if_the_site_decided_read_voted_and_answered(gone):
    entries = whole_round("e1", 0)
    assert rounds.protected(log(*entries)) == 1
    assert rounds.protected(log(*entries[:gone], *entries[gone + 1 :])) == 0


@pytest.mark.promise(1)
def test_an_answer_or_a_contribution_that_is_made_twice_is_found():
    entries = whole_round("e1", 0)
    assert kills.twice([], {"a": log(*entries)}) == 0
    assert kills.twice([], {"a": log(*entries, entries[-1])}) == 1
    assert kills.twice([], {"a": log(*entries, entries[1])}) == 1


@pytest.mark.promise(1)
def test_two_attempts_at_one_question_that_are_both_answered_are_found():
    assert kills.twice([], {"a": log(*whole_round("e1", 0), *whole_round("e2", 0))}) == 1
    assert kills.twice([], {"a": log(*whole_round("e1", 0), *whole_round("e2", 1))}) == 0


@pytest.mark.promise(4)
def test_a_question_answered_twice_at_the_hub_is_found():
    answered = ("question-answered", {"run": "run-1", "step": 0})
    assert kills.twice(log(answered), {}) == 0
    assert kills.twice(log(answered, answered), {}) == 1


@pytest.mark.promise(2)
def test_a_withdrawal_that_does_not_stand_where_its_receipt_says_is_lost():
    there = log(("withdrawal", {}), ("allowed", {}))
    assert kills.missing([("patient", 0)], there) == 0
    assert kills.missing([("patient", 1)], there) == 1
    assert kills.missing([("patient", 2)], there) == 1
