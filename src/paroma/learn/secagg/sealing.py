"""Boxes that only two sites can make and open, on their way through the hub.

Each box has a key of its own, derived from the pair secret and everything that the box binds, so AES-256-GCM never
sees one nonce twice under one key: what is sealed under a key is determined by what it binds, and sealing it again
gives the same bytes.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.kernel.errors import BadInput
from paroma.learn.secagg.seeds import expand

OVERHEAD_BYTES = 16


class BoxBroken(BadInput):
    """A box was not made by this sender, for this receiver, attempt and purpose, or was changed on its way."""


def seal(secret: bytes, plaintext: bytes, *, entry: str, sender: str, receiver: str, what: str) -> bytes:
    """A box from `sender` to `receiver` for attempt `entry` (E, hex). secret: of the pair, or the site's own root for
    itself.
    """
    bound = _bound(entry, sender, receiver, what)
    return AESGCM(expand(secret, b"box", *bound)).encrypt(bytes(12), plaintext, b"\n".join(bound))


def open_box(secret: bytes, box: bytes, *, entry: str, sender: str, receiver: str, what: str) -> bytes:
    """What `seal` put in. Raises BoxBroken."""
    bound = _bound(entry, sender, receiver, what)
    try:
        return AESGCM(expand(secret, b"box", *bound)).decrypt(bytes(12), box, b"\n".join(bound))
    except (InvalidTag, ValueError) as problem:
        raise BoxBroken(
            "a sealed share does not open", do="ask its sender for it again, or leave that site out"
        ) from problem


def _bound(entry: str, sender: str, receiver: str, what: str) -> tuple[bytes, ...]:
    return (entry.encode(), sender.encode(), receiver.encode(), what.encode())
