import json

import msgspec
import pytest

from paroma.data.catalogue.data_set import FeatureUnknown, load, parse
from paroma.kernel.errors import BadInput
from paroma.lab import heart

HEART = json.loads(msgspec.json.encode(heart.data_set()))


def changed(**feature):
    return json.dumps(HEART | {"features": [HEART["features"][0] | feature]}).encode()


def test_a_description_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "heart.json"
    path.write_bytes(msgspec.json.encode(heart.data_set()))
    assert load(path) == heart.data_set()
    assert load(path).digest() == heart.data_set().digest()


def test_a_missing_column_names_the_columns_that_there_are():
    with pytest.raises(FeatureUnknown) as unknown:
        heart.data_set().feature("bmi")
    assert "no feature `bmi`" in unknown.value.message
    assert "`age`, `sex`, `cp`" in unknown.value.do


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(changed(low=90, high=20), id="empty range"),
        pytest.param(changed(kind="category"), id="category without levels"),
        pytest.param(changed(levels=[{"value": 1, "title": "x", "stands": "y"}]), id="number with levels"),
        pytest.param(changed(kind="flag", levels=[{"value": 2, "title": "x", "stands": "y"}]), id="flag of 2"),
        pytest.param(changed(path={"resource": "Observation", "element": "x"}), id="observation without code"),
        pytest.param(changed(extra=1), id="unknown field"),
        pytest.param(json.dumps(HEART | {"features": HEART["features"][:1] * 2}).encode(), id="one feature twice"),
        pytest.param(b"{", id="no JSON"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(content):
    with pytest.raises(BadInput):
        parse(content)


def test_every_range_is_that_of_a_clinician_not_of_the_records():
    ranges = {f.name: (f.low, f.high) for f in heart.data_set().features if f.kind == "number"}
    assert ranges == {
        "age": (20, 90),
        "trestbps": (80, 200),
        "chol": (100, 400),
        "thalach": (60, 200),
        "oldpeak": (0, 4),
    }
