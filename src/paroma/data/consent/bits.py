"""One bit a patient for each open permit, in shared memory: what a worker asks at every batch of rows.

Bit i (of byte i // 8, lowest bit first) belongs to row i of the cohort. The memory is a memfd: this process writes it,
a worker gets the descriptor and can only read (a seal forbids new writable mappings). The bits are compiled when a
permit is opened, again for a patient who changes something, and for all at the next instant at which a period starts
or ends. A worker that finds 0 leaves the row out; bits go to 0 before a withdrawal is acknowledged.
"""

import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
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
    gone: set[PatientId]  # erased since this cohort was made


Judge = Callable[[Use, Sequence[PatientId] | None], Verdicts]
"""Who may be used now: `state.verdicts` on a fresh view of the store, with the time of the clock."""


class Board:
    """The bits of all open permits.

    The newest answer is written last: single patients are judged under one lock, and whoever changes while a whole
    cohort is judged (without the lock, as it takes seconds for a million) is judged again before its bits are written.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._open: dict[Hashable, _Open] = {}
        self._compiling: list[set[PatientId]] = []
        self._lock = threading.Lock()

    def open(self, key: Hashable, use: Use, patients: Sequence[PatientId]) -> Bits:
        """Compile the bits of a cohort (in row order) for `use`; in place of what was open under `key`."""
        held = _Open(use, Bits(patients), None, set())
        try:
            self._compile(held, key)
        except BaseException:
            held.bits.close()
            raise
        return held.bits

    def close(self, key: Hashable) -> None:
        """The permit's or run's end: all bits go to 0."""
        with self._lock:
            held = self._open.pop(key, None)
            if held is not None:
                held.bits.close()

    def refresh(self, patients: Sequence[PatientId]) -> None:
        """After these patients changed something, and before that is acknowledged: their bits under every open permit.

        Raises what the judge raises; then their bits are 0.
        """
        with self._lock:
            for touched in self._compiling:
                touched.update(patients)
            for held in self._open.values():
                self._judge_again(held, patients)

    def erased(self, patients: Sequence[PatientId]) -> None:
        """All bits of these patients to 0 for good, in the cohorts that are open."""
        with self._lock:
            for held in self._open.values():
                held.gone.update(patients)
                for patient in patients:
                    held.bits.set(patient, False)

    def next_change(self) -> float | None:
        """When to call `recompile` next (seconds since 1970), or None for never."""
        return min((h.next_change for h in self._all() if h.next_change is not None), default=None)

    def recompile(self, now: float) -> float | None:
        """Compile again what has a period's edge at or before `now`; returns `next_change`."""
        for held in self._all():
            if held.next_change is not None and held.next_change <= now:
                self._compile(held)
        return self.next_change()

    def recompile_all(self) -> None:
        """Compile everything again: after an order of the law changed."""
        for held in self._all():
            self._compile(held)

    def _all(self) -> list[_Open]:
        with self._lock:
            return list(self._open.values())

    def _judge_again(self, held: _Open, patients: Iterable[PatientId]) -> None:
        here = [p for p in patients if p in held.bits.rows]
        if not here:
            return
        try:
            now = self._judge(held.use, here)
        except BaseException:
            for patient in here:  # an error is a no
                held.bits.set(patient, False)
            raise
        for patient in here:
            held.bits.set(patient, now(patient).allowed and patient not in held.gone)
        edges = [edge for edge in (held.next_change, now.next_change) if edge is not None]
        held.next_change = min(edges, default=None)

    def _compile(self, held: _Open, key: Hashable | None = None) -> None:
        touched: set[PatientId] = set()
        with self._lock:
            self._compiling.append(touched)
        try:
            now = self._judge(held.use, None)
            allowed = np.fromiter((now(p).allowed for p in held.bits.rows), np.bool_, len(held.bits.rows))
        except BaseException:
            with self._lock:
                self._done(touched)
                held.bits.fill(np.zeros(len(held.bits.rows), np.bool_))  # an error is a no
            raise
        with self._lock:
            self._done(touched)
            held.bits.fill(allowed)
            held.next_change = now.next_change
            for patient in held.gone:
                held.bits.set(patient, False)
            self._judge_again(held, touched)
            if key is not None:
                old, self._open[key] = self._open.get(key), held
                if old is not None:
                    old.bits.close()

    def _done(self, touched: set[PatientId]) -> None:
        self._compiling = [one for one in self._compiling if one is not touched]
