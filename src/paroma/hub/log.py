"""The federation log, as the hub writes it: what is logged shares the transaction with what it tells of."""

from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.canonical import Json
from paroma.kernel.clock import Clock
from paroma.trust.audit import entries, log as logs
from paroma.trust.audit.notes import CheckpointSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationLog:
    """Writes entries in the caller's transaction."""

    signer: CheckpointSigner
    clock: Clock

    def write(self, tx: Connection, kind: str, **facts: Json) -> int:
        """One entry; its number. Durable when the transaction is."""
        return self.write_sealed(tx, entries.seal(kind, self.clock.now(), facts))

    def write_sealed(self, tx: Connection, sealed: bytes) -> int:
        """One entry that was sealed elsewhere; its number."""
        (number,) = logs.append(tx, logs.FEDERATION, [sealed], self.signer)
        return number
