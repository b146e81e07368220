"""The logs' heads in every message: each side shows its own, proves that it grew, and says what it has seen of the other's.

The site remembers and cosigns the checkpoint of the federation log that is on offer; the hub remembers each site's. Whoever
finds a log inconsistent marks it durably. A site then takes no further part in any use; it goes on with stopping acts.
Source: C2SP tlog-witness, over the line instead of HTTP.
"""

from collections import deque
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from paroma.kernel import canonical
from paroma.kernel.clock import Clock
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import Store
from paroma.trust.audit import cosigning, log as logs, witness
from paroma.trust.audit.checkpoint import LogInconsistent
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.notes import COSIGNATURE, NoteKey
from paroma.trust.audit.proofs import Consistency, ProofInvalid
from paroma.trust.audit.tiles import TileMissing

LIVE = 2  # requests of one site that may be under way at once: a reply may be to the older one
FRESH_SECONDS = 15.0  # an older cosignature is made again, though nothing has grown: it tells the time, too


class SiteHeads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From a site. note, proof: of its own log, from the size that the hub remembers. seen: size of the federation log that it
    remembers. cosignature: its line over the checkpoint of that size, empty when there is none.
    """

    note: str
    proof: Consistency | None
    seen: int
    cosignature: str


class HubHeads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From the hub. note, proof: the checkpoint of the federation log that is on offer, from the size that the site remembers.
    seen: size of the site's log that the hub remembers. cosigned: the largest checkpoint that a quorum has cosigned, or empty.
    """

    note: str
    proof: Consistency | None
    seen: int
    cosigned: str


def cosigning_key(log_key: NoteKey) -> NoteKey:
    """The key of a member's cosignatures: the same bytes as its log's, under the other kind."""
    return NoteKey(log_key.name, COSIGNATURE, log_key.public)


class AtSite:
    """A site's half. `cosigned` is the newest note that the hub showed, for the facts; whoever relies on it checks it."""

    def __init__(
        self, store: Store, *, federation: NoteKey, cosigner: Cosigner, clock: Clock, news: Callable[[], None]
    ) -> None:
        """news: called when the federation log has grown."""
        self._store = store
        self._federation = federation
        self._cosigner = cosigner
        self._clock = clock
        self._news = news
        self.hub_saw = 0
        self._said: deque[int] = deque([0], maxlen=LIVE)
        self._line = ""
        self._line_at = 0.0  # monotonic
        self.cosigned = ""
        self.trouble: LogInconsistent | None = None

    async def ours(self) -> tuple[str, ...]:
        """What goes along with a request."""
        heads = await self._store.read(self._mine)
        self._said.append(heads.seen)
        return (canonical.encode(heads).decode(),)

    def _mine(self, tx: Connection) -> SiteHeads:
        own = logs.checkpoint(tx, logs.SITE)
        known = self.hub_saw if self.hub_saw <= own.size else 0
        seen = witness.seen(tx, self._federation.name)
        return SiteHeads(
            note=own.note,
            proof=logs.consistency(tx, logs.SITE, known, own.size) if known else None,
            seen=0 if seen is None else seen.size,
            cosignature=self._line,
        )

    async def theirs(self, heads: tuple[str, ...]) -> None:
        """Take in what came with a reply. An inconsistent federation log is marked, and kept in `trouble`."""
        if not heads:
            return
        said = canonical.decode_as(heads[0].encode(), HubHeads)
        self.hub_saw = said.seen
        if said.cosigned:
            self.cosigned = said.cosigned
        known = min(self._said)  # what this site itself said in the requests under way; the sender does not choose it
        before = await self._store.read(lambda tx: witness.seen(tx, self._federation.name))
        young = self._line and self._clock.monotonic() - self._line_at < FRESH_SECONDS
        if before is not None and before.note == said.note and young:
            return
        try:
            growth = await self._store.write(
                lambda tx: witness.grow(
                    tx,
                    self._federation,
                    said.note,
                    said.proof,
                    known=known,
                    at=self._clock.now(),
                    cosigner=self._cosigner,
                )
            )
            grown = growth.require()
        except LogInconsistent as problem:
            self.trouble, self._line = problem, ""
            return
        except (witness.CheckpointOld, witness.ProofNeeded):
            return  # a late reply: the next request says what is remembered, and gets what fits
        self._line = grown.cosignature.line if grown.cosignature else ""
        self._line_at = self._clock.monotonic()
        if before is None or grown.checkpoint.size > before.size:
            self._news()


class AtHub:
    """The hub's half, for all sites."""

    def __init__(
        self,
        store: Store,
        *,
        key_of: Callable[[Connection, SiteId], NoteKey],
        quorum: Callable[[Connection], int],
        covered: Callable[[Connection], tuple[SiteId, ...]],
        clock: Clock,
        wake: Callable[[SiteId], None],
    ) -> None:
        """key_of: a member's log key. quorum: cosignatures that make a checkpoint done. covered: what waited for one may go on;
        in the transaction that took a cosignature in; returns the sites that have mail, which `wake` rings.
        """
        self._store = store
        self._key_of = key_of
        self._quorum = quorum
        self._covered = covered
        self._clock = clock
        self._wake = wake
        self._known: dict[str, int] = {}
        self._told: dict[str, deque[int]] = {}
        self._last: dict[str, tuple[str, str]] = {}

    async def theirs(self, site: str, heads: tuple[str, ...]) -> None:
        """Take in what a site shows. Raises LogInconsistent, and the forms' errors."""
        if not heads:
            return
        said = canonical.decode_as(heads[0].encode(), SiteHeads)
        self._known[site] = said.seen
        if self._last.get(site) == (said.note, said.cosignature):
            return
        growth, rung = await self._store.write(lambda tx: self._take(tx, SiteId(site), said))
        for other in rung:
            self._wake(other)
        if growth is not None:
            growth.require()
        self._last[site] = (said.note, said.cosignature)

    def _take(self, tx: Connection, site: SiteId, said: SiteHeads) -> tuple[witness.Growth | None, tuple[SiteId, ...]]:
        key = self._key_of(tx, site)
        before = witness.seen(tx, key.name)
        growth = None
        if before is None or before.note != said.note:
            known = min(self._told.get(site, (0,)))
            try:
                growth = witness.grow(tx, key, said.note, said.proof, known=known, at=self._clock.now())
            except (witness.CheckpointOld, witness.ProofNeeded):
                growth = None  # it learns from this answer what is remembered
        if not said.cosignature:
            return growth, ()
        try:
            signature = cosigning.signature_of(said.cosignature)
            cosigning.take_in(tx, logs.FEDERATION, said.seen, signature, cosigning_key(key))
        except cosigning.CosignatureUnexpected:
            return growth, ()  # over an offer that has given way to a newer one
        return growth, self._covered(tx)

    async def advance(self) -> None:
        """Put the head on offer where the last offer is done or stale, and ring the sites that have not seen it. For a job."""
        now = self._clock.now()
        offered = await self._store.write(
            lambda tx: cosigning.offer(tx, logs.FEDERATION, k=self._quorum(tx), now=now).size
        )
        for site, known in self._known.items():
            if known < offered:
                self._wake(SiteId(site))

    async def news(self, site: str) -> bool:
        """Whether a larger checkpoint is on offer than the site has seen."""
        known = self._known.get(site, 0)
        return await self._store.read(lambda tx: cosigning.offered_size(tx, logs.FEDERATION)) > known

    async def ours(self, site: str) -> tuple[str, ...]:
        """What goes along with an answer."""
        heads = await self._store.write(lambda tx: self._mine(tx, SiteId(site)))
        self._told.setdefault(site, deque([0], maxlen=LIVE)).append(heads.seen)
        return (canonical.encode(heads).decode(),)

    def _mine(self, tx: Connection, site: SiteId) -> HubHeads:
        k = self._quorum(tx)
        offered = cosigning.offer(tx, logs.FEDERATION, k=k, now=self._clock.now())
        known = self._known.get(site, 0)
        try:
            proof = logs.consistency(tx, logs.FEDERATION, known, offered.size) if 0 < known <= offered.size else None
        except (ProofInvalid, TileMissing):
            proof = None
        theirs = witness.seen(tx, self._key_of(tx, site).name)
        return HubHeads(
            note=offered.note,
            proof=proof,
            seen=0 if theirs is None else theirs.size,
            cosigned=cosigning.cosigned_note(tx, logs.FEDERATION, k) or "",
        )
