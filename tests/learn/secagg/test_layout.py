import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.secagg.layout import ContributionInvalid, Field, Layout, LayoutInvalid

COUNTS = Field(name="counts", length=3, ring=32, scale_bits=0, bound=1.0)
REALS = Field(name="reals", length=2, ring=64, scale_bits=30, bound=4.0)


def layout(*fields, sites=4, most=100):
    return Layout(fields=fields or (COUNTS, REALS), sites=sites, most=most)


@pytest.mark.promise(1)
@settings(max_examples=100, deadline=None)
@given(
    ring=st.sampled_from([32, 64]), scale=st.integers(-4, 62), bound=st.floats(2**-20, 2**40), sites=st.integers(1, 128),
    most=st.integers(1, 10**6),
)  # fmt: skip
def test_a_layout_that_exists_cannot_overflow(ring, scale, bound, sites, most):
    field = Field(name="x", length=2, ring=ring, scale_bits=scale, bound=bound)
    try:
        made = Layout(fields=(field,), sites=sites, most=most)
    except LayoutInvalid:
        return
    greatest = np.array([most * bound, -most * bound]) * (1 - 2**-50)  # the product may have been rounded up
    one = made.encode({"x": greatest})
    kind, signed = ("<u4", np.int32) if ring == 32 else ("<u8", np.int64)
    total = sum(int(x) for x in np.frombuffer(one, kind).view(signed)[:1]) * sites
    assert total < 2 ** (ring - 1)
    many = np.frombuffer(one, kind) * np.array(sites, kind)
    assert int(many.view(signed)[0]) == total


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((), id="no field"),
        pytest.param((COUNTS, COUNTS), id="one name twice"),
        pytest.param((Field(name="x", length=0, ring=32, scale_bits=0, bound=1.0),), id="no values"),
        pytest.param((Field(name="x", length=1, ring=16, scale_bits=0, bound=1.0),), id="another ring"),
        pytest.param((Field(name="x", length=1, ring=32, scale_bits=0, bound=float("nan")),), id="no bound"),
        pytest.param((Field(name="x", length=1, ring=32, scale_bits=0, bound=float("inf")),), id="an infinite bound"),
        pytest.param((Field(name="x", length=1, ring=32, scale_bits=23, bound=1.0),), id="overflow"),
        pytest.param((Field(name="x", length=1, ring=32, scale_bits=10**9, bound=1.0),), id="an absurd scale"),
    ],
)
def test_a_layout_without_a_proof_does_not_exist(fields):
    with pytest.raises(LayoutInvalid):
        Layout(fields=fields, sites=4, most=100)


def test_reals_are_cut_toward_zero_and_integers_are_steps_already():
    made = Layout(fields=(Field(name="x", length=4, ring=64, scale_bits=1, bound=4.0),), sites=2, most=1)
    assert made.steps(made.encode({"x": np.array([0.74, -0.74, 1.5, -3.99])}))["x"].tolist() == [1, -1, 3, -7]
    assert made.steps(made.encode({"x": np.array([1, -1, 3, -7])}))["x"].tolist() == [1, -1, 3, -7]
    assert made.decode(made.encode({"x": np.array([1, -1, 3, -7])}))["x"].tolist() == [0.5, -0.5, 1.5, -3.5]


def test_fields_lie_one_after_the_other_little_endian():
    wire = layout().encode({"counts": [1, -1, 2], "reals": [1.0, -1.0]})
    assert wire.hex() == "01000000ffffffff02000000" + "0000004000000000" + "000000c0ffffffff"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"counts": [1, 2, 3]}, id="a missing field"),
        pytest.param({"counts": [1, 2, 3], "reals": [0.0, 0.0], "more": [1]}, id="another field"),
        pytest.param({"counts": [1, 2], "reals": [0.0, 0.0]}, id="another length"),
        pytest.param({"counts": [[1, 2, 3]], "reals": [0.0, 0.0]}, id="another shape"),
        pytest.param({"counts": [1, 2, 3], "reals": [0.0, float("nan")]}, id="not a number"),
        pytest.param({"counts": [1, 2, 3], "reals": [0.0, float("inf")]}, id="infinite"),
        pytest.param({"counts": [1, 2, 3], "reals": [0.0, 1e300]}, id="huge"),
        pytest.param({"counts": [1, 2, 101], "reals": [0.0, 0.0]}, id="more than the cap"),
        pytest.param({"counts": ["1", "2", "3"], "reals": [0.0, 0.0]}, id="text"),
        pytest.param({"counts": np.array([1, 2, 2**63], np.uint64), "reals": [0.0, 0.0]}, id="beyond any ring"),
    ],
)
def test_what_does_not_fit_is_refused(values):
    with pytest.raises(ContributionInvalid):
        layout().encode(values)


def test_a_truncated_upload_is_refused():
    made = layout()
    with pytest.raises(ContributionInvalid):
        made.steps(bytes(made.size - 1))
