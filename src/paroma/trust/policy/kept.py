"""What was decided, kept with its facts for a while, so that it can be explained and replayed.

The log holds that something was decided and under which policies (a digest), for good. The facts stand here, in the program's own
database, until their retention ends. Equal requests under equal policies are one row with a count. A patient's id is never kept:
a policy can only ask whether principal and resource are the same, so that is what is left of it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, select

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.kernel.store.database import upsert
from paroma.trust.policy import asks
from paroma.trust.policy.decide import Ask, Decision, Policies, Reason, decide_afresh
from paroma.trust.policy.facts import Entity
from paroma.trust.policy.said import DifferenceSaid
from paroma.trust.policy.tables import DECISIONS, DIFFERENCES

RETENTION_DAYS: Final = 90  # where no policy says less
DAY: Final = 86400.0
BATCH: Final = 1000


class DecisionUnknown(BadInput):
    """No decision of this id is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no decision `{printable(name)}` is kept here",
            do="copy its id from the log or from `paroma policy decisions`; decisions are kept for their retention only",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A decision and its request. at: the last time, unix s. times: how often it was asked."""

    decision: str
    ask: Ask
    allowed: bool
    policy: str
    policies: str
    times: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A decision that other policies would turn. reason: why they would decide so."""

    kept: Kept
    reason: Reason


def without_patient(ask: Ask) -> Ask:
    """The request without a patient's id: decided the same, because policies can only compare the two ids."""
    same = ask.principal == ask.resource
    principal = (
        Entity("Patient", "patient" if same else "another") if ask.principal.kind == "Patient" else ask.principal
    )
    resource = Entity("Patient", "patient") if ask.resource.kind == "Patient" else ask.resource
    return msgspec.structs.replace(ask, principal=principal, resource=resource)


def name_of(ask: Ask, policies: str) -> str:
    """The id of a decision: the same request under the same policies has the same."""
    return hashlib.sha256(policies.encode() + b"\n" + asks.written(without_patient(ask))).hexdigest()


def keep(tx: Connection, ask: Ask, decision: Decision, *, times: int, began: float, at: float) -> str:
    """Keep a decision; its id. began, at: the first and the last time, unix s."""
    name = name_of(ask, decision.policies)
    days = decision.obligations.retention_days
    row = {
        "decision": name,
        "ask": asks.written(without_patient(ask)),
        "action": ask.action,
        "principal": without_patient(ask).principal.id[:64],
        "allowed": decision.allowed,
        "policy": decision.reasons[0].policy[:200],
        "policies": decision.policies,
        "times": times,
        "began": began,
        "at": at,
        "until": at + DAY * (RETENTION_DAYS if days is None else min(days, RETENTION_DAYS)),
    }
    changed = {"times": DECISIONS.c.times + times, "at": row["at"], "until": row["until"]}
    tx.execute(upsert(tx, DECISIONS).values(row).on_conflict_do_update(index_elements=["decision"], set_=changed))
    return name


def differ(tx: Connection, name: str, decision: Decision, trial: Decision, *, times: int, at: float) -> None:
    """Keep that the policies on trial would have decided otherwise."""
    why = trial.reasons[0]
    row = {
        "decision": name,
        "trial": trial.policies,
        "allowed": decision.allowed,
        "policy": why.policy[:200],
        "because": why.because,
        "times": times,
        "at": at,
    }
    changed = {"times": DIFFERENCES.c.times + times, "at": at}
    tx.execute(
        upsert(tx, DIFFERENCES).values(row).on_conflict_do_update(index_elements=["decision", "trial"], set_=changed)
    )


def prune(tx: Connection, now: float) -> None:
    """Forget what has been kept long enough."""
    over = select(DECISIONS.c.decision).where(DECISIONS.c.until <= now)
    tx.execute(delete(DIFFERENCES).where(DIFFERENCES.c.decision.in_(over)))
    tx.execute(delete(DECISIONS).where(DECISIONS.c.until <= now))


def find(tx: Connection, name: str) -> Kept:
    """The decision of this id, or of this beginning of an id (8 characters at least). Raises DecisionUnknown."""
    if len(name) < 8 or not set(name) <= set("0123456789abcdef"):
        raise DecisionUnknown(name)
    rows = tx.execute(select(DECISIONS).where(DECISIONS.c.decision.startswith(name)).limit(2)).mappings().all()
    if len(rows) != 1:
        raise DecisionUnknown(name)
    return _kept(rows[0])


def recent(tx: Connection, most: int) -> tuple[Kept, ...]:
    """The newest decisions."""
    rows = tx.execute(select(DECISIONS).order_by(DECISIONS.c.at.desc(), DECISIONS.c.decision).limit(most)).mappings()
    return tuple(_kept(row) for row in rows)


def of(tx: Connection, principal: str, most: int) -> tuple[Kept, ...]:
    """The newest decisions on what one person or site asked."""
    found = select(DECISIONS).where(DECISIONS.c.principal == principal)
    rows = tx.execute(found.order_by(DECISIONS.c.at.desc(), DECISIONS.c.decision).limit(most)).mappings()
    return tuple(_kept(row) for row in rows)


def since(tx: Connection, at: float) -> Iterator[Kept]:
    """Every decision from `at` (unix s) on, once for each request and set of policies, in the order of their ids."""
    last = ""
    while True:
        some = select(DECISIONS).where(DECISIONS.c.at >= at, DECISIONS.c.decision > last)
        rows = tx.execute(some.order_by(DECISIONS.c.decision).limit(BATCH)).mappings().all()
        yield from (_kept(row) for row in rows)
        if len(rows) < BATCH:
            return
        last = rows[-1]["decision"]


def count(tx: Connection, at: float) -> int:
    """How many `since` gives."""
    return int(tx.execute(select(func.count()).select_from(DECISIONS).where(DECISIONS.c.at >= at)).scalar_one())


def replay(tx: Connection, policies: Policies, at: float) -> tuple[Flip, ...]:
    """Decide everything from `at` on again, under these policies: what would flip, newest first."""
    flips = []
    for kept in since(tx, at):
        decision = decide_afresh(policies, kept.ask)
        if decision.allowed != kept.allowed:
            flips.append(Flip(kept=kept, reason=decision.reasons[0]))
    return tuple(sorted(flips, key=lambda flip: (-flip.kept.at, flip.kept.decision)))


def differences(tx: Connection, trial: str) -> tuple[DifferenceSaid, ...]:
    """What the policies of this digest, on trial, would have decided otherwise; newest first."""
    found = (
        select(DIFFERENCES, DECISIONS.c.action)
        .join(DECISIONS, DECISIONS.c.decision == DIFFERENCES.c.decision)
        .where(DIFFERENCES.c.trial == trial)
        .order_by(DIFFERENCES.c.at.desc(), DIFFERENCES.c.decision)
    )
    return tuple(
        DifferenceSaid(
            decision=row["decision"],
            action=row["action"],
            allowed=row["allowed"],
            policy=row["policy"],
            because=row["because"],
            times=row["times"],
            at=row["at"],
        )
        for row in tx.execute(found).mappings()
    )


def _kept(row: RowMapping) -> Kept:
    return Kept(
        decision=row["decision"],
        ask=asks.read(bytes(row["ask"])),
        allowed=row["allowed"],
        policy=row["policy"],
        policies=row["policies"],
        times=row["times"],
        at=row["at"],
    )
