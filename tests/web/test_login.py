"""People sign in at a provider that we did not write (npm `oidc-provider`), over real sockets, at a hub that runs by itself."""

import http.cookiejar
import json
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from paroma.hub import commands
from paroma.lab.processes import Program, command, free_port, listening

HOUSE = Path(__file__).parents[2]
BROUGHT = HOUSE / "build" / "provider" / "node_modules"
ACCOUNTS = {
    "lena": {"name": "Lena Vogt", "groups": ["staff", "research"]},
    "ann": {"name": "Ann Audit", "groups": ["audit"]},
    "cora": {"name": "Cora Lind", "groups": ["staff"]},
    "eve": {"name": "Eve Stranger", "groups": ["staff"]},
}


@dataclass(frozen=True)
class Running:
    """A hub and its provider. Both are processes of their own."""

    hub: str
    provider: str
    folder: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Started once for all tests here."""
    node = shutil.which("node")
    if node is None or not (BROUGHT / "oidc-provider").is_dir():
        pytest.skip("for want of npm `oidc-provider`: `sh tests/bring.sh npm:tests/web/provider`")
    home = tmp_path_factory.mktemp("login")
    port, provider_port = free_port(), free_port()
    made = commands.init(home / "hub", "Heart federation", port=port)
    provider = f"http://127.0.0.1:{provider_port}"
    with (home / "hub" / "hub.toml").open("a") as file:
        file.write(
            f'[login]\nissuer = "{provider}"\nclient = "paroma-hub"\nalgorithm = "ES256"\nclaim = "groups"\n'
            'roles = ["research=scientist", "audit=auditor"]\n'
        )
    script = BROUGHT.parent / "provider.mjs"
    shutil.copy(HOUSE / "tests" / "web" / "provider" / "provider.mjs", script)
    given = {
        "port": provider_port,
        "client": "paroma-hub",
        "redirect": f"{made.url}/login/callback",
        "backChannel": f"{made.url}/logout/back-channel",
        "keys": f"{made.url}/login/keys",
        "accounts": ACCOUNTS,
    }
    trusted = {"PATH": str(Path(node).parent), "NODE_EXTRA_CA_CERTS": str(home / "hub" / "tls" / "ca.pem")}
    there = Program("provider", [node, script, json.dumps(given)], home / "provider.log", trusted)
    hub = Program("hub", command("hub", "run", "--folder", home / "hub"), home / "hub.log")
    try:
        there.start(lambda: listening(provider_port), seconds=60)
        hub.start(lambda: listening(port), seconds=60)
        yield Running(made.url, provider, home)
    finally:
        hub.stop()
        there.stop()


class Surfer(urllib.request.HTTPRedirectHandler):
    """A browser without scripts: cookies, redirects, forms. `stop_at`: a redirect there is not followed, but told."""

    def __init__(self) -> None:
        self.stop_at = ""
        self.jar = http.cookiejar.CookieJar()
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # whom the hub's certificate names is not the question here
        self._opener = urllib.request.build_opener(
            self, urllib.request.HTTPCookieProcessor(self.jar), urllib.request.HTTPSHandler(context=trust)
        )

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if self.stop_at and self.stop_at in newurl:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def ask(self, url: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str, str]:
        """Status, body, and where it led."""
        body = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(url, body, headers)
        try:
            with self._opener.open(request, timeout=30) as reply:
                return reply.status, reply.read().decode(), reply.url
        except urllib.error.HTTPError as reply:
            with reply:
                return reply.code, reply.read().decode(), reply.headers.get("location", reply.url)

    def sign_in(self, start: str, login: str) -> tuple[int, str, str]:
        """Through the provider's two pages."""
        status, page, _ = self.ask(start)
        assert status == 200, page
        action = re.search('action="([^"]+)"', page)[1]
        status, page, _ = self.ask(action, {"prompt": "login", "login": login, "password": "anything"})
        assert status == 200, page
        return self.ask(re.search('action="([^"]+)"', page)[1], {"prompt": "consent"})


@pytest.mark.promise(3)
def test_who_has_a_role_by_their_group_signs_in_and_what_they_see_is_theirs(running):
    lena = Surfer()
    status, page, _ = lena.sign_in(f"{running.hub}/login?to=/me/sessions", "lena")
    assert (status, "You are signed in." in page) == (200, True), page
    assert 'content="0; url=/me/sessions"' in page
    status, page, _ = lena.ask(f"{running.hub}/me/sessions")
    assert status == 200
    assert "Lena Vogt" in page
    status, said, _ = lena.ask(f"{running.hub}/api/runs")
    assert (status, json.loads(said)) == (200, [])
    status, said, _ = lena.ask(f"{running.hub}/api/policies")  # not a scientist's
    assert (status, json.loads(said)["title"]) == (403, "Refused")


@pytest.mark.promise(3)
def test_an_account_that_nobody_enrolled_gets_nothing_and_an_operators_link_enrols_it(running):
    cora = Surfer()
    status, page, _ = cora.sign_in(f"{running.hub}/login", "cora")
    assert status == 403
    assert "nobody has enrolled this account here" in page
    assert cora.ask(f"{running.hub}/me/sessions")[0] == 403
    link = commands.enrol_link(running.folder / "hub", "Cora Lind", "committee", provider=True)
    status, page, _ = Surfer().sign_in(link, "cora")
    assert (status, "You are signed in." in page) == (200, True), page
    status, page, _ = Surfer().sign_in(link, "eve")  # the link is spent
    assert status == 403
    assert "this link was used before" in page
    again = Surfer()
    assert again.sign_in(f"{running.hub}/login", "cora")[0] == 200  # from now on without it
    assert len(json.loads(again.ask(f"{running.hub}/api/me/sessions")[1])) == 2


@pytest.mark.promise(3)
def test_an_answer_counts_once_in_the_browser_that_asked_and_unchanged(running):
    ann = Surfer()
    ann.stop_at = "/login/callback"
    status, _, back = ann.sign_in(f"{running.hub}/login", "ann")
    assert status == 303
    answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query))
    assert answer["iss"] == running.provider

    def shown_by(surfer, **changed):
        said = urllib.parse.urlencode({k: v for k, v in (answer | changed).items() if v is not None})
        return surfer.ask(f"{running.hub}/login/callback?{said}")

    thief = Surfer()
    for surfer, changed in (
        (thief, {}),  # a stolen answer
        (ann, {"state": "0" * 43}),
        (ann, {"state": None}),
    ):
        status, page, _ = shown_by(surfer, **changed)
        assert status == 403, changed
        assert "did not begin in this browser" in page
    assert thief.ask(f"{running.hub}/me/sessions")[0] == 403
    status, page, _ = ann.ask(back)  # her login's cookie went with the first refusal: she begins again
    assert (status, "did not begin in this browser" in page) == (403, True)

    for changed, why in (
        ({"iss": "https://evil.example"}, "another provider answered"),
        ({"iss": None}, "another provider answered"),
        ({"code": "0" * 43}, "the provider refused with"),
        ({"code": None, "error": "access_denied"}, "the provider did not let you in"),
    ):
        status, page, back = _begun_again(ann, running)
        answer.update(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query)))
        status, page, _ = shown_by(ann, **changed)
        assert (status, why in page) == (403, True), (changed, page)
        assert ann.ask(f"{running.hub}/me/sessions")[0] == 403

    _, _, back = _begun_again(ann, running)
    assert ann.ask(back)[0] == 200
    assert ann.ask(back)[0] == 403
    assert ann.ask(f"{running.hub}/me/sessions")[0] == 200


def _begun_again(surfer, running):
    """A second login in the same browser: the provider asks for nothing any more."""
    status, page, back = surfer.ask(f"{running.hub}/login")
    assert status == 303, page
    return status, page, back


@pytest.mark.promise(3)
def test_nothing_but_the_providers_own_word_ends_a_session_from_outside(running):
    lena = Surfer()
    assert lena.sign_in(f"{running.hub}/login", "lena")[0] == 200
    stranger = Surfer()
    for token in (
        "",
        "x",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImZpcnN0In0.e30." + "A" * 86,
    ):
        status, said, _ = stranger.ask(f"{running.hub}/logout/back-channel", {"logout_token": token})
        assert (status, len(json.loads(said)["do"]) > 10) == (400, True), said
    assert stranger.ask(f"{running.hub}/logout/back-channel", {"other": "x"})[0] == 400
    assert lena.ask(f"{running.hub}/me/sessions")[0] == 200
    status, page, _ = lena.ask(f"{running.provider}/session/end")
    assert status == 200
    fields = dict(re.findall('name="([^"]+)" value="([^"]*)"', page))
    lena.ask(re.search('action="([^"]+)"', page)[1], fields | {"logout": "yes"})
    status, page, _ = lena.ask(f"{running.hub}/me/sessions")
    assert status == 403, "her session outlived her logout at the provider"
    assert "not signed in here" in page


@pytest.mark.promise(3)
@pytest.mark.apt("chromium")
def test_a_real_browser_signs_in_sees_its_session_and_is_out_when_the_provider_says_so(running, browser):
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(f"{running.hub}/")
    page.click("text=Sign in at your provider")
    page.fill("input[name=login]", "ann")
    page.fill("input[name=password]", "anything")
    page.click("button[type=submit]")
    page.click("button[type=submit]")  # consent
    page.wait_for_url(f"{running.hub}/")
    page.click("header a.status")
    assert page.url == f"{running.hub}/me/sessions"
    assert "Ann Audit" in page.inner_text("header")
    assert page.locator("tbody").first.inner_text().count("(this one)") == 1
    cookies = {one["name"]: one for one in context.cookies(running.hub)}
    (session,) = (one for name, one in cookies.items() if name.startswith("__Host-paroma-session-"))
    assert (session["sameSite"], session["httpOnly"], session["secure"]) == ("Strict", True, True)
    assert page.evaluate("document.cookie") == ""
    assert not any(name.startswith("__Host-paroma-login-") for name in cookies)
    page.goto(f"{running.provider}/session/end")
    page.click("button[value=yes]")
    page.goto(f"{running.hub}/me/sessions")
    assert "not signed in here" in page.inner_text("main")
    context.close()
