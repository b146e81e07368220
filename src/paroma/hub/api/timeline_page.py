"""The page of the federation log: entries in plain words, newest first, with what is looked for in the address."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub import reports
from paroma.hub.api.visits import Visits
from paroma.hub.parts import Hub
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import SiteId, printable
from paroma.kernel.release import VERSION
from paroma.trust.audit import checkpoint as checkpoints, cosigning, entries, log as logs
from paroma.trust.federation import members
from paroma.trust.identity.people import Person
from paroma.trust.policy import facts
from paroma.web.console.timeline import WORDS, Chosen, Entry, sentence, timeline_page
from paroma.web.kit.http import count_of, page

MOST_SHOWN: Final = 50  # entries on a page
MOST_READ: Final = 2_000  # entries that one page looks through; a link goes on from there
AT_ONCE: Final = 250
LONGEST_TEXT: Final = 100


class TimelinePage:
    """The route of the page."""

    def __init__(self, hub: Hub, visits: Visits) -> None:
        self._hub = hub
        self._visits = visits

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("/timeline", self._visits.page(self.timeline, facts.ReadLog), methods=["GET"])]

    async def timeline(self, request: Request, person: Person) -> Response:
        """What happened in the federation."""
        kind, text = request.query_params.get("kind", ""), request.query_params.get("q", "").strip()
        if kind and kind not in WORDS:
            raise BadInput(f"there is no kind `{printable(kind)}` of entry", do="choose one from the list")
        if len(text) > LONGEST_TEXT:
            raise BadInput(f"the search is longer than {LONGEST_TEXT} characters", do="search for a word or two")
        before = request.query_params.get("before")
        start = None if before is None else count_of(before, 1 << 53)
        if before is not None and start is None:
            raise BadInput("`before` is no number of an entry", do="follow the links of the page")

        def look(tx: Connection) -> tuple[tuple[Entry, ...], int, int, int]:
            size = logs.checkpoint(tx, logs.FEDERATION).size
            titles = {m.site: m.title for m in members.members(tx)}
            first = min(size, size if start is None else start)
            found, left = _before(tx, first, kind, text, titles)
            note = cosigning.cosigned_note(tx, logs.FEDERATION, reports.quorum_of(tx))
            return tuple(found), left, size, checkpoints.peek(note)[1] if note else 0

        found, left, size, cosigned = await self._hub.store.read(look)
        asked = {name: value for name, value in (("kind", kind), ("q", text)) if value}
        older = f"?{urlencode({**asked, 'before': left})}" if left else ""
        made = timeline_page(
            found,
            Chosen(kind=kind, text=text, older=older),
            size=size,
            cosigned=cosigned,
            federation=self._hub.settings.name,
            person=person.name,
            release=VERSION,
        )
        return page(made)


def _before(tx: Connection, first: int, kind: str, text: str, titles: Mapping[SiteId, str]) -> tuple[list[Entry], int]:
    """The newest entries before number `first` that fit, and the number before which to go on; 0 where nothing is left."""
    found: list[Entry] = []
    words, end, least = text.casefold().split(), first, max(0, first - MOST_READ)
    while end > least:
        begin = max(least, end - AT_ONCE)
        sealed = logs.entries(tx, logs.FEDERATION, begin, end)
        for number in range(begin + len(sealed) - 1, begin - 1, -1):
            one = entries.open_entry(sealed[number - begin], number)
            if kind and one.kind != kind:
                continue
            what = sentence(one.kind, one.facts, title=lambda site: titles.get(SiteId(site), site))
            if all(word in f"{what} {one.kind}".casefold() for word in words):
                found.append(Entry(number=number, kind=one.kind, what=what, at=one.at))
                if len(found) == MOST_SHOWN:
                    return found, number
        end = begin
    return found, end
