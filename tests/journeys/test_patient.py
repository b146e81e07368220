"""A patient: a link from the desk, her own pages, a no, a receipt."""

import pytest

from paroma.lab import heart
from paroma.lab.patient import Browser, PageWrong


def somebody(number):
    found = [row.patient for row in heart.rows() if row.hospital == "cleveland" and row.complete]
    return found[number]


def test_a_link_opens_her_pages_once_in_one_browser(running):
    link = running.patient_link("cleveland", somebody(20))
    with Browser(link) as hers:
        assert "records never left the clinic" in hers.home
        with pytest.raises(PageWrong):
            Browser(link)
        assert "records never left the clinic" in hers.again()


@pytest.mark.promise(2)
def test_she_says_no_in_two_clicks_and_keeps_a_receipt(running):
    with Browser(running.patient_link("cleveland", somebody(21))) as hers:
        hers.withdraw_form()
        receipt = hers.withdraw()
        assert receipt.seconds <= 1
        assert "No research uses your records from now on." in receipt.text
        assert "no to all research" in hers.again()


@pytest.mark.promise(4)
def test_each_no_has_a_place_of_its_own_in_the_clinics_log(running):
    entries = set()
    for number in (22, 23):
        with Browser(running.patient_link("cleveland", somebody(number))) as hers:
            hers.withdraw_form()
            entries.add(hers.withdraw().entry)
    assert len(entries) == 2


@pytest.mark.promise(1)
def test_her_session_shows_nobody_elses_receipt(running):
    with Browser(running.patient_link("cleveland", somebody(24))) as hers:
        hers.withdraw_form()
        receipt = hers.withdraw()
        assert receipt.number in hers.page(receipt.address)
    with Browser(running.patient_link("cleveland", somebody(25))) as another, pytest.raises(PageWrong):
        another.page(receipt.address)
