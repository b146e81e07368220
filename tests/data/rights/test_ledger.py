import numpy as np
import pytest

from paroma.data.consent import state, tables as consent_tables
from paroma.data.consent.statement import EVERYTHING, Scope
from paroma.data.rights import ledger
from paroma.data.rights.ledger import Asked
from paroma.data.rights.tables import METADATA
from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import SeededRandomness

HEART = Asked(
    permit="permit-1",
    study="study-1",
    title="Heart study",
    purpose="scientific-research",
    asked_by="University of Basel",
)
OTHER = Asked(permit="permit-2", study="study-2", title="Stroke study", purpose="statistics", asked_by="Budapest")
PEOPLE = tuple(f"p{i}" for i in range(11))
NOON = 1_763_992_931.0  # 2025-11-24T14:02:11Z


def bits(*rows):
    packed = np.zeros(len(PEOPLE), bool)
    packed[list(rows)] = True
    return np.packbits(packed, bitorder="little").tobytes()


@pytest.fixture
def tx(store):
    METADATA.create_all(store.engine)
    consent_tables.METADATA.create_all(store.engine)
    store.write_now(lambda t: ledger.record_cohort(t, "cohort-1", PEOPLE, ["consent c"] * 11))
    return store.write_now


def read(tx, round_, *rows, attempt=1, asked=HEART, run="run-1", at=NOON):
    tx(lambda t: ledger.record_use(t, asked, run, round_, attempt, cohort="cohort-1", rows=bits(*rows), at=at))


@pytest.mark.promise(2)
@pytest.mark.promise(4)
def test_the_ledger_says_in_which_rounds_a_patient_was_counted(tx):
    for round_ in (6, 7, 8):
        read(tx, round_, 0, 3, 10, at=NOON + round_)
    tx(lambda t: ledger.commit_use(t, "run-1", 6, 1, NOON - 60))
    tx(lambda t: ledger.commit_use(t, "run-1", 7, 1, NOON))
    (use,) = tx(lambda t: ledger.uses_of(t, "p3"))
    assert use.state == "counted in round 7, committed 14:02:11"
    assert [r.round for r in use.counted] == [6, 7]
    assert [r.round for r in use.rounds] == [6, 7, 8]
    assert (use.asked, use.rule, use.people) == (HEART, "consent c", 3)
    assert tx(lambda t: ledger.uses_of(t, "p4")) == ()
    assert tx(lambda t: ledger.uses_of(t, "nobody")) == ()


@pytest.mark.promise(2)
def test_what_was_read_and_not_committed_is_not_counted(tx):
    read(tx, 1, 3)
    (use,) = tx(lambda t: ledger.uses_of(t, "p3"))
    assert use.state == "not counted"


@pytest.mark.promise(2)
def test_the_first_vote_counts_and_only_a_complete_set_without_the_site_takes_it_back(tx):
    read(tx, 1, 3)
    tx(lambda t: ledger.commit_use(t, "run-1", 1, 1, NOON))
    tx(lambda t: ledger.commit_use(t, "run-1", 1, 1, NOON + 9))
    assert tx(lambda t: ledger.uses_of(t, "p3"))[0].rounds[0].committed_at == NOON
    tx(lambda t: ledger.recall_use(t, "run-1", 1, 1))
    assert tx(lambda t: ledger.uses_of(t, "p3"))[0].state == "not counted"
    tx(lambda t: ledger.commit_use(t, "run-1", 1, 1, NOON + 20))
    assert tx(lambda t: ledger.uses_of(t, "p3"))[0].state == "not counted"


def test_recording_again_changes_nothing(tx):
    read(tx, 1, 3, 4)
    tx(lambda t: ledger.commit_use(t, "run-1", 1, 1, NOON))
    read(tx, 1, 5)
    tx(lambda t: ledger.record_cohort(t, "cohort-1", ["x"], ["y"]))
    assert tx(lambda t: ledger.patients_in(t, "run-1", 1, 1)) == ("p3", "p4")
    assert tx(lambda t: ledger.uses_of(t, "p3"))[0].counted


def test_asking_for_a_round_in_which_nothing_was_read_is_an_error(tx):
    with pytest.raises(BadInput):
        tx(lambda t: ledger.patients_in(t, "run-1", 9, 1))


@pytest.mark.promise(2)
def test_a_receipt_names_the_studies_that_the_choice_is_about(tx):
    read(tx, 2, 3)
    tx(lambda t: ledger.commit_use(t, "run-1", 2, 1, NOON))
    read(tx, 3, 3)
    read(tx, 1, 3, asked=OTHER, run="run-2", at=NOON + 100)
    draw = SeededRandomness(1)
    everything = tx(lambda t: ledger.receipt(t, state.withdraw(t, "p3", EVERYTHING, NOON + 5, draw)))
    assert [(u.asked.title, u.state) for u in everything.before] == [
        ("Stroke study", "not counted"),
        ("Heart study", "counted in round 2, committed 14:02:11"),
    ]
    one = tx(lambda t: ledger.receipt(t, state.withdraw(t, "p3", Scope("study", "study-1"), NOON + 6, draw)))
    assert [u.asked.title for u in one.before] == ["Heart study"]
    assert one.choice.number != everything.choice.number


def test_an_erased_patient_has_no_lines_and_the_others_keep_theirs(tx):
    read(tx, 1, 3, 4)
    tx(lambda t: ledger.forget(t, ["p3"]))
    assert tx(lambda t: ledger.uses_of(t, "p3")) == ()
    assert tx(lambda t: ledger.uses_of(t, "p4"))
    assert tx(lambda t: ledger.patients_in(t, "run-1", 1, 1)) == ("p4",)
