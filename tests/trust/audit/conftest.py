import pytest

from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit import log as logs, tables
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.keys.log_keys import HeldLogKey


@pytest.fixture(scope="session")
def signer():
    return CheckpointSigner("hub.example/federation", HeldLogKey.fresh(SeededRandomness(1, "log")))


@pytest.fixture(scope="session")
def cosigners():
    return {name: Cosigner(f"{name}.example/w", HeldLogKey.fresh(SeededRandomness(2, name))) for name in "abcd"}


@pytest.fixture(scope="session")
def witnesses(cosigners):
    return {name: cosigner.public for name, cosigner in cosigners.items()}


@pytest.fixture
def make_store(new_store):
    """`new_store` with this room's tables."""

    def make(name="main", **arguments):
        store = new_store(name, **arguments)
        tables.METADATA.create_all(store.engine)
        return store

    return make


@pytest.fixture
def db(make_store):
    return make_store()


class Copy:
    """A whole log as files in a mapping, so that a test can change a byte of it."""

    def __init__(self, store, log=logs.FEDERATION):
        from paroma.trust.audit.tiles import CHECKPOINT, needed

        def read(tx):
            head = logs.checkpoint(tx, log)
            self.head = head
            return {where.path: logs.serve(tx, log, where.path) for where in needed(0, head.size)} | {
                CHECKPOINT: head.note.encode()
            }

        self.files = store.read_now(read)

    def __call__(self, path):
        from paroma.trust.audit.tiles import TileMissing

        if path not in self.files:
            raise TileMissing(f"no {path}", do="none")
        return self.files[path]


@pytest.fixture
def copy():
    return Copy
