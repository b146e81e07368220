"""The logs' heads in every message: each side shows its own, proves that it grew, and says what it has seen of the other's.

The site remembers and cosigns the checkpoint of the federation log that is on offer; the hub remembers each site's. Whoever
finds a log inconsistent marks it durably. A site then takes no further part in any use; it goes on with stopping acts.
Source: C2SP tlog-witness, over the line instead of HTTP.
"""

import functools
from collections import deque
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from paroma.kernel import canonical
from paroma.kernel.clock import Clock
from paroma.kernel.errors import ParomaError
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import Store
from paroma.trust.audit import cosigning, log as logs, witness
from paroma.trust.audit.checkpoint import Checkpoint, LogInconsistent
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.notes import COSIGNATURE, NoteKey
from paroma.trust.audit.proofs import Consistency, ProofInvalid
from paroma.trust.audit.tiles import TileMissing
from paroma.trust.channel.messages import Shown, Taken

LIVE = 2  # requests of one site that may be under way at once: a reply may be to the older one
MOST_PROOFS = 64  # proofs of growth that are kept: every site is shown the same few steps
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
        self._shown = ""  # the newest note that was durably taken over
        self._line = ""
        self._line_at = 0.0  # monotonic
        self._seen: int | None = None  # size that is durably remembered of the federation log; None: the store knows
        self._proof: tuple[tuple[int, int, bytes], Consistency] | None = None  # of our own log's growth, as last shown
        self.cosigned = ""
        self.trouble: LogInconsistent | None = None

    def ours(self, tx: Connection) -> tuple[str, ...]:
        """What goes along with a request."""
        own = logs.checkpoint(tx, logs.SITE)
        known = self.hub_saw if self.hub_saw <= own.size else 0
        heads = SiteHeads(
            note=own.note,
            proof=self._growth(tx, known, own) if known else None,
            seen=self._remembered(tx) if (seen := self._seen) is None else seen,
            cosignature=self._line,
        )
        self._said.append(heads.seen)
        return (canonical.encode(heads).decode(),)

    def _growth(self, tx: Connection, known: int, own: Checkpoint) -> Consistency:
        """The proof that our log grew, from memory where the same was shown last."""
        place = (known, own.size, own.root)
        held = self._proof
        if held is not None and held[0] == place:
            return held[1]
        made = logs.consistency_held(tx, logs.SITE, known, own.size)
        self._proof = (place, made)
        return made

    def _remembered(self, tx: Connection) -> int:
        seen = witness.seen(tx, self._federation.name)
        return 0 if seen is None else seen.size

    async def theirs(self, heads: tuple[str, ...]) -> None:
        """Take in what came with a reply. An inconsistent federation log is marked, and kept in `trouble`."""
        if not heads:
            return
        said = canonical.decode_as(heads[0].encode(), HubHeads)
        self.hub_saw = said.seen
        if said.cosigned:
            self.cosigned = said.cosigned
        known = min(self._said)  # what this site itself said in the requests under way; the sender does not choose it
        young = self._line and self._clock.monotonic() - self._line_at < FRESH_SECONDS
        if self._shown == said.note and young:
            return
        remembered, self._seen = self._seen, None  # until it is known what the store says
        try:
            before, growth = await self._store.write(lambda tx: self._grow(tx, said, known, remembered))
            grown = growth.require()
        except LogInconsistent as problem:
            self.trouble, self._line, self._shown = problem, "", ""
            return
        except (witness.CheckpointOld, witness.ProofNeeded):
            return  # a late reply: the next request says what is remembered, and gets what fits
        self._line = grown.cosignature.line if grown.cosignature else ""
        self._line_at = self._clock.monotonic()
        self._shown = said.note
        self._seen = max(before, grown.checkpoint.size)
        if grown.checkpoint.size > before:
            self._news()

    def _grow(self, tx: Connection, said: HubHeads, known: int, remembered: int | None) -> tuple[int, witness.Growth]:
        """The size that was remembered before (0: none), and what became of the checkpoint."""
        before = self._remembered(tx) if remembered is None else remembered
        at = self._clock.now()
        growth = witness.grow(tx, self._federation, said.note, said.proof, known=known, at=at, cosigner=self._cosigner)
        return before, growth


class AtHub:
    """The hub's half, for all sites. What it keeps in memory is what requests said, and proofs, which never change."""

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
        in the transaction that took a cosignature in; returns the sites that have mail. wake: rings a site.
        """
        self._store = store
        self._key_of = key_of
        self._quorum = quorum
        self._covered = covered
        self._clock = clock
        self._wake = wake
        self._known: dict[SiteId, int] = {}  # size of the federation log that a site has seen
        self._told: dict[SiteId, tuple[int, ...]] = {}  # sizes of its own log that it was told lately
        self._last: dict[SiteId, tuple[str, str]] = {}  # what it showed last, and is durably taken in
        self._proofs: dict[tuple[int, int, bytes], Consistency] = {}

    def changed(self, site: SiteId, heads: tuple[str, ...]) -> bool:
        """Whether the site shows another head or cosignature than last time. Raises the forms' errors."""
        if not heads:
            return False
        said = _read(heads[0])
        self._known[site] = said.seen
        return self._last.get(site) != (said.note, said.cosignature)

    def theirs(self, tx: Connection, site: SiteId, heads: tuple[str, ...]) -> Taken:
        """Take in what a site shows. An inconsistent log is marked in this transaction: hence its trouble is returned."""
        said = _read(heads[0]) if heads else None
        if said is None or self._last.get(site) == (said.note, said.cosignature):
            return Taken()
        key = self._key_of(tx, site)
        trouble: ParomaError | None = None
        note, cosignature = self._last.get(site, ("", ""))
        if said.note != note:
            known = min(self._told.get(site, (0,)))
            try:
                witness.grow(tx, key, said.note, said.proof, known=known, at=self._clock.now()).require()
            except LogInconsistent as problem:
                trouble = problem
            except (witness.CheckpointOld, witness.ProofNeeded):
                pass  # it learns from this answer what is remembered
        if said.cosignature in {"", cosignature} or trouble is not None:
            return Taken(trouble=trouble)
        try:
            signature = cosigning.signature_of(said.cosignature)
            cosigning.take_in(tx, logs.FEDERATION, said.seen, signature, cosigning_key(key))
        except cosigning.CosignatureUnexpected:
            return Taken()  # over an offer that has given way to a newer one
        return Taken(rung=frozenset(self._covered(tx)), cosigned=True)

    def taken(self, site: SiteId, heads: tuple[str, ...]) -> None:
        """What the site showed is durable."""
        if heads:
            said = _read(heads[0])
            self._last[site] = (said.note, said.cosignature)

    def advance(self, tx: Connection) -> None:
        """Put the head on offer where the last offer is done or stale."""
        cosigning.offer(tx, logs.FEDERATION, k=self._quorum(tx), now=self._clock.now())

    async def advance_all(self) -> None:
        """`advance`, and ring the sites that have not seen what is on offer. For a job."""
        found = await self._store.read(self._on_offer)
        if found.due:
            await self._store.write(self.advance)
            found = await self._store.read(self._on_offer)
        for site, known in self._known.items():
            if known < found.checkpoint.size:
                self._wake(site)

    def news(self, tx: Connection, site: SiteId) -> bool:
        """Whether a larger checkpoint is on offer than the site has seen."""
        return cosigning.offered_size(tx, logs.FEDERATION) > self._known.get(site, 0)

    def ours(self, tx: Connection, site: SiteId) -> Shown:
        """What goes along with an answer."""
        k = self._quorum(tx)
        found = cosigning.on_offer(tx, logs.FEDERATION, k=k, now=self._clock.now())
        theirs = witness.seen(tx, self._key_of(tx, site).name)
        heads = HubHeads(
            note=found.checkpoint.note,
            proof=self._growth(tx, self._known.get(site, 0), found.checkpoint),
            seen=0 if theirs is None else theirs.size,
            cosigned=cosigning.cosigned_note(tx, logs.FEDERATION, k) or "",
        )
        return Shown(texts=(canonical.encode(heads).decode(),), seen=heads.seen, due=found.due)

    def sent(self, site: SiteId, shown: Shown) -> None:
        """The site is told now what the hub remembers of its log."""
        if shown.texts:
            self._told[site] = (*self._told.get(site, (0,)), shown.seen)[-LIVE:]

    def _on_offer(self, tx: Connection) -> cosigning.Offered:
        return cosigning.on_offer(tx, logs.FEDERATION, k=self._quorum(tx), now=self._clock.now())

    def _growth(self, tx: Connection, known: int, offered: Checkpoint) -> Consistency | None:
        if not 0 < known <= offered.size:
            return None
        place = (known, offered.size, offered.root)  # the root too: a log that was rolled back may have had another
        found = self._proofs.get(place)
        if found is None:
            try:
                found = logs.consistency(tx, logs.FEDERATION, known, offered.size)
            except (ProofInvalid, TileMissing):
                return None
            if len(self._proofs) >= MOST_PROOFS:
                self._proofs = {}
            self._proofs[place] = found
        return found


@functools.lru_cache(maxsize=64)
def _read(text: str) -> SiteHeads:
    return canonical.decode_as(text.encode(), SiteHeads)
