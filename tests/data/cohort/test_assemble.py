import io
import json

import numpy as np
import pyarrow as pa
import pytest

from paroma.data.catalogue.data_set import FeatureUnknown
from paroma.data.cohort.assemble import assemble
from paroma.data.connect import load
from paroma.data.consent.statement import Verdict
from paroma.data.vault.errors import VaultDamaged
from paroma.kernel.randomness import SeededRandomness
from paroma.lab import heart

ALL = Verdict(True, "consent")
DRAW = SeededRandomness(1)


def everybody(_patient):
    return ALL


def table(cohort):
    return np.column_stack(
        [c.to_numpy() for c in pa.ipc.open_stream(cohort.table).read_all().columns] or [np.zeros((0, 1))]
    )


@pytest.fixture(scope="module")
def files():
    return {hospital: heart.ndjson(hospital) for hospital in heart.HOSPITALS}


@pytest.fixture
def vault_with(open_at):
    def make(content, name="vault"):
        vault = open_at(name)
        load.keep_records(load.parse([("f", io.BytesIO(content))]), vault)
        return vault

    return make


def test_four_hospitals_give_740_rows_equal_to_the_pooled_table(vault_with, files):
    for hospital, content in files.items():
        cohort = assemble(heart.data_set(), heart.FEATURES, vault_with(content, hospital), everybody, DRAW)
        rows = {row.patient: row for row in heart.rows() if row.hospital == hospital}
        expected = np.array([rows[p].cells for p in cohort.patients])
        expected[:, -1] = expected[:, -1] > 0
        assert np.array_equal(table(cohort), expected)
        assert len(cohort.patients) == heart.COMPLETE[hospital]
        assert cohort.not_allowed == 0
        assert sum(cohort.incomplete.values()) == len(rows) - len(cohort.patients)
        schema = pa.ipc.open_stream(cohort.table).schema
        assert [(f.name, str(f.type)) for f in schema] == [(name, "double") for name in heart.FEATURES]


def test_fewer_features_want_fewer_cells(vault_with, files):
    cohort = assemble(heart.data_set(), ("num", "age"), vault_with(files["switzerland"]), everybody, DRAW)
    assert len(cohort.patients) == 123
    assert table(cohort)[:, 1].min() == 32


@pytest.mark.promise(1)
def test_all_questions_of_one_permit_are_about_the_same_patients(vault_with, files):
    vault, permit = vault_with(files["va"]), ("age", "chol", "oldpeak")

    def asked(*features):
        return assemble(heart.data_set(), features, vault, everybody, DRAW, complete=permit)

    one, two = asked("age"), asked("chol", "age")
    assert set(one.patients) == set(two.patients)
    assert one.features == ("age",)
    assert table(one).shape[1] == 1
    assert len(one.patients) < len(assemble(heart.data_set(), ("age",), vault, everybody, DRAW).patients)


def test_the_order_of_rows_is_another_each_time_and_says_nothing(vault_with, files):
    vault = vault_with(files["va"])
    one, two = (assemble(heart.data_set(), ("age",), vault, everybody, DRAW) for _ in range(2))
    assert sorted(one.patients) == sorted(two.patients)
    assert one.patients != two.patients
    assert list(one.patients) != sorted(one.patients)


@pytest.mark.promise(2)
def test_a_patient_whom_no_rule_allows_is_not_even_decrypted(vault_with, files, tmp_path):
    vault = vault_with(files["va"])
    last = vault.patients()[-1]
    (segment,) = (tmp_path / "vault" / "segments").iterdir()
    content = segment.read_bytes()
    segment.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(VaultDamaged):  # the control: whoever reads the last patient notices
        assemble(heart.data_set(), ("age",), vault, everybody, DRAW)
    cohort = assemble(
        heart.data_set(), ("age",), vault, lambda p: Verdict(p != last, "no consent" if p == last else "yes"), DRAW
    )
    assert last not in cohort.patients
    assert (cohort.not_allowed, set(cohort.rules), len(cohort.rules)) == (1, {"yes"}, 199)


@pytest.mark.promise(2)
def test_every_row_keeps_the_rule_that_allowed_it(vault_with, files):
    cohort = assemble(
        heart.data_set(), ("age", "num"), vault_with(files["va"]), lambda p: Verdict(p[-1] != "3", f"rule of {p}"), DRAW
    )
    assert cohort.rules == tuple(f"rule of {p}" for p in cohort.patients)
    assert not [p for p in cohort.patients if p[-1] == "3"]


def test_a_column_that_is_not_there_is_named(vault_with, files):
    with pytest.raises(FeatureUnknown):
        assemble(heart.data_set(), ("age", "bmi"), vault_with(files["va"]), everybody, DRAW)


def test_an_empty_vault_gives_an_empty_table(open_at):
    cohort = assemble(heart.data_set(), ("age", "num"), open_at(), everybody, DRAW)
    assert cohort.patients == ()
    assert table(cohort).shape == (0, 2)


AGE = {"coding": [{"system": "http://loinc.org", "code": "30525-0"}]}


def age(value, n=0, **more):
    quantity = {"value": value, "code": "a"}
    return {
        "resourceType": "Observation",
        "id": f"age-{n}",
        "status": "final",
        "code": AGE,
        "subject": {"reference": "Patient/p"},
        "valueQuantity": quantity,
    } | more


@pytest.mark.parametrize(
    ("resources", "value"),
    [
        pytest.param([age(50)], 50.0, id="one"),
        pytest.param([age(50, 1), age(51, 2)], 51.0, id="the last"),
        pytest.param(
            [age(50, 1, effectiveDateTime="2026-02"), age(51, 2, effectiveDateTime="2025")], 50.0, id="the newest"
        ),
        pytest.param([age(50, 1), age(51, 2, status="entered-in-error")], 50.0, id="not one that was an error"),
        pytest.param([age(50, valueQuantity={"value": 600, "code": "mo"})], None, id="months are no years"),
        pytest.param([age(50, valueQuantity={"value": 50})], None, id="no unit"),
        pytest.param([age(50, valueQuantity={"value": 50, "code": "a", "comparator": ">"})], None, id="more than 50"),
        pytest.param([age(50, valueQuantity=None, valueBoolean=True)], None, id="a truth for a number"),
        pytest.param(
            [age(50, code={"coding": [{"system": "http://other.org", "code": "30525-0"}]})], None, id="another system"
        ),
        pytest.param([], None, id="nothing"),
    ],
)
def test_a_number_is_taken_only_where_it_says_what_it_is(vault_with, resources, value):
    patient = {"resourceType": "Patient", "id": "p"}
    vault = vault_with("\n".join(json.dumps(r) for r in (patient, *resources)).encode())
    cohort = assemble(heart.data_set(), ("age",), vault, everybody, DRAW)
    assert table(cohort)[:, 0].tolist() == ([] if value is None else [value])
    assert cohort.incomplete == ({"age": 1} if value is None else {})
