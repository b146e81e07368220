"""Catalogue, studies, permits and log as pages: what stands in the address, what each role sees, and what nobody sees."""

import csv
import io
import re
from html import unescape

import pytest

from paroma.hub.api.catalogue_pages import fits, view_of
from paroma.lab import heart
from paroma.learn.algorithms.query import Statistics
from paroma.trust.permit import permit as permits
from paroma.web.console.catalogue import Sought

HUB = "https://hub.test:443"
HOSTILE = "<script>alert(1)</script>"
PATHS = ("/catalogue", "/catalogue.csv", "/data-sets/heart", "/studies", "/permits/permit-none", "/timeline")


async def browser_of(town, fed, who):
    made = fed.Browser(town)
    status, said = await town.someone(who).ask("POST", "/people/browser-link", {"to": "/catalogue"})
    assert status == 201, said
    assert (await made.ask("GET", said["url"])).status == 303
    return made


async def text_of(browser, path, status=200):
    reply = await browser.ask("GET", HUB + path)
    assert reply.status == status, reply.body
    return unescape(reply.body.decode())


@pytest.mark.promise(3)
def test_nobody_without_a_session_sees_a_page(town, fed):
    async def scene(town):
        stranger = fed.Browser(town)
        for path in PATHS:
            reply = await stranger.ask("GET", HUB + path)
            assert reply.status == 403
            assert b"You are not signed in here" in reply.body
            assert b"Heart disease" not in reply.body

    town.play(scene, sites=())


def test_the_catalogue_is_filtered_by_its_address_and_comes_as_csv(town, fed):
    async def scene(town):
        browser = await browser_of(town, fed, "scientist@hub")
        described = heart.data_set()
        all_of_it = await text_of(browser, "/catalogue")
        assert "One data set you can apply for." in all_of_it
        assert described.title in all_of_it
        assert "cleveland, hungarian, switzerland, va" in all_of_it
        assert described.title in await text_of(browser, f"/catalogue?q={described.features[0].name}&kind=number")
        for query in ("q=nosuchword", "kind=genetic"):
            none = await text_of(browser, f"/catalogue?{query}")
            assert "No data set holds what you look for." in none
            assert "Show all data sets" in none
        refused = await text_of(browser, "/catalogue?purpose=marketing")
        assert "Nothing here may be used for this." in refused
        assert "Would pass:" in refused
        assert "Art. 54" in refused
        for query in ("purpose=fun", "kind=odd", f"q={'a' * 101}"):
            assert "This is not shown." in await text_of(browser, f"/catalogue?{query}", 400)

        reply = await browser.ask("GET", f"{HUB}/catalogue.csv?kind=number")
        assert reply.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
        assert [row["variable"] for row in rows] == [f.name for f in described.features]
        assert list(csv.reader(io.StringIO(await text_of(browser, "/catalogue.csv?purpose=marketing"))))[1:] == []

        page = await text_of(browser, "/data-sets/heart")
        assert all(f"<code>{feature.name}</code>" in page for feature in described.features)
        assert f'paroma study apply "TITLE" --data-set {described.name}' in page
        assert "no site offers the data set" in (await text_of(browser, "/data-sets/none", 400)).lower()
        acts = (await town.someone("scientist@hub").ask("GET", "/api/me/acts"))[1]
        assert "Apply" not in {act["action"] for act in acts}  # looking is no act

    town.play(scene)


@pytest.mark.promise(3)
def test_each_person_sees_the_studies_that_the_gate_lets_them_see(town, fed):
    async def scene(town):
        hers = await browser_of(town, fed, "scientist@hub")
        assert "You have no study yet." in await text_of(hers, "/studies")
        permit = await town.permit(title=f"Hearts {HOSTILE}")
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        raw = (await hers.ask("GET", HUB + "/studies")).body.decode()
        assert HOSTILE not in raw
        assert permit.title in unescape(raw)
        assert "One permit holds, none wait for signatures." in raw
        page = (await hers.ask("GET", f"{HUB}/permits/{permit.id}")).body.decode()
        assert HOSTILE not in page
        assert permits.digest(permit) in page
        assert f"/runs/{run}" in page
        assert f"paroma permit show {permit.id}" in page
        assert page.count("signed</span>") == 4
        assert f"{HUB}/permits/{permit.id}" in page.replace(":443:443", ":443")

        auditors = await browser_of(town, fed, "auditor@hub")
        assert permit.title in await text_of(auditors, "/studies")
        assert permit.title in await text_of(auditors, f"/permits/{permit.id}")
        operators = await browser_of(town, fed, "operator@hub")
        assert "Nobody has applied yet." in await text_of(operators, "/studies")

        await town.enrol("hub", "Eve Stranger", "scientist")
        eves = await browser_of(town, fed, "scientist@hub")
        assert permit.title not in await text_of(eves, "/studies")
        theirs, none = (
            await text_of(eves, f"/permits/{permit.id}", 403),
            await text_of(eves, "/permits/permit-none", 403),
        )
        assert theirs.replace(permit.id, "permit-none") == none

    town.play(scene)


@pytest.mark.promise(4)
def test_the_log_is_told_in_plain_words_and_filtered_by_its_address(town, fed):
    async def scene(town):
        permit = await town.permit()
        await town.run(permit, Statistics(features=("age",)))
        browser = await browser_of(town, fed, "scientist@hub")
        page = await text_of(browser, "/timeline")
        size = int(re.search(r"(\d+) entries stand in the federation’s log", page)[1])
        assert size == len(town.hub_log())
        assert "was answered with one sum" in page
        assert "{" not in re.sub(r"<meta[^>]*>", "", page)
        signed = await text_of(browser, "/timeline?kind=permit-signed&q=VA")
        assert re.findall(r"The officer of (\w+) signed", signed) == ["va"]
        assert "Nothing here is like that." in await text_of(browser, "/timeline?q=nosuchword")
        early = await text_of(browser, "/timeline?before=3")
        assert re.findall(r'class="end">(\d+)</td>', early) == ["2", "1", "0"]
        for query in ("kind=odd", "before=x", "before=-1", "before=²", f"q={'a' * 101}"):
            assert "This is not shown." in await text_of(browser, f"/timeline?{query}", 400)
        assert "Older entries" not in early

    town.play(scene)


def test_a_long_log_goes_on_by_links_that_leave_nothing_out(town, fed):
    async def scene(town):
        await town.hub.store.write(
            lambda tx: [town.hub.log.write(tx, "member-online", site=f"site-{number}") for number in range(120)]
        )
        browser = await browser_of(town, fed, "operator@hub")
        found, query = [], "?kind=member-online&q=site-"
        while query:
            page = await text_of(browser, f"/timeline{query}")
            found += re.findall(r"site-(\d+) was heard again", page)
            link = re.search(r'href="/timeline(\?[^"]*before=\d+)"', page)
            query = link and link[1]
        assert found == [str(number) for number in range(119, -1, -1)]

    town.play(scene, sites=())


@pytest.mark.parametrize(
    ("text", "kind", "holds"),
    [
        ("", "", True),
        ("HEART cholesterol", "", True),
        ("heart liver", "", False),
        ("", "flag", True),
        ("", "genetic", False),
    ],
)
def test_a_data_set_fits_where_every_word_and_the_kind_are_found(text, kind, holds):
    row = view_of(heart.data_set(), (), {})
    assert fits(row, Sought(text=text, purpose="", kind=kind, query="")) is holds
