"""How far another's log was read and proved: what `follow` goes on from."""

from sqlalchemy import Connection, select

from paroma.kernel.store.database import upsert
from paroma.trust.audit.merkle import EMPTY, Edge
from paroma.trust.audit.tables import FOLLOWED


def followed(tx: Connection, origin: str) -> Edge:
    """How far that log was read and proved."""
    row = tx.execute(select(FOLLOWED.c.size, FOLLOWED.c.edge).where(FOLLOWED.c.origin == origin)).one_or_none()
    return EMPTY if row is None else Edge.decode(row.size, bytes(row.edge))


def remember(tx: Connection, origin: str, edge: Edge) -> None:
    """That the log was read and proved up to this edge: in the transaction that keeps what its entries said."""
    row = {"origin": origin, "size": edge.size, "edge": edge.encode()}
    changes = {"size": edge.size, "edge": row["edge"]}
    tx.execute(upsert(tx, FOLLOWED).values(row).on_conflict_do_update(index_elements=["origin"], set_=changes))
