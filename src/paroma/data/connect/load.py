"""Bringing files in: read everything first, take all of it or nothing.

Consents go in before records: if the machine stops in between, no record is used by an older consent, and repeating
finishes it. Repeating a file changes nothing. A record of the same type and id replaces the one that was there; the
patient's others stay.
"""

from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import msgspec
from sqlalchemy import Connection

from paroma.data.connect.fhir import NotFhir, Record, read
from paroma.data.consent import fhir as consent_fhir, state
from paroma.data.consent.statement import Statement
from paroma.data.vault.vault import Stored, Vault
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId

MOST_SHOWN = 20
MOST_BYTES = 1 << 30  # of one bringing in; it is held in memory

Packed = dict[str, list[tuple[str, bytes]]]
"""A patient's records as the vault keeps them: resource type -> (id, original bytes)."""

_PACKED = msgspec.msgpack.Decoder(Packed)


class FilesRefused(BadInput):
    """Some lines cannot be taken, so nothing was."""

    def __init__(self, refused: Sequence[NotFhir], more: bool) -> None:
        shown = "; ".join(f"{r.message} ({r.do})" for r in refused[:MOST_SHOWN])
        rest = "; and more" if more or len(refused) > MOST_SHOWN else ""
        super().__init__(f"nothing was brought in: {shown}{rest}", do="correct these lines and bring the file in again")
        self.refused = tuple(refused)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one or several files hold, checked, not yet kept."""

    records: dict[PatientId, tuple[Record, ...]]
    statements: tuple[Statement, ...]
    unclear: tuple[Statement, ...]  # consents that count as a no until somebody has asked the patient


@dataclass(frozen=True, slots=True)
class Brought:
    """What bringing in changed."""

    patients: int
    records: int
    consents: int
    unchanged: int  # patients
    unclear: tuple[str, ...]  # ids of consents that cannot be computed: a clerk has to ask


def parse(files: Iterable[tuple[str, BinaryIO]], *, known: Container[PatientId] = ()) -> Batch:
    """Read whole files. files: name and stream of each; known: the vault (or a set) that tells who is here already.

    Raises FilesRefused with every line that cannot be taken, a record of an unknown patient included.
    """
    refused: list[NotFhir] = []
    by_patient: dict[PatientId, list[Record]] = {}
    statements: list[Statement] = []
    where: dict[PatientId, tuple[str, int]] = {}
    size = 0
    for file, stream in files:
        for one in read(stream, file):
            if isinstance(one, NotFhir):
                refused.append(one)
                continue
            size += len(one.content)
            if size > MOST_BYTES:
                refused.append(
                    NotFhir(file, one.line, f"more than {MOST_BYTES} bytes at once", do="split it by patients")
                )
                raise FilesRefused(refused, more=True)
            by_patient.setdefault(one.patient, []).append(one)
            where.setdefault(one.patient, (file, one.line))
            if one.kind == "Consent":
                try:
                    statements.append(consent_fhir.read(one.content))
                except consent_fhir.NotAConsent as problem:
                    refused.append(NotFhir(file, one.line, problem.message, do=problem.do))
    for patient, records in by_patient.items():
        if not any(r.kind == "Patient" for r in records) and patient not in known:
            file, line = where[patient]
            refused.append(NotFhir(file, line, "its patient is unknown here", do="send the Patient resource with it"))
    if refused:
        raise FilesRefused(refused, more=False)
    return Batch(
        {p: tuple(records) for p, records in by_patient.items()},
        tuple(statements),
        tuple(s for s in statements if s.active and s.rule is None),
    )


def keep_consents(tx: Connection, batch: Batch, at: float) -> tuple[PatientId, ...]:
    """First: the consents. Returns the patients whose bits must be compiled again."""
    return state.put_statements(tx, batch.statements, at)


def keep_records(batch: Batch, vault: Vault, *, readmit: Collection[PatientId] = ()) -> Stored:
    """Then: the records, all in one act. Raises ErasedBefore, VaultUnavailable."""
    return vault.put(((p, _merged(p, records, vault)) for p, records in batch.records.items()), readmit=readmit)


def report(batch: Batch, stored: Stored) -> Brought:
    """What to tell whoever brought the files in."""
    return Brought(
        patients=len(batch.records),
        records=sum(map(len, batch.records.values())),
        consents=len(batch.statements),
        unchanged=stored.unchanged,
        unclear=tuple(s.id for s in batch.unclear),
    )


def unpack(content: bytes) -> Packed:
    """A patient's records as they lie in the vault: resource type -> (id, original bytes), in order of arrival."""
    return _PACKED.decode(content)


def lines(content: bytes) -> bytes:
    """A patient's records as NDJSON, byte for byte as they came: for portability."""
    return b"".join(line + b"\n" for records in unpack(content).values() for _, line in records)


def _merged(patient: PatientId, records: Sequence[Record], vault: Vault) -> bytes:
    packed: Packed = unpack(vault.read(patient)) if patient in vault else {}
    held = {kind: dict(some) for kind, some in packed.items()}
    for record in records:
        held.setdefault(record.kind, {})[record.id] = record.content
    return msgspec.msgpack.encode({kind: list(some.items()) for kind, some in held.items()})
