"""Which sites are here: whoever has a request at this hub, parked or being answered, is online.

A site keeps one request at the hub all the time, also while it computes (`channel/line`), so silence means that it is
gone. What is known here lives in this process and is gone with it; statuses lie in the store. With several hubs over
one database each would have to write down whom it has: until then run one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from paroma.kernel.clock import Clock
from paroma.kernel.ids import SiteId
from paroma.trust.channel.line import MOST_DELAY

AFTER_START = 2 * MOST_DELAY  # s: a site that could not reach the hub tries again after `MOST_DELAY` at most


class Presence:
    """Requests of sites at this moment, and when the last one of each ended."""

    def __init__(self, clock: Clock, *, grace: float) -> None:
        """grace: s of silence after which a site counts as gone; never less than `AFTER_START` after this start."""
        self._clock = clock
        self._grace = grace
        self._began = clock.monotonic()
        self._live: dict[SiteId, int] = {}
        self._last: dict[SiteId, float] = {}
        self._expected: set[SiteId] = set()

    @contextmanager
    def here(self, site: SiteId) -> Iterator[None]:
        """While a request of `site` is under way."""
        self._live[site] = self._live.get(site, 0) + 1
        try:
            yield
        finally:
            self._last[site] = self._clock.monotonic()
            self._live[site] -= 1
            if not self._live[site]:
                del self._live[site]

    def seen(self, site: SiteId) -> float | None:
        """Seconds since the last request of `site` ended: 0 while one is here, None for none since this start."""
        if site in self._live:
            return 0.0
        last = self._last.get(site)
        return None if last is None else self._clock.monotonic() - last

    def expect(self, sites: Iterable[SiteId]) -> None:
        """The store says that these are online: `silent` names them when they are gone."""
        self._expected.update(sites)

    def forget(self, site: SiteId) -> None:
        """The store says that it is not online any more."""
        self._expected.discard(site)

    def silent(self) -> tuple[tuple[SiteId, float], ...]:
        """Those expected that are gone, and for how long each was not heard, s."""
        up = self._clock.monotonic() - self._began
        found = []
        for site in sorted(self._expected):
            seen = self.seen(site)
            if seen is not None and seen >= self._grace:
                found.append((site, seen))
            elif seen is None and up >= max(self._grace, AFTER_START):
                found.append((site, up))
        return tuple(found)
