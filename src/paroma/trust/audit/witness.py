"""What this program remembers of another's log, and the rule of a witness: it signs consistent growth and nothing else.

The memory is one checkpoint per log, durable before anything rests on it (C2SP tlog-witness). A log that was found
inconsistent stays marked, over restarts, with the checkpoint that shows it.

Only what the log itself signed can break it: bytes that bear no valid signature by its key are refused and change
nothing, or anybody on the way could stop a federation. And a proof is held against a log only where it starts at what
is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Executable, bindparam, select

from paroma.kernel.errors import Unavailable
from paroma.kernel.store.database import upsert
from paroma.trust.audit import checkpoint as checkpoints
from paroma.trust.audit.checkpoint import Checkpoint, LogInconsistent
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.notes import NoteKey, Signature
from paroma.trust.audit.proofs import Consistency, ProofInvalid, verify_consistency
from paroma.trust.audit.tables import BROKEN, SEEN

# statements of the hot path, built once: building them costs more than running them
_SEEN_OF = select(SEEN.c.size, SEEN.c.root, SEEN.c.note).where(SEEN.c.origin == bindparam("name"))
_BROKEN_OF = select(BROKEN.c.what).where(BROKEN.c.origin == bindparam("name"))
_REMEMBER: dict[str, Executable] = {}  # by dialect


class CheckpointOld(Unavailable):
    """The checkpoint is older than the one remembered: a late message, perhaps. It changes nothing."""


class ProofNeeded(Unavailable):
    """A proof from the remembered size is needed before the checkpoint can be believed."""

    def __init__(self, origin: str, size: int) -> None:
        super().__init__(
            f"the checkpoint of `{origin}` comes without a proof from size {size}",
            do=f"ask for the proof from size {size}",
        )
        self.size = size


@dataclass(frozen=True, slots=True)
class Grown:
    """A checkpoint that continues what was remembered, and now is what is remembered."""

    checkpoint: Checkpoint
    cosignature: Signature | None  # ours, if we are a witness of that log


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a checkpoint. To be handed out of the transaction first, then asked by `require`."""

    _grown: Grown | None
    _trouble: LogInconsistent | None

    def require(self) -> Grown:
        """The checkpoint, if the log is sound. Raises LogInconsistent."""
        if self._trouble is not None:
            raise self._trouble
        if self._grown is None:
            raise AssertionError("INVARIANT: a growth is grown or in trouble")
        return self._grown


def grow(
    tx: Connection,
    key: NoteKey,
    note: str,
    proof: Consistency | None,
    *,
    known: int,
    at: float,
    cosigner: Cosigner | None = None,
) -> Growth:
    """Take in a checkpoint of the log whose key this is, with a proof from the size that was remembered.

    known: the size that the sender knew us to remember when it answered (it stood in the request that this is the
    answer to); 0 if it knew none. A smaller checkpoint than that is a rollback. One that is smaller than what is
    remembered, but not than `known`, is a late message. at: seconds since 1970; the time in the cosignature.

    An inconsistent log is marked in this very transaction, which is why the trouble is returned and not raised: raising
    would take the mark back. Commit, then call `.require()`. Once marked, a log stays so, whatever it sends.

    Raises NoteInvalid, NoteUnsigned, CheckpointInvalid (nothing changes); CheckpointOld, ProofNeeded (ask again).
    """
    fresh = checkpoints.read(note, key)
    broken = trouble(tx, key.name)
    if broken is not None:
        return Growth(None, broken)
    last = seen(tx, key.name)
    what = _inconsistency(fresh, last, proof, known)
    if what is not None:
        return Growth(None, mark_broken(tx, key.name, what, note=note, at=at))
    if last is None or fresh.size > last.size:
        row = {"origin": fresh.origin, "size": fresh.size, "root": fresh.root, "note": fresh.note, "at": at}
        tx.execute(_remember(tx), row)
    # the cosignature leaves with the committed transaction: a witness that signs first and forgets by a crash would
    # sign two
    return Growth(Grown(fresh, cosigner.cosign(fresh.body, at) if cosigner else None), None)


def seen(tx: Connection, origin: str) -> Checkpoint | None:
    """The checkpoint of that log that is remembered."""
    row = tx.execute(_SEEN_OF, {"name": origin}).one_or_none()
    return None if row is None else Checkpoint(origin, row.size, bytes(row.root), row.note)


def trouble(tx: Connection, origin: str) -> LogInconsistent | None:
    """Why that log cannot be trusted any more, if so."""
    row = tx.execute(_BROKEN_OF, {"name": origin}).one_or_none()
    return None if row is None else LogInconsistent(origin, row.what)


def require_sound(tx: Connection, origins: Sequence[str]) -> None:
    """For acts that use records. Raises LogInconsistent if one of these logs is marked."""
    for origin in origins:
        broken = trouble(tx, origin)
        if broken is not None:
            raise broken


def mark_broken(tx: Connection, origin: str, what: str, *, note: str, at: float) -> LogInconsistent:
    """Mark a log as inconsistent, for good; the first evidence stays. Returns the error to raise after the commit."""
    row = {"origin": origin, "what": what, "note": note, "at": at}
    tx.execute(upsert(tx, BROKEN).values(row).on_conflict_do_nothing(index_elements=["origin"]))
    return trouble(tx, origin) or LogInconsistent(origin, what)


def _remember(tx: Connection) -> Executable:
    if tx.dialect.name not in _REMEMBER:
        statement = upsert(tx, SEEN)
        changes = {name: statement.excluded[name] for name in ("size", "root", "note", "at")}
        _REMEMBER[tx.dialect.name] = statement.on_conflict_do_update(index_elements=["origin"], set_=changes)
    return _REMEMBER[tx.dialect.name]


def _inconsistency(fresh: Checkpoint, last: Checkpoint | None, proof: Consistency | None, known: int) -> str | None:
    """What is wrong between the two, if it is proved. Raises CheckpointOld, ProofNeeded where it is not known."""
    if last is not None and fresh.size == last.size:
        return None if fresh.root == last.root else f"it signed two different heads of size {fresh.size}"
    if fresh.size < known:
        return f"it went back from {known} entries to {fresh.size}"
    if last is None or last.size == 0:
        # every log continues the empty one; the first checkpoint of all is taken at its word
        return None
    if fresh.size < last.size:
        raise CheckpointOld(
            f"the checkpoint of `{fresh.origin}` has {fresh.size} entries, {last.size} have been seen",
            do="ask for a newer one",
        )
    if proof is None or proof.old != last.size or proof.new != fresh.size:
        raise ProofNeeded(fresh.origin, last.size)
    try:
        verify_consistency(proof.old, proof.new, proof.hashes, last.root, fresh.root)
    except ProofInvalid as problem:
        return f"its {fresh.size} entries do not continue the {last.size} that were seen ({problem.message})"
    return None
