"""Why something was decided as it was: the policies with their text, the facts, and the smallest change that turns a no.

The change is tried before it is told: the request is decided again with it, and only what was seen to be allowed is offered.
"""

from paroma.kernel.ids import printable
from paroma.trust.policy import packs
from paroma.trust.policy.decide import Ask, Policies, decide_afresh
from paroma.trust.policy.facts import fields
from paroma.trust.policy.said import ChangeSaid, Deciding, Explained
from paroma.trust.policy.why import why


def explain(policies: Policies, ask: Ask) -> Explained:
    """Explain how these policies decide the request. Raises PolicyInvalid where a policy's @change does not fit its facts."""
    decision, found = decide_afresh(policies, ask), why(policies, ask)
    turned = found.turned is not None and decide_afresh(policies, found.turned).allowed  # what is told was seen to help
    return Explained(
        action=ask.action,
        principal=f"{ask.principal.kind} {ask.principal.id}",
        resource=f"{ask.resource.kind} {ask.resource.id}",
        allowed=decision.allowed,
        policies=decision.policies,
        deciding=tuple(
            Deciding(
                policy=one.policy,
                because=one.because,
                to_change=one.to_change,
                text=packs.source_of(policies.text, one.policy),
            )
            for one in decision.reasons
        ),
        facts={name: shown(getattr(ask.facts, name)) for name, _ in fields(type(ask.facts))},
        obliges=decision.obligations.told(),
        changes=tuple(
            ChangeSaid(
                fact=one.fact,
                now=str(ask.principal) if one.fact == "principal" else shown(getattr(ask.facts, one.fact)),
                helps=one.value,
            )
            for one in found.changes
            if turned
        ),
    )


def shown(value: object) -> str:
    """A fact as text: printable, short, a set with commas."""
    if isinstance(value, frozenset):
        return printable(", ".join(sorted(value)), longest=400)
    return str(value).lower() if isinstance(value, bool) else printable(str(value), longest=400)
