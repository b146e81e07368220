"""The mean is the mean, and the same to the last bit for everybody."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.flower import rule
from paroma.learn.flower.messages import Model, Shape
from paroma.learn.flower.rule import ModelInvalid

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
SHAPES = (Shape(name="a", dims=(2, 3), width=4), Shape(name="b", dims=(), width=8))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(numbers, min_size=7, max_size=7), st.integers(1, 1000)), min_size=3, max_size=6),
    st.lists(numbers, min_size=7, max_size=7),
)
def test_it_is_the_weighted_mean_of_the_sites_models(sites, start):
    model = rule.rounded(SHAPES, np.array(start))
    before = rule.vector(model)
    total = sum(w * (np.array(after) - before) for after, w in sites)
    weight = float(sum(w for _, w in sites))
    got = rule.vector(rule.mean(model, total, weight))
    expected = np.average([after for after, _ in sites], axis=0, weights=[w for _, w in sites])
    assert np.allclose(got, expected, rtol=1e-6, atol=1e-1 * 2**-10)
    assert rule.mean(model, total, weight) == rule.mean(model, total.copy(), weight)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=7, max_size=7), st.integers(2, 16))
def test_averaging_equal_replies_follows_and_another_model_does_not(values, n):
    expected = rule.rounded(SHAPES, np.array(values))
    averaged = []
    for name, array in rule.arrays(expected).items():
        out = array * (1 / n)
        for _ in range(n - 1):
            out = out + array * (1 / n)
        averaged.append(np.asarray(out, np.float64).ravel())
        assert name in {"a", "b"}
    asked = rule.rounded(SHAPES, np.concatenate(averaged))
    assert rule.follows(asked, expected, n)
    other = np.concatenate(averaged)
    other[0] += 0.001 * max(1.0, abs(other[0]))
    assert not rule.follows(rule.rounded(SHAPES, other), expected, n)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Model(shapes=(), values=b""), id="empty"),
        pytest.param(Model(shapes=(Shape(name="a", dims=(2,)),), values=bytes(8)), id="too few numbers"),
        pytest.param(Model(shapes=(Shape(name="a", dims=(-1, -2)),), values=bytes(16)), id="negative dimensions"),
        pytest.param(
            Model(shapes=(Shape(name="a", dims=(1,)), Shape(name="a", dims=(1,))), values=bytes(16)),
            id="one name twice",
        ),
        pytest.param(Model(shapes=(Shape(name="a", dims=(1 << 40,)),), values=b""), id="enormous"),
        pytest.param(
            Model(shapes=(Shape(name="a", dims=(1,)),), values=np.array([np.nan]).tobytes()), id="not a number"
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model):
    with pytest.raises(ModelInvalid):
        rule.vector(model)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_no_weight_no_mean(weight):
    model = rule.rounded(SHAPES, np.zeros(7))
    with pytest.raises(ModelInvalid):
        rule.mean(model, np.ones(7), weight)


def test_a_mean_beyond_single_precision_is_refused():
    with pytest.raises(ModelInvalid):
        rule.rounded((Shape(name="a", dims=(1,)),), np.array([1e39]))
