"""From records to a table: the patients that may be used now, one row each, in an order that says nothing.

Whether a patient may be used is asked before a byte of theirs is decrypted, and the rule that allowed it is kept. Only
complete rows are taken: a patient for whom a feature is missing, or stands in another unit, is left out.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from paroma.data.catalogue.data_set import DataSet, Feature
from paroma.data.connect import fhir
from paroma.data.connect.load import unpack
from paroma.data.consent.statement import Verdict
from paroma.data.vault.vault import Vault
from paroma.kernel.ids import PatientId
from paroma.kernel.randomness import Randomness

# An Observation in one of these states says nothing that counts (FHIR observation-status).
_VOID: Final = frozenset({"registered", "cancelled", "entered-in-error", "unknown"})

Usable = Callable[[PatientId], Verdict]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The rows of one data set at one site. Everything here stays at the site."""

    patients: tuple[PatientId, ...]  # in row order
    features: tuple[str, ...]  # in column order
    table: bytes  # Arrow IPC stream, one float64 column a feature
    rules: tuple[str, ...]  # in row order: what allowed the reading of this row
    not_allowed: int  # patients that no rule allowed
    incomplete: dict[str, int]  # feature -> patients left out for want of it (the first that was missing)


def assemble(
    data_set: DataSet,
    features: Sequence[str],
    vault: Vault,
    usable: Usable,
    randomness: Randomness,
    *,
    complete: Sequence[str] = (),
) -> Cohort:
    """The table of `features` over all patients in `vault` that `usable` allows and that have all of them.

    complete: features that a patient must have as well, though they are no columns: those of the permit. So every
    question under one permit is about the same patients, and no two of them differ by the few whose value is missing.

    Raises FeatureUnknown, VaultDamaged, VaultUnavailable. An empty cohort is no error: the floor is judged elsewhere.
    """
    needed = (*features, *(name for name in complete if name not in features))
    wanted = [data_set.feature(name) for name in needed]
    verdicts = {patient: usable(patient) for patient in vault.patients()}
    allowed = [patient for patient, verdict in verdicts.items() if verdict.allowed]
    take = _Extractor(wanted)
    rows: list[tuple[float, ...]] = []
    patients: list[PatientId] = []
    missing: Counter[str] = Counter()
    for patient, content in vault.read_all(allowed):
        row = take(content)
        if isinstance(row, str):
            missing[row] += 1
        else:
            rows.append(row)
            patients.append(patient)
    order = _shuffled(len(patients), randomness)
    matrix = np.array(rows, np.float64).reshape(len(rows), len(wanted))[order, : len(features)]
    return Cohort(
        patients=tuple(patients[i] for i in order),
        features=tuple(features),
        table=arrow(features, matrix),
        rules=tuple(verdicts[patients[i]].rule for i in order),
        not_allowed=len(verdicts) - len(allowed),
        incomplete=dict(missing),
    )


def arrow(features: Sequence[str], matrix: npt.NDArray[np.float64]) -> bytes:
    """(rows, features) as an Arrow IPC stream with one float64 column a feature, in one batch."""
    import pyarrow as pa  # 170 MB: only where a table is made

    # from the bytes: `pa.array` would first import pandas, where it is installed, to see whether it got something of pandas
    columns = [
        pa.Array.from_buffers(pa.float64(), len(matrix), [None, pa.py_buffer(np.ascontiguousarray(matrix[:, i]))])
        for i in range(len(features))
    ]
    batch = pa.RecordBatch.from_arrays(columns, names=list(features))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _shuffled(rows: int, randomness: Randomness) -> npt.NDArray[np.intp]:
    keys = np.frombuffer(randomness.take(8 * rows), np.uint64) if rows else np.zeros(0, np.uint64)
    return np.argsort(keys, kind="stable")


class _Extractor:
    """Takes the features out of one patient's records."""

    def __init__(self, wanted: Sequence[Feature]) -> None:
        self._names = [feature.name for feature in wanted]
        self._by_code: dict[tuple[str, str, str], list[int]] = {}
        self._plain: dict[str, list[int]] = {}
        self._readers = [_reader(feature) for feature in wanted]
        for i, feature in enumerate(wanted):
            if feature.path.code is None:
                self._plain.setdefault(feature.path.resource, []).append(i)
            else:
                key = (feature.path.resource, feature.path.code.system, feature.path.code.code)
                self._by_code.setdefault(key, []).append(i)
        self._kinds = {feature.path.resource for feature in wanted}

    def __call__(self, content: bytes) -> tuple[float, ...] | str:
        """The row, or the name of the first feature that is missing."""
        found: list[float | None] = [None] * len(self._names)
        dates = [""] * len(self._names)
        for kind, records in unpack(content).items():
            if kind not in self._kinds:
                continue
            decode = fhir.DECODERS[kind].decode
            for _, line in records:
                resource = decode(line)
                if getattr(resource, "status", "final") in _VOID:
                    continue
                date: str = getattr(resource, "effective_date_time", "") or getattr(resource, "recorded_date", "")
                for i in self._speaks_of(kind, resource):
                    value = self._readers[i](resource)
                    if value is not None and date >= dates[i]:  # the newest counts; of equals the last
                        found[i], dates[i] = value, date
        missing = next((name for name, value in zip(self._names, found, strict=True) if value is None), None)
        return missing if missing is not None else tuple(value for value in found if value is not None)

    def _speaks_of(self, kind: str, resource: fhir.Used) -> list[int]:
        if isinstance(resource, (fhir.Observation, fhir.Condition)):
            return [i for c in resource.code.coding for i in self._by_code.get((kind, c.system, c.code), ())]
        return self._plain.get(kind, [])


def _reader(feature: Feature) -> Callable[[fhir.Used], float | None]:
    """How to get this feature's number out of a resource of its type; None where it is missing."""
    steps = [_snake(step) for step in feature.path.element.split(".")]
    values = {(level.system, level.stands): level.value for level in feature.levels}

    def read(resource: fhir.Used) -> float | None:
        found: Any = resource
        for step in steps:
            if (
                step == "value"
                and isinstance(found, fhir.Quantity)
                and (found.comparator or found.code != feature.unit)
            ):
                return None  # "more than 120" is no number, and another unit is another number
            found = getattr(found, step, None)
        if isinstance(found, fhir.CodeableConcept):
            return next((v for c in found.coding if (v := values.get((c.system, c.code))) is not None), None)
        if feature.kind == "number":
            return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None
        text = str(found).lower() if isinstance(found, bool) else found
        return values.get(("", text)) if isinstance(text, str) else None

    return read


def _snake(step: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in step)
