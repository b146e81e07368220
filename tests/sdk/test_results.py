import json
import math
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import statsmodels.api as sm

from paroma.learn.algorithms.query import Cell, Described, Fitted, Judged, Spent, Summary
from paroma.sdk import results, tables


@pytest.fixture(scope="module")
def pooled():
    rng = np.random.default_rng(3)
    x = sm.add_constant(np.column_stack([rng.normal(50, 9, 300), rng.integers(0, 2, 300)]))
    y = (rng.random(300) < 1 / (1 + np.exp(-(x @ [-4.0, 0.07, 1.2])))).astype(float)
    return sm.Logit(y, x).fit(disp=0)


def as_fitted(fit, **more):
    given = {
        "terms": ("intercept", "age", "sex"), "scaled": tuple(fit.params.tolist()), "raw": tuple(fit.params.tolist()),
        "scaled_errors": tuple(fit.bse.tolist()), "raw_errors": tuple(fit.bse.tolist()), "log_likelihood": float(fit.llf),
        "patients": 300, "steps": 6, "converged": True, "ridge": 0.0,
    }  # fmt: skip
    return Fitted(**given | more)


def test_the_table_holds_the_figures_that_statsmodels_prints(pooled):
    theirs = [[cell.data.strip() for cell in row[1:]] for row in pooled.summary().tables[1][1:]]
    summary = results.Logistic(fitted=as_fitted(pooled)).summary()
    ours = [line.split()[1:7] for line in summary.splitlines() if line.split()[:1] in (["intercept"], ["age"], ["sex"])]
    assert ours == theirs


def test_the_figures_are_those_of_statsmodels(pooled):
    for term, coef, p, (low, high) in zip(
        results.Logistic(fitted=as_fitted(pooled)).terms, pooled.params, pooled.pvalues, pooled.conf_int(), strict=True
    ):
        assert term.coef == coef
        assert term.p == pytest.approx(p, rel=1e-9)
        assert (term.low, term.high) == pytest.approx((low, high), rel=1e-9)
        assert term.odds_ratio == pytest.approx(math.exp(coef))


def test_under_privacy_no_error_is_shown_and_the_budget_is(pooled):
    spent = Spent(epsilon=3.0, delta=1e-5, questions=20)
    fit = as_fitted(pooled, scaled_errors=None, raw_errors=None, log_likelihood=None, spent=spent)
    found = results.Logistic(fitted=fit)
    assert "epsilon 3 at delta 1e-05" in found.summary()
    assert "No standard errors: noise" in found.summary()
    assert found["age"].p is None
    with pytest.raises(KeyError):
        _ = found["weight"]


def test_to_dict_is_json_also_at_the_edges(pooled):
    huge = as_fitted(pooled, raw=(2000.0, 0.0, 0.0), raw_errors=(0.0, 1.0, 1.0))
    found = results.Logistic(fitted=huge).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["coefficients"][0]["odds_ratio"] is None


def test_what_is_not_told_is_a_dash():
    cells = (Cell(label="20 to 30", count=10), Cell(label="30 to 40", count=None), Cell(label="40 to 50", count=20))
    one = Described(feature="age", count=740, missing=None, mean=53.5, variance=81.0, cells=cells)
    text = results.Statistics(
        found=Summary(patients=740, features=(one,), notes=("small cells were merged",))
    ).summary()
    assert text.splitlines()[-3].split() == ["age", "740", "-", "53.500", "9.000", "▅", "█"]
    assert text.endswith("small cells were merged")


def test_performance_says_how_sure_it_is():
    text = repr(results.Performance(judged=Judged(patients=244, accuracy=0.8, auroc=0.88, auroc_within=0.0001)))
    assert "accuracy" in text
    assert "within 0.0001" in text


@pytest.mark.parametrize(
    ("values", "drawn"), [([], ""), ([1.0], "▁"), ([3, 2, 1], "█▅▁"), ([float("nan"), 1, 2], "▁█"), ([2, 2], "▁▁")]
)
def test_a_sparkline_has_a_bar_for_each_value(values, drawn):
    assert tables.sparkline(values) == drawn


def modules(statement):
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_paroma_loads_nothing_else():
    assert {name for name in modules("import paroma") if name.startswith("paroma")} == {
        "paroma",
        "paroma.kernel",
        "paroma.kernel.release",
    }


def test_the_sdk_needs_no_numpy_no_store_and_no_program():
    loaded = modules("import paroma; paroma.connect; import paroma.sdk.officer, paroma.sdk.login")
    heads = {name.partition(".")[0] for name in loaded}
    assert not heads & {"numpy", "sqlalchemy", "starlette", "flwr", "pyarrow", "pandas", "jinja2", "typer"}
    assert not {name for name in loaded if name.startswith(("paroma.hub", "paroma.site", "paroma.web"))}


def test_a_result_survives_the_wire(pooled):
    fit = as_fitted(pooled)
    assert msgspec.json.decode(msgspec.json.encode(fit), type=Fitted) == fit
