"""What a site has committed without differential privacy, so that no exact sums together single out a few patients.

Pure functions over a frozen `Memory`; the caller keeps its bytes, and writes them in the transaction of the first
vote (the vote is the disclosure). One memory for the whole site: whoever holds two permits, or sees the answers of two
studies, can subtract them, and the hub sees all.

Each committed answer is about a set of patients. Patients who were in exactly the same sets are one *atom*: no sum tells
them apart. So a set is a row of bits over atoms, and the memory costs 12 bytes a patient, however much was asked. Two
rules, both over all sets ever committed:

- two sets are the same, or differ by at least the floor;
- no atom below the floor follows from all the sets by adding and subtracting (total - women - men, and longer ones):
  auditing of sums, Chin and Ozsoyoglu, IEEE Trans. Softw. Eng. 8(6), 1982, with the atoms in the place of patients.

It bounds sets, not figures: see `docs/explanation/trust.md` for what that leaves open.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, RunId, StudyId
from paroma.learn.disclosure import control
from paroma.learn.disclosure.ledger import hashed

PRIME: Final = 2**31 - 1  # arithmetic of the audit: products fit into 64 bits, and no small determinant vanishes
MOST_CELLS: Final = 1 << 22  # sets x atoms that an audit looks through: 32 MB
EVERY_STUDY: Final = StudyId("exact")
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]


class SitsOut(Refused):
    """The site's cohort shrank by less than the floor within this run."""


class MemoryFull(Refused):
    """So many different groups of patients were asked about that they can no longer be compared."""


class MemoryUnreadable(BadInput):
    """The bytes are no memory of disclosures."""


class Memory(msgspec.Struct, frozen=True, kw_only=True, tag="memory", forbid_unknown_fields=True):
    """Everything committed.

    units: sorted keyed hashes of all patients that were ever in a set, 8 bytes each. atoms: the atom of each, uint32.
    names: digest of each set's patients, hex, oldest first. sets: each set's atoms as packed bits, lowest first.
    floors: of the permit under which each set was first asked. last: the newest set of each run, by its place.
    """

    units: bytes
    atoms: bytes
    names: tuple[str, ...] = ()
    sets: tuple[bytes, ...] = ()
    floors: tuple[int, ...] = ()
    last: dict[RunId, int] = {}


@dataclass(frozen=True, slots=True)
class _Split:
    """A memory's patients with one set more. member: (sets + 1, atoms), the new set last. size: patients an atom."""

    units: U64
    atoms: I64
    member: Bool
    size: I64


EMPTY: Final = Memory(units=b"", atoms=b"")


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
    count = len(memory.names)
    whole = len(memory.units) == 2 * len(memory.atoms) and len(memory.units) % 8 == 0
    even = len(memory.sets) == len(memory.floors) == count > max(memory.last.values(), default=-1)
    if not whole or not even:
        raise MemoryUnreadable("the memory of disclosures is damaged", do="restore it; never start anew")
    return memory


def cohort(key: bytes, patients: Sequence[PatientId]) -> bytes:
    """The patients whom a query is about, as the memory knows them: sorted keyed hashes. key: 32 secret bytes, always
    the same.
    """
    return np.unique(hashed(key, EVERY_STUDY, patients)).tobytes()


def within(key: bytes, patients: Sequence[PatientId], part: bytes) -> frozenset[PatientId]:
    """Which of `patients` are in `part` of their `cohort`."""
    inside = np.isin(hashed(key, EVERY_STUDY, patients), np.frombuffer(part, "<u8"))
    return frozenset(patients[i] for i in np.flatnonzero(inside).tolist())


def admit(memory: Memory, *, run: RunId, cohort: bytes, floor: int) -> None:
    """Check that committing an answer about `cohort` discloses nothing about fewer than `floor` patients.

    Raises SitsOut (it lost some, but fewer than the floor, since the run's last commitment), DifferencingRefused,
    MemoryFull. A set that was committed before may be asked anything. The reason stays at the site.
    """
    name = _name(cohort)
    last = memory.last.get(run)
    if name in memory.names and (last is None or memory.names[last] == name):
        return
    split = _split(memory, cohort)
    now = split.member[-1]
    if last is not None and control.sits_out(int(split.size[split.member[last] & ~now].sum()), floor):
        raise SitsOut(
            "fewer patients than the floor have left the cohort since this site's last contribution to the run",
            do="leave the rest of this run to the other sites; a new run may take this site in again",
        )
    _compare(memory, split, floor)


def apart(memory: Memory, *, cohort: bytes, floor: int) -> bytes:
    """A large part of `cohort` that may be answered about: the same as each remembered set, or a floor away from it.

    One patient who leaves would otherwise silence a site for as long as nobody else leaves. So who came since is left out
    until they are a floor, and with each few who left, others leave, too, until they are a floor together: those with the
    smallest keyed hashes, so that nobody outside knows whom, and asking again leaves out the same. Who was left out stays
    out: sets that lie inside one another tell of nobody by longer sums. Raises DifferencingRefused where no such part is
    found.
    """
    units, atoms = np.frombuffer(memory.units, "<u8"), np.frombuffer(memory.atoms, "<u4")
    sets = [units[np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[atoms] == 1] for bits in memory.sets]
    whole = np.frombuffer(cohort, "<u8")
    like = next((before for before in reversed(sets) if _alike(whole, before)), whole)
    kept = np.intersect1d(whole, like, assume_unique=True)
    for start in (np.union1d(kept, np.setdiff1d(whole, units, assume_unique=True)), kept, whole):
        part = _away(start, sets, [max(floor, least) for least in memory.floors]).tobytes()
        if len(part) >= floor * whole.itemsize and _together(memory, part, floor):
            return part
    raise control.refused()


def _alike(one: U64, other: U64) -> bool:
    """Whether two sets have more in common than not."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return 2 * both > len(one) + len(other) - both


def _away(now: U64, sets: Sequence[U64], floors: Sequence[int]) -> U64:
    """The part of `now` that is the same as each set, or its floor away from it. It only shrinks, so it ends."""
    place = len(sets) - 1
    while place >= 0 and len(now):
        before, least = sets[place], floors[place]
        both = np.intersect1d(now, before, assume_unique=True)
        if 0 < len(now) + len(before) - 2 * len(both) < least:
            gone = len(before) - len(both)
            now = both[least - gone :] if gone else both  # sorted: the smallest go
            place = len(sets)  # it may have come near to another set
        place -= 1
    return now


def _together(memory: Memory, cohort: bytes, floor: int) -> bool:
    """Whether an answer about `cohort`, beside all before, singles out nobody. Raises MemoryFull."""
    try:
        _compare(memory, _split(memory, cohort), floor)
    except control.DifferencingRefused:
        return False
    return True


def _compare(memory: Memory, split: "_Split", floor: int) -> None:
    """The two rules, the new set being the last of `split`. Raises DifferencingRefused, MemoryFull."""
    now = split.member[-1]
    for place, before in enumerate(split.member[:-1]):
        control.differencing(int(split.size[before ^ now].sum()), max(floor, memory.floors[place]))
    _audit(split, floor)


def commit(memory: Memory, *, run: RunId, cohort: bytes, floor: int) -> Memory:
    """Write down that an answer about `cohort` was committed. The same again gives the same memory."""
    name = _name(cohort)
    if name in memory.names:
        place = memory.names.index(name)
        if memory.last.get(run) == place:
            return memory
        return msgspec.structs.replace(memory, last=memory.last | {run: place})
    split = _split(memory, cohort)
    return Memory(
        units=split.units.tobytes(),
        atoms=split.atoms.astype("<u4").tobytes(),
        names=(*memory.names, name),
        sets=tuple(np.packbits(row, bitorder="little").tobytes() for row in split.member),
        floors=(*memory.floors, floor),
        last=memory.last | {run: len(memory.names)},
    )


def _name(cohort: bytes) -> str:
    return hashlib.sha256(cohort).hexdigest()


def _split(memory: Memory, cohort: bytes) -> _Split:
    """Cut each atom into those inside the new set and those outside of it; who is new is an atom of their own."""
    known, now = np.frombuffer(memory.units, "<u8"), np.frombuffer(cohort, "<u8")
    held = np.frombuffer(memory.atoms, "<u4").astype(np.int64)
    count = int(held.max()) + 1 if len(held) else 0
    units = np.union1d(known, now)
    before = np.full(len(units), count, np.int64)
    before[np.searchsorted(units, known)] = held
    inside = np.zeros(len(units), np.int64)
    inside[np.searchsorted(units, now)] = 1
    kinds, atoms = np.unique(2 * before + inside, return_inverse=True)
    was = np.zeros((len(memory.sets), count + 1), np.bool_)
    for place, bits in enumerate(memory.sets):
        was[place, :count] = np.unpackbits(np.frombuffer(bits, np.uint8), count=count, bitorder="little")
    member = np.vstack([was[:, kinds >> 1], (kinds & 1).astype(np.bool_)])
    return _Split(units=units, atoms=atoms, member=member, size=np.bincount(atoms, minlength=len(kinds)))


def _audit(split: _Split, floor: int) -> None:
    """Raise DifferencingRefused when fewer than `floor` patients follow from the sets by adding and subtracting.

    An atom's sum follows from the others exactly when its unit vector lies in the span of the rows, that is, when it is
    a row of their reduced echelon form. Rows of that form with few patients in all are refused, too, though not every
    weighted sum of a few is found so. What followed
    before, under a permit with a lower floor, is not held against this one.
    """
    if split.size.min(initial=floor) >= floor:
        return
    if split.member.size > MOST_CELLS:
        raise MemoryFull(
            "this site has answered exact questions about too many different groups of patients",
            do="ask about groups that were asked about before, or apply for a permit with differential privacy",
        )
    told = {row.tobytes() for row in _few(split.member[:-1], split.size, floor)}  # another permit's floor was lower
    for row in _few(split.member, split.size, floor):
        if row.tobytes() not in told:
            control.differencing(int(split.size[row].sum()), floor)


def _few(member: Bool, size: I64, floor: int) -> list[Bool]:
    """Rows of the reduced form in which fewer than `floor` patients are left: which atoms they come down to."""
    rows = [row != 0 for row in _reduced(member)]
    return [row for row in rows if size[row].sum() < floor]


def _reduced(member: Bool) -> I64:
    """The reduced row echelon form over the integers modulo `PRIME`, without rows of zeros."""
    m = member.astype(np.int64)
    for r in range(len(m)):
        columns = np.flatnonzero(m[r:].any(axis=0))
        if not len(columns):
            return m[:r]
        c = columns[0]
        pivot = r + int(np.flatnonzero(m[r:, c])[0])
        m[[r, pivot]] = m[[pivot, r]]
        m[r] = m[r] * pow(int(m[r, c]), -1, PRIME) % PRIME
        others = m[:, c].copy()
        others[r] = 0
        for i in np.flatnonzero(others):
            m[i] = (m[i] - others[i] * m[r]) % PRIME
    return m
