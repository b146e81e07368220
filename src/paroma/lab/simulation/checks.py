"""What has to be true of a federation whatever happened to it. Read from its databases after the last power cut.

Nothing here asks the programs what they believe: the sums are added up anew from the plain rows, the logs are read and proved
from their first entry, the budget is decoded from its register.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, select

from paroma.data.consent import state as consent
from paroma.data.vault.vault import open_vault
from paroma.hub.tables import RUNS
from paroma.kernel.disk import SystemDisk
from paroma.kernel.ids import PatientId
from paroma.kernel.store.database import Store
from paroma.lab.simulation import liveness
from paroma.lab.simulation.federation import HOSPITALS, Federation
from paroma.lab.simulation.founding import PRIVACY, Founded
from paroma.lab.simulation.history import Course, History, at_rest, entries_of, whole
from paroma.lab.simulation.sums import check_sum, plain_of
from paroma.learn.disclosure import ledger
from paroma.learn.dp import accountants
from paroma.site import facts, permits as desk
from paroma.site.parts import Site
from paroma.trust.audit import log as logs, witness
from paroma.trust.audit.checkpoint import Checkpoint
from paroma.trust.audit.entries import Entry, open_entry
from paroma.trust.audit.log import LogName
from paroma.trust.audit.notes import NoteKey
from paroma.trust.federation import members


class CheckFailed(AssertionError):
    """Something happened that must never happen."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What is left of a course. log: hash of all bytes of the federation log; trace: of everything that was noted.

    why: of each run, `liveness.FINISHED` or the rule that kept it from a result. kinds: the troubles and questions in it. refused:
    starts of a program that it refused itself.
    """

    log: str
    logs: dict[str, str]
    trace: str
    ended: dict[str, str]
    why: dict[str, str]
    kinds: Counter[str]
    withdrawn: int
    answered: int
    lies: int
    seconds: float
    kills: int
    refused: tuple[str, ...]
    wrong: list[str] = field(default_factory=list)

    def require(self) -> None:
        """Raises CheckFailed where anything is wrong."""
        if self.wrong:
            raise CheckFailed("; ".join(self.wrong))


def check(federation: Federation, founded: Founded, course: Course) -> Seen:
    """All checks."""
    wrong: list[str] = []
    if course.late:
        wrong.append(f"a run goes on {federation.loop.time():.0f} virtual seconds after the beginning: {course.runs}")
    wrong += [f"a program could not start: {problem!r}" for problem in federation.defects]
    hub = federation.hub().store
    sealed, shared_hash = _log(hub, logs.FEDERATION, wrong, "federation log")
    shared = [open_entry(one, number) for number, one in enumerate(sealed)]
    with ExitStack() as opened:
        histories, hashes, spent = {}, {}, set[str]()
        for name in HOSPITALS:
            current, old = federation.store_of(name), course.forgotten.get(name)
            if current is None:
                current = opened.enter_context(at_rest(federation.folder / name))
            forgotten = None if old is None else opened.enter_context(at_rest(old))
            now, hashes[name] = _log(current, logs.SITE, wrong, f"log of {name}")
            histories[name] = whole(name, now, current, forgotten, course.shift.get(name, 0))
            if old is None:
                _agree(federation, name, wrong)
                _withdrawals(federation.site(name), histories[name], course.acknowledged, wrong)
            wrong += _budget(federation, founded, histories[name], spent)
        questions = {
            str(e.facts["entry"]): (e.facts["run"], e.facts["step"])
            for history in histories.values()
            for _, e in history.of("contribution-made")
        }
        for history in histories.values():
            _answers(history.entries, questions, wrong, history.name)
        known = {
            (name, patient): place
            for (name, patient), place in course.acknowledged.items()
            if place < course.shown.get(name, place + 1)  # else it was forgotten with all that told of it
        }
        answered = [entry for entry in shared if entry.kind == "question-answered"]
        for entry in answered:
            wrong += check_sum(founded, entry, histories, known)
        _ends(hub, shared, wrong)
        why = dict(_reasons(federation, founded, course, shared, histories, spent, wrong))
    complaints = [(c.get("message"), c.get("exception")) for c in federation.loop.complaints]
    wrong += [f"asyncio complains: {what}: {odd!r}" for what, odd in complaints if not isinstance(odd, OSError)]
    return Seen(
        log=shared_hash,
        logs=hashes,
        trace=federation.loop.trace,
        ended=dict(course.runs),
        why=why,
        kinds=course.plot.kinds(),
        withdrawn=len(course.acknowledged),
        answered=len(answered),
        lies=len(course.told),
        seconds=federation.loop.time(),
        kills=sum(federation.starts.values()) - len(federation.starts),
        refused=tuple(federation.refused_starts),
        wrong=wrong,
    )


def _log(store: Store, name: LogName, wrong: list[str], what: str) -> tuple[list[bytes], str]:
    """Every entry of a log, each proved by its signed head, and a hash over all."""
    try:
        sealed = entries_of(store, name)
    except Exception as problem:  # noqa: BLE001  # whatever it is, the log cannot be read
        wrong.append(f"the {what} does not prove itself: {problem!r}")
        return [], ""
    return sealed, hashlib.sha256(b"\n".join(sealed)).hexdigest()


def _reasons(
    federation: Federation,
    founded: Founded,
    course: Course,
    shared: list[Entry],
    histories: Mapping[str, History],
    spent: Collection[str],
    wrong: list[str],
) -> Iterator[tuple[str, str]]:
    """Each run with its result, or with the rule that kept it from one."""
    starts = federation.starts["hub"]
    rows = federation.hub().store.read_now(lambda tx: tx.execute(select(RUNS).order_by(RUNS.c.run)).mappings().all())
    for row in rows:
        found = liveness.why(row, shared, histories, founded, course, hub_starts=starts, spent=spent)
        if found is None:
            wrong.append(
                f"{row['run']} came to no result (`{row['status']}`: {row['reason']}), and no rule says why not"
            )
        yield row["run"], found or "nothing"


def _agree(federation: Federation, name: str, wrong: list[str]) -> None:
    """What hub and site have seen of each other's log is a beginning of what that log is."""
    hub, site = federation.hub(), federation.site(name)
    ours = site.store.read_now(
        lambda tx: (witness.seen(tx, site.federation.name), witness.trouble(tx, site.federation.name))
    )
    _beginning(hub.store, logs.FEDERATION, *ours, wrong, f"the federation log that {name} has seen")
    vkey = hub.store.read_now(lambda tx: members.member(tx, site.membership.site)).log_vkey
    origin = NoteKey.parse(vkey).name
    theirs = hub.store.read_now(lambda tx: (witness.seen(tx, origin), witness.trouble(tx, origin)))
    _beginning(site.store, logs.SITE, *theirs, wrong, f"the log of {name} that the hub has seen")


def shown(federation: Federation, name: str) -> int:
    """How many entries of a site's log the hub has seen."""
    hub, site = federation.hub().store, federation.site(name).membership.site
    vkey = hub.read_now(lambda tx: members.member(tx, site)).log_vkey
    seen = hub.read_now(lambda tx: witness.seen(tx, NoteKey.parse(vkey).name))
    return 0 if seen is None else seen.size


def _beginning(
    store: Store, name: LogName, seen: Checkpoint | None, trouble: object, wrong: list[str], what: str
) -> None:
    if trouble is not None:
        wrong.append(f"{what} counts as inconsistent: {trouble}")
    if seen is None:
        return
    size, root = store.read_now(
        lambda tx: (
            logs.checkpoint(tx, name).size,
            logs.root_at(tx, name, seen.size) if seen.size <= logs.checkpoint(tx, name).size else b"",
        )
    )
    if seen.size > size or root != seen.root:
        wrong.append(f"{what} is no beginning of that log")


def _budget(federation: Federation, founded: Founded, history: History, spent: set[str]) -> list[str]:
    """Each contribution's head stands in the ledger, in order; at most those that a power cut swallowed are beside them.

    What a patient has spent is what the contributions cost that she was read for, and never more than the permit's limit: over all
    lives of the site, also where an older ledger was brought back. spent: takes up the site if nothing is left for a question.
    """
    wrong, name = [], history.name
    made = history.of("contribution-made")
    cost, limit = accountants.cost(PRIVACY), accountants.limit(PRIVACY)
    private = federation.runs_under(founded.private)
    read = Counter(
        patient
        for _, entry in made
        if entry.facts["run"] in private
        for patient in history.read(partial(plain_of, made=entry, founded=founded)).patients
    )
    wrong += [f"{name}: {patient} was read for more than her budget" for patient, n in read.items() if n * cost > limit]
    attempts = [str(entry.facts["entry"]) for _, entry in made]
    if len(attempts) != len(set(attempts)):
        wrong.append(f"{name}: one attempt was computed twice")
    if history.lost:
        return wrong
    site = federation.site(name)
    vault = open_vault(site.settings.folder / "vault", site.settings.roots, SystemDisk(), site.ports.randomness)
    kept = vault.register("budget").by_value().read()
    vault.close()
    state = None if kept is None else ledger.decode(kept)
    lines = () if state is None else state.reservations
    heads = [line.head for line in lines]
    said = [str(entry.facts["budget"]) for _, entry in made]
    rest = iter(heads)
    if any(head not in rest for head in said):
        wrong.append(f"{name}: the log names a budget head that the ledger does not know, or in another order")
    if state is not None and heads and state.head != heads[-1]:
        wrong.append(f"{name}: the ledger's head is not that of its last line")
    if len(heads) != len(set(heads)) or len({line.attempt for line in lines}) != len(heads):
        wrong.append(f"{name}: one attempt was debited twice")
    if not {str(entry.facts["budget"]) for _, entry in history.of("vote-signed")} <= set(said):
        wrong.append(f"{name}: a vote names a budget that no contribution has")
    swallowed = sum(line.permit == founded.private and line.head not in said for line in lines)
    for patient in founded.patients[name]:
        debited = 0 if state is None else ledger.spent(state, founded.study, patient)
        times, over = divmod(debited, cost)
        if over or not read[patient] <= times <= read[patient] + swallowed or debited > limit:
            wrong.append(f"{name}: {patient} was read {read[patient]} times and debited {times} times")
        if debited + cost > limit:
            spent.add(name)
    return wrong


def _answers(entries: list[Entry], questions: Mapping[str, object], wrong: list[str], name: str) -> None:
    """At most one attempt of each question is answered, and no vote follows an answer or a no.

    questions: run and step of each attempt to which some site contributed. A site may answer for a set without it: its
    shares help to take off the masks of those who are in it.
    """
    answered: dict[object, str] = {}
    declined = set()
    for entry in entries:
        about = str(entry.facts.get("entry", ""))
        question = questions.get(about, about)
        if entry.kind == "vote-signed":
            if about in declined:
                wrong.append(f"{name} voted for an attempt that it had declined")
            if question in answered:
                wrong.append(f"{name} voted again after it had answered the question")
        elif entry.kind == "vote-declined":
            declined.add(about)
        elif entry.kind == "answer-given" and answered.setdefault(question, about) != about:
            wrong.append(f"{name} answered the question {question} twice")


def _withdrawals(
    site: Site, history: History, acknowledged: Mapping[tuple[str, PatientId], int], wrong: list[str]
) -> None:
    """None is lost: it stands in the log, the patient may not be used."""
    name, entries = history.name, history.entries
    for (where, patient), place in acknowledged.items():
        if where != name:
            continue
        if place >= len(entries) or entries[place].kind != "withdrawal":
            wrong.append(f"{name}: the acknowledged withdrawal of {patient} does not stand at {place} in its log")

        def usable(tx: Connection, patient: PatientId = patient) -> bool:
            permit = desk.rows(tx)[0]
            use = facts.use_of(desk.signed_of(permit).permit)
            return consent.verdicts(tx, use, site.ports.clock.now())(patient).allowed

        if site.store.read_now(usable):
            wrong.append(f"{name}: {patient} withdrew, was told so, and may be used")


def _ends(hub: Store, shared: list[Entry], wrong: list[str]) -> None:
    """What the hub tells of a run is what the log tells."""
    told = {str(e.facts["run"]): bool(e.facts["finished"]) for e in shared if e.kind == "run-ended"}
    if len(told) != sum(e.kind == "run-ended" for e in shared):
        wrong.append("a run ended twice")
    rows = hub.read_now(lambda tx: tx.execute(select(RUNS.c.run, RUNS.c.status, RUNS.c.ended)).all())
    wrong += [
        f"the hub says `{row.status}` of {row.run}, the log does not"
        for row in rows
        if (row.ended is not None) != (row.run in told) or (row.status == "finished") != told.get(row.run, False)
    ]
    steps = [(e.facts["run"], e.facts["step"]) for e in shared if e.kind == "question-answered"]
    if len(steps) != len(set(steps)):
        wrong.append("one question was answered twice")
