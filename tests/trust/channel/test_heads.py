"""The logs' heads over the line: growth is proven, a rewritten log is marked, and who has not seen an offer is rung."""

import asyncio

import pytest

from paroma.kernel import canonical
from paroma.kernel.clock import SystemClock
from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit import log as logs, tables as audit_tables, witness
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.channel.heads import AtHub, AtSite, HubHeads
from paroma.trust.keys.log_keys import HeldLogKey


class Pair:
    """A hub's and a site's half over two stores."""

    def __init__(self, new_store) -> None:
        self.hub_store, self.site_store = new_store("hub"), new_store("site")
        for store in (self.hub_store, self.site_store):
            audit_tables.METADATA.create_all(store.engine)
        clock = SystemClock()
        hub_key, site_key = (HeldLogKey.fresh(SeededRandomness(1, name)) for name in ("hub", "site"))
        self.hub_signer = CheckpointSigner("hub.test/federation", hub_key)
        self.site_signer = CheckpointSigner("paroma.site/one", site_key)
        self.hub_log = Journal(name=logs.FEDERATION, signer=self.hub_signer, clock=clock)
        self.site_log = Journal(name=logs.SITE, signer=self.site_signer, clock=clock)
        self.hub_store.write_now(lambda tx: logs.begin(tx, logs.FEDERATION, self.hub_signer))
        self.site_store.write_now(lambda tx: logs.begin(tx, logs.SITE, self.site_signer))
        self.rung: list[str] = []
        self.news = 0
        self.hub = AtHub(
            self.hub_store,
            key_of=lambda _tx, _site: self.site_signer.public,
            quorum=lambda _tx: 1,
            covered=lambda _tx: (),
            clock=clock,
            wake=self.rung.append,
        )
        self.site = AtSite(
            self.site_store,
            federation=self.hub_signer.public,
            cosigner=Cosigner("paroma.site/one", site_key),
            clock=clock,
            news=self._news,
        )

    def _news(self) -> None:
        self.news += 1

    async def exchange(self) -> None:
        said = self.site_store.read_now(self.site.ours)
        self.hub.changed("one", said)

        def take(tx):
            taken = self.hub.theirs(tx, "one", said)
            self.hub.advance(tx)
            return taken, self.hub.ours(tx, "one")

        taken, shown = self.hub_store.write_now(take)
        if taken.trouble is not None:
            raise taken.trouble
        self.hub.taken("one", said)
        self.hub.sent("one", shown)
        await self.site.theirs(shown.texts)

    def grow_hub(self) -> None:
        self.hub_store.write_now(lambda tx: self.hub_log.write(tx, "note", what="something"))

    def grow_site(self) -> None:
        self.site_store.write_now(lambda tx: self.site_log.write(tx, "note", what="something"))


@pytest.fixture
def pair(new_store):
    return Pair(new_store)


@pytest.mark.promise(4)
def test_each_side_remembers_the_others_log_and_a_quorum_of_one_cosigns_it(pair):
    async def scene():
        for _ in range(3):
            pair.grow_hub()
            pair.grow_site()
            await pair.exchange()
            await pair.exchange()

    asyncio.run(scene())
    size = pair.hub_store.read_now(lambda tx: logs.checkpoint(tx, logs.FEDERATION)).size
    seen = pair.site_store.read_now(lambda tx: witness.seen(tx, pair.hub_signer.origin))
    assert seen.size == size == 3
    assert pair.site.hub_saw == 3
    assert pair.site.cosigned.count("— ") == 2
    assert pair.news == 3


@pytest.mark.promise(4)
def test_a_shorter_or_rewritten_federation_log_is_marked_and_stays_marked(pair, new_store):
    async def scene():
        pair.grow_hub()
        pair.grow_hub()
        await pair.exchange()
        other = Pair(lambda name: new_store(f"other_{name}"))
        for _ in range(3):
            other.grow_hub()
        heads = other.hub_store.read_now(lambda tx: other.hub.ours(tx, "one")).texts
        said = canonical.decode_as(heads[0].encode(), HubHeads)
        assert said.note
        await pair.site.theirs(heads)  # without a proof it is only not taken over
        after = pair.site_store.read_now(lambda tx: witness.seen(tx, pair.hub_signer.origin))
        assert after.size == 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    "heads", [("",), ("{}",), ("[" * 5000,), ('{"note":"x","proof":null,"seen":-1,"cosigned":""}',)]
)
def test_heads_that_cannot_be_read_are_refused_and_remembered_nowhere(pair, heads):
    async def scene():
        with pytest.raises(ParomaError):
            await pair.site.theirs(heads)
        with pytest.raises(BadInput):
            pair.hub.changed("one", ("{}",))

    asyncio.run(scene())
    assert pair.site_store.read_now(lambda tx: witness.seen(tx, pair.hub_signer.origin)) is None
    assert pair.site.cosigned == ""


@pytest.mark.promise(5)
def test_a_site_that_waits_is_rung_when_the_log_has_grown(pair):
    async def scene():
        pair.grow_hub()
        await pair.exchange()
        await pair.exchange()
        await pair.hub.advance_all()
        assert pair.rung == []
        assert not pair.hub_store.read_now(lambda tx: pair.hub.news(tx, "one"))
        pair.grow_hub()
        await pair.hub.advance_all()
        assert pair.rung == ["one"]
        assert pair.hub_store.read_now(lambda tx: pair.hub.news(tx, "one"))

    asyncio.run(scene())
