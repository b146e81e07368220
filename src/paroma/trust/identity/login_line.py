"""A login line: one line that carries all that a person's program must believe beforehand.

    paroma-login:eyJjb2RlIjoi...

Base64url of canonical JSON: where the hub (or a hospital's site) is, the fingerprint of the authority of its TLS
certificates, and a code that enrols one key once. Whoever reads it first can enrol in that person's place: it is passed
on like a password. A site that listens on its own machine only (`http://127.0.0.1:8444`) has no authority and no
fingerprint.
"""

from typing import Final

import msgspec

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.wire.network import loopback_origin, origin
from paroma.trust.identity import jose

PREFIX: Final = "paroma-login:"
MOST_CHARACTERS: Final = 2_000
_FINGERPRINT_BYTES: Final = 32


class LoginLineUnreadable(BadInput):
    """The line is no login line, or was damaged on its way."""

    def __init__(self) -> None:
        super().__init__(
            "this is not a whole login line", do=f"copy the whole line, from `{PREFIX}` to its last letter"
        )


class LoginLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the line says. url: an origin. fingerprint: SHA-256 of the authority's SubjectPublicKeyInfo, hex; empty for
    `http://` on this machine.
    """

    url: str
    fingerprint: str = ""
    code: str

    def __str__(self) -> str:
        return PREFIX + jose.to_text(canonical.encode(self))


def parse(line: str) -> LoginLine:
    """Read the line. Raises LoginLineUnreadable."""
    text = line.strip()
    if not text.startswith(PREFIX) or len(text) > MOST_CHARACTERS:
        raise LoginLineUnreadable
    try:
        found = canonical.decode_as(jose.from_text(text.removeprefix(PREFIX)), LoginLine)
        address = loopback_origin(found.url) if found.url.startswith("http:") else origin(found.url)
        fingerprint = bytes.fromhex(found.fingerprint)
    except (BadInput, ValueError) as problem:
        raise LoginLineUnreadable from problem
    wanted = 0 if address.startswith("http:") else _FINGERPRINT_BYTES
    if (
        address != found.url
        or len(fingerprint) != wanted
        or fingerprint.hex() != found.fingerprint
        or not found.code
        or str(found) != text
    ):
        raise LoginLineUnreadable
    return found
