"""A patient with a browser: opens the link from the desk, reads her pages, sends the form. No other door."""

import re
import time
from dataclasses import dataclass
from html import unescape
from types import TracebackType
from typing import Final, Self

import httpx

from paroma.kernel.errors import ParomaError

_KEY: Final = re.compile(r'name="form_key" value="([^"]+)"')
_TAGS: Final = re.compile(r"<[^>]+>")
_ENTRY: Final = re.compile(r"entry (\d+)")
_NUMBER: Final = re.compile(r'class="ref">([^<]+)<')
_SECONDS: Final = re.compile(r"([0-9.]+) seconds later")
_ROUNDS: Final = re.compile(r"in (?:round (\d+)|\d+ rounds \(([\d, to]+)\))")


class PageWrong(ParomaError):
    """A page is not there, or does not say what it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the receipt says. seconds: acknowledged after, as she measured it; said: as the clinic says. counted: rounds."""

    number: str
    entry: int
    seconds: float
    said: float
    counted: tuple[int, ...]
    text: str
    address: str


class Browser:
    """One browser with its cookies. Ready to withdraw once `withdraw_form` was loaded."""

    def __init__(self, link: str) -> None:
        self._client = httpx.Client(follow_redirects=True, timeout=10.0, trust_env=False)
        try:
            self.home = self.page(link)
        except BaseException:
            self._client.close()
            raise
        self._origin = link.partition("/open/")[0]
        self._form = ""

    def withdraw_form(self) -> None:
        """Load the page that asks whether she means it."""
        self._form = self._found(_KEY, self.page(f"{self._origin}/me/withdraw"), "a form")[1]

    def withdraw(self) -> Receipt:
        """Send the form, as its button does; the receipt. Raises PageWrong."""
        began = time.monotonic()
        reply = self._client.post(
            f"{self._origin}/me/withdraw", data={"form_key": self._form, "what": "all"}, follow_redirects=False
        )
        seconds = time.monotonic() - began
        if reply.status_code != 303:
            raise PageWrong(f"the withdrawal is answered with {reply.status_code}", do="read the site's log")
        address = self._origin + reply.headers["location"]
        page = self.page(address)
        text = _text(page)
        return Receipt(
            number=self._found(_NUMBER, page, "a number")[1],
            entry=int(self._found(_ENTRY, text, "a log entry")[1]),
            seconds=seconds,
            said=float(self._found(_SECONDS, text, "a time")[1]),
            counted=rounds(text),
            text=text,
            address=address,
        )

    def uses(self) -> tuple[str, ...]:
        """What she reads of each study that used her records, newest first."""
        page = self.page(f"{self._origin}/me/uses")
        return tuple(_text(part) for part in page.split('<article class="use">')[1:])

    def again(self) -> str:
        """Her home page, loaded again."""
        return self.page(f"{self._origin}/me")

    def close(self) -> None:
        """Close the browser."""
        self._client.close()

    def page(self, address: str) -> str:
        """The page at an address, as her browser shows it. Raises PageWrong."""
        reply = self._client.get(address)
        if reply.status_code != 200:
            raise PageWrong(f"her page is answered with {reply.status_code}", do="read the site's log")
        return reply.text

    def _found(self, what: re.Pattern[str], text: str, name: str) -> re.Match[str]:
        found = what.search(text)
        if found is None:
            raise PageWrong(f"her page does not hold {name}", do="read the page")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rounds(text: str) -> tuple[int, ...]:
    """The rounds that a sentence such as `counted you in 4 rounds (1 to 3, 5)` or `in round 7` names; none if it names none."""
    found = _ROUNDS.search(text)
    if found is None:
        return ()
    spans = [[int(number) for number in re.findall(r"\d+", span)] for span in (found[1] or found[2]).split(",")]
    return tuple(number for span in spans for number in range(span[0], span[-1] + 1))


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(_TAGS.sub(" ", page))).strip()
