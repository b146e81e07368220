import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import SeededRandomness
from paroma.learn.disclosure import ledger
from paroma.learn.disclosure.ledger import Charge

PATIENTS = [f"patient-{i}" for i in range(8)]
CHARGES = st.builds(
    lambda attempt, question, cost, patients: Charge(
        attempt=f"a{attempt}", question=f"q{question}", permit="permit-1", study="study-1", mu_squared=cost, limit=100,
        questions=4, attempts=3, patients=tuple(patients),
    ),
    st.integers(0, 12), st.integers(0, 5), st.sampled_from([0, 10, 30, 60]), st.sets(st.sampled_from(PATIENTS), min_size=1),
)  # fmt: skip


@pytest.mark.promise(1)
@settings(max_examples=80, deadline=None)
@given(st.lists(CHARGES, max_size=25))
def test_no_order_of_charges_lets_a_patient_spend_beyond_the_limit_or_get_anything_back(charges):
    state = ledger.empty(SeededRandomness(0))
    book = dict.fromkeys(PATIENTS, 0)  # a second way of counting
    seen, asked = set(), []
    for wish in charges:
        try:
            after, receipt = ledger.reserve(state, wish)
        except (ledger.BudgetSpent, ledger.QuestionsSpent, ledger.AttemptsSpent):
            continue
        assert receipt.again == (wish.attempt in seen)
        if receipt.again:
            assert after == state
            continue
        seen.add(wish.attempt)
        asked.append(wish.question)
        for patient in wish.patients:
            book[patient] += wish.mu_squared
        assert after.head != state.head
        state = ledger.decode(ledger.encode(after))
        assert state == after
    assert {patient: ledger.spent(state, "study-1", patient) for patient in PATIENTS} == book
    assert all(amount <= 100 for amount in book.values())
    assert len(set(asked)) <= 4
    assert all(asked.count(question) <= 3 for question in asked)


def charged(**changes):
    figures = {
        "attempt": "a1", "question": "q1", "permit": "permit-1", "study": "study-1", "mu_squared": 7, "limit": 100,
        "questions": 4, "attempts": 3, "patients": ("patient-1",),
    }  # fmt: skip
    return Charge(**figures | changes)


@pytest.mark.promise(1)
def test_what_is_reserved_stays_spent_whatever_comes_of_it():
    state, receipt = ledger.reserve(ledger.empty(SeededRandomness(0)), charged())
    again, said = ledger.reserve(state, charged())
    assert again is state
    assert (said.again, said.number, said.head) == (True, receipt.number, receipt.head)
    assert ledger.spent(state, "study-1", "patient-1") == 7


@pytest.mark.promise(1)
def test_a_ledger_is_held_to_the_debit_that_the_log_tells_of():
    before, first = ledger.reserve(ledger.empty(SeededRandomness(0)), charged())
    state, second = ledger.reserve(before, charged(attempt="a2"))
    assert (first.number, second.number) == (1, 2)
    for receipt in (first, second):
        ledger.require(
            state, receipt.number, receipt.head
        )  # longer than its anchor is fine: a crash came before the log
    with pytest.raises(ledger.BudgetOutdated) as refusal:
        ledger.require(before, second.number, second.head)
    assert "newest copy" in refusal.value.do
    other, _ = ledger.reserve(before, charged(attempt="a3"))  # spent otherwise, from the older copy
    with pytest.raises(ledger.BudgetOutdated):
        ledger.require(other, second.number, second.head)


def test_studies_are_charged_apart():
    state, _ = ledger.reserve(ledger.empty(SeededRandomness(0)), charged())
    assert ledger.spent(state, "study-2", "patient-1") == 0


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "change", [{"patients": ("patient-2",)}, {"question": "q2"}, {"mu_squared": 8}, {"permit": "permit-2"}], ids=str
)
def test_the_head_commits_to_every_fact_of_a_reservation(change):
    state = ledger.empty(SeededRandomness(0))
    assert ledger.reserve(state, charged())[1].head != ledger.reserve(state, charged(**change))[1].head


@pytest.mark.promise(4)
def test_heads_cannot_be_searched_for_patients_without_the_sites_key():
    first, second = (ledger.reserve(ledger.empty(SeededRandomness(seed)), charged())[1].head for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 20])
def test_bytes_that_are_no_ledger_are_refused(data):
    with pytest.raises(ledger.LedgerUnreadable):
        ledger.decode(data)


@pytest.mark.promise(1)
def test_ten_thousand_patients_are_charged_within_a_second():
    import time

    wish = charged(patients=tuple(f"patient-{i}" for i in range(10_000)))
    start = time.process_time()
    state, _ = ledger.reserve(ledger.empty(SeededRandomness(0)), wish)
    ledger.encode(state)
    assert time.process_time() - start < 1
    assert len(state.units) == 80_000
