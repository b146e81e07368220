"""What ties a site's database and its vault to each other, so that neither comes back alone from an older copy.

- The vault anchors the database: a sealed register holds the revision of each open run and the size of the site's log at the
  newest act that commits the site (a vote, a decline, an answer, a patient's no). A database whose log is shorter is an older
  copy: it has forgotten votes, and patients' choices.
- The database anchors the vault: the transaction that logs a contribution keeps the number and head of its debit. A ledger that
  does not hold that debit is an older copy: it would spend the same budget twice.

Each is written before the other may fall behind: a debit is durable before the log tells of it, the log before its size is
anchored. So a crash never looks like an older copy. Both restored together are older than what the hub remembers.
"""

import msgspec
from sqlalchemy import Connection, select

from paroma.data.vault.sealed import Register
from paroma.kernel.errors import Refused
from paroma.kernel.store.database import Store, upsert
from paroma.learn.disclosure import ledger
from paroma.learn.disclosure.ledger import Kept
from paroma.site.tables import FLAGS
from paroma.trust.audit import log as logs

DEBIT = "budget"


class DatabaseOutdated(Refused):
    """The site's log is shorter than the vault knows it to be: an older copy of the database was brought back."""

    def __init__(self, found: int, anchored: int) -> None:
        super().__init__(
            f"the site's log in this database has {found} entries, but the vault has seen {anchored}: it is an older copy",
            do="bring back the newest copy of the database; an older one has forgotten votes and patients' choices. Where "
            "there is none, join the federation anew in another folder, and load the records there",
        )


class Anchors(msgspec.Struct, frozen=True, kw_only=True, tag="anchors", forbid_unknown_fields=True):
    """What the vault knows of the database. runs: the revision of each open run. log: entries of the site's log."""

    runs: dict[str, int] = {}
    log: int = 0


def read(register: Register) -> Anchors:
    """The anchors; none before the first. Raises VaultDamaged, VaultUnavailable."""
    _, content = register.read()
    return msgspec.msgpack.decode(content, type=Anchors) if content else Anchors()


def write(register: Register, anchors: Anchors) -> None:
    """Keep the anchors, durably. One writer at a time. Raises VaultUnavailable."""
    epoch, _ = register.read()
    register.swap(epoch, msgspec.msgpack.encode(anchors))


def debited(tx: Connection, receipt: ledger.Receipt) -> None:
    """In the transaction that logs a contribution: keep its debit, unless a later one is kept already."""
    row = {"name": DEBIT, "value": f"{receipt.number:020d} {receipt.head}"}  # as text in the order of the numbers
    into = upsert(tx, FLAGS).values(row)
    tx.execute(
        into.on_conflict_do_update(
            index_elements=["name"], set_={"value": row["value"]}, where=FLAGS.c.value < row["value"]
        )
    )


def require(store: Store, register: Register, budget: Kept) -> None:
    """Check database and vault against each other. Raises DatabaseOutdated, BudgetOutdated."""

    def look(tx: Connection) -> tuple[int, str | None]:
        debit = tx.execute(select(FLAGS.c.value).where(FLAGS.c.name == DEBIT)).scalar_one_or_none()
        return logs.checkpoint(tx, logs.SITE).size, debit

    size, debit = store.read_now(look)
    anchored = read(register).log
    if size < anchored:
        raise DatabaseOutdated(size, anchored)
    if debit is not None:
        number, _, head = debit.partition(" ")
        budget.require(int(number), head)
