"""Everybody sees where they are signed in and what they did, and ends what they want; nobody sees or ends another's."""

import json
import re

import pytest
from sqlalchemy import select

from paroma.trust.identity.tables import SESSIONS

HUB = "https://hub.test:443"


async def browser_of(town, fed, who, **headers):
    made = fed.Browser(town)
    status, said = await town.someone(who).ask("POST", "/people/browser-link", {"to": "/"})
    assert status == 201
    made.opened = await made.ask("GET", said["url"], **headers)
    assert made.opened.status == 303
    return made


@pytest.mark.promise(3)
def test_a_person_lists_and_ends_their_own_sessions_and_no_other(town, fed):
    async def scene(town):
        lena = town.someone("scientist@hub")
        first = await browser_of(town, fed, "scientist@hub", user_agent="Firefox on the desk")
        second = await browser_of(town, fed, "scientist@hub", user_agent="Chrome left open")
        other = await browser_of(town, fed, "operator@hub", user_agent="of the operator")
        shown = (await first.ask("GET", HUB + "/me/sessions")).body.decode()
        assert "Firefox on the desk (this one)" in shown
        assert "Chrome left open" in shown
        assert "of the operator" not in shown
        _, found = await lena.ask("GET", "/api/me/sessions")
        assert {one["browser"] for one in found} == {"Firefox on the desk", "Chrome left open"}
        left = next(one["session"] for one in found if one["browser"] == "Chrome left open")

        # the operator, who may do more than she, ends nothing of hers; nor does a page of somebody else's program
        _, said = await town.someone("operator@hub").ask("POST", f"/api/me/sessions/{left}/end")
        assert [one["browser"] for one in said] == ["of the operator"]
        key = re.search('name="form_key" value="([^"]+)"', shown)[1]
        foreign = await other.ask("POST", f"{HUB}/me/sessions/{left}/end", f"form_key={key}".encode())
        assert foreign.status == 403
        assert (await second.ask("GET", HUB + "/")).status == 200

        # by the button of the page
        assert (await first.ask("POST", f"{HUB}/me/sessions/{left}/end", b"form_key=wrong")).status == 403
        done = await first.ask("POST", f"{HUB}/me/sessions/{left}/end", f"form_key={key}".encode())
        assert (done.status, done.headers["location"]) == (303, "/me/sessions")
        ended = await second.ask("GET", HUB + "/")
        assert ended.status == 403
        assert "not signed in here" in ended.body.decode()
        assert "Chrome left open" not in (await first.ask("GET", HUB + "/me/sessions")).body.decode()

        # by her program, which the lost browser cannot stop
        mine = next(one["session"] for one in found if one["browser"] == "Firefox on the desk")
        assert await lena.ask("POST", f"/api/me/sessions/{mine}/end") == (200, [])
        assert (await first.ask("GET", HUB + "/me/sessions")).status == 403
        assert (await other.ask("GET", HUB + "/")).status == 200

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_what_a_person_did_is_shown_to_them_with_what_was_decided_and_to_nobody_else(town, fed):
    async def scene(town):
        operator = town.someone("operator@hub")
        assert (await town.someone("auditor@hub").ask("GET", "/api/data-sets"))[0] == 200
        before = (await operator.ask("GET", "/api/me/acts"))[1]
        assert (await operator.ask("GET", "/api/members"))[0] == 200
        assert (await operator.ask("GET", "/api/members"))[0] == 200
        assert (await operator.ask("POST", "/api/applications", _wish(town)))[0] == 403
        acts = (await operator.ask("GET", "/api/me/acts"))[1]
        assert {(a["action"], a["allowed"]) for a in acts} >= {("ReadMembers", True), ("Apply", False)}
        assert "ReadCatalogue" not in {a["action"] for a in acts} - {a["action"] for a in before}
        refused = next(a for a in acts if a["action"] == "Apply")
        logged = [e for e in town.hub_log() if e["kind"] == "refused" and e["principal"] == operator.person]
        assert refused["decision"] in {e["decision"] for e in logged}  # the log names the same decision
        page = (await (await browser_of(town, fed, "operator@hub")).ask("GET", HUB + "/me/sessions")).body.decode()
        assert "Read members" in page
        assert "refused by" in page
        _, hers = await town.someone("auditor@hub").ask("GET", "/api/me/acts")
        assert "Apply" not in {a["action"] for a in hers}

    town.play(scene, sites=())


def _wish(town):
    import msgspec

    return json.loads(msgspec.json.encode(town.wish()))


def test_when_a_session_was_last_seen_is_kept_to_the_minute_and_not_at_every_request(town, fed):
    async def scene(town):
        browser = await browser_of(town, fed, "scientist@hub")
        seen = lambda: town.hub.store.read(lambda tx: tx.execute(select(SESSIONS.c.seen)).scalars().all()[-1])  # noqa: E731
        opened = await seen()
        await browser.ask("GET", HUB + "/")
        assert await seen() == opened
        town.clock.ahead = 61.0
        await browser.ask("GET", HUB + "/")
        assert await seen() >= opened + 60

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_a_sessions_cookie_goes_to_this_host_only_and_no_script_or_foreign_page_gets_it(town, fed):
    async def scene(town):
        browser = await browser_of(town, fed, "scientist@hub")
        name, _, rest = browser.opened.headers["set-cookie"].partition("=")
        said = {part.strip().lower() for part in rest.split(";")[1:]}
        assert name.startswith("__Host-")
        assert {"httponly", "secure", "samesite=strict", "path=/"} <= said
        assert not any(part.startswith("domain") for part in said)
        assert "max-age=900" in said or "max-age=899" in said

    town.play(scene, sites=())
