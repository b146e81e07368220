"""The fact that would change a refusal: found by trying, so what it names has been seen to turn the decision.

Each policy names in @change facts that would satisfy it: `fact = value`, `fact = other_fact`, `roles += value`,
`algorithms -= value`, `principal = resource`, several separated by `;`. The search decides again on each candidate,
breadth first, so the first hit has the fewest changes; at each step it only touches what the *first* reason names,
because every forbid that decided has to be turned sooner or later.
"""

from collections import deque
from dataclasses import dataclass

import msgspec

from paroma.trust.policy.decide import Ask, Policies, Reason, decide_afresh
from paroma.trust.policy.engine import PolicyInvalid
from paroma.trust.policy.facts import fields

MOST_DECISIONS = 400  # some 40 ms; one wrong fact takes one or two


@dataclass(frozen=True, slots=True)
class Change:
    """One fact and the value that helps; the value as text."""

    fact: str
    value: str


@dataclass(frozen=True, slots=True)
class Why:
    """Why a request is refused, and the fewest changes that turn it; none where no fact known to a policy does."""

    reasons: tuple[Reason, ...]
    changes: tuple[Change, ...]
    turned: Ask | None  # the request with the changes, which is allowed


def why(policies: Policies, ask: Ask) -> Why:
    """Explain a refusal of `ask`; no changes if it is allowed."""
    first = decide_afresh(policies, ask)
    if first.allowed:
        return Why(first.reasons, (), ask)
    waiting: deque[tuple[Ask, tuple[Change, ...], tuple[Reason, ...]]] = deque([(ask, (), first.reasons)])
    seen = {ask}
    tried = 0
    while waiting:
        now, made, reasons = waiting.popleft()
        for change, asked in _candidates(policies, now, reasons):
            if asked in seen:
                continue
            seen.add(asked)
            decision = decide_afresh(policies, asked)
            tried += 1
            if decision.allowed:
                return Why(first.reasons, (*made, change), asked)
            if tried >= MOST_DECISIONS:
                return Why(first.reasons, (), None)
            waiting.append((asked, (*made, change), decision.reasons))
    return Why(first.reasons, (), None)


def _candidates(policies: Policies, ask: Ask, reasons: tuple[Reason, ...]) -> list[tuple[Change, Ask]]:
    found = []
    # several permits may be near, and any of them would do; of several forbids each must go, so the first is enough
    permits = [r for r in reasons if (rule := policies.named.get(r.policy)) is not None and rule.effect == "permit"]
    for reason in permits or reasons[:1]:
        rule = policies.named.get(reason.policy)
        for part in filter(None, (rule.notes.get("change", "") if rule else "").split(";")):
            tried = apply(ask, part.strip())
            if tried is not None:
                found.append(tried)
    return found


def apply(ask: Ask, change: str) -> tuple[Change, Ask] | None:
    """`ask` with one change made; None where it is already so, or names a fact of another action. Raises
    PolicyInvalid.
    """
    name, sign, text = change.split(" ", 2)
    if name == "principal":
        if ask.principal == ask.resource:
            return None
        return Change("principal", str(ask.resource)), msgspec.structs.replace(ask, principal=ask.resource)
    kinds = dict(fields(type(ask.facts)))
    if name not in kinds:
        return None
    old = getattr(ask.facts, name)
    new = _value(ask, kinds[name], old, sign, text.strip())
    if new == old:
        return None
    shown = (
        ", ".join(sorted(new))
        if isinstance(new, frozenset)
        else str(new).lower()
        if isinstance(new, bool)
        else str(new)
    )
    facts = msgspec.structs.replace(ask.facts, **{name: new})
    return Change(name, shown), msgspec.structs.replace(ask, facts=facts)


def _value(ask: Ask, kind: object, old: object, sign: str, text: str) -> object:
    kinds = dict(fields(type(ask.facts)))
    if isinstance(old, frozenset) and sign in {"+=", "-="}:
        item = getattr(ask.facts, text[1:]) if text.startswith("@") else text
        return old | {item} if sign == "+=" else old - {item}
    if sign == "=" and kinds.get(text) == kind:
        return getattr(ask.facts, text)
    if sign == "=" and kind is bool and text in {"true", "false"}:
        return text == "true"
    if sign == "=" and kind is int and text.removeprefix("-").isdigit():
        return int(text)
    if sign == "=" and kind is str:
        return text
    if sign == "=" and text == "{}" and isinstance(old, frozenset):
        return frozenset()
    raise PolicyInvalid(f"the change `{text}` does not fit its fact", do="correct @change in that policy")
