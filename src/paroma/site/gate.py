"""The local decision: policy on fresh facts, for every use and every person at this site, and an entry for every refusal.

`Using` acts are decided inside the transaction that carries them out. An obligation to log or to say something is honoured
here: what was allowed by an exception is named in the log.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.canonical import Json
from paroma.trust.audit.journal import Journal
from paroma.trust.policy import kept
from paroma.trust.policy.decide import Ask, Decision
from paroma.trust.policy.desk import Desk
from paroma.trust.policy.facts import Entity, Facts

HUB = Entity("Hub", "hub")
FEDERATION = Entity("Federation", "federation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Decides and logs."""

    desk: Desk
    journal: Journal

    def decide(self, principal: Entity, facts: Facts, resource: Entity) -> Decision:
        """The decision alone, in the program's loop."""
        return self.desk.decide(Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts))

    def decide_in(self, tx: Connection, principal: Entity, facts: Facts, resource: Entity) -> Decision:
        """The decision alone, kept in this transaction."""
        ask = Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts)
        decision, _ = self.desk.decide_in(tx, ask)
        return decision

    def refused(self, tx: Connection, principal: Entity, facts: Facts, resource: Entity, decision: Decision) -> None:
        """A person's request was refused: it stands in the site log."""
        ask = Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts)
        self.journal.write(
            tx,
            "refused",
            action=ask.action,
            principal=principal.id,
            policy=decision.reasons[0].policy,
            policies=decision.policies,
            decision=kept.name_of(ask, decision.policies),
        )

    def refused_patient(self, tx: Connection, facts: Facts, decision: Decision) -> None:
        """A patient's request was refused: it stands in the site log, which names no patient."""
        policy, policies = decision.reasons[0].policy, decision.policies
        self.journal.write(tx, "refused", action=facts.ACTION, principal="patient", policy=policy, policies=policies)

    def not_heeded(self, tx: Connection, facts: Facts, decision: Decision) -> None:
        """Policy would have refused a patient's no, which was carried out all the same."""
        policy, policies = decision.reasons[0].policy, decision.policies
        self.journal.write(
            tx, "carried-out-anyway", action=facts.ACTION, principal="patient", policy=policy, policies=policies
        )

    def allows(self, tx: Connection, facts: Facts, resource: Entity, **about: Json) -> Decision:
        """Decide what the hub asks for; what came out stands in the site log, in this transaction."""
        ask = Ask(action=facts.ACTION, principal=HUB, resource=resource, facts=facts)
        decision, name = self.desk.decide_in(tx, ask)
        why = decision.reasons[0]
        said: dict[str, Json] = {
            "action": facts.ACTION,
            "policy": why.policy,
            "policies": decision.policies,
            "decision": name,
            **about,
        }
        if decision.allowed:
            if decision.obligations.say:
                said["say"] = ", ".join(decision.obligations.say)
            if decision.obligations.log:
                said["obliges"] = _obliges(decision)
                self.journal.write(tx, "allowed", **said)
        else:
            self.journal.write(tx, "refused", because=why.because, to_change=why.to_change, **said)
        return decision


def _obliges(decision: Decision) -> dict[str, Json]:
    """The obligations with a figure or a word; what has to be logged and said stands beside them."""
    return {name: value for name, value in decision.obligations.told().items() if isinstance(value, int | str)}
