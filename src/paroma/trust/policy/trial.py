"""Tests of packs: each asked request is decided as its pack says, under the policies that are to be in force.

The requests are bent from one allowed request an action (`policies/asks.toml`), so a test names only what it is about.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec

from paroma.kernel.errors import ParomaError
from paroma.trust.policy import asks, house as houses, packs
from paroma.trust.policy.decide import Ask, Decision, decide, load, schema_text
from paroma.trust.policy.facts import TYPES, Entity, fields
from paroma.trust.policy.house import HouseRule
from paroma.trust.policy.packs import Case, Pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of one test. wrong: empty where it came out as its pack says."""

    pack: str
    says: str
    action: str
    decision: str
    policy: str
    wrong: str


def good(action: str) -> Ask:
    """A request of this action that the release's policies allow. Raises AskInvalid."""
    return _bent(Case(says="", action=action, decision="allowed", policy=""))


def run(pack: Pack, *, own: Iterable[Pack] = (), house: Iterable[HouseRule] = ()) -> tuple[Outcome, ...]:
    """Every test of `pack`, decided under the release's packs, these packs of one's own, and these house rules."""
    own, house = tuple(own), tuple(house)
    return tuple(_outcome(pack, case, own, house) for case in pack.cases)


def released(name: str) -> tuple[Outcome, ...]:
    """Every test of a pack of the release."""
    return run(packs.released(name))


def _outcome(pack: Pack, case: Case, own: tuple[Pack, ...], house: tuple[HouseRule, ...]) -> Outcome:
    decision: Decision | None = None
    try:
        ticked = (*house, *(houses.parse(rule) for rule in case.house))
        decision = decide(load(house=ticked, own=own), _bent(case))
        wrong = _difference(case, decision)
    except ParomaError as problem:
        wrong = problem.message
    said = "none" if decision is None else "allowed" if decision.allowed else "refused"
    policy = "" if decision is None else decision.reasons[0].policy
    return Outcome(pack=pack.meta.name, says=case.says, action=case.action, decision=said, policy=policy, wrong=wrong)


def _difference(case: Case, decision: Decision) -> str:
    said = "allowed" if decision.allowed else "refused"
    if said != case.decision:
        return f"it is {said}, expected is {case.decision}"
    if case.policy not in {reason.policy for reason in decision.reasons}:
        return f"`{decision.reasons[0].policy}` decides, expected is `{case.policy}`"
    told = decision.obligations.told()
    for name, value in case.obliges.items():
        if told.get(name) != value:
            return f"it obliges to `{name}` {told.get(name)}, expected is {value}"
    return ""


def _bent(case: Case) -> Ask:
    ground = _ground()
    if case.action not in TYPES:
        return asks.made(asks.Written(action=case.action, principal=Entity("", ""), resource=Entity("", ""), facts={}))
    given = {name: ground.facts[name] for name, _ in fields(TYPES[case.action])} | ground.other.get(case.action, {})
    return asks.made(
        asks.Written(
            action=case.action,
            principal=Entity(case.principal_kind or ground.who[case.action], case.principal or "one"),
            resource=Entity(ground.what[case.action], case.resource or "one"),
            facts=given | case.facts,
        )
    )


class _Ground(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """asks.toml."""

    who: dict[str, str]
    what: dict[str, str]
    facts: dict[str, bool | int | str | list[str]]
    other: dict[str, dict[str, bool | int | str | list[str]]]


@cache
def _ground() -> _Ground:
    folder = resources.files("paroma.trust.policy") / "policies"
    found = msgspec.convert(tomllib.loads((folder / "asks.toml").read_text("utf-8")), type=_Ground)
    applies = re.findall(
        r"action (\w+)[^{;]*appliesTo \{\s*principal: \[(\w+)[^]]*\],\s*resource: \[(\w+)", schema_text()
    )
    who, what = {action: kind for action, kind, _ in applies}, {action: kind for action, _, kind in applies}
    return _Ground(who=who | found.who, what=what | found.what, facts=found.facts, other=found.other)
