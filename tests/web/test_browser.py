"""Every page in a real browser: axe finds nothing, nothing scrolls sideways, the keyboard reaches everything, and patients need no script."""

import re

import pytest

pytestmark = pytest.mark.apt("chromium")

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OUTLINE = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const style = getComputedStyle(at), box = at.getBoundingClientRect();
  return {what: `${at.outerHTML.slice(0, 60)} at ${box.x + scrollX} ${box.y + scrollY}`, width: parseFloat(style.outlineWidth), line: style.outlineStyle, seen: box.width > 0 && box.height > 0};
}"""
CONTROLS = """() => Array.from(document.querySelectorAll('a[href], button, summary, select, input:not([type=hidden]), [tabindex="0"]'))
  .filter((one) => one.checkVisibility() && !(one.type === 'radio' && !one.checked)).length"""
SMALL = """() => Array.from(document.querySelectorAll('main a, main button, main summary, main label, footer a'))
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([one, box]) => box.height > 0 && (box.height < 43.5 || box.width < 43.5) && !one.closest('.card-link'))
  .map(([one, box]) => `${one.outerHTML.slice(0, 60)} ${box.width} x ${box.height}`)"""


@pytest.fixture(scope="module")
def axe():
    """axe-core as its wheel brings it: `axe(page)` gives what it found."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="for want of axe")
    script = module.Axe().axe_script

    def found(page, *, only=None):
        options = {
            "runOnly": only or RULES,
            "resultTypes": ["violations"],
            "rules": {"color-contrast-enhanced": {"enabled": True}},  # 7 to 1
        }
        if not page.evaluate("Boolean(window.axe)"):
            page.evaluate(script)
        result = page.evaluate("(options) => axe.run(options)", options)
        return [(v["id"], [node["html"][:120] for node in v["nodes"]][:3]) for v in result["violations"]]

    return found


@pytest.fixture(scope="module")
def sheet(browser, address):
    """Opens a page in one tab that all tests share: `sheet(name, width)`. Messages of its console are in `.messages`."""
    tab = browser.new_page(reduced_motion="reduce")
    tab.messages = []
    tab.on("console", lambda message: tab.messages.append(message.text))
    tab.on("request", lambda request: tab.messages.append(request.url) if not request.url.startswith(address) else None)

    def opened(name, width, scheme="light"):
        tab.messages.clear()
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(f"{address}/{name}")
        return tab

    yield opened
    tab.close()


def test_axe_finds_nothing_and_nothing_scrolls_sideways(sheet, axe, name):
    page = sheet(name, 320)
    page.locator("summary").evaluate_all("(all) => all.forEach((one) => { one.parentElement.open = true })")
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert axe(page) == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(color_scheme="dark")
    assert axe(page, only=["cat.color"]) == [], "dark"
    assert page.messages == []


def test_axe_and_the_width_are_measured_at_all(sheet, axe):
    page = sheet("home", 320)
    page.locator("main").evaluate(
        "(one) => { one.insertAdjacentHTML('beforeend', '<img src=\"/static/mark.svg\" width=900>') }"
    )
    assert [rule for rule, _ in axe(page)] == ["image-alt"]
    assert page.evaluate("document.documentElement.scrollWidth") > 320
    page = sheet("home", 320, "dark")
    page.locator("main p").first.evaluate(
        "(one) => { one.style.color = '#8c8c8c' }"
    )  # 5 to 1: enough for AA, too little here
    assert [rule for rule, _ in axe(page, only=["cat.color"])] == ["color-contrast-enhanced"]


@pytest.mark.parametrize(
    "place",
    [
        "home",
        "uses",
        "withdraw",
        "receipt",
        "runs",
        "run-finished",
        "run-statistics",
        "four-after",
        "officer",
        "officer-request-error",
        "officer-end",
        "catalogue",
        "studies",
        "permit",
        "timeline",
    ],
)
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(sheet, place):
    page = sheet(place, 1280)
    controls, reached = page.evaluate(CONTROLS), []
    for _ in range(controls):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(OUTLINE))
    assert len({one and one["what"] for one in reached} - {None}) == controls
    assert [one for one in reached if not (one["seen"] and one["width"] >= 2 and one["line"] == "solid")] == []


@pytest.mark.parametrize("width", [320, 1280])
def test_what_a_patient_touches_is_at_least_44_px_high_and_wide(sheet, patient_page, width):
    page = sheet(patient_page, width)
    page.locator("summary").evaluate_all("(all) => all.forEach((one) => { one.parentElement.open = true })")
    assert page.evaluate(SMALL) == []


@pytest.mark.promise(2)
def test_a_patient_says_no_in_two_clicks_without_script(browser, address):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 320, "height": 800})
    page = context.new_page()
    page.goto(f"{address}/me")
    page.get_by_role("link", name="My choices").click()
    page.get_by_role("button", name="Yes, stop now").click()
    page.wait_for_url(f"{address}/me/receipts/1")
    assert page.get_by_role("heading", level=1).inner_text() == "No research uses your records from now on."
    page.get_by_text("How can I check this?").click()  # opens without script
    assert page.get_by_text("entry 118").is_visible()
    context.close()


def test_a_patient_finds_their_uses_by_keyboard_alone(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/me")
    page.get_by_role("link", name="Who used my records").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/me/uses")
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("Yes, genuine").is_visible()
    page.close()


# -- pages that refresh themselves


@pytest.fixture
def watched(browser, address, made):
    """A tab on a running run, and what it is answered when it asks again."""
    tab = browser.new_page()
    answers = [made["run-running"]]
    tab.goto(f"{address}/run-running")
    tab.route(re.compile("/runs/"), lambda route: route.fulfill(body=answers[0], headers={"content-type": "text/html"}))
    yield tab, answers
    tab.close()


def test_a_run_fills_itself_in_place_and_stops_when_it_is_over(watched, made):
    tab, answers = watched
    answers[0] = made["run-finished"]
    tab.get_by_text("The model is fitted").wait_for()
    assert tab.locator("[hx-get]").count() == 0


def test_a_refresh_leaves_its_reader_in_peace(watched, made):
    tab, answers = watched
    tab.get_by_text("Show as table").click()
    tab.locator("#live").evaluate("(one) => { one.dataset.first = 'yes' }")
    with tab.expect_response(re.compile("/runs/")):
        pass
    with tab.expect_response(re.compile("/runs/")):
        pass
    answers[0] = made["run-running"].replace("Round 9 of at most 12", "Round 10 of at most 12")
    tab.get_by_text("Round 10 of at most 12").first.wait_for()
    assert tab.get_by_role("cell", name="0.693").is_visible()  # the table is still open
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_refresh_that_brings_nothing_new_changes_nothing(watched):
    tab, _ = watched
    for _ in range(2):  # the first brings the page as the program has it now
        with tab.expect_response(re.compile("/runs/")):
            pass
    tab.wait_for_timeout(100)
    tab.locator("#live").evaluate("(one) => { one.dataset.mark = 'mine' }")
    with tab.expect_response(re.compile("/runs/")):
        pass
    tab.wait_for_timeout(100)
    assert tab.locator("#live").get_attribute("data-mark") == "mine"
