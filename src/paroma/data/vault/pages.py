"""Key pages: the keys of 1,024 patients and where their messages lie, sealed in one message under a page key.

The page keys are sealed together in the root page, under the root key. So 1,000,000 keys are unwrapped by 977
decryptions, and blanking one slot under a new page key and a new root makes every older copy of that slot worthless.
Pure: bytes in, bytes out; files are `vault`'s.
"""

from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.data.vault.errors import VaultDamaged
from paroma.data.vault.roots import KEY_BYTES, Root

SLOTS = 1024
DIGEST_BYTES = 16
_ZERO_NONCE = bytes(12)  # under a key that seals one message only
_NONCE_BYTES = 12

PLACE = np.dtype([("segment", "<u4"), ("length", "<u4"), ("offset", "<u8"), ("version", "<u4")])


@dataclass(slots=True)
class Page:
    """Up to 1,024 patients. A slot without an id is free or erased; slots are never given twice."""

    ids: list[str] = field(default_factory=list)
    keys: bytearray = field(default_factory=lambda: bytearray(KEY_BYTES * SLOTS))
    digests: bytearray = field(default_factory=lambda: bytearray(DIGEST_BYTES * SLOTS))
    places: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(SLOTS, PLACE))

    def copy(self) -> "Page":
        """The same, to be changed without touching this one."""
        return Page(list(self.ids), bytearray(self.keys), bytearray(self.digests), self.places.copy())

    def key(self, slot: int) -> bytes:
        """The patient's key, 32 bytes."""
        return bytes(self.keys[KEY_BYTES * slot : KEY_BYTES * (slot + 1)])

    def digest(self, slot: int) -> bytes:
        """The first 16 bytes of SHA-256 of what the patient's message holds."""
        return bytes(self.digests[DIGEST_BYTES * slot : DIGEST_BYTES * (slot + 1)])

    def write(self, slot: int, key: bytes, digest: bytes, place: tuple[int, int, int, int]) -> None:
        """Fill the slot. place: segment, length, offset, version."""
        self.keys[KEY_BYTES * slot : KEY_BYTES * (slot + 1)] = key
        self.digests[DIGEST_BYTES * slot : DIGEST_BYTES * (slot + 1)] = digest
        self.places[slot] = place

    def blank(self, slot: int) -> None:
        """Nothing is left in the slot."""
        self.ids[slot] = ""
        self.write(slot, bytes(KEY_BYTES), bytes(DIGEST_BYTES), (0, 0, 0, 0))


class PageKey(msgspec.Struct, frozen=True, array_like=True):
    """Which file holds a page, and the key that opens it."""

    generation: int
    key: bytes


class RootPage(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed under the root key."""

    generation: int
    pages: tuple[PageKey, ...]
    register_key: bytes  # seals the registers
    erasure_key: bytes  # makes the tags of erased patients, which tell nothing to whoever lacks it
    erased: tuple[bytes, ...]


def seal_page(page: Page, number: int, key: bytes) -> bytes:
    """The page under `key`, which must be fresh."""
    ids = msgspec.msgpack.encode(page.ids)
    plain = bytes(page.keys) + bytes(page.digests) + page.places.tobytes() + ids
    return AESGCM(key).encrypt(_ZERO_NONCE, plain, b"paroma/page/v1\n%d" % number)


def open_page(sealed: bytes, number: int, key: bytes) -> Page:
    """Raises VaultDamaged."""
    plain = page_bytes(sealed, number, key)
    digests = KEY_BYTES * SLOTS
    places = digests + DIGEST_BYTES * SLOTS
    ids = places + PLACE.itemsize * SLOTS
    return Page(
        ids=msgspec.msgpack.decode(plain[ids:], type=list[str]),
        keys=bytearray(plain[:digests]),
        digests=bytearray(plain[digests:places]),
        places=np.frombuffer(plain[places:ids], PLACE).copy(),
    )


def page_bytes(sealed: bytes, number: int, key: bytes) -> bytes:
    """What the page holds; its first 32 x 1,024 bytes are the patients' keys. Raises VaultDamaged."""
    try:
        return AESGCM(key).decrypt(_ZERO_NONCE, sealed, b"paroma/page/v1\n%d" % number)
    except InvalidTag as problem:
        raise VaultDamaged(f"key page {number}") from problem


def seal_root_page(page: RootPage, root: Root, nonce: bytes) -> bytes:
    """The root page under the root key. nonce: 12 random bytes, as one root seals many generations."""
    plain = msgspec.msgpack.encode(page)
    return nonce + AESGCM(root.key).encrypt(nonce, plain, b"paroma/root page/v1\n%d" % root.epoch)


def open_root_page(sealed: bytes, root: Root) -> RootPage:
    """Raises VaultDamaged."""
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        plain = AESGCM(root.key).decrypt(nonce, rest, b"paroma/root page/v1\n%d" % root.epoch)
    except (InvalidTag, ValueError) as problem:
        raise VaultDamaged(f"the root page of epoch {root.epoch}") from problem
    return msgspec.msgpack.decode(plain, type=RootPage)
