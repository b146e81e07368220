"""Joining: a site shows its invitation and its keys, the hub answers with the site's id and its own keys.

The request is signed by the site's key, and comes with a proof by that key (RFC 9449) under a nonce of the hub, so
that nobody can join with somebody else's key or show a request again. The answer is signed by the hub's key, and
names the log whose key stands in the invitation. Repeating the request with the same key gives the same answer.
"""

import hmac
from typing import Final

import msgspec
from sqlalchemy import Connection

from paroma.kernel import ids
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.trust.federation import invitations, members, statements
from paroma.trust.federation.invitations import Invitation
from paroma.trust.federation.members import Member
from paroma.trust.identity import jose
from paroma.trust.keys.signing import PublicKey, SigningKey

PATH: Final = "/federation/join"
REQUEST_DOMAIN: Final = "paroma/join/v1"
ACCEPTED_DOMAIN: Final = "paroma/joined/v1"


class JoinRefused(Refused):
    """The request or the answer is not what the invitation leads to expect."""


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site says of itself."""

    hub: str  # origin: a request for one hub is of no use at another
    code: str
    jwk: dict[str, str]  # the site's ES256 key
    log_vkey: str  # of the site log and of the site's cosignatures
    owner: str
    title: str


class JoinAccepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the hub answers."""

    site: str
    thumbprint: str  # of the site that this answer is for
    hub: str  # origin
    jwk: dict[str, str]  # the hub's ES256 key
    log_vkey: str  # of the federation log


def request(invitation: Invitation, key: SigningKey, *, log_vkey: str, owner: str, title: str) -> bytes:
    """The body to POST to `PATH`, signed with the site's `key`."""
    said = JoinRequest(
        hub=invitation.url, code=invitation.code, jwk=key.public_jwk, log_vkey=log_vkey, owner=owner, title=title
    )
    return statements.sign(REQUEST_DOMAIN, said, key)


def read_request(data: bytes, *, hub: str) -> tuple[JoinRequest, PublicKey]:
    """A request, signed by the key it names, for the hub at the origin `hub`.

    Raises NotStrictJson, TokenUnreadable, SignatureInvalid, JoinRefused.
    """
    said, signed = statements.read(data, JoinRequest)
    key = jose.public_key(said.jwk)
    statements.verify(REQUEST_DOMAIN, signed, key)
    if said.hub != hub:
        raise JoinRefused("this request is for another hub", do="use the invitation of this hub")
    return said, key


def accept(
    tx: Connection,
    data: bytes,
    *,
    proven: str,
    key: SigningKey,
    hub: str,
    log_vkey: str,
    now: float,
    randomness: Randomness,
) -> tuple[bytes, Member | None]:
    """The hub's side: take the site up as `joining`, or give the same answer again.

    proven: thumbprint of the key whose proof (`dpop.verify_proof`) came with the request. key, hub, log_vkey: the
    hub's. Returns the body of the answer, and the member where it is new (so that the caller writes it into the
    federation log in this same transaction). Raises what `read_request` raises, InvitationSpent, InvitationEnded,
    JoinRefused, BadInput.
    """
    said, theirs = read_request(data, hub=hub)
    if not hmac.compare_digest(proven, theirs.thumbprint):
        raise JoinRefused("the proof is by another key than the request", do="send both with the key of this site")
    use = invitations.look(tx, said.code, thumbprint=theirs.thumbprint, now=now)
    taken_up: Member | None = None
    if use.site is None:
        if use.owner is not None and use.owner != said.owner:
            raise JoinRefused(
                f"this invitation is for a site of `{use.owner}`",
                do="join as that owner, or ask for another invitation",
            )
        if members.by_key(tx, theirs.thumbprint) is not None:
            raise JoinRefused(
                "a site with this key has joined already", do="nothing: it is a member; or make a new key"
            )
        taken_up = Member(
            site=SiteId(ids.fresh("site", randomness)),
            owner=said.owner,
            title=said.title,
            key=theirs,
            log_vkey=said.log_vkey,
            status="joining",
            changed=now,
        )
        members.add(tx, taken_up)
        invitations.spend(tx, use, site=taken_up.site, thumbprint=theirs.thumbprint, now=now)
    site = taken_up.site if taken_up is not None else use.site
    if site is None:
        raise JoinRefused("the invitation names no site", do="ask the hub's operator for a new invitation")
    answer = JoinAccepted(site=site, thumbprint=theirs.thumbprint, hub=hub, jwk=key.public_jwk, log_vkey=log_vkey)
    return statements.sign(ACCEPTED_DOMAIN, answer, key), taken_up


def read_accepted(data: bytes, invitation: Invitation, *, thumbprint: str) -> JoinAccepted:
    """The site's side: the hub's answer, which must fit the invitation and the site's key (`thumbprint`).

    The hub's key is believed because the answer came over TLS pinned by the invitation, and names the invitation's
    log. Raises NotStrictJson, TokenUnreadable, SignatureInvalid, JoinRefused.
    """
    said, signed = statements.read(data, JoinAccepted)
    statements.verify(ACCEPTED_DOMAIN, signed, jose.public_key(said.jwk))
    if said.hub != invitation.url or said.log_vkey != invitation.log_vkey or said.thumbprint != thumbprint:
        raise JoinRefused(
            "the hub's answer does not fit the invitation",
            do="ask the hub's operator, who made it, before trying again",
        )
    try:
        ids.parse("site", said.site)
    except BadInput as problem:
        raise JoinRefused("the hub's answer names no site", do="ask the hub's operator") from problem
    return said
