"""Every request is decided here: typed facts in, a decision with its reasons out.

`Policies` are parsed once and have a digest that names them in the log. A decision reads a slice: *all* forbids, and
the permits whose scope can match. A refusal names the policy it comes from, the fact that stands against it, and what
would change it (annotations @because and @to_change); an allowance says which policy allowed it and what it obliges
to. The same facts under the same policies are decided once. Knows no database, no network, no clock: `now` is a fact.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

import cedarpy
import msgspec

from paroma.kernel.errors import Refused
from paroma.kernel.ids import printable
from paroma.trust.policy import engine
from paroma.trust.policy.engine import PolicyInvalid, Rule
from paroma.trust.policy.facts import TYPES, Entity, Facts, FactsInvalid, context

FILES: Final = ("base", "security", "privacy")  # always in force; `house` adds what its officer ticked
MOST_REMEMBERED: Final = 4096  # decisions; some 2 KB each
NO_CLEAN_ANSWER: Final = "facts-complete"  # the built-in policy: what cannot be decided cleanly is refused
NOTHING_ALLOWS: Final = "refused-unless-allowed"  # the other one: what no policy speaks of is refused
_PLACE = re.compile(r"\{([a-z_]+)\}")


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
    obligations: Mapping[str, str]  # empty for a refusal
    policies: str

    def require(self) -> None:
        """Raise `Refused` unless allowed: nobody can forget to look at what is not handed to them."""
        if not self.allowed:
            why = self.reasons[0]
            raise Refused(f"{why.because} (policy `{why.policy}`)", do=why.to_change)


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """Policies in force, parsed once. Made by `load` or `parse`."""

    digest: str  # hex SHA-256 over schema and rules
    rules: tuple[Rule, ...]
    named: Mapping[str, Rule]
    schema: cedarpy.Schema
    nothing: cedarpy.Entities  # no entity has attributes: what varies is in the facts
    _slices: dict[tuple[str, ...], cedarpy.PolicySet] = field(default_factory=dict)
    _remembered: dict[Ask, Decision] = field(default_factory=dict)

    def slice(self, ask: Ask) -> tuple[Rule, ...]:
        """All forbids, and the permits that could match."""
        three = ((ask.principal.kind, ask.principal.id), ("Action", ask.action), (ask.resource.kind, ask.resource.id))
        return tuple(rule for rule in self.rules if engine.concerns(rule, *three))

    def handle(self, rules: tuple[Rule, ...]) -> cedarpy.PolicySet:
        """The parsed form of a slice; kept, because parsing is dearer than deciding."""
        key = tuple(rule.id for rule in rules)
        if key not in self._slices:
            if len(self._slices) >= MOST_REMEMBERED:
                self._slices.clear()
            self._slices[key] = engine.handle(rules)
        return self._slices[key]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the house that an officer may tick. id: what the settings name."""

    id: str
    text: str


def load(*, house: Iterable[str] = (), own: str = "") -> Policies:
    """The policies in force. house: ids of the ticked sentences. own: a hospital's own Cedar text, forbids only.

    Raises PolicyInvalid: an unknown sentence, a text that does not fit the schema, a permit in `own`. The files come with the
    release, so the same choice is parsed once.
    """
    return _loaded(frozenset(house), own)


@cache
def _loaded(ticked: frozenset[str], own: str) -> Policies:
    sentences = {rule.id: rule for rule in engine.read_rules(_text("house.cedar"))}
    unknown = sorted(ticked - set(sentences))
    if unknown:
        raise PolicyInvalid(
            f"the house has no sentence `{printable(unknown[0])}`", do=f"name some of {', '.join(sorted(sentences))}"
        )
    extra = engine.read_rules(own) if own.strip() else ()
    if any(rule.effect != "forbid" for rule in extra):
        raise PolicyInvalid(
            "a hospital's own policies may only forbid", do="turn the permit into a forbid, or leave it out"
        )
    whole = "\n".join((*(_text(f"{name}.cedar") for name in FILES), own))
    engine.check_rules(whole, engine.read_schema(schema_text()))
    kept = tuple(sentences[name] for name in sorted(ticked))
    return assemble((*engine.read_rules(whole), *kept), schema_text())


def house_sentences() -> tuple[Sentence, ...]:
    """What an officer may tick, in the file's order."""
    return tuple(Sentence(rule.id, rule.notes["sentence"]) for rule in engine.read_rules(_text("house.cedar")))


def schema_text() -> str:
    """The Cedar schema."""
    return _text("schema.cedarschema")


def assemble(rules: tuple[Rule, ...], schema: str) -> Policies:
    """Policies of these rules under this schema. Raises PolicyInvalid where two have one id."""
    named = {rule.id: rule for rule in rules}
    if len(named) != len(rules) or {NO_CLEAN_ANSWER, NOTHING_ALLOWS} & set(named):
        raise PolicyInvalid("two policies have one id", do="give each policy its own @id")
    parsed = engine.read_schema(schema)
    form = msgspec.json.encode([schema, [[rule.id, rule.body] for rule in rules]], order="deterministic")
    return Policies(
        digest=hashlib.sha256(form).hexdigest(),
        rules=rules,
        named=MappingProxyType(named),
        schema=parsed,
        nothing=cedarpy.Entities.from_json_str("[]", parsed),
    )


def decide(policies: Policies, ask: Ask) -> Decision:
    """Decide `ask`. Remembered for the same facts. Raises nothing: what cannot be decided is refused."""
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
        given = context(ask.facts)
    except FactsInvalid as problem:
        return _no_clean_answer(policies, ask, problem.message)
    return decide_context(policies, ask, given)


def decide_context(policies: Policies, ask: Ask, given: Mapping[str, object]) -> Decision:
    """Decide on `given` as Cedar's context; `ask.facts` only fills in the sentences."""
    rules = policies.slice(ask)
    request = {
        "principal": {"type": ask.principal.kind, "id": ask.principal.id},
        "action": {"type": "Action", "id": ask.action},
        "resource": {"type": ask.resource.kind, "id": ask.resource.id},
        "context": dict(given),
    }
    said = engine.answer(request, policies.handle(rules), policies.nothing, policies.schema)
    if said.errors:
        return _no_clean_answer(policies, ask, "the facts could not be decided on")
    order = {rule.id: place for place, rule in enumerate(rules)}
    deciding = [policies.named[name] for name in sorted(said.decided, key=order.__getitem__)]
    if said.allowed:
        return Decision(True, tuple(_reason(rule, ask) for rule in deciding), _obligations(deciding), policies.digest)
    if deciding:
        return _refusal(policies, tuple(_reason(rule, ask) for rule in deciding))
    near = [rule for rule in rules if rule.effect == "permit" and _could_allow(rule, ask)]
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
    return Decision(False, reasons, MappingProxyType({}), policies.digest)


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

    def value(match: re.Match[str]) -> str:
        found = getattr(ask.facts, match[1], match[0])
        shown = (
            ", ".join(f"`{printable(item)}`" for item in sorted(found)) if isinstance(found, frozenset) else str(found)
        )
        return printable(shown, longest=400)

    return _PLACE.sub(value, sentence)


def _obligations(rules: list[Rule]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for rule in rules:
        for part in filter(None, rule.notes.get("obliges", "").split(";")):
            name, _, value = (piece.strip() for piece in part.partition("="))
            found[name] = value if found.get(name, value) == value else f"{found[name]}, {value}"
    return MappingProxyType(found)


def _text(name: str) -> str:
    return (resources.files("paroma.trust.policy") / "policies" / name).read_text("utf-8")
