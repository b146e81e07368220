"""Every request of a person or site is decided here by policy on fresh facts, and a refusal is logged."""

from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.store.database import Store
from paroma.trust.audit.journal import Journal
from paroma.trust.identity.people import Person
from paroma.trust.policy import kept
from paroma.trust.policy.decide import Ask, Decision
from paroma.trust.policy.desk import Desk
from paroma.trust.policy.facts import Entity, Facts

FEDERATION = Entity("Federation", "federation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Decides and logs."""

    desk: Desk
    log: Journal
    store: Store

    async def require(self, principal: Entity, facts: Facts, resource: Entity = FEDERATION) -> Decision:
        """Decide; raise Refused unless allowed. A refusal stands in the federation log before it is told."""
        decision = self.decide(principal, facts, resource)
        if not decision.allowed:
            ask = Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts)
            await self.store.write(lambda tx: self._refused(tx, ask, decision))
        decision.require()
        return decision

    def decide(self, principal: Entity, facts: Facts, resource: Entity = FEDERATION) -> Decision:
        """The decision alone."""
        return self.desk.decide(Ask(action=facts.ACTION, principal=principal, resource=resource, facts=facts))

    def _refused(self, tx: Connection, ask: Ask, decision: Decision) -> None:
        self.log.write(
            tx,
            "refused",
            action=ask.action,
            principal=ask.principal.id,
            policy=decision.reasons[0].policy,
            policies=decision.policies,
            decision=kept.name_of(ask, decision.policies),
        )


def as_entity(person: Person) -> Entity:
    """The person as policy names them."""
    return Entity("Person", person.person)


def as_person(person: Person) -> dict[str, object]:
    """The facts about a person that every action of theirs asks for; the proof was checked before they got here."""
    return {"proven": True, "enrolled": person.revoked is None, "roles": frozenset({person.role})}
