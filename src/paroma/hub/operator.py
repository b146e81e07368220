"""What an operator does at the hub's machine about members, people, keys and permits, decided by policy like any request.

Each works on the hub's store; a hub that runs beside it notices within half a second, since the revocation epoch moved.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection

from paroma.hub import proposals, reports
from paroma.hub.commands import at_hub
from paroma.hub.gate import FEDERATION
from paroma.hub.lifecycle import AT_THE_MACHINE, Done, Ended, Lifecycle, as_operator
from paroma.hub.reports import MemberSeen
from paroma.trust.federation import members
from paroma.trust.identity import epoch, people
from paroma.trust.identity.people import Person
from paroma.trust.policy import facts
from paroma.trust.policy.decide import Ask
from paroma.trust.policy.facts import Entity, Facts

BY = AT_THE_MACHINE.id


def member_list(folder: Path) -> tuple[MemberSeen, ...]:
    """All members, and since when each that is offline was not heard. Raises Refused."""
    with at_hub(folder) as hub:
        hub.gate.decide(AT_THE_MACHINE, as_operator(facts.ReadMembers), FEDERATION).require()
        now = hub.ports.clock.now()
        return tuple(reports.seen(m, None, now) for m in hub.store.read_now(members.members))


def person_list(folder: Path) -> tuple[Person, ...]:
    """Everybody who is or was enrolled. Raises Refused."""
    with at_hub(folder) as hub:
        hub.gate.decide(AT_THE_MACHINE, as_operator(facts.ReadMembers), FEDERATION).require()
        return hub.store.read_now(people.people)


def quarantine(folder: Path, site: str, reason: str) -> Ended:
    """Isolate a member. Raises Refused, BadInput."""
    asked = [(as_operator(facts.Quarantine), Entity("Site", site))]
    return _act(folder, asked, lambda acts, tx: acts.quarantine(tx, site, by=BY, reason=reason))


def release(folder: Path, site: str, reason: str) -> Ended:
    """Let it in again. Raises Refused, BadInput."""
    asked = [(as_operator(facts.Release), Entity("Site", site))]
    return _act(folder, asked, lambda acts, tx: acts.release(tx, site, by=BY, reason=reason))


def remove(folder: Path, site: str, reason: str) -> Ended:
    """End its membership. Raises Refused, BadInput."""
    asked = [(as_operator(facts.Remove), Entity("Site", site))]
    return _act(folder, asked, lambda acts, tx: acts.remove(tx, site, by=BY, reason=reason))


def revoke_person(folder: Path, who: str, reason: str) -> Ended:
    """Shut somebody off. Raises Refused, BadInput."""
    asked = [(as_operator(facts.RevokePerson), Entity("Person", who))]
    return _act(folder, asked, lambda acts, tx: acts.revoke_person(tx, who, by=BY, reason=reason))


def revoke_key(folder: Path, thumbprint: str, reason: str) -> Ended:
    """Shut off whoever holds a key. Raises Refused, BadInput."""
    asked = [
        (as_operator(facts.RevokePerson), Entity("Person", thumbprint)),
        (as_operator(facts.Quarantine), Entity("Site", thumbprint)),
    ]
    return _act(folder, asked, lambda acts, tx: acts.revoke_key(tx, thumbprint, by=BY, reason=reason))


def revoke_permit(folder: Path, permit: str, reason: str) -> Ended:
    """End a permit and its runs. Raises Refused, BadInput."""

    def act(acts: Lifecycle, tx: Connection) -> Done:
        done = acts.revoke_permit(tx, permit, by=BY, reason=reason)
        if not done.ended.again:
            epoch.advance(tx)  # the hub that runs beside looks at all mail when it moves
        return done

    asked = [(as_operator(facts.RevokePermit, is_applicant=False), Entity("Study", _study(folder, permit)))]
    return _act(folder, asked, act)


def _study(folder: Path, permit: str) -> str:
    with at_hub(folder) as hub:
        return hub.store.read_now(lambda tx: proposals.signed(tx, permit)).permit.study


def _act(folder: Path, asked: Sequence[tuple[Facts, Entity]], what: Callable[[Lifecycle, Connection], Done]) -> Ended:
    """Decide, then do it in one transaction."""
    with at_hub(folder) as hub:

        def act(tx: Connection) -> Done:
            for about, resource in asked:
                ask = Ask(action=about.ACTION, principal=AT_THE_MACHINE, resource=resource, facts=about)
                hub.gate.desk.decide_in(tx, ask)[0].require()
            return what(hub.lifecycle, tx)

        return hub.store.write_now(act).ended
