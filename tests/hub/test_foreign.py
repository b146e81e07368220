"""What is somebody else's answers as what is not there: the same status, the same bytes, the same line in the log."""

import pytest

from paroma.learn.algorithms.query import Statistics

NEVER = {"run": "run-0000000000000000", "permit": "permit-0000000000000000", "study": "study-0000000000000000"}


def asked(what: str, name: str, wish):
    """Every request of a person that names a run, a permit or a study."""
    query = {"type": "statistics", "features": ["age"]}
    return {
        "run": [
            ("GET", f"/api/runs/{name}", None),
            ("GET", f"/api/runs/{name}?wait=1&after=0", None),
            ("POST", f"/api/runs/{name}/stop", {}),
        ],
        "permit": [
            ("GET", f"/api/applications/{name}", None),
            ("GET", f"/api/applications/{name}?wait=1&unless=valid", None),
            ("POST", f"/api/permits/{name}/revoke", {"reason": "none"}),
            ("POST", "/api/runs", {"permit": name, "query": query}),
        ],
        "study": [("POST", "/api/applications", wish(study=name))],
    }[what]


PAGES = ("/runs/{}", "/runs/{}.csv")


async def answers(who, requests):
    return [(await who.ask(method, path, body)) for method, path, body in requests]


def line(entry):
    """What is the same in two lines of the log, whatever was asked for when."""
    return {name: value for name, value in entry.items() if name not in {"at", "salt"}}


@pytest.mark.promise(3)
@pytest.mark.promise(4)
@pytest.mark.parametrize("role", ["scientist", "officer-to-be"])
def test_somebody_elses_and_none_look_the_same(town, fed, role):
    async def scene(town):
        permit = await town.permit()
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        real = {"run": run, "permit": permit.id, "study": permit.study}
        await town.enrol("hub", "Eve Stranger", "scientist" if role == "scientist" else "desk")
        stranger = town.someone("scientist@hub" if role == "scientist" else "desk@hub")
        for what, never in NEVER.items():
            if what == "study" and role != "scientist":
                continue
            size = len(town.hub_log())
            theirs = await answers(stranger, asked(what, real[what], town.wish))
            between = len(town.hub_log())
            none = await answers(stranger, asked(what, never, town.wish))
            log = town.hub_log()
            for (status, said), (status_none, said_none) in zip(theirs, none, strict=True):
                assert status == status_none in {403, 404}
                assert str(said).replace(real[what], never) == str(said_none)
            assert list(map(line, log[size:between])) == list(map(line, log[between:]))
            assert real[what] not in str(log[size:])

    town.play(scene)


@pytest.mark.promise(4)
def test_the_pages_of_somebody_elses_run_are_those_of_none(town, fed):
    async def scene(town):
        permit = await town.permit()
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        await town.enrol("hub", "Eve Stranger", "scientist")
        _, said = await town.someone("scientist@hub").ask("POST", "/people/browser-link", {"to": "/"})
        browser = fed.Browser(town)
        assert (await browser.ask("GET", said["url"])).status == 303
        for path in PAGES:
            theirs = await browser.ask("GET", fed.HUB_URL + path.format(run))
            none = await browser.ask("GET", fed.HUB_URL + path.format(NEVER["run"]))
            assert theirs.status == none.status == 403
            assert theirs.body.replace(run.encode(), NEVER["run"].encode()) == none.body

    town.play(scene)


@pytest.mark.promise(3)
def test_whoever_may_see_it_is_told_why_not_and_that_none_is_there(town):
    async def scene(town):
        permit = await town.permit()
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        auditor = town.someone("auditor@hub")
        status, said = await auditor.ask("POST", f"/api/runs/{run}/stop", {})
        assert status == 403
        assert "applicant" in said["detail"]
        status, said = await auditor.ask("GET", f"/api/runs/{NEVER['run']}")
        assert status == 403
        assert "there is no run" in said["detail"]

    town.play(scene)
