from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.disclosure import control


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
    assert control.sits_out(removed, 10) is sits_out


@pytest.mark.promise(1)
def test_what_comes_down_to_a_few_is_refused_and_their_number_is_not_named():
    texts = set()
    for count in (1, 5, 9):
        with pytest.raises(control.DifferencingRefused) as refusal:
            control.differencing(count, 10)
        texts.add(str(refusal.value))
    assert len(texts) == 1
    control.differencing(0, 10)
    control.differencing(10, 10)


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("count", "to", "told"),
    [
        (742, 5, 740),
        (743, 5, 745),
        (742.5, 5, 740),
        (740, 5, 740),
        (742, 1, 742),
        (0, 5, 0),
        (15, 10, 20),
        (9.6, 1, 10),
    ],
)
def test_a_count_is_told_to_the_nearest_multiple(count, to, told):
    assert control.told(count, to) == told


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
