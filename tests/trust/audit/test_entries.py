import json

import pytest
from hypothesis import given, strategies as st

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import fresh
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit.entries import (
    CommitmentInvalid,
    EntryInvalid,
    PatientInClear,
    check_commitment,
    commitment,
    open_entry,
    seal,
)
from paroma.trust.audit.tiles import EntryTooLong

SALT = b"s" * 32


@given(
    st.floats(0, 1e10),
    st.dictionaries(
        st.text("abcdefgh_", min_size=3, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text("xyz é\n", max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("uvw", max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    ),
)
def test_what_is_sealed_is_what_is_opened(at, facts):
    sealed = seal("attempt-opened", at, facts)
    entry = open_entry(sealed, 7)
    assert (entry.kind, entry.at, entry.facts, entry.number, entry.sealed) == ("attempt-opened", at, facts, 7, sealed)
    assert sealed == seal("attempt-opened", at, dict(reversed(facts.items())))


@pytest.mark.promise(4)
@pytest.mark.parametrize("sealed", [b"", b"[]", b"{}", b'{"kind":"a"}', b'{"at":1,"kind":"A b"}', b'{"at":true,"kind":"a"}', b'{"kind":"a","at":1}',
                                    b'{"at":1.0,"kind":"a"}', b'{"at":1,"at":1,"kind":"a"}', b'{"at":NaN,"kind":"a"}', b'{"at":1,"kind":"a"} '])  # fmt: skip
def test_only_the_canonical_form_is_an_entry(sealed):
    with pytest.raises(BadInput):
        open_entry(sealed)


@pytest.mark.parametrize(
    ("kind", "facts"), [("Vote", {}), ("", {}), ("a\n", {}), ("vote", {"kind": "x"}), ("vote", {"at": 1})]
)
def test_an_entry_has_one_kind_and_one_time(kind, facts):
    with pytest.raises(EntryInvalid):
        seal(kind, 1, facts)


def test_a_long_entry_is_refused():
    with pytest.raises(EntryTooLong):
        seal("note", 1, {"text": "x" * 65_535})


CANARY = fresh("patient", SeededRandomness(4))


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "facts",
    [
        {"patient": CANARY},
        {"who": CANARY},
        {"deep": [{"er": ["x", f"used {CANARY} today"]}]},
        {CANARY: 1},
        {"patient": "cleveland-17"},
        {"patients": ["cleveland-17"]},
        {"patient_number": 17},
        {"reference": "Patient/17"},
        {"reference": "https://fhir.example/Patient/17"},
        {"who": fresh("pat", SeededRandomness(4))},
        {"birth_date": "1950-01-01"},
        {"guardian": "A. Person"},
        {"patient": {"name": "x", "patient": "y"}},
    ],
)
def test_no_patient_can_be_sealed_in_clear(facts):
    with pytest.raises(PatientInClear):
        seal("use", 1, facts)


@pytest.mark.promise(4)
def test_a_patient_is_sealed_as_a_commitment_and_each_use_looks_different():
    one, two = (commitment(bytes([n]) * 32, CANARY.encode()) for n in (1, 2))
    sealed = seal("use", 1, {"patient": one, "patients": [one, two], "least_patients": 10})
    assert CANARY.encode() not in sealed
    assert one != two
    check_commitment(one, b"\1" * 32, CANARY.encode())
    for salt, value in ((b"\2" * 32, CANARY.encode()), (b"\1" * 32, b"patient-other")):
        with pytest.raises(CommitmentInvalid):
            check_commitment(one, salt, value)
    assert json.loads(sealed)["patient"] == one


@pytest.mark.promise(4)
@pytest.mark.parametrize("salt", [b"", b"s" * 31, b"s" * 33])
def test_a_salt_is_32_bytes(salt):
    with pytest.raises(BadInput):
        commitment(salt, b"x")
