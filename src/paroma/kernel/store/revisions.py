"""The part of an upgrade that needs alembic: imported only where there is something to upgrade, as it takes 0.3 s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from paroma.kernel.store.migrations import DatabaseTooNew


def run(tx: Connection, versions: Path) -> tuple[str, ...]:
    """Run what is missing, in this transaction; the ids, oldest first. Raises DatabaseTooNew."""
    scripts = ScriptDirectory(str(versions), version_locations=[str(versions)])
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
