"""Checkpoints: a log's size and head, signed by the log (C2SP tlog-checkpoint)."""

import base64
import re
from dataclasses import dataclass

from paroma.kernel.errors import BadInput, ParomaError
from paroma.trust.audit.merkle import EMPTY_ROOT, HASH
from paroma.trust.audit.notes import CheckpointSigner, Note, NoteKey

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class CheckpointInvalid(BadInput):
    """The text of the note is no checkpoint, or one of another log."""


class LogInconsistent(ParomaError):
    """A log is not what it was: something in it was changed, removed, or told differently to others.

    Acts that use records stop; acts that stop something (withdraw, erase, revoke, pause) go on. `entries` says where,
    if known.
    """

    def __init__(self, origin: str, what: str, *, entries: range | None = None) -> None:
        super().__init__(
            f"the log `{origin}` cannot be trusted: {what}",
            do="use nothing that rests on it, keep both versions as evidence, and let the members compare theirs",
        )
        self.origin = origin
        self.what = what
        self.entries = entries


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself at one moment. Made by `sign` or `read`, so the log's own signature holds."""

    origin: str
    size: int  # entries
    root: bytes  # 32 bytes
    note: str  # the whole signed note, with all cosignatures that came along

    @property
    def body(self) -> str:
        """The text that the log signed and that witnesses cosign."""
        return Note.parse(self.note).text


def body(origin: str, size: int, root: bytes) -> str:
    """The text of a checkpoint without extensions."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def sign(size: int, root: bytes, signer: CheckpointSigner) -> Checkpoint:
    """The checkpoint of `signer`'s log at this size."""
    text = body(signer.origin, size, root)
    return Checkpoint(signer.origin, size, root, Note(text, (signer.sign(text),)).whole)


def read(note: str, key: NoteKey) -> Checkpoint:
    """A checkpoint of the log whose key this is: its origin is the key's name.

    Raises NoteInvalid, NoteUnsigned, CheckpointInvalid. The signature is checked before the text is looked at.
    """
    parts = Note.parse(note)
    parts.require(key)
    origin, size, root = _parse(parts.text)
    if origin != key.name:
        raise CheckpointInvalid(
            "the checkpoint is another log's", do="ask for the checkpoint of the log that was meant"
        )
    return Checkpoint(origin, size, root, note)


def peek(note: str) -> tuple[str, int, bytes]:
    """Origin, size and root that a note claims. Only its form is checked. Raises NoteInvalid, CheckpointInvalid."""
    return _parse(Note.parse(note).text)


def _parse(text: str) -> tuple[str, int, bytes]:
    lines = text.split("\n")
    # further lines are extensions, which must not be empty; the last element follows the last newline
    if len(lines) < 4 or not all(lines[:-1]) or not _SIZE.fullmatch(lines[1]):
        raise _invalid()
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError:
        raise _invalid() from None
    size = int(lines[1])
    if len(root) != HASH or base64.b64encode(root).decode() != lines[2] or (size == 0 and root != EMPTY_ROOT):
        raise _invalid()
    return lines[0], size, root


def _invalid() -> CheckpointInvalid:
    return CheckpointInvalid("the note is no checkpoint: origin, size, root, each on a line", do="ask for it again")
