"""The rule of the budget: what each patient has spent in each study, and every reservation in a hash chain.

Pure functions over a frozen `State`; its bytes lie elsewhere, and `Kept` ties both together over a register that
compares before it swaps. Nothing is ever refunded: a reserved attempt that came to nothing stays spent. An attempt
reserves once. Without differential privacy an attempt costs no mu^2, but is counted and chained all the same.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, PermitId, StudyId
from paroma.kernel.randomness import Randomness
from paroma.learn.dp import accountants
from paroma.trust.permit.permit import Permit

DOMAIN: Final = b"paroma/budget/v1\n"
UNIT_BYTES: Final = 8  # two patients whose hashes collide share a budget: it can only be spent faster
U64 = NDArray[np.uint64]


class BudgetSpent(Refused):
    """A patient of the cohort has no budget left in this study. Leave her out (`admissible`) and compute again."""


class QuestionsSpent(Refused):
    """The permit's questions are used up."""


class AttemptsSpent(Refused):
    """The permit's attempts at this question are used up."""


class LedgerUnreadable(BadInput):
    """The ledger's bytes are not a ledger."""


class BudgetOutdated(Refused):
    """The ledger does not hold a debit that this site's log tells of: an older copy of the vault was brought back."""

    def __init__(self, found: int, anchored: int) -> None:
        super().__init__(
            f"the privacy budget ends after debit {found}, or goes on otherwise, but the site's log tells of debit {anchored}",
            do="bring back the newest copy of the vault's folder; an older one would spend the same budget twice",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One attempt's debit. attempt, question: hex. mu_squared, limit: steps of 2^-40 per patient; limit holds for the
    study.
    """

    attempt: str
    question: str
    permit: PermitId
    study: StudyId
    mu_squared: int
    limit: int
    questions: int
    attempts: int
    patients: tuple[PatientId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A debit that is in the ledger. number: its place, from 1. head: the chain's hash after it, hex. again: this attempt
    had been reserved before.
    """

    attempt: str
    mu_squared: int
    number: int
    head: str
    again: bool


class Reservation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the ledger. mu_squared: steps of 2^-40. cohort: keyed hash of the units charged, hex. head: after it,
    hex.
    """

    attempt: str
    question: str
    permit: PermitId
    mu_squared: int
    cohort: str
    head: str


class State(msgspec.Struct, frozen=True, kw_only=True, tag="budget", forbid_unknown_fields=True):
    """The whole budget of a site.

    key: 32 secret bytes; a unit is the keyed hash of (study, patient), so that heads cannot be searched for patients.
    units: sorted, 8 bytes each. spent: mu^2 per unit in steps of 2^-40, uint64 little-endian. head: hex.
    """

    key: bytes
    head: str
    units: bytes = b""
    spent: bytes = b""
    reservations: tuple[Reservation, ...] = ()


def empty(randomness: Randomness) -> State:
    """A ledger with nothing spent."""
    return State(key=randomness.take(32), head=hashlib.sha256(DOMAIN).hexdigest())


def encode(state: State) -> bytes:
    """The state's bytes."""
    return msgspec.msgpack.encode(state)


def decode(data: bytes) -> State:
    """The state of its bytes. They come from the site's own sealed register. Raises LedgerUnreadable."""
    try:
        state = msgspec.msgpack.decode(data, type=State)
    except msgspec.DecodeError as problem:
        raise LedgerUnreadable(
            "the budget's bytes are no ledger", do="restore the vault's register; never start a new one"
        ) from problem
    if len(state.units) != len(state.spent) or len(state.units) % UNIT_BYTES or len(state.key) != 32:
        raise LedgerUnreadable(
            "the budget's bytes are damaged", do="restore the vault's register; never start a new one"
        )
    return state


def charge(permit: Permit, attempt: str, question: str, patients: Sequence[PatientId]) -> Charge:
    """What one attempt at a question costs each patient who was read for it."""
    privacy = permit.privacy
    return Charge(
        attempt=attempt,
        question=question,
        permit=permit.id,
        study=permit.study,
        mu_squared=0 if privacy is None else accountants.cost(privacy),
        limit=0 if privacy is None else accountants.limit(privacy),
        questions=permit.questions,
        attempts=permit.attempts,
        patients=tuple(patients),
    )


def admissible(state: State, permit: Permit, patients: Sequence[PatientId]) -> tuple[PatientId, ...]:
    """Those of `patients`, in their order, whose budget in the permit's study covers one more attempt."""
    if permit.privacy is None:
        return tuple(patients)
    cost, limit = accountants.cost(permit.privacy), accountants.limit(permit.privacy)
    if cost > limit:
        return ()
    held = _spent(state, hashed(state.key, permit.study, patients))
    return tuple(patient for patient, spent in zip(patients, held.tolist(), strict=True) if spent + cost <= limit)


def reserve(state: State, wish: Charge) -> tuple[State, Receipt]:
    """Debit `wish`. An attempt that is in the ledger already changes nothing and is answered `again`.

    Raises AttemptsSpent, QuestionsSpent, BudgetSpent: then nothing was debited. The last names no patient.
    """
    for number, before in enumerate(state.reservations, 1):
        if before.attempt == wish.attempt:
            said = Receipt(
                attempt=wish.attempt, mu_squared=before.mu_squared, number=number, head=before.head, again=True
            )
            return state, said
    _check_counts(state, wish)
    units = np.unique(hashed(state.key, wish.study, wish.patients))
    held = _spent(state, units)
    if wish.mu_squared and any(spent + wish.mu_squared > wish.limit for spent in set(held.tolist())):
        raise BudgetSpent(
            "the privacy budget of this study does not cover every patient of the cohort",
            do="leave out the patients without budget, or apply for a new permit",
        )
    line = {
        "attempt": wish.attempt,
        "question": wish.question,
        "permit": wish.permit,
        "mu_squared": str(wish.mu_squared),  # text: canonical JSON carries whole numbers up to 2^53 only
        "cohort": hashlib.blake2b(units.tobytes(), key=state.key, digest_size=32).hexdigest(),
    }
    head = _chain(state.head, {"kind": "reserved", **line})
    reservation = Reservation(
        attempt=wish.attempt,
        question=wish.question,
        permit=wish.permit,
        mu_squared=wish.mu_squared,
        cohort=line["cohort"],
        head=head,
    )
    all_units, all_spent = _debit(state, units, wish.mu_squared)
    after = State(
        key=state.key,
        head=head,
        units=all_units.tobytes(),
        spent=all_spent.tobytes(),
        reservations=(*state.reservations, reservation),
    )
    number = len(after.reservations)
    return after, Receipt(attempt=wish.attempt, mu_squared=wish.mu_squared, number=number, head=head, again=False)


def require(state: State, number: int, head: str) -> None:
    """Check that the chain passes through `head` (hex) at its debit `number`, from 1: what a log anchors.

    A ledger may be longer than its anchor: a debit is durable before the log tells of it. Raises BudgetOutdated.
    """
    if len(state.reservations) < number or state.reservations[number - 1].head != head:
        raise BudgetOutdated(len(state.reservations), number)


def spent(state: State, study: StudyId, patient: PatientId) -> int:
    """What a patient has spent in a study: mu^2 in steps of 2^-40. For the patient's own page; never for anybody
    else.
    """
    return int(_spent(state, hashed(state.key, study, [patient]))[0])


class Register(Protocol):
    """A place for the ledger's bytes that compares before it swaps, and is durable when it returns."""

    def read(self) -> bytes | None:
        """The bytes, or None where nothing was ever written."""

    def swap(self, old: bytes | None, new: bytes) -> None:
        """Put `new` in the place of `old`, durably. Raises when something else is there by now."""


class Kept:
    """The budget of a site, over its register. One writer at a time; a lost race raises the register's own error."""

    def __init__(self, register: Register, randomness: Randomness) -> None:
        self._register = register
        self._randomness = randomness

    def reserve(self, wish: Charge) -> Receipt:
        """Debit, durably. Raises AttemptsSpent, QuestionsSpent, BudgetSpent, and whatever the register raises."""
        old, state = self._load()
        after, receipt = reserve(state, wish)
        if not receipt.again:
            self._register.swap(old, encode(after))
        return receipt

    def require(self, number: int, head: str) -> None:
        """Check the ledger against its anchor in the log. Raises BudgetOutdated."""
        require(self._load()[1], number, head)

    def admissible(self, permit: Permit, patients: Sequence[PatientId]) -> tuple[PatientId, ...]:
        """Those of `patients` who have budget for one more attempt."""
        return admissible(self._load()[1], permit, patients)

    def head(self) -> str:
        """The chain's hash, hex: it travels in upload, vote and log."""
        return self._load()[1].head

    def _load(self) -> tuple[bytes | None, State]:
        old = self._register.read()
        return old, empty(self._randomness) if old is None else decode(old)


def _check_counts(state: State, wish: Charge) -> None:
    lines = [line for line in state.reservations if line.permit == wish.permit]
    if sum(line.question == wish.question for line in lines) >= wish.attempts:
        raise AttemptsSpent("the permit's attempts at this question are used up", do="go on with another question")
    questions = {line.question for line in lines}
    if wish.question not in questions and len(questions) >= wish.questions:
        raise QuestionsSpent("the permit's questions are used up", do="apply for a new permit")


def hashed(key: bytes, study: StudyId, patients: Iterable[PatientId]) -> U64:
    """Keyed hashes of (study, patient), 8 bytes each, in order. key: 32 secret bytes. Only the study is of variable
    length before the line break, and it has none.
    """
    stem = hashlib.blake2b(f"{study}\n".encode(), key=key, digest_size=UNIT_BYTES)
    out = []
    for patient in patients:
        unit = stem.copy()
        unit.update(patient.encode())
        out.append(unit.digest())
    return np.frombuffer(b"".join(out), "<u8")


def _spent(state: State, units: U64) -> U64:
    known, held = np.frombuffer(state.units, "<u8"), np.frombuffer(state.spent, "<u8")
    if not len(known):
        return np.zeros(len(units), np.uint64)
    at = np.minimum(np.searchsorted(known, units), len(known) - 1)
    return np.where(known[at] == units, held[at], 0).astype(np.uint64)


def _debit(state: State, units: U64, cost: int) -> tuple[U64, U64]:
    """All units, sorted, and what each has spent after `cost` was added to `units` (sorted, once each)."""
    known, held = np.frombuffer(state.units, "<u8"), np.frombuffer(state.spent, "<u8")
    if not cost:
        return known, held
    merged = np.union1d(known, units)
    after = np.zeros(len(merged), np.uint64)
    after[np.searchsorted(merged, known)] = held
    after[np.searchsorted(merged, units)] += np.uint64(cost)
    return merged, after


def _chain(head: str, line: dict[str, str]) -> str:
    return hashlib.sha256(DOMAIN + bytes.fromhex(head) + canonical.encode(line)).hexdigest()
