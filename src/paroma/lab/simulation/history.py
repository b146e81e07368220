"""What is left of each site when a course is over: its log over all lives, and the databases that tell of it.

A site that was brought back from an older copy has two databases: the one that it has forgotten, and the one that it went on with.
Its history is what both logs say, one after the other: what was sent cannot be taken back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from paroma.kernel.blocking import Inline
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId
from paroma.kernel.store.database import Store, open_store
from paroma.lab.simulation.plot import Plot
from paroma.trust.audit import follow, log as logs
from paroma.trust.audit.entries import Entry, open_entry
from paroma.trust.audit.log import LogName

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Course:
    """What is seen from outside while a course goes on.

    acknowledged: withdrawals that returned, and their place in the site's history. told: one line for each lie. calm: unix s.
    forgotten: the folder of a site as it was before its copy came back; shift: by how many entries that made its log
    shorter; shown: how many of its entries the hub had seen when database and vault came back together: what is beyond
    them nobody can know any more.
    """

    plot: Plot
    calm: float = 0.0
    runs: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[tuple[str, PatientId], int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    forgotten: dict[str, Path] = field(default_factory=dict)
    shift: dict[str, int] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One site's. lost: it was brought back from an older copy. stores: the newest first."""

    name: str
    entries: list[Entry]
    stores: tuple[Store, ...]
    lost: bool

    def of(self, kind: str, **facts: object) -> list[tuple[int, Entry]]:
        """The entries of a kind with these facts, and their places."""
        return [
            (place, entry)
            for place, entry in enumerate(self.entries)
            if entry.kind == kind and all(entry.facts.get(name) == value for name, value in facts.items())
        ]

    def read(self, work: Callable[[Connection], T]) -> T:
        """What the newest database says that knows it. Raises BadInput where none does."""
        for store in self.stores:
            try:
                return store.read_now(work)
            except BadInput as problem:
                unknown = problem
        raise unknown


def entries_of(store: Store, name: LogName) -> list[bytes]:
    """Every entry of a log, each proved by its signed head. Raises what the proofs raise."""

    def read(tx: Connection) -> list[bytes]:
        head = logs.checkpoint(tx, name)
        return [sealed for _, sealed in follow.follow(logs.reader(tx, name), head).entries]

    return store.read_now(read)


@contextmanager
def at_rest(folder: Path) -> Iterator[Store]:
    """The database of a site that does not run."""
    store = open_store(f"sqlite:///{folder / 'site.db'}", Inline(), SystemDisk())
    try:
        yield store
    finally:
        store.close()


def length_at_rest(folder: Path) -> int:
    """How many entries the log of a site that does not run has."""
    with at_rest(folder) as store:
        return store.read_now(lambda tx: logs.checkpoint(tx, logs.SITE).size)


def whole(name: str, now: list[bytes], current: Store, forgotten: Store | None, shift: int) -> History:
    """The history of a site. now: the entries of its log. shift: as in `Course`."""
    if forgotten is None:
        entries = [open_entry(one, number) for number, one in enumerate(now)]
        return History(name=name, entries=entries, stores=(current,), lost=False)
    before = entries_of(forgotten, logs.SITE)
    sealed = [*before, *now[len(before) - shift :]]
    entries = [open_entry(one, number) for number, one in enumerate(sealed)]
    return History(name=name, entries=entries, stores=(current, forgotten), lost=True)
