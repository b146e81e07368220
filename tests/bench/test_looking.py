"""What the benches look up in logs, on logs made by hand: each finds what was planted."""

import sqlite3
from contextlib import closing

import pytest

from paroma.bench import rounds, told
from paroma.bench.told import Going, Watched
from paroma.kernel.ids import PatientId, PermitId, StudyId
from paroma.kernel.randomness import SeededRandomness
from paroma.learn.disclosure import ledger
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
    assert told.twice([], {"a": log(*entries)}) == 0
    assert told.twice([], {"a": log(*entries, entries[-1])}) == 1
    assert told.twice([], {"a": log(*entries, entries[1])}) == 1


@pytest.mark.promise(1)
def test_two_attempts_at_one_question_that_are_both_answered_are_found():
    assert told.twice([], {"a": log(*whole_round("e1", 0), *whole_round("e2", 0))}) == 1
    assert told.twice([], {"a": log(*whole_round("e1", 0), *whole_round("e2", 1))}) == 0


@pytest.mark.promise(4)
def test_a_question_answered_twice_at_the_hub_is_found():
    answered = ("question-answered", {"run": "run-1", "step": 0})
    assert told.twice(log(answered), {}) == 0
    assert told.twice(log(answered, answered), {}) == 1


@pytest.mark.promise(2)
def test_a_withdrawal_that_does_not_stand_where_its_receipt_says_is_lost():
    there = log(("withdrawal", {}), ("allowed", {}))
    assert told.missing([("patient", 0)], there) == 0
    assert told.missing([("patient", 1)], there) == 1
    assert told.missing([("patient", 2)], there) == 1


@pytest.mark.promise(4)
def test_a_run_or_an_answer_that_was_acknowledged_and_is_not_in_the_log_is_found():
    hub = log(("run-opened", {"run": "run-1"}), ("question-answered", {"run": "run-1", "step": 1}))
    assert told.unknown(["run-1"], [("run-1", 1)], hub) == 0
    assert told.unknown(["run-1", "run-2"], [("run-1", 1)], hub) == 1
    assert told.unknown(["run-1"], [("run-1", 1), ("run-1", 2)], hub) == 1


def budget(*attempts):
    state = ledger.empty(SeededRandomness(1, "ledger"))
    for attempt in attempts:
        wish = ledger.Charge(
            attempt=attempt,
            question="aa",
            permit=PermitId("permit-0000000000000000"),
            study=StudyId("study-0000000000000000"),
            mu_squared=5,
            limit=100,
            questions=10,
            attempts=10,
            patients=(PatientId("patient-0"),),
        )
        state, _ = ledger.reserve(state, wish)
    return state


def contributions(state, *attempts):
    heads = {line.attempt: line.head for line in state.reservations}
    return log(*[("contribution-made", {"entry": one, "budget": heads[one]}) for one in attempts])


@pytest.mark.promise(1)
def test_a_contribution_that_its_budget_does_not_hold_is_found():
    whole, behind = budget("e1", "e2", "e3"), budget("e1", "e2")
    assert told.debts(whole, contributions(whole, "e1", "e2", "e3")).undebited == 0
    assert told.debts(behind, contributions(whole, "e1", "e2", "e3")).undebited == 1
    assert told.debts(None, contributions(whole, "e1", "e2", "e3")).undebited == 3
    assert told.debts(whole, contributions(whole, "e2", "e1")).undebited == 1  # in another order than they were debited


def test_a_debit_after_which_nothing_left_is_counted_and_is_no_debt():
    whole = budget("e1", "e2", "e3")
    found = told.debts(whole, contributions(whole, "e1", "e3"))
    assert (found.undebited, found.again, found.idle) == (0, 0, 1)


def test_what_goes_on_is_what_was_opened_and_has_not_ended():
    going = Going()
    going.take(log(("run-opened", {"run": "r"}), ("attempt-opened", {"run": "r", "step": 1})))
    assert (going.runs, going.questions) == ({"r"}, {("r", 1)})
    going.take(log(("question-answered", {"run": "r", "step": 1}), ("attempt-opened", {"run": "r", "step": 2})))
    assert (going.questions, going.answered) == ({("r", 2)}, 1)
    going.take(log(("run-ended", {"run": "r", "finished": False, "reason": "stopped"})))
    assert (going.runs, going.questions) == (set(), set())


@pytest.mark.promise(4)
def test_an_entry_that_was_read_and_is_gone_or_changed_is_found(tmp_path):
    with closing(sqlite3.connect(tmp_path / "site.db", isolation_level=None)) as database:
        database.execute("create table audit_entries (log text, number integer, entry blob)")
        for number in range(3):
            sealed = seal("withdrawal", float(number), {"number": number})
            database.execute("insert into audit_entries values ('site', ?, ?)", (number, sealed))
        watched = Watched(tmp_path / "site.db", "site")
        assert [entry.number for entry in watched.look()] == [0, 1, 2]
        assert (watched.look(), watched.gone()) == ([], 0)
        database.execute("delete from audit_entries where number = 2")
        assert watched.gone() == 1
        database.execute("update audit_entries set entry = ? where number = 1", (seal("given", 1.0, {"number": 1}),))
        assert watched.gone() == 2
