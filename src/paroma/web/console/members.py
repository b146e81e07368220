"""The page of the members: who is here, and since when somebody was not heard."""

from dataclasses import dataclass

from paroma.web.kit.pages import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """A line of the page. seen: how long ago something was heard of it, in words; empty where nobody knows."""

    name: str
    owner: str
    status: str
    seen: str
    site: str


def members_page(rows: tuple[Hospital, ...], *, federation: str, person: str, release: str, commands: bool) -> str:
    """GET /members. commands: whether to show what an operator may do about them."""
    return render(
        "console/members.html",
        rows=rows,
        federation=federation,
        person=person,
        release=release,
        refresh="/members",
        commands=commands,
    )
