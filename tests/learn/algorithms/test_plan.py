import math

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score

from paroma.learn.algorithms import linear, plan as planning
from paroma.learn.algorithms.logistic import NotIdentified, Separated
from paroma.learn.algorithms.plan import NotInPermit, QueryUnclear, StepForeign
from paroma.learn.algorithms.query import Drawn, Evaluate, Feature, Logistic, Newton, Once, Outcome, Statistics
from paroma.learn.disclosure.control import Saturated, ThresholdNotMet
from paroma.learn.disclosure.door import CohortTooSmall
from paroma.learn.dp import accountants
from paroma.learn.secagg.layout import ContributionInvalid
from paroma.trust.permit.permit import Privacy

NUM = Outcome(feature="num")
FEATURES = (
    Feature(name="age", kind="number", low=0, high=100),
    Feature(name="x", kind="number", low=-4, high=4),
    Feature(name="sex", kind="truth"),
    Feature(name="cp", kind="category", levels=("1", "2", "3")),
    Feature(name="num", kind="truth"),
)
FIT = Logistic(outcome=NUM, features=("age", "sex", "cp"))


def rows(n=400, seed=0):
    draw = np.random.default_rng(seed)
    age, sex, cp = draw.integers(0, 101, n) * 1.0, draw.integers(0, 2, n) * 1.0, draw.integers(1, 4, n) * 1.0
    eta = (age - 50) / 20 + sex - (cp == 2)
    num = (draw.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return pa.table({"age": age, "x": age / 25 - 2, "sex": sex, "cp": cp, "num": num})


def four(seed=0, n=400):
    return [rows(n, seed * 4 + i) for i in range(4)]


def private(make_permit, epsilon=3.0, questions=12, norm=1.2, **changes):
    z = accountants.noise_multiplier(epsilon, 1e-5, questions)
    privacy = Privacy(epsilon=epsilon, delta=1e-5, noise_multiplier=z, clipping_norm=norm, questions=questions)
    return make_permit(privacy=privacy, **changes)


@pytest.mark.parametrize(
    ("query", "error", "sentence"),
    [
        (Statistics(features=()), QueryUnclear, "at least one"),
        (Statistics(features=("age", "age")), QueryUnclear, "once"),
        (Statistics(features=("weight",)), QueryUnclear, "no feature `weight`"),
        (Statistics(features=("age",), bins=1), QueryUnclear, "bins"),
        (Logistic(outcome=NUM, features=("age", "num")), QueryUnclear, "explains itself"),
        (Logistic(outcome=NUM, features=("age",), ridge=-1.0), QueryUnclear, "ridge"),
        (Logistic(outcome=NUM, features=("age",), ridge=math.nan), QueryUnclear, "ridge"),
        (Logistic(outcome=NUM, features=("age",), steps=0), QueryUnclear, "no step"),
        (Logistic(outcome=NUM, features=("age",), steps=41), NotInPermit, "40 questions"),
        (Evaluate(outcome=NUM, features=("age",), coefficients=(1.0,)), QueryUnclear, "2 finite numbers|do not fit"),
        (Evaluate(outcome=NUM, features=("age",), coefficients=(1.0, math.inf)), QueryUnclear, "do not fit"),
        (Evaluate(outcome=NUM, features=("age",), coefficients=(1.0, 1.0), bins=7), QueryUnclear, "even"),
        (Statistics(features=("age",), rows=Drawn(over=(), salt="", low=0, high=1)), QueryUnclear, "drawn"),
    ],
    ids=str,
)
def test_a_query_that_cannot_be_answered_is_refused_with_a_sentence(make_permit, query, error, sentence):
    with pytest.raises(error, match=sentence) as refusal:
        planning.plan(query, FEATURES, make_permit())
    assert refusal.value.do


def test_features_and_algorithms_outside_the_permit_are_refused(make_permit):
    with pytest.raises(NotInPermit, match="`sex`"):
        planning.plan(FIT, FEATURES, make_permit(features=("age", "cp", "num")))
    with pytest.raises(NotInPermit, match="`logistic`"):
        planning.plan(FIT, FEATURES, make_permit(algorithms=("statistics",)))


def test_a_selection_needs_its_columns_in_the_permit_too(make_permit):
    query = Statistics(features=("age",), rows=Drawn(over=("sex",), salt="a", low=0, high=0.5))
    with pytest.raises(NotInPermit, match="`sex`"):
        planning.plan(query, FEATURES, make_permit(features=("age",)))


def test_the_question_is_known_by_query_descriptions_and_model_only(make_permit):
    plan = planning.plan(FIT, FEATURES, make_permit())
    other_permit = planning.plan(FIT, FEATURES, make_permit(id="permit-1111111111111111", least_patients=11))
    step = planning.first(plan)
    question = planning.question(plan, step)
    assert planning.question(other_permit, step) == question
    moved = msgspec.structs.replace(step, at=(0.5, *step.at[1:]))
    assert planning.question(plan, moved) != question
    wider = (msgspec.structs.replace(FEATURES[0], high=101.0), *FEATURES[1:])
    assert planning.question(planning.plan(FIT, wider, make_permit()), step) != question


def test_steps_and_requests_survive_the_wire(make_permit):
    from paroma.kernel.wire import framing
    from paroma.learn.algorithms.request import Request

    plan = planning.plan(FIT, FEATURES, make_permit())
    request = planning.request(plan, planning.first(plan))
    assert framing.unpack(framing.pack(request), Request, 1 << 20) == request


def test_collinear_inputs_are_named(federate):
    query = Logistic(outcome=NUM, features=("age", "x"))
    with pytest.raises(NotIdentified, match="`x`"):
        federate(four()).ask(query, FEATURES)
    assert federate(four()).ask(msgspec.structs.replace(query, ridge=0.1), FEATURES).converged


@pytest.mark.parametrize("complete", [True, False])
def test_separation_is_noticed_and_ridge_helps(federate, complete):
    tables = []
    for table in four(n=200):
        age, num = table["age"].to_numpy(), table["num"].to_numpy()
        split = (age > 50).astype(float) if complete else np.where(table["sex"].to_numpy() == 1, 1.0, num)
        tables.append(table.set_column(4, "num", pa.array(split)))
    query = Logistic(outcome=NUM, features=("age", "sex"), steps=30)
    with pytest.raises(Separated, match="separation"):
        federate(tables).ask(query, FEATURES)
    assert federate(tables).ask(msgspec.structs.replace(query, ridge=1.0), FEATURES).converged


def test_a_fit_that_runs_out_of_steps_says_so(federate):
    fitted = federate(four()).ask(msgspec.structs.replace(FIT, steps=2), FEATURES)
    assert not fitted.converged
    assert fitted.scaled_errors is None


def test_a_step_that_goes_down_is_halved(make_permit):
    plan = planning.plan(Logistic(outcome=NUM, features=("age",)), FEATURES, make_permit())
    step = Newton(number=3, at=(4.0, 4.0), base=(0.0, 0.0), direction=(4.0, 4.0), objective=-100.0, moved=4.0)
    layout = planning.layout(plan, step)
    low = layout.encode({"patients": [200], "gradient": [0.0, 0.0], "hessian": [9.0, 0.0, 9.0], "likelihood": [-500.0]})
    after = planning.advance(plan, step, bytes(low))
    assert after == msgspec.structs.replace(step, number=4, at=(2.0, 2.0), length=0.5)


@pytest.mark.promise(1)
def test_small_levels_small_outcomes_and_small_cohorts_are_refused(federate, make_permit):
    tables = four(n=60)
    rare = [t.set_column(3, "cp", pa.array([2.0] + [1.0, 3.0] * 29 + [1.0])) for t in tables]
    with pytest.raises(ThresholdNotMet, match="`cp=2`"):
        federate(rare).ask(FIT, FEATURES)
    one_sided = [t.set_column(4, "num", pa.array([1.0] + [0.0] * 59)) for t in tables]
    with pytest.raises(ThresholdNotMet, match="one side"):
        federate(one_sided).ask(Logistic(outcome=NUM, features=("age",)), FEATURES)
    with pytest.raises(CohortTooSmall):
        federate([*tables[:3], rows(9)]).ask(FIT, FEATURES)
    with pytest.raises(Saturated):
        federate([rows(11, i) for i in range(4)], make_permit(least_patients=1)).ask(FIT, FEATURES)


@pytest.mark.promise(1)
def test_few_missing_values_are_not_told(federate):
    few = four(n=100)
    few[0] = few[0].set_column(0, "age", pa.array([None, None] + [50.0] * 98))
    found = federate(few).ask(Statistics(features=("age", "cp"), bins=4), FEATURES)
    age = found.features[0]
    assert (age.count, age.missing) == (None, None)
    assert sum(cell.count for cell in age.cells) == 400
    assert age.cells[0].label.startswith("missing or")


@pytest.mark.promise(1)
def test_a_small_level_is_put_together_with_others(federate):
    tables = [t.set_column(3, "cp", pa.array([3.0] + [1.0, 2.0] * 49 + [1.0])) for t in four(n=100)]
    cells = federate(tables).ask(Statistics(features=("cp",)), FEATURES).features[0].cells
    assert [(cell.label, cell.count) for cell in cells] == [("1", 200), ("all other", 200)]


def test_evaluation_equals_scikit_learn_within_what_it_says(federate):
    tables = four()
    judged = federate(tables).ask(
        Evaluate(outcome=NUM, features=("age", "sex"), coefficients=(0.1, 2.5, 0.6)), FEATURES
    )
    age, sex, num = (np.concatenate([t[name].to_numpy() for t in tables]) for name in ("age", "sex", "num"))
    score = 0.1 + 2.5 * (age / 50 - 1) + 0.6 * (sex * 2 - 1)
    assert abs(judged.auroc - roc_auc_score(num, score)) <= judged.auroc_within
    assert judged.accuracy == pytest.approx(((score > 0) == (num > 0)).mean())


@pytest.mark.promise(1)
def test_no_model_is_judged_that_tells_one_patient_from_all_others(federate):
    """Whoever asks chooses the coefficients: the accuracy of "yes to her alone", beside "no to all", is her outcome."""
    ages = [np.minimum(table["age"].to_numpy(), 90.0) for table in four()]
    ages[2][0] = 100.0
    town = federate([table.set_column(0, "age", pa.array(age)) for table, age in zip(four(), ages, strict=True)])
    alone, nobody, half = (Evaluate(outcome=NUM, features=("age",), coefficients=(at, 1.0)) for at in (-0.9, -3.0, 0.0))
    town.ask(half, FEATURES)
    town.ask(nobody, FEATURES)
    with pytest.raises(ThresholdNotMet, match="one answer of the model"):
        town.ask(alone, FEATURES)
    others = Evaluate(outcome=NUM, features=("age",), coefficients=(0.9, -1.0))
    with pytest.raises(ThresholdNotMet, match="one answer of the model"):
        town.ask(others, FEATURES)


@pytest.mark.promise(1)
def test_private_statistics_come_near_and_say_their_epsilon(federate, make_permit):
    permit = private(make_permit, questions=1)
    found = federate(four(), permit).ask(Statistics(features=("age", "sex", "cp"), bins=4), FEATURES)
    age = np.concatenate([t["age"].to_numpy() for t in four()])
    assert found.spent.questions == 1
    assert found.spent.epsilon <= 3.0
    assert found.features[0].mean == pytest.approx(age.mean(), abs=5)
    assert found.features[0].variance == pytest.approx(age.var(), rel=0.3)
    assert found.features[0].mean != age.mean()
    assert sum(cell.count for cell in found.features[2].cells) == pytest.approx(1600, abs=100)


@pytest.mark.promise(1)
def test_how_many_a_selection_takes_is_noised_too(federate, make_permit):
    part = Drawn(over=("age", "sex", "cp"), salt="a", low=0.0, high=0.5)
    query = Statistics(features=("age",), bins=4, rows=part)
    exact = federate(four()).ask(query, FEATURES)
    permit = private(make_permit, questions=1)
    noisy = [federate(four(), permit, seed).ask(query, FEATURES).patients for seed in range(3)]
    assert set(noisy) != {exact.patients}
    assert noisy == pytest.approx([exact.patients] * 3, abs=60)


@pytest.mark.promise(1)
def test_private_evaluation_is_noised_and_bounded(federate, make_permit):
    permit = private(make_permit, questions=1)
    query = Evaluate(outcome=NUM, features=("age", "sex"), coefficients=(0.1, 2.5, 0.6), bins=20)
    exact = federate(four()).ask(query, FEATURES)
    noisy = federate(four(), permit).ask(query, FEATURES)
    assert noisy.auroc != exact.auroc
    assert noisy.auroc == pytest.approx(exact.auroc, abs=0.05)


def test_private_steps_are_limited_by_the_budgets_questions(make_permit):
    permit = private(make_permit, questions=5)
    with pytest.raises(NotInPermit, match="5 questions"):
        planning.plan(msgspec.structs.replace(FIT, steps=6), FEATURES, permit)


def test_a_foreign_step_or_a_truncated_sum_is_refused(make_permit):
    plan = planning.plan(FIT, FEATURES, make_permit())
    step = planning.first(plan)
    size = planning.layout(plan, step).size
    with pytest.raises(ContributionInvalid):
        planning.advance(plan, step, bytes(size - 8))
    with pytest.raises(StepForeign):
        planning.advance(plan, Once(), bytes(planning.layout(plan, Once()).size))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(0, 1000))
def test_the_small_solver_agrees_with_numpy(d, seed):
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(d, d))
    a, b = root @ root.T + 0.1 * np.eye(d), draw.normal(size=d)
    factor = linear.cholesky(a.tolist())
    assert np.allclose(linear.solve(factor, b.tolist()), np.linalg.solve(a, b), rtol=1e-9, atol=1e-9)
    assert np.allclose(linear.inverse(factor), np.linalg.inv(a), rtol=1e-8, atol=1e-9)


def test_a_singular_matrix_names_its_column():
    with pytest.raises(linear.NotPositive) as problem:
        linear.cholesky([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    assert problem.value.column == 1


@pytest.mark.promise(1)
def test_every_count_of_a_result_is_told_as_the_permit_says_and_no_other_figure_changes(federate, make_permit):
    tables = [rows(61, i) for i in range(4)]
    for query in (Statistics(features=tuple(f.name for f in FEATURES)), FIT):
        exact = federate(tables, make_permit(counts_to=1)).ask(query, FEATURES)
        told = federate(tables, make_permit(counts_to=5)).ask(query, FEATURES)
        assert (exact.patients, told.patients, told.counts_to) == (244, 245, 5)
        if isinstance(query, Statistics):
            for one, other in zip(exact.features, told.features, strict=True):
                assert (one.mean, one.variance) == (other.mean, other.variance)
                counts = [other.count, other.missing, *(cell.count for cell in other.cells)]
                assert all(count is None or count % 5 == 0 for count in counts)
                assert all(abs(a.count - b.count) <= 2 for a, b in zip(one.cells, other.cells, strict=True) if a.count)
        else:
            assert (exact.raw, exact.raw_errors) == (told.raw, told.raw_errors)
