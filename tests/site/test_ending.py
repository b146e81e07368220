"""What ends at a site: a patient's records. A permit's and an officer's end are in `tests/hub/test_lifecycle.py`."""

import asyncio
import threading

import pytest

from paroma.data.consent import state as consent
from paroma.data.rights import ledger as rights
from paroma.learn.algorithms.query import Statistics
from paroma.trust.audit import log as logs

WHY = {"reason": "asked by letter of 3 March"}
TWO = Statistics(features=("age", "chol"))


def said_of(town, patient):
    return town.sites["va"].store.read_now(lambda tx: consent.statements_of(tx, patient))


@pytest.mark.promise(2)
def test_an_erased_patient_is_in_nothing_any_more_and_the_log_has_the_certificate(town):
    async def scene(town):
        permit = await town.permit()
        assert (await town.run(permit, TWO))["status"] == "finished"
        site, officer = town.sites["va"], town.someone("officer@va")
        patient = town.patients("va")[0]
        browser = await town.patient_browser("va", patient)
        status, said = await officer.ask("POST", f"/api/patients/{patient}/erase", WHY)
        assert (status, said["again"]) == (200, False), said
        assert said["replicas"] == 2
        assert patient not in site.vault
        assert site.vault.was_erased(patient)
        assert said_of(town, patient) == ()
        assert site.store.read_now(lambda tx: rights.uses_of(tx, patient)) == ()
        page = await browser.ask("GET", site.settings.origin + "/me")
        assert patient.encode() not in page.body
        assert page.status != 200
        (entry,) = [e for e in town.site_log("va") if e["kind"] == "erasure"]
        assert (entry["tag"], entry["epoch"], entry["by"]) == (said["tag"], said["epoch"], officer.person)
        assert said["tag"] == site.vault.erasure_tag(patient)
        head = site.store.read_now(lambda tx: logs.checkpoint(tx, logs.SITE).size)
        assert said["entry"] == head - 1
        assert patient not in str(town.site_log("va"))
        again = (await officer.ask("POST", f"/api/patients/{patient}/erase", WHY))[1]
        assert (again["again"], again["at"], again["entry"]) == (True, said["at"], said["entry"])
        assert (await town.run(permit, TWO))["status"] in {"finished", "failed"}  # one fewer: differencing may refuse

    town.play(scene)


@pytest.mark.promise(2)
def test_an_erasure_while_a_run_holds_the_patient_waits_until_it_is_over(town):
    async def scene(town):
        permit = await town.permit()
        began, go = asyncio.Event(), asyncio.Event()

        async def hold(name):
            if name == "va":
                began.set()
                await go.wait()

        town.before = hold
        run = (await town.open_run(permit, TWO))["run"]
        await asyncio.wait_for(began.wait(), 20)
        site, officer = town.sites["va"], town.someone("officer@va")
        patient = town.patients("va")[3]
        erasing = asyncio.ensure_future(officer.ask("POST", f"/api/patients/{patient}/erase", WHY))
        await asyncio.sleep(1.0)
        assert not erasing.done()
        assert any(e["kind"] == "withdrawal" for e in town.site_log("va"))  # not used any more at once
        go.set()
        assert (await town.ended(run))["status"] in {"finished", "failed"}
        status, said = await erasing
        assert status == 200, said
        assert patient not in site.vault

    town.play(scene)


@pytest.mark.promise(2)
def test_only_an_officer_erases_and_only_who_is_here(town):
    async def scene(town):
        await town.enrol("va", "Desk", "desk")
        patient = town.patients("va")[0]
        path = f"/api/patients/{patient}/erase"
        status, said = await town.someone("desk@va").ask("POST", path, WHY)
        assert status == 403
        assert "officer" in said["detail"]
        officer = town.someone("officer@va")
        for body, sentence in ((b"{}", "refused"), ({"reason": "  "}, "no reason is given")):
            status, said = await officer.ask("POST", path, body)
            assert status == 400
            assert sentence in said["detail"]
        status, said = await officer.ask("POST", "/api/patients/nobody/erase", WHY)
        assert status in {400, 403}
        assert said["do"]
        stranger = town.someone("officer@cleveland")
        stranger.caller.hub = town.sites["va"].settings.origin
        with pytest.raises(Exception, match="do not belong"):
            await stranger.ask("POST", path, WHY)
        assert patient in town.sites["va"].vault
        assert not [e for e in town.site_log("va") if e["kind"] in {"erasure", "withdrawal"}]

    town.play(scene)


class Slow:
    """Randomness that waits where a cohort gets its name: its rows are read by then, and nobody else knows of them yet."""

    def __init__(self, inner):
        self.inner, self.began, self.go = inner, threading.Event(), threading.Event()

    def take(self, count):
        if count == 16:  # bytes of a cohort's name
            self.began.set()
            self.go.wait(60)
        return self.inner.take(count)


@pytest.mark.promise(2)
def test_an_erasure_waits_for_a_cohort_that_is_being_read_as_well(town):
    async def scene(town):
        permit = await town.permit()
        site, officer = town.sites["va"], town.someone("officer@va")
        slow = site.rounds._p.randomness = Slow(site.rounds._p.randomness)
        run = (await town.open_run(permit, TWO))["run"]
        assert await asyncio.to_thread(slow.began.wait, 20)
        patient = town.patients("va")[3]
        erasing = asyncio.ensure_future(officer.ask("POST", f"/api/patients/{patient}/erase", WHY))
        await asyncio.sleep(1.5)
        assert not erasing.done()
        slow.go.set()
        assert (await town.ended(run))["status"] in {"finished", "failed"}
        status, said = await erasing
        assert status == 200, said

    town.play(scene)


@pytest.mark.promise(4)
def test_a_reason_that_names_the_patient_is_refused_before_anything_is_destroyed(town):
    """The log cannot forget and does not take it: found only at the end, an erasure would stand nowhere."""

    async def scene(town):
        site, patient = town.sites["va"], town.patients("va")[0]
        why = {"reason": f"{patient} asked for it"}
        status, _ = await town.someone("officer@va").ask("POST", f"/api/patients/{patient}/erase", why)
        assert status == 403
        assert patient in site.vault
        assert not any(e["kind"] in {"erasure", "withdrawal"} for e in town.site_log("va"))

    town.play(scene)
