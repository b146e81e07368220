"""An entry with all that shows that a quorum has seen it: its place, its proof, and the cosigned checkpoint.

It travels as one text (canonical JSON), so that whoever relies on the entry needs nothing else but keys.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection

from paroma.kernel import canonical
from paroma.trust.audit import checkpoint as checkpoints, cosigning, log as logs
from paroma.trust.audit.checkpoint import Checkpoint
from paroma.trust.audit.cosignatures import GRACE, cosigned
from paroma.trust.audit.log import LogName
from paroma.trust.audit.merkle import leaf_hash
from paroma.trust.audit.notes import NoteKey
from paroma.trust.audit.proofs import Inclusion, ProofInvalid, verify_inclusion


class Covered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """note: a checkpoint of the log with cosignatures. inclusion: of the entry in it."""

    note: str
    inclusion: Inclusion


def cover(tx: Connection, log: LogName, number: int, k: int) -> str | None:
    """The text for entry `number`, under the largest checkpoint that `k` have cosigned; None where none covers it yet."""
    note = cosigning.cosigned_note(tx, log, k)
    if note is None:
        return None
    _, size, _ = checkpoints.peek(note)
    if size <= number:
        return None
    return canonical.encode(Covered(note=note, inclusion=logs.inclusion(tx, log, number, size))).decode()


def check(
    text: str, entry: bytes, key: NoteKey, witnesses: Mapping[str, NoteKey], k: int, *, now: float, grace: float = GRACE
) -> Checkpoint:
    """Check that `entry` stands in the log whose key this is, under a checkpoint that `k` witnesses cosigned lately.

    witnesses: participant -> its cosignature key. now: seconds since 1970. Raises NotStrictJson, NoteInvalid,
    NoteUnsigned, CheckpointInvalid, QuorumMissing, ProofInvalid.
    """
    said = canonical.decode_as(text.encode(), Covered)
    head = checkpoints.read(said.note, key)
    cosigned(said.note, witnesses, k, now=now, grace=grace)
    if said.inclusion.size != head.size:
        raise ProofInvalid("the proof is for another size than the checkpoint")
    verify_inclusion(leaf_hash(entry), said.inclusion.number, head.size, said.inclusion.hashes, head.root)
    return head
