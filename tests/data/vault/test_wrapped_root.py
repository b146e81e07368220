"""The vault's root key, wrapped: what lies on the replicas, how keys follow one another, what a key that is away costs."""

import pytest

from paroma.data.vault.errors import RootWrapped, VaultDamaged, VaultUnavailable
from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness
from paroma.trust.keys.errors import KeyAway
from paroma.trust.keys.named import Homes

RECORDS = [("p1", b"one"), ("p2", b"two")]
HOMES = Homes(environ={}, disk=SystemDisk(), randomness=OsRandomness())


class Leaving:
    """A wrapping key that can be taken away."""

    def __init__(self, key):
        self._key, self.here = key, True

    @property
    def uri(self):
        return self._key.uri

    def _there(self):
        if not self.here:
            raise KeyAway("the token is not there", do="plug it in")
        return self._key

    def wrap(self, secret, purpose):
        return self._there().wrap(secret, purpose)

    def unwrap(self, wrapped, purpose):
        return self._there().unwrap(wrapped, purpose)


@pytest.fixture
def key(tmp_path):
    """Makes wrapping keys in files: `key("a")`."""
    return lambda name: HOMES.make_wrapping(f"file:{tmp_path / name}.key")


def on_replicas(tmp_path):
    return [path.read_bytes() for n in (1, 2) for path in (tmp_path / f"vault-replica-{n}").iterdir()]


def test_a_wrapped_root_opens_the_vault_again_and_lies_nowhere_as_it_is(open_at, key, tmp_path):
    one = key("one")
    vault = open_at(keys=[one])
    vault.put(RECORDS)
    root = vault._ready().root.key
    vault.close()
    assert all(root not in content for content in on_replicas(tmp_path))
    before = on_replicas(tmp_path)
    vault = open_at(keys=[one])
    assert vault.read("p2") == b"two"
    assert on_replicas(tmp_path) == before  # opening writes nothing that is right already


def test_a_vault_that_was_not_wrapped_is_from_the_next_opening_on(open_at, key, tmp_path):
    vault = open_at()
    vault.put(RECORDS)
    root = vault._ready().root.key
    vault.close()
    assert all(root in content for content in on_replicas(tmp_path))
    vault = open_at(keys=[key("one")])
    assert vault.read("p1") == b"one"
    assert all(root not in content for content in on_replicas(tmp_path))


def test_a_new_key_takes_over_beside_the_old_one_which_can_then_be_destroyed(open_at, key, tmp_path):
    old, new = key("old"), key("new")
    vault = open_at(keys=[old])
    vault.put(RECORDS)
    vault.close()
    open_at(keys=[new, old]).close()
    old.destroy()
    vault = open_at(keys=[new])
    assert vault.read("p1") == b"one"


@pytest.mark.promise(2)
def test_an_erasure_wraps_a_new_root(open_at, key):
    one = key("one")
    vault = open_at(keys=[one])
    vault.put(RECORDS)
    assert vault.erase(["p1"]).epoch == 2
    vault.close()
    vault = open_at(keys=[one])
    assert list(vault.patients()) == ["p2"]


def test_without_the_key_that_wrapped_it_the_vault_says_what_to_name(open_at, key):
    open_at(keys=[key("one")]).close()
    for keys in ((), (key("other"),)):
        with pytest.raises(RootWrapped) as caught:
            open_at(keys=keys)
        assert "root_keys" in str(caught.value)


def test_a_root_of_one_epoch_is_not_taken_for_that_of_another(open_at, key, tmp_path):
    one = key("one")
    vault = open_at(keys=[one])
    vault.put(RECORDS)
    before = on_replicas(tmp_path)[0]
    vault.erase(["p1"])
    vault.close()
    for n in (1, 2):
        (tmp_path / f"vault-replica-{n}" / "root-00000002.key").write_bytes(before)
    with pytest.raises(VaultDamaged):
        open_at(keys=[one])


def test_an_erasure_without_the_key_is_not_acknowledged_and_can_be_repeated(open_at, key):
    one = Leaving(key("one"))
    vault = open_at(keys=[one])
    vault.put(RECORDS)
    one.here = False
    with pytest.raises(VaultUnavailable):
        vault.erase(["p1"])
    one.here = True
    assert "p2" in vault
    vault.erase(["p1"])
    assert "p1" not in vault
    vault.close()
    assert list(open_at(keys=[one]).patients()) == ["p2"]


def test_a_vault_whose_key_is_away_does_not_open_and_opens_when_it_is_back(open_at, key):
    one = Leaving(key("one"))
    vault = open_at(keys=[one])
    vault.put(RECORDS)
    vault.close()
    one.here = False
    with pytest.raises(KeyAway):
        open_at(keys=[one])
    one.here = True
    assert open_at(keys=[one]).read("p1") == b"one"
