"""A privacy officer: own key, own site, the last word."""

import json
from http.cookiejar import CookieJar
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from paroma.kernel.errors import Refused
from paroma.lab.processes import ProcessFailed, until
from paroma.sdk.officer import Officer, OtherPermit
from paroma.trust.permit import permit as permits


@pytest.fixture
def officer(running):
    talk = running.talk("cleveland")
    yield Officer(talk)
    talk.close()


def test_the_officer_sees_what_is_asked_in_plain_words(officer):
    def valid():
        return [one for one in officer.requests() if one.state == "valid"]

    until(lambda: bool(valid()), seconds=20, sentence="the hub did not tell the site that the permit is valid")
    asked = valid()
    assert asked
    assert asked[0].benefit
    assert asked[0].patients is not None


@pytest.mark.promise(3)
def test_one_hospitals_key_opens_no_other_hospital(running):
    other = running.talk("budapest")
    try:
        stranger = running.talk("cleveland")
        moved = type(stranger)(
            other.profile,
            stranger.key,
            stranger._network,
            clock=stranger.clock,
            randomness=stranger._caller._randomness,
        )
        with pytest.raises(Refused):
            Officer(moved).site()
        stranger.close()
    finally:
        other.close()


@pytest.mark.promise(3)
def test_pausing_is_one_command_and_resuming_another(running):
    assert json.loads(running.command("site", "pause", "--profile", "cleveland", "--json")) == {"paused": True}
    try:
        assert json.loads(running.command("site", "status", "--profile", "cleveland", "--json"))["paused"] is True
    finally:
        running.command("site", "resume", "--profile", "cleveland", "--json")
    assert json.loads(running.command("site", "status", "--profile", "cleveland", "--json"))["paused"] is False


def test_a_permit_that_nobody_asked_for_cannot_be_signed(running):
    with pytest.raises(ProcessFailed) as failed:
        running.command("site", "sign", "permit-0000000000000000", "--profile", "cleveland")
    assert "nobody asks this hospital" in failed.value.message


@pytest.mark.promise(3)
def test_a_permit_is_signed_only_where_it_is_the_one_whose_digest_was_read(officer):
    asked = officer.requests()[0]
    with pytest.raises(OtherPermit) as refused:
        officer.sign(asked.permit.id, digest="0" * 64)
    assert permits.digest(asked.permit) in refused.value.message
    assert "nothing was signed" in refused.value.message


def test_one_command_opens_the_officers_pages_in_one_browser(running):
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    for place, says in (
        ("requests", "Requests – Cleveland"),
        ("staff", "can act for this hospital"),
        ("health", "The walls around"),
    ):
        url = json.loads(running.command("site", "open", place, "--profile", "cleveland", "--json"))["url"]
        with browser.open(url) as page:
            assert says in page.read().decode()
    asked = json.loads(running.command("site", "requests", "--profile", "cleveland", "--json"))["requests"][0]["permit"]
    url = json.loads(running.command("site", "open", asked["id"], "--profile", "cleveland", "--json"))["url"]
    with browser.open(url) as page:
        assert asked["id"] in page.read().decode()
    with pytest.raises(ProcessFailed) as failed:
        running.command("site", "open", "cellar", "--profile", "cleveland")
    assert "there is no such page" in failed.value.message
