"""One program, spoken to by one person: typed questions and answers over `Caller`, from plain calls."""

import atexit
from typing import Final, TypeVar

import msgspec

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import Randomness
from paroma.kernel.wire.network import HttpResponse, Network, close
from paroma.sdk.background import Background
from paroma.sdk.profile import Profile
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.keys.signing import SigningKey

T = TypeVar("T")
WAIT_SECONDS: Final = 30.0
PARK_SECONDS: Final = 25  # how long a question about something that has not happened yet may stay open
JSON: Final = "application/json"


class AnswerUnreadable(BadInput):
    """The answer is none of the kind that this release knows."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the answer to `{path}` cannot be read", do="bring this paroma and the other side to the same release"
        )


class Talk:
    """Asks, waits, reads. May be used from several threads."""

    def __init__(
        self, profile: Profile, key: SigningKey, network: Network, *, clock: Clock, randomness: Randomness
    ) -> None:
        self.profile = profile
        self.key = key
        self.clock = clock
        self._network = network
        self._background = Background()
        atexit.register(self.close)  # whoever forgets it in a notebook hears no complaint about open connections
        self._caller = Caller(network, key, profile.person, profile.origin, clock=clock, randomness=randomness)

    def get(self, path: str, kind: type[T], *, wait: float = WAIT_SECONDS) -> T:
        """The answer to GET `path`. wait: seconds. Raises AnswerUnreadable, Refused, BadInput, Unavailable."""
        return _read(path, self._ask("GET", path, b"", wait=wait), kind)

    def post(self, path: str, body: object, kind: type[T], *, wait: float = WAIT_SECONDS) -> T:
        """The answer to POST `path` with `body` as JSON. wait: seconds. Raises as `get`."""
        return _read(path, self._ask("POST", path, msgspec.json.encode(body), wait=wait), kind)

    def act(self, path: str, body: object = None) -> None:
        """POST `path`, where there is nothing to answer. Raises as `get`."""
        self._ask("POST", path, b"" if body is None else msgspec.json.encode(body))

    def file(self, path: str) -> bytes:
        """The bytes behind GET `path`. Raises as `get`."""
        return self._ask("GET", path, b"")

    def send_file(self, path: str, content: bytes, kind: type[T]) -> T:
        """The answer to POST `path` with bytes. Raises as `get`."""
        return _read(path, self._ask("POST", path, content, kind="application/octet-stream"), kind)

    def close(self) -> None:
        """End all connections, and the thread."""
        atexit.unregister(self.close)
        if self._background.open:
            self._background.run(close(self._network))
            self._background.close()

    def _ask(self, method: str, path: str, body: bytes, *, wait: float = WAIT_SECONDS, kind: str = JSON) -> bytes:
        reply: HttpResponse = self._background.run(self._caller.call(method, path, body, wait=wait, kind=kind))
        if reply.status >= 300:
            raise refused_by(reply)
        return reply.body


def _read(path: str, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise AnswerUnreadable(path.partition("?")[0]) from problem
