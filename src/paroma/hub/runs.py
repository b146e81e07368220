"""Drives runs: what comes in moves the pure machine, its effects become mail, log entries and work, all in one transaction.

Start at `Runs`. Its methods that take `tx` change nothing but the database, and return what follows from the change
(`Did`), which is for whoever committed. A small sum is made in the transaction of the answer that completes it. A large
one is work outside of any transaction: `AddUp` is written down first and done again after a restart. The algorithm's own
state is one step, recomputed by every site from the sums; what a Flower app asks comes from `apps`, which lets its
server part talk. What is remembered in memory is the meaning of bytes, never what the database holds.
"""

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Executable, RowMapping, bindparam, delete, insert, select, update

from paroma.data.catalogue.data_set import DataSet, columns
from paroma.hub import proposals
from paroma.hub.tables import ATTEMPTS, HELD, RUNS, UPLOADS
from paroma.kernel import ids
from paroma.kernel.blocking import Blocking
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.ids import PersonId, RunId, SiteId, printable
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import Store, upsert
from paroma.kernel.wire import framing
from paroma.learn.algorithms.query import Feature
from paroma.learn.flower import contribution as flower
from paroma.learn.flower.contribution import Averaged
from paroma.learn.flower.messages import Exchange, FlowerApp
from paroma.learn.runs import hub as machine, messages, question
from paroma.learn.runs.crypto import Combining
from paroma.learn.runs.messages import FromSite, Participant, Proposal, Uploaded
from paroma.learn.runs.question import Answer, Asking, OfApp, Query, Step
from paroma.learn.runs.report import Happened, Progress
from paroma.learn.secagg import unmask
from paroma.learn.secagg.layout import Layout
from paroma.trust.audit import cosignatures, covered, log as logs
from paroma.trust.audit.journal import Journal
from paroma.trust.channel import mailbox, uploads
from paroma.trust.channel.exchange import NOTHING, Did
from paroma.trust.channel.mailbox import Letter
from paroma.trust.channel.messages import PARK_SECONDS
from paroma.trust.channel.uploads import Uploads
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.permit.permit import Permit, SignedPermit, digest

STORY = 200  # lines kept for the page; the log keeps all
MOST_AT_ONCE = 256 << 10  # bytes of all masked vectors that are added up within a transaction: less than a millisecond
SERVE = b"serve"  # in place of an `AddUp` in RUNS.pending: an app's server part is to be started
DONE = "every question is answered"
LOST_SECONDS = PARK_SECONDS + 20.0  # after which a site has noticed that a reply was lost, and has asked again
NO_SUM = "a sum could not be made"


# statements of the hot path, built once: building them costs more than running them
_RUN = select(RUNS).where(RUNS.c.run == bindparam("this"))
_ATTEMPT = select(ATTEMPTS.c.run, ATTEMPTS.c.number).where(ATTEMPTS.c.entry == bindparam("this"))
_HELD = select(HELD.c.entry, HELD.c.site, HELD.c.revision, HELD.c.proposal)
_MASKED = select(UPLOADS.c.site, UPLOADS.c.masked).where(UPLOADS.c.entry == bindparam("this"))
_DONE_WITH = delete(UPLOADS).where(UPLOADS.c.entry == bindparam("this"))
_CHANGED = ("status", "reason", "ended", "machine", "steps", "progress", "story", "result", "pending")
_MOVED = (
    update(RUNS)
    .where(RUNS.c.run == bindparam("this"))
    .values(
        revision=RUNS.c.revision + 1, **{name: bindparam(f"new_{name}", type_=RUNS.c[name].type) for name in _CHANGED}
    )
)
_KEEP: dict[str, Executable] = {}  # by dialect


class Nudge(msgspec.Struct, frozen=True, kw_only=True, tag="nudge", forbid_unknown_fields=True):
    """Hub to site: look at the heads of this very reply; a proposal waits for cosignatures."""


class RunUnknown(Refused):
    """There is no such run, or it is not this person's to see."""

    def __init__(self, run: str) -> None:
        super().__init__(f"there is no run `{printable(run)}`", do="list the runs with `paroma run list`")


class RunOver(Refused):
    """The run has ended."""


class SoFar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app's run has trained so far. number: rounds. sites: how many are in the last mean."""

    number: int
    sites: int
    averaged: Averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run that somebody wants to open."""

    signed: SignedPermit
    query: Query
    data_set: DataSet
    by: PersonId


class Runs:
    """All runs of this hub. One instance a process; the database is the only memory that counts."""

    def __init__(
        self,
        store: Store,
        *,
        log: Journal,
        uploads: Uploads,
        blocking: Blocking,
        clock: Clock,
        randomness: Randomness,
        patience: float,
        after: Callable[[Did], None],
    ) -> None:
        """after: told of what follows from each change that this made by itself, once it is durable."""
        self._store = store
        self._log = log
        self._uploads = uploads
        self._blocking = blocking
        self._clock = clock
        self._randomness = randomness
        self._pace = machine.Pace(
            set_up=max(LOST_SECONDS, patience), upload=max(60.0, patience), vote=patience, answer=patience
        )
        self._after = after
        self._adding: dict[str, asyncio.Task[None]] = {}
        self.changed = asyncio.Event()  # set at every change of a run; readers replace it

    # -- opening

    def open(self, tx: Connection, asked: Asked) -> tuple[RunId, Did]:
        """Invite the participants of the permit. Raises Refused (PersonUnknown too), BadInput."""
        permit = asked.signed.permit
        # whoever asked was let in before this transaction: a revocation since stopped the runs that it saw, and not this one
        if people.person(tx, asked.by).revoked is not None:
            raise people.PersonUnknown
        if (found := proposals.state(tx, permit.id)) != "valid":
            raise Refused(f"permit `{permit.id}` is {found}: nothing runs under it", do="apply for a new permit")
        _asking(asked.query, asked.data_set, permit)
        run = RunId(ids.fresh("run", self._randomness))
        crypto = self._crypto(tx)
        participants = tuple(
            sorted(
                (
                    Participant(site=p.site, owner=p.owner, key=members.member(tx, p.site).key.thumbprint)
                    for p in permit.participants
                ),
                key=lambda p: p.site,
            )
        )
        plan = machine.Plan(
            permit=digest(permit),
            m=permit.least_owners,
            c=permit.colluders,
            attempts=permit.attempts,
            questions=permit.questions,
            participants=participants,
            pace=self._pace,
        )
        query = msgspec.msgpack.encode(asked.query)
        state, effects = machine.begin(run, plan, msgspec.msgpack.encode(asked.signed), query, crypto)
        now = self._clock.now()
        number = self._log.write(
            tx, "run-opened", run=run, permit=digest(permit), study=permit.study, algorithm=_name(asked.query)
        )
        story = [Happened(what=f"Run opened under permit {permit.id}.", at=now, entry=number)]
        tx.execute(
            insert(RUNS).values(
                run=run,
                permit=permit.id,
                applicant=asked.by,
                query=query,
                status="waiting",
                reason="",
                opened=now,
                ended=None,
                revision=1,
                machine=machine.pack(state),
                steps=b"",
                progress=msgspec.msgpack.encode(()),
                story=msgspec.msgpack.encode(story),
                result=None,
                pending=None,
            )
        )
        return run, Did(posted_to=frozenset(self._mail(tx, run, state.revision, effects)), seen=True)

    # -- what comes in

    def hear(self, tx: Connection, site: SiteId, message: FromSite) -> Did:
        """A site's message, in the transaction that counts it. Raises Refused, BadInput where it belongs to no run."""
        run = self._run_of(tx, message)
        row = self._row(tx, run)
        if isinstance(message, Uploaded):
            self._keep(tx, site, message)
        return self._move(tx, row, [machine.Received(sender=site, message=message)])

    async def tick(self) -> None:
        """Time passes for every run that goes on: a transaction for each, so that none holds up the others.

        Raises StoreUnavailable.
        """
        for run in await self._store.read(self._late):
            with contextlib.suppress(Refused, BadInput):  # a run that cannot be read stands still by itself
                self._after(await self._store.write(functools.partial(self._tick, run=run)))

    def _late(self, tx: Connection) -> list[RunId]:
        now, late = self._clock.now(), []
        for run, kept in tx.execute(
            select(RUNS.c.run, RUNS.c.machine).where(RUNS.c.ended.is_(None)).order_by(RUNS.c.run)
        ):
            with contextlib.suppress(Refused):
                deadline = _state(bytes(kept)).deadline
                if deadline is not None and now >= deadline:
                    late.append(RunId(run))
        return late

    def _tick(self, tx: Connection, run: RunId) -> Did:
        row = self._row(tx, run)
        return NOTHING if row["ended"] is not None else self._move(tx, row, [machine.Tick()])

    def away(
        self, tx: Connection, site: SiteId, told: Happened | None = None, *, permit: str | None = None
    ) -> set[SiteId]:
        """A site is offline or was shut off: nobody waits for it. told: a line for the story of the runs that it is in.

        permit: only in the runs under this one.
        """
        rung: set[SiteId] = set()
        for row in _open_runs(tx):
            plan = _state(bytes(row["machine"])).plan
            if permit in {None, row["permit"]} and any(p.site == site for p in plan.participants):
                rung |= self._move(tx, row, [machine.Away(site=site)], told=told).posted_to
        return rung

    def stop_all(
        self, tx: Connection, reason: str, *, permit: str | None = None, applicant: str | None = None
    ) -> set[SiteId]:
        """End the runs under this permit, or those that this person opened."""
        rung: set[SiteId] = set()
        for row in _open_runs(tx):
            if row["permit"] == permit or row["applicant"] == applicant:
                rung |= self._move(tx, row, [_failed(reason)], status="stopped").posted_to
        return rung

    def stop(self, tx: Connection, run: str, reason: str) -> Did:
        """End a run before its time. Raises RunUnknown, RunOver."""
        return self._move(tx, self._open_row(tx, run), [_failed(reason)], status="stopped")

    def release(self, tx: Connection) -> tuple[SiteId, ...]:
        """Send the proposals that a cosigned checkpoint covers by now."""
        rung, texts = set(), dict[str, str | None]()
        for row in tx.execute(_HELD).all():
            if row.entry not in texts:
                texts[row.entry] = self._cover(tx, row.entry)
            text = texts[row.entry]
            if text is None:
                continue
            proposal = msgspec.structs.replace(framing.unpack(bytes(row.proposal), Proposal, 1 << 20), checkpoint=text)
            name = f"proposal/{row.entry}/{row.revision}"
            mailbox.post(tx, SiteId(row.site), name, framing.pack(proposal), now=self._clock.now())
            rung.add(SiteId(row.site))
            mine = (HELD.c.entry == row.entry, HELD.c.site == row.site, HELD.c.revision == row.revision)
            tx.execute(delete(HELD).where(*mine))
        return tuple(rung)

    # -- an app's server part talks: see `apps`

    def app(self, tx: Connection, run: RunId) -> flower.Plan:
        """The app of a run. Raises RunUnknown, BadInput where there is none."""
        asking = self._asking_of(tx, self._row(tx, run))
        if not isinstance(asking, OfApp):
            raise BadInput(f"run `{printable(run)}` runs no app", do="look at what it asks")
        return asking.plan

    def exchange(self, tx: Connection, run: RunId, asked: Exchange) -> Did:
        """The app asks every site to train. Raises RunOver, Refused, BadInput."""
        row = self._open_row(tx, run)
        step = framing.pack(asked)
        tx.execute(update(RUNS).where(RUNS.c.run == run).values(steps=step, pending=None))
        event = machine.Ask(request=step, size=self._asking_of(tx, row).layout(asked).size)
        return self._move(tx, self._row(tx, run), [event])

    def trained(self, tx: Connection, run: RunId, number: int) -> SoFar | None:
        """What round `number` gave, once it is there. Raises RunOver."""
        row = self._open_row(tx, run)
        if row["result"] is None:
            return None
        found = msgspec.msgpack.decode(row["result"], type=SoFar)
        return found if found.number == number else None

    def conclude(self, tx: Connection, run: RunId) -> Did:
        """The app has said all it had to say. Raises RunOver."""
        row = self._open_row(tx, run)
        if row["result"] is None:
            return self._move(tx, row, [machine.Finish(finished=False, reason="the app ended without a round")])
        found = msgspec.msgpack.decode(row["result"], type=SoFar)
        done = machine.Finish(finished=True, reason=DONE)
        return self._move(tx, row, [done], found=flower.result(found.averaged, found.number))

    def fail(self, tx: Connection, run: RunId, reason: str) -> Did:
        """The app cannot go on. A run that has ended stays as it is."""
        row = self._row(tx, run)
        return NOTHING if row["ended"] is not None else self._move(tx, row, [_failed(reason)])

    def restarted(self, tx: Connection) -> Did:
        """The hub starts: what an app had in its memory is lost, so its run ends."""
        did = NOTHING
        for row in _open_runs(tx):
            if row["status"] == "running" and row["pending"] != SERVE and isinstance(query_of(row), FlowerApp):
                why = "the hub was started anew while the app's server part was at work; open another run"
                did |= self._move(tx, row, [_failed(why)])
        return did

    # -- work outside of transactions

    async def work(self) -> list[RunId]:
        """Do what is written down and not done: to be called after a change that says so, once at the start, and now
        and then for what another hub or a failure left.

        Returns the runs whose app is to be started, which is for `apps`.
        """
        rows = await self._store.read(
            lambda tx: tx.execute(
                select(RUNS.c.run, RUNS.c.pending, RUNS.c.ended).where(RUNS.c.pending.is_not(None))
            ).all()
        )
        for row in rows:
            if row.pending != SERVE and row.run not in self._adding:
                task = asyncio.get_running_loop().create_task(self._add_up(RunId(row.run), bytes(row.pending)))
                self._adding[row.run] = task
                task.add_done_callback(lambda _, run=row.run: self._adding.pop(run, None))  # type: ignore[misc]
        return [RunId(row.run) for row in rows if row.pending == SERVE and row.ended is None]

    async def close(self) -> None:
        """Wait for nothing: what is under way is done again after the next start."""
        tasks = list(self._adding.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _add_up(self, run: RunId, pending: bytes) -> None:
        work = msgspec.msgpack.decode(pending, type=machine.AddUp)
        row = await self._store.read(lambda tx: self._row(tx, run))
        layout = (await self._store.read(lambda tx: self._asking_of(tx, row))).layout(_step(row))
        masked: list[bytes] = []
        try:
            for member, whole in zip(work.members, work.masked, strict=True):
                masked.append(await self._bytes_of(work.entry, member.site, whole, layout.size))
            total = await self._blocking.run(lambda: _total(layout, work, masked))
        except (BadInput, Refused) as problem:  # a site named bytes that it never sent: trying again would not end
            why = problem.message
            self._after(await self._store.write(lambda tx: self._never_summed(tx, run, why)))
            return
        self._after(await self._store.write(lambda tx: self._summed(tx, run, work, total)))
        for member, whole in zip(work.members, work.masked, strict=True):
            if layout.size > uploads.MOST_INLINE:
                await self._uploads.remove(member.site, bytes.fromhex(whole))

    async def _bytes_of(self, entry: str, site: SiteId, whole: str, size: int) -> bytes:
        """The masked bytes of one upload, from the database or from the spool."""
        kept = await self._store.read(lambda tx: _masked(tx, entry))
        if site in kept:
            return kept[site]
        where = await self._uploads.open(site, uploads.Uploaded(whole=bytes.fromhex(whole), total=size))
        return where if isinstance(where, bytes) else await self._blocking.run(where.read_bytes)

    def _never_summed(self, tx: Connection, run: RunId, why: str) -> Did:
        tx.execute(update(RUNS).where(RUNS.c.run == run).values(pending=None))
        row = self._row(tx, run)
        return NOTHING if row["ended"] is not None else self._move(tx, row, [_failed(f"{NO_SUM}: {why}")])

    def _summed(self, tx: Connection, run: RunId, work: machine.AddUp, total: bytes) -> Did:
        row = self._row(tx, run)
        if row["pending"] is None:
            return NOTHING
        tx.execute(update(RUNS).where(RUNS.c.run == run).values(pending=None))
        tx.execute(_DONE_WITH, {"this": work.entry})
        return self._move(tx, self._row(tx, run), [machine.Summed(entry=work.entry, total=total)])

    def tell(self) -> None:
        """Something may have changed: whoever waits looks again."""
        self.changed.set()
        self.changed = asyncio.Event()

    # -- the machine and its effects

    def _move(
        self,
        tx: Connection,
        row: RowMapping,
        events: Iterable[machine.Event],
        *,
        status: str | None = None,
        found: Answer | None = None,
        told: Happened | None = None,
    ) -> Did:
        """Feed events to the machine of a run, keep what it remembers, and do what its effects say within this transaction."""
        state = _state(bytes(row["machine"]))
        now = _Moving(row, status)
        if told is not None:
            now.tell(told)
        if found is not None:
            self._conclude(tx, now, found)
        crypto = self._crypto(tx)
        rung: set[SiteId] = set()
        todo = deque(events)
        while todo:
            before = state.revision
            state, effects = machine.step(state, todo.popleft(), crypto)
            if effects or state.revision != before:
                now.touched = True
            rung |= self._mail(tx, RunId(row["run"]), state.revision, effects)
            for effect in effects:
                todo.extend(self._do(tx, now, effect, state))
        if not now.touched:
            return NOTHING
        tx.execute(_MOVED, {"this": row["run"], "new_machine": machine.pack(state), **now.values()})
        return Did(
            posted_to=frozenset(rung), seen=now.seen, work=now.pending is not None and now.pending != row["pending"]
        )

    def _do(
        self, tx: Connection, now: "_Moving", effect: machine.Effect, state: machine.HubState
    ) -> tuple[machine.Event, ...]:
        """One effect but mail; the events that follow from it."""
        run, at = now.run, self._clock.now()
        match effect:
            case machine.Log(entry=entry, data=data):
                number = self._log.write_sealed(tx, data)
                tx.execute(insert(ATTEMPTS).values(entry=entry, run=run, number=number))
                return (machine.Logged(entry=entry, checkpoint=""),)
            case machine.Able(participants=able):
                now.status = "running"
                number = self._log.write(
                    tx, "run-set-up", run=run, sites=[p.site for p in able], transcript=state.transcript
                )
                now.tell(
                    Happened(
                        what="Every hospital checked the permit on its own, and agreed on secrets.", at=at, entry=number
                    )
                )
                asking = self._asking_of(tx, now.row)
                first = asking.first()
                if first is None:  # an app says it
                    now.pending = SERVE
                    return ()
                return (self._ask(now, asking, first),)
            case machine.AddUp():
                return self._sum_now(tx, now, effect)
            case machine.Answered(step=step, entry=entry, members=inside, digest=digest_, total=total):
                number = self._log.write(
                    tx,
                    "question-answered",
                    run=run,
                    step=step,
                    entry=entry,
                    members=[{"site": m.site, "upload": m.upload} for m in inside],
                    total=digest_,
                )
                now.tell(Happened(what=f"Round {step}: voted by all who sent, then added up.", at=at, entry=number))
                return self._next(tx, now, step, total, at, sites=len(inside))
            case machine.Failed(why=why):
                now.end("failed" if now.status != "stopped" else "stopped", why, at)
                number = self._log.write(tx, "run-ended", run=run, finished=False, reason=why)
                now.tell(Happened(what=f"The run ended: {why}.", at=at, entry=number))
            case machine.Suspected(sites=sites, why=why):
                self._log.write(tx, "suspected", run=run, sites=list(sites), why=why)
            case _:
                pass
        return ()

    def _sum_now(self, tx: Connection, now: "_Moving", work: machine.AddUp) -> tuple[machine.Event, ...]:
        """Add up here and now where the vectors are small and lie in the database; else write down that it is to be done."""
        layout = self._asking_of(tx, now.row).layout(question.unpack_step(now.step))
        kept = _masked(tx, work.entry) if layout.size * len(work.members) <= MOST_AT_ONCE else {}
        if not all(member.site in kept for member in work.members):
            now.pending = msgspec.msgpack.encode(work)
            return ()
        try:
            total = _total(layout, work, [kept[member.site] for member in work.members])
        except (BadInput, Refused) as problem:
            return (_failed(f"{NO_SUM}: {problem.message}"),)
        tx.execute(_DONE_WITH, {"this": work.entry})
        return (machine.Summed(entry=work.entry, total=total),)

    def _ask(self, now: "_Moving", asking: Asking, step: Step) -> machine.Ask:
        now.step = framing.pack(step)
        return machine.Ask(request=now.step, size=asking.layout(step).size)

    def _next(
        self, tx: Connection, now: "_Moving", number: int, total: bytes, at: float, *, sites: int
    ) -> tuple[machine.Event, ...]:
        """What follows from a sum: another question, a model that an app is told, a result, or a reason to end."""
        asking, step = self._asking_of(tx, now.row), question.unpack_step(now.step)
        try:
            now.add(Progress(step=number, at=at, value=asking.measured(step, total)))
            outcome = asking.advance(step, total)
        except ParomaError as problem:
            return (machine.Finish(finished=False, reason=str(problem)),)
        if isinstance(outcome, Averaged):
            now.result = msgspec.msgpack.encode(SoFar(number=number, sites=sites, averaged=outcome))
            return ()
        if isinstance(outcome, Step):
            return (self._ask(now, asking, outcome),)
        self._conclude(tx, now, outcome)
        return (machine.Finish(finished=True, reason=DONE),)

    def _conclude(self, tx: Connection, now: "_Moving", found: Answer) -> None:
        at = self._clock.now()
        now.result = msgspec.msgpack.encode(found)
        now.end("finished", "", at)
        entry = self._log.write(
            tx, "run-ended", run=now.run, finished=True, reason="", result=messages.sha256(now.result)
        )
        now.tell(Happened(what="The result is there.", at=at, entry=entry))

    def _mail(self, tx: Connection, run: RunId, revision: int, effects: Iterable[machine.Effect]) -> set[SiteId]:
        """Put the machine's messages into the mailboxes; a proposal only under a checkpoint that covers its attempt."""
        letters: list[Letter] = []
        texts: dict[str, str | None] = {}
        for place, effect in enumerate(effects):
            if not isinstance(effect, machine.Send):
                continue
            message = effect.message
            if isinstance(message, Proposal):
                if message.entry not in texts:
                    texts[message.entry] = self._cover(tx, message.entry)
                text = texts[message.entry]
                if text is None:
                    held = {"entry": message.entry, "site": effect.to, "revision": revision}
                    tx.execute(upsert(tx, HELD).values(**held, proposal=framing.pack(message)).on_conflict_do_nothing())
                    letters.append(Letter(effect.to, f"nudge/{message.entry}/{revision}", framing.pack(Nudge())))
                    continue
                message = msgspec.structs.replace(message, checkpoint=text)
            letters.append(Letter(effect.to, f"{run}/{revision}/{place}", framing.pack(message)))
        mailbox.post_all(tx, letters, now=self._clock.now())
        return {letter.to for letter in letters}

    # -- reading

    def _crypto(self, tx: Connection) -> Combining:
        keys = {m.site: m.key for m in members.members(tx)}
        return Combining(keys=keys, clock=self._clock.now, cosigned=str)

    def _row(self, tx: Connection, run: str) -> RowMapping:
        row = tx.execute(_RUN, {"this": run}).mappings().one_or_none()
        if row is None:
            raise RunUnknown(run)
        return row

    def _open_row(self, tx: Connection, run: str) -> RowMapping:
        row = self._row(tx, run)
        if row["ended"] is not None:
            raise RunOver(f"run `{run}` has ended already", do="open another one")
        return row

    def _run_of(self, tx: Connection, message: FromSite) -> str:
        named = getattr(message, "run", None)
        if isinstance(named, str):
            return named
        entry = message.core.entry if isinstance(message, Uploaded) else message.entry  # type: ignore[union-attr]  # no run, so an entry
        found = tx.execute(_ATTEMPT, {"this": entry}).scalar_one_or_none()
        if found is None:
            raise BadInput(
                "a message belongs to no attempt of this hub", do="send what belongs to an attempt that is open"
            )
        return str(found)

    def _cover(self, tx: Connection, entry: str) -> str | None:
        """The proof that a quorum of an attempt's participants has seen its opening entry; None while it has not."""
        attempt = tx.execute(_ATTEMPT, {"this": entry}).one()
        plan = _state(bytes(self._row(tx, attempt.run)["machine"])).plan
        k = cosignatures.quorum(len(plan.participants), plan.c)
        return covered.cover(tx, logs.FEDERATION, int(attempt.number), k)

    def _asking_of(self, tx: Connection, row: RowMapping) -> Asking:
        permit = proposals.signed(tx, row["permit"]).permit
        return _asking(query_of(row), proposals.data_set(tx, permit.data_set), permit)

    def _keep(self, tx: Connection, site: SiteId, message: Uploaded) -> None:
        """The masked bytes, in the transaction in which the machine takes the upload in."""
        if message.masked is None or messages.sha256(message.masked) != message.core.masked:
            return
        if tx.dialect.name not in _KEEP:
            _KEEP[tx.dialect.name] = upsert(tx, UPLOADS).on_conflict_do_nothing()
        row = {"entry": message.core.entry, "site": site, "masked": message.masked}
        tx.execute(_KEEP[tx.dialect.name], row)


class _Moving:
    """What changes of a run within one transaction."""

    def __init__(self, row: RowMapping, status: str | None) -> None:
        self.row = row
        self.run: str = row["run"]
        self.touched = False
        self.seen = False  # whether people see something new
        self.status: str = status or row["status"]
        self.reason: str = row["reason"]
        self.ended: float | None = row["ended"]
        self.step: bytes = row["steps"]
        self._progress: bytes = row["progress"]
        self._story: bytes = row["story"]
        self.result: bytes | None = row["result"]
        self.pending: bytes | None = row["pending"]

    def tell(self, what: Happened) -> None:
        story = msgspec.msgpack.decode(self._story, type=list[Happened])
        self._story, self.seen = msgspec.msgpack.encode([*story[-STORY:], what]), True

    def add(self, measured: Progress) -> None:
        progress = msgspec.msgpack.decode(self._progress, type=list[Progress])
        self._progress, self.seen = msgspec.msgpack.encode([*progress, measured]), True

    def end(self, status: str, reason: str, at: float) -> None:
        self.status, self.reason, self.ended, self.seen = status, reason, at, True

    def values(self) -> dict[str, Any]:
        return {
            "new_status": self.status,
            "new_reason": self.reason,
            "new_ended": self.ended,
            "new_steps": self.step,
            "new_progress": self._progress,
            "new_story": self._story,
            "new_result": self.result,
            "new_pending": self.pending,
        }


def _asking(query: Query, data_set: DataSet, permit: Permit) -> Asking:
    features = msgspec.convert(columns(data_set), tuple[Feature, ...])
    return question.asking(query, features, permit)


def _failed(reason: str) -> machine.Finish:
    return machine.Finish(finished=False, reason=reason)


def _name(query: Query) -> str:
    return str(type(query).__struct_config__.tag)


def _step(row: RowMapping) -> Step:
    return question.unpack_step(bytes(row["steps"]))


def query_of(row: RowMapping) -> Query:
    """What a run asks."""
    query: Query = msgspec.msgpack.decode(row["query"], type=Query)
    return query


def result_of(row: RowMapping) -> Answer | None:
    """The result of a run, if there is one. What an app has trained so far is none."""
    if row["result"] is None or row["status"] != "finished":
        return None
    found: Answer = msgspec.msgpack.decode(row["result"], type=Answer)
    return found


def _open_runs(tx: Connection) -> list[RowMapping]:
    return list(tx.execute(select(RUNS).where(RUNS.c.ended.is_(None)).order_by(RUNS.c.run)).mappings())


def _masked(tx: Connection, entry: str) -> dict[SiteId, bytes]:
    """The masked bytes of an attempt that lie in the database."""
    rows = tx.execute(_MASKED, {"this": entry})
    return {SiteId(row.site): bytes(row.masked) for row in rows if row.masked is not None}


def _total(layout: Layout, work: machine.AddUp, masked: list[bytes]) -> bytes:
    """The sum of `masked`, in the order of the members, without the masks. Raises BadInput, Refused."""
    seeds = {one.site: one.seed for one in work.self_seeds}
    pairs = {(k, j): seed for k, j, seed in work.pair_seeds}
    return unmask.total(layout, masked, seeds, pairs)


@functools.lru_cache(maxsize=32)
def _state(kept: bytes) -> machine.HubState:
    """The machine's state that these bytes mean: remembered, as each step of a run begins with the last one's."""
    return machine.unpack(kept)
