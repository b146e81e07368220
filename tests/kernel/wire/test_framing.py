import contextlib
import hashlib
import struct

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.disk import SystemDisk
from paroma.kernel.wire import framing
from paroma.kernel.wire.framing import Malformed
from paroma.kernel.wire.spool import Spool, UploadDamaged
from paroma.lab.simulation.disk import Fault, FaultyDisk, at

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    run: str
    numbers: tuple[int, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    body: bytes


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_what_is_packed_is_unpacked(value):
    data = framing.pack(value)
    assert framing.unpack(data, object) == value


def test_a_message_is_one_of_its_types():
    for message in (Ask(run="r", numbers=(1, 2)), Answer(body=b"\x00")):
        assert framing.unpack(framing.pack(message), Ask | Answer) == message


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_whatever_comes_in_is_read_or_refused(data):
    with contextlib.suppress(Malformed):
        framing.unpack(data, object)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.data())
def test_a_message_that_is_cut_off_is_refused(value, data):
    whole = framing.pack(value)
    with pytest.raises(Malformed):
        framing.unpack(whole[: data.draw(st.integers(0, len(whole) - 1))], object)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "too early", id="nothing"),
        pytest.param(b"\x91" * 17 + b"\xc0", "deeper than 16", id="17 levels"),
        pytest.param(b"\x91" * 100_000 + b"\xc0", "deeper", id="100,000 levels"),
        pytest.param(b"\xdd\xff\xff\xff\xff", "beyond its end", id="an array of 4 billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff\x01", "beyond its end", id="a map of 4 billion"),
        pytest.param(b"\xc6\x7f\xff\xff\xff\x00", "beyond its end", id="2 GB of bytes announced"),
        pytest.param(b"\xdb\x00\x00", "too early", id="half a length"),
        pytest.param(b"\xc1", "not used", id="the byte that msgpack never uses"),
        pytest.param(b"\xd4\x01\x00", "not used", id="an extension"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", "not used", id="a timestamp"),
        pytest.param(b"\xcb" + struct.pack(">d", float("nan")), "not finite", id="not a number"),
        pytest.param(b"\xca" + struct.pack(">f", float("inf")), "not finite", id="infinity"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", "`a` stands twice", id="a key twice"),
        pytest.param(b"\x82\xa1a\x01\xd9\x01a\x02", "`a` stands twice", id="a key twice, in two lengths"),
        pytest.param(b"\xc0\xc0", "follows", id="something after the value"),
        pytest.param(b"\xa1\xff", "utf-8|unicode", id="a text that is none"),
        pytest.param(b"\xdc\xc3\x50" + b"\x01" * 50_000, "more than 50000", id="too many values"),
    ],
)
def test_a_message_beyond_the_limits_is_refused(data, why):
    with pytest.raises(Malformed, match=why):
        framing.unpack(data, object)


def test_a_message_of_another_type_is_refused():
    with pytest.raises(Malformed):
        framing.unpack(framing.pack(Answer(body=b"")), Ask)
    with pytest.raises(Malformed, match="unknown field"):
        framing.unpack(framing.pack({"type": "Ask", "run": "r", "more": 1}), Ask)
    with pytest.raises(Malformed, match="at most 3"):
        framing.unpack(framing.pack(Ask(run="r")), Ask, 3)


def read(framed, total=1 << 20, piece=1 << 20):
    return framing.read_chunk(framed, most_total=total, most_chunk=piece)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 70), st.data())
def test_chunks_from_any_offset_make_up_the_rest(content, size, data):
    start = data.draw(st.integers(0, max(len(content) - 1, 0)))
    pieces = [read(framed) for framed in framing.chunks(content, start=start, size=size)]
    assert b"".join(piece.content for piece in pieces) == content[start:]
    assert [piece.offset for piece in pieces] == list(range(start, max(len(content), 1), size))
    assert {(piece.whole, piece.total) for piece in pieces} == {(hashlib.sha256(content).digest(), len(content))}


def test_a_chunk_beyond_its_bounds_is_refused():
    (framed,) = framing.chunks(b"12345")
    for broken, total, piece in [
        (framed[:40], 100, 100),
        (b"XXXX" + framed[4:], 100, 100),
        (framed, 4, 100),
        (framed, 100, 4),
        (framed + b"6", 100, 100),
        (framed[:-5], 100, 100),
        (framed[:44] + (2**63).to_bytes(8, "big") + framed[52:], 100, 100),
    ]:
        with pytest.raises(Malformed):
            read(broken, total, piece)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(1, 40), st.randoms(use_true_random=False))
def test_an_upload_gathers_whatever_is_repeated_lost_or_reordered(tmp_path_factory, content, size, chance):
    spool = Spool(tmp_path_factory.mktemp("spool"), SystemDisk())
    whole = hashlib.sha256(content).digest()
    pieces = [read(framed) for framed in framing.chunks(content, size=size)]
    for piece in chance.choices(pieces, k=len(pieces)):
        spool.take(piece)
    while (wanted := spool.wanted(whole)) < len(content):
        for framed in list(framing.chunks(content, start=wanted, size=size))[: chance.randint(1, 3)]:
            spool.take(read(framed))
    assert spool.finish(whole, len(content)).read_bytes() == content
    assert spool.finish(whole, len(content)).read_bytes() == content
    assert spool.take(pieces[0]) == len(content)  # late, and not needed
    spool.remove(whole)
    assert spool.wanted(whole) == 0


def test_an_empty_upload_is_an_upload(tmp_path):
    spool = Spool(tmp_path, SystemDisk())
    (framed,) = framing.chunks(b"")
    spool.take(read(framed))
    assert spool.finish(hashlib.sha256(b"").digest(), 0).read_bytes() == b""


def test_an_upload_with_other_bytes_is_thrown_away_and_begun_again(tmp_path):
    spool = Spool(tmp_path, SystemDisk())
    whole = hashlib.sha256(b"good").digest()
    spool.take(framing.Chunk(whole=whole, total=4, offset=0, content=b"evil"))
    with pytest.raises(UploadDamaged, match="offset 0"):
        spool.finish(whole, 4)
    assert spool.wanted(whole) == 0
    spool.take(read(next(framing.chunks(b"good"))))
    assert spool.finish(whole, 4).read_bytes() == b"good"


@pytest.mark.parametrize("fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER], ids=lambda fault: fault.name)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_whichever_write_fails_a_sender_that_asks_what_is_wanted_comes_to_the_end(tmp_path, nth, fault):
    spool = Spool(tmp_path, FaultyDisk(SystemDisk(), at(nth, fault)))
    content, whole, failures = b"0123456789", hashlib.sha256(b"0123456789").digest(), 0
    for _attempt in range(5):
        try:
            for framed in framing.chunks(content, start=spool.wanted(whole), size=5):
                spool.take(read(framed))
            assert spool.finish(whole, 10).read_bytes() == content
        except OSError:
            failures += 1
    assert failures == 1
