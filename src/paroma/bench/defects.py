"""Sites with a planted defect: what the benches must catch. Each runs the product, with one part of it replaced here.

    python -m paroma.bench.defects NAME FOLDER

- `cached-bit`: at its vote the site asks nobody whether a patient in its contribution has withdrawn;
- `computes-again`: after a restart it computes a contribution once more instead of sending the bytes that it wrote, and
  its door lets out what was debited before;
- `debits-late`: the privacy budget is written a second after the numbers have left;
- `writes-behind`: the database is in truth a copy, written back every few seconds, so that what is acknowledged is not
  durable yet.
"""

import dataclasses
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from msgspec.structs import replace

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

LATE_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 3.0


class _Kept(Protocol):
    def read(self) -> bytes | None:
        """The bytes."""

    def swap(self, old: bytes | None, new: bytes) -> None:
        """Put `new` in the place of `old`."""


class Late:
    """A register that says it is durable, and writes `seconds` later."""

    def __init__(self, kept: _Kept, seconds: float) -> None:
        self._kept = kept
        self._seconds = seconds
        self._newest = kept.read()

    def read(self) -> bytes | None:
        """The bytes, as they will be."""
        return self._newest

    def swap(self, _old: bytes | None, new: bytes) -> None:
        """Take `new`, and write it later."""
        self._newest = new
        timer = threading.Timer(self._seconds, lambda: self._kept.swap(self._kept.read(), new))
        timer.daemon = True
        timer.start()


def behind(database: Path) -> Path:
    """A copy of a SQLite database to work on, in place of the database."""
    working = database.with_suffix(".behind")
    for name in (working, *(working.with_name(working.name + end) for end in ("-wal", "-shm"))):
        name.unlink(missing_ok=True)
    written_back(database, working)
    return working


def written_back(source: Path, target: Path) -> None:
    """Copy one SQLite database over another, wholly or not at all."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def _cached_bit(_folder: Path) -> None:
    from paroma.data.consent import state

    state.tainted = lambda *_, **__: ()


def _computes_again(_folder: Path) -> None:
    from paroma.learn.disclosure import ledger
    from paroma.learn.runs import site
    from paroma.learn.runs.crypto import SiteCrypto

    honest = site.step

    def forgetful(
        state: site.SiteState, event: site.Event, crypto: SiteCrypto, still_clean: Callable[[], bool]
    ) -> site.Outcome:
        now = state.attempt
        if isinstance(event, site.Restarted) and now is not None and now.upload is not None and state.answer is None:
            state = replace(state, attempt=replace(now, upload=None, votes=()), revision=state.revision + 1)
        return honest(state, event, crypto, still_clean)

    site.step = forgetful
    debited = ledger.Kept.reserve  # the door's own guard: a debit that was there before lets nothing out again
    ledger.Kept.reserve = lambda kept, wish: dataclasses.replace(debited(kept, wish), again=False)  # type: ignore[method-assign, assignment]  # the defect


def _debits_late(_folder: Path) -> None:
    from paroma.data.vault import sealed

    honest = sealed.Register.by_value
    sealed.Register.by_value = lambda register: Late(honest(register), LATE_SECONDS)  # type: ignore[method-assign, assignment, return-value]  # the defect


def _writes_behind(folder: Path) -> None:
    from paroma.site import parts

    database, named = folder / "site.db", vars(parts)
    working, honest = behind(database), named["open_store"]
    again = threading.Event()

    def write_back() -> None:
        while not again.wait(BEHIND_SECONDS):
            written_back(working, database)

    threading.Thread(target=write_back, name="behind", daemon=True).start()
    named["open_store"] = lambda _url, blocking, disk: honest(f"sqlite:///{working}", blocking, disk)


DEFECTS: Final[Mapping[str, Callable[[Path], None]]] = MappingProxyType(
    {
        "cached-bit": _cached_bit,
        "computes-again": _computes_again,
        "debits-late": _debits_late,
        "writes-behind": _writes_behind,
    }
)


def command(name: str, folder: Path) -> list[str | Path]:
    """What starts a site with this defect."""
    return [sys.executable, "-m", "paroma.bench.defects", name, folder]


def run(name: str, folder: Path) -> None:
    """Plant the defect, then run the site. Raises BadInput."""
    if name not in DEFECTS:
        raise BadInput(f"there is no defect `{printable(name)}`", do=f"name one of {', '.join(DEFECTS)}")
    DEFECTS[name](folder)
    from paroma.site import program

    program.run(folder)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
