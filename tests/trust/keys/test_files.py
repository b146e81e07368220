import stat
import threading

import pytest

from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness, SeededRandomness
from paroma.trust.keys import files

KINDS = pytest.mark.parametrize("load_or_create", [files.load_or_create, files.load_or_create_log_key])


class Failing(SystemDisk):
    """A disk whose first replace fails, before or after it left its bytes."""

    def __init__(self, *, leaves):
        self._leaves, self._failed = leaves, False

    def replace(self, path, content, *, mode=0o600):
        if self._failed or self._leaves:
            super().replace(path, content, mode=mode)
        if not self._failed:
            self._failed = True
            raise OSError(28, "no space left")


@KINDS
@pytest.mark.promise(3)
def test_a_key_is_made_once_and_found_again(load_or_create, tmp_path):
    path = tmp_path / "keys" / "site.pem"
    made = load_or_create(path, SystemDisk(), OsRandomness())
    found = load_or_create(path, SystemDisk(), OsRandomness())
    assert made.sign(b"x") == found.sign(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@KINDS
def test_a_seed_gives_the_same_file(load_or_create, tmp_path):
    for name in ("a", "b"):
        load_or_create(tmp_path / name, SystemDisk(), SeededRandomness(5))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@KINDS
@pytest.mark.promise(3)
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_key_that_others_could_read_or_write_is_refused(load_or_create, mode, tmp_path):
    path = tmp_path / "key"
    load_or_create(path, SystemDisk(), OsRandomness())
    path.chmod(mode)
    with pytest.raises(files.KeyFileUnsafe, match="others can read"):
        load_or_create(path, SystemDisk(), OsRandomness())


@KINDS
@pytest.mark.promise(3)
def test_a_link_or_a_folder_is_no_key(load_or_create, tmp_path):
    load_or_create(tmp_path / "key", SystemDisk(), OsRandomness())
    (tmp_path / "link").symlink_to(tmp_path / "key")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(files.KeyFileUnsafe):
            load_or_create(tmp_path / name, SystemDisk(), OsRandomness())


@pytest.mark.promise(3)
def test_the_wrong_kind_or_torn_bytes_are_named_and_never_replaced(tmp_path):
    path = tmp_path / "key"
    files.load_or_create(path, SystemDisk(), OsRandomness())
    with pytest.raises(files.KeyFileUnreadable, match="Ed25519"):
        files.load_or_create_log_key(path, SystemDisk(), OsRandomness())
    files.load_or_create_log_key(tmp_path / "log", SystemDisk(), OsRandomness())
    with pytest.raises(files.KeyFileUnreadable, match="P-256"):
        files.load_or_create(tmp_path / "log", SystemDisk(), OsRandomness())
    for content in (path.read_bytes()[:80], b"", b"\0" * 300):
        path.write_bytes(content)
        with pytest.raises(files.KeyFileUnreadable):
            files.load_or_create(path, SystemDisk(), OsRandomness())
        assert path.read_bytes() == content


@KINDS
@pytest.mark.promise(5)
@pytest.mark.parametrize("leaves", [False, True])
def test_a_failing_disk_leaves_no_key_or_a_whole_one(load_or_create, leaves, tmp_path):
    path, disk = tmp_path / "key", Failing(leaves=leaves)
    with pytest.raises(OSError, match="no space"):
        load_or_create(path, disk, SeededRandomness(1))
    assert path.exists() is leaves
    key = load_or_create(path, disk, SeededRandomness(2))
    assert key.sign(b"x") == load_or_create(path, disk, SeededRandomness(3)).sign(b"x")


@pytest.mark.promise(3)
def test_two_commands_at_once_use_one_key(tmp_path):
    found, start = [], threading.Barrier(8)

    def create():
        start.wait()
        found.append(files.load_or_create(tmp_path / "key", SystemDisk(), OsRandomness()).thumbprint)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
