"""Signed notes (C2SP signed-note): a text, an empty line, and a line for each signature.

Keys are named. A signature by a key that is not known here is passed over: it counts for nothing, and it is no error.
"""

import base64
import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import printable
from paroma.trust.keys.log_keys import LogKey

ED25519 = 0x01
"""Signature type: Ed25519 over the text."""
COSIGNATURE = 0x04
"""Signature type: Ed25519 over a timestamp and the text of a checkpoint (C2SP tlog-cosignature)."""
MOST_BYTES = 131_072
MOST_SIGNATURES = 512

_LINE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[^\s+]{1,255}")


class NoteInvalid(BadInput):
    """The bytes are no signed note."""


class NoteUnsigned(Refused):
    """No signature by the key that is wanted, or a wrong one: whatever the note says, it was not said by that key."""


class KeyTextInvalid(BadInput):
    """The text is no verifier key of a note (vkey)."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """The public half of a key that signs notes."""

    name: str
    kind: int  # ED25519 or COSIGNATURE
    public: bytes  # 32 bytes

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256 over name, newline, kind and key (C2SP signed-note)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """`name+id+key`, as it is handed on."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    @functools.lru_cache(maxsize=1024)  # the same text is the same key, and is read at every decision
    def parse(cls, vkey: str) -> "NoteKey":
        """Read what `vkey` writes. Raises KeyTextInvalid."""
        name, _, rest = vkey.partition("+")
        key_id, _, text = rest.partition("+")
        try:
            data = base64.b64decode(text, validate=True)
            key = cls(name, data[0], data[1:])
            if (
                _NAME.fullmatch(name)
                and key.vkey == vkey
                and len(key.public) == 32
                and key.kind in {ED25519, COSIGNATURE}
            ):
                return key
        except (ValueError, IndexError):
            pass
        raise KeyTextInvalid(
            f"`{printable(vkey)}` is no key of a log or witness", do=f"copy the whole line `name+{key_id or 'id'}+key`"
        )

    def check(self, message: bytes, signature: bytes) -> None:
        """Check 64 bytes of Ed25519 over `message`. Raises NoteUnsigned."""
        try:
            _verify(self.public, message, signature)
        except (InvalidSignature, ValueError):
            raise NoteUnsigned(
                f"the signature in the name of `{printable(self.name)}` is not by its key",
                do="take nothing from this note, and ask that party for its checkpoint again",
            ) from None


@functools.lru_cache(maxsize=4096)  # the same bytes verify the same way, and a checkpoint is looked at many times
def _verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Raises InvalidSignature, ValueError; what does not verify is not remembered."""
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note's text; not checked yet."""

    name: str
    key_id: bytes  # 4 bytes
    body: bytes

    @property
    def line(self) -> str:
        """The line as it stands in a note, newline included."""
        return f"\u2014 {self.name} {base64.b64encode(self.key_id + self.body).decode()}\n"

    def by(self, key: NoteKey) -> bool:
        """Whether it says that it is by this key."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A note that has been taken apart; no signature in it has been checked."""

    text: str  # ends in a newline
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, note: str) -> "Note":
        """Take a note apart at its last empty line. Raises NoteInvalid."""
        if len(note) > MOST_BYTES:
            raise _invalid(f"has {len(note)} letters, {MOST_BYTES} are the most")
        try:
            note.encode()
        except UnicodeEncodeError:
            raise _invalid("is not text") from None
        if any(letter < " " and letter != "\n" for letter in note):
            raise _invalid("holds control characters")
        text, empty, below = note.rpartition("\n\n")
        if not empty or not below.endswith("\n"):
            raise _invalid("has no signatures below an empty line")
        lines = below[:-1].split("\n")
        if len(lines) > MOST_SIGNATURES:
            raise _invalid(f"has {len(lines)} signatures, {MOST_SIGNATURES} are the most")
        return cls(text + "\n", tuple(signature_line(line) for line in lines))

    @property
    def whole(self) -> str:
        """The note as text."""
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)

    def require(self, key: NoteKey) -> None:
        """Check the signature over the text by `key`, an ED25519 one. Raises NoteUnsigned."""
        mine = [signature for signature in self.signatures if signature.by(key)]
        if key.kind != ED25519 or not mine:
            raise NoteUnsigned(
                f"the note bears no signature by `{printable(key.name)}`",
                do="ask that party for its checkpoint, and compare the key with the one that was enrolled",
            )
        for signature in mine:  # one wrong line in its name is enough to doubt them all
            key.check(self.text.encode(), signature.body)

    def with_lines(self, lines: Iterable[Signature]) -> "Note":
        """The same text with more signatures below."""
        return Note(self.text, (*self.signatures, *lines))


class CheckpointSigner:
    """A log's own key: it signs the log's heads under the log's origin."""

    __slots__ = ("_key", "public")

    def __init__(self, origin: str, key: LogKey) -> None:
        """origin: the log's name for all time, `hub.example/federation`: no space, no plus. Raises KeyTextInvalid."""
        if not _NAME.fullmatch(origin) or not origin.isprintable():
            raise KeyTextInvalid(
                f"`{printable(origin)}` cannot name a log", do="use a name without spaces and plus signs"
            )
        self._key = key
        self.public = NoteKey(origin, ED25519, key.public)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.public.name

    @property
    def vkey(self) -> str:
        """What others check with, as text."""
        return self.public.vkey

    def sign(self, text: str) -> Signature:
        """A signature over `text`."""
        return Signature(self.public.name, self.public.key_id, self._key.sign(text.encode()))


def signature_line(line: str) -> Signature:
    """Read one line without its newline. Raises NoteInvalid."""
    match = _LINE.fullmatch(line)
    if match:
        try:
            data = base64.b64decode(match[2], validate=True)
        except ValueError:
            data = b""
        if len(data) > 4:
            return Signature(match[1], data[:4], data[4:])
    raise _invalid("has a line below its text that is no signature")


def _invalid(why: str) -> NoteInvalid:
    return NoteInvalid(f"the note {why}", do="ask for it again")
