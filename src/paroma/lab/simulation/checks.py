"""What has to be true of a federation whatever happened to it. Read from its databases after the last power cut.

Nothing here asks the programs what they believe: the sums are added up anew from the plain rows, the logs are read and proved
from their first entry, the budget is decoded from its register.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from paroma.data.catalogue.data_set import columns
from paroma.data.cohort.assemble import arrow
from paroma.data.consent import state as consent
from paroma.data.rights import ledger as rights
from paroma.data.vault.vault import open_vault
from paroma.hub.tables import RUNS
from paroma.kernel.disk import SystemDisk
from paroma.kernel.ids import PatientId, RunId
from paroma.kernel.store.database import Store
from paroma.kernel.wire import framing
from paroma.lab.simulation.federation import HOSPITALS, Federation
from paroma.lab.simulation.founding import FEATURES, Founded
from paroma.learn.algorithms import plan as algorithms, worker
from paroma.learn.algorithms.query import Feature, Query, Step
from paroma.learn.algorithms.request import Reply
from paroma.learn.disclosure import ledger
from paroma.site import facts, permits as desk
from paroma.site.parts import Site
from paroma.site.tables import RUNS as SITE_RUNS, SUMS
from paroma.trust.audit import follow, log as logs, witness
from paroma.trust.audit.checkpoint import Checkpoint
from paroma.trust.audit.entries import Entry, open_entry
from paroma.trust.audit.log import LogName
from paroma.trust.audit.notes import NoteKey
from paroma.trust.federation import members


class CheckFailed(AssertionError):
    """Something happened that must never happen."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What is left of a course. log: hash of all bytes of the federation log; trace: of everything that was noted."""

    log: str
    logs: dict[str, str]
    trace: str
    ended: dict[str, str]
    withdrawn: int
    answered: int
    seconds: float
    kills: int
    wrong: list[str] = field(default_factory=list)

    def require(self) -> None:
        """Raises CheckFailed where anything is wrong."""
        if self.wrong:
            raise CheckFailed("; ".join(self.wrong))


def check(
    federation: Federation,
    founded: Founded,
    acknowledged: Mapping[tuple[str, PatientId], int],
    runs: Mapping[str, str],
    *,
    late: bool,
) -> Seen:
    """All checks. acknowledged: withdrawals that returned, and their place in the site log. late: a run did not end in time."""
    wrong: list[str] = []
    if late:
        wrong.append(f"no run had ended {federation.loop.time():.0f} virtual seconds after the beginning: {dict(runs)}")
    wrong += [f"a program could not start: {problem!r}" for problem in federation.defects]
    hub = federation.hub().store
    shared, shared_hash = _log(hub, logs.FEDERATION, wrong, "federation log")
    site_logs = {}
    hashes = {}
    for name in HOSPITALS:
        site_logs[name], hashes[name] = _log(federation.site(name).store, logs.SITE, wrong, f"log of {name}")
        _agree(federation, name, wrong)
        _budget(federation.site(name), site_logs[name], wrong, name)
    questions = {
        str(e.facts["entry"]): (e.facts["run"], e.facts["step"])
        for entries in site_logs.values()
        for e in entries
        if e.kind == "contribution-made"
    }
    for name in HOSPITALS:
        _answers(site_logs[name], questions, wrong, name)
    _withdrawals(federation, site_logs, acknowledged, wrong)
    answered = [entry for entry in shared if entry.kind == "question-answered"]
    for entry in answered:
        _sum(federation, founded, entry, site_logs, acknowledged, wrong)
    _ends(hub, shared, wrong)
    complaints = [(c.get("message"), c.get("exception")) for c in federation.loop.complaints]
    wrong += [f"asyncio complains: {what}: {why!r}" for what, why in complaints if not isinstance(why, OSError)]
    return Seen(
        log=shared_hash,
        logs=hashes,
        trace=federation.loop.trace,
        ended=dict(runs),
        withdrawn=len(acknowledged),
        answered=len(answered),
        seconds=federation.loop.time(),
        kills=sum(federation.starts.values()) - len(federation.starts),
        wrong=wrong,
    )


def _log(store: Store, name: LogName, wrong: list[str], what: str) -> tuple[list[Entry], str]:
    """Every entry of a log, each proved by its signed head."""

    def read(tx: Connection) -> list[bytes]:
        head = logs.checkpoint(tx, name)
        return [sealed for _, sealed in follow.follow(logs.reader(tx, name), head).entries]

    try:
        sealed = store.read_now(read)
    except Exception as problem:  # noqa: BLE001  # whatever it is, the log cannot be read
        wrong.append(f"the {what} does not prove itself: {problem!r}")
        return [], ""
    return [open_entry(one, number) for number, one in enumerate(sealed)], hashlib.sha256(
        b"\n".join(sealed)
    ).hexdigest()


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


def _budget(site: Site, entries: list[Entry], wrong: list[str], name: str) -> None:
    """Each contribution's head stands in the ledger, in order; at most those that a power cut swallowed are beside them."""
    vault = open_vault(site.settings.folder / "vault", site.settings.roots, SystemDisk(), site.ports.randomness)
    kept = vault.register("budget").by_value().read()
    vault.close()
    state = None if kept is None else ledger.decode(kept)
    heads = [] if state is None else [line.head for line in state.reservations]
    said = [str(entry.facts["budget"]) for entry in entries if entry.kind == "contribution-made"]
    rest = iter(heads)
    if any(head not in rest for head in said):
        wrong.append(f"{name}: the log names a budget head that the ledger does not know, or in another order")
    if state is not None and heads and state.head != heads[-1]:
        wrong.append(f"{name}: the ledger's head is not that of its last line")
    if len(heads) != len(set(heads)) or len({line.attempt for line in state.reservations} if state else ()) != len(
        heads
    ):
        wrong.append(f"{name}: one attempt was debited twice")
    votes = {str(entry.facts["budget"]) for entry in entries if entry.kind == "vote-signed"}
    if not votes <= set(said):
        wrong.append(f"{name}: a vote names a budget that no contribution has")


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
    federation: Federation,
    site_logs: Mapping[str, list[Entry]],
    acknowledged: Mapping[tuple[str, PatientId], int],
    wrong: list[str],
) -> None:
    """None is lost: it stands in the log, and the patient may not be used."""
    for (name, patient), number in acknowledged.items():
        entries, site = site_logs[name], federation.site(name)
        if number >= len(entries) or entries[number].kind != "withdrawal":
            wrong.append(f"{name}: the acknowledged withdrawal of {patient} does not stand at {number} in its log")

        def usable(tx: Connection, site: Site = site, patient: PatientId = patient) -> bool:
            permit = desk.rows(tx)[0]
            use = facts.use_of(desk.signed_of(permit).permit)
            return consent.verdicts(tx, use, site.ports.clock.now())(patient).allowed

        if site.store.read_now(usable):
            wrong.append(f"{name}: {patient} withdrew, was told so, and may be used")


def _sum(
    federation: Federation,
    founded: Founded,
    entry: Entry,
    site_logs: Mapping[str, list[Entry]],
    acknowledged: Mapping[tuple[str, PatientId], int],
    wrong: list[str],
) -> None:
    """The sum that was disclosed is the plain sum of its members' patients, and of nobody who had withdrawn in time."""
    said: Mapping[str, Any] = entry.facts
    total: np.ndarray[Any, np.dtype[np.int64]] | None = None
    about = f"question {said['step']} of {said['run']}"
    names = {site: name for name, site in founded.sites.items()}
    inside = [names[str(member["site"])] for member in said["members"]]
    if len(inside) < 3 or len(set(inside)) != len(inside):  # owners that the permit asks for
        wrong.append(f"{about} is a sum of {inside}")
    for name in inside:
        site, entries = federation.site(name), site_logs[name]
        made = [e for e in entries if e.kind == "contribution-made" and e.facts["entry"] == said["entry"]]
        if len(made) != 1:
            wrong.append(f"{about}: {name} logs {len(made)} contributions to one attempt")
            return
        votes = [e.number for e in entries if e.kind == "vote-signed" and e.facts["entry"] == said["entry"]]
        patients, totals = site.store.read_now(partial(_plain, site=site, made=made[0], founded=founded))
        for (where, patient), number in acknowledged.items():
            if where == name and patient in patients and (not votes or number < votes[0]):
                wrong.append(f"{about}: {patient} withdrew before the first vote of {name}, and is in the sum")
        if not votes:
            wrong.append(f"{about}: {name} is in the sum and never voted")
        total = totals if total is None else total + totals
    if total is not None and hashlib.sha256(total.astype("<i8").tobytes()).hexdigest() != said["total"]:
        wrong.append(f"{about}: the sum is not the plain sum of {inside}")


def _plain(
    tx: Connection, *, site: Site, made: Entry, founded: Founded
) -> tuple[tuple[PatientId, ...], "np.ndarray[Any, np.dtype[np.int64]]"]:
    """Who was read for a contribution, and their totals, computed anew from the plain rows."""
    run, step, attempt = RunId(str(made.facts["run"])), made.facts["step"], made.facts["attempt"]
    if not isinstance(step, int) or not isinstance(attempt, int):
        raise CheckFailed("a contribution names no step")
    patients = rights.patients_in(tx, run, step, attempt)
    row = tx.execute(select(SITE_RUNS).where(SITE_RUNS.c.run == run)).mappings().one()
    permit = desk.permit_of(tx, row["permit"])
    described = msgspec.convert(columns(site.data_set(permit.data_set)), tuple[Feature, ...])
    plan = algorithms.plan(framing.unpack(bytes(row["query"]), Query, 1 << 16), described, permit)
    asked = tx.execute(select(SUMS.c.request).where(SUMS.c.run == run, SUMS.c.step == step)).scalar_one()
    request = algorithms.request(plan, framing.unpack(bytes(asked), Step, 1 << 20))
    names = [feature.name for feature in plan.features]
    matrix = np.array([founded.rows[patient] for patient in patients])[:, [FEATURES.index(n) for n in names]]
    everybody = memoryview(b"\xff" * (len(patients) // 8 + 1))
    reply = worker.compute(framing.pack(request), [memoryview(arrow(names, matrix)), everybody])
    return patients, np.frombuffer(framing.unpack(reply, Reply, 1 << 24).totals, "<i8")


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
