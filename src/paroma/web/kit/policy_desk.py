"""Routes of whoever answers for decisions: what is in force, why something was decided, what another policy would change.

The same at a hub (operator) and at a site (officer); house rules are a site's alone. A change is decided by policy like every
request, stands in the program's log with the digest of what is in force after it, and holds from the next decision on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.kernel.clock import Clock
from paroma.kernel.store.database import Store
from paroma.trust.identity.people import Person
from paroma.trust.policy import asks, desk as desks, explain, house as houses, kept, packs
from paroma.trust.policy.decide import load
from paroma.trust.policy.desk import Desk
from paroma.trust.policy.facts import ChangePolicies, Person as PersonFacts, ReadPolicies
from paroma.trust.policy.house import HouseRule
from paroma.trust.policy.kept import Flip, Kept
from paroma.trust.policy.said import (
    DecisionSaid,
    Differences,
    FlipSaid,
    HouseChange,
    HouseSaid,
    InForce,
    PackSaid,
    Preview,
    Replayed,
    RuleSaid,
    SentenceSaid,
    Staged,
)
from paroma.web.kit.http import as_json, body_of, json_of

MOST_SHOWN = 1000
Allowed = Callable[[Request, type[PersonFacts]], Awaitable[Person]]
Log = Callable[[Connection, str, str, str, str], object]
"""(transaction, what was done, to what, by whom, digest of the policies after it)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRoutes:
    """The routes. allowed: decides for a person, or raises. log: writes the entry. site: whether there are house rules."""

    desk: Desk
    store: Store
    clock: Clock
    allowed: Allowed
    log: Log
    site: bool

    def routes(self) -> list[Route]:
        """The routes."""
        both = [
            Route("/api/policies", self.in_force, methods=["GET"]),
            Route("/api/policies/decisions", self.decisions, methods=["GET"]),
            Route("/api/policies/decisions/{decision}", self.decision, methods=["GET"]),
            Route("/api/policies/explain", self.explain, methods=["POST"]),
            Route("/api/policies/replay", self.replay, methods=["POST"]),
            Route("/api/policies/differences", self.differences, methods=["GET"]),
            Route("/api/policies/packs", self.stage, methods=["POST"]),
            Route("/api/policies/packs/{pack}/activate", self.activate, methods=["POST"]),
            Route("/api/policies/packs/{pack}/retire", self.retire, methods=["POST"]),
        ]
        house = [
            Route("/api/policies/house", self.house, methods=["GET"]),
            Route("/api/policies/house", self.set_house, methods=["POST"]),
        ]
        return [*both, *house] if self.site else both

    async def in_force(self, request: Request) -> Response:
        """The packs in force and on trial, and the digest that decisions name."""
        await self.allowed(request, ReadPolicies)
        return as_json(await self._in_force())

    async def decisions(self, request: Request) -> Response:
        """The newest decisions that are kept, with the ids to ask for."""
        await self.allowed(request, ReadPolicies)
        await self.desk.keep(self.store)
        found = await self.store.read(lambda tx: kept.recent(tx, MOST_SHOWN))
        return as_json([_decision(one) for one in found])

    async def decision(self, request: Request) -> Response:
        """Why something was decided: policies, facts, and the smallest change that turns it. By the policies in force now."""
        await self.allowed(request, ReadPolicies)
        name = request.path_params["decision"]
        await self.desk.keep(self.store)
        policies = self.desk.policies
        return as_json(await self.store.read(lambda tx: explain.explain(policies, kept.find(tx, name).ask)))

    async def explain(self, request: Request) -> Response:
        """How a request would be decided, and why: the body is the request."""
        await self.allowed(request, ReadPolicies)
        ask = asks.read(await body_of(request))
        policies = self.desk.policies
        return as_json(await self.store.read(lambda _tx: explain.explain(policies, ask)))

    async def replay(self, request: Request) -> Response:
        """Which decisions since a time other house rules, or one more pack, would turn. Nothing is put in force."""
        await self.allowed(request, ReadPolicies)
        asked = await json_of(request, Preview)
        await self.desk.keep(self.store)
        return as_json(await self.store.read(lambda tx: _replayed(tx, asked)))

    async def differences(self, request: Request) -> Response:
        """What the packs on trial would have decided otherwise since their trial began."""
        await self.allowed(request, ReadPolicies)
        await self.desk.keep(self.store)
        trial = self.desk.trial
        digest = "" if trial is None else trial.digest
        policies = self.desk.policies.digest
        return as_json(await self.store.read(lambda tx: _differences(tx, policies, digest)))

    async def stage(self, request: Request) -> Response:
        """Put a pack on trial: every decision is also made with it, and nothing follows from that."""
        person = await self.allowed(request, ChangePolicies)
        files = {name: text.encode() for name, text in (await json_of(request, Staged)).files.items()}
        now = self.clock.now()
        return await self._changed(
            person, "pack-on-trial", lambda tx: desks.stage(tx, files, by=person.person, now=now).pack.meta.name
        )

    async def activate(self, request: Request) -> Response:
        """Put the pack on trial in force."""
        person, name, now = await self.allowed(request, ChangePolicies), request.path_params["pack"], self.clock.now()
        return await self._changed(
            person, "pack-active", lambda tx: desks.activate(tx, name, by=person.person, now=now).pack.meta.name
        )

    async def retire(self, request: Request) -> Response:
        """Take a pack out, from its trial or from force."""
        person, name, now = await self.allowed(request, ChangePolicies), request.path_params["pack"], self.clock.now()
        return await self._changed(
            person, "pack-retired", lambda tx: desks.retire(tx, name, by=person.person, now=now).pack.meta.name
        )

    async def house(self, request: Request) -> Response:
        """The house rules in force, and the sentences that may be ticked."""
        await self.allowed(request, ReadPolicies)
        return as_json(await self._house())

    async def set_house(self, request: Request) -> Response:
        """Tick house rules, or take some out: from the next decision on."""
        person = await self.allowed(request, ChangePolicies)
        add, remove = _rules(await json_of(request, HouseChange))
        now = self.clock.now()

        def change(tx: Connection) -> None:
            before = desks.house(tx).version
            made = desks.set_house(tx, desks.changed(tx, add=add, remove=remove), by=person.person, now=now)
            if made.version != before:
                digest = load(house=made.rules, own=[one.pack for one in desks.in_state(tx, "active")]).digest
                for what, rules in (("rule-ticked", add), ("rule-taken-out", remove)):
                    for rule in rules:
                        self.log(tx, what, str(rule), person.person, digest)

        await self.store.write(change)
        await self.store.read(self.desk.refresh)
        return as_json(await self._house())

    async def _changed(self, person: Person, what: str, change: Callable[[Connection], str]) -> Response:
        def write(tx: Connection) -> None:
            name = change(tx)
            active = [one.pack for one in desks.in_state(tx, "active")]
            self.log(tx, what, name, person.person, load(house=desks.house(tx).rules, own=active).digest)

        await self.store.write(write)
        await self.store.read(self.desk.refresh)
        return as_json(await self._in_force())

    async def _in_force(self) -> InForce:
        digest, trial = self.desk.policies.digest, self.desk.trial
        released = [_pack(packs.released(name), "release", 0.0) for name in packs.RELEASED]
        own = await self.store.read(
            lambda tx: [
                _pack(one.pack, state, one.at) for state in ("active", "trial") for one in desks.in_state(tx, state)
            ]
        )
        return InForce(policies=digest, trial="" if trial is None else trial.digest, packs=(*released, *own))

    async def _house(self) -> HouseSaid:
        now = await self.store.read(desks.house)
        return HouseSaid(
            version=now.version,
            at=now.at,
            by=now.by,
            policies=self.desk.policies.digest,
            rules=tuple(
                RuleSaid(rule=str(rule), says=houses.said(rule), policy=houses.policy_id(rule)) for rule in now.rules
            ),
            sentences=tuple(
                SentenceSaid(name=one.name, says=one.says, asks={name: p.asks for name, p in one.parameters.items()})
                for one in houses.sentences().values()
            ),
        )


def _replayed(tx: Connection, asked: Preview) -> Replayed:
    own = [one.pack for one in desks.in_state(tx, "active")]
    if asked.files is not None:
        pack = packs.own({name: text.encode() for name, text in asked.files.items()})
        own = [*(one for one in own if one.meta.name != pack.meta.name), pack]
    add, remove = _rules(asked.house)
    policies = load(house=desks.changed(tx, add=add, remove=remove), own=own)
    flips = kept.replay(tx, policies, asked.since)
    return Replayed(
        policies=policies.digest,
        since=asked.since,
        decisions=kept.count(tx, asked.since),
        flips=tuple(_flip(one) for one in flips),
    )


def _differences(tx: Connection, policies: str, trial: str) -> Differences:
    began = min((one.at for one in desks.in_state(tx, "trial")), default=0.0)
    return Differences(
        policies=policies,
        trial=trial,
        since=began,
        decisions=kept.count(tx, began) if trial else 0,
        found=kept.differences(tx, trial) if trial else (),
    )


def _rules(asked: HouseChange) -> tuple[tuple[HouseRule, ...], tuple[HouseRule, ...]]:
    return tuple(houses.parse(one) for one in asked.add), tuple(houses.parse(one) for one in asked.remove)


def _decision(one: Kept) -> DecisionSaid:
    return DecisionSaid(
        decision=one.decision,
        action=one.ask.action,
        principal=f"{one.ask.principal.kind} {one.ask.principal.id}",
        resource=f"{one.ask.resource.kind} {one.ask.resource.id}",
        allowed=one.allowed,
        policy=one.policy,
        times=one.times,
        at=one.at,
    )


def _flip(one: Flip) -> FlipSaid:
    was = _decision(one.kept)
    return FlipSaid(
        decision=was.decision,
        action=was.action,
        principal=was.principal,
        resource=was.resource,
        allowed=was.allowed,
        times=was.times,
        at=was.at,
        policy=one.reason.policy,
        because=one.reason.because,
        to_change=one.reason.to_change,
    )


def _pack(pack: packs.Pack, state: str, at: float) -> PackSaid:
    meta = pack.meta
    return PackSaid(
        name=meta.name,
        version=meta.version,
        title=meta.title,
        says=meta.says,
        state=state,
        policies=len(pack.rules),
        at=at,
    )
