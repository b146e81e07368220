"""HTTP/1.1 as a client needs it, over bytes alone: the head of a request, and a reply that comes in pieces.

Strict where leniency has led to two readers who disagree about where a reply ends (RFC 9112, section 6.3): one length
or one `chunked`, never both; no folded lines, no bare line feed. Limits hold before anything is kept. Knows no network.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from paroma.kernel.errors import BadInput

MOST_HEAD_BYTES: Final = 64 << 10
MOST_LINE_BYTES: Final = 4096  # of a chunk's size with its extensions
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_NAME: Final = re.compile(_TOKEN.decode())
_TEXT: Final = re.compile(r"[\t\x20-\x7e]*")
_WITHOUT_BODY: Final = frozenset({204, 304})


class NotHttp(BadInput):
    """The bytes are no reply of HTTP/1.1, or could be read in two ways."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the reply is not HTTP: {why}", do="check the address")


class ReplyTooLong(BadInput):
    """The reply is longer than the reader takes."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the reply is longer than {most} bytes", do="ask for less at once")


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole reply. `headers` have lower-case names; of a name sent twice, the values are joined by commas.

    again: whether the connection can carry another request.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    again: bool


def head(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], length: int | None) -> bytes:
    """The head of a request. target: path with query. length: bytes of the body that follows, None for no body.

    Raises BadInput for what would break out of its line.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if not _NAME.fullmatch(method) or " " in target or not all(_TEXT.fullmatch(line) for line in lines):
        raise BadInput("this is no request line", do="give a method and an address of printable characters")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _TEXT.fullmatch(value):
            raise BadInput(f"a header `{name[:40]!a}` cannot be sent", do="use printable ASCII without line breaks")
        lines.append(f"{name}: {value}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Reader:
    """Reads one reply. `feed` until it gives it; `end` when the connection has closed."""

    def __init__(self, method: str, most: int) -> None:
        """method: of the request, as `HEAD` and `CONNECT` have replies without a body. most: bytes of the body."""
        self._method = method
        self._most = most
        self._got = bytearray()  # not yet understood
        self._body = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._again = True
        self._need: int | None = None  # bytes until the body, or the chunk, ends; None: chunked, or until the close
        self._chunked = False
        self._until_close = False
        self._trailer = False

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._status or self._got)

    def feed(self, data: bytes) -> Reply | None:
        """Take in bytes; the reply once it is whole. Raises NotHttp, ReplyTooLong."""
        self._got += data
        while not self._status:
            if not self._read_head():
                return None
        return self._read_body()

    def end(self) -> Reply:
        """The connection has closed in order: the reply, where that is how it ends. Raises NotHttp."""
        if not self._until_close:
            raise NotHttp("it ends too early")
        return self._whole()

    def _read_head(self) -> bool:
        """Read a head. True when something was read: what comes before the reply proper (status 1xx) is passed over."""
        end = self._got.find(b"\r\n\r\n", 0, MOST_HEAD_BYTES)
        if end < 0:
            if len(self._got) >= MOST_HEAD_BYTES:
                raise NotHttp("its head is too long")
            if self._got and not b"HTTP/1.".startswith(self._got[:7]):
                raise NotHttp("it does not begin like one")
            return False
        text = bytes(self._got[: end + 2])
        del self._got[: end + 4]
        first = _STATUS.match(text)
        if first is None:
            raise NotHttp("its first line is none")
        headers: dict[str, str] = {}
        at = first.end()
        while at < len(text):
            field = _FIELD.match(text, at)
            if field is None:
                raise NotHttp("one of its headers is none")
            name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            at = field.end()
        status = int(first[2])
        if status == 101:  # HTTP
            raise NotHttp("it changes to another protocol unasked")
        if status >= 200:
            self._status, self._headers = status, headers
            self._frame(old=first[1] == b"0")
        return True

    def _frame(self, *, old: bool) -> None:
        """Where the body ends (RFC 9112, section 6.3). old: the reply is of HTTP/1.0."""
        coding, length = self._headers.get("transfer-encoding"), self._headers.get("content-length")
        options = {option.strip().lower() for option in self._headers.get("connection", "").split(",")}
        self._again = "keep-alive" in options if old else "close" not in options
        tunnel = self._method == "CONNECT" and self._status < 300
        if tunnel or self._method == "HEAD" or self._status in _WITHOUT_BODY:
            self._need = 0
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None or old:
                raise NotHttp("its length is said in two ways, or in one that nobody asked for")
            self._chunked = True
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 19):
                raise NotHttp("its length is no number")
            self._need = int(length)
            if self._need > self._most:
                raise ReplyTooLong(self._most)
        else:
            self._until_close, self._again = True, False

    def _read_body(self) -> Reply | None:
        if self._chunked:
            return self._read_chunks()
        if self._need is None:
            self._keep(len(self._got))
            return None
        if len(self._got) < self._need:
            return None
        self._keep(self._need)
        return self._whole()

    def _read_chunks(self) -> Reply | None:
        while True:
            if self._need is not None:  # in a chunk: its bytes, and a line end
                if len(self._got) < self._need + 2:
                    return None
                self._keep(self._need)
                if self._got[:2] != b"\r\n":
                    raise NotHttp("a chunk is longer than it said")
                del self._got[:2]
                self._need = None
            line = self._line()
            if line is None:
                return None
            if self._trailer:
                if not line:
                    return self._whole()
                continue  # trailers say nothing that anybody here asks for
            size = _SIZE.fullmatch(line)
            if size is None:
                raise NotHttp("a chunk has no size")
            self._need = int(size[1], 16)
            if len(self._body) + self._need > self._most:
                raise ReplyTooLong(self._most)
            if self._need == 0:
                self._need, self._trailer = None, True

    def _line(self) -> bytes | None:
        end = self._got.find(b"\r\n", 0, MOST_LINE_BYTES)
        if end < 0:
            if len(self._got) >= MOST_LINE_BYTES:
                raise NotHttp("a line is too long")
            return None
        line = bytes(self._got[:end])
        del self._got[: end + 2]
        return line

    def _keep(self, count: int) -> None:
        if len(self._body) + count > self._most:
            raise ReplyTooLong(self._most)
        self._body += self._got[:count]
        del self._got[:count]

    def _whole(self) -> Reply:
        # what follows a whole reply was not asked for: the next request must not take it for its own
        return Reply(self._status, self._headers, bytes(self._body), self._again and not self._got)
