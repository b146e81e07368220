import msgspec
import pytest

from paroma.bench import benches, rows
from paroma.bench.rows import Row


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
