"""Bringing a database to the form that this release expects: once, wholly or not at all, before anything else runs.

The steps are alembic revisions in a package of each program; there is no `env.py` and no file to configure. Several
programs that start on one database at once wait for each other. Where nothing is to be done, which is nearly always, one
query says so, and alembic is not even imported.
"""

import re
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from paroma.kernel.errors import ParomaError
from paroma.kernel.store.database import Store

_TABLE: Final = "alembic_version"
_ID: Final = re.compile(r"^revision\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_AFTER: Final = re.compile(r"^down_revision\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


class DatabaseTooNew(ParomaError):
    """The database was brought to a form that this release does not know: it belongs to a later release."""


def upgrade(store: Store, versions: Path) -> tuple[str, ...]:
    """Run the revisions in the folder `versions` that `store` has not had; their ids, oldest first.

    Raises DatabaseTooNew, StoreUnavailable.
    """
    newest = _newest(versions)
    if newest is not None and revision(store) == newest:
        return ()
    from paroma.kernel.store import revisions

    return store.write_now(lambda tx: revisions.run(tx, versions))  # a writer is alone: the next one finds it done


def revision(store: Store) -> str | None:
    """The id of the last revision that `store` has had."""
    return store.read_now(_stands_at)


def _stands_at(tx: Connection) -> str | None:
    if not inspect(tx).has_table(_TABLE):
        return None
    found = tx.execute(text(f"select version_num from {_TABLE}")).scalars().all()  # noqa: S608  # a name of ours
    return str(found[0]) if len(found) == 1 else None


def _newest(versions: Path) -> str | None:
    """The revision that no other one follows; None where the files do not name exactly one, and alembic has to look."""
    files = [file.read_text() for file in versions.glob("*.py")]
    ids = {found[1] for content in files if (found := _ID.search(content))}
    followed = {found[1] for content in files if (found := _AFTER.search(content))}
    last = ids - followed
    return last.pop() if len(last) == 1 else None
