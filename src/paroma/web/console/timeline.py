"""The page of the federation log: what happened, in order, in plain words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from paroma.web.kit.pages import render

WORDS: Final[Mapping[str, str]] = {
    "app-brought": "Somebody brought the code of an app.",
    "application-refused": "{site} said no to an application, by the rule {policy}.",
    "application-submitted": "Somebody applied for a permit, for {purpose}.",
    "attempt-opened": "An attempt at a question of {run} was opened.",
    "data-set-offered": "{site} offers records of the data set {data_set}.",
    "invitation-made": "The operator invited a hospital of {owner}.",
    "member-joined": "{title} joined, owned by {owner}.",
    "member-left": "The operator ended the membership of {site}: {reason}",
    "member-offline": "Nothing was heard of {site} any more. No run waits for it.",
    "member-online": "{site} was heard again.",
    "member-quarantined": "The operator shut {site} off: {reason}",
    "member-released": "The operator let {site} in again: {reason}",
    "officer-named": "A hospital named an officer, or ended one.",
    "permit-issued": "Every officer has signed: a permit holds.",
    "permit-left": "{site} ended a permit at its place.",
    "permit-revoked": "A permit was ended before its time, and its runs with it.",
    "permit-signed": "The officer of {site} signed an application.",
    "person-enrolled": "A person enrolled a key, as {role}.",
    "person-revoked": "The operator shut a person off, {role}: {reason}",
    "policies-changed": "The operator changed the policies: {what} {name}",
    "question-answered": "A question of {run} was answered with one sum.",
    "refused": "The hub refused a request ({action}), by the policy {policy}.",
    "run-ended": "{run} ended.",
    "run-opened": "{run} was opened under a permit.",
    "run-set-up": "The hospitals of {run} agreed on secrets.",
    "suspected": "In {run}, something false was sent: {why}",
}
"""A sentence for each kind of entry; the names in braces are its facts. Who sat out is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the page. number: its place in the log."""

    number: int
    kind: str
    what: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the address asks for. kind: of entries; text: in their sentences; older: query string of the page before, or empty."""

    kind: str
    text: str
    older: str


def sentence(kind: str, facts: Mapping[str, object], *, title: Callable[[str], str]) -> str:
    """What an entry says. title: a hospital's name for its id. A kind without a sentence is told by its name."""
    words = WORDS.get(kind)
    if words is None:
        return kind.replace("-", " ")
    said = {name: str(value) for name, value in facts.items()}
    if "site" in said:
        said["site"] = title(said["site"])
    return words.format_map(_Known(said))


class _Known(dict[str, str]):
    """A fact that an older entry does not have is told as such."""

    def __missing__(self, _name: str) -> str:
        return "(not said)"


def timeline_page(
    rows: tuple[Entry, ...], chosen: Chosen, *, size: int, cosigned: int, federation: str, person: str, release: str
) -> str:
    """GET /timeline. size: entries in the log. cosigned: how many a quorum has cosigned."""
    return render(
        "console/timeline.html",
        rows=rows,
        chosen=chosen,
        kinds=tuple(WORDS),
        size=size,
        cosigned=cosigned,
        federation=federation,
        person=person,
        release=release,
        refresh=None,
    )


def refused_page(*, headline: str, why: str, what_to_do: str, federation: str, person: str, release: str) -> str:
    """What may not be seen or was not understood, why, and what would pass."""
    return render(
        "console/refused.html",
        headline=headline,
        why=why,
        what_to_do=what_to_do,
        federation=federation,
        person=person,
        release=release,
        refresh=None,
    )
