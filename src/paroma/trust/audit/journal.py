"""One log of this program, as the program writes it: an entry shares the transaction with what it tells of."""

from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.canonical import Json
from paroma.kernel.clock import Clock
from paroma.trust.audit import entries, log as logs
from paroma.trust.audit.log import LogName
from paroma.trust.audit.notes import CheckpointSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """Writes entries in the caller's transaction."""

    name: LogName
    signer: CheckpointSigner
    clock: Clock

    def write(self, tx: Connection, kind: str, **facts: Json) -> int:
        """One entry; its number. Durable when the transaction is. Raises PatientInClear and the forms' errors."""
        return self.write_sealed(tx, entries.seal(kind, self.clock.now(), facts))

    def write_sealed(self, tx: Connection, sealed: bytes) -> int:
        """One entry that was sealed elsewhere; its number."""
        (number,) = logs.append(tx, self.name, [sealed], self.signer)
        return number
