import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import SeededRandomness
from paroma.learn.disclosure import memory
from paroma.learn.disclosure.control import DifferencingRefused
from paroma.learn.disclosure.memory import SitsOut

FLOOR = 5


def cohort(*patients):
    return [f"patient-{i}" for i in patients]


def admit(state, patients, *, run="run-1", study="study-1"):
    memory.admit(state, run=run, study=study, patients=patients, floor=FLOOR)


def commit(state, patients, *, run="run-1", question="q1", study="study-1", selection=""):
    return memory.commit(state, run=run, study=study, question=question, selection=selection, patients=patients)


@pytest.fixture
def committed():
    return commit(memory.empty(SeededRandomness(0)), cohort(*range(20)))


@pytest.mark.promise(1)
@pytest.mark.parametrize("gone", [1, 4])
def test_a_cohort_that_lost_a_few_sits_out_its_run(committed, gone):
    with pytest.raises(SitsOut):
        admit(committed, cohort(*range(gone, 20)))
    with pytest.raises(DifferencingRefused):
        admit(committed, cohort(*range(gone, 20)), run="run-2")  # nor another run of the study, whatever it asks
    admit(committed, cohort(*range(gone, 20)), run="run-2", study="study-2")


@pytest.mark.promise(1)
@pytest.mark.parametrize("now", [range(1, 20), range(21), range(2, 22)], ids=["left", "came", "both"])
def test_nothing_is_answered_in_the_study_until_enough_changed(committed, now):
    with pytest.raises(DifferencingRefused):
        admit(committed, cohort(*now), run="run-2")
    admit(committed, cohort(*range(5, 20)), run="run-2")
    admit(committed, cohort(*now), run="run-2", study="study-2")


@pytest.mark.promise(1)
def test_every_earlier_answer_counts_not_only_the_last(committed):
    """The planted trap: a wide detour in between, then back to one patient less than the first time."""
    later = commit(committed, cohort(*range(10, 30)), run="run-2")
    with pytest.raises(DifferencingRefused):
        admit(later, cohort(*range(1, 20)), run="run-3")


@pytest.mark.promise(1)
def test_two_parts_that_differ_by_a_few_are_not_both_answered(committed):
    with pytest.raises(DifferencingRefused):
        admit(committed, cohort(*range(19)), run="run-2")
    admit(committed, cohort(*range(10)), run="run-2")
    admit(committed, cohort(*range(20, 40)), run="run-2")


def test_another_attempt_with_the_same_patients_is_admitted(committed):
    admit(committed, cohort(*reversed(range(20))))
    assert commit(committed, cohort(*reversed(range(20)))) is committed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 14)), max_size=8))
def test_no_two_committed_answers_of_a_study_differ_by_a_few(cohorts):
    state, done = memory.empty(SeededRandomness(1)), []
    for number, patients in enumerate(cohorts):
        try:
            admit(state, cohort(*patients), run=f"run-{number}")
        except DifferencingRefused:
            continue
        state = memory.decode(memory.encode(commit(state, cohort(*patients), run=f"run-{number}")))
        done.append(patients)
    assert all(not 0 < len(a ^ b) < FLOOR for a in done for b in done)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9])
def test_bytes_that_are_no_memory_are_refused(data):
    with pytest.raises(memory.MemoryUnreadable):
        memory.decode(data)
