from importlib.resources import files

import msgspec
import pytest

from paroma.bench import benches, rows
from paroma.bench.rows import Row
from paroma.bench.spread import spread
from paroma.kernel.errors import BadInput


def test_a_bound_holds_on_its_edge_and_not_beyond():
    assert rows.bound("wall", 60.0, "ms", "<=", 60).holds
    assert not rows.bound("wall", 60.1, "ms", "<=", 60).holds
    assert rows.bound("accuracy", 0.79, "", ">=", 0.79).holds
    assert not rows.bound("lost", 1, "", "==", 0).holds


def test_a_figure_beside_a_peer_is_judged_by_how_many_times_it_is_better():
    row = rows.against("round", 50.0, "ms", "peer", 6000.0, times=100)
    assert (row.ratio, row.holds, row.against_value) == (120.0, True, 6000.0)
    assert not rows.against("round", 70.0, "ms", "peer", 6000.0, times=100).holds


def test_a_share_is_ours_over_the_other():
    assert rows.share("bytes", 4.0, "MB", "float32", 4.0, most=1.01).holds
    assert not rows.share("bytes", 8.0, "MB", "float32", 4.0, most=1.01).holds


def test_a_peer_that_is_missing_is_a_row_that_does_not_hold():
    row = rows.missing("beside a peer", "no such package")
    assert not row.holds
    assert row.value is None
    assert "no such package" in row.what


def test_a_planted_defect_that_is_not_seen_does_not_hold():
    assert not rows.caught("the bit cached", False).holds


def test_a_row_has_exactly_the_fields_of_the_format():
    names = ["what", "value", "unit", "against", "against_value", "ratio", "goal", "holds"]
    assert list(msgspec.to_builtins(rows.printed("x", 1.0, ""))) == names
    assert [field.name for field in msgspec.structs.fields(Row)] == names


def test_an_unknown_bench_names_those_that_there_are():
    with pytest.raises(benches.BenchUnknown) as caught:
        benches.run("speed", say=lambda _: None)
    assert "withdraw" in caught.value.do


@pytest.mark.parametrize(("row", "cells"), [
    pytest.param(rows.bound("wall", 70.0, "ms", "<=", 60), ("wall", "70 ms", "", "<= 60 ms", "FALLS SHORT"), id="beyond"),
    pytest.param(rows.missing("beside a peer", "no such package"),
                 ("beside a peer: no such package", "-", "", "measured", "FALLS SHORT"), id="not measured"),
    pytest.param(rows.against("round", 50.0, "ms", "peer", 6000.0, times=100),
                 ("round", "50 ms", "peer 6000 (ratio 120)", "ratio >= 100", "holds"), id="beside a peer"),
])  # fmt: skip
def test_every_line_of_the_table_says_result_goal_and_verdict(row, cells):
    assert rows.cells(row) == cells
    assert len(rows.cells(row)) == len(rows.HEAD)


def test_a_paired_figure_is_judged_by_the_median_of_the_ratios_not_by_the_ratio_of_the_medians():
    assert rows.paired("cpu", 10.0, "ms", "peer", 50.0, 9.0, ">=", 8).holds
    assert not rows.paired("cpu", 10.0, "ms", "without", 9.0, 1.4, "<=", 1.3).holds


def test_the_interval_of_a_paired_ratio_is_printed_with_the_number_of_pairs():
    low, high = rows.interval("cpu", spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert (low.value, high.value) == (1.0, 6.0)
    assert "6 ratios" in low.what


@pytest.mark.parametrize(("name", "kills"), [("heart", 5), ("kill", 0), ("kill", -1)])
def test_a_number_of_kills_is_refused_where_it_means_nothing(name, kills):
    with pytest.raises(BadInput):
        benches.run(name, say=lambda _: None, kills=kills)


def test_every_bench_plants_a_defect_and_says_whether_it_was_caught():
    sources = {one.name: one.read_text() for one in files("paroma.bench").iterdir() if one.name.endswith(".py")}
    found = {name: source for name, source in sources.items() if "\ndef measure(" in source}
    assert len(found) == len(benches.NAMES)
    assert [name for name, source in found.items() if "caught(" not in source] == []
