import pytest
from hypothesis import given, strategies as st

from paroma.kernel.errors import BadInput
from paroma.kernel.wire.http1 import MOST_HEAD_BYTES, NotHttp, Reader, ReplyTooLong, head

BODIES = st.binary(max_size=200)


def read(data, *, method="GET", most=1000, closes=False):
    reader = Reader(method, most)
    reply = reader.feed(data)
    return reader.end() if reply is None and closes else reply


def with_length(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(pieces):
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: y\r\n\r\n"


@given(BODIES, st.lists(st.integers(1, 300)))
def test_a_reply_reads_the_same_however_it_is_cut(body, cuts):
    for data in (with_length(body), in_chunks([body[:7], body[7:]])):
        reader, at = Reader("GET", 1000), 0
        for length in [*cuts, len(data)]:
            reply = reader.feed(data[at : at + length])
            at += length
            if reply is not None:
                break
        assert reply is not None
        assert (reply.status, reply.body, reply.again) == (200, body, True)


@given(BODIES)
def test_nothing_is_given_before_the_last_byte(body):
    for data in (with_length(body), in_chunks([body])):
        assert Reader("GET", 1000).feed(data[:-1]) is None


@given(st.binary(max_size=300), st.sampled_from(["GET", "HEAD", "CONNECT"]))
def test_any_bytes_are_a_reply_or_said_to_be_none(data, method):
    for given_bytes in (
        data,
        b"HTTP/1.1 200 OK\r\n" + data,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data,
    ):
        reader = Reader(method, 100)
        try:
            reply = reader.feed(given_bytes)
        except (NotHttp, ReplyTooLong):
            continue
        assert reply is None or len(reply.body) <= 100


def test_names_are_in_lower_case_and_what_came_twice_is_joined():
    reply = read(b"HTTP/1.1 200 OK\r\nX-Word:a \r\nx-WORD:\t b\r\nContent-Length: 0\r\n\r\n")
    assert reply.headers == {"x-word": "a, b", "content-length": "0"}


def test_a_reply_that_only_says_wait_is_passed_over():
    assert (
        read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + with_length(b"ok")).body == b"ok"
    )


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", b"200 OK"), ("CONNECT", b"200 OK"), ("GET", b"204 No Content"), ("GET", b"304 Not Modified")],
)
def test_some_replies_have_no_body_whatever_they_say(method, status):
    assert read(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n", method=method).body == b""


def test_without_a_length_the_body_ends_with_the_connection():
    reply = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", closes=True)
    assert (reply.body, reply.again) == (b"all of it", False)


@pytest.mark.parametrize(
    ("first", "options", "again"),
    [
        pytest.param(b"HTTP/1.1", b"", True, id="1.1 stays"),
        pytest.param(b"HTTP/1.1", b"Connection: Close\r\n", False, id="unless it says so"),
        pytest.param(b"HTTP/1.0", b"", False, id="1.0 does not"),
        pytest.param(b"HTTP/1.0", b"Connection: keep-alive\r\n", True, id="unless it says so, too"),
    ],
)
def test_whether_the_connection_carries_another_request(first, options, again):
    assert read(first + b" 200 OK\r\nContent-Length: 0\r\n" + options + b"\r\n").again is again


def test_bytes_after_a_reply_end_the_connection_so_that_no_later_request_takes_them():
    assert read(with_length(b"ok") + with_length(b"another's")).again is False


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="another protocol unasked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na", id="a length with a sign"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\na", id="a length in other digits"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="another coding"),
        pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks of an old version"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n", id="a folded line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n", id="a blank in a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\nContent-Length: 0\r\n\r\n", id="a bare line feed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0\r\nContent-Length: 0\r\n\r\n", id="a zero byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", id="a negative chunk"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", id="a chunk in Python's digits"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", id="a chunk that is longer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * MOST_HEAD_BYTES, id="a head without end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"b" * 5000, id="a chunk's line without end"
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_reply(data):
    with pytest.raises(NotHttp):
        read(data)


@pytest.mark.parametrize("closes", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", in_chunks([b"ab"])[:-2]])
def test_a_reply_that_is_cut_off_is_none(closes):
    with pytest.raises(NotHttp, match="too early"):
        read(closes, closes=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", id="announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, id="until the close"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", id="in a chunk that is announced"
        ),
        pytest.param(in_chunks([b"x" * 600, b"y" * 600]), id="in chunks"),
    ],
)
def test_a_reply_beyond_the_limit_is_refused_before_it_is_kept(data):
    with pytest.raises(ReplyTooLong, match="1000 bytes"):
        read(data)


def test_the_head_of_a_request():
    assert (
        head("POST", "/x?y=1", "hub:8443", (("A", "b"),), 3)
        == b"POST /x?y=1 HTTP/1.1\r\nHost: hub:8443\r\nA: b\r\nContent-Length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "target", "host", "headers"),
    [
        pytest.param("GET /", "/", "hub", (), id="method"),
        pytest.param("GET", "/ x", "hub", (), id="target"),
        pytest.param("GET", "/\r\nA: b", "hub", (), id="target with a line"),
        pytest.param("GET", "/", "hub\r\nA: b", (), id="host"),
        pytest.param("GET", "/", "hub", (("A\r\nB", "c"),), id="name"),
        pytest.param("GET", "/", "hub", (("A", "b\r\nC: d"),), id="value"),
        pytest.param("GET", "/", "hub", (("A", "ä"),), id="value beyond ASCII"),
    ],
)
def test_nothing_breaks_out_of_its_line(method, target, host, headers):
    with pytest.raises(BadInput):
        head(method, target, host, headers, None)
