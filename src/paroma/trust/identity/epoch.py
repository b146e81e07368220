"""The revocation epoch: a number that grows whenever somebody is revoked, in the transaction that revokes."""

from sqlalchemy import Connection, select, update

from paroma.kernel.store.database import upsert
from paroma.trust.identity.tables import EPOCH


def current(tx: Connection) -> int:
    """The epoch; 0 where nobody was ever revoked."""
    return tx.execute(select(EPOCH.c.number)).scalar_one_or_none() or 0


def advance(tx: Connection) -> int:
    """The next epoch: every token issued before is refused. The caller tells its `Verifier` after the commit."""
    tx.execute(upsert(tx, EPOCH).values(one=1, number=0).on_conflict_do_nothing())
    tx.execute(update(EPOCH).values(number=EPOCH.c.number + 1))
    return current(tx)
