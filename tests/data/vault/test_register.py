import pytest

from paroma.data.vault.errors import RegisterMoved, RegisterOutdated, VaultDamaged, VaultUnavailable
from paroma.kernel.errors import BadInput


def test_a_register_begins_empty_and_every_swap_makes_it_older_by_one(open_at):
    register = open_at().register("budget")
    assert register.read() == (0, b"")
    assert register.swap(0, b"first") == 1
    assert register.swap(1, b"second") == 2
    assert register.read() == (2, b"second")


def test_two_that_read_the_same_epoch_cannot_both_write(open_at):
    vault = open_at()
    one, two = vault.register("budget"), vault.register("budget")
    one.swap(0, b"one")
    with pytest.raises(RegisterMoved):
        two.swap(0, b"two")
    assert two.read() == (1, b"one")


def test_a_register_by_value_compares_bytes(open_at):
    register = open_at().register("budget")
    value = register.by_value()
    assert value.read() is None
    value.swap(None, b"")
    assert value.read() == b""
    value.swap(b"", b"one")
    for old in (None, b"", b"two"):
        with pytest.raises(RegisterMoved):
            value.swap(old, b"three")
    assert register.read() == (2, b"one")


@pytest.mark.promise(1)
def test_a_restored_older_budget_is_refused(open_at, tmp_path):
    vault = open_at()
    register = vault.register("budget")
    register.swap(0, b"epsilon 3 left")
    (path,) = (tmp_path / "vault").glob("register-*")
    old = path.read_bytes()
    register.swap(1, b"epsilon 0 left")
    vault.erase([])
    path.write_bytes(old)
    assert vault.register("budget", anchored=1).read() == (
        1,
        b"epsilon 3 left",
    )  # the control: without the anchor it opens
    with pytest.raises(RegisterOutdated):
        vault.register("budget", anchored=2)
    path.unlink()
    with pytest.raises(RegisterOutdated):
        vault.register("budget", anchored=1)


@pytest.mark.promise(1)
def test_a_register_survives_an_erasure_and_an_opening(open_at):
    vault = open_at()
    vault.put([("p", b"x")])
    vault.register("budget").swap(0, b"value")
    vault.erase(["p"])
    vault.close()
    assert open_at().register("budget", anchored=1).read() == (1, b"value")


def test_changed_bytes_and_a_forged_epoch_are_noticed(open_at, tmp_path):
    vault = open_at()
    vault.register("budget").swap(0, b"value")
    (path,) = (tmp_path / "vault").glob("register-*")
    good = path.read_bytes()
    for place in (7, 12, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 2]) + good[place + 1 :])
        with pytest.raises(VaultDamaged):
            vault.register("budget")
    path.write_bytes(good)
    path.rename(path.with_name("register-other.sealed"))
    with pytest.raises(VaultDamaged):
        vault.register("other")


@pytest.mark.parametrize(("how", "stands"), [("nothing", False), ("left", True)])
def test_a_swap_that_fails_stands_or_not_and_reading_again_tells(open_at, faulty_disk, how, stands):
    register = open_at(disk=faulty_disk).register("budget")
    register.swap(0, b"first")
    faulty_disk.arm(1, how)
    with pytest.raises(VaultUnavailable):
        register.swap(1, b"second")
    assert register.read() == ((2, b"second") if stands else (1, b"first"))


@pytest.mark.parametrize("name", ["../x", "", "A", "a" * 65, "a/b"])
def test_a_register_has_a_plain_name(open_at, name):
    with pytest.raises(BadInput):
        open_at().register(name)
