"""Requests as text: how a test of a pack, a kept decision and `paroma policy explain --ask` write one down.

A JSON object with action, principal and resource (each `Kind::"id"` written as two members) and facts. Read strictly: a missing,
unknown or wrongly typed fact is an error, so nothing is ever decided on it.
"""

from collections.abc import Mapping

import msgspec

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.trust.policy.decide import Ask
from paroma.trust.policy.facts import TYPES, Entity, Facts, FactsInvalid, fields

MOST_BYTES = 1 << 20


class AskInvalid(BadInput):
    """A text is no request: another form, another action, or facts that are not exactly those of the action."""


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as JSON."""

    action: str
    principal: Entity
    resource: Entity
    facts: dict[str, bool | int | str | list[str]]


def read(content: bytes) -> Ask:
    """The request in a JSON text. Raises AskInvalid, NotStrictJson."""
    if len(content) > MOST_BYTES:
        raise AskInvalid(f"the request has {len(content)} bytes, {MOST_BYTES} are the most", do="send one request")
    canonical.decode(content)  # strict: no member twice, no depth, no huge number
    try:
        written = msgspec.json.decode(content, type=Written)
    except msgspec.ValidationError as problem:
        raise AskInvalid(
            f"this is no request: {printable(str(problem), longest=200)}",
            do="write action, principal, resource ({kind, id} each) and facts",
        ) from problem
    return made(written)


def made(written: Written) -> Ask:
    """The request. Raises AskInvalid."""
    return Ask(
        action=written.action,
        principal=written.principal,
        resource=written.resource,
        facts=facts_of(written.action, written.facts),
    )


def facts_of(action: str, given: Mapping[str, object]) -> Facts:
    """The facts of an action. given: a set is a list. Raises AskInvalid."""
    kind = TYPES.get(action)
    if kind is None:
        raise AskInvalid(f"there is no action `{printable(action)}`", do=f"name one of {', '.join(TYPES)}")
    wanted = dict(fields(kind))
    if odd := sorted(set(wanted) ^ set(given)):
        word = "is missing" if odd[0] in wanted else "is none of this action"
        raise AskInvalid(f"the fact `{printable(odd[0])}` {word}", do=f"give exactly {', '.join(wanted)}")
    typed = {
        name: frozenset(value) if wanted[name] == frozenset[str] and isinstance(value, list) else value
        for name, value in given.items()
    }
    try:
        return kind(**typed)
    except FactsInvalid as problem:
        raise AskInvalid(problem.message, do=problem.do) from problem


def written(ask: Ask) -> bytes:
    """The request as canonical JSON, sets in order."""
    return canonical.encode(
        {
            "action": ask.action,
            "principal": {"kind": ask.principal.kind, "id": ask.principal.id},
            "resource": {"kind": ask.resource.kind, "id": ask.resource.id},
            "facts": {
                name: sorted(value) if isinstance(value := getattr(ask.facts, name), frozenset) else value
                for name, _ in fields(type(ask.facts))
            },
        }
    )
