"""Every page in every state that it can be in, made from the types that the programs fill; and a browser to look at them with.

A test that asks for `name` runs once for each page; one that asks for `patient_page` or `console_page` for each of those.
"""

import http.server
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from paroma.hub.api.pages import view_of
from paroma.kernel.ids import PermitId, RunId, StudyId
from paroma.lab.four.page import Event, Four, render_page
from paroma.learn.algorithms.query import Described, Fitted, Judged, Summary
from paroma.learn.disclosure import control
from paroma.learn.runs.report import Happened, Progress, Proof, RunReport, SiteSeen
from paroma.trust.policy import purposes
from paroma.web.console import catalogue, run as console, studies, timeline
from paroma.web.console.sessions import Done, sessions_page
from paroma.web.kit.charts import Curve
from paroma.web.kit.pages import SECURITY_HEADERS, STATIC_TYPES, static_file
from paroma.web.kit.sessions import SessionSeen
from paroma.web.officer import views as officer
from paroma.web.portal import views as portal

NOON = 1795528931.2  # 24 November 2026, 14:02:11 UTC
LOSSES = (0.693, 0.592, 0.541, 0.512, 0.491, 0.483, 0.476, 0.471)
TITLE = "What raises the risk of heart disease"
HOSPITALS = ("Cleveland", "Budapest", "Zurich and Basel", "Long Beach")

# -- patients

CLINIC = portal.Clinic(name="Cleveland Heart Clinic", phone="+1 216 555 0100", hours="Monday to Friday, 8 am to 5 pm")
MARIA = portal.Someone(name="Maria Novak")
USE = portal.StudyUse(
    study="study-7f3a",
    title=TITLE,
    asked_by="University of Basel",
    purpose=portal.PURPOSES["scientific-research"],
    people=303,
    at=NOON,
    rule="Allowed by your yes",
    counted="You were counted in 4 rounds (1 to 4) on 24 November 2026.",
    entries=(97, 98),
    genuine=True,
    running=True,
)
LAW = replace(
    USE, study="study-law", title="Quality of care", asked_by="State of Ohio", genuine=None, running=False,
    counted="You have not been counted.", rule="The law asks for this study. You cannot say no to it.",
)  # fmt: skip
WRONG = replace(USE, study="study-x", title="A study that the log does not hold", genuine=False, entries=(12,))
YES, NO = (
    portal.Choice(research=True, sentence="yes to research"),
    portal.Choice(research=False, sentence="no to all research"),
)
RECEIPT = portal.Receipt(
    number="7K2M-QX4P",
    said_at=NOON,
    seconds=0.02,
    covers="all research",
    before=(
        f"“{TITLE}” counted you in 2 rounds (1 to 2) on 24 November 2026, finished at 2:01:58 pm UTC. Those sums stay.",
    ),
    entry=118,
    checked=True,
)
PATIENT: Mapping[str, Callable[[], str]] = {
    "home": lambda: portal.home(CLINIC, MARIA, (USE, LAW), YES),
    "home-no-uses": lambda: portal.home(CLINIC, MARIA, (), YES),
    "home-after-no": lambda: portal.home(CLINIC, MARIA, (replace(USE, running=False),), NO),
    "uses": lambda: portal.uses_page(CLINIC, MARIA, (USE, LAW, WRONG)),
    "uses-none": lambda: portal.uses_page(CLINIC, MARIA, ()),
    "withdraw": lambda: portal.withdraw_page(CLINIC, MARIA, (USE, LAW), YES, form_key="key"),
    "withdraw-none": lambda: portal.withdraw_page(CLINIC, MARIA, (), YES, form_key="key"),
    "withdraw-after-no": lambda: portal.withdraw_page(CLINIC, MARIA, (USE,), NO, form_key="key"),
    "receipt": lambda: portal.receipt_page(CLINIC, MARIA, RECEIPT, form_key="key"),
    "receipt-fresh": lambda: portal.receipt_page(
        CLINIC, MARIA, replace(RECEIPT, covers=TITLE, before=(), checked=False), form_key="key"
    ),
    "closed": lambda: portal.closed_page(
        CLINIC, headline="This link does not open anything any more.", what_to_do="Ask the desk for a new link."
    ),
}

# -- scientists

RUNNING = RunReport(
    run=RunId("run-7f3a41ab9c02d5e6"),
    permit=PermitId("permit-1b9d41ab9c02d5e6"),
    study=StudyId("study-7f3a"),
    title=TITLE,
    algorithm="logistic",
    query="num ~ age + sex + cp",
    status="running",
    reason="",
    opened=NOON - 30,
    ended=None,
    revision=8,
    step=9,  # rounds are counted from 1: eight are answered, the ninth is under way
    steps=12,
    measure="mean log loss",
    progress=tuple(Progress(step=i, at=NOON + i, value=loss) for i, loss in enumerate(LOSSES, 1)),
    result=None,
    numbers=153,
    private=False,
    epsilon=None,
    delta=None,
    most_epsilon=None,
    least_owners=3,
    sites=tuple(SiteSeen(title=title, online=title != "Long Beach") for title in HOSPITALS),
    story=(
        Happened(what="Every hospital checked the permit on its own, and agreed on secrets.", at=NOON - 30, entry=104),
        Happened(what="Round 8: voted by all who sent, then added up.", at=NOON, entry=131),
    ),
    proof=Proof(first=104, last=131, cosigned=4),
)
TOLD = control.told(741, 5)  # as the algorithm gives it
FITTED = Fitted(
    terms=("intercept", "age", "sex", "cp=atypical angina", "thalach", "oldpeak", "exang"),
    scaled=(0.1, 0.6, 0.65, -0.4, -0.9, 1.9, 0.45),
    raw=(-2.31, 0.0213, 1.3, -0.91, -0.0137, 0.627, 1.008),
    scaled_errors=(0.2, 0.2, 0.13, 0.2, 0.3, 0.34, 0.12),
    raw_errors=(0.8, 0.0127, 0.257, 0.31, 0.0045, 0.113, 0.22),
    log_likelihood=-348.2,
    patients=TOLD,
    counts_to=5,
    steps=8,
    converged=True,
    ridge=0.0,
)


FINISHED = changed(RUNNING, status="finished", step=8, ended=NOON + 9, result=FITTED)
SUMMARY = Summary(
    patients=TOLD,
    counts_to=5,
    features=(
        Described(feature="age", count=TOLD, missing=None, mean=53.097, variance=88.7, cells=()),
        Described(feature="chol", count=635.0, missing=105.0, mean=220.1, variance=8764.0, cells=()),
        Described(feature="cp", count=None, missing=None, mean=None, variance=None, cells=()),
    ),
)
REPORTS: Mapping[str, RunReport] = {
    "run-waiting": changed(
        RUNNING, status="waiting", progress=(), story=(), proof=None, step=0, revision=1,
        sites=tuple(SiteSeen(title=title, online=False) for title in HOSPITALS),
    ),
    "run-first-round": changed(RUNNING, progress=RUNNING.progress[:1], step=2, proof=Proof(first=104, last=105, cosigned=None)),
    "run-running": RUNNING,
    "run-finished": FINISHED,
    "run-statistics": changed(
        FINISHED, algorithm="statistics", query="age, chol, cp", measure="", steps=1, step=1, result=SUMMARY,
        progress=(Progress(step=1, at=NOON),),
    ),
    "run-judged": changed(
        FINISHED, algorithm="evaluate", measure="", steps=1, step=1, progress=(Progress(step=1, at=NOON),),
        result=Judged(patients=TOLD, counts_to=5, accuracy=0.8104, auroc=0.8802, auroc_within=0.0001),
    ),
    "run-failed": changed(
        RUNNING, status="failed", ended=NOON + 9,
        reason="too few hospitals answered; start it again when they are online",
    ),
    "run-stopped": changed(RUNNING, status="stopped", ended=NOON + 9, reason="its owner stopped it", progress=()),
    "run-private": changed(
        RUNNING, private=True, measure="length of the noisy mean gradient", epsilon=2.3, delta=1e-5, most_epsilon=3.0,
    ),
}  # fmt: skip


def run_page(report: RunReport) -> str:
    """The page of a run, as the hub makes it."""
    return console.run_page(view_of(report), federation="Heart federation", person="Lena Vogt", release="0.1.0")


ROWS = tuple((report.run, report.title, report.status, report.opened) for report in REPORTS.values())

# -- four people

BEFORE = Four(
    study="study-7f3a",
    hospitals=", ".join(HOSPITALS),
    status="running",
    headline="Four hospitals are learning together, and Maria’s records are among them.",
    since=None,
    patient="Maria Novak",
    patient_place="patient, Cleveland",
    patient_means="One study is using your records.",
    patient_just="",
    patient_more="Your records stay in the clinic. You can say no at any time.",
    patient_page="/open/1",
    officer="Ruth Keller",
    officer_place="privacy officer, Cleveland",
    officer_means="303 patients may be used in this study today.",
    officer_just="",
    officer_facts=(("Run", "round 3"), ("Permit", "until 30 June 2027")),
    scientist="Lena Vogt",
    scientist_place="scientist, Basel",
    scientist_means="About 740 people, four hospitals, twelve rounds.",
    scientist_just="",
    scientist_curve=Curve(
        title="Error by round", description="from 0.693 to 0.512", unit="mean log loss", values=LOSSES[:4], rounds=12,
        ident="four",
    ),
    scientist_page="/open/2",
    auditor="Jonas Brandt",
    auditor_means="Every use so far stands in the log.",
    auditor_events=(Event(what="The run was opened", at=NOON - 30),),
    auditor_proof="checked to entry 97",
    rails=(
        ("She can say no", "at any time"),
        ("Her clinic keeps her records", "always"),
        ("The hospitals compute", "round 3 of 12"),
        ("The log keeps the order", "entry 97"),
    ),
)  # fmt: skip
WAITING = replace(
    BEFORE, status="waiting", headline="Four hospitals wait for their officers to sign.", scientist_curve=None,
    auditor_events=(), auditor_proof="", officer_facts=(),
)  # fmt: skip
AFTER = replace(
    BEFORE,
    headline="Maria said no. Within a second, four people see what that changed.",
    since=NOON,
    patient_means="No study reads your records any more.",
    patient_just="You said no at 2:02:11 pm UTC. The clinic confirmed it 0.02 seconds later.",
    patient_more="Round 2 had already counted you. Round 3 and all that follow do not.",
    officer_means="302 patients may be used in this study today.",
    officer_just="One fewer since 14:02:11. Nothing to do.",
    officer_facts=(("Round 3", "declined here"), ("Round 4", "302 patients, without her"), ("Permit", "until 30 June 2027")),
    scientist_just="Unchanged. One person more or less never shows here.",
    auditor_means="Nothing was used after she said no.",
    auditor_events=(
        Event(what="Withdrawal sealed in Cleveland’s log", at=NOON, first=True),
        Event(what="Cleveland declined the vote of round 3", at=NOON + 0.3),
        Event(what="Round 3 counted without Cleveland", at=NOON + 0.7),
    ),
    auditor_proof="entry 118, cosigned by 4 sites",
    rails=(
        ("She says no", "14:02:11"),
        ("Her clinic takes its sum back", "0.3 s later"),
        ("Three hospitals finish the round", "0.7 s later"),
        ("The log proves the order", "0.9 s later"),
    ),
)  # fmt: skip
DONE = replace(AFTER, status="finished", scientist_means="The answer over about 740 people is there.")

CONSOLE: Mapping[str, Callable[[], str]] = {
    "runs": lambda: console.runs_page(ROWS, federation="Heart federation", person="Lena Vogt", release="0.1.0"),
    "sessions": lambda: sessions_page(
        tuple(
            SessionSeen(session=f"session-{n}", browser=b, opened=NOON - 90 * n, seen=NOON, ends=NOON + 900, here=not n)
            for n, b in enumerate(("Mozilla/5.0 (X11; Linux x86_64) Chrome/142.0", "curl/8.5"))
        ),
        (
            Done(what="Read members", on="Federation federation", allowed=True, policy="members", times=3, at=NOON),
            Done(what="Remove", on="Site site-7f3a41ab9c02d5e6", allowed=False, policy="no-policy", times=1, at=NOON),
        ),
        federation="Heart federation",
        person="Lena Vogt",
        release="0.1.0",
        form_key="key",
    ),
    "sessions-nothing-done": lambda: sessions_page(
        (), (), federation="Heart federation", person="Lena Vogt", release="0.1.0", form_key="key"
    ),
    "runs-none": lambda: console.runs_page((), federation="Heart federation", person="Lena Vogt", release="0.1.0"),
    **{name: lambda report=report: run_page(report) for name, report in REPORTS.items()},
    "console-closed-login": lambda: console.closed_page(
        federation="Heart federation",
        headline="You are not signed in here, or your time has passed.",
        what_to_do="Open a new link.",
        release="0.1.0",
        login=True,
    ),
    "console-closed": lambda: console.closed_page(
        federation="Heart federation",
        headline="This link does not open anything any more.",
        what_to_do="Ask for a new link where you got this one.",
        release="0.1.0",
    ),
    "four-waiting": lambda: render_page(WAITING, release="0.1.0"),
    "four-before": lambda: render_page(BEFORE, release="0.1.0"),
    "four-after": lambda: render_page(AFTER, release="0.1.0"),
    "four-done": lambda: render_page(DONE, release="0.1.0"),
}

# -- scientists and committee: catalogue, studies, log

WHO = {"federation": "Heart federation", "person": "Lena Vogt", "release": "0.1.0"}
PERMIT_ID = "permit-1b9d41ab9c02d5e6"
DIGEST = "9f2c41ab7d03e15b" * 4
HEART = catalogue.DataSetView(
    data_set="set-heart",
    name="heart",
    title="Heart disease",
    description="People sent to a heart specialist, with what the angiogram showed.",
    licence="CC BY 4.0",
    hospitals=HOSPITALS,
    variables=(
        catalogue.Variable(name="age", title="age at the visit", kind="number", shape="18 to 100 a", special=""),
        catalogue.Variable(name="sex", title="sex", kind="flag", shape="female, male", special=""),
        catalogue.Variable(name="apoe", title="variant of a gene", kind="category", shape="e2, e3", special="genetic"),
    ),
    outcome=("diagnosis",),
)
NOTHING_SOUGHT = catalogue.Sought(text="", purpose="", kind="", query="")
SOUGHT = catalogue.Sought(text="heart", purpose="marketing", kind="genetic", query="?q=heart")
CHOICES = {"purposes": tuple(purposes.ALLOWED.items()), "kinds": ("number", "category", "flag", "genetic")}
STUDY = studies.StudyRow(
    permit=PERMIT_ID,
    study="study-7f3a",
    title=TITLE,
    asked_by="Lena Vogt",
    state="valid",
    signed=4,
    asked=4,
    ends=NOON + 9e6,
    next="Ask a question.",
)
PERMIT = studies.PermitView(
    permit=PERMIT_ID,
    study="study-7f3a",
    title=TITLE,
    state="valid",
    headline=f"“{TITLE}” may run until 30 June 2027.",
    facts=(
        ("Asked by", "Lena Vogt"),
        ("Purpose", "scientific research on health or care"),
        ("Variables", "age, sex, chol"),
    ),
    protection=(("What leaves", "masked sums over all hospitals, no record"), ("Noise", "none")),
    digest=DIGEST,
    hospitals=tuple((name, "signed") for name in HOSPITALS),
    refusals=(),
    runs=(("run-7f3a41ab9c02d5e6", "finished", NOON),),
    next="Ask a question.",
    address="https://hub.example/permits/" + PERMIT_ID,
)
REFUSED = replace(
    PERMIT,
    state="refused",
    headline=f"“{TITLE}” was refused.",
    hospitals=tuple((name, "waiting") for name in HOSPITALS),
    runs=(),
    refusals=(
        studies.No(
            hospital="Cleveland", policy="purpose-prohibited", because="marketing is no purpose", to_change="research"
        ),
    ),
)
ENTRIES = tuple(
    timeline.Entry(number=90 - place, kind=kind, what=words.replace("{site}", "Cleveland"), at=NOON - place)
    for place, (kind, words) in enumerate(timeline.WORDS.items())
)
STUDIES: Mapping[str, Callable[[], str]] = {
    "catalogue": lambda: catalogue.catalogue_page((HEART, HEART), NOTHING_SOUGHT, None, **CHOICES, **WHO),
    "catalogue-none": lambda: catalogue.catalogue_page((), NOTHING_SOUGHT, None, **CHOICES, **WHO),
    "catalogue-not-found": lambda: catalogue.catalogue_page((), SOUGHT, None, **CHOICES, **WHO),
    "catalogue-refused": lambda: catalogue.catalogue_page(
        (), SOUGHT, catalogue.No(policy="purpose-prohibited", because="marketing is no purpose", to_change="research"), **CHOICES, **WHO
    ),
    "data-set": lambda: catalogue.data_set_page(HEART, **WHO),
    "studies": lambda: studies.studies_page(
        (STUDY, replace(STUDY, state="submitted", signed=1), replace(STUDY, state="refused"), replace(STUDY, state="ended"),
         replace(STUDY, state="revoked")), own=True, **WHO
    ),
    "studies-of-all": lambda: studies.studies_page((STUDY,), own=False, **WHO),
    "studies-none": lambda: studies.studies_page((), own=True, **WHO),
    "studies-none-of-all": lambda: studies.studies_page((), own=False, **WHO),
    "permit": lambda: studies.permit_page(PERMIT, **WHO),
    "permit-refused": lambda: studies.permit_page(REFUSED, **WHO),
    "timeline": lambda: timeline.timeline_page(
        ENTRIES, timeline.Chosen(kind="", text="", older="?before=60"), size=119, cosigned=118, **WHO
    ),
    "timeline-none": lambda: timeline.timeline_page(
        (), timeline.Chosen(kind="suspected", text="x", older=""), size=1, cosigned=0, **WHO
    ),
    "console-refused": lambda: timeline.refused_page(
        headline="This is not shown.", why="This needs the role `auditor`.", what_to_do="Sign in with such a role.", **WHO
    ),
}  # fmt: skip

# -- officers

DESK = officer.Desk(
    hospital="Cleveland Heart Clinic",
    person="Ruth Keller",
    role="officer",
    decides=True,
    paused=False,
    form_key="key",
    release="0.1.0",
)
INBOX = officer.Row(
    permit=PERMIT_ID,
    title=TITLE,
    asked_by="Lena Vogt",
    purpose="scientific-research",
    state="waiting",
    since=NOON,
    waited="8 days",
    patients=303,
)
ASKED = officer.Request(
    permit=PERMIT_ID,
    title=TITLE,
    headline=f"Lena Vogt asks for “{TITLE}”, from 303 of our patients.",
    state="waiting",
    since=NOON,
    waited="8 days",
    in_words=(
        ("Who", "Lena Vogt"),
        ("Why", "scientific research on health or care"),
        ("Which data", "age, sex, cholesterol"),
    ),
    patients=303,
    held=305,
    rules=(("said no", 2),),
    checks=(
        officer.Check(kind="good", text="Your policies allow it."),
        officer.Check(kind="no", text="Walls of the sandbox are missing here: landlock."),
        officer.Check(kind="note", text="Machines are not attested."),
    ),
    digest=DIGEST,
    change=officer.Change(
        permit="permit-2b9d41ab9c02d5e6",
        at=NOON - 9e6,
        lines=(
            officer.Line(kind="same", text="features: age"),
            officer.Line(kind="removed", text="least_patients: 20"),
            officer.Line(kind="added", text="least_patients: 10"),
        ),
        added=1,
        removed=1,
    ),
    reasons=(),
    hospitals=tuple((name, False) for name in HOSPITALS),
    takes_part=True,
)
HEALTH = officer.Health(
    online=True,
    heard="less than a minute ago",
    hub="https://hub.example",
    owner="Cleveland Heart Trust",
    patients=305,
    budget=DIGEST[:16],
    logs=(
        ("this site’s log", 118, 0, "", "written here"),
        ("the federation log", 131, 4, "trusted", "no contradiction so far"),
    ),
    walls=(("namespaces", "stands", "new ones for each worker"), ("cgroup", "missing", "no cgroup may be made here")),
    missing=(),
    runs=(("run-7f3a41ab9c02d5e6", PERMIT_ID, 3),),
    failures=(),
)
OFFICER: Mapping[str, Callable[[], str]] = {
    "officer": lambda: officer.inbox_page(
        DESK, (INBOX, *(replace(INBOX, state=one, patients=None) for one in ("signed", "valid", "refused", "revoked"))), chosen=""
    ),
    "officer-none": lambda: officer.inbox_page(DESK, (), chosen=""),
    "officer-none-so": lambda: officer.inbox_page(DESK, (), chosen="refused"),
    "officer-paused": lambda: officer.inbox_page(replace(DESK, paused=True), (INBOX,), chosen="waiting"),
    "officer-request": lambda: officer.request_page(DESK, ASKED),
    "officer-request-first": lambda: officer.request_page(DESK, replace(ASKED, change=None, rules=())),
    "officer-request-error": lambda: officer.request_page(DESK, ASKED, error="Choose a reason, or write one in your own words"),
    "officer-request-valid": lambda: officer.request_page(
        DESK, replace(ASKED, state="valid", hospitals=tuple((name, True) for name in HOSPITALS))
    ),
    "officer-request-refused": lambda: officer.request_page(DESK, replace(ASKED, state="refused", reasons=("too few",))),
    "officer-request-desk": lambda: officer.request_page(replace(DESK, decides=False, role="desk"), ASKED),
    "officer-end": lambda: officer.end_page(DESK, permit=PERMIT_ID, title=TITLE, running=1),
    "officer-end-error": lambda: officer.end_page(DESK, permit=PERMIT_ID, title=TITLE, running=0, error="Choose a reason"),
    "officer-staff": lambda: officer.staff_page(
        DESK,
        (
            officer.Member(person="person-1", name="Ruth Keller", role="officer", enrolled=NOON, revoked=None),
            officer.Member(person="person-2", name="Dora Desk", role="desk", enrolled=NOON, revoked=NOON + 9),
        ),
    ),
    "officer-health": lambda: officer.health_page(DESK, HEALTH),
    "officer-health-bad": lambda: officer.health_page(
        DESK,
        replace(
            HEALTH, online=False, missing=("landlock",), walls=(), runs=(), failures=("the hub cannot be reached",),
            logs=(("the federation log", 131, 4, "not trusted", "two heads of one size"),),
        ),
    ),
    "officer-refused": lambda: officer.refused_page(
        hospital="Cleveland Heart Clinic", person="Dora Desk", headline="This was not done.", why="This needs the role `officer`.",
        what_to_do="Let an operator enrol you.", release="0.1.0",
    ),
}  # fmt: skip
PAGES = {**PATIENT, **CONSOLE, **STUDIES, **OFFICER}


def pytest_generate_tests(metafunc):
    for name, kind in (("name", PAGES), ("patient_page", PATIENT), ("console_page", {**CONSOLE, **STUDIES})):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, sorted(kind))


@pytest.fixture(scope="session")
def shown() -> Mapping[str, object]:
    """What the pages of studies and officers are made from."""
    return {
        "heart": HEART,
        "study": STUDY,
        "permit": REFUSED,
        "entry": ENTRIES[0],
        "desk": DESK,
        "row": INBOX,
        "asked": ASKED,
        "health": HEALTH,
    }


@pytest.fixture(scope="session")
def made() -> Mapping[str, str]:
    """Every page by its name."""
    return {name: make() for name, make in PAGES.items()}


@pytest.fixture(scope="session")
def address(made) -> Iterator[str]:
    """Origin of a small server: each page under its name and under the path where its program has it, with the security headers.

    A withdrawal that is sent there is answered as the site answers it.
    """
    paths = {"/me": "home", "/me/uses": "uses", "/me/withdraw": "withdraw", "/me/receipts/1": "receipt"}

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            static = path.removeprefix("/static/")
            if static in STATIC_TYPES:
                self.answer(200, STATIC_TYPES[static], static_file(static))
            elif (page := paths.get(path, path[1:])) in made:
                self.answer(200, "text/html; charset=utf-8", made[page].encode())
            elif path == "/" or path.startswith("/runs/"):
                self.answer(204, "text/html", b"")  # a page that asks again: nothing new
            else:
                self.answer(404, "text/plain", b"")

        def do_POST(self):
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            said_all = self.path == "/me/withdraw" and "what=all" in form and "form_key=key" in form
            self.answer(303 if said_all else 400, "text/plain", b"", location="/me/receipts/1")

        def answer(self, status, kind, body, **more):
            self.send_response(status)
            for name, value in {**SECURITY_HEADERS, **more, "content-type": kind, "content-length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium. It asks nobody for anything by itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="for want of playwright")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path="/usr/bin/chromium", args=quiet)
        yield started
        started.close()


@pytest.fixture
def cards() -> Mapping[str, Four]:
    """The four people before and after she said no."""
    return {"before": BEFORE, "after": AFTER}


@pytest.fixture
def reports() -> Mapping[str, RunReport]:
    """Runs by the name of their page."""
    return REPORTS


@pytest.fixture
def uses() -> tuple[portal.StudyUse, ...]:
    """What used a patient's records."""
    return USE, LAW, WRONG
