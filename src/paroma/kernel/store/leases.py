"""Job leases: of several programs on one database, one at a time does a job.

A lease ends by itself, so a program that was killed holds up nobody for longer than the lease. A program that was
merely slow may believe it still holds one: what it writes must carry the lease's `term`, and be refused when a later
one is known.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, case, or_, select

from paroma.kernel.store.database import upsert
from paroma.kernel.store.tables import LEASES


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to do a job until a moment."""

    job: str
    holder: str
    term: int  # 1, 2, ...: grows whenever another holder takes over
    until: float  # seconds since 1970


def take(tx: Connection, job: str, holder: str, *, at: float, seconds: float) -> Lease | None:
    """Take the lease on `job`, or prolong one's own; None while another holds it. `at`: now, in seconds since 1970."""
    row = {"job": job, "holder": holder, "term": 1, "until": at + seconds}
    mine = LEASES.c.holder == holder
    statement = (
        upsert(tx, LEASES)
        .values(row)
        .on_conflict_do_update(
            index_elements=[LEASES.c.job],
            set_={
                "holder": holder,
                "until": at + seconds,
                "term": case((mine, LEASES.c.term), else_=LEASES.c.term + 1),
            },
            where=or_(mine, LEASES.c.until <= at),
        )
        .returning(LEASES.c.term)
    )
    term = tx.execute(statement).scalar()
    return None if term is None else Lease(job=job, holder=holder, term=term, until=at + seconds)


def current(tx: Connection, job: str, *, at: float) -> Lease | None:
    """Who holds the lease on `job` at the moment `at`."""
    row = tx.execute(select(LEASES).where(LEASES.c.job == job, LEASES.c.until > at)).mappings().first()
    return None if row is None else Lease(**row)


def release(tx: Connection, lease: Lease) -> None:
    """Give the lease back before its end. Says nothing where another has taken over since."""
    # the row stays, ended, so that the next term is a new one
    tx.execute(
        LEASES.update()
        .where(LEASES.c.job == lease.job, LEASES.c.holder == lease.holder, LEASES.c.term == lease.term)
        .values(until=0.0)
    )
