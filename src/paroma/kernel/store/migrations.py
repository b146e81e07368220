"""Bringing a database to the form that this release expects: once, wholly or not at all, before anything else runs.

The steps are alembic revisions in a package of each program; there is no `env.py` and no file to configure. Several
programs that start on one database at once wait for each other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from paroma.kernel.errors import ParomaError
from paroma.kernel.store.database import Store

_LOCK = 0x7061726F6D61  # "paroma": any number that no other program on this PostgreSQL uses


class DatabaseTooNew(ParomaError):
    """The database was brought to a form that this release does not know: it belongs to a later release."""


def upgrade(store: Store, versions: Path) -> tuple[str, ...]:
    """Run the revisions in the folder `versions` that `store` has not had; their ids, oldest first.

    Raises DatabaseTooNew, StoreUnavailable.
    """
    scripts = _scripts(versions)
    with _alone(store):
        return store.write_now(lambda tx: _upgrade(tx, scripts))


def revision(store: Store) -> str | None:
    """The id of the last revision that `store` has had."""
    return store.read_now(lambda tx: MigrationContext.configure(tx).get_current_revision())


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Wait until no other program upgrades this database. SQLite's own writer lock does that in `write_now`."""
    if store.dialect != "postgresql":
        yield
        return
    # on a connection of its own: the upgrade's transaction sees the past of its first statement, so it must begin after
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _upgrade(tx: Connection, scripts: ScriptDirectory) -> tuple[str, ...]:
    done: list[str] = []

    def steps(current: Any, _context: MigrationContext) -> Sequence[Any]:
        try:
            wanted = scripts._upgrade_revs("head", current)  # noqa: SLF001  # what alembic's own `upgrade` command calls
        except CommandError as problem:
            raise DatabaseTooNew(
                f"the database stands at `{current}`, which this release does not know",
                do="start the release that wrote it, or restore the backup made before it ran",
            ) from problem
        done.extend(step.revision.revision for step in wanted)
        return wanted

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection=tx, transactional_ddl=True, render_as_batch=True)
        environment.run_migrations()
    return tuple(done)


def _scripts(versions: Path) -> ScriptDirectory:
    return ScriptDirectory(str(versions), version_locations=[str(versions)])
