import csv
import json

import numpy as np
import pytest

from paroma.data.connect.load import parse
from paroma.lab import heart

RAW = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
)


@pytest.mark.data
@pytest.mark.parametrize("hospital", heart.HOSPITALS)
def test_every_cell_equals_the_original_file(published, hospital):
    path = published / "uci_heart_disease" / f"processed.{hospital}.data"
    with path.open() as lines:
        original = [
            tuple(
                None if cell in {"?", "-9", "-9.0"} else float(cell)
                for name, cell in zip(RAW, line, strict=True)
                if name in heart.FEATURES
            )
            for line in csv.reader(lines)
        ]
    assert [row.cells for row in heart.rows() if row.hospital == hospital] == original


def test_740_of_920_patients_are_complete():
    rows = heart.rows()
    assert len(rows) == 920
    for hospital, count in heart.COMPLETE.items():
        assert sum(row.complete for row in rows if row.hospital == hospital) == count
        assert heart.pooled(hospital).shape == (count, 11)
    assert heart.pooled().shape == (740, 11)
    assert set(np.unique(heart.pooled()[:, -1])) == {0.0, 1.0}


def test_the_records_are_the_same_every_time_and_have_ids_of_their_own():
    first = heart.ndjson("switzerland")
    assert heart.ndjson("switzerland") == first
    ids = [(r["resourceType"], r["id"]) for r in map(json.loads, first.splitlines())]
    assert len(ids) == len(set(ids))
    types = {kind for kind, _ in ids}
    assert types == {"Patient", "Encounter", "Observation", "Condition", "Consent"}


def test_maria_novak_is_a_complete_patient_of_cleveland():
    (maria,) = [row for row in heart.rows() if row.patient == heart.MARIA]
    assert (maria.name, maria.hospital, maria.complete, maria.cells[1]) == (("Maria", "Novak"), "cleveland", True, 0.0)
    assert [row.name for row in heart.rows()].count(("Maria", "Novak")) == 1


def test_some_patients_can_refuse_or_stay_silent(tmp_path):
    paths = heart.write(tmp_path, refusing=0.1, silent=0.1, seed=4)
    assert [p.name for p in paths] == ["cleveland.ndjson", "hungarian.ndjson", "switzerland.ndjson", "va.ndjson"]
    with paths[0].open("rb") as stream:
        batch = parse([(paths[0].name, stream)])
    denied = [s.patient for s in batch.statements if s.rule.type == "deny"]
    assert 10 < len(denied) < 60
    assert 10 < 303 - len(batch.statements) < 60
    assert heart.MARIA in {s.patient for s in batch.statements} - set(denied)


def test_every_mapped_column_is_a_feature_of_the_data_set():
    data_set = heart.data_set()
    assert tuple(f.name for f in data_set.features) == heart.FEATURES == tuple(heart.MAPPING)
    assert [f.name for f in data_set.features if f.outcome] == ["num"]
