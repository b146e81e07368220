"""Reads the federation log and keeps what it says of members and officers, each byte held against the accepted checkpoint.

From these entries the site knows whose keys count; no word of the hub replaces them. Now and then, and whenever the line was cut,
the whole log is read again: one byte changed anywhere marks the log, and uses stop.
"""

import asyncio
from collections.abc import Iterable

from sqlalchemy import Connection

from paroma.kernel import ids
from paroma.kernel.blocking import Blocking
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import Store
from paroma.trust.audit import follow as following, followed as kept, witness
from paroma.trust.audit.checkpoint import Checkpoint, LogInconsistent
from paroma.trust.audit.entries import Entry, open_entry
from paroma.trust.audit.merkle import EMPTY, Edge
from paroma.trust.audit.notes import NoteKey
from paroma.trust.audit.tiles import TileMissing, needed
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.channel.heads import cosigning_key
from paroma.trust.federation import members
from paroma.trust.federation.members import Member
from paroma.trust.identity import jose

FETCH_SECONDS = 20.0
BREATH_SECONDS = (
    0.5  # between two readings; after a rest the first is at once. Below the second in which who is out is out
)


class Follower:
    """Keeps up with the federation log. `trouble` once it was found changed."""

    def __init__(
        self, store: Store, caller: Caller, key: NoteKey, *, blocking: Blocking, clock: Clock, recheck: float
    ) -> None:
        self._store = store
        self._caller = caller
        self._key = key
        self._blocking = blocking
        self._clock = clock
        self._recheck = recheck
        self._news = asyncio.Event()
        self._whole = True  # at the start nothing is believed because it was believed before
        self._busy = asyncio.Lock()

    def news(self) -> None:
        """The log has grown."""
        self._news.set()

    def doubt(self) -> None:
        """The line was cut: read all of it again."""
        self._whole = True
        self._news.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        checked = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            self._news.clear()  # before reading: what grows meanwhile is read next
            try:
                await self.catch_up()
            except (Unavailable, Refused, BadInput, TileMissing):
                await self._clock.sleep(1.0)
                continue
            except LogInconsistent:
                pass  # marked; a person has to look
            if self._whole:
                continue
            left = self._recheck - (self._clock.monotonic() - checked)
            if left <= 0:
                checked, self._whole = self._clock.monotonic(), True
                continue
            await self._wait(left)
            # while rounds run, the log grows many times a second: what names no member can be read a few entries at once
            await self._clock.sleep(max(0.0, began + BREATH_SECONDS - self._clock.monotonic()))

    async def _wait(self, seconds: float) -> None:
        """Until the log has grown, at most so long."""
        waiting = asyncio.ensure_future(self._news.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()

    async def catch_up(self) -> None:
        """Read and prove what is new, or all of it after `doubt`. Raises LogInconsistent (marked), Unavailable, Refused."""
        async with self._busy:
            whole, self._whole = self._whole, False
            accepted, since = await self._store.read(
                lambda tx: (witness.seen(tx, self._key.name), kept.followed(tx, self._key.name))
            )
            if accepted is None or (not whole and accepted.size <= since.size):
                return
            edge = EMPTY if whole else since
            try:
                files = await self._fetch(edge.size, accepted)
                found = await self._blocking.run(lambda: _proved(files, accepted, edge))
            except LogInconsistent as problem:
                await self._mark(accepted, problem.what)
                raise
            except BaseException:
                self._whole = whole
                raise
            fresh = [entry for entry in found[1] if entry.number >= since.size]

            def keep(tx: Connection) -> None:
                take_in(tx, fresh)
                if found[0].size > since.size:
                    kept.remember(tx, self._key.name, found[0])

            await self._store.write(keep)

    async def _mark(self, accepted: Checkpoint, what: str) -> None:
        """Durably: from here on nothing is used that rests on this log."""
        name, now = self._key.name, self._clock.now()
        await self._store.write(lambda tx: witness.mark_broken(tx, name, what, note=accepted.note, at=now))

    async def _fetch(self, old: int, accepted: Checkpoint) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for where in needed(old, accepted.size):
            reply = await self._caller.call("GET", f"/log/{where.path}", wait=FETCH_SECONDS)
            if reply.status != 200:  # HTTP
                raise refused_by(reply)
            files[where.path] = reply.body
        return files


def _proved(files: dict[str, bytes], accepted: Checkpoint, since: Edge) -> tuple[Edge, list[Entry]]:
    def read(path: str) -> bytes:
        if path not in files:
            raise TileMissing(f"the hub did not send `{path}`", do="ask again")
        return files[path]

    followed = following.follow(read, accepted, since)
    return followed.edge, [open_entry(sealed, number) for number, sealed in followed.entries]


def take_in(tx: Connection, entries: Iterable[Entry]) -> None:
    """Keep what entries say of members and officers. What cannot be right is passed over: it gives nobody anything."""
    for entry in entries:
        try:
            _take_in_one(tx, entry)
        except (ParomaError, KeyError, ValueError):
            continue  # the hub writes the log: an entry that nobody can read must not stop those after it


def _take_in_one(tx: Connection, entry: Entry) -> None:
    facts = entry.facts
    match entry.kind:
        case "member-joined":
            jwk = facts["jwk"]
            log_vkey = str(facts["log_vkey"])
            cosigning_key(NoteKey.parse(log_vkey))  # whoever counts cosignatures later relies on its form
            if isinstance(jwk, dict):
                key = jose.public_key({name: str(value) for name, value in jwk.items()})
                members.add(
                    tx,
                    Member(
                        site=SiteId(ids.parse("site", str(facts["site"]))),
                        owner=str(facts["owner"]),
                        title=str(facts["title"]),
                        key=key,
                        log_vkey=log_vkey,
                        status="admitted",
                        changed=entry.at,
                    ),
                )
        case "officer-named":
            members.take_enrolment(tx, str(facts["statement"]).encode())
        case "member-left":
            members.set_status(tx, SiteId(str(facts["site"])), "left", at=entry.at)
        case "member-released":
            members.set_status(tx, SiteId(str(facts["site"])), "admitted", at=entry.at)
        case "member-quarantined":
            members.set_status(tx, SiteId(str(facts["site"])), "quarantined", at=entry.at)
        case _:
            pass
