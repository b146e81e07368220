"""One bit a patient for each open permit, in shared memory: what a worker asks at every batch of rows.

Bit i (of byte i // 8, lowest bit first) belongs to row i of the cohort. The memory is a memfd: this process writes it, a worker
gets the descriptor and can only read (a seal forbids new writable mappings). The bits are compiled when a permit is opened,
again for a patient who changes something, and for all at the next instant at which a period starts or ends.
A worker that finds 0 leaves the row out; bits go to 0 before a withdrawal is acknowledged.
"""

import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paroma.data.consent.state import Verdicts
from paroma.data.consent.statement import Use
from paroma.kernel.ids import PatientId

_F_SEAL_FUTURE_WRITE = 0x0010  # Linux 5.1; Python's fcntl does not name it before 3.13


class Bits:
    """The bits of one cohort, in its row order. All 0 at first. One writer."""

    def __init__(self, patients: Sequence[PatientId]) -> None:
        self.rows: dict[PatientId, int] = {patient: row for row, patient in enumerate(patients)}
        size = max(1, -(-len(patients) // 8))
        self.fd = os.memfd_create("paroma-consent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        self._memory = mmap.mmap(self.fd, size, mmap.MAP_SHARED)
        fcntl.fcntl(
            self.fd,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL,
        )
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._closed = weakref.finalize(self, os.close, self.fd)

    def __len__(self) -> int:
        return len(self.rows)

    def set(self, patient: PatientId, allowed: bool) -> None:
        """One bit. A patient outside this cohort is passed over."""
        row = self.rows.get(patient)
        if row is not None:
            bit = np.uint8(1 << (row & 7))
            if allowed:
                self._bytes[row >> 3] |= bit
            else:
                self._bytes[row >> 3] &= ~bit

    def fill(self, allowed: npt.NDArray[np.bool_]) -> None:
        """All bits. allowed: (rows,)."""
        self._bytes[: -(-len(self.rows) // 8)] = np.packbits(allowed, bitorder="little")

    def read(self) -> npt.NDArray[np.bool_]:
        """A copy of all bits as booleans, (rows,)."""
        return np.unpackbits(self._bytes, count=len(self.rows), bitorder="little").astype(np.bool_)

    def close(self) -> None:
        """Let go of the memory; workers that hold it keep it until they end."""
        self._bytes[:] = 0
        self._closed()


@dataclass(slots=True)
class _Open:
    use: Use
    bits: Bits
    next_change: float | None


Judge = Callable[[Use, Sequence[PatientId] | None], Verdicts]
"""Who may be used now: `state.verdicts` on a fresh view of the store, with the time of the clock."""


class Board:
    """The bits of all open permits. Every change reads the store under one lock, so that the newest answer is written last."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._open: dict[Hashable, _Open] = {}
        self._lock = threading.Lock()

    def open(self, key: Hashable, use: Use, patients: Sequence[PatientId]) -> Bits:
        """Compile the bits of a cohort (in row order) for `use`; in place of what was open under `key`."""
        with self._lock:
            held = _Open(use, Bits(patients), None)
            self._compile(held)
            old, self._open[key] = self._open.get(key), held
            if old is not None:
                old.bits.close()
            return held.bits

    def close(self, key: Hashable) -> None:
        """The permit's or run's end: all bits go to 0."""
        with self._lock:
            held = self._open.pop(key, None)
            if held is not None:
                held.bits.close()

    def refresh(self, patients: Sequence[PatientId]) -> None:
        """After these patients changed something, and before that is acknowledged: their bits under every open permit."""
        with self._lock:
            for held in self._open.values():
                here = [p for p in patients if p in held.bits.rows]
                if here:
                    self._judge_again(held, here)

    def block(self, patients: Sequence[PatientId]) -> None:
        """All bits of these patients to 0, without asking: for an erasure, or when the store cannot be read."""
        with self._lock:
            for held in self._open.values():
                for patient in patients:
                    held.bits.set(patient, False)

    def recompile(self, now: float) -> float | None:
        """Compile again whatever has a period's edge at or before `now`; when to call this next, or None for never."""
        with self._lock:
            for held in self._open.values():
                if held.next_change is not None and held.next_change <= now:
                    self._compile(held)
            return min((h.next_change for h in self._open.values() if h.next_change is not None), default=None)

    def recompile_all(self) -> None:
        """Compile everything again: after an order of the law changed."""
        with self._lock:
            for held in self._open.values():
                self._compile(held)

    def _judge_again(self, held: _Open, patients: Sequence[PatientId]) -> None:
        try:
            now = self._judge(held.use, patients)
        except BaseException:
            for patient in patients:  # an error is a no
                held.bits.set(patient, False)
            raise
        for patient in patients:
            held.bits.set(patient, now(patient).allowed)
        edges = [edge for edge in (held.next_change, now.next_change) if edge is not None]
        held.next_change = min(edges, default=None)

    def _compile(self, held: _Open) -> None:
        try:
            now = self._judge(held.use, None)
        except BaseException:
            held.bits.fill(np.zeros(len(held.bits.rows), np.bool_))  # an error is a no
            raise
        held.bits.fill(np.fromiter((now(p).allowed for p in held.bits.rows), np.bool_, len(held.bits.rows)))
        held.next_change = now.next_change
