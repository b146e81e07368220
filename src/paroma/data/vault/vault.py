"""The vault: one sealed message a patient, whose key can be destroyed.

    segments/00000003.seg    messages, one after the other; a file is written once and never changed
    pages/000000-00000007    key page 0, generation 7, sealed under a page key (`pages`)
    root-00000002.page       all page keys, sealed under root 2; the root itself lies on the replicas (`roots`)
    register-NAME.sealed     small sealed values that may not be rolled back (`sealed`)

A message is the patient's original bytes, zstd, then AES-256-GCM under a key made for this version alone, bound to
patient and version. Every write is copy-on-write: new files first, then one rename that makes them count; what nothing
names is removed at the next opening. INVARIANT: whatever write fails, in whichever way, the vault opens to the state
before or after, never between.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.data.vault import pages, sealed
from paroma.data.vault.errors import (
    ErasedBefore,
    PatientUnknown,
    VaultDamaged,
    VaultInUse,
    VaultLocked,
    VaultOutdated,
    VaultUnavailable,
)
from paroma.data.vault.pages import DIGEST_BYTES, SLOTS, Page, PageKey, RootPage
from paroma.data.vault.roots import KEY_BYTES, Replicas, Root
from paroma.kernel.disk import Disk
from paroma.kernel.ids import PatientId
from paroma.kernel.randomness import Randomness
from paroma.trust.keys.wrapping import WrappingKey

SEGMENT_BYTES = 32 << 20  # a segment is closed at this size
_NONCE = bytes(12)  # every message has a key of its own
_ROOT_PAGE = re.compile(r"root-(\d{8})\.page")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a `put` changed."""

    written: tuple[PatientId, ...]
    unchanged: int  # patients whose records were already there, byte for byte


@dataclass(frozen=True, slots=True)
class Erasure:
    """What the certificate of an erasure says."""

    patients: tuple[PatientId, ...]
    tags: tuple[str, ...]  # HMAC-SHA-256 (hex, 128 bits) of each id under the erasure key: goes into the site log
    epoch: int  # of the root key that replaced the destroyed one
    replicas: int  # on how many the old root was removed


@dataclass(slots=True)
class _State:
    root: Root
    generation: int
    pages: list[Page]
    page_keys: list[PageKey]
    register_key: bytes
    erasure_key: bytes
    erased: frozenset[bytes]
    where: dict[str, int]  # patient -> page * 1,024 + slot
    next_segment: int


class Vault:
    """The records of one hospital. Thread-safe; one process at a time. Made by `open_vault`."""

    def __init__(self, folder: Path, replicas: Replicas, disk: Disk, randomness: Randomness) -> None:
        self._folder = folder
        self._replicas = replicas
        self._disk = disk
        self._randomness = randomness
        self._lock = threading.RLock()
        self._holder = _hold(folder)
        self._closed = weakref.finalize(self, os.close, self._holder)
        self._state: _State | None = None
        try:
            self._ready()
        except BaseException:
            self._closed()
            raise

    # -- reading

    def patients(self) -> tuple[PatientId, ...]:
        """All patients with records here, in the order of their arrival."""
        with self._lock:
            return tuple(PatientId(p) for p in self._ready().where)

    def __contains__(self, patient: object) -> bool:
        with self._lock:
            return patient in self._ready().where

    def version(self, patient: PatientId) -> int:
        """How often the patient's records were written, 1 or more. Raises PatientUnknown."""
        with self._lock:
            page, slot = self._find(patient)
            return int(page.places[slot]["version"])

    def read(self, patient: PatientId) -> bytes:
        """The patient's records as they were put. Raises PatientUnknown, VaultDamaged, VaultUnavailable."""
        ((_, content),) = self.read_all([patient])
        return content

    def read_all(self, patients: Iterable[PatientId]) -> Iterator[tuple[PatientId, bytes]]:
        """The records of each of `patients`, in their order. Raises as `read`."""
        decompressor = zstandard.ZstdDecompressor()
        held: tuple[int, int] | None = None
        try:
            for patient in patients:
                with self._lock:
                    page, slot = self._find(patient)
                    key = page.key(slot)
                    segment, length, offset, version = (int(n) for n in page.places[slot])
                if held is None or held[0] != segment:
                    if held is not None:
                        os.close(held[1])
                        held = None
                    held = (segment, os.open(self._segment(segment), os.O_RDONLY | os.O_CLOEXEC))
                message = os.pread(held[1], length, offset)
                yield patient, _unseal(message, key, patient, version, decompressor)
        except OSError as problem:
            raise VaultUnavailable(problem, "read") from problem
        finally:
            if held is not None:
                os.close(held[1])

    def unwrapped(self) -> int:
        """Decrypt every key page afresh; the number of slots for keys in them. What unwrapping all keys costs, for the
        bench.
        """
        with self._lock:
            keys = [
                pages.page_bytes(self._page(number, held.generation).read_bytes(), number, held.key)[
                    : KEY_BYTES * SLOTS
                ]
                for number, held in enumerate(self._ready().page_keys)
            ]
            return sum(map(len, keys)) // KEY_BYTES

    # -- writing

    def put(self, records: Iterable[tuple[PatientId, bytes]], *, readmit: Collection[PatientId] = ()) -> Stored:
        """Keep each patient's records, in place of what was kept before: all of them or, on an error, none.

        What is already there byte for byte is left alone, so repeating is safe. `readmit`: patients whose records may
        come back although they were erased. Raises ErasedBefore, VaultUnavailable.
        """
        with self._lock:
            state = self._ready()
            try:
                return self._put(state, records, frozenset(readmit))
            except OSError as problem:
                self._state = None  # it may have failed and left what it wrote: read what counts before the next act
                raise VaultUnavailable(problem, "keep records") from problem

    def erase(self, patients: Collection[PatientId]) -> Erasure:
        """Make every copy of these patients' records unreadable, backups included. Patients unknown here are passed
        over.

        Their slots are blanked under new page keys and a new root; the old root is removed from every replica. After an
        error the erasure may stand or not: repeat it, which is safe. Raises VaultUnavailable.
        """
        with self._lock:
            state = self._ready()
            here = tuple(dict.fromkeys(p for p in patients if p in state.where))
            tags = tuple(_tag(state, p) for p in dict.fromkeys(patients))
            if not here:
                return Erasure((), tuple(t.hex() for t in tags), state.root.epoch, len(self._replicas.folders))
            try:
                epoch = self._erase(state, here, frozenset(tags))
            except OSError as problem:
                self._state = None
                raise VaultUnavailable(problem, "erase") from problem
            return Erasure(here, tuple(t.hex() for t in tags), epoch, len(self._replicas.folders))

    def erasure_tag(self, patient: PatientId) -> str:
        """What the log may say of an erased patient: it tells nothing to whoever lacks the erasure key."""
        with self._lock:
            return _tag(self._ready(), patient).hex()

    def was_erased(self, patient: PatientId) -> bool:
        """Whether this patient's records were erased on request and not readmitted since."""
        with self._lock:
            state = self._ready()
            return _tag(state, patient) in state.erased

    def replay(self, tags: Iterable[str]) -> Erasure:
        """Erase whoever is here under one of these tags: after a restore, with the erasures that the log holds."""
        wanted = {bytes.fromhex(tag) for tag in tags}
        with self._lock:
            state = self._ready()
            return self.erase([PatientId(p) for p in state.where if _tag(state, PatientId(p)) in wanted])

    def register(self, name: str, *, anchored: int = 0) -> "sealed.Register":
        """The sealed register of this name. anchored: the highest epoch of it that the log shows.

        Raises RegisterOutdated (a restored backup), VaultDamaged, VaultUnavailable.
        """
        with self._lock:
            register = sealed.Register(
                name=name,
                path=self._folder / f"register-{sealed.checked_name(name)}.sealed",
                key=hmac.digest(self._ready().register_key, b"paroma/register/v1\n" + name.encode(), "sha256"),
                disk=self._disk,
                randomness=self._randomness,
                lock=self._lock,
            )
            register.require(anchored)
            return register

    def close(self) -> None:
        """Let go of the folder and forget the keys."""
        with self._lock:
            self._state = None
            self._closed()

    # -- inside

    def _find(self, patient: PatientId) -> tuple[Page, int]:
        state = self._ready()
        place = state.where.get(patient)
        if place is None:
            raise PatientUnknown
        return state.pages[place // SLOTS], place % SLOTS

    def _put(self, state: _State, records: Iterable[tuple[PatientId, bytes]], readmit: frozenset[PatientId]) -> Stored:
        changed: dict[int, Page] = {}
        added: dict[str, int] = {}
        back: set[bytes] = set()
        refused = unchanged = 0
        written: dict[PatientId, None] = {}
        room = _next_place(state)
        segment = _Segment(self, state.next_segment)
        compressor = zstandard.ZstdCompressor(level=3)
        for patient, content in records:
            tag = _tag(state, patient)
            if tag in state.erased:
                if patient not in readmit:
                    refused += 1
                    continue
                back.add(tag)
            place = state.where.get(patient, added.get(patient))
            digest = hashlib.sha256(content).digest()[:DIGEST_BYTES]
            if place is None:
                place = added[patient] = room
                room += 1
            number, slot = divmod(place, SLOTS)
            page = changed.get(number) or (state.pages[number] if number < len(state.pages) else Page())
            if slot < len(page.ids) and page.digest(slot) == digest:
                unchanged += 1
                continue
            if number not in changed:
                page = changed[number] = page.copy()
            if slot == len(page.ids):
                page.ids.append(patient)
            version = int(page.places[slot]["version"]) + 1
            key = self._randomness.take(KEY_BYTES)
            page.write(
                slot, key, digest, (*segment.add(_seal(compressor.compress(content), key, patient, version)), version)
            )
            written[patient] = None
        if refused:
            raise ErasedBefore(refused)
        if not changed:
            return Stored((), unchanged)
        segment.close()
        where = state.where | added
        self._commit(state, changed, state.root, erased=state.erased - back, where=where, next_segment=segment.number)
        return Stored(tuple(written), unchanged)

    def _erase(self, state: _State, patients: Sequence[PatientId], tags: frozenset[bytes]) -> int:
        changed: dict[int, Page] = {}
        where = dict(state.where)
        for patient in patients:
            number, slot = divmod(where.pop(patient), SLOTS)
            if number not in changed:
                changed[number] = state.pages[number].copy()
            changed[number].blank(slot)
        root = Root(state.root.epoch + 1, self._randomness.take(KEY_BYTES))
        # The new root page counts as soon as one replica holds the new root: from then on every opening rolls forward.
        self._commit(state, changed, root, erased=state.erased | tags, where=where, next_segment=state.next_segment)
        return root.epoch

    def _commit(
        self,
        state: _State,
        changed: dict[int, Page],
        root: Root,
        *,
        erased: frozenset[bytes],
        where: dict[str, int],
        next_segment: int,
    ) -> None:
        generation = state.generation + 1
        keys = list(state.page_keys)
        kept = list(state.pages)
        for number in sorted(changed):
            held = PageKey(generation, self._randomness.take(KEY_BYTES))
            self._disk.replace(self._page(number, generation), pages.seal_page(changed[number], number, held.key))
            if number == len(keys):
                keys.append(held)
                kept.append(changed[number])
            else:
                keys[number], kept[number] = held, changed[number]
        page = RootPage(generation, tuple(keys), state.register_key, state.erasure_key, tuple(sorted(erased)))
        self._disk.replace(self._root_page(root.epoch), pages.seal_root_page(page, root, self._randomness.take(12)))
        if root.epoch != state.root.epoch:
            self._replicas.spread(root)
            self._replicas.forget_before(root.epoch)
            self._disk.remove(self._root_page(state.root.epoch))
        for number in changed:
            if number < len(state.page_keys):
                self._disk.remove(self._page(number, state.page_keys[number].generation))
        self._state = _State(
            root, generation, kept, keys, state.register_key, state.erasure_key, erased, where, next_segment
        )

    def _ready(self) -> _State:
        """The state on disk, read again after a failed write."""
        if not self._closed.alive:
            raise VaultUnavailable(OSError(0, "it is closed"), "be used")
        if self._state is None:
            try:
                self._state = self._load()
            except OSError as problem:
                raise VaultUnavailable(problem, "open") from problem
        return self._state

    def _load(self) -> _State:
        roots = self._replicas.newest()
        found = {int(m[1]) for path in self._folder.iterdir() if (m := _ROOT_PAGE.fullmatch(path.name))}
        if not roots:
            if any((self._folder / "pages").iterdir()) or any((self._folder / "segments").iterdir()):
                raise VaultLocked(str(self._folder))
            roots = (self._create(),)
            found = {1}
        epoch = roots[0].epoch
        if epoch not in found:
            raise VaultOutdated(epoch)
        root, page = _opened(self._root_page(epoch).read_bytes(), roots)
        self._replicas.spread(root)  # a new or repaired replica gets the root here
        self._replicas.forget_before(root.epoch)  # an erasure that was cut short ends here
        kept = [
            pages.open_page(self._page(number, held.generation).read_bytes(), number, held.key)
            for number, held in enumerate(page.pages)
        ]
        where = {p: n * SLOTS + slot for n, one in enumerate(kept) for slot, p in enumerate(one.ids) if p}
        self._sweep(root, page, kept)
        newest = max((int(path.stem) for path in (self._folder / "segments").iterdir()), default=0)
        return _State(
            root,
            page.generation,
            kept,
            list(page.pages),
            page.register_key,
            page.erasure_key,
            frozenset(page.erased),
            where,
            newest + 1,
        )

    def _create(self) -> Root:
        # The root page comes first: a crash after it leaves a page without key and without records, to be begun anew.
        root = Root(1, self._randomness.take(KEY_BYTES))
        page = RootPage(0, (), self._randomness.take(KEY_BYTES), self._randomness.take(KEY_BYTES), ())
        self._disk.replace(self._root_page(1), pages.seal_root_page(page, root, self._randomness.take(12)))
        self._replicas.spread(root)
        return root

    def _sweep(self, root: Root, page: RootPage, kept: Sequence[Page]) -> None:
        """Remove what nothing names: left by a write that was cut short, or replaced, or erased."""
        named = {self._page(number, held.generation).name for number, held in enumerate(page.pages)}
        for path in (self._folder / "pages").iterdir():
            if path.name not in named:
                self._disk.remove(path)
        used = {int(s) for one in kept for s in np.unique(one.places["segment"])}
        for path in (self._folder / "segments").iterdir():
            if path.suffix != ".seg" or int(path.stem) not in used:
                self._disk.remove(path)
        for path in self._folder.iterdir():
            number = _ROOT_PAGE.fullmatch(path.name)
            if (number and int(number[1]) != root.epoch) or path.suffix == ".new":
                self._disk.remove(path)

    def _segment(self, number: int) -> Path:
        return self._folder / "segments" / f"{number:08d}.seg"

    def _page(self, number: int, generation: int) -> Path:
        return self._folder / "pages" / f"{number:06d}-{generation:08d}"

    def _root_page(self, epoch: int) -> Path:
        return self._folder / f"root-{epoch:08d}.page"


class _Segment:
    """Gathers messages and writes a segment file whenever enough have come together."""

    def __init__(self, vault: Vault, number: int) -> None:
        self._vault = vault
        self.number = number
        self._messages: list[bytes] = []
        self._size = 0

    def add(self, message: bytes) -> tuple[int, int, int]:
        """Segment, length and offset of the message."""
        if self._size and self._size + len(message) > SEGMENT_BYTES:
            self.close()
        place = (self.number, len(message), self._size)
        self._messages.append(message)
        self._size += len(message)
        return place

    def close(self) -> None:
        """Make durable what was gathered."""
        if self._messages:
            self._vault._disk.replace(self._vault._segment(self.number), b"".join(self._messages))  # noqa: SLF001  # its own helper
            self.number += 1
            self._messages, self._size = [], 0


def open_vault(
    folder: Path, replicas: Sequence[Path], disk: Disk, randomness: Randomness, keys: Sequence[WrappingKey] = ()
) -> Vault:
    """Open the vault in `folder`, or make it; `replicas`: at least two folders for the root key, best on other disks.

    keys: that wrap the root key, the one to use first. Raises VaultInUse, VaultLocked, VaultOutdated, VaultDamaged,
    VaultUnavailable, RootWrapped, BadInput, and what the keys raise.
    """
    for name in ("pages", "segments"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    return Vault(folder, Replicas(replicas, disk, keys), disk, randomness)


def _hold(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the process dies
    except BlockingIOError as problem:
        os.close(descriptor)
        raise VaultInUse(str(folder)) from problem
    return descriptor


def _opened(content: bytes, roots: Sequence[Root]) -> tuple[Root, RootPage]:
    """The root page, and which of several roots of one epoch opens it: a replica that was away may hold another."""
    for root in roots[:-1]:
        with contextlib.suppress(VaultDamaged):
            return root, pages.open_root_page(content, root)
    return roots[-1], pages.open_root_page(content, roots[-1])


def _next_place(state: _State) -> int:
    if not state.pages:
        return 0
    return (len(state.pages) - 1) * SLOTS + len(state.pages[-1].ids)


def _tag(state: _State, patient: PatientId) -> bytes:
    return hmac.digest(state.erasure_key, b"paroma/erasure/v1\n" + patient.encode(), "sha256")[:16]


def _bound(patient: PatientId, version: int) -> bytes:
    return b"paroma/record/v1\n%d\n" % version + patient.encode()


def _seal(small: bytes, key: bytes, patient: PatientId, version: int) -> bytes:
    return AESGCM(key).encrypt(_NONCE, small, _bound(patient, version))


def _unseal(
    message: bytes, key: bytes, patient: PatientId, version: int, decompressor: zstandard.ZstdDecompressor
) -> bytes:
    try:
        small = AESGCM(key).decrypt(_NONCE, message, _bound(patient, version))
    except (InvalidTag, ValueError) as problem:
        raise VaultDamaged("a patient's sealed record") from problem
    return decompressor.decompress(small)
