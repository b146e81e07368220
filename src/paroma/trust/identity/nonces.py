"""What makes a proof good once: nonces of this boot, and a memory of what was shown under them.

A nonce is the number of a time window and its HMAC under a secret that is made at boot and kept nowhere. So the hub
stores nothing, several hubs need not agree, and every proof from before a restart names a nonce that no longer
verifies. Within the boot each proof is remembered for as long as its nonce lives. Windows are counted on the
monotonic clock: setting the wall clock back must not make an old nonce young again.
"""

import hashlib
import hmac
from typing import Final

from paroma.kernel.clock import Clock
from paroma.kernel.errors import Refused, Unavailable
from paroma.kernel.randomness import Randomness
from paroma.trust.identity import jose

WINDOW_SECONDS: Final = 60.0  # a nonce lives for this window and the next: 60 to 120 s
KEPT_WINDOWS: Final = 4  # longer than any proof or assertion with a skewed clock can live
MOST_SEEN: Final = 500_000  # per window; about 40 MB, ten times what one hub can verify in it
_DOMAIN: Final = b"paroma/dpop-nonce/v1\n"


class NonceNeeded(Refused):
    """The proof names no nonce, or one that has passed. The next one is `nonces.current()`."""

    def __init__(self) -> None:
        super().__init__(
            "the proof names no nonce of this server's", do="repeat with the nonce in the header `DPoP-Nonce`"
        )


class Replayed(Refused):
    """The very same proof or assertion was shown before."""

    def __init__(self) -> None:
        super().__init__("this proof was used before", do="make a fresh proof for each request")


class TooManyProofs(Unavailable):
    """The memory of this window is full: it refuses rather than forgets."""

    def __init__(self) -> None:
        super().__init__("too many requests in this minute", do="repeat in a minute")


class Nonces:
    """The nonces of one boot of one program."""

    def __init__(self, clock: Clock, randomness: Randomness, *, most_seen: int = MOST_SEEN) -> None:
        self._most_seen = most_seen
        self._secret = randomness.take(32)
        self._clock = clock
        self._seen: dict[int, set[bytes]] = {}

    def current(self) -> str:
        """The nonce that a proof made now should name."""
        return self._nonce(self._window())

    def spend(self, nonce: str | None, *unique: str) -> None:
        """Check that `nonce` lives and that `unique` (key and id of the proof) was not shown.

        Raises NonceNeeded, Replayed.
        """
        window = self._window()
        if nonce is None or not any(hmac.compare_digest(nonce, self._nonce(w)) for w in (window, window - 1)):
            raise NonceNeeded
        self.once(*unique)

    def once(self, *unique: str) -> None:
        """Remember `unique` for at least three windows. Raises Replayed where it was shown before, TooManyProofs."""
        window = self._window()
        for old in [w for w in self._seen if w <= window - KEPT_WINDOWS]:
            del self._seen[old]
        mark = hashlib.sha256("\n".join(unique).encode()).digest()[:16]
        if any(mark in marks for marks in self._seen.values()):
            raise Replayed
        now = self._seen.setdefault(window, set())
        if len(now) >= self._most_seen:
            raise TooManyProofs
        now.add(mark)

    def _window(self) -> int:
        return int(self._clock.monotonic() // WINDOW_SECONDS)

    def _nonce(self, window: int) -> str:
        number = window.to_bytes(8, "big", signed=True)
        return jose.to_text(hmac.digest(self._secret, _DOMAIN + number, "sha256")[:18])
