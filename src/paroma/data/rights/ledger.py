"""The patient's ledger: who used my records, for what, when, and by what right.

A use is `read` when a worker has read the patient, and `committed` when the site gave its first vote for the sum that
contains them: from then on the receipt says "counted" (section 1 of the vote's rules). It is `recalled` only when a
complete set of that attempt without this site has been shown.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from paroma.data.consent.statement import Choice
from paroma.data.rights.tables import ROWS, USES
from paroma.kernel.clock import iso
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId, PermitId, RunId, StudyId
from paroma.kernel.store.database import upsert


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asked for a use, and what for: what a patient reads."""

    permit: PermitId
    study: StudyId
    title: str
    purpose: str  # code of EHDS Art. 53
    asked_by: str  # "University of Basel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a run that read this patient."""

    round: int
    attempt: int
    read_at: float
    committed_at: float | None  # None: not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class UseOfRecords:
    """One run that read this patient's records."""

    asked: Asked
    run: RunId
    rule: str  # what allowed it
    people: int  # patients of this site that were read with them, at most
    rounds: tuple[Round, ...]  # in order

    @property
    def counted(self) -> tuple[Round, ...]:
        """The rounds whose sums contain the patient."""
        return tuple(r for r in self.rounds if r.committed_at is not None)

    @property
    def state(self) -> str:
        """`not counted`, or `counted in round 7, committed 14:02:11` (UTC) with the last such round."""
        if not self.counted:
            return "not counted"
        last = self.counted[-1]
        return f"counted in round {last.round}, committed {iso(last.committed_at or 0.0)[11:19]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a patient keeps of a choice: the choice, and what had happened already in the studies it is about."""

    choice: Choice
    before: tuple[UseOfRecords, ...]


def record_cohort(tx: Connection, cohort: str, patients: Sequence[PatientId], rules: Sequence[str]) -> None:
    """Remember whose row is whose in a cohort, and what allowed each. Both in row order. Repeating is safe."""
    if tx.execute(select(ROWS.c.row).where(ROWS.c.cohort == cohort).limit(1)).first() is None and patients:
        tx.execute(
            insert(ROWS),
            [
                {"cohort": cohort, "row": row, "patient": patient, "rule": rule}
                for row, (patient, rule) in enumerate(zip(patients, rules, strict=True))
            ],
        )


def record_use(
    tx: Connection, asked: Asked, run: RunId, round_: int, attempt: int, *, cohort: str, rows: bytes, at: float
) -> None:
    """A worker has read these rows of `cohort` (packed bits, lowest first) for one attempt at a round. Repeating is
    safe.
    """
    into = upsert(tx, USES).values(
        run=run,
        round=round_,
        attempt=attempt,
        cohort=cohort,
        permit=asked.permit,
        study=asked.study,
        title=asked.title,
        purpose=asked.purpose,
        asked_by=asked.asked_by,
        read_at=at,
        rows=rows,
        people=int.from_bytes(rows, "little").bit_count(),
        state="read",
    )
    tx.execute(into.on_conflict_do_nothing())


def commit_use(tx: Connection, run: RunId, round_: int, attempt: int, at: float) -> None:
    """The site gives its first vote for the sum that holds these rows: in the vote's own transaction. Later votes
    change nothing.
    """
    _set(tx, run, round_, attempt, "read", state="committed", committed_at=at)


def recall_use(tx: Connection, run: RunId, round_: int, attempt: int) -> None:
    """A complete set without this site was shown for this attempt: it counted nobody of this site."""
    _set(tx, run, round_, attempt, "committed", state="recalled", committed_at=None)


def uses_of(tx: Connection, patient: PatientId) -> tuple[UseOfRecords, ...]:
    """Every run that read this patient, newest first."""
    query = (
        select(USES, ROWS.c.row, ROWS.c.rule)
        .join(ROWS, ROWS.c.cohort == USES.c.cohort)
        .where(ROWS.c.patient == patient)
        .order_by(USES.c.run, USES.c.round, USES.c.attempt)
    )
    runs: dict[str, list[Any]] = {}
    for row in tx.execute(query):
        if row.row >> 3 < len(row.rows) and row.rows[row.row >> 3] >> (row.row & 7) & 1:
            runs.setdefault(row.run, []).append(row)
    found = [_use(rows) for rows in runs.values()]
    return tuple(sorted(found, key=lambda use: (use.rounds[-1].read_at, use.run), reverse=True))


def receipt(tx: Connection, choice: Choice) -> Receipt:
    """The receipt of a choice: what its studies had counted. As of now: an entry may still become "not counted"
    (`recall_use`).
    """
    concerned = [
        use
        for use in uses_of(tx, choice.patient)
        if choice.scope.covers(purpose=use.asked.purpose, study=use.asked.study)
    ]
    return Receipt(choice=choice, before=tuple(concerned))


def patients_in(tx: Connection, run: RunId, round_: int, attempt: int) -> tuple[PatientId, ...]:
    """The patients that were read for this attempt: whom the vote has to ask about. Raises BadInput where nothing was
    read.
    """
    where = (USES.c.run == run, USES.c.round == round_, USES.c.attempt == attempt)
    use = tx.execute(select(USES.c.cohort, USES.c.rows).where(*where)).first()
    if use is None:
        raise BadInput(
            f"nothing was read for round {round_}, attempt {attempt}", do="ask for a round that this site took part in"
        )
    order = select(ROWS.c.row, ROWS.c.patient).where(ROWS.c.cohort == use.cohort).order_by(ROWS.c.row)
    return tuple(PatientId(r.patient) for r in tx.execute(order) if use.rows[r.row >> 3] >> (r.row & 7) & 1)


def forget(tx: Connection, patients: Collection[PatientId]) -> None:
    """Remove the lines of these patients, because they are erased. The bitmaps stay, and name nobody any more."""
    for patient in patients:
        tx.execute(delete(ROWS).where(ROWS.c.patient == patient))


def _set(tx: Connection, run: RunId, round_: int, attempt: int, was: str, **values: Any) -> None:
    tx.execute(
        update(USES)
        .where(USES.c.run == run, USES.c.round == round_, USES.c.attempt == attempt, USES.c.state == was)
        .values(**values)
    )


def _use(rows: Sequence[Any]) -> UseOfRecords:
    last = rows[-1]
    return UseOfRecords(
        asked=Asked(
            permit=PermitId(last.permit),
            study=StudyId(last.study),
            title=last.title,
            purpose=last.purpose,
            asked_by=last.asked_by,
        ),
        run=RunId(last.run),
        rule=last.rule,
        people=max(row.people for row in rows),
        rounds=tuple(
            Round(round=row.round, attempt=row.attempt, read_at=row.read_at, committed_at=row.committed_at)
            for row in rows
        ),
    )
