"""The small parts: ids, clock, randomness, blocking, disk, errors."""

import asyncio
import os
import stat

import pytest
from hypothesis import given, strategies as st

from paroma.kernel import ids
from paroma.kernel.blocking import Inline, Threads
from paroma.kernel.clock import SystemClock, iso
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.randomness import OsRandomness, SeededRandomness


def test_an_id_says_its_kind_and_cannot_be_guessed():
    made = {ids.fresh("run", OsRandomness()) for _ in range(200)}
    assert len(made) == 200
    assert all(ids.parse("run", one) == one and len(one) == 20 for one in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run-",
        "permit-0000000000000000",
        "run-000000000000000",
        "run-000000000000000i",
        "run-0000000000000000\n",
        "Run-0000000000000000",
    ],
)
def test_what_is_no_run_id_is_refused(text):
    with pytest.raises(BadInput):
        ids.parse("run", text)


@given(st.text(max_size=80))
def test_what_is_shown_of_foreign_text_is_short_and_printable(text):
    assert ids.printable(text).isprintable()
    assert len(ids.printable(text)) <= 63


@pytest.mark.parametrize("text", ["a", "st-anna", "site4"])
def test_a_name_is_short_and_plain(text):
    assert ids.name(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", "a--b", "St", "ä", "a" * 49, "4a", "a\n"])
def test_what_cannot_be_a_name_is_refused(text):
    with pytest.raises(BadInput):
        ids.name(text)


def test_seeded_randomness_is_the_same_each_time_and_another_for_another_name():
    one, same, other = SeededRandomness(1, "a"), SeededRandomness(1, "a"), SeededRandomness(1, "b")
    taken = [one.take(16), one.take(16)]
    assert taken == [same.take(16), same.take(16)]
    assert taken[0] != taken[1]
    assert other.take(16) not in taken


def test_time_is_written_in_utc_to_the_millisecond():
    assert iso(1_795_500_000.2036) == "2026-11-24T06:00:00.204Z"
    assert iso(0.9996) == "1970-01-01T00:00:01.000Z"
    clock = SystemClock()
    assert clock.now() > 1_700_000_000
    before = clock.monotonic()
    asyncio.run(clock.sleep(0.001))
    assert clock.monotonic() - before >= 0.001


def test_an_error_says_what_is_and_what_to_do():
    assert str(ParomaError("it is so", do="do this")) == "it is so; do this"


@pytest.mark.parametrize("make", [Inline, lambda: Threads(2)], ids=["inline", "threads"])
def test_blocking_work_gives_its_outcome_or_its_error(make):
    blocking = make()

    async def course():
        assert await blocking.run(lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await blocking.run(lambda: 1 // 0)

    asyncio.run(course())
    getattr(blocking, "close", lambda: None)()


def test_a_file_is_replaced_whole_and_readable_by_its_owner_only(tmp_path):
    disk, path = SystemDisk(), tmp_path / "key"
    disk.replace(path, b"old")
    disk.replace(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    disk.replace(path, b"x", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~_umask()
    disk.remove(path)
    disk.remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_left_by_an_interrupted_write_does_not_lend_its_mode(tmp_path):
    (tmp_path / "key.new").write_bytes(b"longer than what follows")
    (tmp_path / "key.new").chmod(0o666)
    SystemDisk().replace(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_grows_in_place_and_is_settled_under_its_name(tmp_path):
    disk, part, whole = SystemDisk(), tmp_path / "a.part", tmp_path / "a"
    disk.write_at(part, 0, b"abc")
    disk.write_at(part, 3, b"def")
    disk.settle(part, whole)
    assert (whole.read_bytes(), part.exists()) == (b"abcdef", False)


def _umask():
    now = os.umask(0)
    os.umask(now)
    return now
