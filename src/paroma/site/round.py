"""The way of a run at a site, and the one place where trust, data and learn meet.

A message of the hub moves the pure machine of its run. In ONE transaction: the message is counted, policy decides on fresh facts,
consent is read, the machine's new state is kept, receipts and log entries are written, and what is to be sent is put into the
outbox. Only then does anything leave. A withdrawal runs in the same order of transactions, so it is before a vote, and found, or
after it, and the receipt says so.

Computing is long and stands outside of transactions: `_contribute` reads the cohort that may be used at that moment, lets a
sandboxed worker compute, and the door lets out one masked vector; the exact bytes are durable before the first leaves. Whatever
is lost on the way is a round that this site sits out, never a second vector under one mask.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from paroma.data.catalogue.data_set import DataSet, columns
from paroma.data.cohort.assemble import Cohort, assemble
from paroma.data.consent import state as consent
from paroma.data.consent.bits import Board
from paroma.data.consent.statement import Verdict
from paroma.data.rights import ledger as rights
from paroma.data.vault.sealed import Register
from paroma.data.vault.vault import Vault
from paroma.kernel.blocking import Blocking
from paroma.kernel.canonical import Json
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError, Unavailable
from paroma.kernel.ids import PatientId, RunId, SiteId, printable
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import Store, upsert
from paroma.kernel.wire import framing
from paroma.learn.algorithms.query import Feature
from paroma.learn.disclosure import memory
from paroma.learn.disclosure.control import DifferencingRefused
from paroma.learn.disclosure.door import Update, let_out
from paroma.learn.disclosure.ledger import Kept
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.learn.runs import messages, question, site as machine, work as works
from paroma.learn.runs.crypto import Signing
from paroma.learn.runs.messages import (
    Closed,
    Complete,
    OpenAttempt,
    Opening,
    Participant,
    Proposal,
    RunInvitation,
)
from paroma.learn.runs.question import Asking
from paroma.learn.runs.site import SiteState
from paroma.learn.sandbox.task import Task, WorkerFailed, Workers
from paroma.learn.secagg import masks
from paroma.learn.secagg.agreement import Kem
from paroma.site import anchors, facts, limits, permits as permit_desk
from paroma.site.anchors import Anchors
from paroma.site.gate import Gate
from paroma.site.tables import ENTRIES, MASKED, MEMORY, RUNS, SUMS
from paroma.trust.audit import covered
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import NoteKey
from paroma.trust.channel import outbox, uploads
from paroma.trust.channel.caller import Caller
from paroma.trust.channel.line import Arrival
from paroma.trust.federation import members
from paroma.trust.keys.signing import SigningKey
from paroma.trust.permit.permit import Permit, SignedPermit, digest
from paroma.trust.policy.decide import Decision
from paroma.trust.policy.facts import Entity
from paroma.trust.policy.obligations import NOTHING

RunMessage = messages.AllKeys | messages.AllCiphertexts | OpenAttempt | Proposal | Complete | Closed | messages.Stopped
SEALED = b"paroma/site-run/v1\n"

# statements of the hot path, built once: building them costs more than running them
_ROW = select(RUNS).where(RUNS.c.run == bindparam("name"))
_KEEP = update(RUNS).where(RUNS.c.run == bindparam("name")).values(state=bindparam("to"), over=bindparam("ended"))
_RUN_OF = select(ENTRIES.c.run).where(ENTRIES.c.entry == bindparam("name"))
_SUMS = select(SUMS).where(SUMS.c.run == bindparam("name"), SUMS.c.step.between(bindparam("first"), bindparam("last")))
_OTHERS = (
    select(func.count())
    .select_from(SUMS.join(RUNS, RUNS.c.run == SUMS.c.run))
    .where(RUNS.c.permit == bindparam("name"))
    .where((SUMS.c.run != bindparam("this")) | (SUMS.c.step != bindparam("step_now")))
)
FIRST_ANSWER = (
    30.0  # s that a site which has just started waits for the hub's first answer before it decides on a contribution
)


@dataclass(slots=True, kw_only=True)
class Parts:
    """What the rounds of a site stand on."""

    me: SiteId
    store: Store
    journal: Journal
    gate: Gate
    vault: Vault
    board: Board
    budget: Kept
    anchors: Register
    workers: Workers
    caller: Caller
    wake: Callable[[], None]
    federation: NoteKey
    cosigned: Callable[[], str]
    walls_missing: Callable[[], frozenset[str]]
    data_set: Callable[[str], DataSet]
    key: SigningKey
    sealing: bytes
    kem: Kem
    clock: Clock
    randomness: Randomness
    blocking: Blocking
    seconds: float
    hour: Callable[[float], int]  # of the day here, at a time (unix s)


@dataclass(slots=True, kw_only=True)
class _Held:
    """A cohort in memory: the patients that could be used when it was read, and their live bits."""

    name: str
    cohort: Cohort
    fd: int
    seq: int  # the last change of consent that the bits are known to show


@dataclass(frozen=True, slots=True)
class _About:
    """What a contribution is about. bundle: of a Flower app."""

    permit: Permit
    asking: Asking
    bundle: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What the worker gave. seq: the last change of consent that its bits showed."""

    contribution: Update
    seq: int

    @property
    def selected(self) -> tuple[PatientId, ...]:
        """The patients whom the figures are about."""
        return self.contribution.selected or self.contribution.patients


class _Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What a first vote will commit without privacy: the patients that the question is about, as `memory.cohort`."""

    cohort: bytes


@dataclass(slots=True, kw_only=True)
class After:
    """What follows a transaction. anchored: revisions to be kept outside of the database before `mail` may leave. log: the
    least size of the site's log, once what commits the site stands in it; 0 where nothing does.
    """

    anchored: dict[str, int] = field(default_factory=dict)
    log: int = 0
    mail: list[tuple[str, bytes]] = field(default_factory=list)

    compute: list[machine.Compute] = field(default_factory=list)
    over: list[RunId] = field(default_factory=list)
    cut: list[RunId] = field(default_factory=list)  # whatever computes for these is in vain


class Rounds:
    """All runs of this site."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._aead = AESGCM(parts.sealing)
        self._remembering = hmac.digest(parts.sealing, b"paroma/memory/v1\n", "sha256")
        self._cohorts: dict[str, _Held] = {}
        self._computing: dict[str, asyncio.Task[None]] = {}
        self._anchored = Anchors()  # what is to be anchored
        self._kept = self._anchored  # what is
        self._anchoring = asyncio.Lock()
        self._reading: set[str] = set()  # runs whose cohort is being read

    # -- starting and stopping

    async def start(self) -> None:
        """Take up every run that is not over, from the state that was kept and its anchor outside of the database."""
        self._anchored = self._kept = await self._p.blocking.run(lambda: anchors.read(self._p.anchors))

        def again(tx: Connection) -> After:
            after = After()
            for row in _open_runs(tx):
                event = machine.Restarted(anchored=self._anchored.runs.get(row["run"], 0))
                # byte for byte what was kept: a crash may have come before it reached the outbox, and twice does no harm
                self._move(tx, row, event, _now_or_never, after, mark="restart")
            return after

        await self.settle(await self._p.store.write(again))

    async def stop(self) -> None:
        """Cut what computes; it is done again, or sat out, after the next start."""
        tasks = list(self._computing.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- messages of the hub

    async def invited(self, arrival: Arrival, message: RunInvitation) -> None:
        """Take part in a run? Only under a permit that this site verified itself. Raises Refused, BadInput."""
        p = self._p
        signed = framing.unpack(message.permit, SignedPermit, 1 << 20)
        query = question.unpack_query(message.query)

        def begin(tx: Connection) -> None:
            if not arrival.admit(tx) or _row(tx, message.run) is not None:
                return
            permit = permit_desk.require_valid(tx, signed, p.clock.now())
            question.asking(query, _features(p.data_set(permit.data_set)), permit)
            known = {m.site: m for m in members.members(tx)}
            participants = tuple(
                sorted(
                    (
                        Participant(site=one.site, owner=one.owner, key=known[one.site].key.thumbprint)
                        for one in permit.participants
                        if one.site in known
                    ),
                    key=lambda one: one.site,
                )
            )
            terms = machine.Terms(
                permit=digest(permit),
                m=permit.least_owners,
                c=permit.colluders,
                attempts=permit.attempts,
                questions=permit.questions,
                participants=participants,
            )
            state, effects = machine.begin(p.me, terms, message, self._crypto(tx))
            p.journal.write(tx, "run-entered", run=message.run, permit=digest(permit), attestation=permit.attestation)
            tx.execute(
                insert(RUNS).values(
                    run=message.run,
                    permit=permit.id,
                    query=message.query,
                    state=self._seal(state),
                    over=False,
                    seq=0,
                    pending=None,
                    opened=p.clock.now(),
                )
            )
            self._send(tx, state, state, effects, After(), "begin")

        await p.store.write(begin)
        p.wake()

    async def stay_out(self, arrival: Arrival, message: RunInvitation, why: ParomaError) -> None:
        """Tell the hub at once that this site does not take part: nobody has to wait for it. Why stands in this site's log."""
        p = self._p

        def say(tx: Connection) -> None:
            if not arrival.admit(tx):
                return
            p.journal.write(tx, "run-refused", run=message.run, because=printable(why.message, longest=300))
            said = messages.StaysOut(run=message.run, site=p.me)
            outbox.send(tx, f"{message.run}/stays-out", framing.pack(said), now=p.clock.now())

        await p.store.write(say)
        p.wake()

    async def heard(self, arrival: Arrival, message: RunMessage) -> None:
        """Any later message of a run. Raises Refused, BadInput; what is refused changes nothing."""

        def move(tx: Connection) -> After:
            after = After()
            if not arrival.admit(tx):
                return after
            row = _row(tx, self._run_of(tx, message))
            if row is None and isinstance(message, messages.Stopped):
                return after  # of a run that this site stays out of: everybody is told its end
            if row is None:
                raise BadInput("a message of a run that this site did not enter", do="invite it first")
            clean = self._judge(tx, row, message)
            if clean is not None:  # else policy refuses to answer: nothing is said, and the log keeps the reason
                self._move(tx, row, message, clean, after, mark=str(arrival.seq))
            return after

        await self.settle(await self._p.store.write(move))

    def withdrawn(self, tx: Connection) -> After:
        """In the transaction that wrote a withdrawal: tell every run that is not over. `settle` what it returns after the commit."""
        after = After()
        for row in _open_runs(tx):
            clean = self._clean(tx, row)
            self._move(tx, row, machine.Withdrawn(), clean, after, mark=f"withdrawn/{consent.sequence(tx)}")
        return after

    def permit_ended(self, tx: Connection, permit: str) -> After:
        """In the transaction that ended a permit here: its runs compute, and commit, nothing more. `settle` what it returns."""
        after = After()
        for row in _open_runs(tx):
            if row["permit"] == permit:
                now = self._open(bytes(row["state"])).attempt
                awaited = now is not None and now.upload is None
                event = (
                    machine.CannotContribute(entry=now.entry) if now is not None and awaited else machine.Withdrawn()
                )
                self._move(tx, row, event, lambda: False, after, mark="permit-ended")
                after.cut.append(RunId(row["run"]))
        return after

    def holding(self, tx: Connection, patient: PatientId) -> tuple[RunId, ...]:
        """The runs that are not over and have this patient's row in memory, or in what they contributed."""
        read = {use.run for use in rights.uses_of(tx, patient)}
        # a cohort that is being read may have been begun before the patient's no
        held = {run for run, one in self._cohorts.items() if patient in one.cohort.patients} | self._reading
        return tuple(RunId(row["run"]) for row in _open_runs(tx) if row["run"] in read | held)

    async def settle(self, after: After) -> None:
        """After a commit: anchor what must never be forgotten, then let leave what rests on it, then begin what is to be computed.

        A crash before the anchor leaves a state that is newer than its anchor, and messages that `Restarted` gives again. A database
        restored from an older disk is older than its anchor, and is seen to be.
        """
        p = self._p
        if after.anchored or after.over or after.log > self._anchored.log:
            runs = {run: at for run, at in (self._anchored.runs | after.anchored).items() if run not in after.over}
            self._anchored = Anchors(runs=runs, log=max(self._anchored.log, after.log))
        if self._kept is not self._anchored:  # also what could not be written the last time
            async with (
                self._anchoring
            ):  # two at once would compare and swap each other away; the later keeps what both say
                now_kept = self._anchored
                if self._kept is not now_kept:
                    await p.blocking.run(lambda: anchors.write(p.anchors, now_kept))
                    self._kept = now_kept
        if after.mail:
            now = p.clock.now()

            def post(tx: Connection) -> None:
                for name, body in after.mail:
                    outbox.send(tx, name, body, now=now)

            await self._durably(post)  # what asked for it is admitted already: nobody would ask again before a restart
        self._follow(after)
        p.wake()

    # -- one step

    def _judge(self, tx: Connection, row: RowMapping, message: RunMessage) -> Callable[[], bool] | None:
        """What has to hold beside the machine's own rules, read in this transaction; the question that the machine asks.

        None where policy refuses: an exception would take the log's entry about it back.
        """
        p = self._p
        if isinstance(message, OpenAttempt):
            self._check_asked(tx, row, message)
        if isinstance(message, Proposal | Complete):
            permit = permit_desk.permit_of(tx, row["permit"])
            study = Entity("Study", permit.study)
            now, cosigned = p.clock.now(), p.cosigned()
            if isinstance(message, Proposal):
                state = self._open(bytes(row["state"]))
                if state.attempt is not None and state.attempt.entry == message.entry:
                    sealed = messages.entry_bytes(state.attempt.opening)
                    k = facts.quorum_of(permit)
                    covered.check(message.checkpoint, sealed, p.federation, facts.witnesses_of(tx, permit), k, now=now)
                asked = facts.vote(tx, permit, p.me, cosigned, p.federation.name, now)
                decision = p.gate.allows(tx, asked, study, run=row["run"], entry=message.entry)
                clean = self._clean(tx, row)
                enough = len(message.members) >= (decision.obligations.least_sites or 0)
                return lambda: decision.allowed and enough and clean()
            decision = p.gate.allows(
                tx,
                facts.answer(tx, permit, p.me, cosigned, p.federation.name, now),
                study,
                run=row["run"],
                entry=message.entry,
            )
            if not decision.allowed:
                return None
        return self._clean(tx, row)

    def _check_asked(self, tx: Connection, row: RowMapping, message: OpenAttempt) -> None:
        """The model that came is the one that follows from the last sum. Raises BadInput for another."""
        opening = messages.read_entry(message.entry)
        asked = question.unpack_step(message.request)
        found = tx.execute(_SUMS, {"name": row["run"], "first": opening.step - 1, "last": opening.step})
        sums = {told["step"]: told for told in found.mappings()}
        now, before = sums.get(opening.step), sums.get(opening.step - 1)
        if now is not None and bytes(now["request"]) != message.request:
            raise BadInput("another attempt at this question asked something else", do="ask the same again")
        if opening.step > 1 and (before is None or before["total"] is None):
            raise BadInput("the sum of the step before never came", do="send the sums in order")
        told = None
        if before is not None:
            told = (question.unpack_step(bytes(before["request"])), bytes(before["total"]))
        self._asking(tx, row).check(asked, opening.step, told)
        kept = {"run": row["run"], "step": opening.step, "request": message.request, "total": None}
        tx.execute(upsert(tx, SUMS).values(kept).on_conflict_do_nothing())
        entry = {"entry": messages.sha256(message.entry), "run": row["run"]}
        tx.execute(upsert(tx, ENTRIES).values(entry).on_conflict_do_nothing())

    def _clean(self, tx: Connection, row: RowMapping) -> Callable[[], bool]:
        """Whether nobody in the current contribution has withdrawn: asked in this transaction, at the machine's decision."""
        state = self._open(bytes(row["state"]))

        def ask() -> bool:
            now = state.attempt
            if now is None or now.upload is None:
                return True
            permit = permit_desk.permit_of(tx, row["permit"])
            read = rights.patients_in(tx, RunId(row["run"]), now.opening.step, now.opening.attempt)
            tainted = consent.tainted(
                tx, facts.use_of(permit), frozenset(read), since=row["seq"], at=self._p.clock.now()
            )
            return not tainted and (bool(now.votes) or self._still_apart(tx, row, permit))

        return ask

    def _still_apart(self, tx: Connection, row: RowMapping, permit: Permit) -> bool:
        """Whether committing the current contribution still singles out nobody: another run may have committed since it was
        computed. Asked in the transaction of the first vote, which is the disclosure.
        """
        if row["pending"] is None or permit.privacy is not None:
            return True
        said = msgspec.msgpack.decode(row["pending"], type=_Committed)
        try:
            memory.admit(self._memory(tx), run=RunId(row["run"]), cohort=said.cohort, floor=permit.least_patients)
        except (DifferencingRefused, memory.SitsOut, memory.MemoryFull):
            return False
        return True

    def _move(
        self,
        tx: Connection,
        row: RowMapping,
        event: machine.Event,
        clean: Callable[[], bool],
        after: After,
        *,
        mark: str,
    ) -> None:
        before = self._open(bytes(row["state"]))
        state, effects = machine.step(before, event, self._crypto(tx), clean)
        changed = state.revision != before.revision
        if changed:
            tx.execute(_KEEP, {"name": row["run"], "to": self._seal(state), "ended": state.over})
        for effect in effects:
            if changed or not isinstance(effect, machine.Send):  # what is only sent again stands in the log already
                self._do(tx, row, effect, after)
        self._send(tx, state, before, effects, after, mark)

    def _do(self, tx: Connection, row: RowMapping, effect: machine.Effect, after: After) -> None:
        journal, run = self._p.journal, RunId(row["run"])
        match effect:
            case machine.Compute():
                after.compute.append(effect)
            case machine.Send(message=messages.Vote(entry=entry, members=members_, budget=budget)):
                inside = messages.sha256(messages.vote_statement(entry, members_))
                after.log = 1 + journal.write(tx, "vote-signed", run=run, entry=entry, set=inside, budget=budget)
            case machine.Send(message=messages.Decline(entry=entry)):
                after.log = 1 + journal.write(tx, "vote-declined", run=run, entry=entry)
            case machine.Send(message=messages.Answer(entry=entry)):
                after.log = 1 + journal.write(tx, "answer-given", run=run, entry=entry)
            case machine.Counted(step=step, attempt=attempt, at=at):
                rights.commit_use(tx, run, step, attempt, at)
                self._commit(tx, run)
            case machine.NotCounted(entry=entry, step=step, attempt=attempt):
                rights.recall_use(tx, run, step, attempt)
                journal.write(tx, "not-counted", run=run, entry=entry)
            case machine.Learned(closed=closed):
                mine = (SUMS.c.run == run, SUMS.c.step == closed.step)
                tx.execute(update(SUMS).where(*mine).values(total=closed.total, salt=closed.salt))
            case machine.Ended(finished=finished, reason=reason):
                journal.write(tx, "run-left", run=run, finished=finished, reason=printable(reason, longest=300))
                after.over.append(run)
            case machine.Rejected(why=why):
                journal.write(tx, "message-rejected", run=run, why=why)
            case _:
                pass

    def _send(
        self,
        tx: Connection,
        state: SiteState,
        before: SiteState,
        effects: Iterable[machine.Effect],
        after: After,
        mark: str,
    ) -> None:
        """Put messages into the outbox; those that commit the site to something only once that is anchored (`settle`)."""
        if _commits(state, before):
            after.anchored[state.run] = state.revision
        for place, effect in enumerate(effects):
            if not isinstance(effect, machine.Send):
                continue
            name, body = f"{state.run}/{state.revision}/{mark}/{place}", framing.pack(effect.message)
            if after.anchored or self._kept.runs.get(state.run) != self._anchored.runs.get(state.run):
                after.mail.append((name, body))
            else:
                outbox.send(tx, name, body, now=self._p.clock.now())

    def _follow(self, after: After) -> None:
        for run in (*after.over, *after.cut):
            under_way = self._computing.get(run)
            if under_way is not None and under_way is not asyncio.current_task():
                under_way.cancel()  # its worker ends with it
        for run in after.over:
            self._p.board.close(run)
            self._cohorts.pop(run, None)
        for compute in after.compute:
            old = self._computing.get(compute.opening.run)
            if old is not None and not old.done():
                old.cancel()
            task = asyncio.get_running_loop().create_task(self._contribute(compute))
            self._computing[compute.opening.run] = task

    async def _durably(self, work: Callable[[Connection], None]) -> None:
        """Write, and again after a pause while the database cannot: a site that says nothing keeps the others waiting."""
        while True:
            try:
                await self._p.store.write(work)
            except Unavailable:
                await self._p.clock.sleep(1.0)
            else:
                return

    # -- a contribution

    async def _contribute(self, asked: machine.Compute) -> None:
        """Decide, read, compute, let out; whatever goes wrong is a round that this site sits out."""
        run, meter = asked.opening.run, limits.Meter(obliged=NOTHING)
        try:
            await self._let_out(asked, meter)
        except asyncio.CancelledError:
            raise
        except Exception as problem:  # noqa: BLE001  # a site that says nothing would keep the others waiting
            kind = type(problem).__name__
            why = problem.message if isinstance(problem, ParomaError | WorkerFailed) else "an error of the program"
            cut = limits.cut(problem, meter, self._p.seconds)

            def sit_out(tx: Connection) -> None:
                row = _row(tx, run)
                if row is None:
                    return
                if cut is not None:
                    done = _metered(tx, run, meter.seconds, 0)
                    self._p.journal.write(tx, "cut-at-limit", run=run, entry=asked.entry, **cut, **done)
                self._p.journal.write(
                    tx, "sat-out", run=run, entry=asked.entry, error=kind, why=printable(why, longest=300)
                )
                event = machine.CannotContribute(entry=asked.entry)
                self._move(tx, row, event, _now_or_never, After(), mark="sits-out")

            try:
                await self._durably(sit_out)
            except Unavailable:
                return  # nothing can be written here: the hub goes on without this site after its patience
            self._p.wake()

    async def _let_out(self, asked: machine.Compute, meter: limits.Meter) -> None:
        p, run, E = self._p, asked.opening.run, asked.entry
        opening = asked.opening
        permit, asking, bundle = await p.store.read(lambda tx: self._about(tx, run))
        await self._hub_answered()
        held = await self._cohort(run, permit, asking)
        if permit.privacy is not None:
            able = await p.blocking.run(lambda: p.budget.admissible(permit, held.cohort.patients))
            if len(able) < len(held.cohort.patients):
                held = await self._cohort(run, permit, asking, only=frozenset(able))
        read = await self._read(asked, meter, _About(permit, asking, bundle), held)
        pending = None
        if permit.privacy is None:
            known = await p.store.read(self._memory)
            try:
                cohort = await p.blocking.run(lambda: self._admitted(known, run, permit, read.selected))
            except DifferencingRefused:
                only = await p.blocking.run(lambda: self._only(known, permit, held, read.selected))
                held = await self._cohort(run, permit, asking, only=only)
                read = await self._read(asked, meter, _About(permit, asking, bundle), held)
                cohort = await p.blocking.run(lambda: self._admitted(known, run, permit, read.selected))
            pending = msgspec.msgpack.encode(_Committed(cohort=cohort))
        state = await p.store.read(lambda tx: self._state(tx, run))
        contribution, used, seq = read.contribution, read.contribution.patients, read.seq
        put_on = masks.masker(contribution.layout, machine.masks_of(state, self._signing({})))
        masked = await p.blocking.run(
            lambda: let_out(
                contribution,
                permit=permit,
                ledger=p.budget,
                noise=DiscreteGaussian(p.randomness),
                masks=put_on,
            )
        )
        bits = _packed(used, held.cohort)
        whole = hashlib.sha256(masked.upload)
        inline = masked.upload if len(masked.upload) <= uploads.MOST_INLINE else None
        if inline is None:
            kept = {"entry": E, "content": masked.upload}
            await p.store.write(lambda tx: tx.execute(upsert(tx, MASKED).values(kept).on_conflict_do_nothing()))
            await uploads.send_body(p.caller, masked.upload, p.blocking)

        def keep(tx: Connection) -> After:
            after = After()
            now = _require(tx, run)
            awaited = self._open(bytes(now["state"])).attempt
            if awaited is None or awaited.entry != E or awaited.upload is not None:
                return after  # computed twice, or too late: what the first reading noted must stay as it is
            tainted = consent.tainted(tx, facts.use_of(permit), frozenset(used), since=seq, at=p.clock.now())
            tx.execute(update(RUNS).where(RUNS.c.run == run).values(seq=seq, pending=pending))
            _metered(tx, run, meter.seconds, len(masked.upload))
            rights.record_cohort(tx, held.name, held.cohort.patients, held.cohort.rules)
            rights.record_use(
                tx,
                rights.Asked(
                    permit=permit.id,
                    study=permit.study,
                    title=permit.title,
                    purpose=permit.purpose,
                    asked_by=permit_desk.asked_by(tx, permit.id),
                ),
                run,
                opening.step,
                opening.attempt,
                cohort=held.name,
                rows=bits,
                at=p.clock.now(),
            )
            p.journal.write(
                tx,
                "contribution-made",
                run=run,
                entry=E,
                step=opening.step,
                attempt=opening.attempt,
                upload=whole.hexdigest(),
                budget=masked.receipt.head,
                rows=hmac.digest(p.sealing, bits, "sha256").hex(),
            )
            anchors.debited(tx, masked.receipt)
            event = machine.Computed(
                entry=E,
                masked=whole.hexdigest(),
                size=len(masked.upload),
                inline=inline,
                budget=masked.receipt.head,
            )
            self._move(tx, now, event, lambda: not tainted, after, mark="computed")
            tx.execute(delete(MASKED).where(MASKED.c.entry == E))
            return after

        await self.settle(await p.store.write(keep))

    async def _read(self, asked: machine.Compute, meter: limits.Meter, about: "_About", held: _Held) -> "_Read":
        """Decide on fresh facts, then compute over the rows whose bits are 1. Raises Refused, WorkerFailed, BadInput."""
        p, opening, permit = self._p, asked.opening, about.permit
        decision = await self._decide(opening, permit, about.asking, held)
        meter.obliged = decision.obligations
        limits.require_kept(meter.obliged, permit)
        seq = await self._up_to_date(held)
        place = works.Place(
            run=opening.run,
            site=1 + [one.site for one in permit.participants].index(p.me),
            attempt=asked.entry,
            patients=held.cohort.patients,
            alive=os.pread(held.fd, (len(held.cohort.patients) + 7) // 8, 0),
            bundle=about.bundle,
        )
        work = works.work(about.asking, question.unpack_step(asked.request), place)
        task = Task(
            entry=work.entry,
            payload=work.payload,
            tables=(*work.before, held.cohort.table, held.fd, *work.after),
            limits=limits.worker(meter.obliged, p.seconds),
        )
        began = p.clock.monotonic()
        try:
            reply = await p.workers.run(task)
        finally:
            meter.seconds += p.clock.monotonic() - began
        contribution = work.received(reply)
        limits.require_upload(meter.obliged, contribution.layout.size)  # before anything is debited for it
        return _Read(contribution=contribution, seq=seq)

    def _admitted(self, known: memory.Memory, run: RunId, permit: Permit, selected: Sequence[PatientId]) -> bytes:
        """`selected` as the memory knows them, once it is sure that an answer about them singles out nobody. Raises SitsOut,
        DifferencingRefused, MemoryFull.
        """
        cohort = memory.cohort(self._remembering, selected)
        memory.admit(known, run=run, cohort=cohort, floor=permit.least_patients)
        return cohort

    def _only(
        self, known: memory.Memory, permit: Permit, held: _Held, selected: Sequence[PatientId]
    ) -> frozenset[PatientId]:
        """The patients of the cohort with whom the question may be answered, because so many more are left out that nobody is
        singled out. Raises DifferencingRefused where no such part is found.
        """
        cohort = memory.cohort(self._remembering, selected)
        part = memory.apart(known, cohort=cohort, floor=permit.least_patients)
        left_out = set(selected) - memory.within(self._remembering, selected, part)
        return frozenset(held.cohort.patients) - left_out

    async def _hub_answered(self) -> None:
        """A site that has just started knows no checkpoint until the hub has answered it: wait for that, but not for ever.

        What policy decides before is a refusal, and an attempt that this site could have taken part in would be lost.
        """
        p = self._p
        until = p.clock.monotonic() + FIRST_ANSWER
        while not p.cosigned() and p.clock.monotonic() < until:
            await p.clock.sleep(0.05)

    async def _up_to_date(self, held: _Held) -> int:
        """The last change of consent that the cohort's bits show: what changes from now on taints what is read.

        A withdrawal is durable a moment before its bit goes to 0. A round that began within that moment would read the
        patient, and count the withdrawal as one from before the reading: so whoever changed since is judged again here.
        """
        p, since = self._p, held.seq
        seq, changed = await p.store.read(
            lambda tx: (consent.sequence(tx), consent.changed_since(tx, since) if since < consent.sequence(tx) else ())
        )
        if changed is None or changed:
            patients = held.cohort.patients if changed is None else changed
            await p.blocking.run(lambda: p.board.refresh(patients))
        held.seq = seq
        return seq

    async def _decide(self, opening: Opening, permit: Permit, asking: Asking, held: _Held) -> Decision:
        """Policy on fresh facts. Raises Refused, which names the rule and the fact that would change it."""
        p, run = self._p, opening.run
        others = sum(not task.done() for name, task in self._computing.items() if name != run)

        def decide(tx: Connection) -> Decision:
            row, now = _require(tx, run), p.clock.now()
            this = facts.Round(
                algorithm=asking.algorithm,
                features=frozenset(asking.features),
                floor_reached=len(held.cohort.patients) >= permit.least_patients,
                budget_enough=len(held.cohort.patients) > 0,
                questions_left=permit.questions - _asked_before(tx, permit, opening),
                attempts_left=permit.attempts - opening.attempt + 1,
                walls_missing=p.walls_missing(),
                hour=p.hour(now),
                computing=others,
                run_seconds=max(0, int(now - row["opened"])),
                run_mib=row["sent"] // limits.MIB,
            )
            asked = facts.take_part(tx, permit, p.me, p.cosigned(), p.federation.name, now, this)
            return p.gate.allows(tx, asked, Entity("Study", permit.study), run=run)

        decision = await p.store.write(decide)
        decision.require()
        return decision

    async def _cohort(
        self, run: RunId, permit: Permit, asking: Asking, *, only: frozenset[PatientId] | None = None
    ) -> _Held:
        """The patients that may be used now, as a table in memory, and their live bits. Read once a run, then kept."""
        held = self._cohorts.get(run)
        if held is not None and (only is None or only >= set(held.cohort.patients)):
            return held
        self._reading.add(run)
        try:
            made = await self._assemble(run, permit, asking, only)
        finally:
            self._reading.discard(run)
        self._cohorts[run] = made
        return made

    async def _assemble(self, run: RunId, permit: Permit, asking: Asking, only: frozenset[PatientId] | None) -> _Held:
        p, use = self._p, facts.use_of(permit)
        usable = await p.store.read(lambda tx: consent.verdicts(tx, use, p.clock.now()))
        data_set = p.data_set(permit.data_set)

        def build() -> _Held:
            cohort = assemble(
                data_set,
                asking.features,
                p.vault,
                lambda patient: _within(usable(patient), patient, only),
                p.randomness,
                complete=permit.features,
            )
            bits = p.board.open(run, use, cohort.patients)
            name = hashlib.sha256(b"\n".join([run.encode(), p.randomness.take(16)])).hexdigest()
            return _Held(name=name, cohort=cohort, fd=bits.fd, seq=usable.seq)

        return await p.blocking.run(build)

    # -- reading

    def _memory(self, tx: Connection) -> memory.Memory:
        """What this site has committed without privacy, in all studies."""
        found = tx.execute(select(MEMORY.c.content)).scalar_one_or_none()
        return memory.EMPTY if found is None else memory.decode(bytes(found))

    def _commit(self, tx: Connection, run: RunId) -> None:
        """In the transaction of the first vote: the vote is the disclosure, so from here on it is remembered."""
        row = _require(tx, run)
        permit = permit_desk.permit_of(tx, row["permit"])
        if row["pending"] is None or permit.privacy is not None:
            return
        said = msgspec.msgpack.decode(row["pending"], type=_Committed)
        before = self._memory(tx)
        after = memory.commit(before, run=run, cohort=said.cohort, floor=permit.least_patients)
        if after is before:
            return
        kept = {"only": 1, "content": memory.encode(after)}
        tx.execute(
            upsert(tx, MEMORY)
            .values(kept)
            .on_conflict_do_update(index_elements=["only"], set_={"content": kept["content"]})
        )

    def _state(self, tx: Connection, run: RunId) -> SiteState:
        return self._open(bytes(_require(tx, run)["state"]))

    def _about(self, tx: Connection, run: RunId) -> tuple[Permit, Asking, bytes | None]:
        row = _require(tx, run)
        permit = permit_desk.permit_of(tx, row["permit"])
        return permit, self._asking(tx, row), permit_desk.bundle_of(tx, permit)

    def _asking(self, tx: Connection, row: RowMapping) -> Asking:
        permit = permit_desk.permit_of(tx, row["permit"])
        query = question.unpack_query(bytes(row["query"]))
        return question.asking(query, _features(self._p.data_set(permit.data_set)), permit)

    def _run_of(self, tx: Connection, message: RunMessage) -> str:
        named = getattr(message, "run", None)
        if isinstance(named, str):
            return named
        if isinstance(message, OpenAttempt):
            return messages.read_entry(message.entry).run
        entry: str = message.entry  # type: ignore[union-attr]  # whatever names no run names an entry
        return str(tx.execute(_RUN_OF, {"name": entry}).scalar_one_or_none() or "")

    def _crypto(self, tx: Connection) -> Signing:
        return self._signing({m.site: m.key for m in members.members(tx)})

    def state_of(self, row: RowMapping) -> SiteState:
        """The machine's state in a row of this site's runs, for its own console."""
        return self._open(bytes(row["state"]))

    def _signing(self, keys: dict[SiteId, object]) -> Signing:
        p = self._p
        return Signing(
            keys=keys,  # type: ignore[arg-type]  # public keys
            clock=p.clock.now,
            signer=p.key.sign,
            kem=p.kem,
            randomness=p.randomness,
        )

    def _seal(self, state: SiteState) -> bytes:
        nonce = self._p.randomness.take(12)
        return nonce + self._aead.encrypt(nonce, machine.pack(state), SEALED)

    def _open(self, sealed: bytes) -> SiteState:
        try:
            return machine.unpack(self._aead.decrypt(sealed[:12], sealed[12:], SEALED))
        except InvalidTag as problem:
            raise Unavailable(
                "the state of a run does not open", do="bring back the site's own key file, `keys/runs.key`"
            ) from problem


def _commits(state: SiteState, before: SiteState) -> bool:
    """Whether the site committed itself to something that an older copy of its database would not know: a vote, a decline, an
    answer, a later attempt.
    """
    now, then = state.attempt, before.attempt
    if state.answer != before.answer:
        return True
    if now is None or then is None:
        return False
    return now.votes != then.votes or now.declined != then.declined or now.entry != then.entry


def _now_or_never() -> bool:
    """For events at which the machine does not ask."""
    return True


def _within(verdict: Verdict, patient: PatientId, only: frozenset[PatientId] | None) -> Verdict:
    return verdict if only is None or patient in only else Verdict(allowed=False, rule="left out of this run")


def _features(data_set: DataSet) -> tuple[Feature, ...]:
    return msgspec.convert(columns(data_set), tuple[Feature, ...])


def _packed(used: tuple[PatientId, ...], cohort: Cohort) -> bytes:
    """The rows that were read, as bits, lowest first."""
    read = frozenset(used)
    on = np.fromiter((patient in read for patient in cohort.patients), np.bool_, len(cohort.patients))
    return np.packbits(on, bitorder="little").tobytes()


def _asked_before(tx: Connection, permit: Permit, now: Opening) -> int:
    """How many other questions this site was asked under the permit, in all its runs."""
    told = {"name": permit.id, "this": now.run, "step_now": now.step}
    return int(tx.execute(_OTHERS, told).scalar_one())


def _metered(tx: Connection, run: str, seconds: float, sent: int) -> dict[str, Json]:
    """Count what a contribution took (s of its worker, bytes that leave); what the run has done here so far, for the log."""
    more = {"computed": RUNS.c.computed + seconds, "sent": RUNS.c.sent + sent}
    tx.execute(update(RUNS).where(RUNS.c.run == run).values(more))
    row = _require(tx, run)
    answered = tx.execute(select(func.count()).where(SUMS.c.run == run, SUMS.c.total.is_not(None))).scalar_one()
    return {"answered": answered, "run_seconds": round(row["computed"], 3), "run_sent": row["sent"]}


def _row(tx: Connection, run: str) -> RowMapping | None:
    return tx.execute(_ROW, {"name": run}).mappings().one_or_none()


def _require(tx: Connection, run: str) -> RowMapping:
    row = _row(tx, run)
    if row is None:
        raise BadInput(f"this site is in no run `{printable(run)}`", do="look at its runs with `paroma site status`")
    return row


def _open_runs(tx: Connection) -> list[RowMapping]:
    return list(tx.execute(select(RUNS).where(RUNS.c.over.is_(False)).order_by(RUNS.c.run)).mappings())
