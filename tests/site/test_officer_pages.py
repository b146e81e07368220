"""The officer's pages: what they say, who gets in, what a browser may do, and what it cannot."""

import asyncio
import re
from html import unescape

import msgspec
import pytest
from msgspec.structs import replace as changed

from paroma.site.api.officer_pages import compared, in_words
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit
from paroma.web.officer.views import REASONS

VA = "https://va.test:443"
HOSTILE = "<script>alert(1)</script>"


async def browser_of(town, fed, who="officer@va", to="/officer"):
    """A browser in which this person opened their own link."""
    status, said = await town.someone(who).ask("POST", "/people/browser-link", {"to": to})
    assert status == 201, said
    made = fed.Browser(town)
    assert (await made.ask("GET", said["url"])).status == 303
    return made


async def text_of(browser, path, status=200):
    reply = await browser.ask("GET", VA + path)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"].startswith("text/html")
    return reply.body.decode()


def key_on(page: str) -> str:
    return page.split('name="form_key" value="')[1].split('"', maxsplit=1)[0]


async def asked(town, **changes):
    """A permit that all sites were asked for."""
    status, said = await town.someone("scientist@hub").ask("POST", "/api/applications", town.wish(**changes))
    assert status == 201, said
    permit = msgspec.convert(said["permit"], Permit)
    for name in town.members:
        await town.asked(name, permit.id)
    return permit


@pytest.mark.promise(3)
def test_an_officer_reads_a_request_in_plain_words_with_exact_counts_and_its_digest(town, fed):
    async def scene(town):
        permit = await asked(town, title=f"Hearts {HOSTILE}")
        browser = await browser_of(town, fed)
        inbox = await text_of(browser, "/officer")
        assert "One request waits for your answer." in inbox
        assert HOSTILE not in inbox
        page = await text_of(browser, f"/officer/requests/{permit.id}")
        assert HOSTILE not in page
        assert HOSTILE in unescape(page)
        assert "from 14 of our patients" in page
        assert permits.digest(permit) in page
        assert f"paroma site sign {permit.id} --digest {permits.digest(permit)}" in page
        assert "scientific research on health or care" in page
        assert "You approved nothing of this study before" in page
        assert "Your policies allow it" in page
        assert "<button" in page
        assert "Approve" not in page  # a browser holds no key: it does not pretend to sign

        await town.sites["va"].withdraw(town.patients("va")[0], everything(), by="patient")
        later = await text_of(browser, f"/officer/requests/{permit.id}")
        assert "from 13 of our patients" in later
        counts = re.findall(r">\s*(1[34])\s*<", await text_of(browser, "/officer"))
        assert counts == ["13"], "the list counts as the request does"
        assert re.search(r"said no</th><td[^>]*>1<", later)
        assert town.patients("va")[0] not in later

    town.play(scene)


def everything():
    from paroma.data.consent.statement import EVERYTHING

    return EVERYTHING


@pytest.mark.promise(3)
def test_a_browser_refuses_pauses_resumes_and_ends_and_each_stands_in_the_log(town, fed):
    async def scene(town):
        permit = await town.permit()
        other = await asked(town, title="Another")
        browser = await browser_of(town, fed)
        page = await text_of(browser, f"/officer/requests/{other.id}")
        form = f"form_key={key_on(page)}"

        empty = await browser.ask("POST", f"{VA}/officer/requests/{other.id}/refuse", form.encode())
        assert empty.status == 400
        assert b"Choose a reason, or write one in your own words" in empty.body
        assert b"<title>Error: " in empty.body
        assert (await town.asked("va", other.id))["state"] == "waiting"
        strange = f"{form}&reason=Because".encode()
        assert (await browser.ask("POST", f"{VA}/officer/requests/{other.id}/refuse", strange)).status == 400
        said = f"{form}&reason={REASONS[0].replace(' ', '+')}&words=ask+again+{HOSTILE}".encode()
        done = await browser.ask("POST", f"{VA}/officer/requests/{other.id}/refuse", said)
        assert (done.status, done.headers["location"]) == (303, f"/officer/requests/{other.id}")
        refused = await text_of(browser, f"/officer/requests/{other.id}")
        assert f"{REASONS[0]}: ask again" in unescape(refused)
        assert HOSTILE not in refused
        again = await browser.ask("POST", f"{VA}/officer/requests/{other.id}/refuse", said)
        assert again.status == 403

        back = f"{form}&back=%2Fofficer%2Fhealth".encode()
        done = await browser.ask("POST", f"{VA}/officer/pause", back)
        assert (done.status, done.headers["location"]) == (303, "/officer/health")
        for path in ("/officer", "/officer/health", "/officer/staff", f"/officer/requests/{permit.id}"):
            assert "Everything is paused." in await text_of(browser, path)
        away = await browser.ask("POST", f"{VA}/officer/resume", f"{form}&back=%2F%2Fevil.test".encode())
        assert (away.status, away.headers["location"]) == (303, "/officer")
        assert "Everything is paused." not in await text_of(browser, "/officer")

        question = await text_of(browser, f"/officer/permits/{permit.id}/end")
        assert "End “Hearts of four hospitals” at this hospital?" in question
        bare = await browser.ask("POST", f"{VA}/officer/permits/{permit.id}/end", form.encode())
        assert bare.status == 400
        assert (await town.asked("va", permit.id))["state"] == "valid"
        done = await browser.ask("POST", f"{VA}/officer/permits/{permit.id}/end", f"{form}&words=enough".encode())
        assert done.status == 303
        assert (await town.asked("va", permit.id))["state"] == "revoked"
        assert "has ended" in await text_of(browser, f"/officer/requests/{permit.id}")
        await text_of(browser, f"/officer/permits/{permit.id}/end", 403)  # there is nothing left to end

        me = town.someone("officer@va").person
        by = [(e["kind"], e["by"]) for e in town.site_log("va") if e.get("by") == me]
        assert by == [(kind, me) for kind in ("application-refused", "paused", "resumed", "permit-ended")]

    town.play(scene)


@pytest.mark.promise(3)
def test_a_stranger_a_patient_and_another_hospitals_officer_see_nothing_and_change_nothing(town, fed):
    async def scene(town):
        permit = await asked(town)
        mine = await browser_of(town, fed)
        key = key_on(await text_of(mine, "/officer"))
        size = len(town.site_log("va"))
        stranger = fed.Browser(town)
        patient = await town.patient_browser("va", town.patients("va")[0])
        other = await browser_of(town, fed, "officer@cleveland")
        (cookie,) = other.jar["https://cleveland.test:443"].values()
        name = next(iter(mine.jar[VA]))
        other.jar[VA] = {name: cookie}  # even with the cookie under this site's name
        gets = ("/officer", f"/officer/requests/{permit.id}", f"/officer/permits/{permit.id}/end", "/officer/staff", "/officer/health")  # fmt: skip
        posts = (f"/officer/requests/{permit.id}/refuse", f"/officer/permits/{permit.id}/end", "/officer/pause", "/officer/resume")  # fmt: skip
        for browser, says in (
            (stranger, "You are not signed in here"),
            (other, "You are not signed in here"),
            (patient, "These pages are for the hospital’s staff".replace("’", "&#39;")),
        ):
            for path in gets:
                page = await text_of(browser, path, 403)
                assert says in page, page
                assert permit.title not in page
            for path in posts:
                body = f"form_key={key}&words=no".encode()
                assert (await browser.ask("POST", VA + path, body)).status == 403
        assert len(town.site_log("va")) == size
        assert (await town.asked("va", permit.id))["state"] == "waiting"

    town.play(scene)


@pytest.mark.promise(3)
def test_a_form_without_this_sessions_key_does_nothing(town, fed):
    async def scene(town):
        permit = await town.permit()
        first, second = await browser_of(town, fed), await browser_of(town, fed)
        theirs = key_on(await text_of(second, "/officer"))
        size = len(town.site_log("va"))
        for path in ("/officer/pause", "/officer/resume", f"/officer/permits/{permit.id}/end"):
            for body in (
                b"words=x",
                b"form_key=&words=x",
                f"form_key={theirs}&words=x".encode(),
                b"\xff\xfe",
                b"a=b&" * 30,
            ):
                assert (await first.ask("POST", VA + path, body)).status in {400, 403}
        assert len(town.site_log("va")) == size
        assert (await town.asked("va", permit.id))["state"] == "valid"

    town.play(scene)


@pytest.mark.promise(3)
def test_the_desk_reads_the_pages_and_may_do_nothing_on_them(town, fed):
    async def scene(town):
        permit = await town.permit()
        await town.enrol("va", "Dora Desk", "desk")
        browser = await browser_of(town, fed, "desk@va")
        page = await text_of(browser, f"/officer/requests/{permit.id}")
        assert "Dora Desk, desk" in page
        assert "<form" not in page
        key = await form_key_of(town, browser)
        for path in ("/officer/pause", "/officer/resume", f"/officer/requests/{permit.id}/refuse"):
            reply = await browser.ask("POST", VA + path, f"form_key={key}&words=no".encode())
            assert reply.status == 403
            assert b"This needs the role `officer`" in reply.body
        refused = [e["action"] for e in town.site_log("va") if e["kind"] == "refused"]
        assert refused == ["Pause", "Resume", "Pause"]
        assert (await town.asked("va", permit.id))["state"] == "valid"

    town.play(scene)


async def form_key_of(_town, browser):
    """What the desk's own forms would carry, if they had any."""
    from paroma.trust.identity import people

    return people.form_token(next(iter(browser.jar[VA].values())))


def test_staff_and_health_say_what_is_the_case(town, fed):
    async def scene(town):
        for _ in range(200):
            if town.sites["va"].heard is not None:
                break
            await asyncio.sleep(0.05)
        browser = await browser_of(town, fed)
        staff = await text_of(browser, "/officer/staff")
        assert "One person can act for this hospital." in staff
        assert town.someone("officer@va").person in staff
        health = await text_of(browser, "/officer/health")
        assert "The site is sound, and talks with the hub." in health
        assert "less than a minute ago" in health
        assert "no contradiction so far" in health
        assert health.count("status good") == 2  # the line and the federation log: nothing vouches for its own log here
        unknown = await text_of(browser, "/officer?state=lost", 400)
        assert "There is no such state of a request" in unknown
        assert "No request is refused." in await text_of(browser, "/officer?state=refused")
        await text_of(browser, "/officer/requests/permit-none", 403)

    town.play(scene)


def test_a_new_version_is_shown_beside_what_was_approved_before(town, fed):
    async def scene(town):
        first = await town.permit()
        second = await asked(town, study=first.study, least_patients=12, features=("age", "sex", "num"))
        page = await text_of(await browser_of(town, fed), f"/officer/requests/{second.id}")
        assert "Changed since what you approved before" in page
        assert '<ins><span class="hide">added: </span>+ least_patients: 12</ins>' in page
        assert '<del><span class="hide">removed: </span>- features: chol</del>' in page

    town.play(scene)


def test_two_permits_that_ask_for_the_same_differ_in_nothing(town):
    async def scene(town):
        permit = await asked(town)
        assert compared(permit, changed(permit, id="permit-other")) == []

    town.play(scene)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("opt-out 7K2M-QX4P of 2026-11-24", "said no"),
        ("consent c-17: denies it", "their consent denies it, or is unclear"),
        ("no consent", "no consent that covers this"),
    ],
)
def test_a_rule_is_told_without_what_names_a_patient(rule, says):
    assert in_words(rule) == says
