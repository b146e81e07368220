"""What logs, ledgers and receipts tell once the killing is over. Nothing here asks a program what it believes.

The logs are read from the database files, the budget from its sealed register, both as a restart would find them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paroma.bench.four import sealed
from paroma.data.vault.vault import open_vault
from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness
from paroma.learn.disclosure import ledger
from paroma.site import settings
from paroma.trust.audit.entries import Entry, open_entry

Question = tuple[object, object]
"""Run and step."""


@dataclass(slots=True)
class Watched:
    """One log, as anybody may read it while its program runs: what was once read there must stand there for ever."""

    database: Path
    log: str
    seen: list[bytes] = field(default_factory=list)

    def look(self) -> list[Entry]:
        """Read what is new; the new entries."""
        new = sealed(self.database, self.log, after=len(self.seen))
        start = len(self.seen)
        self.seen += new
        return [open_entry(content, start + place) for place, content in enumerate(new)]

    def gone(self) -> int:
        """Entries that were read and are not there any more, or are others now."""
        now = sealed(self.database, self.log)
        changed = sum(old != new for old, new in zip(self.seen, now, strict=False))
        return changed + max(0, len(self.seen) - len(now))


@dataclass(slots=True)
class Going:
    """What goes on, as the federation log has it: runs that are open, and their questions that were asked and not answered.

    answered: questions so far.
    """

    runs: set[object] = field(default_factory=set)
    questions: set[Question] = field(default_factory=set)
    answered: int = 0

    def take(self, entries: Iterable[Entry]) -> None:
        """Follow these entries."""
        for entry in entries:
            run = entry.facts.get("run")
            if entry.kind == "run-opened":
                self.runs.add(run)
            elif entry.kind == "attempt-opened":
                self.questions.add((run, entry.facts["step"]))
            elif entry.kind == "question-answered":
                self.questions.discard((run, entry.facts["step"]))
                self.answered += 1
            elif entry.kind == "run-ended":
                self.runs.discard(run)
                self.questions = {asked for asked in self.questions if asked[0] != run}


@dataclass(frozen=True, slots=True, kw_only=True)
class Debts:
    """A site's ledger beside its log.

    undebited: contributions without a debit of the same attempt and head, in the same order. again: attempts debited more
    than once. idle: debits after which nothing left, because the site was killed in between: spent, which is safe.
    """

    undebited: int
    again: int
    idle: int


def missing(noes: Iterable[tuple[str, int]], log: Sequence[Entry]) -> int:
    """Acknowledged withdrawals that do not stand in the log where the receipt says."""
    return sum(entry >= len(log) or log[entry].kind != "withdrawal" for _patient, entry in noes)


def unknown(runs: Iterable[str], answers: Iterable[Question], hub: Sequence[Entry]) -> int:
    """Runs that the hub said it had opened, and answers that it had reported, of which its log does not tell."""
    opened = {entry.facts["run"] for entry in hub if entry.kind == "run-opened"}
    answered = {(entry.facts["run"], entry.facts["step"]) for entry in hub if entry.kind == "question-answered"}
    return len(set(runs) - opened) + len(set(answers) - answered)


def twice(hub: Sequence[Entry], logs: Mapping[str, Sequence[Entry]]) -> int:
    """Questions answered more than once at the hub; contributions and answers that a site made more than once."""
    answered = Counter((e.facts["run"], e.facts["step"]) for e in hub if e.kind == "question-answered")
    found = sum(count - 1 for count in answered.values())
    # who sat an attempt out answers it too; which question it was is then in the logs of those who contributed
    made_by = [e for log in logs.values() for e in log if e.kind == "contribution-made"]
    question = {e.facts["entry"]: (e.facts["run"], e.facts["step"]) for e in made_by}
    for log in logs.values():
        made = Counter(e.facts["entry"] for e in log if e.kind == "contribution-made")
        given = Counter(question[e.facts["entry"]] for e in log if e.kind == "answer-given")
        found += sum(count - 1 for count in (*made.values(), *given.values()))
    return found


def debts(state: ledger.State | None, log: Iterable[Entry]) -> Debts:
    """The ledger beside the log."""
    lines = () if state is None else state.reservations
    made = [(str(e.facts["entry"]), str(e.facts["budget"])) for e in log if e.kind == "contribution-made"]
    debited = [(line.attempt, line.head) for line in lines]
    rest, undebited = iter(debited), 0
    for one in dict.fromkeys(made):  # one that was made twice is `twice`'s
        if one not in rest:
            undebited += 1
            rest = iter(debited)
    told = {attempt for attempt, _ in made}
    attempts = Counter(line.attempt for line in lines)
    return Debts(
        undebited=undebited,
        again=sum(count - 1 for count in attempts.values()),
        idle=sum(attempt not in told for attempt in attempts),
    )


def ledger_of(folder: Path) -> ledger.State | None:
    """A site's ledger as it lies in its vault; None before the first debit. Raises VaultInUse while the site runs."""
    vault = open_vault(folder / "vault", settings.load(folder).roots, SystemDisk(), OsRandomness())
    try:
        kept = vault.register("budget").by_value().read()
    finally:
        vault.close()
    return None if kept is None else ledger.decode(kept)
