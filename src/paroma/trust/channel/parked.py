"""Requests that wait at the hub for something to say to their site: at most one a site.

A site enters *before* it looks into its mailbox, so that a message posted in between wakes it. All of this lives in
one loop and is gone with the process; what must outlive it (mailboxes, statuses, the revocation epoch) lies in the
store.
"""

import asyncio
import enum
from types import TracebackType
from typing import Self

from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId


class Woken(enum.Enum):
    """Why a parked request goes on."""

    MESSAGE = "message"  # there is something in the mailbox
    SUPERSEDED = "superseded"  # the site sent a newer request
    STOPPING = "stopping"  # this program stops
    REVOKED = "revoked"  # the site is out
    GONE = "gone"  # the site hung up
    TIME = "time"  # it has waited long enough


class LineClosed(Refused):
    """The site is out of the federation, or shut off from it."""

    def __init__(self) -> None:
        super().__init__(
            "this site is shut off from the federation", do="ask the hub's operator why, and to let it in again"
        )


class Place:
    """The place of one request: a context manager around looking into the mailbox and waiting."""

    __slots__ = ("_parked", "_why", "_woken", "site")

    def __init__(self, parked: "Parked", site: SiteId) -> None:
        self.site = site
        self._parked = parked
        self._woken = asyncio.Event()
        self._why = Woken.TIME

    async def wait(self, seconds: float) -> Woken:
        """Wait until woken, at most `seconds`.

        What woke it before the call counts. A message may be waited for again.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return Woken.TIME
        if self._why is Woken.MESSAGE:
            self._woken.clear()
        return self._why

    def hang_up(self) -> None:
        """The site does not wait for an answer any more."""
        self._ring(Woken.GONE)

    @property
    def revoked(self) -> bool:
        """Whether the site was shut off while this request was under way: nothing more may be said to it."""
        return self._woken.is_set() and self._why is Woken.REVOKED

    def _ring(self, why: Woken) -> None:
        if not self._woken.is_set() or self._why is Woken.MESSAGE or why is Woken.REVOKED:  # being out is the last word
            self._why = why
        self._woken.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parked._leave(self)  # noqa: SLF001  # its registry


class Parked:
    """The places of this process."""

    def __init__(self) -> None:
        self._places: dict[SiteId, Place] = {}  # the newest of each site
        self._older: set[Place] = set()  # superseded, and not gone yet
        self._out: set[SiteId] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._places)

    def sites(self) -> frozenset[SiteId]:
        """The sites that have a request here at this moment."""
        return frozenset(self._places)

    def enter(self, site: SiteId) -> Place:
        """Take a place for a request of `site`; its earlier request is released. Raises LineClosed."""
        if site in self._out:
            raise LineClosed
        place = Place(self, site)
        before = self._places.get(site)
        if before is not None:
            self._older.add(before)
            before._ring(Woken.SUPERSEDED)  # noqa: SLF001  # its registry
        self._places[site] = place
        if self._stopping:
            place._ring(Woken.STOPPING)  # noqa: SLF001  # its registry
        return place

    def wake(self, site: SiteId) -> None:
        """There is a message for `site`."""
        place = self._places.get(site)
        if place is not None:
            place._ring(Woken.MESSAGE)  # noqa: SLF001  # its registry

    def stop(self) -> None:
        """Release everybody, and park nobody any more."""
        self._stopping = True
        for place in self._places.values():
            place._ring(Woken.STOPPING)  # noqa: SLF001  # its registry

    def revoke(self, site: SiteId) -> None:
        """Cut the requests of `site` now, and refuse its next ones."""
        self._out.add(site)
        for place in [*self._places.values(), *self._older]:
            if place.site == site:
                place._ring(Woken.REVOKED)  # noqa: SLF001  # its registry

    def admit(self, site: SiteId) -> None:
        """`site` may come again."""
        self._out.discard(site)

    def _leave(self, place: Place) -> None:
        self._older.discard(place)
        if self._places.get(place.site) is place:
            del self._places[place.site]
