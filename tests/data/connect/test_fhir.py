import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from paroma.data.connect.fhir import LIMITS, NotFhir, Record, read

PATIENT = b'{"resourceType":"Patient","id":"p1","gender":"female"}'
WEIGHT = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
    "subject": {"reference": "Patient/p1"},
    "valueQuantity": {"value": 80.5, "unit": "kg", "code": "kg"},
}


def taken(*lines):
    return list(read(io.BytesIO(b"\n".join(lines)), "ward.ndjson"))


def test_a_resource_keeps_its_bytes_and_says_whose_it_is():
    line = json.dumps(WEIGHT, indent=None).encode()
    assert taken(PATIENT, b"", line + b"\r") == [
        Record("Patient", "p1", "p1", 1, PATIENT),
        Record("Observation", "o1", "p1", 3, line),
    ]


def test_other_resources_of_a_patient_are_kept_too():
    vaccine = b'{"resourceType":"Immunization","id":"i","patient":{"reference":"Patient/p1"},"vaccineCode":{}}'
    (record,) = taken(vaccine)
    assert (record.kind, record.patient, record.content) == ("Immunization", "p1", vaccine)


def broken(**change):
    return json.dumps({k: v for k, v in (WEIGHT | change).items() if v is not ...}).encode()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param(b'{"resourceType":"Patient","id":"a","id":"b"}', "stands twice", id="duplicate keys"),
        pytest.param(b'{"resourceType":"Patient","id":"a","n":NaN}', "is no number", id="NaN"),
        pytest.param(b'{"resourceType":"Patient","id":"a","n":-Infinity}', "is no number", id="infinity"),
        pytest.param(b'{"resourceType":"Patient","id":"a","n":1e999}', "too large", id="a number too large"),
        pytest.param(
            b'{"resourceType":"Patient","id":"a","n":' + b"1" * 5000 + b"}", "a number of more", id="5,000 digits"
        ),
        pytest.param(b'{"resourceType":"Patient","id":"a","n":"\\ud800"}', "no characters", id="lone surrogate"),
        pytest.param(b'{"resourceType":"Patient","id":"a","n":"\xff"}', "no characters", id="not UTF-8"),
        pytest.param(b"[" * 10_000 + b"]" * 10_000, "nested deeper", id="10,000 levels"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper", id="10,000 objects"),
        pytest.param(b'{"resourceType":"Patient","id":"a"', "goes wrong", id="cut short"),
        pytest.param(b'{"resourceType":"Patient","id":"a"} x', "goes wrong", id="something after it"),
        pytest.param(b"[]", "expected `object`", id="no object"),
        pytest.param(b'{"id":"a"}', "missing required field", id="no type"),
        pytest.param(b'{"resourceType":"Patient"}', "missing required field", id="no id"),
        pytest.param(b'{"resourceType":"Patient","id":"../../etc"}', "matching regex", id="path for an id"),
        pytest.param(b'{"resourceType":"Patient","id":"a","gender":"f"}', "invalid enum", id="no FHIR gender"),
        pytest.param(b'{"resourceType":"Organization","id":"a"}', "belongs to no patient", id="about no patient"),
        pytest.param(broken(subject=...), "missing required field", id="no subject"),
        pytest.param(broken(subject={"reference": "Group/1"}), "belongs to no patient", id="about a group"),
        pytest.param(broken(subject={"reference": "Patient/a b"}), "belongs to no patient", id="id with a space"),
        pytest.param(broken(valueQuantity={"value": "80"}), "expected `float | null`", id="text for a number"),
        pytest.param(broken(valueQuantity={"value": 80, "comparator": "~"}), "invalid enum", id="unknown comparator"),
    ],
)
def test_a_bad_line_is_refused_with_file_line_and_next_step(line, why):
    good, refused, after = taken(PATIENT, line, PATIENT)
    assert (good.line, after.line) == (1, 3)
    assert isinstance(refused, NotFhir)
    assert refused.message.startswith("`ward.ndjson`, line 2: ")
    assert why in refused.message
    assert refused.do


class Endless(io.RawIOBase):
    """A line of `size` bytes without an end, made as it is read."""

    def __init__(self, size):
        self.left = size
        self.given = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(len(buffer), self.left)
        buffer[:n] = b"[" * n
        self.left -= n
        self.given += n
        return n


def test_a_line_of_two_gigabytes_costs_a_mebibyte():
    source = Endless(2 << 30)
    tracemalloc.start()
    (refused,) = read(io.BufferedReader(source), "big.ndjson")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than 1048576 bytes" in refused.message
    assert peak < 8 << 20
    assert source.given < 4 * LIMITS.most_bytes


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_whatever_comes_is_a_record_or_a_refusal(content):
    for one in read(io.BytesIO(content), "x"):
        assert isinstance(one, (Record, NotFhir))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_a_record_or_a_refusal(place, value):
    line = bytearray(json.dumps(WEIGHT).encode())
    line[place % len(line)] = value
    for one in read(io.BytesIO(bytes(line)), "x"):
        assert isinstance(one, (Record, NotFhir))
