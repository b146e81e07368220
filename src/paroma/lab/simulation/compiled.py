"""What SQLAlchemy makes of a statement, made once for all the databases of a process.

A simulated federation opens five databases, and a thousand seeds open five thousand. Their dialects are alike in everything, but
each would compile each statement anew, which is a quarter of what a seed costs.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Dialect

from paroma.kernel.store.database import Store


@dataclass(slots=True)
class Compiled:
    """The statements that were compiled so far, and the dialect that they were compiled for."""

    dialect: Dialect | None = None
    statements: dict[Any, Any] = field(default_factory=dict)

    def share(self, store: Store) -> None:
        """Let `store`, an SQLite that was just opened, use them, and add to them."""
        self.dialect = self.dialect or store.engine.dialect
        store.engine.dialect = self.dialect  # a part of each statement's key
        store.engine = store.engine.execution_options(compiled_cache=self.statements)
