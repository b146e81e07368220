from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.disclosure import control
from paroma.learn.disclosure.control import Change


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("removed", "sits_out"),
    [
        pytest.param(0, False, id="nobody left"),
        pytest.param(1, True, id="exact sums before and after would differ by one patient"),
        pytest.param(9, True, id="below the floor"),
        pytest.param(10, False, id="as many as the floor"),
    ],
)
def test_a_site_whose_cohort_shrank_by_less_than_the_floor_sits_out_the_run(removed, sits_out):
    before = {f"patient-{i}" for i in range(30)}
    now = {f"patient-{i}" for i in range(removed, 33)}
    assert control.compare(before, now) == Change(added=3, removed=removed)
    assert control.sits_out(control.compare(before, now), 10) is sits_out


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("change", "remembered", "answer"),
    [
        pytest.param(None, False, "compute", id="never asked"),
        pytest.param(Change(added=0, removed=0), False, "compute", id="nothing changed: the same number again"),
        pytest.param(Change(added=4, removed=5), True, "from memory", id="too few came or went"),
        pytest.param(Change(added=5, removed=5), False, "compute", id="enough changed"),
    ],
)
def test_the_same_question_is_answered_from_memory_until_enough_changed(change, remembered, answer):
    assert control.repeat(change, 10, remembered=remembered) == answer


@pytest.mark.promise(1)
def test_the_same_question_is_refused_where_the_answer_is_gone():
    with pytest.raises(control.DifferencingRefused) as refusal:
        control.repeat(Change(added=0, removed=1), 10, remembered=False)
    assert "1" not in str(refusal.value)


COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@pytest.mark.promise(1)
@settings(max_examples=100)
@given(COUNTS, st.integers(1, 20))
def test_no_cell_of_a_histogram_is_below_the_floor_and_none_is_lost(counts, floor):
    cells = control.merge([(str(i), str(i + 1)) for i in range(len(counts))], counts, floor)
    assert cells[0][0][0] == "0"
    assert cells[-1][0][1] == str(len(counts))
    assert all(before[0][1] == after[0][0] for before, after in pairwise(cells))
    if sum(counts) >= floor:
        assert all(count >= floor for _, count in cells)
        assert sum(count for _, count in cells) == sum(counts)
    else:
        assert [count for _, count in cells] == [None]


@pytest.mark.promise(1)
@settings(max_examples=100)
@given(COUNTS, st.integers(1, 20))
def test_no_level_below_the_floor_is_told_or_follows_from_the_total(counts, floor):
    cells = dict(control.gather([f"level{i}" for i in range(len(counts))], counts, floor))
    told = {label: count for label, count in cells.items() if count is not None}
    assert all(count >= floor for count in told.values())
    untold = sum(counts) - sum(told.values())
    assert untold == 0 or untold == sum(counts) < floor
    for i, count in enumerate(counts):
        assert count >= floor or f"level{i}" not in cells


@pytest.mark.parametrize(
    ("rows", "parameters", "fine"), [(100, 10, True), (99, 10, False), (19, 1, True), (10, 1, False)]
)
def test_a_fit_keeps_ten_rows_for_each_parameter_and_ten_to_spare(rows, parameters, fine):
    if fine:
        control.freedom(rows, parameters)
    else:
        with pytest.raises(control.Saturated):
            control.freedom(rows, parameters)


@pytest.mark.promise(1)
def test_a_threshold_refusal_never_names_the_count():
    texts = set()
    for count in (0, 3, 9):
        with pytest.raises(control.ThresholdNotMet) as refusal:
            control.threshold(count, 10, "`cp=2`")
        texts.add(str(refusal.value))
    assert len(texts) == 1
