"""What exact answers disclose together: attacks by two permits, by filters, by features, by going and coming back."""

from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.disclosure import memory
from paroma.learn.disclosure.control import DifferencingRefused
from paroma.learn.disclosure.memory import EMPTY, SitsOut

FLOOR = 5
KEY = bytes(32)


def cohort(patients):
    return memory.cohort(KEY, [f"patient-{i}" for i in patients])


def admit(state, patients, *, run="run-1", floor=FLOOR):
    memory.admit(state, run=run, cohort=cohort(patients), floor=floor)


def commit(state, patients, *, run="run-1", floor=FLOOR):
    """Admitted, committed, and read back from its bytes."""
    admit(state, patients, run=run, floor=floor)
    return memory.decode(memory.encode(memory.commit(state, run=run, cohort=cohort(patients), floor=floor)))


@pytest.fixture
def committed():
    return commit(EMPTY, range(20))


@pytest.mark.promise(1)
@pytest.mark.parametrize("gone", [1, 4])
def test_a_cohort_that_lost_a_few_sits_out_its_run(committed, gone):
    with pytest.raises(SitsOut):
        admit(committed, range(gone, 20))
    with pytest.raises(SitsOut):
        admit(committed, range(gone, 40))  # also where many came instead
    admit(committed, range(gone, 40), run="run-2")


@pytest.mark.promise(1)
@pytest.mark.parametrize("now", [range(1, 20), range(21), range(2, 22)], ids=["left", "came", "both"])
def test_nothing_is_answered_in_any_study_until_enough_changed(committed, now):
    with pytest.raises(DifferencingRefused):
        admit(committed, now, run="run-of-another-permit")
    admit(committed, range(5, 20), run="run-2")


def apart(state, patients, *, floor=FLOOR):
    """The patients of the part that is left."""
    named = [f"patient-{i}" for i in patients]
    part = memory.apart(state, cohort=cohort(patients), floor=floor)
    return sorted(int(p.removeprefix("patient-")) for p in memory.within(KEY, named, part))


@pytest.mark.promise(2)
def test_after_one_withdrawal_so_many_more_are_left_out_that_nobody_is_singled_out(committed):
    left = apart(committed, range(1, 20))
    assert len(left) == 20 - FLOOR
    assert 0 not in left
    assert left == apart(committed, range(1, 20)), "asking again leaves out the same"
    admit(committed, left, run="run-2")


@pytest.mark.promise(1)
def test_who_came_waits_until_a_floor_has_come(committed):
    assert apart(committed, range(22)) == list(range(20))
    assert apart(committed, range(20 + FLOOR)) == list(range(20 + FLOOR))


def test_where_too_few_would_be_left_there_is_no_part(committed):
    small = commit(EMPTY, range(FLOOR + 2))
    with pytest.raises(DifferencingRefused):
        apart(small, range(1, FLOOR + 2))


@pytest.mark.promise(1)
@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.integers(0, 40), min_size=FLOOR), min_size=1, max_size=7))
def test_the_part_that_is_left_is_a_floor_away_from_every_earlier_set(cohorts):
    state = EMPTY
    for n, patients in enumerate(cohorts):
        try:
            left = apart(state, patients)
            admit(state, left, run=f"run-{n}")
        except DifferencingRefused:  # nothing is left, or longer sums would tell
            continue
        assert set(left) <= patients
        state = commit(state, left, run=f"run-{n}")


@pytest.mark.promise(2)
def test_many_withdrawals_one_after_the_other_cost_a_floor_each_and_the_site_goes_on():
    state, here = commit(EMPTY, range(200)), set(range(200))
    for n in range(10):
        here.remove(n)
        left = apart(state, here)
        state = commit(state, left, run=f"run-{n + 2}")
        assert len(left) >= 200 - FLOOR * (n + 1)
        assert not set(left) & set(range(n + 1))


@pytest.mark.promise(1)
def test_every_earlier_answer_counts_not_only_the_last(committed):
    """The planted trap: a wide detour in between, then back to one patient less than the first time."""
    later = commit(committed, range(10, 30), run="run-2")
    with pytest.raises(DifferencingRefused):
        admit(later, range(1, 20), run="run-3")


@pytest.mark.promise(1)
def test_two_parts_that_differ_by_a_few_are_not_both_answered(committed):
    """Filters: all, and those over 60 where few are younger."""
    with pytest.raises(DifferencingRefused):
        admit(committed, range(19), run="run-2")
    admit(committed, range(10), run="run-2")
    admit(committed, range(20, 40), run="run-2")


@pytest.mark.promise(1)
def test_a_total_less_its_parts_is_not_one_patient(committed):
    """All; she withdraws; the women; the men: each differs from all by many, and together they are all but her."""
    women = commit(committed, range(1, 10), run="run-2")
    with pytest.raises(DifferencingRefused):
        admit(women, range(10, 20), run="run-3")
    admit(commit(committed, range(10), run="run-2"), range(10, 20), run="run-3")  # had she stayed, nothing is told


@pytest.mark.promise(1)
def test_a_chain_of_wide_questions_does_not_come_down_to_one_patient():
    """A tracker: every two sets differ by at least the floor, four of them are one patient."""
    state = commit(EMPTY, range(40))
    state = commit(state, range(20), run="run-2")
    state = commit(state, [*range(20, 30), 0], run="run-3")
    with pytest.raises(DifferencingRefused):
        admit(state, range(30, 40), run="run-4")  # run 3 + run 4 + run 2 - run 1 = patient 0


@pytest.mark.promise(1)
def test_who_withdraws_and_comes_back_is_not_told_by_the_two_sums(committed):
    with pytest.raises(DifferencingRefused):
        admit(committed, range(1, 20), run="run-2")  # while she is away
    admit(committed, range(20), run="run-3")  # back again: the same patients as before


@pytest.mark.promise(1)
def test_a_low_floor_does_not_undo_a_higher_one():
    state = commit(EMPTY, range(20), floor=10)
    with pytest.raises(DifferencingRefused):
        admit(state, range(6, 20), run="run-2", floor=3)
    state = commit(EMPTY, range(20), floor=3)
    state = commit(state, range(4, 20), run="run-2", floor=3)
    admit(state, range(100, 120), run="run-3", floor=10)  # what the low floor told is not held against others


def test_another_attempt_with_the_same_patients_is_admitted(committed):
    admit(committed, reversed(range(20)))
    same = cohort(reversed(range(20)))
    assert memory.commit(committed, run="run-1", cohort=same, floor=FLOOR) is committed


def test_the_memory_grows_with_patients_and_not_with_questions():
    state = EMPTY
    for number in range(30):
        state = commit(state, range(4000), run=f"run-{number}")
    assert len(memory.encode(state)) < 4000 * 12 + 30 * 20 + 500
    assert len(state.names) == 1


def rank(rows):
    """By elimination over fractions."""
    rows, done = [list(map(Fraction, row)) for row in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((r for r in range(done, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        for r in range(done + 1, len(rows)):
            by = rows[r][column] / rows[done][column]
            rows[r] = [x - by * y for x, y in zip(rows[r], rows[done], strict=True)]
        done += 1
    return done


def singled_out(sets, floor):
    """The groups below the floor whose own sum follows from the sums of the sets: a second way of finding them."""
    people = sorted(set().union(*sets))
    rows = [[p in one for p in people] for one in sets]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for p in people:
        groups.setdefault(tuple(p in one for one in sets), []).append(p)
    few = [group for group in groups.values() if len(group) < floor]
    return [group for group in few if rank([*rows, [p in group for p in people]]) == rank(rows)]


@pytest.mark.promise(1)
@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.integers(0, 14), min_size=FLOOR), max_size=7))
def test_what_is_admitted_singles_out_nobody_by_any_sums_and_differences(cohorts):
    state, done = EMPTY, []
    for number, patients in enumerate(cohorts):
        try:
            state = commit(state, patients, run=f"run-{number}")
        except DifferencingRefused:
            assert patients not in done
            continue
        done.append(patients)
    assert all(not 0 < len(a ^ b) < FLOOR for a in done for b in done)
    assert singled_out(done or [set()], FLOOR) == []


def test_the_second_way_of_finding_finds_something():
    assert singled_out([set(range(20)), set(range(1, 10)), set(range(10, 20))], FLOOR) == [[0]]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9])
def test_bytes_that_are_no_memory_are_refused(data):
    with pytest.raises(memory.MemoryUnreadable):
        memory.decode(data)


def test_a_memory_whose_parts_do_not_fit_is_refused(committed):
    import msgspec

    for change in ({"units": committed.units[8:]}, {"floors": ()}, {"last": {"run-1": 1}}):
        with pytest.raises(memory.MemoryUnreadable):
            memory.decode(memory.encode(msgspec.structs.replace(committed, **change)))
