import os
import shutil
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from paroma.data.vault.errors import (
    ErasedBefore,
    PatientUnknown,
    VaultDamaged,
    VaultInUse,
    VaultLocked,
    VaultOutdated,
    VaultUnavailable,
)
from paroma.data.vault.vault import _seal, _unseal, open_vault
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import OsRandomness, SeededRandomness

FIRST = [(f"p{i}", b"record %d " % i * 20) for i in range(40)]


def contents(vault):
    return dict(vault.read_all(vault.patients()))


def test_what_is_put_is_read_also_after_opening_again(open_at):
    vault = open_at()
    assert vault.put(FIRST).written == tuple(p for p, _ in FIRST)
    assert vault.read("p7") == dict(FIRST)["p7"]
    vault.close()
    again = open_at()
    assert contents(again) == dict(FIRST)
    assert again.patients() == tuple(p for p, _ in FIRST)


def test_putting_the_same_bytes_again_writes_nothing(open_at, faulty_disk):
    vault = open_at(disk=faulty_disk)
    vault.put(FIRST)
    before = faulty_disk.count
    assert vault.put(FIRST).unchanged == 40
    assert faulty_disk.count == before
    assert vault.version("p3") == 1
    assert vault.put([("p3", b"new")]).written == ("p3",)
    assert vault.version("p3") == 2
    assert vault.read("p3") == b"new"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.binary(max_size=200), st.booleans()), max_size=12))
def test_the_vault_behaves_as_a_dictionary_whatever_is_done_in_whichever_order(acts):
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        randomness = SeededRandomness(1)

        def opened():
            return open_vault(where / "v", [where / "r1", where / "r2"], SystemDisk(), randomness)

        vault, model = opened(), {}
        for patient, content, erases in acts:
            if erases:
                vault.erase([patient])
                model.pop(patient, None)
            else:
                vault.put([(patient, content)], readmit=[patient])
                model[patient] = content
            assert contents(vault) == model
        vault.close()
        vault = opened()
        assert contents(vault) == model
        vault.close()


def test_more_patients_than_one_page_and_one_segment_hold(open_at):
    vault = open_at()
    many = [(f"patient-{i}", os.urandom(8) * 40) for i in range(2500)]
    vault.put(many)
    vault.erase(["patient-1024"])
    vault.close()
    vault = open_at()
    expected = dict(many)
    del expected["patient-1024"]
    assert contents(vault) == expected
    assert vault.unwrapped() == 3 * 1024


# -- promise 2 and 4: what is erased stays erased


@pytest.mark.promise(2)
def test_a_backup_from_before_an_erasure_does_not_open(open_at, tmp_path):
    vault = open_at()
    vault.put(FIRST)
    vault.close()
    shutil.copytree(tmp_path / "vault", tmp_path / "backup")
    shutil.rmtree(tmp_path / "vault")
    shutil.copytree(tmp_path / "backup", tmp_path / "vault")
    control = open_at()  # before the erasure the backup is good
    assert control.read("p1") == dict(FIRST)["p1"]
    erasure = control.erase(["p1"])
    assert (erasure.epoch, erasure.replicas, erasure.patients) == (2, 2, ("p1",))
    with pytest.raises(PatientUnknown):
        control.read("p1")
    assert control.read("p2") == dict(FIRST)["p2"]
    control.close()
    shutil.rmtree(tmp_path / "vault")
    shutil.copytree(tmp_path / "backup", tmp_path / "vault")
    with pytest.raises(VaultOutdated):
        open_at()


@pytest.mark.promise(2)
def test_after_an_erasure_no_file_holds_the_old_root(open_at, tmp_path):
    vault = open_at()
    vault.put(FIRST)
    (old,) = {path.read_bytes()[-64:-32] for path in tmp_path.glob("vault-replica-*/root-*.key")}
    (tmp_path / "vault-replica-1" / "root-00000009.key.new").write_bytes(old)  # left by a write that was cut short
    vault.erase(["p1"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and old in path.read_bytes()]


def test_the_records_lie_encrypted_on_the_disk(open_at, tmp_path):
    vault = open_at()
    vault.put([("p", os.urandom(4) + b"canary-of-this-test"), ("q", b"canary-of-this-test" * 30)])
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"canary-of-this-test" in p.read_bytes()]


@pytest.mark.promise(2)
def test_erased_records_come_back_only_when_the_patient_is_named_for_it(open_at):
    vault = open_at()
    vault.put(FIRST)
    tag = vault.erase(["p1"]).tags[0]
    assert vault.was_erased("p1")
    with pytest.raises(ErasedBefore):
        vault.put([("new", b"x"), ("p1", b"back")])
    assert "new" not in vault
    vault.put([("p1", b"back")], readmit=["p1"])
    assert vault.read("p1") == b"back"
    assert not vault.was_erased("p1")
    assert vault.erasure_tag("p1") == tag


@pytest.mark.promise(2)
def test_erasures_of_the_log_are_replayed_on_a_restored_vault(open_at, tmp_path):
    vault = open_at()
    vault.put(FIRST)
    tag = vault.erasure_tag("p5")
    vault.close()
    restored = open_at()  # a standby that had not followed yet
    assert restored.replay([tag, "00" * 16]).patients == ("p5",)
    assert "p5" not in restored


# -- faults: each durable write, failing in both ways, and the process killed there

LATER = [("later", b"later")]
ACTS = {
    "put new": lambda v: v.put([("p1", b"changed"), ("fresh", b"fresh")]),
    "erase": lambda v: v.erase(["p1", "p2"]),
}
AFTER = {
    "put new": dict(FIRST) | {"p1": b"changed", "fresh": b"fresh"},
    "erase": {p: c for p, c in FIRST if p not in {"p1", "p2"}},
}


@pytest.mark.parametrize("how", ["nothing", "left"])
@pytest.mark.parametrize("act", ACTS)
def test_whichever_write_fails_the_vault_is_as_before_or_as_after(open_at, faulty_disk, act, how):
    n, finished = 0, False
    while not finished:
        n += 1
        name = f"v{n}"
        faulty_disk.arm(0, how)
        vault = open_at(name, disk=faulty_disk)
        vault.put(FIRST)
        faulty_disk.arm(n, how)
        try:
            ACTS[act](vault)
        except VaultUnavailable:
            faulty_disk.arm(0, how)
            assert contents(vault) in (dict(FIRST), AFTER[act])
            vault.put(LATER)  # an acknowledged write after a failed one is kept
            vault.close()
            vault = open_at(name)
            assert contents(vault) in (dict(FIRST) | dict(LATER), AFTER[act] | dict(LATER))
            ACTS[act](vault)  # repeating is safe
        else:
            assert faulty_disk.count < n, "a failed write was swallowed"
            finished = True
            faulty_disk.arm(0, how)
            vault.put(LATER)
        assert contents(vault) == AFTER[act] | dict(LATER)
        vault.close()
        vault = open_at(name)
        assert contents(vault) == AFTER[act] | dict(LATER)
        vault.close()
    assert n > 3


@pytest.mark.parametrize("how", ["kill", "kill-left"])
@pytest.mark.parametrize("act", ACTS)
def test_a_process_killed_at_any_write_leaves_a_whole_vault(open_at, faulty_disk, tmp_path, act, how):
    for n in range(1, 20):
        name = f"v{n}"
        vault = open_at(name)
        vault.put(FIRST)
        vault.close()
        child = os.fork()
        if child == 0:
            try:
                mine = open_vault(
                    tmp_path / name,
                    [tmp_path / f"{name}-replica-1", tmp_path / f"{name}-replica-2"],
                    faulty_disk,
                    OsRandomness(),
                )
                faulty_disk.arm(n, how)
                ACTS[act](mine)
            finally:
                os._exit(7)
        _, status = os.waitpid(child, 0)
        vault = open_at(name)
        finished = os.WIFEXITED(status)
        assert contents(vault) in ((AFTER[act],) if finished else (dict(FIRST), AFTER[act]))
        ACTS[act](vault)
        assert contents(vault) == AFTER[act]
        vault.close()
        if finished:
            return
    pytest.fail("the act never ended")


@pytest.mark.parametrize("how", ["nothing", "left"])
def test_making_a_vault_can_fail_at_any_write_and_be_repeated(open_at, faulty_disk, how):
    for n in range(1, 10):
        faulty_disk.arm(n, how)
        try:
            open_at(f"v{n}", disk=faulty_disk)
        except VaultUnavailable:
            vault = open_at(f"v{n}")
            vault.put(FIRST)
            assert contents(vault) == dict(FIRST)
        else:
            assert n > 3
            return
    pytest.fail("making it never ended")


# -- damage, loss and other hands


def test_every_changed_byte_is_noticed(open_at, tmp_path):
    vault = open_at()
    vault.put(FIRST)
    vault.close()
    files = [p for p in (tmp_path / "vault").rglob("*") if p.is_file() and p.name != "lock"]
    assert len(files) == 3
    for path in files:
        good = path.read_bytes()
        for place in {0, 13, len(good) // 2, len(good) - 1}:
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with pytest.raises(VaultDamaged):  # noqa: PT012
                changed = open_at()
                try:
                    contents(changed)
                finally:
                    changed.close()
        path.write_bytes(good)


def test_one_patients_message_does_not_open_as_anothers(open_at, tmp_path):
    vault = open_at()
    vault.put([("a", b"1" * 50), ("b", b"2" * 50)])
    (segment,) = (tmp_path / "vault" / "segments").iterdir()
    content = segment.read_bytes()
    half = len(content) // 2
    segment.write_bytes(content[half:] + content[:half])
    with pytest.raises(VaultDamaged):
        vault.read("a")


def test_a_message_is_bound_to_its_patient_and_version_beside_its_key():
    key, opener = bytes(32), zstandard.ZstdDecompressor()
    message = _seal(zstandard.compress(b"record"), key, "a", 1)
    assert _unseal(message, key, "a", 1, opener) == b"record"
    for patient, version in (("b", 1), ("a", 2)):
        with pytest.raises(VaultDamaged):
            _unseal(message, key, patient, version, opener)


def test_a_lost_replica_is_filled_again_and_without_any_the_vault_stays_closed(open_at, tmp_path):
    vault = open_at()
    vault.put(FIRST)
    vault.close()
    shutil.rmtree(tmp_path / "vault-replica-1")
    vault = open_at()
    assert len(list((tmp_path / "vault-replica-1").iterdir())) == 1
    vault.close()
    shutil.rmtree(tmp_path / "vault-replica-1")
    shutil.rmtree(tmp_path / "vault-replica-2")
    with pytest.raises(VaultLocked):
        open_at()


def test_of_two_roots_of_one_epoch_the_one_that_opens_the_vault_counts(open_at, tmp_path):
    open_at("other").close()
    vault = open_at()
    vault.put(FIRST)
    vault.close()
    for replica in ("vault-replica-1", "vault-replica-2"):
        shutil.copytree(tmp_path / "other-replica-1", tmp_path / replica, dirs_exist_ok=True)
        vault = open_at()
        assert contents(vault) == dict(FIRST)
        vault.close()
    assert len({p.read_bytes() for p in tmp_path.glob("vault-replica-*/root-*.key")}) == 1
    for replica in ("vault-replica-1", "vault-replica-2"):
        shutil.copytree(tmp_path / "other-replica-1", tmp_path / replica, dirs_exist_ok=True)
    with pytest.raises(VaultDamaged):
        open_at()


def test_a_second_process_is_told_that_the_vault_is_in_use(open_at):
    open_at()
    with pytest.raises(VaultInUse):
        open_at()


def test_the_root_needs_two_folders(tmp_path):
    with pytest.raises(BadInput):
        open_vault(tmp_path / "v", [tmp_path / "r", tmp_path / "r"], SystemDisk(), OsRandomness())


def test_what_nothing_names_is_removed_at_the_next_opening(open_at, tmp_path):
    vault = open_at()
    vault.put([("p", b"1")])
    vault.put([("p", b"2")])
    vault.close()
    (tmp_path / "vault" / "segments" / "00000099.seg").write_bytes(b"half")
    (tmp_path / "vault" / "pages" / "000000-00000001").write_bytes(b"older")
    (tmp_path / "vault" / "root-00000009.page").write_bytes(b"half")
    (tmp_path / "vault" / "register-budget.sealed.new").write_bytes(b"half")
    vault = open_at()
    assert len(list((tmp_path / "vault" / "pages").iterdir())) == 1
    assert {p.name for p in (tmp_path / "vault").iterdir() if p.is_file()} == {"lock", "root-00000001.page"}
    assert len(list((tmp_path / "vault" / "segments").iterdir())) == 1
    assert vault.read("p") == b"2"
    vault.put([("q", b"3")])
    assert contents(vault) == {"p": b"2", "q": b"3"}


def test_a_closed_vault_says_so(open_at):
    vault = open_at()
    vault.close()
    with pytest.raises(VaultUnavailable):
        vault.patients()
