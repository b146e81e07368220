"""Every route of the hub, asked by everybody: by nobody, by each role, and by a stranger to the object.

A route that is new has no row in `ROUTES`, and the first test is red until somebody has said who may use it.
"""

import pytest

from paroma.hub.app import make_app
from paroma.lab import heart
from paroma.learn.algorithms.query import Statistics

PEOPLE = ("scientist", "committee", "operator", "auditor")
OPEN = "open"  # whoever asks: it tells nothing that is not public, or proves itself in another way
PAGE = "page"  # a browser's session
SITES = "sites"  # members
NOTHING = b""
OWN = {"scientist"}

# (method, path) -> who may; for people the roles that may, where the object is the scientist's own
ROUTES: dict[tuple[str, str], object] = {
    ("GET", "/federation/authority.pem"): OPEN,
    ("POST", "/federation/join"): OPEN,
    ("POST", "/line/token"): OPEN,
    ("POST", "/people/enrol"): OPEN,
    ("GET", "/open/{code}"): OPEN,
    ("GET", "/static/{name}"): OPEN,
    ("POST", "/line/exchange"): SITES,
    ("GET", "/line/uploads/{whole}"): SITES,
    ("PUT", "/line/uploads/{whole}"): SITES,
    ("POST", "/people/browser-link"): set(PEOPLE),
    ("GET", "/api/members"): set(PEOPLE),
    ("GET", "/api/data-sets"): set(PEOPLE),
    ("GET", "/api/applications"): set(PEOPLE),
    ("POST", "/api/applications"): OWN,
    ("GET", "/api/applications/{permit}"): {"scientist", "committee", "auditor"},
    ("POST", "/api/members/{site}/quarantine"): {"operator"},
    ("POST", "/api/members/{site}/release"): {"operator"},
    ("POST", "/api/members/{site}/remove"): {"operator"},
    ("POST", "/api/people/{person}/revoke"): {"operator"},
    ("POST", "/api/keys/{key}/revoke"): {"operator"},
    ("POST", "/api/permits/{permit}/revoke"): {"scientist", "committee", "operator"},
    ("GET", "/api/runs"): set(PEOPLE),
    ("POST", "/api/runs"): OWN,
    ("GET", "/api/runs/{run}"): {"scientist", "committee", "operator", "auditor"},
    ("POST", "/api/runs/{run}/stop"): {"scientist", "operator"},
    ("GET", "/api/policies"): {"operator", "auditor"},
    ("GET", "/api/policies/decisions"): {"operator", "auditor"},
    ("GET", "/api/policies/decisions/{decision}"): {"operator", "auditor"},
    ("POST", "/api/policies/explain"): {"operator", "auditor"},
    ("POST", "/api/policies/replay"): {"operator", "auditor"},
    ("GET", "/api/policies/differences"): {"operator", "auditor"},
    ("POST", "/api/policies/packs"): {"operator"},
    ("POST", "/api/policies/packs/{pack}/activate"): {"operator"},
    ("POST", "/api/policies/packs/{pack}/retire"): {"operator"},
    ("GET", "/log-keys"): set(PEOPLE),
    ("GET", "/log/{path:path}"): set(PEOPLE),
    ("POST", "/api/bundles"): OWN,
    ("GET", "/api/me/sessions"): set(PEOPLE),
    ("POST", "/api/me/sessions/{session}/end"): set(PEOPLE),
    ("GET", "/api/me/acts"): set(PEOPLE),
    ("GET", "/me/sessions"): PAGE,
    ("POST", "/me/sessions/{session}/end"): PAGE,
    ("GET", "/login"): OPEN,
    ("GET", "/login/enrol/{code}"): OPEN,
    ("GET", "/login/callback"): OPEN,
    ("GET", "/login/keys"): OPEN,
    ("POST", "/logout/back-channel"): OPEN,
    ("GET", "/"): PAGE,
    ("GET", "/members"): PAGE,
    ("GET", "/runs/{run}"): PAGE,
    ("GET", "/runs/{run}.csv"): PAGE,
    ("GET", "/catalogue"): PAGE,
    ("GET", "/catalogue.csv"): PAGE,
    ("GET", "/data-sets/{data_set}"): PAGE,
    ("GET", "/studies"): PAGE,
    ("GET", "/permits/{permit}"): PAGE,
    ("GET", "/timeline"): PAGE,
}


def routes_of(hub) -> set[tuple[str, str]]:
    app = make_app(hub)._app
    return {(m, r.path) for r in app.routes for m in (r.methods or ()) if m != "HEAD"}


def test_every_route_has_a_row_and_every_row_a_route(town):
    async def scene(town):
        assert routes_of(town.hub) == set(ROUTES)

    town.play(scene, sites=())


def filled(path: str, permit: str, run: str) -> str:
    fixed = {
        "{permit}": permit,
        "{run}.csv": f"{run}.csv",
        "{run}": run,
        "{path:path}": "checkpoint",
        "{whole}": "0" * 64,
        "{code}": "0" * 64,
        "{name}": "paroma.css",
    }
    for name, value in fixed.items():
        path = path.replace(name, value)
    return path


def body_for(path: str, permit: str) -> object:
    if path == "/api/runs":
        return {"permit": permit, "query": {"type": "statistics", "features": ["age"]}}
    if path == "/api/applications":
        return {
            "title": "Another",
            "purpose": "statistics",
            "data_set": heart.data_set().id,
            "features": ["age"],
            "algorithms": ["statistics"],
            "benefit": "none",
        }
    return {"to": "/"} if path == "/people/browser-link" else None


@pytest.mark.promise(3)
def test_every_route_answers_only_those_who_may(town):
    async def scene(town):
        await town.enrol("hub", "Cora Lind", "committee")
        permit = await town.permit()
        run = (await town.run(permit, Statistics(features=("age",))))["run"]
        wrong = []
        everybody = {role: town.someone(f"{role}@hub") for role in PEOPLE}
        await town.enrol("hub", "Eve Stranger", "scientist")
        stranger = town.someone("scientist@hub")
        site = town.sites["cleveland"].caller
        browser = _browser(town)
        for (method, path), who in sorted(ROUTES.items(), key=lambda row: "revoke" in row[0][1] or "stop" in row[0][1]):
            url = filled(path, permit.id, run)
            bare = await browser.ask(method, "https://hub.test:443" + url)
            if who != OPEN and bare.status not in {401, 403}:
                wrong.append((method, path, "nobody", bare.status))
            if bare.status >= 500:
                wrong.append((method, path, "nobody", bare.status))
            if who in (OPEN, PAGE):
                continue
            for role, person in everybody.items():
                status, said = await person.ask(method, url, body_for(path, permit.id) if method == "POST" else None)
                let_in = status not in {401, 403} or (status == 403 and said.get("title") == "RunOver")
                if let_in != (isinstance(who, set) and role in who) or status >= 500:
                    wrong.append((method, path, role, status, said))
            if "{permit}" in path or "{run}" in path or (path == "/api/runs" and method == "POST"):
                status, _ = await stranger.ask(method, url, body_for(path, permit.id))
                if status not in {403, 404}:
                    wrong.append((method, path, "stranger", status))
            reply = await site.call(method, url, b"", wait=10.0)
            may = who == SITES or path == "/log/{path:path}"
            if (reply.status not in {401, 403}) != may or reply.status >= 500:
                wrong.append((method, path, "site", reply.status, reply.body[:100]))
        assert wrong == [], "\n".join(map(str, wrong))
        assert (await stranger.ask("GET", "/api/runs"))[1] == []
        assert (await stranger.ask("GET", "/api/applications"))[1] == []

    town.play(scene)


def _browser(town):
    from paroma_test_federation import Browser

    return Browser(town)


@pytest.mark.promise(3)
def test_a_refusal_is_told_with_its_rule_and_stands_in_the_log(town):
    async def scene(town):
        auditor = town.someone("auditor@hub")
        status, said = await auditor.ask("POST", "/api/applications", town.wish())
        assert status == 403
        assert said["detail"]
        assert said["do"]
        entry = town.hub_log()[-1]
        assert (entry["kind"], entry["action"], entry["principal"]) == ("refused", "Apply", auditor.person)

    town.play(scene, sites=())


@pytest.mark.parametrize(
    "query", ["wait=²", "wait=9e99", "wait=1" + "0" * 5000, "after=²", "after=" + "9" * 5000, "wait=-1"]
)
def test_odd_numbers_in_an_address_do_no_harm(town, query):
    async def scene(town):
        from urllib.parse import quote

        scientist = town.someone("scientist@hub")
        status, _ = await scientist.ask("GET", "/api/runs/run-none?" + quote(query, safe="=&"))
        assert status in {403, 404}

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_a_page_of_another_program_cannot_act_with_a_browsers_session(town):
    async def scene(town):
        permit_free = town.someone("operator@hub")
        status, said = await permit_free.ask("POST", "/people/browser-link", {"to": "/"})
        assert status == 201
        browser = _browser(town)
        opened = await browser.ask("GET", said["url"])
        assert opened.status == 303
        assert (await browser.ask("GET", "https://hub.test:443/")).status == 200
        for headers in ({"origin": "https://evil.test"}, {"origin": "https://hub.test:8443"}, {"origin": "null"}):
            reply = await browser.ask("POST", "https://hub.test:443/api/permits/permit-x/revoke", **headers)
            assert reply.status == 403
        # a session makes no new session
        reply = await browser.ask("POST", "https://hub.test:443/people/browser-link", b'{"to":"/"}')
        assert reply.status == 401
        cookie = opened.headers["set-cookie"]
        for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
            assert word.lower() in cookie.lower()
        assert cookie.startswith("__Host-")

    town.play(scene, sites=())


@pytest.mark.promise(1)
def test_what_a_scientist_sees_of_a_run_names_no_hospitals_figures(town):
    async def scene(town):
        permit = await town.permit()
        report = await town.run(permit, Statistics(features=("age",)))
        text = str(report)
        for name in town.members:
            assert town.sites[name].membership.site not in text
        assert report["result"]["features"][0]["count"] >= permit.least_patients

    town.play(scene)
