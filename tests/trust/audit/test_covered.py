"""An entry under a cosigned checkpoint: any byte changed, too few witnesses or too great an age, and it is worth nothing."""

import pytest

from paroma.kernel import canonical
from paroma.kernel.clock import SystemClock
from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit import cosigning, covered, entries, log as logs, tables
from paroma.trust.audit.cosignatures import Cosigner, QuorumMissing
from paroma.trust.audit.covered import Covered
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.audit.proofs import ProofInvalid
from paroma.trust.keys.log_keys import HeldLogKey

NAMES = ("one", "two", "three")


class Made:
    """A log of ten entries whose seventh is covered by two of three witnesses."""

    def __init__(self, store) -> None:
        tables.METADATA.create_all(store.engine)
        self.clock = SystemClock()
        self.signer = CheckpointSigner("hub.test/federation", HeldLogKey.fresh(SeededRandomness(1, "hub")))
        witnesses = {name: Cosigner(name, HeldLogKey.fresh(SeededRandomness(1, name))) for name in NAMES}
        self.keys = {name: witness.public for name, witness in witnesses.items()}
        journal = Journal(name=logs.FEDERATION, signer=self.signer, clock=self.clock)

        def build(tx):
            logs.begin(tx, logs.FEDERATION, self.signer)
            for place in range(10):
                journal.write_sealed(tx, entries.seal("note", 1.0, {"place": place}))
            self.none = covered.cover(tx, logs.FEDERATION, 6, 2)
            head = cosigning.offer(tx, logs.FEDERATION, k=2, now=self.clock.now())
            for name in NAMES[:2]:
                text = head.note.split("\n\n")[0] + "\n"
                signature = witnesses[name].cosign(text, self.clock.now())
                cosigning.take_in(tx, logs.FEDERATION, head.size, signature, self.keys[name])
            self.beyond = covered.cover(tx, logs.FEDERATION, 10, 2)
            return covered.cover(tx, logs.FEDERATION, 6, 2)

        self.text = store.write_now(build)
        self.entry = entries.seal("note", 1.0, {"place": 6})

    def check(self, text: str | None = None, entry: bytes | None = None, k: int = 2, later: float = 0.0):
        now = self.clock.now() + later
        return covered.check(text or self.text, entry or self.entry, self.signer.public, self.keys, k, now=now)


@pytest.fixture
def made(store):
    return Made(store)


@pytest.mark.promise(4)
def test_an_entry_is_covered_once_enough_have_cosigned_a_head_that_holds_it(made):
    assert made.none is None
    assert made.beyond is None
    assert made.check().size == 10


@pytest.mark.promise(4)
def test_another_entry_too_few_witnesses_or_an_old_cosignature_is_refused(made):
    with pytest.raises(ProofInvalid):
        made.check(entry=entries.seal("note", 1.0, {"place": 7}))
    with pytest.raises(QuorumMissing):
        made.check(k=3)
    with pytest.raises(QuorumMissing):
        made.check(later=61.0)


@pytest.mark.promise(4)
def test_no_changed_byte_is_taken(made):
    for place in range(0, len(made.text), 3):
        changed = made.text[:place] + chr(ord(made.text[place]) ^ 1) + made.text[place + 1 :]
        try:
            made.check(text=changed)
        except ParomaError:
            continue
        said, was = (canonical.decode_as(t.encode(), Covered) for t in (changed, made.text))
        assert said.inclusion == was.inclusion, place  # a third line that nobody asks for may change, and nothing else


def test_the_proof_must_be_for_the_size_of_the_checkpoint(made):
    import msgspec

    said = canonical.decode_as(made.text.encode(), Covered)
    other = msgspec.structs.replace(said, inclusion=msgspec.structs.replace(said.inclusion, size=9))
    with pytest.raises(ProofInvalid):
        made.check(text=canonical.encode(other).decode())
