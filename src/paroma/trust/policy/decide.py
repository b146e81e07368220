"""Every request is decided here: typed facts in, a decision with its reasons out.

`Policies` are parsed once and have a digest that names them in the log. A decision reads a slice: *all* forbids, and
the permits whose scope can match. A refusal names the policy it comes from, the fact that stands against it, and what
would change it (annotations @because and @to_change); an allowance says which policy allowed it and what it obliges
to. A *limit* is a permit with @limit: where it applies its obligations hold, and it allows nothing. The same facts under
the same policies are decided once. Knows no database, no network, no clock: `now` is a fact.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import cedarpy
import msgspec

from paroma.kernel.errors import Refused
from paroma.kernel.ids import printable
from paroma.trust.policy import engine, house as houses, obligations, packs
from paroma.trust.policy.engine import PolicyInvalid, Rule
from paroma.trust.policy.facts import TYPES, Entity, Facts, FactsInvalid, check
from paroma.trust.policy.house import HouseRule
from paroma.trust.policy.obligations import NOTHING, Contradiction, Obligations
from paroma.trust.policy.packs import Pack

MOST_REMEMBERED: Final = 4096  # decisions; some 2 KB each
NO_CLEAN_ANSWER: Final = "facts-complete"  # the built-in policy: what cannot be decided cleanly is refused
NOTHING_ALLOWS: Final = "refused-unless-allowed"  # another one: what no policy speaks of is refused
CONTRADICTION: Final = "obligations-agree"  # the third: what nobody could keep to is refused
_PLACE = re.compile(r"\{([a-z_]+)\}")
_JSON = msgspec.json.Encoder()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request: may `principal` do `action` to `resource`, given these facts?"""

    action: str
    principal: Entity
    resource: Entity
    facts: Facts


@dataclass(frozen=True, slots=True)
class Reason:
    """One policy that decided. because: what is the case. to_change: for a refusal, the fact that would change it."""

    policy: str
    because: str
    to_change: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies said of one request, and why. policies: digest of those in force."""

    allowed: bool
    reasons: tuple[Reason, ...]  # never empty; the one that decided comes first
    obligations: Obligations  # none for a refusal
    policies: str

    def require(self) -> None:
        """Raise `Refused` unless allowed: nobody can forget to look at what is not handed to them."""
        if not self.allowed:
            why = self.reasons[0]
            raise Refused(f"{why.because} (policy `{why.policy}`)", do=why.to_change)


@dataclass(frozen=True, slots=True)
class Slice:
    """The policies that one kind of request is decided on, parsed."""

    rules: tuple[Rule, ...]
    order: Mapping[str, int]
    handle: cedarpy.PolicySet


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """Policies in force, parsed once. Made by `load` or `assemble`."""

    digest: str  # hex SHA-256 over schema and rules
    rules: tuple[Rule, ...]
    text: str  # as it was written, for people
    named: Mapping[str, Rule]
    obliged: Mapping[str, Obligations]  # by policy
    schema: cedarpy.Schema
    nothing: cedarpy.Entities  # no entity has attributes: what varies is in the facts
    particular: bool  # whether a permit names one principal or resource, so that slices differ by id
    _slices: dict[tuple[str, ...], Slice] = field(default_factory=dict)
    _merged: dict[tuple[str, ...], Obligations] = field(default_factory=dict)
    _remembered: dict[Ask, Decision] = field(default_factory=dict)

    def slice(self, ask: Ask) -> Slice:
        """All forbids, and the permits that could match. Kept, because parsing is dearer than deciding."""
        ids = (ask.principal.id, ask.resource.id) if self.particular else ()
        key = (ask.principal.kind, ask.action, ask.resource.kind, *ids)
        found = self._slices.get(key)
        if found is None:
            if len(self._slices) >= MOST_REMEMBERED:
                self._slices.clear()
            who, what = (ask.principal.kind, ask.principal.id), (ask.resource.kind, ask.resource.id)
            rules = tuple(rule for rule in self.rules if engine.concerns(rule, who, ("Action", ask.action), what))
            order = {rule.id: place for place, rule in enumerate(rules)}
            found = self._slices[key] = Slice(rules, order, engine.handle(rules))
        return found

    def oblige(self, names: tuple[str, ...]) -> Obligations:
        """What these policies oblige to together. Kept: few combinations ever decide. Raises Contradiction."""
        found = self._merged.get(names)
        if found is None:
            if len(self._merged) >= MOST_REMEMBERED:
                self._merged.clear()
            found = self._merged[names] = obligations.merge(tuple(self.obliged[name] for name in names))
        return found


def load(*, house: Iterable[HouseRule] = (), own: Iterable[Pack] = ()) -> Policies:
    """The policies in force: the packs of the release, packs of one's own (`packs.own`), and ticked house rules.

    Raises PolicyInvalid: a text that does not fit the schema, an id used twice, an obligation that nobody can keep. The same
    choice is parsed once.
    """
    return _loaded(houses.cedar(house), tuple(one.text for one in sorted(own, key=lambda one: one.meta.name)))


@lru_cache(maxsize=32)  # previews of house rules come and go
def _loaded(house: str, own: tuple[str, ...]) -> Policies:
    added = "\n".join((*own, house))
    for rule in engine.read_rules(added) if added.strip() else ():
        if rule.effect != "forbid" and not rule.limit:
            raise PolicyInvalid(
                "policies beside the release's may only forbid or limit",
                do="turn the permit into a forbid, or leave it out",
            )
    whole = "\n".join((*(packs.released(name).text for name in packs.RELEASED), added))
    engine.check_rules(whole, engine.read_schema(schema_text()))
    return assemble(engine.read_rules(whole), schema_text(), text=whole)


@cache
def schema_text() -> str:
    """The Cedar schema."""
    return (resources.files("paroma.trust.policy") / "policies" / "schema.cedarschema").read_text("utf-8")


def assemble(rules: tuple[Rule, ...], schema: str, *, text: str = "") -> Policies:
    """Policies of these rules under this schema. text: as they were written. Raises PolicyInvalid where two have one id."""
    named = {rule.id: rule for rule in rules}
    if len(named) != len(rules) or {NO_CLEAN_ANSWER, NOTHING_ALLOWS, CONTRADICTION} & set(named):
        raise PolicyInvalid("two policies have one id", do="give each policy its own @id")
    parsed = engine.read_schema(schema)
    form = msgspec.json.encode([schema, [[rule.id, rule.body] for rule in rules]], order="deterministic")
    return Policies(
        digest=hashlib.sha256(form).hexdigest(),
        rules=rules,
        text=text,
        named=MappingProxyType(named),
        obliged=MappingProxyType({rule.id: obligations.of(rule) for rule in rules}),
        schema=parsed,
        nothing=cedarpy.Entities.from_json_str("[]", parsed),
        particular=any(engine.particular(rule) for rule in rules),
    )


def decide(policies: Policies, ask: Ask) -> Decision:
    """Decide `ask`. Remembered for equal facts only. Raises nothing: what cannot be decided is refused."""
    remembered = policies._remembered.get(ask)  # noqa: SLF001  # the cache is this function's
    if remembered is not None:
        return remembered
    decision = decide_afresh(policies, ask)
    if len(policies._remembered) >= MOST_REMEMBERED:  # noqa: SLF001
        policies._remembered.clear()  # noqa: SLF001  # facts hold times: old ones are not asked again
    policies._remembered[ask] = decision  # noqa: SLF001
    return decision


def decide_afresh(policies: Policies, ask: Ask) -> Decision:
    """`decide` without memory."""
    if type(ask.facts) is not TYPES.get(ask.action):
        return _no_clean_answer(policies, ask, f"the facts are not those of action `{printable(ask.action)}`")
    try:
        check(ask.facts)
    except FactsInvalid as problem:
        return _no_clean_answer(policies, ask, problem.message)
    return _decided(policies, ask, ask.facts)


def decide_context(policies: Policies, ask: Ask, given: Mapping[str, object]) -> Decision:
    """Decide on `given` as Cedar's context; `ask.facts` only fills in the sentences."""
    return _decided(policies, ask, given)


def _decided(policies: Policies, ask: Ask, given: object) -> Decision:
    """given: the context, which JSON can hold."""
    used = policies.slice(ask)
    try:
        context = _JSON.encode(given).decode()
    except UnicodeEncodeError:  # half of a character
        return _no_clean_answer(policies, ask, "a fact is no text that can be written down")
    request = {
        "principal": {"type": ask.principal.kind, "id": ask.principal.id},
        "action": {"type": "Action", "id": ask.action},
        "resource": {"type": ask.resource.kind, "id": ask.resource.id},
        "context": context,
    }
    said = engine.answer(request, used.handle, policies.nothing, policies.schema)
    if said.errors:
        return _no_clean_answer(policies, ask, "the facts could not be decided on")
    names = sorted(said.decided, key=used.order.__getitem__)
    deciding = [rule for name in names if not (rule := policies.named[name]).limit]
    if said.allowed and deciding:  # a limit alone allows nothing
        try:
            obliged = policies.oblige(tuple(names))
        except Contradiction as problem:
            return _refusal(policies, (Reason(CONTRADICTION, problem.message, problem.do),))
        return Decision(True, tuple(_reason(rule, ask) for rule in deciding), obliged, policies.digest)
    if deciding:
        return _refusal(policies, tuple(_reason(rule, ask) for rule in deciding))
    near = [rule for rule in used.rules if rule.effect == "permit" and not rule.limit and _could_allow(rule, ask)]
    if near:
        return _refusal(policies, tuple(_reason(rule, ask, because="otherwise") for rule in near))
    return _refusal(
        policies,
        (
            Reason(
                NOTHING_ALLOWS,
                f"no policy lets a `{printable(ask.principal.kind)}` do `{printable(ask.action)}`",
                "ask as somebody who may, or for something else",
            ),
        ),
    )


def _could_allow(rule: Rule, ask: Ask) -> bool:
    """Whether a permit fits principal, action and resource, so that only its condition was not met."""
    fits = bool(rule.body["action"].get("entity") == {"type": "Action", "id": ask.action})
    for part, kind in (("principal", ask.principal.kind), ("resource", ask.resource.kind)):
        fits = fits and rule.body[part].get("entity_type", kind) == kind
    return fits


def _refusal(policies: Policies, reasons: tuple[Reason, ...]) -> Decision:
    return Decision(False, reasons, NOTHING, policies.digest)


def _no_clean_answer(policies: Policies, ask: Ask, because: str) -> Decision:
    do = f"gather the facts of action `{printable(ask.action)}` again; if it stays, tell the operator"
    return _refusal(policies, (Reason(NO_CLEAN_ANSWER, because, do),))


def _reason(rule: Rule, ask: Ask, *, because: str = "because") -> Reason:
    sentence = rule.notes.get(because) or f"policy `{rule.id}` says so"
    to_change = (
        rule.notes.get("to_change", "ask the officer who wrote that policy") if not _allows(rule, because) else ""
    )
    return Reason(rule.id, _filled(sentence, ask), _filled(to_change, ask))


def _allows(rule: Rule, because: str) -> bool:
    return rule.effect == "permit" and because == "because"


def _filled(sentence: str, ask: Ask) -> str:
    """`{fact}` becomes the fact's value; what came from outside is shown short and without control characters."""
    if "{" not in sentence:
        return sentence

    def value(match: re.Match[str]) -> str:
        found = getattr(ask.facts, match[1], match[0])
        shown = (
            ", ".join(f"`{printable(item)}`" for item in sorted(found)) if isinstance(found, frozenset) else str(found)
        )
        return printable(shown, longest=400)

    return _PLACE.sub(value, sentence)
