"""Bundles of Flower apps, kept by their digest. A permit names the digest; each participant gets the bundle with the
application, and compares.
"""

from sqlalchemy import Connection, select

from paroma.hub.tables import BUNDLES
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.kernel.store.database import upsert
from paroma.learn.flower import fab
from paroma.learn.flower.contribution import MOST_BUNDLE
from paroma.trust.audit.journal import Journal


class BundleUnknown(BadInput):
    """Nobody brought this app."""

    def __init__(self, code: str) -> None:
        super().__init__(f"no app `{printable(code)[:12]}` is at this hub", do="bring its bundle first, then apply")


def keep(tx: Connection, data: bytes, *, by: str, log: Journal, now: float) -> str:
    """Read a bundle strictly and keep it; its digest. Twice the same is once. Raises FabInvalid, BadInput."""
    if len(data) > MOST_BUNDLE:
        raise BadInput(
            f"the bundle has {len(data)} bytes, at most {MOST_BUNDLE} can be sent to sites",
            do="leave out of the app what it does not need to run",
        )
    app = fab.read(data)
    row = {"code": app.id, "content": data, "brought_by": by, "at": now}
    if tx.execute(upsert(tx, BUNDLES).values(row).on_conflict_do_nothing()).rowcount:
        log.write(tx, "app-brought", code=app.id, by=by)
    return app.id


def bundle(tx: Connection, code: str) -> bytes:
    """The bundle of a digest. Raises BundleUnknown."""
    found = tx.execute(select(BUNDLES.c.content).where(BUNDLES.c.code == code)).scalar_one_or_none()
    if found is None:
        raise BundleUnknown(code)
    return bytes(found)
