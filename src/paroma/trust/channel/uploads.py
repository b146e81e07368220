"""Big bodies: what does not fit into a message goes before it, in chunks that may be cut and taken up again at any
byte.

A body is named by its SHA-256, so that beginning anew, repeating a chunk or sending it twice side by side changes
nothing; the message then names it (`Uploaded`). Whatever is truncated or altered does not have that name, and is
refused.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from paroma.kernel.blocking import Blocking
from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import Store
from paroma.kernel.wire import framing
from paroma.kernel.wire.spool import Spool
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.channel.messages import UPLOAD_PATH
from paroma.trust.channel.tables import UPLOADS

MOST_INLINE: Final = 64 << 10  # bytes
MOST_OPEN: Final = 64 << 30  # bytes that one site may have lying at the hub
MOST_UPLOADS: Final = 64  # uploads that one site may have lying at the hub
TRIES: Final = 4  # an upload may be thrown away at the hub and begun again
CHUNK_WAIT: Final = 60.0  # seconds until one chunk must be answered


class UploadRefused(Refused):
    """The site may not lay down so much."""


class UploadMissing(BadInput):
    """A message names an upload that is not (wholly) here."""

    def __init__(self) -> None:
        super().__init__("the upload that this message names is not here", do="send the upload first, then the message")


class Inline(msgspec.Struct, frozen=True, kw_only=True, tag="inline", forbid_unknown_fields=True):
    """A body of at most `MOST_INLINE` bytes, in the message itself."""

    content: bytes


class Uploaded(msgspec.Struct, frozen=True, kw_only=True, tag="uploaded", forbid_unknown_fields=True):
    """A body that was uploaded before."""

    whole: bytes  # SHA-256, 32 bytes
    total: int  # bytes


Body = Inline | Uploaded


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer to every question and every chunk."""

    wanted: int  # offset of the next byte that is missing
    done: bool  # the whole is there, durable, and has the right hash


class Uploads:
    """The hub's end: one folder of spools, a spool for each site."""

    def __init__(self, folder: Path, store: Store, *, disk: Disk, blocking: Blocking, clock: Clock) -> None:
        self._folder = folder
        self._store = store
        self._disk = disk
        self._blocking = blocking
        self._clock = clock
        self._busy: dict[SiteId, asyncio.Lock] = {}

    async def wanted(self, site: SiteId, whole: str) -> bytes:
        """Answer GET `UPLOAD_PATH` + `whole` (hex): where to go on. Raises BadInput."""
        name = _name(whole)
        total = await self._store.read(lambda tx: _total(tx, site, whole))
        if total is None:
            return framing.pack(Wanted(wanted=0, done=False))
        async with self._lock(site):
            offset = await self._blocking.run(lambda: self._spool(site).wanted(name))
            return await self._answer(site, name, offset, total)

    async def take(self, site: SiteId, whole: str, data: bytes, *, most_total: int) -> bytes:
        """Answer PUT `UPLOAD_PATH` + `whole` with one framed chunk. most_total: bytes that an upload may have here.

        Raises Malformed, UploadRefused, UploadDamaged (it was thrown away), StoreUnavailable.
        """
        name = _name(whole)
        chunk = framing.read_chunk(data, most_total=most_total)
        if chunk.whole != name:
            raise BadInput("the chunk belongs to another upload than the address", do="send it to its own address")
        total = await self._store.read(lambda tx: _total(tx, site, whole))
        if total is None:
            now = self._clock.now()
            await self._store.write(lambda tx: _declare(tx, site, whole, chunk.total, now))
        elif total != chunk.total:
            raise BadInput("the upload was declared with another length", do="send the whole of one content")
        async with self._lock(site):
            offset = await self._blocking.run(lambda: self._spool(site).take(chunk))
            return await self._answer(site, name, offset, chunk.total)

    async def open(self, site: SiteId, body: Body) -> bytes | Path:
        """The content that a message of `site` means: its bytes, or the file where they lie. Raises UploadMissing."""
        if isinstance(body, Inline):
            return body.content
        whole = body.whole.hex()
        total = await self._store.read(lambda tx: _total(tx, site, whole))
        async with self._lock(site):
            there = await self._blocking.run(lambda: self._spool(site).wanted(body.whole))
            if total is None or total != body.total or there != total:
                raise UploadMissing
            return await self._blocking.run(lambda: self._spool(site).finish(body.whole, body.total))

    async def remove(self, site: SiteId, whole: bytes) -> None:
        """Forget an upload, whole or in part. Repeating it changes nothing."""
        async with self._lock(site):
            await self._blocking.run(lambda: self._spool(site).remove(whole))
        await self._store.write(lambda tx: _forget(tx, site, whole.hex()))

    async def sweep(self, *, before: float) -> None:
        """Forget all that was begun before `before` (seconds since 1970). For a job."""
        old = await self._store.read(lambda tx: _begun_before(tx, before))
        for site, whole in old:
            await self.remove(site, bytes.fromhex(whole))

    async def _answer(self, site: SiteId, name: bytes, offset: int, total: int) -> bytes:
        if offset < total:
            return framing.pack(Wanted(wanted=offset, done=False))
        await self._blocking.run(lambda: self._spool(site).finish(name, total))
        return framing.pack(Wanted(wanted=total, done=True))

    def _spool(self, site: SiteId) -> Spool:
        return Spool(self._folder / site, self._disk)

    def _lock(self, site: SiteId) -> asyncio.Lock:
        return self._busy.setdefault(site, asyncio.Lock())


async def send_body(caller: Caller, content: bytes, blocking: Blocking) -> Body:
    """The site's end: `content` as the body of a message, uploaded first where it is too big for one.

    Takes up an upload that was cut; repeating it with the same content changes nothing. `content` must lie durably at
    the site before: what was begun may only be finished with the same bytes. Raises what `Caller.call` raises,
    Refused, BadInput.
    """
    if len(content) <= MOST_INLINE:
        return Inline(content=content)
    whole = await blocking.run(lambda: hashlib.sha256(content).digest())
    path = UPLOAD_PATH + whole.hex()
    at = await _ask(caller, "GET", path, b"")
    for _ in range(TRIES):
        if not at.done:
            at = await _send_from(caller, path, content, at, blocking)
        if at.done:
            return Uploaded(whole=whole, total=len(content))
    raise UploadRefused("the hub does not take the whole upload", do="look at the hub's disk, then repeat")


async def _send_from(caller: Caller, path: str, content: bytes, at: Wanted, blocking: Blocking) -> Wanted:
    """Send the chunks from `at` on, until the hub has all or wants another byte than the next."""
    pieces = framing.chunks(content, start=at.wanted)
    while (piece := await blocking.run(lambda: next(pieces, None))) is not None:
        before, at = at, await _ask(caller, "PUT", path, piece)
        if at.done or at.wanted != min(before.wanted + framing.CHUNK_BYTES, len(content)):
            break
    return at


async def _ask(caller: Caller, method: str, path: str, body: bytes) -> Wanted:
    reply = await caller.call(method, path, body, wait=CHUNK_WAIT)
    if reply.status != 200:
        raise refused_by(reply)
    return framing.unpack(reply.body, Wanted, 1_024)


def _name(whole: str) -> bytes:
    try:
        name = bytes.fromhex(whole)
    except ValueError:
        name = b""
    if len(name) != 32 or name.hex() != whole:
        raise BadInput("an upload is named by 64 lower-case hex digits", do="name it by the SHA-256 of its bytes")
    return name


def _total(tx: Connection, site: SiteId, whole: str) -> int | None:
    query = select(UPLOADS.c.total).where(UPLOADS.c.site == site, UPLOADS.c.whole == whole)
    return tx.execute(query).scalar_one_or_none()


def _declare(tx: Connection, site: SiteId, whole: str, total: int, now: float) -> None:
    if _total(tx, site, whole) is not None:
        return
    query = select(func.count(), func.coalesce(func.sum(UPLOADS.c.total), 0)).where(UPLOADS.c.site == site)
    count, size = tx.execute(query).one()
    if count >= MOST_UPLOADS or size + total > MOST_OPEN:
        raise UploadRefused(
            "too much of this site lies at the hub already", do="wait until the run goes on, then repeat"
        )
    tx.execute(insert(UPLOADS).values(site=site, whole=whole, total=total, begun=now))


def _forget(tx: Connection, site: SiteId, whole: str) -> None:
    tx.execute(delete(UPLOADS).where(UPLOADS.c.site == site, UPLOADS.c.whole == whole))


def _begun_before(tx: Connection, before: float) -> list[tuple[SiteId, str]]:
    rows = tx.execute(select(UPLOADS.c.site, UPLOADS.c.whole).where(UPLOADS.c.begun < before))
    return [(SiteId(row.site), row.whole) for row in rows]
