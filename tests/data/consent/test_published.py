"""Published FHIR Consents: IHE PCF with 74 requests, and HL7's R4 examples."""

import json

import pytest

from paroma.data.consent.evaluate import Data, Request, decide, evaluate
from paroma.data.consent.fhir import NotAConsent, instant, read
from paroma.data.consent.purposes import ACT_REASON, Coding
from paroma.data.consent.statement import Use

LABELS = {
    **dict.fromkeys("NRV", "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"),
    **dict.fromkeys(("PSY", "SDV"), "http://terminology.hl7.org/CodeSystem/v3-ActCode"),
}


def request_of(said):
    data = said.get("data", {})
    purpose = said.get("purpose")
    system, _, code = (purpose or "").rpartition("|")
    return Request(
        purposes=(Coding(system or ACT_REASON, code),) if purpose else (),
        at=instant(said["now"])[0],
        recipients=(said["recipient"].removeprefix("member of "),),
        data=Data(
            date=instant(data["date"])[0] if "date" in data else None,
            author=data.get("author"),
            encounter=data.get("encounter"),
            resource=data.get("resource"),
            labels=(Coding(LABELS[data["label"]], data["label"]),) if "label" in data else None,
        ),
    )


@pytest.mark.data
@pytest.mark.promise(2)
def test_the_published_requests_come_out_as_published(published):
    folder = published / "vectors" / "fhir_consent"
    wrong, asked = [], 0
    for file in json.loads((folder / "expected.json").read_text())["files"]:
        statement = read((folder / file["file"]).read_bytes())
        for case in file["cases"]:
            asked += 1
            answer = decide(statement, request_of(case["request"])) is True
            if answer is not (case["verdict"] == "permit"):  # what is open is a no
                wrong.append((file["file"], case))
    assert asked == 74
    assert not wrong


@pytest.mark.data
@pytest.mark.promise(2)
def test_no_r4_example_allows_research_which_none_of_them_names(published):
    files = sorted((published / "vectors" / "fhir_consent" / "r4_spec").iterdir())
    assert len(files) == 12
    for path in files:
        statement = read(path.read_bytes())
        for year in ("2014", "2015-06", "2016-06-23T17:10:00+10:00", "2026"):
            use = Use(purpose="scientific-research", recipients=("Organization/f001",))
            assert not evaluate([statement], [], [], use, instant(year)[0]).allowed, path.name


@pytest.mark.data
def test_an_untyped_rule_is_not_computable_and_says_so(published):
    folder = published / "vectors" / "fhir_consent" / "r4_spec"
    for name in ("pkb", "notTime", "basic"):
        statement = read((folder / f"Consent-consent-example-{name}.json").read_bytes())
        assert statement.rule is None
        assert statement.unclear == "a rule does not say whether it permits or denies"
        assert decide(statement, request_of({"now": "2015-01-15", "recipient": "x", "purpose": "TREAT"})) is False


CONSENT = {
    "resourceType": "Consent",
    "id": "c",
    "status": "active",
    "patient": {"reference": "Patient/p"},
    "provision": {"type": "permit", "purpose": [{"system": ACT_REASON, "code": "HRESCH"}]},
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "yes"}, id="unknown status"),
        pytest.param({"status": None}, id="no status"),
        pytest.param({"patient": {"reference": "Group/1"}}, id="not a patient"),
        pytest.param({"patient": {}}, id="nobody"),
        pytest.param({"id": "../x"}, id="id with a path in it"),
        pytest.param({"dateTime": "yesterday"}, id="no date"),
        pytest.param({"dateTime": "2026-05-03T10:00:00"}, id="hour without zone"),
        pytest.param({"dateTime": "20260503"}, id="a date that is not FHIR's"),
        pytest.param({"dateTime": "2026-05-03T25:00:00Z"}, id="no such hour"),
        pytest.param({"provision": {"type": "permit", "period": {"end": "2026-02-30"}}}, id="no such day"),
        pytest.param({"provision": []}, id="list for an object"),
        pytest.param({"resourceType": "Patient"}, id="another type"),
    ],
)
def test_a_broken_consent_is_refused(change):
    with pytest.raises(NotAConsent):
        read(json.dumps(CONSENT | change).encode())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"modifierExtension": [{"url": "http://x", "valueBoolean": True}]}, id="modifier extension"),
        pytest.param({"implicitRules": "http://x"}, id="implicit rules"),
        pytest.param(
            {"provision": CONSENT["provision"] | {"modifierExtension": []}}, id="modifier extension in a rule"
        ),
        pytest.param({"verification": [{"verified": False}]}, id="not verified"),
        pytest.param({"provision": CONSENT["provision"] | {"type": "Permit"}}, id="another type of rule"),
        pytest.param(
            {"provision": CONSENT["provision"] | {"provision": [{"type": "deny", "provision": [{"type": "permit"}]}]}},
            id="third level",
        ),
    ],
)
@pytest.mark.promise(2)
def test_what_changes_the_meaning_in_a_way_we_do_not_know_is_a_no(change):
    assert decide(
        read(json.dumps(CONSENT).encode()), request_of({"now": "2026", "recipient": "x", "purpose": "HRESCH"})
    )
    statement = read(json.dumps(CONSENT | change).encode())
    assert statement.unclear
    assert decide(statement, request_of({"now": "2026", "recipient": "x", "purpose": "HRESCH"})) is False


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2024", 366),
        ("2023", 365),
        ("2024-02", 29),
        ("2024-12", 31),
        ("2024-02-29", 1),
        ("9999-12-31", 1),
        ("9999", 365),
    ],
)
def test_a_date_lasts_as_long_as_it_is_precise(text, days):
    first, after = instant(text)
    assert after - first == days * 86400


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("reference", "denied"),
    [
        ("Organization/1", False),
        ("Organization/2", True),
        ("https://a.org/fhir/Organization/9", True),
        ("#x", True),
        ("", True),
    ],
)
def test_a_deny_for_somebody_named_in_an_unknown_way_may_be_for_whoever_asks(reference, denied):
    role = {"coding": [{"code": "IRCP"}]}
    rule = {"type": "deny", "actor": [{"role": role, "reference": {"reference": reference}}]}
    statement = read(json.dumps(CONSENT | {"provision": CONSENT["provision"] | {"provision": [rule]}}).encode())
    answer = decide(statement, request_of({"now": "2026", "recipient": "Organization/2", "purpose": "HRESCH"}))
    assert answer is not denied
