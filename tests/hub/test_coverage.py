"""The table of what decides each route is true: each route is called by somebody who may, and that action is what was decided.

`docs/reference/coverage.toml` holds the table; the reference's own test sees to it that no route, message or job lacks a row.
"""

import tomllib
from pathlib import Path

import pytest
from sqlalchemy import func, select

from paroma.lab import heart
from paroma.learn.algorithms.query import Statistics
from paroma.trust.policy.facts import TYPES
from paroma.trust.policy.tables import DECISIONS

ROWS = tomllib.loads((Path(__file__).parents[2] / "docs" / "reference" / "coverage.toml").read_text())
STOPS = ("revoke", "stop", "remove", "quarantine", "release", "erase", "pause")  # last: they end what others need


async def decided(program) -> dict[str, int]:
    """How often each action was decided so far."""
    await program.gate.desk.keep(program.store)
    counted = select(DECISIONS.c.action, func.sum(DECISIONS.c.times)).group_by(DECISIONS.c.action)
    return await program.store.read(lambda tx: {action: int(times) for action, times in tx.execute(counted)})


def in_order(rows: dict[str, str]) -> list[tuple[str, str, str]]:
    found = [(*route.split(" ", 1), action) for route, action in rows.items() if action in TYPES]
    return sorted(found, key=lambda row: (any(stop in row[1] for stop in STOPS), row[1]))


@pytest.mark.promise(3)
def test_every_route_of_the_hub_is_decided_by_the_action_in_its_row(town, fed):
    bodies = {
        "/api/applications": {
            "title": "Another", "purpose": "statistics", "data_set": heart.data_set().id, "features": ["age"],
            "algorithms": ["statistics"], "benefit": "none",
        },
    }  # fmt: skip

    async def scene(town):
        permit = await town.permit()
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        bodies["/api/runs"] = {"permit": permit.id, "query": {"type": "statistics", "features": ["age"]}}
        wrong = []
        for method, path, action in in_order(ROWS["hub"]["routes"]):
            url = path.replace("{permit}", permit.id).replace("{run}", run).replace("{path:path}", "checkpoint")
            url = url.replace("{whole}", "0" * 64).replace("{site}", town.sites["va"].membership.site)
            url = url.replace("{person}", town.someone("auditor@hub").person).replace("{key}", "0" * 43)
            before = (await decided(town.hub)).get(action, 0)
            if path == "/federation/join":
                await town.join(await town.invitation(), "fifth")
            elif path.startswith("/line/"):
                await town.sites["cleveland"].caller.call(method, url, b"", wait=10.0)
            elif not path.startswith(("/api", "/log")):
                browser = fed.Browser(town)
                _, link = await town.someone("operator@hub").ask("POST", "/people/browser-link", {"to": "/"})
                await browser.ask("GET", link["url"])
                await browser.ask(method, "https://hub.test:443" + url)
            else:
                role = "scientist" if action in {"Apply", "OpenRun"} else "operator"
                said = bodies.get(path) if method == "POST" else None
                who = town.someone(f"{role}@hub")
                await who.ask(method, url, said or ({"reason": "a test"} if method == "POST" else None))
            if (await decided(town.hub)).get(action, 0) <= before:
                wrong.append((method, path, action))
        assert wrong == [], wrong

    town.play(scene)


@pytest.mark.promise(3)
def test_every_route_of_a_site_is_decided_by_the_action_in_its_row(town, fed):
    me = "https://va.test:443"

    async def scene(town):
        site, officer = town.sites["va"], town.someone("officer@va")
        permit, desk = await town.permit(), await town.enrol("va", "Dora Desk", "desk")
        patient, other = town.patients("va")[:2]
        browser, wrong = await town.patient_browser("va", patient), []
        staff = fed.Browser(town)
        _, link = await officer.ask("POST", "/people/browser-link", {"to": "/officer"})
        await staff.ask("GET", link["url"])
        for method, path, action in in_order(ROWS["site"]["routes"]):
            url = path.replace("{permit}", permit.id).replace("{patient}", other).replace("{number}", "AAAA-AAAA")
            url = url.replace("{person}", desk.person)
            before = (await decided(site)).get(action, 0)
            if path.startswith("/me"):
                page = (await browser.ask("GET", me + "/me/withdraw")).body.decode()
                key = page.split('name="form_key" value="')[1].split('"', maxsplit=1)[0]
                await browser.ask(method, me + url, f"form_key={key}&what=all".encode() if method == "POST" else b"")
            elif path.startswith("/officer"):
                page = (await staff.ask("GET", me + "/officer")).body.decode()
                key = page.split('name="form_key" value="')[1].split('"', maxsplit=1)[0]
                await staff.ask(method, me + url, f"form_key={key}&words=a+test".encode() if method == "POST" else b"")
            elif path.endswith("/sign"):
                await town.sign("va", permit)
            else:
                await officer.ask(method, url, {"reason": "a test"} if method == "POST" else None)
            if (await decided(site)).get(action, 0) <= before:
                wrong.append((method, path, action))
        assert wrong == [], wrong

    town.play(scene)


@pytest.mark.promise(3)
def test_every_message_that_a_site_acts_on_was_decided_by_the_action_in_its_row(town):
    async def scene(town):
        permit = await town.permit()
        await town.run(permit, Statistics(features=("age",)))
        wanted = {action for action in ROWS["site"]["messages"].values() if action in TYPES}
        for name in town.members:
            assert wanted <= set(await decided(town.sites[name]))
        assert "Exchange" in await decided(town.hub)

    town.play(scene)
