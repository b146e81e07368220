"""The policies in force in this program, those on trial beside them, and what was decided until it is written down.

A change of the house rules or of a pack is a row; `refresh` takes it up, so the next decision is under it. A pack goes on trial
first: every decision is also made with it, differences are kept, and nothing follows from them until it is activated.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.ids import printable
from paroma.kernel.store.database import Store
from paroma.trust.policy import house as houses, kept, packs, trial as trials
from paroma.trust.policy.decide import Ask, Decision, Policies, decide, load
from paroma.trust.policy.house import HouseRule
from paroma.trust.policy.packs import Pack
from paroma.trust.policy.tables import HOUSE, PACKS

MOST_NOTES: Final = 4096  # different requests between two writings; what comes beyond is decided, logged, and not kept
PRUNE_SECONDS: Final = 3600.0


class PackOnTrial(BadInput):
    """No pack of this name is on trial, or in force."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(
            f"no pack `{printable(name)}` is {state}",
            do="see `paroma policy packs`; bring one with `paroma policy stage FOLDER`",
        )


class TestsFail(BadInput):
    """A pack's own tests, or those of the release, come out wrong with it."""

    __test__ = False  # no test class, whatever its name begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The house rules in force. version: 0 before the first."""

    version: int
    rules: tuple[HouseRule, ...]
    at: float
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRow:
    """A pack of one's own, and how it stands: trial, active, retired. at: since when, unix s."""

    number: int
    pack: Pack
    state: str
    at: float
    by: str


@dataclass(slots=True, kw_only=True)
class _Note:
    decision: Decision
    trial: Decision | None
    times: int
    began: float
    at: float


@dataclass(slots=True, kw_only=True)
class Desk:
    """Decides, and remembers what it decided. Belongs to one event loop; what it writes in a transaction belongs to that."""

    clock: Clock
    policies: Policies
    trial: Policies | None = None
    seen: tuple[int, tuple[tuple[int, str], ...]] = (0, ())
    pruned: float = 0.0
    kept: float = 0.0
    _notes: dict[tuple[Ask, str], _Note] = field(default_factory=dict)
    _keeping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def decide(self, ask: Ask) -> Decision:
        """Decide, in the program's loop; kept with the next `keep`. Raises nothing."""
        decision, trial = self._both(ask)
        key, now = (ask, decision.policies), self.clock.now()
        note = self._notes.get(key)
        if note is not None:
            note.times, note.at = note.times + 1, now
        elif len(self._notes) < MOST_NOTES:
            self._notes[key] = _Note(decision=decision, trial=trial, times=1, began=now, at=now)
        return decision

    def decide_in(self, tx: Connection, ask: Ask) -> tuple[Decision, str]:
        """Decide, and keep it in this transaction; the decision and its id."""
        decision, trial = self._both(ask)
        return decision, self._keep(tx, ask, _Note(decision=decision, trial=trial, times=1, began=0, at=0))

    async def keep(self, store: Store, *, every: float = 0.0) -> None:
        """Write down what was decided since the last time, forget what is old, and take up what changed.

        every: do nothing within so many seconds of the last time. Raises StoreUnavailable; then it all waits for the next time.
        """
        if 0 <= self.clock.now() - self.kept < every:
            return
        async with self._keeping:  # whoever asks for what was decided waits for a writing that is under way
            await self._write_down(store)

    async def _write_down(self, store: Store) -> None:
        notes, now = self._notes, self.clock.now()
        self._notes, self.kept = {}, now
        try:
            if notes or now - self.pruned > PRUNE_SECONDS:
                await store.write(lambda tx: self._write(tx, notes, now))
                self.pruned = now
            await store.read(self.refresh)
        except BaseException:
            for key, note in notes.items():  # nothing of it was written: it waits for the next time
                self._notes.setdefault(key, note)
            raise

    def refresh(self, tx: Connection) -> None:
        """Take up the house rules and packs as they stand in the database."""
        seen = _versions(tx)
        if seen == self.seen:
            return
        rules, active, trial = house(tx).rules, in_state(tx, "active"), in_state(tx, "trial")
        self.policies = load(house=rules, own=[row.pack for row in active])
        self.trial = None
        if trial:
            replaced = {row.pack.meta.name for row in trial}
            kept_ = [row.pack for row in active if row.pack.meta.name not in replaced]
            self.trial = load(house=rules, own=[*kept_, *(row.pack for row in trial)])
        self.seen = seen

    def _both(self, ask: Ask) -> tuple[Decision, Decision | None]:
        trial = self.trial
        return decide(self.policies, ask), None if trial is None else decide(trial, ask)

    def _write(self, tx: Connection, notes: dict[tuple[Ask, str], _Note], now: float) -> None:
        for (ask, _), note in notes.items():
            self._keep(tx, ask, note)
        kept.prune(tx, now)

    def _keep(self, tx: Connection, ask: Ask, note: _Note) -> str:
        at = note.at or self.clock.now()
        name = kept.keep(tx, ask, note.decision, times=note.times, began=note.began or at, at=at)
        if note.trial is not None and note.trial.allowed != note.decision.allowed:
            kept.differ(tx, name, note.decision, note.trial, times=note.times, at=at)
        return name


def open_desk(store: Store, clock: Clock) -> Desk:
    """The desk of a program, with what its database says."""
    desk = Desk(clock=clock, policies=load())
    store.read_now(desk.refresh)
    return desk


# -- house rules


def house(tx: Connection) -> House:
    """The house rules in force."""
    row = tx.execute(select(HOUSE).order_by(HOUSE.c.version.desc()).limit(1)).mappings().one_or_none()
    if row is None:
        return House(version=0, rules=(), at=0.0, by="")
    rules = msgspec.json.decode(row["rules"], type=tuple[HouseRule, ...])
    return House(version=row["version"], rules=rules, at=row["at"], by=row["by"])


def changed(tx: Connection, *, add: tuple[HouseRule, ...], remove: tuple[HouseRule, ...]) -> tuple[HouseRule, ...]:
    """The house rules after a change, which is not made. Raises RuleInvalid, PolicyInvalid, TestsFail."""
    now = house(tx).rules
    add, remove = tuple(houses.checked(rule) for rule in add), tuple(houses.checked(rule) for rule in remove)
    for rule in remove:
        if rule not in now:
            raise houses.RuleInvalid(f"`{rule}` is not ticked", do="list what is: `paroma site rules list`")
    after = tuple(sorted({*(rule for rule in now if rule not in remove), *add}))
    load(house=after, own=[row.pack for row in in_state(tx, "active")])  # raises where they do not fit each other
    return after


def set_house(tx: Connection, rules: tuple[HouseRule, ...], *, by: str, now: float) -> House:
    """Put house rules in force; they have a version of their own."""
    before = house(tx)
    if rules == before.rules:
        return before
    row = {"version": before.version + 1, "rules": msgspec.json.encode(rules).decode(), "at": now, "by": by}
    tx.execute(insert(HOUSE).values(row))
    return house(tx)


# -- packs of one's own


def in_state(tx: Connection, state: str) -> tuple[PackRow, ...]:
    """The packs that stand so, by name."""
    rows = tx.execute(select(PACKS).where(PACKS.c.state == state).order_by(PACKS.c.name, PACKS.c.number)).mappings()
    return tuple(
        PackRow(
            number=row["number"],
            pack=packs.own(msgspec.msgpack.decode(row["files"], type=dict[str, bytes])),
            state=state,
            at=row["at"],
            by=row["by"],
        )
        for row in rows
    )


def stage(tx: Connection, files: dict[str, bytes], *, by: str, now: float) -> PackRow:
    """Put a pack on trial, in place of an earlier one of its name. Raises PackInvalid, PolicyInvalid, TestsFail."""
    pack = packs.own(files)
    check(tx, pack)
    tx.execute(update(PACKS).where(PACKS.c.name == pack.meta.name, PACKS.c.state == "trial").values(state="retired"))
    number = 1 + (tx.execute(select(func.max(PACKS.c.number))).scalar_one() or 0)
    content = msgspec.msgpack.encode({name: files[name] for name in packs.FILES})
    row = {"number": number, "name": pack.meta.name, "files": content, "state": "trial", "at": now, "by": by}
    tx.execute(insert(PACKS).values(row))
    return PackRow(number=number, pack=pack, state="trial", at=now, by=by)


def activate(tx: Connection, name: str, *, by: str, now: float) -> PackRow:
    """Put the pack on trial in force, in place of an earlier one of its name. Raises PackOnTrial, TestsFail, PolicyInvalid."""
    found = next((row for row in in_state(tx, "trial") if row.pack.meta.name == name), None)
    if found is None:
        raise PackOnTrial(name, "on trial")
    check(tx, found.pack)
    tx.execute(update(PACKS).where(PACKS.c.name == name, PACKS.c.state == "active").values(state="retired"))
    tx.execute(update(PACKS).where(PACKS.c.number == found.number).values(state="active", at=now, by=by))
    return PackRow(number=found.number, pack=found.pack, state="active", at=now, by=by)


def retire(tx: Connection, name: str, *, by: str, now: float) -> PackRow:
    """Take a pack out: one on trial first, else the one in force. Raises PackOnTrial."""
    for state in ("trial", "active"):
        found = next((row for row in in_state(tx, state) if row.pack.meta.name == name), None)
        if found is not None:
            tx.execute(update(PACKS).where(PACKS.c.number == found.number).values(state="retired", at=now, by=by))
            return PackRow(number=found.number, pack=found.pack, state="retired", at=now, by=by)
    raise PackOnTrial(name, "on trial or in force")


def check(tx: Connection, pack: Pack) -> None:
    """Raise TestsFail unless the pack's tests come out right, and PolicyInvalid unless it fits what is in force here."""
    wrong = next((one for one in trials.run(pack, own=[pack]) if one.wrong), None)
    if wrong is not None:
        raise TestsFail(f"the test `{printable(wrong.says)}` of the pack fails: {wrong.wrong}", do="correct the pack")
    others = [row.pack for row in in_state(tx, "active") if row.pack.meta.name != pack.meta.name]
    try:
        load(house=house(tx).rules, own=[*others, pack])
    except ParomaError as problem:
        raise TestsFail(f"the pack does not fit what is in force: {problem.message}", do=problem.do) from problem


def _versions(tx: Connection) -> tuple[int, tuple[tuple[int, str], ...]]:
    """What tells whether something changed: the version of the house rules, and which packs are on trial and in force."""
    states = tx.execute(
        select(PACKS.c.number, PACKS.c.state).where(PACKS.c.state != "retired").order_by(PACKS.c.number)
    )
    version = tx.execute(select(func.max(HOUSE.c.version))).scalar_one() or 0
    return version, tuple((row.number, row.state) for row in states)
