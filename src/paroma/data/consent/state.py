"""Consent, durably: statements and choices go in, verdicts come out, and everything has a place in one order.

The order is what promise 2 stands on. Whoever reads patients notes `sequence(tx)` first; the transaction that commits
what was read asks `tainted(tx, ..., since=that number)`, and commits only without the patients it names. As both run
in the store's one order of writes, a withdrawal is either before the commit, and seen, or after it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from paroma.data.consent import purposes
from paroma.data.consent.evaluate import Request, decide, evaluate, next_change
from paroma.data.consent.statement import Choice, Override, Rule, Scope, Statement, Use, Verdict
from paroma.data.consent.tables import CHANGES, CHOICES, ORDER, OVERRIDES, RULES, STATEMENTS
from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import ALPHABET, PatientId
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import upsert

_MANY = 500  # values in one SQL statement


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What may be used for one use at one instant. Call it with a patient."""

    by_patient: dict[PatientId, Verdict]
    otherwise: Verdict  # of a patient of whom nothing is known here
    seq: int  # the last change that was taken into account
    next_change: float | None  # seconds since 1970: from then on an answer may be another

    def __call__(self, patient: PatientId) -> Verdict:
        """Whether this patient may be used, and by what rule."""
        return self.by_patient.get(patient, self.otherwise)


# -- changing


def put_statements(tx: Connection, statements: Iterable[Statement], at: float) -> tuple[PatientId, ...]:
    """Keep these statements, each in place of that with the same id; the patients for whom something changed."""
    held: dict[tuple[str, str], tuple[Any, ...]] = {}
    latest = {(s.patient, s.id): s for s in statements}
    for some in _chunks(sorted({s.patient for s in latest.values()})):
        for row in tx.execute(select(STATEMENTS).where(STATEMENTS.c.patient.in_(some))):
            held[row.patient, row.id] = (row.given, row.active, row.rule, row.unclear)
    rules: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    for (patient, name), s in latest.items():
        rule = msgspec.json.encode(s.rule)
        digest = canonical.digest(s.rule)
        rules[digest] = rule
        if held.get((patient, name)) != (s.given, s.active, digest, s.unclear):
            rows.append(
                {
                    "patient": patient,
                    "id": name,
                    "given": s.given,
                    "active": s.active,
                    "rule": digest,
                    "unclear": s.unclear,
                }
            )
    if not rows:
        return ()
    into = upsert(tx, RULES)
    tx.execute(into.on_conflict_do_nothing(), [{"digest": d, "rule": r} for d, r in rules.items()])
    into = upsert(tx, STATEMENTS)
    fresh = {name: into.excluded[name] for name in ("given", "active", "rule", "unclear")}
    tx.execute(into.on_conflict_do_update(index_elements=["patient", "id"], set_=fresh), rows)
    changed = tuple(PatientId(p) for p in dict.fromkeys(row["patient"] for row in rows))
    _note(tx, changed, "statement", Scope("everything"), at)
    return changed


def withdraw(
    tx: Connection, patient: PatientId, scope: Scope, at: float, randomness: Randomness, *, by: str = "patient"
) -> Choice:
    """The patient's no, from now on; what the receipt says. Repeating makes a new receipt and changes nothing else."""
    return _choose(tx, patient, scope, "no", at=at, randomness=randomness, by=by)


def give(
    tx: Connection, patient: PatientId, scope: Scope, at: float, randomness: Randomness, *, by: str = "patient"
) -> Choice:
    """The patient's yes, from now on: in place of an earlier no to the same; a yes to everything ends every no.

    A yes to a study or purpose is consent to it. A yes to everything only takes back the no: what was signed before
    counts again.
    """
    if scope.kind == "everything":
        tx.execute(update(CHOICES).where(CHOICES.c.patient == patient, CHOICES.c.says == "no").values(newest=False))
    return _choose(tx, patient, scope, "yes", at=at, randomness=randomness, by=by)


def put_override(tx: Connection, override: Override, at: float) -> None:
    """Enter, or replace, an order of the law. Raises BadInput: the purpose is unknown, the period is none."""
    if not purposes.named(override.purpose) or not override.starts < override.ends:
        raise BadInput(
            "this order of the law cannot be entered", do="name a purpose of EHDS Art. 53, and an end after the start"
        )
    values = msgspec.structs.asdict(override)
    into = upsert(tx, OVERRIDES).values(values)
    tx.execute(into.on_conflict_do_update(index_elements=["id"], set_=values))
    _note(tx, [PatientId("")], "override", Scope("purpose", override.purpose), at)


def forget(tx: Connection, patients: Collection[PatientId], at: float) -> None:
    """Remove what these patients said, because they are erased. Their ids stay in the order, so that no open round
    keeps them.
    """
    for some in _chunks(list(patients)):
        for table in (STATEMENTS, CHOICES, CHANGES):
            tx.execute(delete(table).where(table.c.patient.in_(some)))
    _note(tx, list(patients), "erasure", Scope("everything"), at)


def prune(tx: Connection, before: int) -> None:
    """Drop the lines of the order below `before`, which no open round asks for any more."""
    tx.execute(delete(CHANGES).where(CHANGES.c.seq < before))


# -- asking


def sequence(tx: Connection) -> int:
    """The number of the last change, 0 before the first."""
    return int(tx.execute(select(ORDER.c.seq)).scalar() or 0)


def changed_since(tx: Connection, since: int) -> tuple[PatientId, ...] | None:
    """The patients changed after number `since`; None when it may be everybody (an order of the law changed)."""
    rows = tx.execute(select(CHANGES.c.patient).where(CHANGES.c.seq > since).distinct()).scalars().all()
    return None if "" in rows else tuple(PatientId(p) for p in rows)


def tainted(
    tx: Connection, use: Use, patients: Collection[PatientId], *, since: int, at: float
) -> tuple[PatientId, ...]:
    """Those of `patients`, read for `use` when the last change was `since`, that may not be in what is committed now
    (`at`).

    A no that came after the reading counts even when a yes followed it. Runs in the transaction that commits.
    """
    among = patients if isinstance(patients, (set, frozenset, dict)) else frozenset(patients)
    taken: set[str] = set()
    asked: set[str] = set()
    for row in tx.execute(select(CHANGES).where(CHANGES.c.seq > since)):
        if row.patient == "":
            asked.update(among)
        elif row.patient in among:
            asked.add(row.patient)
            scope = Scope(row.scope_kind, row.scope_of)
            if row.kind in {"no", "erasure"} and scope.covers(purpose=use.purpose, study=use.study):
                taken.add(row.patient)
    if not asked:
        return ()
    now = verdicts(tx, use, at, [PatientId(p) for p in asked])
    out = [PatientId(p) for p in asked]
    return tuple(
        sorted(p for p in out if not now(p).allowed or (p in taken and not now(p).rule.startswith("override")))
    )


def verdicts(tx: Connection, use: Use, at: float, patients: Sequence[PatientId] | None = None) -> Verdicts:
    """Who may be used for `use` at `at`: of `patients`, or of everybody who said something (None)."""
    orders = _overrides(tx)
    said = _statements(tx, patients)
    chosen = _choices(tx, patients)
    judged: dict[tuple[int, bool], bool | None] = {}

    def judge(statement: Statement, request: Request) -> bool | None:
        form = (id(statement.rule), statement.active)  # the rules are shared and live as long as `said`
        if form not in judged:
            judged[form] = decide(statement, request)
        return judged[form]

    among = patients if patients is not None else list(dict.fromkeys((*said, *chosen)))
    found = {p: evaluate(said.get(p, ()), chosen.get(p, ()), orders, use, at, judge=judge) for p in among}
    forms = {id(s.rule): s for one in said.values() for s in one if s.active}
    return Verdicts(found, evaluate((), (), orders, use, at), sequence(tx), next_change(forms.values(), orders, at))


def statements_of(tx: Connection, patient: PatientId) -> tuple[Statement, ...]:
    """What the hospital holds of this patient's consents."""
    return tuple(_statements(tx, [patient]).get(patient, ()))


def choices_of(tx: Connection, patient: PatientId) -> tuple[Choice, ...]:
    """Every choice that this patient made here, newest first."""
    rows = tx.execute(select(CHOICES).where(CHOICES.c.patient == patient).order_by(CHOICES.c.seq.desc()))
    return tuple(_choice(row) for row in rows)


def choice(tx: Connection, number: str) -> Choice | None:
    """The choice with this number, as it stands on a receipt."""
    row = tx.execute(select(CHOICES).where(CHOICES.c.number == number)).first()
    return None if row is None else _choice(row)


# -- inside


def _choose(
    tx: Connection, patient: PatientId, scope: Scope, says: str, *, at: float, randomness: Randomness, by: str
) -> Choice:
    seq = _note(tx, [patient], says, scope, at)
    made = Choice(
        number=_number(randomness),
        seq=seq,
        patient=patient,
        scope=scope,
        says="no" if says == "no" else "yes",
        by=by,
        at=at,
        salt=randomness.take(32),
    )
    same = (CHOICES.c.patient == patient, CHOICES.c.scope_kind == scope.kind, CHOICES.c.scope_of == scope.of)
    tx.execute(update(CHOICES).where(*same).values(newest=False))
    row = msgspec.structs.asdict(made) | {"scope_kind": scope.kind, "scope_of": scope.of, "newest": True}
    del row["scope"]
    tx.execute(insert(CHOICES).values(row))
    return made


def _number(randomness: Randomness) -> str:
    bits = int.from_bytes(randomness.take(5), "big")
    letters = "".join(ALPHABET[bits >> shift & 31] for shift in range(35, -5, -5)).upper()
    return f"{letters[:4]}-{letters[4:]}"


def _note(tx: Connection, patients: Sequence[PatientId], kind: str, scope: Scope, at: float) -> int:
    """One line of the order for each patient; the last number."""
    if not patients:
        return sequence(tx)
    into = upsert(tx, ORDER).values(only=1, seq=len(patients))
    grown = into.on_conflict_do_update(index_elements=["only"], set_={"seq": ORDER.c.seq + len(patients)})
    last = int(tx.execute(grown.returning(ORDER.c.seq)).scalar_one())
    first = last - len(patients) + 1
    rows = [
        {"seq": first + i, "patient": p, "kind": kind, "scope_kind": scope.kind, "scope_of": scope.of, "at": at}
        for i, p in enumerate(patients)
    ]
    tx.execute(insert(CHANGES), rows)
    return last


def _statements(tx: Connection, patients: Sequence[PatientId] | None) -> dict[PatientId, list[Statement]]:
    rules: dict[str, Rule | None] = {}
    found: dict[PatientId, list[Statement]] = {}
    for condition in _only(STATEMENTS.c.patient, patients):
        for row in tx.execute(select(STATEMENTS).where(*condition).order_by(STATEMENTS.c.patient, STATEMENTS.c.id)):
            if row.rule not in rules:
                held = tx.execute(select(RULES.c.rule).where(RULES.c.digest == row.rule)).scalar_one()
                rules[row.rule] = msgspec.json.decode(held, type=Rule | None)
            found.setdefault(row.patient, []).append(
                Statement(
                    id=row.id,
                    patient=row.patient,
                    given=row.given,
                    active=row.active,
                    rule=rules[row.rule],
                    unclear=row.unclear,
                )
            )
    return found


def _choices(tx: Connection, patients: Sequence[PatientId] | None) -> dict[PatientId, list[Choice]]:
    found: dict[PatientId, list[Choice]] = {}
    for condition in _only(CHOICES.c.patient, patients):
        for row in tx.execute(select(CHOICES).where(CHOICES.c.newest, *condition).order_by(CHOICES.c.seq.desc())):
            found.setdefault(row.patient, []).append(_choice(row))
    return found


def _overrides(tx: Connection) -> list[Override]:
    rows = tx.execute(select(OVERRIDES).order_by(OVERRIDES.c.id)).mappings()
    return [Override(**row) for row in rows]


def _choice(row: Any) -> Choice:
    return Choice(
        number=row.number,
        seq=row.seq,
        patient=row.patient,
        scope=Scope(row.scope_kind, row.scope_of),
        says=row.says,
        by=row.by,
        at=row.at,
        salt=bytes(row.salt),
    )


def _only(
    column: ColumnElement[str], patients: Sequence[PatientId] | None
) -> Iterator[tuple[ColumnElement[bool], ...]]:
    """Conditions that select `patients`, some at a time; one condition that selects all for None."""
    if patients is None:
        yield ()
        return
    for some in _chunks(patients):
        yield (column.in_(some),)


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[i : i + _MANY] for i in range(0, len(values), _MANY))
