"""What a site has committed without differential privacy, so that no two exact sums differ by a few patients.

Pure functions over a frozen `Memory`; the caller keeps its bytes, and writes them in the transaction of the first
vote (the vote is the disclosure). Holds keyed hashes of patients, each cohort once, however many questions it
answered.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, RunId, StudyId
from paroma.kernel.randomness import Randomness
from paroma.learn.disclosure import control
from paroma.learn.disclosure.control import Change
from paroma.learn.disclosure.ledger import hashed

NO_CHANGE: Final = Change(added=0, removed=0)


class SitsOut(Refused):
    """The site's cohort shrank by less than the floor within this run."""


class MemoryUnreadable(BadInput):
    """The bytes are no memory of disclosures."""


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A committed contribution. question, selection: hex. cohort: digest of its patients' hashes."""

    run: RunId
    study: StudyId
    question: str
    selection: str
    cohort: str


class Memory(msgspec.Struct, frozen=True, kw_only=True, tag="memory", forbid_unknown_fields=True):
    """Everything committed, oldest first. key: 32 secret bytes. cohorts: sorted hashes, 8 bytes each, by digest."""

    key: bytes
    lines: tuple[Line, ...] = ()
    cohorts: dict[str, bytes] = {}


def empty(randomness: Randomness) -> Memory:
    """Nothing committed yet."""
    return Memory(key=randomness.take(32))


def encode(memory: Memory) -> bytes:
    """The memory's bytes."""
    return msgspec.msgpack.encode(memory)


def decode(data: bytes) -> Memory:
    """The memory of its bytes. Raises MemoryUnreadable."""
    try:
        memory = msgspec.msgpack.decode(data, type=Memory)
    except msgspec.DecodeError as problem:
        raise MemoryUnreadable(
            "these bytes are no memory of disclosures", do="restore it; never start anew"
        ) from problem
    if any(line.cohort not in memory.cohorts for line in memory.lines):
        raise MemoryUnreadable("the memory of disclosures is damaged", do="restore it; never start anew")
    return memory


def admit(
    memory: Memory,
    *,
    run: RunId,
    study: StudyId,
    patients: Sequence[PatientId],
    floor: int,
) -> None:
    """Check that committing an answer of `patients` discloses nothing about fewer than `floor` of them.

    patients: whom the query is about. Raises SitsOut (they are fewer, by less than the floor, than at the run's last
    commitment), or DifferencingRefused: some answer of this study was committed over a set that differs from this one
    by fewer than the floor, whatever the two questions were: two questions can share a figure (the sum of ages, say),
    and its two values would differ by those few. The same set may be asked anything. Both stay at the site.
    """
    now = _packed(memory, study, patients)
    last = next((line for line in reversed(memory.lines) if line.run == run), None)
    if last is not None and control.sits_out(_change(memory.cohorts[last.cohort], now), floor):
        raise SitsOut(
            "fewer patients than the floor have left the cohort since this site's last contribution to the run",
            do="leave the rest of this run to the other sites; a new run may take this site in again",
        )
    compared = {line.cohort for line in memory.lines if line.study == study}
    for cohort in compared:
        control.repeat(_change(memory.cohorts[cohort], now), floor, remembered=False)


def commit(
    memory: Memory, *, run: RunId, study: StudyId, question: str, selection: str, patients: Sequence[PatientId]
) -> Memory:
    """Write down that the answer of `patients` was committed. The same again changes nothing."""
    now = _packed(memory, study, patients)
    cohort = hashlib.sha256(now).hexdigest()
    line = Line(run=run, study=study, question=question, selection=selection, cohort=cohort)
    if line in memory.lines:
        return memory
    return Memory(key=memory.key, lines=(*memory.lines, line), cohorts=memory.cohorts | {cohort: now})


def _packed(memory: Memory, study: StudyId, patients: Sequence[PatientId]) -> bytes:
    return np.unique(hashed(memory.key, study, patients)).tobytes()


def _change(before: bytes, now: bytes) -> Change:
    if before == now:
        return NO_CHANGE
    old, new = np.frombuffer(before, "<u8"), np.frombuffer(now, "<u8")
    return Change(added=len(np.setdiff1d(new, old)), removed=len(np.setdiff1d(old, new)))
