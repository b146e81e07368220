"""An app as a question: what its permit allows, what one site may add to a sum, and which model may follow."""

import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.errors import BadInput, Refused
from paroma.learn.flower import contribution, rule
from paroma.learn.flower.contribution import (
    CHANGE,
    MOST_CHANGE,
    WEIGHT,
    AppNotAllowed,
    AppUnclear,
    ChangeTooLarge,
    ModelForeign,
    TrainedUnfit,
)
from paroma.learn.flower.messages import Exchange, FlowerApp, Shape, Trained

CODE = "c" * 64
PATIENTS = tuple(f"patient-{i}" for i in range(20))
ALL = np.packbits(np.ones(20, np.uint8), bitorder="little").tobytes()


def permit(**changes):
    """The fields of a permit that an app is judged by."""
    return SimpleNamespace(
        **{
            "algorithms": ("flower",),
            "code": CODE,
            "features": ("age", "chol", "num"),
            "participants": ("a", "b", "c", "d"),
            "privacy": None,
            "questions": 5,
            "most_patients": 1000,
            "fraction_bits": 40,
            "counts_to": 1,
        }
        | changes
    )


def plan(query=None, **changes):
    return contribution.plan(query or FlowerApp(code=CODE), ("age", "chol", "num"), permit(**changes))


def exchange(number=1, values=(0.0, 0.0, 0.0), **more):
    shapes = (Shape(name="0", dims=(len(values) - 1,), width=8), Shape(name="1", dims=(1,), width=8))
    model = rule.rounded(shapes, np.array(values, np.float64))
    return Exchange(number=number, model=model, arrays_key="arrays", config_key="config", config={}, **more)


def reply(change=(0.5, -0.25, 1.0), weight=20.0, rows=20, used=ALL):
    packed = np.array(change, "<f8").tobytes()
    return msgspec.msgpack.encode(Trained(change=packed, weight=weight, rows=rows, used=used))


def received(answer, alive=ALL, **changes):
    return contribution.received(answer, plan(**changes), exchange(), patients=PATIENTS, alive=alive, attempt="e" * 64)


def total_of(*updates):
    layout = updates[0].layout
    summed = sum(update.totals for update in updates)
    parts, at = {}, 0
    for field in layout.fields:
        parts[field.name] = summed[at : at + field.length]
        at += field.length
    return bytes(layout.encode(parts))


@pytest.mark.parametrize(
    ("query", "changes", "error"),
    [
        (FlowerApp(code="d" * 64), {}, AppNotAllowed),
        (FlowerApp(code=CODE), {"algorithms": ("logistic",)}, AppNotAllowed),
        (FlowerApp(code=CODE), {"privacy": object()}, AppNotAllowed),
        (FlowerApp(code=CODE, features=("age", "sex")), {}, AppNotAllowed),
        (FlowerApp(code=CODE, features=("age", "age")), {}, AppUnclear),
        (FlowerApp(code=CODE, rounds=0), {}, AppUnclear),
        (FlowerApp(code=CODE, rounds=6), {}, AppNotAllowed),
        (FlowerApp(code=CODE, run_config={"lr": math.nan}), {}, AppUnclear),
        (FlowerApp(code=CODE, run_config={"text": "x" * 20_000}), {}, AppUnclear),
    ],
)
@pytest.mark.promise(3)
def test_what_the_permit_does_not_hold_is_not_run(query, changes, error):
    with pytest.raises(error):
        plan(query, **changes)


def test_an_app_reads_all_columns_of_the_permit_unless_it_names_some():
    assert plan().features == ("age", "chol", "num")
    assert plan(FlowerApp(code=CODE, features=("chol", "num"))).features == ("chol", "num")
    assert (plan().rounds, plan(FlowerApp(code=CODE, rounds=2)).rounds) == (5, 2)


def test_a_model_that_no_message_can_carry_is_refused():
    with pytest.raises(AppUnclear):
        contribution.layout(plan(), exchange(values=(0.0,) * 25_000))


@given(
    change=st.lists(st.floats(-1000, 1000), min_size=3, max_size=3),
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_the_mean_of_a_sum_is_the_weighted_mean_of_what_sites_gave(change, weights):
    updates = [received(reply(change=[c * w / 20 for c in change], weight=float(w))) for w in weights]
    averaged = contribution.advance(plan(), exchange(), total_of(*updates))
    expected = np.array(change) * sum(w * w / 20 for w in weights) / sum(weights)
    assert averaged.weight == sum(weights)
    assert averaged.patients == 20 * len(weights)
    assert np.abs(rule.vector(averaged.model) - expected).max() < 1e-6


@pytest.mark.promise(1)
@given(change=st.lists(st.floats(-MOST_CHANGE, MOST_CHANGE), min_size=3, max_size=3), weight=st.floats(0, 20))
@settings(max_examples=40, deadline=None)
def test_no_site_moves_a_sum_by_more_than_its_rows_allow(change, weight):
    update = received(reply(change=change, weight=weight))
    bits = {field.name: field.scale_bits for field in update.layout.fields}
    assert update.totals[0] == 20
    assert 0 <= update.totals[1] <= 20 << bits[WEIGHT]
    assert np.abs(update.totals[2:]).max() <= 20 * int(MOST_CHANGE) << bits[CHANGE]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(change=(0, 0, MOST_CHANGE * 1.01)), ChangeTooLarge),
        (reply(change=(0.0, 0.0)), TrainedUnfit),
        (reply(change=(0.0, math.nan, 0.0)), TrainedUnfit),
        (reply(weight=20.5), TrainedUnfit),
        (reply(weight=-1.0), TrainedUnfit),
        (reply(weight=math.nan), BadInput),
        (reply(rows=19), TrainedUnfit),
        (reply(used=ALL + b"\0"), TrainedUnfit),
        (b"\xff", BadInput),
    ],
)
@pytest.mark.promise(1)
def test_a_workers_word_is_held_to_its_bounds(answer, error):
    with pytest.raises(error):
        received(answer)


@pytest.mark.promise(2)
def test_whoever_could_be_read_counts_as_read_whatever_the_app_says():
    nobody = bytes(3)
    assert received(reply(weight=0.0, rows=0, used=nobody)).patients == PATIENTS
    first = b"\x01\0\0"
    assert received(reply(weight=1.0, rows=1, used=first), alive=b"\x06\0\0").patients == PATIENTS[:3]


@pytest.mark.promise(3)
def test_a_model_that_does_not_follow_from_the_last_sum_is_refused():
    before = (exchange(), total_of(received(reply()), received(reply())))
    mean = contribution.advance(plan(), *before).model
    good = msgspec.structs.replace(exchange(number=2), model=mean)
    contribution.check(plan(), good, 2, before)
    off = rule.vector(mean).copy()
    off[0] = np.nextafter(off[0], 2.0)
    for bad in (
        msgspec.structs.replace(good, model=rule.rounded(mean.shapes, off)),
        msgspec.structs.replace(good, number=3),
        exchange(number=2),
        exchange(number=2, values=(0.5, -0.25, 1.0, 0.0)),
    ):
        with pytest.raises(ModelForeign):
            contribution.check(plan(), bad, 2, before)
    with pytest.raises(ModelForeign):
        contribution.check(plan(FlowerApp(code=CODE, rounds=1)), good, 2, before)


def test_a_round_without_weight_has_no_mean():
    with pytest.raises((BadInput, Refused)):
        contribution.advance(plan(), exchange(), total_of(received(reply(weight=0.0))))


def test_the_question_is_another_for_another_app_column_or_model():
    asked = {
        contribution.question(plan(), exchange()),
        contribution.question(plan(), exchange(values=(0.0, 0.0, 1.0))),
        contribution.question(plan(FlowerApp(code=CODE, run_config={"lr": 1.0})), exchange()),
        contribution.question(plan(FlowerApp(code=CODE, features=("chol", "num"))), exchange()),
    }
    assert len(asked) == 4
    assert contribution.question(plan(questions=3), exchange()) in asked
