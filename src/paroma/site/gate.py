"""The local decision: policy on fresh facts, for every use and every person at this site, and an entry for every refusal.

`Using` acts are decided inside the transaction that carries them out. An obligation to log or to say something is honoured
here: what was allowed by an exception is named in the log.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.canonical import Json
from paroma.trust.audit.journal import Journal
from paroma.trust.policy.decide import Ask, Decision, Policies, decide
from paroma.trust.policy.facts import Entity, Facts

HUB = Entity("Hub", "hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Decides and logs."""

    policies: Policies
    journal: Journal

    def decide(self, principal: Entity, facts: Facts, resource: Entity) -> Decision:
        """The decision alone."""
        return decide(self.policies, Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts))

    def allows(self, tx: Connection, facts: Facts, resource: Entity, **about: Json) -> Decision:
        """Decide what the hub asks for; what came out stands in the site log, in this transaction."""
        decision = self.decide(HUB, facts, resource)
        why = decision.reasons[0]
        said: dict[str, Json] = {"action": facts.ACTION, "policy": why.policy, "policies": decision.policies, **about}
        if decision.allowed:
            if "say" in decision.obligations:
                said["say"] = decision.obligations["say"]
            if "log" in decision.obligations:
                self.journal.write(tx, "allowed", **said)
        else:
            self.journal.write(tx, "refused", because=why.because, to_change=why.to_change, **said)
        return decision
