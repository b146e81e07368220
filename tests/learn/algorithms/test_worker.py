import subprocess
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from paroma.kernel.wire import framing
from paroma.kernel.wire.framing import Malformed
from paroma.learn.algorithms import plan as planning, worker
from paroma.learn.algorithms.query import Drawn, Evaluate, Feature, Logistic, Marked, Outcome, Statistics
from paroma.learn.algorithms.table import TableUnfit
from paroma.trust.permit.permit import Privacy

FEATURES = (
    Feature(name="age", kind="number", low=0, high=100),
    Feature(name="sex", kind="truth"),
    Feature(name="cp", kind="category", levels=("1", "2", "3")),
    Feature(name="num", kind="number", low=0, high=4),
)
SUMMARY = Statistics(features=("age", "sex", "cp"), bins=4)


def rows(n, seed=0, **columns):
    draw = np.random.default_rng(seed)
    age = draw.integers(0, 101, n).astype(float)
    table = {
        "age": age,
        "sex": draw.integers(0, 2, n).astype(float),
        "cp": draw.integers(1, 4, n).astype(float),
        "num": (age / 100 + draw.normal(0, 0.5, n) > 0.5).astype(float),
    }
    return pa.table(table | columns)


def computed(federation, query, site=0, live=None):
    plan = planning.plan(query, FEATURES, federation.permit)
    request = planning.request(plan, planning.first(plan))
    live = federation.live[site] if live is None else live
    reply = worker.compute(framing.pack(request), [federation.tables[site], memoryview(live)])
    patients = federation.patients[site]
    return request, worker.received(
        reply, request, patients, attempt="a1", question=planning.question(plan, request.step)
    )


def fields(update):
    out, at = {}, 0
    for field in update.layout.fields:
        out[field.name] = update.totals[at : at + field.length]
        at += field.length
    return out


@pytest.mark.promise(2)
def test_a_row_whose_bit_is_off_is_neither_read_nor_counted(federate):
    federation = federate([rows(3000)])
    _, everybody = computed(federation, SUMMARY)
    live = np.ones(3000, bool)
    live[[0, 7, 8, 1023, 1024, 2999]] = False
    _, without = computed(federation, SUMMARY, live=bytearray(np.packbits(live, bitorder="little").tobytes()))
    assert everybody.rows == 3000
    assert without.rows == 2994
    gone = set(everybody.patients) - set(without.patients)
    assert gone == {federation.patients[0][i] for i in (0, 7, 8, 1023, 1024, 2999)}
    kept = pa.Table.from_pandas(rows(3000).to_pandas()[live], preserve_index=False)
    _, fresh = computed(federate([kept]), SUMMARY)
    assert np.array_equal(fresh.totals, without.totals)


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("live", "second_batch"), [(bytearray(b"\xff" * 256), 0), (b"\xff" * 256, 1024)], ids=["live", "cached"]
)
def test_bits_are_read_afresh_for_each_batch_and_a_cached_copy_is_noticed(federate, live, second_batch):
    """The planted defect: a copy of the bits, taken before, still shows whoever withdrew in the meantime."""
    federation = federate([rows(2048)])
    plan = planning.plan(SUMMARY, FEATURES, federation.permit)
    walk = worker.batches(rows(2048), memoryview(live), planning.request(plan, planning.first(plan)))
    start, alive, _, read = next(walk)
    assert (start, int(alive.sum()), len(read["age"])) == (0, 1024, 1024)
    if isinstance(live, bytearray):
        live[128:] = bytes(128)  # everybody in the second batch withdraws now
    assert sum(len(read["age"]) for *_, read in walk) == second_batch


@pytest.mark.promise(1)
def test_integer_sums_do_not_depend_on_the_order_of_rows(federate):
    table = rows(2500)
    _, one = computed(federate([table]), SUMMARY)
    order = np.random.default_rng(1).permutation(2500)
    _, other = computed(federate([table.take(pa.array(order))]), SUMMARY)
    assert np.array_equal(one.totals, other.totals)


def test_nobody_alive_gives_zeros(federate):
    _, update = computed(federate([rows(50)]), SUMMARY, live=bytearray(7))
    assert update.rows == 0
    assert update.patients == ()
    assert not update.totals.any()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3] * 20, pa.int8()),
        pa.array(["1", "2", "3"] * 20),
        pa.array(["1", "2", "3"] * 20).dictionary_encode(),
        pa.array([1.0, 2.0, 3.0] * 20),
    ],
    ids=["int8", "text", "dictionary", "float64"],
)
def test_a_category_may_be_stored_in_several_ways(federate, column):
    table = rows(60).set_column(2, "cp", column)
    _, update = computed(federate([table]), SUMMARY)
    assert fields(update)["cells"].tolist()[-3:] == [20, 20, 20]


def test_a_missing_value_is_counted_as_missing_and_leaves_models_out(federate):
    age = [None, float("nan")] + [50.0] * 58
    table = rows(60).set_column(0, "age", pa.array(age))
    _, update = computed(federate([table]), SUMMARY)
    assert fields(update)["present"].tolist() == [58, 60, 60]
    _, update = computed(federate([table]), Logistic(outcome=Outcome(feature="num"), features=("age", "sex")))
    assert update.rows == 58


@pytest.mark.parametrize(
    ("name", "column", "sentence"),
    [
        ("age", pa.array([float("inf")] + [1.0] * 59), "not finite"),
        ("cp", pa.array([9.0] * 60), "does not name"),
        ("cp", pa.array(["other"] * 60), "does not name"),
        ("age", pa.array([[1.0]] * 60), "no numbers"),
        (None, None, "no column `age`"),
    ],
)
def test_a_table_that_does_not_fit_its_description_is_refused_without_a_value(federate, name, column, sentence):
    table = rows(60)
    table = (
        table.drop_columns(["age"])
        if name is None
        else table.set_column(table.schema.get_field_index(name), name, column)
    )
    with pytest.raises(TableUnfit, match=sentence) as refusal:
        computed(federate([table]), SUMMARY)
    assert "9" not in str(refusal.value)
    assert "other" not in str(refusal.value)


@pytest.mark.promise(1)
def test_a_cohort_larger_than_the_cap_or_its_bits_is_refused(federate, make_permit):
    with pytest.raises(TableUnfit, match="cap"):
        computed(federate([rows(60)], make_permit(most_patients=59)), SUMMARY)
    with pytest.raises(TableUnfit, match="live bits"):
        computed(federate([rows(60)]), SUMMARY, live=bytearray(7))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"type": "compute", "extra": 1})])
def test_a_payload_that_is_no_request_is_refused(payload):
    with pytest.raises(Malformed):
        worker.compute(payload, [memoryview(b""), memoryview(b"")])


def test_a_drawn_part_keeps_each_row_whatever_the_order_and_company(federate):
    table = rows(2000)
    part = Drawn(over=("age", "sex", "cp", "num"), salt="split 1", low=0.0, high=0.66)
    rest = Drawn(over=part.over, salt=part.salt, low=0.66, high=1.0)
    one = Statistics(features=("age",), bins=4, rows=part)
    _, train = computed(federate([table]), one)
    _, test = computed(federate([table]), msgspec.structs.replace(one, rows=rest))
    _, whole = computed(federate([table]), msgspec.structs.replace(one, rows=None))
    assert np.array_equal(train.totals + test.totals, whole.totals)
    assert 0.6 < train.rows / 2000 < 0.72
    order = np.random.default_rng(1).permutation(2000)
    _, again = computed(federate([table.take(pa.array(order))]), one)
    assert np.array_equal(again.totals, train.totals)
    split = table.slice(0, 700), table.slice(700)
    apart = [computed(federate([some]), one)[1].totals for some in split]
    assert np.array_equal(sum(apart), train.totals)


def test_a_marked_part_takes_only_its_rows(federate):
    table = rows(500)
    _, update = computed(federate([table]), Statistics(features=("age",), rows=Marked(feature="sex", value=1.0)))
    women = np.flatnonzero(table["sex"].to_numpy() == 1)
    assert update.rows == len(women)
    assert update.selected == tuple(f"patient-0-{i}" for i in women)
    assert len(update.patients) == 500


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "query",
    [
        Statistics(features=("age",), rows=Marked(feature="sex", value=1.0)),
        Logistic(outcome=Outcome(feature="num"), features=("age",), rows=Marked(feature="sex", value=1.0)),
        Logistic(outcome=Outcome(feature="num"), features=("age",)),
        Evaluate(outcome=Outcome(feature="num"), features=("age",), coefficients=(0.0, 1.0)),
    ],
    ids=["selected", "selected for a fit", "complete", "scored"],
)
def test_under_privacy_the_public_count_says_only_how_many_were_read(federate, make_permit, query):
    """Else the number of women, or of patients with a missing value, would leave without noise."""
    privacy = Privacy(epsilon=1.0, delta=1e-5, noise_multiplier=20.0, clipping_norm=1.0, questions=20)
    table = rows(60).set_column(0, "age", pa.array([None] * 7 + [50.0] * 53))
    _, update = computed(federate([table], make_permit(privacy=privacy)), query)
    assert fields(update)["patients"].tolist() == [60]
    assert update.rows == 60


def test_scores_are_counted_on_their_side_of_zero(federate):
    table = rows(500)
    query = Evaluate(outcome=Outcome(feature="num"), features=("sex",), coefficients=(0.0, 5.0), bins=10)
    _, update = computed(federate([table]), query)
    scores = fields(update)["scores"].reshape(2, 10)
    sex = table["sex"].to_numpy()
    assert scores[:, 5:].sum() == int((sex == 1).sum())
    assert scores[1].sum() == int(table["num"].to_numpy().sum())


def test_the_hub_needs_no_arrow_and_the_notebook_no_numpy():
    def loaded(module):
        code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert "pyarrow" not in loaded("paroma.learn.algorithms.plan")
    assert "numpy" not in loaded("paroma.learn.algorithms.query")
    assert "numpy" not in loaded("paroma.sdk.formula")
