"""Logins at a provider, as they stand in the database: what began, whose account it is, which session came of it.

Nobody gets an account by signing in: an operator's link enrols them, or the settings give a role to a claim that the provider
vouches for. A role that comes from a claim is looked at again at every login.
"""

from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from paroma.kernel import ids
from paroma.kernel.errors import Refused, Unavailable
from paroma.kernel.ids import PersonId, SiteId
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import upsert
from paroma.trust.identity import jose, people
from paroma.trust.identity.oidc import Begun, Identity, LoggedOut, LoginInvalid
from paroma.trust.identity.people import Opened, Person
from paroma.trust.identity.tables import ACCOUNTS, LOGINS, PEOPLE, SESSIONS

LOGIN_SECONDS: Final = 600.0  # to type a password and a second factor at the provider
MOST_BEGUN: Final = 10_000


class NotEnrolled(Refused):
    """The provider knows them; here nobody enrolled them, or they were revoked. Both look the same."""

    def __init__(self) -> None:
        super().__init__("nobody has enrolled this account here", do="ask the operator for a link that enrols you")


class TooManyLogins(Unavailable):
    """More logins have begun than can be waited for."""

    def __init__(self) -> None:
        super().__init__("too many logins have begun", do="try again in ten minutes")


def begin(tx: Connection, *, link: str | None, to: str, now: float, randomness: Randomness) -> tuple[str, Begun]:
    """A login begins: the cookie of the browser, and what it must be answered with. link: code of an enrolment link."""
    tx.execute(delete(LOGINS).where(LOGINS.c.ends <= now))
    if tx.execute(select(func.count()).select_from(LOGINS)).scalar_one() >= MOST_BEGUN:
        raise TooManyLogins
    cookie, state, nonce, verifier = (jose.to_text(randomness.take(32)) for _ in range(4))
    tx.execute(
        insert(LOGINS).values(
            hash=people.hash_of(cookie),
            state=state,
            nonce=nonce,
            verifier=verifier,
            link=None if link is None else people.hash_of(link),
            to=to,
            ends=now + LOGIN_SECONDS,
        )
    )
    return cookie, Begun(state=state, nonce=nonce, verifier=verifier)


def take(tx: Connection, cookie: str | None, state: str, *, now: float) -> tuple[Begun, str | None, str]:
    """What this browser began, hash of the link, and the page that was wanted; it is over with this. Raises LoginInvalid."""
    if cookie is None or len(cookie) > 128:
        raise LoginInvalid("it did not begin in this browser")
    row = tx.execute(select(LOGINS).where(LOGINS.c.hash == people.hash_of(cookie))).mappings().one_or_none()
    if row is None or now >= row["ends"] or row["state"] != state:
        raise LoginInvalid("it did not begin in this browser, or more than ten minutes ago")
    if tx.execute(delete(LOGINS).where(LOGINS.c.hash == row["hash"])).rowcount != 1:
        raise LoginInvalid("it was answered already")
    return Begun(state=state, nonce=row["nonce"], verifier=row["verifier"]), row["link"], row["to"]


def admit(
    tx: Connection,
    identity: Identity,
    *,
    link: str | None,
    role: str | None,
    site: SiteId | None,
    now: float,
    randomness: Randomness,
) -> tuple[Person, bool]:
    """Who this is here, and whether they or their role are new. Raises NotEnrolled, LinkSpent.

    link: hash of the code of an operator's link, which enrols this account. role: by the mapped claim, None where it gives none.
    """
    row = tx.execute(select(ACCOUNTS).where(ACCOUNTS.c.account == identity.account)).mappings().one_or_none()
    if row is None:
        if link is not None:
            name, given, where = people.spend_link(tx, link, by=identity.account, now=now)
            return _enrolled(tx, identity, name, given, where, mapped=False, now=now, randomness=randomness), True
        if role is None:
            raise NotEnrolled
        return _enrolled(tx, identity, identity.name, role, site, mapped=True, now=now, randomness=randomness), True
    person = people.person(tx, PersonId(row["person"]))
    if person.revoked is not None or (row["mapped"] and role is None):
        raise NotEnrolled
    if not row["mapped"] or role == person.role:
        return person, False
    # one account stays one person in whatever role: so nobody judges what they themselves asked for
    tx.execute(update(PEOPLE).where(PEOPLE.c.person == person.person).values(role=role))
    people.revoke_sessions(tx, person.person)
    return people.person(tx, person.person), True


def open_session(
    tx: Connection, person: Person, identity: Identity, *, browser: str, now: float, randomness: Randomness
) -> Opened:
    """A session for whom the provider vouched for."""
    return people.session_for(
        tx,
        subject=person.person,
        name=person.name,
        role=person.role,
        site=person.site,
        browser=browser,
        login=identity.login,
        life=people.SESSION_SECONDS,
        now=now,
        randomness=randomness,
    )


def end(tx: Connection, out: LoggedOut) -> int:
    """End what ended at the provider: the sessions of its session, or of the account; how many."""
    if out.login is not None:
        which = SESSIONS.c.login == out.login
    else:
        of = select(ACCOUNTS.c.person).where(ACCOUNTS.c.account == (out.account or ""))
        which = SESSIONS.c.subject.in_(of)
    return tx.execute(update(SESSIONS).where(which, SESSIONS.c.revoked.is_(False)).values(revoked=True)).rowcount


def _enrolled(
    tx: Connection,
    identity: Identity,
    name: str,
    role: str,
    site: SiteId | None,
    *,
    mapped: bool,
    now: float,
    randomness: Randomness,
) -> Person:
    made = ids.fresh("person", randomness)
    tx.execute(
        insert(PEOPLE).values(
            person=made, name=name, role=role, site=site, thumbprint=None, jwk=None, enrolled=now, revoked=None
        )
    )
    row = {"account": identity.account, "person": made, "mapped": mapped, "at": now}
    tx.execute(upsert(tx, ACCOUNTS).values(row).on_conflict_do_nothing())
    return people.person(tx, PersonId(made))
