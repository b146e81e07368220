"""An invitation: one line that carries all a new site must believe beforehand.

    paroma-join:eyJ1cmwiOi...

Base64url of canonical JSON: where the hub is, the fingerprint of the authority that signs its TLS certificates, the
key of the federation log, and a code that one site may use once. Whoever reads it first can join in its place: it is
passed on like a password. Everything else that the site learns of the hub is checked against these lines.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection, insert, select, update

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.kernel.wire.network import origin
from paroma.trust.federation.tables import INVITATIONS
from paroma.trust.identity import jose

PREFIX: Final = "paroma-join:"
LIFE_SECONDS: Final = 7 * 24 * 3600.0
MOST_CHARACTERS: Final = 2_000


class InvitationUnreadable(BadInput):
    """The line is no invitation, or was damaged on its way."""

    def __init__(self) -> None:
        super().__init__(
            "this is not a whole invitation", do=f"copy the whole line, from `{PREFIX}` to its last letter"
        )


class InvitationSpent(Refused):
    """Another site joined with this invitation."""

    def __init__(self) -> None:
        super().__init__(
            "another site has joined with this invitation already",
            do="ask the hub's operator for a new one, and tell them if it should not have been used",
        )


class InvitationEnded(Refused):
    """The invitation has expired, was withdrawn, or never was one of this hub's."""

    def __init__(self) -> None:
        super().__init__("this invitation is not valid (any more)", do="ask the hub's operator for a new one")


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the line says."""

    url: str  # the hub's origin, https://host:port
    fingerprint: str  # SHA-256 of the SubjectPublicKeyInfo of the hub's TLS authority, hex
    log_vkey: str  # C2SP verifier key of the federation log
    code: str

    def __str__(self) -> str:
        return PREFIX + jose.to_text(canonical.encode(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the hub knows of an invitation whose code was shown."""

    hash: str
    owner: str | None  # fixed by whoever invited
    site: SiteId | None  # who used it, where somebody did
    thumbprint: str | None


def parse(line: str) -> Invitation:
    """Read the line. Raises InvitationUnreadable."""
    text = line.strip()
    if not text.startswith(PREFIX) or len(text) > MOST_CHARACTERS:
        raise InvitationUnreadable
    try:
        found = canonical.decode_as(jose.from_text(text.removeprefix(PREFIX)), Invitation)
        address = origin(found.url)
        fingerprint = bytes.fromhex(found.fingerprint)
    except (BadInput, ValueError) as problem:
        raise InvitationUnreadable from problem
    if (
        address != found.url
        or len(fingerprint) != 32
        or fingerprint.hex() != found.fingerprint
        or not found.code
        or not found.log_vkey
        or str(found) != text
    ):
        raise InvitationUnreadable
    return found


def mint(
    tx: Connection,
    *,
    url: str,
    fingerprint: str,
    log_vkey: str,
    now: float,
    randomness: Randomness,
    owner: str | None = None,
    life: float = LIFE_SECONDS,
) -> Invitation:
    """A new invitation to the hub at `url`.

    owner: who the site must belong to, where that is known. life: seconds.
    """
    code = jose.to_text(randomness.take(16))
    tx.execute(
        insert(INVITATIONS).values(
            hash=_hash(code),
            owner=owner,
            made=now,
            ends=now + life,
            withdrawn=None,
            used=None,
            site=None,
            thumbprint=None,
        )
    )
    return Invitation(url=origin(url), fingerprint=fingerprint, log_vkey=log_vkey, code=code)


def look(tx: Connection, code: str, *, thumbprint: str, now: float) -> Use:
    """The invitation of `code`, which the holder of the key `thumbprint` wants to use.

    The same key may come again for as long as it likes: it gets the answer that it may have missed.
    Raises InvitationSpent, InvitationEnded.
    """
    row = tx.execute(select(INVITATIONS).where(INVITATIONS.c.hash == _hash(code))).mappings().one_or_none()
    if row is None:
        raise InvitationEnded
    if row["used"] is not None and row["thumbprint"] != thumbprint:
        raise InvitationSpent
    if row["used"] is None and (now >= row["ends"] or row["withdrawn"] is not None):
        raise InvitationEnded
    return Use(hash=row["hash"], owner=row["owner"], site=row["site"], thumbprint=row["thumbprint"])


def spend(tx: Connection, use: Use, *, site: SiteId, thumbprint: str, now: float) -> None:
    """`site` has joined with it. Raises InvitationSpent."""
    done = tx.execute(
        update(INVITATIONS)
        .where(INVITATIONS.c.hash == use.hash, INVITATIONS.c.used.is_(None))
        .values(used=now, site=site, thumbprint=thumbprint)
    )
    if done.rowcount != 1:
        raise InvitationSpent


def withdraw(tx: Connection, invitation: Invitation, *, now: float) -> None:
    """Nobody may use it any more. Who has joined with it stays."""
    mine = INVITATIONS.c.hash == _hash(invitation.code)
    tx.execute(update(INVITATIONS).where(mine, INVITATIONS.c.withdrawn.is_(None)).values(withdrawn=now))


def _hash(code: str) -> str:
    return hashlib.sha256(b"paroma/invitation/v1\n" + code.encode("utf-8", "surrogatepass")).hexdigest()
