import io
import json

import pytest

from paroma.data.connect import load
from paroma.data.connect.load import FilesRefused
from paroma.data.consent import state
from paroma.data.consent.purposes import ACT_REASON
from paroma.data.consent.statement import Use
from paroma.data.consent.tables import METADATA
from paroma.data.vault.errors import ErasedBefore, VaultUnavailable


def line(kind, name, patient="p1", **more):
    owner = (
        {}
        if kind == "Patient"
        else {"patient" if kind == "Consent" else "subject": {"reference": f"Patient/{patient}"}}
    )
    return json.dumps({"resourceType": kind, "id": name, **owner, **more}).encode()


def weight(name, value, patient="p1"):
    return line("Observation", name, patient, status="final", code={}, valueQuantity={"value": value})


def consent(name, patient="p1", **more):
    rule = {"type": "permit", "purpose": [{"system": ACT_REASON, "code": "HRESCH"}]}
    return line("Consent", name, patient, **({"status": "active", "provision": rule} | more))


def batch(*lines, known=()):
    return load.parse([("a.ndjson", io.BytesIO(b"\n".join(lines)))], known=known)


FILE = (line("Patient", "p1"), weight("w", 80), consent("c"), line("Patient", "p2"))


@pytest.fixture
def bring(store, open_at):
    """Brings lines into a vault and a store; returns the vault too."""
    METADATA.create_all(store.engine)
    vault = open_at()

    def run(*lines, readmit=()):
        found = batch(*lines, known=vault)
        changed = store.write_now(lambda tx: load.keep_consents(tx, found, 1.0))
        return changed, load.report(found, load.keep_records(found, vault, readmit=readmit))

    run.vault, run.store = vault, store
    return run


def test_a_file_comes_in_whole_and_again_changes_nothing(bring):
    changed, brought = bring(*FILE)
    assert changed == ("p1",)
    assert (brought.patients, brought.records, brought.consents, brought.unchanged) == (2, 4, 1, 0)
    assert load.lines(bring.vault.read("p1")) == b"\n".join(FILE[:3]) + b"\n"
    use = Use(purpose="scientific-research")
    assert bring.store.read_now(lambda tx: state.verdicts(tx, use, 5.0))("p1").rule == "consent c"
    changed, brought = bring(*FILE)
    assert changed == ()
    assert brought.unchanged == 2


def test_a_later_file_replaces_what_has_the_same_id_and_keeps_the_rest(bring):
    bring(*FILE)
    bring(weight("w", 79), weight("x", 81), consent("c", status="inactive"))
    held = load.unpack(bring.vault.read("p1"))
    assert [json.loads(c)["valueQuantity"]["value"] for _, c in held["Observation"]] == [79, 81]
    assert list(held) == ["Patient", "Observation", "Consent"]
    assert not bring.store.read_now(lambda tx: state.verdicts(tx, Use(purpose="scientific-research"), 5.0))(
        "p1"
    ).allowed


def test_one_bad_line_and_nothing_comes_in_and_every_bad_line_is_named():
    with pytest.raises(FilesRefused) as refused:
        batch(*FILE, b"{", weight("w", float("nan")), consent("d", status="yes"), weight("v", 1, patient="stranger"))
    assert [r.line for r in refused.value.refused] == [5, 6, 7, 8]
    assert "its patient is unknown here" in refused.value.message
    assert "`a.ndjson`, line 5: " in refused.value.message


def test_a_patient_who_is_here_already_needs_no_patient_resource():
    assert set(batch(weight("w", 1, "p9"), known=["p9"]).records) == {"p9"}


def test_many_bad_lines_are_shown_in_part():
    with pytest.raises(FilesRefused) as refused:
        batch(*[b"{"] * 100)
    assert len(refused.value.refused) == 100
    assert refused.value.message.count("line ") == load.MOST_SHOWN
    assert refused.value.message.endswith("; and more")


def test_a_consent_that_cannot_be_computed_is_named_for_the_clerk(bring):
    _, brought = bring(line("Patient", "p1"), consent("c", provision={"purpose": []}))
    assert brought.unclear == ("c",)


@pytest.mark.promise(2)
def test_an_erased_patient_comes_back_only_by_name(bring):
    bring(*FILE)
    bring.vault.erase(["p1"])
    with pytest.raises(ErasedBefore):
        bring(*FILE)
    bring(*FILE, readmit=["p1"])
    assert "p1" in bring.vault


@pytest.mark.promise(2)
def test_a_disk_that_fails_between_consents_and_records_leaves_no_record_under_an_older_consent(
    open_at, faulty_disk, store
):
    METADATA.create_all(store.engine)
    vault = open_at(disk=faulty_disk)
    found = batch(*FILE)
    store.write_now(lambda tx: load.keep_consents(tx, found, 1.0))
    load.keep_records(found, vault)
    worse = batch(weight("w", 1), consent("c", status="inactive"), known=vault)
    store.write_now(lambda tx: load.keep_consents(tx, worse, 2.0))
    faulty_disk.arm(1, "nothing")
    with pytest.raises(VaultUnavailable):
        load.keep_records(worse, vault)
    verdicts = store.read_now(lambda tx: state.verdicts(tx, Use(purpose="scientific-research"), 5.0))
    assert not verdicts("p1").allowed
    load.keep_records(worse, vault)
    assert vault.version("p1") == 2
