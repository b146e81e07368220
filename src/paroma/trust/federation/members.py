"""Who belongs to the federation, and who speaks for each site.

The hub keeps these tables as the record; each site keeps its own copy of them from the entries of the federation log,
and checks every officer's enrolment against the site's key itself. Status words and their order:

    invited -> joining -> admitted -> online <-> offline, quarantined <-> the last three, left (the end)

`online` and `offline` are observations; `quarantined` and `left` are decisions, and close the line at once.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select, update

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PersonId, SiteId, printable
from paroma.kernel.store.database import upsert
from paroma.trust.federation import statements
from paroma.trust.federation.tables import MEMBERS, OFFICERS
from paroma.trust.identity import jose
from paroma.trust.identity.clients import Client
from paroma.trust.keys.signing import PublicKey, SigningKey

Status = Literal["invited", "joining", "admitted", "online", "offline", "quarantined", "left"]
OFFICER_DOMAIN: Final = "paroma/officer/v1"
MAY_BECOME: Final[Mapping[str, frozenset[str]]] = {
    "invited": frozenset({"joining", "left"}),
    "joining": frozenset({"admitted", "quarantined", "left"}),
    "admitted": frozenset({"online", "offline", "quarantined", "left"}),
    "online": frozenset({"offline", "quarantined", "left"}),
    "offline": frozenset({"online", "quarantined", "left"}),
    "quarantined": frozenset({"admitted", "left"}),
    "left": frozenset(),
}
MAY_TALK: Final = frozenset({"joining", "admitted", "online", "offline"})  # a token is given to these only
TAKES_PART: Final = frozenset({"admitted", "online", "offline"})  # may stand in a permit
_MEMBERS: Final = select(MEMBERS).order_by(MEMBERS.c.site)


class MemberUnknown(Refused):
    """There is no such site in this federation."""

    def __init__(self, site: str) -> None:
        super().__init__(f"there is no site `{printable(site)}` in this federation", do="look at the list of members")


class StatusImpossible(Refused):
    """The status cannot follow the present one."""

    def __init__(self, site: SiteId, now: str, wanted: str) -> None:
        super().__init__(
            f"site `{site}` is {now} and cannot become {wanted}",
            do="invite it again" if now == "left" else f"choose one of: {', '.join(sorted(MAY_BECOME[now]))}",
        )


class StatementInvalid(Refused):
    """The enrolment of an officer is not what the site signed, or is older than what is known."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the enrolment of this officer does not hold: {why}", do="enrol the officer again at the site"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A site of the federation."""

    site: SiteId
    owner: str  # who answers for it; sites of one owner count as one
    title: str
    key: PublicKey  # ES256: tokens, proofs, statements, votes
    log_vkey: str  # C2SP verifier key of its site log and its cosignatures
    status: Status
    changed: float  # seconds since 1970

    def client(self) -> Client:
        """What the issuer of tokens needs to know."""
        return Client(subject=self.site, role="site", site=self.site, key=self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Officer:
    """A person whose signature binds a site."""

    site: SiteId
    person: PersonId
    name: str
    key: PublicKey
    at: float  # of the enrolment, seconds since 1970
    ended: float | None
    statement: bytes  # as the site signed it


class OfficerStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site` says that the holder of `jwk` signs for it from `at` on; or, with `ended`, no longer."""

    site: str
    person: str
    name: str
    jwk: dict[str, str]
    at: float  # seconds since 1970; a later statement about the same key replaces an earlier one
    ended: bool


def add(tx: Connection, member: Member) -> None:
    """Take a site up. Repeating it with the same key changes nothing; a known site with another key is refused.

    Raises BadInput, Refused.
    """
    for what in (member.owner, member.title):
        if not what or printable(what, longest=120) != what:
            raise BadInput(
                "owner and title must be 1 to 120 printable characters", do="give them as they should be shown"
            )
    known = tx.execute(select(MEMBERS).where(MEMBERS.c.site == member.site)).mappings().one_or_none()
    if known is not None:
        if known["thumbprint"] != member.key.thumbprint:
            raise Refused(
                f"site `{member.site}` is known with another key", do="rotate the key, or invite the site anew"
            )
        return
    tx.execute(
        insert(MEMBERS).values(
            site=member.site,
            owner=member.owner,
            title=member.title,
            thumbprint=member.key.thumbprint,
            jwk=canonical.encode(member.key.jwk).decode(),
            log_vkey=member.log_vkey,
            status=member.status,
            changed=member.changed,
        )
    )


def member(tx: Connection, site: str) -> Member:
    """The site of this id. Raises MemberUnknown."""
    row = tx.execute(select(MEMBERS).where(MEMBERS.c.site == site)).mappings().one_or_none()
    if row is None:
        raise MemberUnknown(site)
    return _member(row)


def by_key(tx: Connection, thumbprint: str) -> Member | None:
    """The site that holds this key."""
    row = tx.execute(select(MEMBERS).where(MEMBERS.c.thumbprint == thumbprint)).mappings().one_or_none()
    return None if row is None else _member(row)


def members(tx: Connection) -> tuple[Member, ...]:
    """All sites, those that left too, by id."""
    return tuple(_member(row) for row in tx.execute(_MEMBERS).mappings())


def find_client(tx: Connection, name: str) -> Client | None:
    """The site of this name as a client, None unless it may talk to the hub now."""
    row = tx.execute(select(MEMBERS).where(MEMBERS.c.site == name)).mappings().one_or_none()
    return _member(row).client() if row is not None and row["status"] in MAY_TALK else None


def set_status(tx: Connection, site: SiteId, status: Status, *, at: float) -> bool:
    """Change the status of `site`; False where it had it already. at: seconds since 1970.

    After `quarantined` and `left` the caller advances the revocation epoch in the same transaction and cuts the
    parked requests of the site. Raises MemberUnknown, StatusImpossible.
    """
    now = member(tx, site).status
    if now == status:
        return False
    if status not in MAY_BECOME[now]:
        raise StatusImpossible(site, now, status)
    tx.execute(update(MEMBERS).where(MEMBERS.c.site == site).values(status=status, changed=at))
    return True


# -- officers


def enrolment(
    key: SigningKey, *, site: SiteId, person: PersonId, name: str, officer: PublicKey, at: float, ended: bool = False
) -> bytes:
    """The statement by which a site (its `key`) names an officer, or with `ended` un-names one.

    at: seconds since 1970.
    """
    statement = OfficerStatement(site=site, person=person, name=name, jwk=officer.jwk, at=at, ended=ended)
    return statements.sign(OFFICER_DOMAIN, statement, key)


def take_enrolment(tx: Connection, statement: bytes) -> Officer:
    """Verify a statement with the site's key, and keep it where it is newer than what is known of that officer's key.

    Repeating it changes nothing. Raises NotStrictJson, MemberUnknown, SignatureInvalid, StatementInvalid,
    TokenUnreadable.
    """
    said, signed = statements.read(statement, OfficerStatement)
    site = member(tx, said.site)
    statements.verify(OFFICER_DOMAIN, signed, site.key)
    key = jose.public_key(said.jwk)
    if key.thumbprint == site.key.thumbprint:
        raise StatementInvalid("the site's own key cannot be an officer's")
    known = _officer_row(tx, site.site, key.thumbprint)
    if known is not None:
        if known["person"] != said.person:
            raise StatementInvalid("this key belongs to another officer")
        if known["at"] > said.at or (known["at"] == said.at and bytes(known["statement"]) != statement):
            raise StatementInvalid("a newer one is known")
    row = {
        "person": said.person,
        "name": said.name,
        "jwk": canonical.encode(key.jwk).decode(),
        "at": said.at,
        "ended": said.at if said.ended else None,
        "statement": statement,
    }
    put = upsert(tx, OFFICERS).values(site=site.site, thumbprint=key.thumbprint, **row)
    tx.execute(put.on_conflict_do_update(index_elements=[OFFICERS.c.site, OFFICERS.c.thumbprint], set_=row))
    taken = _officer_row(tx, site.site, key.thumbprint)
    if taken is None:
        raise AssertionError("the row was just written")
    return _officer(taken)


def officers(tx: Connection, site: SiteId | None = None) -> tuple[Officer, ...]:
    """The officers of one site or of all, the former ones too (they have `ended`)."""
    query = select(OFFICERS).order_by(OFFICERS.c.site, OFFICERS.c.at, OFFICERS.c.thumbprint)
    rows = tx.execute(query if site is None else query.where(OFFICERS.c.site == site)).mappings()
    return tuple(_officer(row) for row in rows)


def officer_keys(tx: Connection) -> dict[SiteId, dict[str, PublicKey]]:
    """For each site that takes part, the keys whose signatures bind it now, by thumbprint:

    what `permit.verify` asks for.
    """
    keys: dict[SiteId, dict[str, PublicKey]] = {m.site: {} for m in members(tx) if m.status in TAKES_PART}
    for officer in officers(tx):
        if officer.ended is None and officer.site in keys:
            keys[officer.site][officer.key.thumbprint] = officer.key
    return keys


def signs_no_more(tx: Connection) -> frozenset[tuple[SiteId, str]]:
    """Site and thumbprint of every officer's key that its site has ended."""
    ended = select(OFFICERS.c.site, OFFICERS.c.thumbprint).where(OFFICERS.c.ended.is_not(None))
    return frozenset((SiteId(row.site), row.thumbprint) for row in tx.execute(ended))


def _officer_row(tx: Connection, site: SiteId, thumbprint: str) -> RowMapping | None:
    query = select(OFFICERS).where(OFFICERS.c.site == site, OFFICERS.c.thumbprint == thumbprint)
    return tx.execute(query).mappings().one_or_none()


def _officer(row: RowMapping) -> Officer:
    return Officer(
        site=SiteId(row["site"]),
        person=PersonId(row["person"]),
        name=row["name"],
        key=_key(row["jwk"]),
        at=row["at"],
        ended=row["ended"],
        statement=bytes(row["statement"]),
    )


@functools.lru_cache(maxsize=4096)  # the same text is the same key; who holds it is read from the row, every time
def _key(jwk: str) -> PublicKey:
    return PublicKey.from_jwk(json.loads(jwk))


def _member(row: RowMapping) -> Member:
    return Member(
        site=SiteId(row["site"]),
        owner=row["owner"],
        title=row["title"],
        key=_key(row["jwk"]),
        log_vkey=row["log_vkey"],
        status=cast("Status", row["status"]),
        changed=row["changed"],
    )
