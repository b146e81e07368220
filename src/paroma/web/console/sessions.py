"""The page of one's own sessions and acts."""

from dataclasses import dataclass

from paroma.web.kit.pages import render
from paroma.web.kit.sessions import SessionSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Something that was asked for. at: the last time, unix s."""

    what: str
    on: str
    allowed: bool
    policy: str
    times: int
    at: float


def sessions_page(
    rows: tuple[SessionSeen, ...], acts: tuple[Done, ...], *, federation: str, person: str, release: str, form_key: str
) -> str:
    """GET /me/sessions"""
    return render(
        "console/sessions.html",
        rows=rows,
        acts=acts,
        federation=federation,
        person=person,
        release=release,
        form_key=form_key,
        refresh=None,
    )
