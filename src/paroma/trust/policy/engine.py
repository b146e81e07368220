"""Cedar, at the edge to its library: schema always, and anything but a clean answer is a no.

Cedar *skips* a policy that fails to evaluate, a forbid too, so an error can turn a no into a yes. Here an answer with
any error in it is refused, and so is no answer at all. Without the schema 8 of the 794 published decisions come out
wrong.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from paroma.kernel.errors import BadInput

EFFECTS = ("permit", "forbid")


class PolicyInvalid(BadInput):
    """A policy text or a schema cannot be read, does not fit the other, or names nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy: its id, effect, annotations, and its body in Cedar's JSON form."""

    id: str
    effect: str
    notes: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def limit(self) -> bool:
        """Whether it only obliges: a `permit` with @limit, which never allows."""
        return "limit" in self.notes


@dataclass(frozen=True, slots=True)
class Answer:
    """What Cedar said. decided: ids of the policies that decided. errors: why there is no clean answer; then a no."""

    allowed: bool
    decided: tuple[str, ...]
    errors: tuple[str, ...]


def read_schema(text: str) -> cedarpy.Schema:
    """A parsed schema. Raises PolicyInvalid."""
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as problem:
        raise PolicyInvalid(f"the schema cannot be read: {_line(problem)}", do="correct it there") from problem


def read_rules(text: str, *, named: bool = True) -> tuple[Rule, ...]:
    """The policies in `text`, in its order. Raises PolicyInvalid, also for a template and, if `named`, for no @id."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as problem:
        raise PolicyInvalid(f"a policy cannot be read: {_line(problem)}", do="correct it there") from problem
    if parsed["templates"] or parsed["templateLinks"]:
        raise PolicyInvalid("a template authorises nothing", do="write a policy without slots")
    rules = tuple(_rule(place, body, named=named) for place, body in parsed["staticPolicies"].items())
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise PolicyInvalid(f"two policies have the id `{twice}`", do="give each policy its own @id")
    return rules


def check_rules(text: str, schema: cedarpy.Schema) -> None:
    """Raise PolicyInvalid unless the policies fit the schema (Cedar's strict validation)."""
    result = cedarpy.validate_policies(text, schema)
    if not result.validation_passed:
        raise PolicyInvalid(f"a policy does not fit the schema: {_line(result.errors[0])}", do="correct it there")


def handle(rules: Sequence[Rule]) -> cedarpy.PolicySet:
    """The rules, parsed once; their ids are those that an answer names."""
    form = {"staticPolicies": {rule.id: dict(rule.body) for rule in rules}, "templates": {}, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(form))


def concerns(rule: Rule, principal: tuple[str, str], action: tuple[str, str], resource: tuple[str, str]) -> bool:
    """Whether `rule` must be in the slice for these three, each (type, id).

    A forbid always. A permit unless its scope names *another* principal, action or resource with `==` and cannot match:
    groups and hierarchies are never reasoned about, so that nothing that matches is left out.
    """
    if rule.effect != "permit":
        return True
    for part, asked in (("principal", principal), ("action", action), ("resource", resource)):
        scope = rule.body[part]
        if scope["op"] == "==" and (scope["entity"]["type"], scope["entity"]["id"]) != asked:
            return False
    return True


def particular(rule: Rule) -> bool:
    """Whether a permit's scope names one principal or one resource, so that a slice depends on who asks for what."""
    return rule.effect == "permit" and any(rule.body[part]["op"] == "==" for part in ("principal", "resource"))


def answer(
    request: dict[str, Any], policies: cedarpy.PolicySet, entities: cedarpy.Entities, schema: cedarpy.Schema
) -> Answer:
    """Decide. request: principal, action, resource as {type, id}, and context, as a dict or as JSON text."""
    try:
        result = cedarpy.is_authorized(request, policies, entities, schema)
    except UnicodeEncodeError:  # half of a character in an id
        return Answer(allowed=False, decided=(), errors=("an id is no text",))
    errors = tuple(_line(error) for error in result.diagnostics.errors)
    decided = tuple(sorted(result.diagnostics.reasons))
    if result.decision == cedarpy.Decision.NoDecision and not errors:
        errors = ("no decision",)
    return Answer(allowed=result.decision == cedarpy.Decision.Allow and not errors, decided=decided, errors=errors)


def _rule(place: str, body: dict[str, Any], *, named: bool) -> Rule:
    notes = {key: value or "" for key, value in body.get("annotations", {}).items()}
    if named and not notes.get("id"):
        raise PolicyInvalid(f"{place} has no @id", do="name it: a refusal must say which policy it comes from")
    return Rule(id=notes["id"] if named else place, effect=body["effect"], notes=notes, body=body)


def _line(problem: object) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= 300 else text[:300] + "..."
