"""Persons and browsers.

A scientist, officer, committee member, operator or auditor holds a P-256 key and is enrolled by a single-use link,
whose role and site were fixed by whoever made it. A browser gets a session from a single-use link too: a person's own
program asks for one with its key, and a patient's is printed by the desk. The first browser that opens the link gets
the session's cookie; the link is spent. Codes and cookies are stored as hashes only.

Nothing here tells whether a code was never made, was spent or has expired: a stranger who tries codes learns nothing.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final, Literal, cast

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from paroma.kernel import canonical, ids
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, PersonId, SiteId, printable
from paroma.kernel.randomness import Randomness
from paroma.trust.identity import epoch, jose
from paroma.trust.identity.clients import Client
from paroma.trust.identity.tables import LINKS, PEOPLE, SESSIONS
from paroma.trust.identity.tokens import Role
from paroma.trust.keys.signing import PublicKey

ENROL_LINK_SECONDS: Final = 7 * 24 * 3600.0
BROWSER_LINK_SECONDS: Final = 15 * 60.0
SESSION_SECONDS: Final = 15 * 60.0
SEEN_SECONDS: Final = 60.0  # so exactly is it kept when a session was last used
CODE_BYTES: Final = 16
_COOKIE_BYTES: Final = 32

BrowserRole = Role | Literal["patient"]


class LinkSpent(Refused):
    """The link was used, has expired, or never was one."""

    def __init__(self) -> None:
        super().__init__(
            "this link was used before, or its time has passed", do="ask for a new link where you got this one"
        )


class SessionEnded(Refused):
    """The cookie opens no session (any more)."""

    def __init__(self) -> None:
        super().__init__("this session has ended", do="open a new link")


class PersonUnknown(Refused):
    """There is no such person here, or their key was revoked."""

    def __init__(self) -> None:
        super().__init__(
            "there is no such person here, or their key was revoked", do="look at the list: `paroma hub person list`"
        )


class KeyTaken(Refused):
    """The key belongs to somebody else, or to the same person in another role."""

    def __init__(self) -> None:
        super().__init__(
            "this key is enrolled already", do="make another key for another role: `paroma login --new-key`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who acts with a key."""

    person: PersonId
    name: str
    role: Role
    site: SiteId | None
    key: PublicKey | None  # None: signs in at the provider only, and so can sign nothing
    enrolled: float  # seconds since 1970
    revoked: float | None

    @property
    def thumbprint(self) -> str:
        """Of the key; empty where there is none."""
        return "" if self.key is None else self.key.thumbprint

    def client(self) -> Client | None:
        """What the issuer of tokens needs to know; None where there is no key that a token could be bound to."""
        if self.key is None:
            return None
        return Client(subject=self.person, role=self.role, site=self.site, key=self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser that may act for somebody until `ends` (seconds since 1970)."""

    session: str
    subject: str  # a PersonId, or a PatientId where the role is `patient`
    name: str
    role: BrowserRole
    site: SiteId | None
    browser: str
    opened: float
    ends: float
    revoked: bool
    seen: float  # when it was last used, to `SEEN_SECONDS`


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session and its cookie. The cookie exists here and in the browser, and nowhere else."""

    session: Session
    cookie: str


# -- persons


def invite(
    tx: Connection,
    *,
    name: str,
    role: Role,
    site: SiteId | None,
    now: float,
    randomness: Randomness,
    life: float = ENROL_LINK_SECONDS,
) -> str:
    """The code of a link that enrols one person in this role, at this site.

    now: seconds since 1970; life: seconds.
    """
    return _make_link(
        tx,
        "enrol",
        subject=None,
        name=name,
        role=role,
        site=site,
        now=now,
        life=life,
        session=None,
        randomness=randomness,
    )


def enrol(tx: Connection, code: str, jwk: dict[str, str], *, now: float, randomness: Randomness) -> Person:
    """Spend the link `code` for the holder of the key `jwk`. The caller has verified a proof by that key.

    Repeating it with the same key gives the same person. Raises LinkSpent, KeyTaken, TokenUnreadable (no public P-256
    key).
    """
    key = jose.public_key(jwk)
    link = _link(tx, "enrol", code)
    if link is None:
        raise LinkSpent
    if link["used"] is not None:
        if link["used_by"] != key.thumbprint:
            raise LinkSpent
        return by_key(tx, key.thumbprint)
    if now >= link["ends"]:
        raise LinkSpent
    if tx.execute(select(PEOPLE.c.person).where(PEOPLE.c.thumbprint == key.thumbprint)).first() is not None:
        raise KeyTaken
    _spend(tx, hash_of(code), by=key.thumbprint, now=now)
    tx.execute(
        insert(PEOPLE).values(
            person=ids.fresh("person", randomness),
            name=link["name"],
            role=link["role"],
            site=link["site"],
            thumbprint=key.thumbprint,
            jwk=canonical.encode(key.jwk).decode(),
            enrolled=now,
            revoked=None,
        )
    )
    return by_key(tx, key.thumbprint)


def spend_link(tx: Connection, mark: str, *, by: str, now: float) -> tuple[str, str, SiteId | None]:
    """Spend the enrolment link whose code has the hash `mark`, for an account: name, role and site. Raises LinkSpent."""
    link = _link_of(tx, "enrol", mark)
    if link is None or link["used"] is not None or now >= link["ends"]:
        raise LinkSpent
    _spend(tx, mark, by=by, now=now)
    return link["name"], link["role"], None if link["site"] is None else SiteId(link["site"])


def person(tx: Connection, who: PersonId) -> Person:
    """The person of this id. Raises PersonUnknown."""
    return _person(tx.execute(select(PEOPLE).where(PEOPLE.c.person == who)).mappings().one_or_none())


def by_key(tx: Connection, thumbprint: str) -> Person:
    """The person who holds this key. Raises PersonUnknown."""
    return _person(tx.execute(select(PEOPLE).where(PEOPLE.c.thumbprint == thumbprint)).mappings().one_or_none())


def people(tx: Connection) -> tuple[Person, ...]:
    """Everybody, in the order of their enrolment, the revoked too."""
    rows = tx.execute(select(PEOPLE).order_by(PEOPLE.c.enrolled, PEOPLE.c.person)).mappings().all()
    return tuple(_person(row) for row in rows)


def find_client(tx: Connection, name: str) -> Client | None:
    """The person of this name as a client, None where there is none or they were revoked."""
    row = tx.execute(select(PEOPLE).where(PEOPLE.c.person == name, PEOPLE.c.revoked.is_(None))).mappings().one_or_none()
    return None if row is None else _person(row).client()


def revoke_person(tx: Connection, who: PersonId, *, now: float) -> int:
    """End the person's key, their sessions, and (by the epoch, which is returned) all tokens. Repeating it changes
    nothing more.

    Raises PersonUnknown.
    """
    person(tx, who)
    done = tx.execute(update(PEOPLE).where(PEOPLE.c.person == who, PEOPLE.c.revoked.is_(None)).values(revoked=now))
    if not done.rowcount:
        return epoch.current(tx)
    revoke_sessions(tx, who)
    tx.execute(delete(LINKS).where(LINKS.c.subject == who, LINKS.c.used.is_(None)))
    return epoch.advance(tx)


# -- browsers


def browser_link(
    tx: Connection,
    subject: PersonId | PatientId,
    *,
    name: str,
    role: BrowserRole,
    site: SiteId | None,
    now: float,
    randomness: Randomness,
    life: float = BROWSER_LINK_SECONDS,
    session: float = SESSION_SECONDS,
) -> str:
    """The code of a link that opens one session for `subject`. life of the link and of the session: seconds."""
    return _make_link(
        tx,
        "browser",
        subject=subject,
        name=name,
        role=role,
        site=site,
        now=now,
        life=life,
        session=session,
        randomness=randomness,
    )


def open_session(
    tx: Connection, code: str, *, browser: str, cookie: str | None, now: float, randomness: Randomness
) -> Opened:
    """Spend the link `code` for the browser that brings it; what it calls itself is kept for the list.

    cookie: the session cookie the browser already has. The browser that spent the link may open it again (a reload)
    as long as its session lives; from any other it is refused. Raises LinkSpent.
    """
    link = _link(tx, "browser", code)
    if link is None:
        raise LinkSpent
    if link["used"] is not None:
        try:
            mine = session(tx, cookie, now=now)
        except SessionEnded:
            raise LinkSpent from None
        if cookie is None or mine.session != link["used_by"]:
            raise LinkSpent
        return Opened(session=mine, cookie=cookie)
    if now >= link["ends"]:
        raise LinkSpent
    opened = session_for(
        tx,
        subject=link["subject"],
        name=link["name"],
        role=link["role"],
        site=link["site"],
        browser=browser,
        login=None,
        life=link["session_seconds"],
        now=now,
        randomness=randomness,
    )
    _spend(tx, hash_of(code), by=opened.session.session, now=now)
    return opened


def session_for(
    tx: Connection,
    *,
    subject: str,
    name: str,
    role: str,
    site: SiteId | None,
    browser: str,
    login: str | None,
    life: float,
    now: float,
    randomness: Randomness,
) -> Opened:
    """A new session of `life` seconds for somebody who was let in. login: mark of the provider's session that it came from."""
    fresh = jose.to_text(randomness.take(_COOKIE_BYTES))
    tx.execute(
        insert(SESSIONS).values(
            session=ids.fresh("session", randomness),
            hash=hash_of(fresh),
            subject=subject,
            name=name,
            role=role,
            site=site,
            browser=printable(browser, longest=100),
            opened=now,
            ends=now + life,
            revoked=False,
            seen=now,
            login=login,
        )
    )
    return Opened(session=session(tx, fresh, now=now), cookie=fresh)


def used(tx: Connection, session: str, *, now: float) -> None:
    """The session was used just now."""
    tx.execute(update(SESSIONS).where(SESSIONS.c.session == session, SESSIONS.c.seen < now).values(seen=now))


def session(tx: Connection, cookie: str | None, *, now: float) -> Session:
    """The living session of `cookie`. Raises SessionEnded."""
    if cookie is None or len(cookie) > 128:
        raise SessionEnded
    row = tx.execute(select(SESSIONS).where(SESSIONS.c.hash == hash_of(cookie))).mappings().one_or_none()
    if row is None or row["revoked"] or now >= row["ends"]:
        raise SessionEnded
    return _session(row)


def living(tx: Connection, cookie: str, *, now: float) -> Session | None:
    """The living session of `cookie`, None where there is none."""
    try:
        return session(tx, cookie, now=now)
    except SessionEnded:
        return None


def sessions(tx: Connection, subject: str, *, now: float) -> tuple[Session, ...]:
    """The living sessions of `subject`, the newest first."""
    rows = tx.execute(
        select(SESSIONS)
        .where(SESSIONS.c.subject == subject, SESSIONS.c.revoked.is_(False), SESSIONS.c.ends > now)
        .order_by(SESSIONS.c.opened.desc(), SESSIONS.c.session)
    )
    return tuple(_session(row) for row in rows.mappings())


def revoke_session(tx: Connection, subject: str, session: str) -> None:
    """End one session of `subject`; another's stays as it is. Repeating it changes nothing."""
    tx.execute(
        update(SESSIONS).where(SESSIONS.c.session == session, SESSIONS.c.subject == subject).values(revoked=True)
    )


def revoke_sessions(tx: Connection, subject: str) -> None:
    """End all sessions of `subject`."""
    tx.execute(update(SESSIONS).where(SESSIONS.c.subject == subject).values(revoked=True))


def forget_subject(tx: Connection, subject: str) -> None:
    """Delete every session and link of `subject`, because they are erased."""
    tx.execute(delete(SESSIONS).where(SESSIONS.c.subject == subject))
    tx.execute(delete(LINKS).where(LINKS.c.subject == subject))


def forget(tx: Connection, *, before: float) -> None:
    """Delete sessions and browser links that ended before `before` (seconds since 1970). For a job, once a day."""
    tx.execute(delete(SESSIONS).where(SESSIONS.c.ends < before))
    tx.execute(delete(LINKS).where(LINKS.c.kind == "browser", LINKS.c.ends < before))


def form_token(cookie: str) -> str:
    """What a page of the session puts into its forms, so that another site's page cannot send them (CSRF)."""
    return jose.to_text(hmac.digest(cookie.encode(), b"paroma/form/v1", "sha256")[:18])


def check_form(cookie: str, token: str) -> None:
    """Raises Refused unless `token` is the session's `form_token`."""
    if not hmac.compare_digest(form_token(cookie).encode(), token.encode("utf-8", "replace")):
        raise Refused("this form does not belong to this session", do="load the page again, then send the form")


# -- rows


def _make_link(
    tx: Connection,
    kind: str,
    *,
    subject: str | None,
    name: str,
    role: str,
    site: SiteId | None,
    now: float,
    life: float,
    session: float | None,
    randomness: Randomness,
) -> str:
    if not name or printable(name, longest=120) != name:
        raise BadInput("a name must be 1 to 120 printable characters", do="give the name as it should be shown")
    code = jose.to_text(randomness.take(CODE_BYTES))
    tx.execute(
        insert(LINKS).values(
            hash=hash_of(code),
            kind=kind,
            subject=subject,
            name=name,
            role=role,
            site=site,
            made=now,
            ends=now + life,
            session_seconds=session,
            used=None,
            used_by=None,
        )
    )
    return code


def _link(tx: Connection, kind: str, code: str) -> RowMapping | None:
    return None if len(code) > 128 else _link_of(tx, kind, hash_of(code))


def _link_of(tx: Connection, kind: str, mark: str) -> RowMapping | None:
    found = tx.execute(select(LINKS).where(LINKS.c.hash == mark, LINKS.c.kind == kind))
    return found.mappings().one_or_none()


def _spend(tx: Connection, mark: str, *, by: str, now: float) -> None:
    """INVARIANT:

    of two that spend one link at once, one fails (writes are in one order, and this count).
    """
    done = tx.execute(update(LINKS).where(LINKS.c.hash == mark, LINKS.c.used.is_(None)).values(used=now, used_by=by))
    if done.rowcount != 1:
        raise LinkSpent


def hash_of(secret: str) -> str:
    """How codes and cookies are kept."""
    # 128 bits and more from the randomness parameter: no salt and no slow hash are needed against guessing
    return hashlib.sha256(b"paroma/secret/v1\n" + secret.encode("utf-8", "surrogatepass")).hexdigest()


def _person(row: RowMapping | None) -> Person:
    if row is None:
        raise PersonUnknown
    return Person(
        person=PersonId(row["person"]),
        name=row["name"],
        role=cast("Role", row["role"]),
        site=None if row["site"] is None else SiteId(row["site"]),
        key=None if row["jwk"] is None else PublicKey.from_jwk(json.loads(row["jwk"])),
        enrolled=row["enrolled"],
        revoked=row["revoked"],
    )


def _session(row: RowMapping) -> Session:
    return Session(
        session=row["session"],
        subject=row["subject"],
        name=row["name"],
        role=cast("BrowserRole", row["role"]),
        site=None if row["site"] is None else SiteId(row["site"]),
        browser=row["browser"],
        opened=row["opened"],
        ends=row["ends"],
        revoked=row["revoked"],
        seen=row["seen"],
    )
