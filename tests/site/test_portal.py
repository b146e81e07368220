"""The patient's pages and the officer's routes: who gets in, what they see, and what nobody sees."""

import pytest

from paroma.learn.algorithms.query import Statistics
from paroma.site.app import make_app

ME = "https://va.test:443"

OFFICER, DESK, PATIENT, OPEN, SIGNED = "officer", "desk", "patient", "open", "token"
ROUTES = {
    ("POST", "/line/token"): OPEN,
    ("POST", "/people/enrol"): OPEN,
    ("GET", "/open/{code}"): OPEN,
    ("GET", "/static/{name}"): OPEN,
    ("POST", "/people/browser-link"): SIGNED,
    ("GET", "/api/me/sessions"): SIGNED,
    ("POST", "/api/me/sessions/{session}/end"): SIGNED,
    ("GET", "/api/me/acts"): SIGNED,
    ("GET", "/login"): OPEN,
    ("GET", "/login/enrol/{code}"): OPEN,
    ("GET", "/login/callback"): OPEN,
    ("GET", "/login/keys"): OPEN,
    ("POST", "/logout/back-channel"): OPEN,
    ("GET", "/api/site"): OFFICER,
    ("GET", "/api/requests"): OFFICER,
    ("POST", "/api/requests/{permit}/sign"): OFFICER,
    ("POST", "/api/requests/{permit}/refuse"): OFFICER,
    ("GET", "/api/policies"): OFFICER,
    ("GET", "/api/policies/decisions"): OFFICER,
    ("GET", "/api/policies/decisions/{decision}"): OFFICER,
    ("POST", "/api/policies/explain"): OFFICER,
    ("POST", "/api/policies/replay"): OFFICER,
    ("GET", "/api/policies/differences"): OFFICER,
    ("POST", "/api/policies/packs"): OFFICER,
    ("POST", "/api/policies/packs/{pack}/activate"): OFFICER,
    ("POST", "/api/policies/packs/{pack}/retire"): OFFICER,
    ("GET", "/api/policies/house"): OFFICER,
    ("POST", "/api/policies/house"): OFFICER,
    ("POST", "/api/patients/{patient}/erase"): OFFICER,
    ("POST", "/api/permits/{permit}/revoke"): OFFICER,
    ("POST", "/api/people/{person}/revoke"): OFFICER,
    ("POST", "/api/pause"): OFFICER,
    ("POST", "/api/resume"): OFFICER,
    ("POST", "/api/patients/{patient}/link"): DESK,
    ("POST", "/api/patients/{patient}/withdraw"): DESK,
    ("GET", "/officer"): OFFICER,
    ("GET", "/officer/requests/{permit}"): OFFICER,
    ("POST", "/officer/requests/{permit}/refuse"): OFFICER,
    ("GET", "/officer/permits/{permit}/end"): OFFICER,
    ("POST", "/officer/permits/{permit}/end"): OFFICER,
    ("GET", "/officer/staff"): OFFICER,
    ("GET", "/officer/health"): OFFICER,
    ("POST", "/officer/pause"): OFFICER,
    ("POST", "/officer/resume"): OFFICER,
    ("GET", "/me"): PATIENT,
    ("GET", "/me/uses"): PATIENT,
    ("GET", "/me/withdraw"): PATIENT,
    ("POST", "/me/withdraw"): PATIENT,
    ("POST", "/me/give"): PATIENT,
    ("GET", "/me/receipts/{number}"): PATIENT,
}


def key_on(page: str) -> str:
    return page.split('name="form_key" value="')[1].split('"', maxsplit=1)[0]


def test_every_route_has_a_row_and_every_row_a_route(town):
    async def scene(town):
        app = make_app(town.sites["va"])._app
        found = {(m, r.path) for r in app.routes for m in (r.methods or ()) if m != "HEAD"}
        assert found == set(ROUTES)

    town.play(scene, sites=("va",))


@pytest.mark.promise(3)
def test_every_route_answers_only_those_who_may(town, fed):
    async def scene(town):
        patient = town.patients("va")[0]
        size = len(town.site_log("va"))
        nobody, someone = fed.Browser(town), await town.patient_browser("va", patient)
        desk = await town.enrol("va", "Dora Desk", "desk")
        officer = town.someone("officer@va")
        wrong = []
        for (method, path), who in ROUTES.items():
            url = path.replace("{permit}", "permit-none").replace("{patient}", patient)
            url = url.replace("{number}", "AAAA-AAAA").replace("{code}", "none").replace("{name}", "none.css")
            bare = await nobody.ask(method, ME + url)
            if who != OPEN and bare.status not in {401, 403}:
                wrong.append((method, path, "nobody", bare.status))
            if who in {OFFICER, DESK, SIGNED}:
                by_patient = await someone.ask(method, ME + url)
                if by_patient.status not in {401, 403}:
                    wrong.append((method, path, "patient", by_patient.status))
            if who == PATIENT:
                status, _ = await officer.ask(method, url)
                if status not in {401, 403}:
                    wrong.append((method, path, "officer", status))
            if who == OFFICER and method == "POST":
                status, _ = await desk.ask(method, url, {"reason": "x"} if path.endswith("refuse") else None)
                if status not in {400, 403} or (path == "/api/pause" and status != 403):
                    wrong.append((method, path, "desk", status))
        assert wrong == [], "\n".join(map(str, wrong))
        acts = {e["kind"] for e in town.site_log("va")[size:]}
        assert not acts & {"paused", "resumed", "withdrawal", "given", "permit-signed"}

    town.play(scene)


@pytest.mark.promise(4)
def test_a_patients_link_opens_in_one_browser_and_no_second(town, fed):
    async def scene(town):
        patient = town.patients("va")[0]
        _, said = await town.someone("officer@va").ask("POST", f"/api/patients/{patient}/link")
        first, second = fed.Browser(town), fed.Browser(town)
        assert (await first.ask("GET", said["url"])).status == 303
        assert (await first.ask("GET", said["url"])).status == 303  # a reload
        refused = await second.ask("GET", said["url"])
        never = await second.ask("GET", ME + "/open/never-made")
        assert refused.status == never.status == 403
        assert refused.body == never.body
        assert (await second.ask("GET", ME + "/me")).status == 403
        assert patient not in said["url"]

    town.play(scene, sites=("va",))


def test_a_session_ends_after_a_quarter_of_an_hour(town):
    async def scene(town):
        browser = await town.patient_browser("va", town.patients("va")[0])
        assert (await browser.ask("GET", ME + "/me")).status == 200
        town.clock.ahead += 15 * 60 + 1
        ended = await browser.ask("GET", ME + "/me")
        assert ended.status == 403
        assert b"your time has passed" in ended.body

    town.play(scene, sites=("va",))


@pytest.mark.promise(2)
def test_a_form_of_another_page_withdraws_nobody(town):
    async def scene(town):
        patient, other = town.patients("va")[:2]
        browser = await town.patient_browser("va", patient)
        strange = await town.patient_browser("va", other)
        key = key_on((await strange.ask("GET", ME + "/me/withdraw")).body.decode())
        for body in (
            b"what=all",
            b"form_key=&what=all",
            f"form_key={key}&what=all".encode(),
            b"\xff\xfe",
            b"a=b&" * 30,
        ):
            assert (await browser.ask("POST", ME + "/me/withdraw", body)).status in {400, 403}
        mine = key_on((await browser.ask("GET", ME + "/me/withdraw")).body.decode())
        unknown = await browser.ask("POST", ME + "/me/withdraw", f"form_key={mine}&what=study-none".encode())
        assert unknown.status == 400
        assert not [e for e in town.site_log("va") if e["kind"] == "withdrawal"]
        too_long = await browser.ask("POST", ME + "/me/withdraw", b"a" * 5000)
        assert too_long.status == 400

    town.play(scene, sites=("va",))


@pytest.mark.promise(4)
def test_anothers_receipt_looks_like_none(town):
    async def scene(town):
        patient, other = town.patients("va")[:2]
        browser = await town.patient_browser("va", patient)
        key = key_on((await browser.ask("GET", ME + "/me/withdraw")).body.decode())
        reply = await browser.ask("POST", ME + "/me/withdraw", f"form_key={key}&what=all".encode())
        receipt = ME + reply.headers["location"]
        assert (await browser.ask("GET", receipt)).status == 200
        strange = await town.patient_browser("va", other)
        theirs, none = await strange.ask("GET", receipt), await strange.ask("GET", ME + "/me/receipts/AAAA-AAAA")
        assert theirs.status == none.status == 404
        assert theirs.body == none.body
        # taking it back is possible, and in the log
        assert (await browser.ask("POST", ME + "/me/give", f"form_key={key}".encode())).status == 303
        assert [e["kind"] for e in town.site_log("va")][-1] in {"given", "allowed"}

    town.play(scene, sites=("va",))


@pytest.mark.promise(4)
def test_patient_pages_have_no_script_and_escape_what_others_wrote(town):
    async def scene(town):
        evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
        permit = await town.permit(title=evil)
        report = await town.run(permit, Statistics(features=("age",)))
        assert report["status"] == "finished"
        browser = await town.patient_browser("va", town.patients("va")[0])
        for path in ("/me", "/me/uses", "/me/withdraw"):
            reply = await browser.ask("GET", ME + path)
            text = reply.body.decode()
            assert reply.status == 200
            assert "<script" not in text
            assert "<img" not in text
            policy = reply.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src" in policy
        assert "&lt;script" in (await browser.ask("GET", ME + "/me/uses")).body.decode()

    town.play(scene)


@pytest.mark.promise(2)
def test_the_desk_writes_down_a_no_and_only_for_a_patient_of_the_house(town):
    async def scene(town):
        desk = await town.enrol("va", "Dora Desk", "desk")
        patient = town.patients("va")[0]
        status, said = await desk.ask("POST", f"/api/patients/{patient}/withdraw")
        assert status == 201
        assert said["seconds"] < 1.0
        status, unknown = await desk.ask("POST", "/api/patients/patient-nobody/withdraw")
        assert status in {400, 403, 404}
        assert unknown["do"]
        assert len([e for e in town.site_log("va") if e["kind"] == "withdrawal"]) == 1

    town.play(scene, sites=("va",))


CLOSED = (
    '@id("closed") @because("closed for good") @to_change("let the officer open it") @change("proven = true") '
    "forbid(principal is Patient, action, resource);"
)


@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_a_policy_can_close_a_patients_pages_and_never_stops_a_no(town):
    """Reading and saying yes are decided and refusals stand in the log; a no is carried out whatever policies say."""
    from paroma.trust.policy import decide, packs

    async def scene(town):
        patient = town.patients("va")[0]
        browser, site = await town.patient_browser("va", patient), town.sites["va"]
        schema = decide.schema_text()
        base = packs.released("base").text
        site.gate.desk.policies = decide.assemble(decide.engine.read_rules(base + CLOSED), schema)
        size = len(town.site_log("va"))
        for path in ("/me", "/me/uses", "/me/receipts/AAAA-AAAA"):
            assert (await browser.ask("GET", ME + path)).status == 403
        form = await browser.ask("GET", ME + "/me/withdraw")
        key = key_on(form.body.decode())
        assert (await browser.ask("POST", ME + "/me/give", f"form_key={key}".encode())).status == 403
        done = await browser.ask("POST", ME + "/me/withdraw", f"form_key={key}&what=all".encode())
        assert done.status == 303, done.body
        log = town.site_log("va")[size:]
        said = [(e["kind"], e.get("action"), e.get("policy")) for e in log]
        assert said == [
            *[("refused", "ReadOwnUses", "closed")] * 3,
            ("refused", "Give", "closed"),
            ("withdrawal", None, None),
            ("carried-out-anyway", "Withdraw", "closed"),
        ]
        assert {e["principal"] for e in log if "principal" in e} == {"patient"}
        assert patient not in str(log)

    town.play(scene, sites=("va",))


@pytest.mark.parametrize(
    ("phone", "hours", "there", "not_there"),
    [
        ("", "", ["Questions? Ask at our desk."], ["Call us", "<span></span>", "tel:"]),
        (" ", " ", ["Questions? Ask at our desk."], ["Call us", "<span></span>", "tel:", "<span> </span>"]),
        ("+1 216 555-0100", "", ["Call us: +1 216 555-0100", 'href="tel:+12165550100"'], ["<span></span>"]),
        ("extension 5100", "", ["Call us: extension 5100"], ["tel:"]),
    ],
)
def test_a_help_line_that_is_not_set_leaves_no_empty_line(town, phone, hours, there, not_there):
    import dataclasses

    async def scene(town):
        site = town.sites["va"]
        site.settings = dataclasses.replace(site.settings, phone=phone, hours=hours)
        browser = await town.patient_browser("va", town.patients("va")[0])
        text = (await browser.ask("GET", ME + "/me")).body.decode()
        assert all(one in text for one in there)
        assert not any(one in text for one in not_there)

    town.play(scene, sites=("va",))


def test_a_patient_reads_the_hospitals_time_and_one_line_for_a_run(town):
    import dataclasses
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from paroma.learn.algorithms.query import Logistic, Outcome

    async def scene(town):
        site = town.sites["va"]
        tokyo = site.settings = dataclasses.replace(site.settings, timezone="Asia/Tokyo")
        permit = await town.permit()
        fit = Logistic(outcome=Outcome(feature="num"), features=("age", "chol"), ridge=1.0)
        report = await town.run(permit, fit)
        assert report["status"] == "finished"
        browser = await town.patient_browser("va", town.patients("va")[0])
        said = (await browser.ask("GET", ME + "/me/uses")).body.decode()
        now = datetime.fromtimestamp(town.clock.now(), ZoneInfo("Asia/Tokyo"))
        rounds = len(report["progress"])
        assert f"You were counted in {rounds} rounds (1 to {rounds}) on {now.day} {now:%B %Y}." in said
        assert "UTC" not in said
        key = key_on((await browser.ask("GET", ME + "/me/withdraw")).body.decode())
        done = await browser.ask("POST", ME + "/me/withdraw", f"form_key={key}&what=all".encode())
        receipt = (await browser.ask("GET", ME + done.headers["location"])).body.decode()
        assert "Times are those of Tokyo." in receipt
        assert f"counted you in {rounds} rounds (1 to {rounds}) on {now.day} {now:%B %Y}, finished at" in receipt
        assert "Those sums stay." in receipt
        assert "UTC" not in receipt
        assert tokyo.zone == ZoneInfo("Asia/Tokyo")

    town.play(scene)
