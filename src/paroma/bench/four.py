"""One hub and four sites as real processes over TLS, people enrolled: what the benches of whole rounds measure.

The same processes as the demo's, started through the `paroma` command; nothing is configured faster than it ships.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from paroma.bench.benches import Say
from paroma.lab import heart
from paroma.lab.demo import federation
from paroma.lab.demo.federation import SCIENTIST, Running
from paroma.lab.processes import Programs, until
from paroma.sdk.connection import Connection
from paroma.sdk.officer import Officer
from paroma.sdk.study import Study, privacy
from paroma.trust.audit.entries import Entry, open_entry

INPUTS: Final = heart.FEATURES[:-1]
OUTCOME: Final = heart.FEATURES[-1]
FORMULA: Final = f"{OUTCOME} ~ {' + '.join(INPUTS)}"
CLIPPING_NORM: Final = 1.2
SECONDS: Final = 60.0


@dataclass(slots=True)
class Four:
    """The federation as it runs, and its scientist."""

    running: Running
    programs: Programs
    scientist: Connection

    @property
    def sites(self) -> tuple[str, ...]:
        """Keys of the sites."""
        return tuple(self.running.sites)

    def agree(self, title: str, algorithms: tuple[str, ...], *, questions: int, epsilon: float | None = None) -> Study:
        """A study with a permit that every officer signed."""
        study = self.scientist.apply(
            title,
            purpose="scientific-research",
            data_set="heart",
            features=(*INPUTS, OUTCOME),
            algorithms=algorithms,
            benefit="We learn how fast and how safely four hospitals compute together.",
            questions=questions,
            privacy=None if epsilon is None else privacy(epsilon, questions=questions, clipping_norm=CLIPPING_NORM),
        )
        permit = study.standings[0].permit.id

        def sign(key: str) -> None:
            talk = self.running.talk(key)
            try:
                officer = Officer(talk)
                until(
                    lambda: any(one.permit.id == permit for one in officer.requests()),
                    seconds=SECONDS,
                    sentence=f"{key} was not asked",
                )
                officer.sign(permit)
            finally:
                talk.close()

        federation.side_by_side(sign, self.sites)
        return study.wait(seconds=SECONDS)

    def await_online(self) -> None:
        """Until the hub has heard of every site."""
        until(
            lambda: [m.status for m in self.scientist.members()] == ["online"] * len(self.sites),
            seconds=SECONDS,
            sentence="not every site came online",
        )

    def federation_log(self) -> list[Entry]:
        """The federation log as it lies in the hub's database."""
        return entries(self.running.folder / "hub" / "hub.db", "federation")

    def site_log(self, key: str) -> list[Entry]:
        """A site's own log as it lies in its database."""
        return entries(self.running.site_folder(key) / "site.db", "site")


@contextmanager
def four(say: Say) -> Iterator[Four]:
    """Start everything in a fresh folder, and stop and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="paroma-bench-"))
    try:
        with Programs() as programs:
            say("starting one hub and four sites")
            running = federation.prepare(folder, programs)
            running.start_hub()
            federation.join_all(running)
            federation.enrol_all(running)
            with Connection(running.talk(SCIENTIST)) as scientist:
                made = Four(running, programs, scientist)
                made.await_online()
                yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cpu_of(pid: int) -> float:
    """CPU seconds of a program, its zygote, and the workers that are gone."""
    process, total = psutil.Process(pid), 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def entries(database: Path, log: str) -> list[Entry]:
    """All entries of a log, read from its database file beside the running program."""
    return [open_entry(content, number) for number, content in enumerate(sealed(database, log))]


def sealed(database: Path, log: str, *, after: int = 0) -> list[bytes]:
    """The bytes of a log's entries from number `after` on, read likewise."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        found: Sequence[tuple[bytes]] = opened.execute(
            "select entry from audit_entries where log = ? and number >= ? order by number", (log, after)
        ).fetchall()
    return [bytes(row[0]) for row in found]
