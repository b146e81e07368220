import pytest
from sqlalchemy import select

from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit import checkpoint as checkpoints, log as logs, tables
from paroma.trust.audit.checkpoint import LogInconsistent
from paroma.trust.audit.cosignatures import check_cosignature, cosigned, keys_of
from paroma.trust.audit.cosigning import (
    HOLD,
    KEPT,
    RENEW,
    CosignatureUnexpected,
    cosigned_note,
    offer,
    signature_of,
    take_in,
)
from paroma.trust.audit.log import FEDERATION
from paroma.trust.audit.merkle import root_of
from paroma.trust.audit.notes import CheckpointSigner, NoteInvalid, NoteUnsigned
from paroma.trust.audit.proofs import Consistency
from paroma.trust.audit.witness import CheckpointOld, ProofNeeded, grow, require_sound, seen, trouble
from paroma.trust.keys.log_keys import HeldLogKey


class Hub:
    """The keeper of a log."""

    def __init__(self, store, signer):
        self.store, self.signer = store, signer

    def add(self, *entries):
        self.store.write_now(lambda tx: logs.append(tx, FEDERATION, list(entries), self.signer))
        return self.head()

    def head(self):
        return self.store.read_now(lambda tx: logs.checkpoint(tx, FEDERATION))

    def proof(self, old, new):
        return self.store.read_now(lambda tx: logs.consistency(tx, FEDERATION, old, new))


class Site:
    """A witness of it."""

    def __init__(self, store, hub, cosigner):
        self.store, self.key, self.cosigner = store, hub.signer.public, cosigner

    def remembered(self):
        return self.store.read_now(lambda tx: seen(tx, self.key.name))

    def take(self, head, proof=None, *, known=0, at=1000.0):
        return self.store.write_now(
            lambda tx: grow(tx, self.key, head.note, proof, known=known, at=at, cosigner=self.cosigner)
        ).require()

    def ask(self, hub, at=1000.0):
        """One request that says how much is remembered, and its answer."""
        last = self.remembered()
        head = hub.head()
        known = last.size if last else 0
        proof = hub.proof(known, head.size) if known <= head.size else None
        return self.take(head, proof, known=known, at=at)


@pytest.fixture
def hub(make_store, signer):
    return Hub(make_store("hub"), signer)


@pytest.fixture
def site(make_store, hub, cosigners):
    return Site(make_store("site"), hub, cosigners["a"])


@pytest.fixture
def fork(make_store, signer):
    """The same hub's other face: same key, other entries."""
    return Hub(make_store("fork"), signer)


@pytest.mark.promise(4)
def test_consistent_growth_is_remembered_and_cosigned(hub, site, make_store):
    for step in range(1, 6):
        hub.add(*(b"%d" % number for number in range(step * 40)))
        grown = site.ask(hub, at=1000.0 + step)
        assert check_cosignature(grown.checkpoint.body, grown.cosignature, site.cosigner.public) == 1000 + step
        assert site.remembered() == grown.checkpoint == hub.head()
    again = site.ask(hub, at=2000.0)  # the same head, cosigned afresh
    assert check_cosignature(again.checkpoint.body, again.cosignature, site.cosigner.public) == 2000
    site.store.read_now(lambda tx: require_sound(tx, [hub.signer.origin, "another/log"]))


def refused_for_good(site, hub, what, *, make_store):
    """A log once found inconsistent stays so: over honest answers, and over a restart."""
    origin = hub.signer.origin
    restarted = Site(make_store("site"), hub, site.cosigner)
    for witness in (site, restarted):
        with pytest.raises(LogInconsistent, match=what):
            witness.store.read_now(lambda tx: require_sound(tx, [origin]))
        with pytest.raises(LogInconsistent, match=what):
            witness.take(hub.head())
        assert witness.store.read_now(lambda tx: trouble(tx, origin)).origin == origin


@pytest.mark.promise(4)
def test_a_split_view_of_the_same_size_is_seen(hub, fork, site, make_store):
    hub.add(b"a", b"b")
    fork.add(b"a", b"else")
    site.ask(hub)
    with pytest.raises(LogInconsistent, match="two different heads of size 2"):
        site.take(fork.head())
    assert site.remembered() == hub.head()
    refused_for_good(site, hub, "two different heads", make_store=make_store)


@pytest.mark.promise(4)
def test_a_rewritten_past_is_seen_however_the_log_grew(hub, fork, site, make_store):
    hub.add(b"a", b"b", b"c")
    fork.add(b"a", b"else", b"c", b"d", b"e")
    site.ask(hub)
    with pytest.raises(LogInconsistent, match="do not continue"):
        site.ask(fork)
    refused_for_good(site, hub, "do not continue", make_store=make_store)


@pytest.mark.promise(4)
def test_a_hub_that_went_back_is_seen_in_its_next_answer(hub, fork, site, make_store):
    hub.add(b"a", b"b", b"c")
    fork.add(b"a", b"b")  # the hub's disk, restored from a backup
    site.ask(hub)
    with pytest.raises(LogInconsistent, match="went back from 3 entries to 2"):
        site.ask(fork)
    refused_for_good(site, hub, "went back", make_store=make_store)


@pytest.mark.promise(5)
def test_a_late_message_changes_nothing_and_breaks_nothing(hub, site):
    first = hub.add(b"a", b"b")
    site.take(first)
    second = hub.add(b"c")
    site.ask(hub)
    with pytest.raises(CheckpointOld):
        site.take(first, known=0)
    third = hub.add(b"d")
    with pytest.raises(ProofNeeded) as caught:
        site.take(third, hub.proof(2, 4), known=2)  # proved from what was remembered when it was asked for
    assert caught.value.size == second.size == 3
    with pytest.raises(ProofNeeded):
        site.take(third)
    assert site.remembered() == second
    site.ask(hub)
    assert site.remembered() == third


@pytest.mark.promise(5)
def test_bytes_that_the_log_did_not_sign_cannot_stop_it(hub, site):
    hub.add(b"a")
    site.ask(hub)
    stranger = CheckpointSigner(hub.signer.origin, HeldLogKey.fresh(SeededRandomness(50)))
    forged = checkpoints.sign(1, root_of([b"x"]), stranger)
    with pytest.raises(NoteUnsigned):
        site.take(forged)
    with pytest.raises(NoteInvalid):
        site.store.write_now(lambda tx: grow(tx, site.key, "garbage", None, known=0, at=1.0))
    hub.add(b"b")
    assert site.ask(hub).checkpoint.size == 2


@pytest.mark.promise(4)
def test_a_proof_for_other_sizes_or_with_a_changed_hash_is_not_enough(hub, site):
    hub.add(b"a", b"b", b"c")
    site.ask(hub)
    head = hub.add(b"d", b"e")
    true = hub.proof(3, 5)
    for proof in (Consistency(old=2, new=5, hashes=true.hashes), Consistency(old=3, new=4, hashes=true.hashes), None):
        with pytest.raises(ProofNeeded):
            site.take(head, proof)
    with pytest.raises(LogInconsistent):
        site.take(head, Consistency(old=3, new=5, hashes=(bytes(32), *true.hashes[1:])))


@pytest.mark.promise(4)
def test_the_mark_outlives_the_error_that_tells_of_it(hub, fork, site):
    """The trouble comes out of the transaction as a value: raised inside, it would take its own mark back."""
    hub.add(b"a")
    fork.add(b"x")
    site.ask(hub)
    growth = site.store.write_now(lambda tx: grow(tx, site.key, fork.head().note, None, known=1, at=5.0))
    assert site.store.read_now(lambda tx: trouble(tx, hub.signer.origin)) is not None
    with pytest.raises(LogInconsistent):
        growth.require()


@pytest.mark.promise(4)
def test_a_log_may_begin_empty(hub, site):
    hub.store.write_now(lambda tx: logs.begin(tx, FEDERATION, hub.signer))
    assert site.ask(hub).checkpoint.size == 0
    hub.add(b"a", b"b")
    assert site.ask(hub).checkpoint.size == 2


# gathering a quorum


@pytest.fixture
def sites(make_store, hub, cosigners):
    return {name: Site(make_store(f"site{name}"), hub, cosigner) for name, cosigner in cosigners.items()}


def offered(hub, k=3, now=1000.0):
    return hub.store.write_now(lambda tx: offer(tx, FEDERATION, k=k, now=now))


def cosign(hub, site, head, at=1000.0):
    last = site.remembered()
    proof = hub.proof(last.size, head.size) if last else None
    grown = site.take(head, proof, at=at)
    line = grown.cosignature.line
    hub.store.write_now(lambda tx: take_in(tx, FEDERATION, head.size, signature_of(line), site.cosigner.public))


def quorum_note(hub, k=3):
    return hub.store.read_now(lambda tx: cosigned_note(tx, FEDERATION, k))


@pytest.mark.promise(4)
def test_a_busy_log_still_gathers_a_quorum_on_one_checkpoint(hub, sites, witnesses):
    hub.add(b"0")
    head = offered(hub)
    for number, site in enumerate(list(sites.values())[:3]):
        assert quorum_note(hub) is None
        hub.add(b"more")
        assert offered(hub, now=1000.0 + number) == head
        cosign(hub, site, head)
    note = quorum_note(hub)
    assert cosigned(note, witnesses, 3, now=1010) == ("a", "b", "c")
    assert checkpoints.read(note, hub.signer.public).size == 1
    newer = offered(hub, now=1004.0)  # done, so the head is next; the old one serves until that is done too
    assert newer == hub.head()
    assert quorum_note(hub) == note
    for site in list(sites.values())[1:]:
        cosign(hub, site, newer, at=1005.0)
    assert checkpoints.read(quorum_note(hub), hub.signer.public).size == newer.size
    assert cosigned(quorum_note(hub), witnesses, 3, now=1060) == ("b", "c", "d")


@pytest.mark.promise(5)
def test_an_offer_that_waits_too_long_gives_way_and_a_quiet_log_is_renewed(hub, sites):
    hub.add(b"0")
    first = offered(hub)
    hub.add(b"1")
    assert offered(hub, now=1000 + HOLD - 1) == first
    second = offered(hub, now=1000 + HOLD)
    assert second == hub.head()
    for site in sites.values():
        cosign(hub, site, second, at=1010.0)
    assert offered(hub, now=1010.0) == second
    assert offered(hub, now=1010.0 + RENEW) == second
    for site in sites.values():
        cosign(hub, site, second, at=1050.0)
        cosign(hub, site, second, at=1040.0)  # a late one does not make it older
    assert cosigned(quorum_note(hub), {name: site.cosigner.public for name, site in sites.items()}, 4, now=1105)


def test_offers_that_nobody_signs_do_not_pile_up(hub, sites, witnesses):
    hub.add(b"0")
    for site in sites.values():
        cosign(hub, site, offered(hub))
    for step in range(1, 30):
        hub.add(b"%d" % step)
        offered(hub, now=1000.0 + step * HOLD)
    rows = hub.store.read_now(lambda tx: tx.execute(select(tables.OFFERS.c.size)).scalars().all())
    assert len(rows) == KEPT + 1
    assert cosigned(quorum_note(hub), witnesses, 4) == ("a", "b", "c", "d")


@pytest.mark.promise(4)
def test_only_cosignatures_over_what_was_offered_are_kept(hub, sites, cosigners):
    hub.add(b"0")
    head = offered(hub)
    other = checkpoints.sign(1, root_of([b"x"]), hub.signer)
    for body, key, size, error in (
        (other.body, cosigners["a"].public, 1, NoteUnsigned),
        (head.body, cosigners["b"].public, 1, NoteUnsigned),
        (head.body, cosigners["a"].public, 2, CosignatureUnexpected),
    ):
        line = cosigners["a"].cosign(body, 1000.0)
        with pytest.raises(error):
            hub.store.write_now(lambda tx, size=size, line=line, key=key: take_in(tx, FEDERATION, size, line, key))
    assert quorum_note(hub, 1) is None
    for line in ("", "x", "\u2014 a b\n\u2014 a b\n"):
        with pytest.raises(ParomaError):
            signature_of(line)


def test_participants_keys_are_read_from_their_texts(cosigners, witnesses):
    assert keys_of({name: cosigner.vkey for name, cosigner in cosigners.items()}) == witnesses
