"""What every page holds to, read from its text alone."""

import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest
from msgspec.structs import replace as changed

from paroma.hub.api.pages import view_of
from paroma.lab.four.page import render_page
from paroma.learn.disclosure import control
from paroma.trust.policy import purposes
from paroma.web.console import catalogue, run as console, studies, timeline
from paroma.web.kit.charts import Curve, Effect, Forest, curve, forest, small_curve
from paroma.web.kit.pages import SECURITY_HEADERS, STATIC_TYPES, clock, clock12, day, machine_time, spelled, static_file
from paroma.web.officer import views as officer
from paroma.web.portal import views as portal

# Words of the field: no patient's page may need them.
BANNED = (
    "aggregat", "algorithm", "api", "art. 5", "attempt", "attest", "authenticat", "budget", "byte", "checkpoint", "cohort", "commit",
    "compliance", "consent", "cosign", "cryptograph", "data set", "dataset", "delta", "digest", "disclos", "ehds", "encrypt",
    "endpoint", "epsilon", "federat", "gdpr", "gradient", "hash", "hub", "json", "ledger", "log head", "machine learning",
    "mask", "merkle", "model", "node", "noise", "opt-out", "participant", "permit", "please", "policy", "principal", "privacy-preserving",
    "protocol", "provision", "query", "revoc", "revoke", "server", "session", "subject", "successfully", "system", "token",
    "upload", "vote", "withdraw", "!",
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7919 * 7907 }}"
EXACT = re.compile(r"\b(741|637|740\.|103)\b")


class Text(HTMLParser):
    """Text by element, headings, and the attributes of everything."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.headings, self.tags, self._path = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("meta", "link", "input", "circle", "path", "rect"):
            return
        self._path.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self._path:
            while self._path.pop() != tag:
                pass

    def handle_data(self, data):
        if data.strip() and not {"script", "style"} & set(self._path):
            self.texts.append((self._path[-1] if self._path else "", " ".join(data.split())))

    @property
    def said(self):
        return " ".join(text for _, text in self.texts)

    def every(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


# -- all pages


def test_a_page_has_one_main_heading_and_no_level_is_left_out(made, name):
    headings = Text(made[name]).headings
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_a_page_runs_under_the_strict_policy(made, name):
    page = Text(made[name])
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", made[name])
    for attrs in page.every("script"):
        assert set(attrs) <= {"src", "defer"}
        assert attrs["src"].startswith("/static/")
    for tag, attrs in page.tags:
        for key in ("src", "href", "action", "hx-get"):
            assert attrs.get(key, "/").startswith(("/", "#", "tel:")), (tag, attrs)
            assert not attrs.get(key, "/").startswith("//")


@pytest.mark.parametrize(
    "directive", ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
)
def test_the_policy_allows_only_the_programs_own_files(directive):
    policy = SECURITY_HEADERS["content-security-policy"]
    assert directive in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_an_identifier_stands_once_and_what_names_it_finds_it(made, name):
    page = Text(made[name])
    idents = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(idents) == len(set(idents))
    named = {one for _, attrs in page.tags for one in (attrs.get("aria-labelledby") or "").split()}
    assert named <= set(idents)


def test_a_picture_is_named_or_hidden_and_a_chart_is_also_a_table(made, name):
    page = Text(made[name])
    for attrs in page.every("svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-labelledby"])
    assert made[name].count('<svg class="only-wide"') == made[name].count("Show as table")
    charts = re.findall(r'<svg class="(?:only-wide|only-narrow|small-chart)".*?</svg>', made[name], re.DOTALL)
    assert all("<title" in chart and "<desc" in chart for chart in charts)


def test_every_column_of_a_table_that_stacks_says_its_name(made, name):
    for table in re.findall(r"<table.*?</table>", made[name], re.DOTALL):
        for cell in re.findall(r"<td[^>]*>", table):
            assert 'data-label="' in cell
            assert 'role="cell"' in cell


def test_a_page_has_a_title_a_language_and_a_way_past_the_header(made, name):
    page = Text(made[name])
    assert page.every("html") == [{"lang": "en", "dir": "ltr"}]
    assert any(tag == "title" and text for tag, text in page.texts)
    assert page.every("a")[0]["href"] == "#main"


# -- hostile words


def _spoiled(value):
    """The same value with every free text replaced by something that tries to be markup."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(_spoiled(one) for one in value)
    if is_dataclass(value):
        kept = {"ident", "status", "refresh"}
        return replace(value, **{f.name: _spoiled(getattr(value, f.name)) for f in fields(value) if f.name not in kept})
    return value


@pytest.mark.promise(4)
def test_what_others_wrote_stays_text(uses, reports, cards):
    clinic = portal.Clinic(name=HOSTILE, phone=HOSTILE, hours=HOSTILE)
    someone, choice = portal.Someone(name=HOSTILE), portal.Choice(research=True, sentence=HOSTILE)
    receipt = portal.Receipt(
        number=HOSTILE, said_at=0.0, seconds=0.1, covers=HOSTILE, before=(HOSTILE,), entry=1, checked=True
    )  # fmt: skip
    spoiled = tuple(_spoiled(use) for use in uses)
    told = [
        portal.home(clinic, someone, spoiled, choice),
        portal.uses_page(clinic, someone, spoiled),
        portal.withdraw_page(clinic, someone, spoiled, choice, form_key=HOSTILE),
        portal.receipt_page(clinic, someone, receipt, form_key=HOSTILE),
        portal.closed_page(clinic, headline=HOSTILE, what_to_do=HOSTILE),
        console.closed_page(federation=HOSTILE, headline=HOSTILE, what_to_do=HOSTILE, release=HOSTILE),
        console.runs_page(((HOSTILE, HOSTILE, "running", 0.0),), federation=HOSTILE, person=HOSTILE, release=HOSTILE),
        *(render_page(_spoiled(four), release=HOSTILE) for four in cards.values()),
        *(
            console.run_page(_spoiled(view_of(report)), federation=HOSTILE, person=HOSTILE, release=HOSTILE)
            for report in reports.values()
        ),
    ]
    for html in told:
        page = Text(html)
        assert not page.every("img")
        assert all("src" in attrs for attrs in page.every("script"))
        assert "{{ 7919 * 7907 }}" in html
        assert "62615533" not in page.said


@pytest.mark.promise(4)
def test_what_an_applicant_wrote_stays_text_on_the_pages_of_officers_and_scientists(shown):
    kept = {name: {"state": one.state} for name, one in shown.items() if hasattr(one, "state")}
    bad = {name: replace(_spoiled(one), **kept.get(name, {})) for name, one in shown.items()}
    pair, who = (HOSTILE, HOSTILE), {"federation": HOSTILE, "person": HOSTILE, "release": HOSTILE}
    asked = replace(
        bad["asked"],
        checks=tuple(officer.Check(kind=kind, text=HOSTILE) for kind in ("good", "no", "note")),
        change=replace(bad["asked"].change, lines=tuple(officer.Line(kind=k, text=HOSTILE) for k in ("same", "added", "removed"))),
        in_words=(pair,), rules=((HOSTILE, 1),), hospitals=((HOSTILE, True),), reasons=(HOSTILE,),
    )  # fmt: skip
    permit = replace(
        bad["permit"],
        facts=(pair,),
        protection=(pair,),
        hospitals=((HOSTILE, "signed"),),
        runs=((HOSTILE, "running", 0.0),),
    )
    health = replace(
        bad["health"], walls=((HOSTILE, "stands", HOSTILE),), logs=((HOSTILE, 1, 1, "not trusted", HOSTILE),)
    )
    sought = catalogue.Sought(text=HOSTILE, purpose=HOSTILE, kind=HOSTILE, query=HOSTILE)
    no = catalogue.No(policy=HOSTILE, because=HOSTILE, to_change=HOSTILE)
    told = [
        officer.inbox_page(bad["desk"], (bad["row"],), chosen=HOSTILE),
        officer.request_page(bad["desk"], asked, error=HOSTILE, said=HOSTILE),
        officer.request_page(bad["desk"], replace(asked, state="valid")),
        officer.end_page(bad["desk"], permit=HOSTILE, title=HOSTILE, running=1, error=HOSTILE, said=HOSTILE),
        officer.staff_page(
            bad["desk"], (officer.Member(person=HOSTILE, name=HOSTILE, role=HOSTILE, enrolled=0.0, revoked=None),)
        ),
        officer.health_page(bad["desk"], health),
        officer.refused_page(
            hospital=HOSTILE, person=HOSTILE, headline=HOSTILE, why=HOSTILE, what_to_do=HOSTILE, release=HOSTILE
        ),
        catalogue.catalogue_page((bad["heart"],), sought, None, purposes=(pair,), kinds=(HOSTILE,), **who),
        catalogue.catalogue_page((), sought, no, purposes=(pair,), kinds=(HOSTILE,), **who),
        catalogue.data_set_page(bad["heart"], **who),
        studies.studies_page((bad["study"],), own=False, **who),
        studies.permit_page(permit, **who),
        timeline.timeline_page(
            (bad["entry"],), timeline.Chosen(kind=HOSTILE, text=HOSTILE, older=HOSTILE), size=1, cosigned=1, **who
        ),
        timeline.refused_page(headline=HOSTILE, why=HOSTILE, what_to_do=HOSTILE, **who),
    ]
    for html in told:
        page = Text(html)
        assert not page.every("img")
        assert all("src" in attrs for attrs in page.every("script"))
        assert "{{ 7919 * 7907 }}" in html
        assert "62615533" not in page.said


def test_a_table_has_a_caption_and_a_page_says_who_is_signed_in_and_in_which_language(made):
    mine = [name for name in made if re.match(r"officer|catalogue|data-set|studies|permit|timeline", name)]
    assert len(mine) > 20
    for name in mine:
        page = Text(made[name])
        assert made[name].count("<table") == made[name].count("<caption"), name
        assert re.search(r"Lena Vogt|Ruth Keller|Dora Desk", page.said), name
        assert "These pages are in English only." in page.said, name
        assert name.endswith("refused") or "paroma " in page.said, name  # the same by command


def test_a_kind_of_entry_has_a_sentence_and_one_without_is_told_by_its_name():
    import ast
    from pathlib import Path

    source = (Path(__file__).parents[2] / "docs" / "reference" / "generate.py").read_text()
    table = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "KINDS"
    )
    kinds = {key.value.removeprefix("federation ") for key in table.keys if key.value.startswith("federation ")}
    assert kinds == set(timeline.WORDS)
    told = timeline.sentence("member-online", {"site": "site-1"}, title=lambda site: f"<{site}>")
    assert told == "<site-1> was heard again."
    assert timeline.sentence("member-left", {"site": "s"}, title=str).endswith("(not said)")
    assert timeline.sentence("something-new", {}, title=str) == "something new"


# -- patients


def test_a_patients_page_needs_no_word_of_the_field(made, patient_page):
    said = Text(made[patient_page]).said.lower()
    assert [word for word in BANNED if word in said] == []


def test_a_patients_page_has_short_sentences(made, patient_page):
    texts = [text for tag, text in Text(made[patient_page]).texts if tag in ("p", "h1", "h2", "li", "summary", "span")]
    sentences = [s for text in texts for s in re.split(r"(?<=[.?;]) ", re.sub(r"“.*?”", "it", text)) if s]
    lengths = [len(s.split()) for s in sentences]
    assert max(lengths) <= 20, max(sentences, key=lambda s: len(s.split()))
    assert sum(lengths) / len(lengths) <= 14


def test_a_patients_page_needs_no_script(made, patient_page):
    assert "<script" not in made[patient_page]
    assert "hx-" not in made[patient_page]


def test_a_patients_page_begins_with_the_clinic_and_ends_with_its_phone(made, patient_page):
    brand, phone = (
        made[patient_page].index("Cleveland Heart Clinic</span>"),
        made[patient_page].index("tel:+12165550100"),
    )
    assert brand < made[patient_page].index("<main") < phone


def test_a_clinic_without_a_phone_sends_its_patients_to_the_desk(uses):
    clinic, someone = portal.Clinic(name="C", phone="", hours=""), portal.Someone(name="M")
    page = Text(portal.uses_page(clinic, someone, uses))
    assert "tel:" not in str(page.tags)
    assert page.said.endswith("Questions? Ask at our desk.")
    assert "Call us" not in page.said


def test_every_purpose_that_may_be_allowed_has_plain_words():
    assert set(portal.PURPOSES) == set(purposes.ALLOWED)
    assert not [w for clause in portal.PURPOSES.values() for w in BANNED if w in clause.lower()]


@pytest.mark.promise(2)
def test_who_said_no_to_everything_finds_the_way_back_and_who_said_yes_the_way_out(made):
    assert 'action="/me/withdraw" method="post"' in made["withdraw"]
    assert 'action="/me/give"' not in made["withdraw"]
    assert 'action="/me/give" method="post"' in made["withdraw-after-no"]
    assert 'action="/me/withdraw"' not in made["withdraw-after-no"]


@pytest.mark.promise(2)
def test_only_a_running_study_can_be_stopped_alone_and_each_is_offered_once(uses):
    clinic, someone = portal.Clinic(name="C", phone="1", hours="h"), portal.Someone(name="M")
    choice = portal.Choice(research=True, sentence="yes")
    page = portal.withdraw_page(clinic, someone, (uses[0], uses[0], uses[1]), choice, form_key="key")
    offered = [attrs["value"] for attrs in Text(page).every("input") if attrs["type"] == "radio"]
    assert offered == ["all", uses[0].study]


@pytest.mark.parametrize(
    ("places", "says"),
    [((), "No study has"), ((0, 0), "One study"), ((0, 1), "Two studies"), ((0, 1, 2, 1), "Three studies")],
)
def test_a_study_that_used_the_records_twice_is_one_study(uses, places, says):
    clinic, someone = portal.Clinic(name="C", phone="1", hours="h"), portal.Someone(name="M")
    chosen, choice = tuple(uses[place] for place in places), portal.Choice(research=True, sentence="yes")
    for html in (portal.home(clinic, someone, chosen, choice), portal.uses_page(clinic, someone, chosen)):
        assert f"{says} used your records." in Text(html).said


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("genuine", "says"),
    [(True, "Yes, genuine"), (None, "We could not check this just now."), (False, "does not hold this. Call us.")],
)
def test_an_entry_is_called_genuine_only_after_it_was_checked(uses, genuine, says):
    clinic, someone = portal.Clinic(name="C", phone="1", hours="h"), portal.Someone(name="M")
    page = Text(portal.uses_page(clinic, someone, (replace(uses[0], genuine=genuine),)))
    assert says in page.said
    assert ("genuine The" in page.said) == (genuine is True)
    assert ("status good" in str(page.tags)) == (genuine is True)


@pytest.mark.promise(4)
def test_a_receipt_says_when_nobody_outside_has_confirmed_it_yet(made):
    assert "others outside the clinic hold its seal" in Text(made["receipt"]).said
    fresh = Text(made["receipt-fresh"])
    assert "nobody outside the clinic has confirmed it yet" in fresh.said
    assert not [attrs for tag, attrs in fresh.tags if attrs.get("class") == "proof" and "tick" in str(attrs)]


# -- scientists


@pytest.mark.promise(1)
def test_a_scientists_page_holds_no_exact_count(made, console_page):
    assert not EXACT.search(Text(made[console_page]).said)


@pytest.mark.promise(1)
@pytest.mark.parametrize("page", ["run-finished", "run-statistics", "run-judged"])
def test_one_person_more_or_less_changes_nothing_on_a_scientists_page(reports, page):
    def shown(people):
        result = changed(reports[page].result, patients=control.told(people, 5))
        if page == "run-statistics":
            counts = [f.count and control.told(f.count - 740 + people, 5) for f in result.features]
            described = zip(result.features, counts, strict=True)
            result = changed(result, features=tuple(changed(f, count=count) for f, count in described))
        view = view_of(changed(reports[page], result=result))
        return console.run_page(view, federation="F", person="P", release="0")

    assert shown(740) == shown(739) == shown(741)


@pytest.mark.promise(1)
@pytest.mark.parametrize("page", ["run-finished", "run-statistics", "run-judged"])
def test_a_page_says_the_number_that_every_other_answer_says(reports, page):
    from paroma.sdk import results

    report = reports[page]
    view = view_of(report)
    assert "about 740 people" in view.headline
    assert "Patients: about 740" in results.of(report.result, report.query).summary()
    assert report.result.patients == 740
    exact = changed(report, result=changed(report.result, counts_to=1, patients=741))
    assert "over 741 people" in view_of(exact).headline
    assert "Patients: 741" in results.of(exact.result, report.query).summary()


def test_a_scientists_page_does_not_say_who_sat_out(made):
    said = Text(made["run-running"]).said
    assert "Who sat out a round is not shown here." in said
    assert "declined" not in said


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("run-waiting", "The hospitals are checking the permit. No record has left a hospital."),
        ("run-running", "Round 9 of at most 12. No record has left a hospital."),
        ("run-finished", "The model is fitted over about 740 people. No record has left a hospital."),
        ("run-statistics", "Three features are described over about 740 people."),
        ("run-judged", "The model ranks a case above a non-case in 88 of 100 pairs, over about 740 people."),
        ("run-failed", "This run ended without an answer: too few hospitals answered;"),
        ("run-private", "77 % of the privacy budget is spent"),
        ("run-finished", "sex multiplies the odds by 3.67"),
        ("runs", "Nine runs, four under way."),
        ("runs-none", "Nothing has run here yet."),
    ],
)
def test_a_page_says_the_finding(made, page, says):
    assert says in Text(made[page]).said


def test_a_page_refreshes_itself_only_while_something_can_change(made):
    live = [name for name, page in made.items() if "hx-get" in page]
    assert [name for name in live if name.startswith("run")] == [
        "run-waiting",
        "run-first-round",
        "run-running",
        "run-private",
    ]


def test_only_entries_that_a_quorum_has_seen_are_called_cosigned(made):
    assert "cosigned by 4 hospitals" in Text(made["run-running"]).said
    assert "cosigned" not in Text(made["run-first-round"]).said


@pytest.mark.parametrize("page", ["run-running", "run-finished"])
def test_the_chart_and_its_table_count_rounds_as_the_log_does(made, page):
    said = Text(made[page]).said
    assert "The mean log loss fell by 32 % in 8 rounds" in said
    assert said.count("0.471 in round 8") == 2  # wide and narrow
    assert "7 0.476 8 0.471" in said


@pytest.mark.parametrize("values", [(), (0.5,), (0.5, 0.5), (1e-9, 2e-9), (-3.0, 4e6), tuple(range(40))])
@pytest.mark.parametrize("draw", [curve, small_curve])
def test_a_curve_lies_within_its_picture_whatever_its_values(values, draw):
    chart = Curve(title="t", description="d", unit="u", values=values, rounds=12, ident="c")
    for picture in str(draw(chart)).split("</svg>")[:-1]:
        width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', picture).groups())
        for x, y in re.findall(r'(?: |c)x="([-\d.]+)" (?:c?)y="([-\d.]+)"', picture):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


@pytest.mark.parametrize(
    "effects",
    [(), (Effect(name="a", ratio=1.0, low=1.0, high=1.0),), (Effect(name="b", ratio=30.0, low=0.001, high=900.0),)],
)
def test_a_forest_lies_within_its_picture_whatever_its_effects(effects):
    for picture in str(forest(Forest(title="t", description="d", effects=effects, ident="f"))).split("</svg>")[:-1]:
        width = int(re.search(r'viewBox="0 0 (\d+) ', picture)[1])
        assert all(0 <= float(x) <= width for x in re.findall(r'(?: |c)x="([-\d.]+)"', picture))


# -- the kit


@pytest.mark.parametrize("name_of_file", sorted(STATIC_TYPES))
def test_a_static_file_is_there_and_asks_nobody_for_anything(name_of_file):
    text = static_file(name_of_file).decode()
    if name_of_file.endswith(".css"):
        assert not re.search(r"url\((?!\s*['\"]?data:image)|@import(?!\s+url\(['\"]?\./)[^;]*http", text)
    if name_of_file == "live.js":
        assert not re.search(r"fetch|eval|innerHTML|http", text.replace('"htmx:', ""))


def test_each_file_by_others_is_named_with_its_licence():
    told = (files("paroma.web.kit") / "static" / "THIRD-PARTY.md").read_text()
    assert all(f"`{name}`" in told for name in ("designsystemet.css", "htmx.js"))


def test_our_rules_have_no_left_no_right_and_no_force():
    for name_of_file in ("paroma.css", "tokens.css"):
        rules = re.sub(r"/\*.*?\*/", "", static_file(name_of_file).decode(), flags=re.DOTALL)
        assert not re.search(r"(margin|padding|border)-(left|right)|[{;]\s*(left|right)\s*:|!important", rules)


def test_times_are_written_in_full_and_name_their_zone():
    noon = 1795528931.2
    assert day(noon) == "24 November 2026"
    assert (clock(noon), clock12(noon), machine_time(noon)) == ("14:02:11", "2:02:11 pm UTC", "2026-11-24T14:02:11Z")
    assert [clock12(h * 3600) for h in (0, 12, 13)] == ["12:00:00 am UTC", "12:00:00 pm UTC", "1:00:00 pm UTC"]


def test_small_numbers_are_words():
    assert [spelled(n) for n in (0, 1, 12, 13)] == ["No", "One", "Twelve", "13"]
