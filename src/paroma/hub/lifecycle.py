"""Who is out, and what follows: a site falls silent; an operator isolates or removes one; a person, a key, a permit ends.

All functions of `Lifecycle` run in the caller's transaction, with their log entry and their effect on runs. Each that
shuts somebody off advances the revocation epoch: the hub that runs reads it every half second, whoever wrote it, and
cuts what is open (`parts.Hub.catch_up`). So a command at the hub's machine, which writes into the store beside the
running program, is as quick as a route of it. Repeating is safe: who is out stays out, and it is said since when.
"""

from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection

from paroma.hub import proposals
from paroma.hub.proposals import Post
from paroma.hub.runs import Runs
from paroma.kernel.canonical import Json
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PersonId, SiteId, printable
from paroma.learn.runs.report import Happened
from paroma.trust.audit.journal import Journal
from paroma.trust.federation import members
from paroma.trust.federation.members import Member, Officer
from paroma.trust.identity import epoch, people
from paroma.trust.identity.people import Person, PersonUnknown
from paroma.trust.permit.messages import PermitEnded
from paroma.trust.policy import facts
from paroma.trust.policy.facts import Entity

LONGEST_REASON: Final = 300  # characters
OUT: Final = frozenset({"quarantined", "left"})


class KeyUnknown(Refused):
    """Nobody here holds this key."""

    def __init__(self, thumbprint: str) -> None:
        super().__init__(
            f"nobody here holds the key `{printable(thumbprint)}`",
            do="copy the whole thumbprint, as `paroma hub person list` and `paroma hub members` show it",
        )


class KeyOfOfficer(Refused):
    """The key binds a site: only that site can end it."""

    def __init__(self, site: SiteId) -> None:
        super().__init__(
            f"this key is an officer's of site `{site}`, who was named by that site",
            do=f"let the site end it (`paroma site person revoke`), or quarantine the site: `paroma hub member quarantine {site}`",
        )


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. kind: person, member or permit. at: unix s, when it took effect. again: it had been done before."""

    kind: str
    id: str
    name: str
    state: str
    at: float
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done, and the sites that have mail: whoever committed rings them, and lets the hub catch up."""

    ended: Ended
    rung: set[SiteId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """The acts. by: who did it, as the log names them."""

    log: Journal
    runs: Runs
    post: Post
    clock: Clock

    # -- silence

    def silent(self, tx: Connection, site: SiteId, seconds: float) -> set[SiteId]:
        """A site was not heard for so many seconds: it is offline, and no run waits for it."""
        member = members.member(tx, site)
        if member.status not in {"admitted", "online"}:
            return set()
        now = self.clock.now()
        members.set_status(tx, site, "offline", at=now - seconds)
        entry = self.log.write(tx, "member-offline", site=site, seconds=int(seconds))
        what = f"{member.title} is offline: nobody waits for it until it is back."
        return self.runs.away(tx, site, Happened(what=what, at=now, entry=entry))

    def back(self, tx: Connection, site: SiteId) -> None:
        """A request of the site came."""
        member, now = members.member(tx, site), self.clock.now()
        if member.status in {"admitted", "offline"}:
            members.set_status(tx, site, "online", at=now)
        if member.status == "offline":
            self.log.write(tx, "member-online", site=site)

    # -- members

    def quarantine(self, tx: Connection, site: str, *, by: str, reason: str) -> Done:
        """Isolate a site: its requests are cut, no run waits for it. Raises MemberUnknown, StatusImpossible, BadInput."""
        return self._out(tx, site, "quarantined", by=by, reason=reason)

    def remove(self, tx: Connection, site: str, *, by: str, reason: str) -> Done:
        """End a membership for good. Raises MemberUnknown, BadInput."""
        return self._out(tx, site, "left", by=by, reason=reason)

    def release(self, tx: Connection, site: str, *, by: str, reason: str) -> Done:
        """Let a site in again that was isolated. Raises MemberUnknown, StatusImpossible, BadInput."""
        member, said = members.member(tx, site), words(reason)
        if member.status in members.TAKES_PART:
            return Done(ended=_member(member, member.status, member.changed, again=True), rung=set())
        now = self.clock.now()
        members.set_status(tx, member.site, "admitted", at=now)
        epoch.advance(tx)
        self.log.write(tx, "member-released", site=member.site, by=by, reason=said)
        return Done(ended=_member(member, "admitted", now, again=False), rung=set())

    def _out(self, tx: Connection, site: str, status: members.Status, *, by: str, reason: str) -> Done:
        member, said = members.member(tx, site), words(reason)
        if member.status == status:
            return Done(ended=_member(member, status, member.changed, again=True), rung=set())
        now = self.clock.now()
        members.set_status(tx, member.site, status, at=now)
        epoch.advance(tx)
        about: dict[str, Json] = {"site": member.site, "by": by, "reason": said}
        match status:  # each kind is written out, so that the reference finds it
            case "left":
                entry = self.log.write(tx, "member-left", **about)
            case _:
                entry = self.log.write(tx, "member-quarantined", **about)
        what = f"{member.title} {'is shut off' if status == 'quarantined' else 'has left'}: nobody waits for it."
        rung = self.runs.away(tx, member.site, Happened(what=what, at=now, entry=entry))
        return Done(ended=_member(member, status, now, again=False), rung=rung)

    # -- people and keys

    def revoke_person(self, tx: Connection, who: str, *, by: str, reason: str) -> Done:
        """Somebody's key, sessions and tokens end, and the runs that they opened. Raises PersonUnknown, BadInput."""
        person, said = people.person(tx, PersonId(who)), words(reason)
        if person.revoked is not None:
            return Done(ended=_person(person, person.revoked, again=True), rung=set())
        now = self.clock.now()
        people.revoke_person(tx, person.person, now=now)
        self.log.write(
            tx, "person-revoked", person=person.person, role=person.role, key=person.thumbprint, by=by, reason=said
        )
        rung = self.runs.stop_all(tx, "whoever opened it was revoked", applicant=person.person)
        return Done(ended=_person(person, now, again=False), rung=rung)

    def revoke_key(self, tx: Connection, thumbprint: str, *, by: str, reason: str) -> Done:
        """Shut off whoever holds this key: a person is revoked, a site quarantined. Raises KeyUnknown, KeyOfOfficer, BadInput."""
        try:
            person = people.by_key(tx, thumbprint)
        except PersonUnknown:
            member = members.by_key(tx, thumbprint)
        else:
            return self.revoke_person(tx, person.person, by=by, reason=reason)
        if member is not None:
            if member.status == "left":
                return Done(ended=_member(member, "left", member.changed, again=True), rung=set())
            return self.quarantine(tx, member.site, by=by, reason=reason)
        for officer in members.officers(tx):
            if officer.key.thumbprint == thumbprint:
                raise KeyOfOfficer(officer.site)
        raise KeyUnknown(thumbprint)

    def officer_named(self, tx: Connection, statement: bytes, officer: Officer) -> set[SiteId]:
        """A site has named an officer, or ended one: what was signed with that key holds no more, and its runs stop."""
        self.log.write(tx, "officer-named", statement=statement.decode())
        rung: set[SiteId] = set()
        if officer.ended is not None:
            for permit in proposals.signed_with(tx, officer.site, officer.key.thumbprint):
                rung |= self.runs.stop_all(tx, "the key of an officer who signed its permit was revoked", permit=permit)
        return rung

    # -- permits

    def revoke_permit(self, tx: Connection, permit: str, *, by: str, reason: str) -> Done:
        """End a permit before its time, and its runs at once. Raises PermitUnknown, PermitOver, BadInput."""
        said = words(reason) if reason else ""
        found = proposals.revoke(tx, permit, by=by, reason=said, log=self.log, post=self.post)
        rung = set(found.rung)
        if not found.again:
            why = "its permit was revoked" + (f": {said}" if said else "")
            rung |= self.runs.stop_all(tx, why, permit=permit)
        ended = Ended(kind="permit", id=permit, name=found.title, state="revoked", at=found.at, again=found.again)
        return Done(ended=ended, rung=rung)

    def permit_left(self, tx: Connection, site: SiteId, said: PermitEnded) -> set[SiteId]:
        """A site's officer ended a permit there: its runs go on without that site where they can. Raises PermitUnknown."""
        reason = printable(said.reason, longest=LONGEST_REASON)
        entry = proposals.left(tx, site, said.permit, reason, log=self.log)
        if entry is None:
            return set()
        title = members.member(tx, site).title
        what = f"The officer of {title} has ended the permit there: {reason or 'no reason was given'}."
        return self.runs.away(tx, site, Happened(what=what, at=self.clock.now(), entry=entry), permit=said.permit)


def words(reason: str) -> str:
    """A reason, fit for a log and for terminals. Raises BadInput."""
    said = printable(reason.strip(), longest=LONGEST_REASON)
    if not said:
        raise BadInput("no reason is given", do="say why, in a sentence: it stands in the log")
    return said


AT_THE_MACHINE: Final = Entity("Person", "at-the-machine")
"""Who acts with a command on the hub's own folder. Whoever can write there holds the hub's keys: they are its operator."""


def as_operator(kind: type[facts.Person], **more: object) -> facts.Person:
    """The facts about them."""
    return kind(proven=True, enrolled=True, roles=frozenset({"operator"}), **more)


def _member(member: Member, status: str, at: float, *, again: bool) -> Ended:
    return Ended(kind="member", id=member.site, name=member.title, state=status, at=at, again=again)


def _person(person: Person, at: float, *, again: bool) -> Ended:
    return Ended(kind="person", id=person.person, name=person.name, state="revoked", at=at, again=again)
