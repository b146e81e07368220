"""Who is out, and how soon: silence, quarantine, revocation of people, keys and permits, by route and by command."""

import asyncio
import time

import pytest

from paroma.hub import operator
from paroma.hub.settings import FILE, HubSettings, to_toml
from paroma.kernel.errors import BadInput, Refused
from paroma.learn.algorithms.query import Statistics
from paroma.trust.channel.caller import NotLetIn
from paroma.trust.federation import members
from paroma.trust.identity import people

HUB_URL = "https://hub.test:443"
TWO = Statistics(features=("age", "chol"))
BUSY = 0.5  # s: what the rest of a federation in one process may add
CONNECTED = 1.0  # s: within so long whoever is revoked is out
WHY = {"reason": "it behaves strangely"}


async def until(holds, *, seconds=20.0):
    """The first true answer of `holds`, asked again and again."""
    async with asyncio.timeout(seconds):
        while True:
            found = await holds()
            if found:
                return found
            await asyncio.sleep(0.03)


class Lived:
    """Seconds as this process lives them: the naps that its loop got through, or its CPU time where that is more. Other
    programs on the machine make both longer by the clock on the wall, and no program here is to blame for that.
    """

    NAP = 0.02

    def __enter__(self):
        self._napping = asyncio.ensure_future(self._nap())
        self.begin()
        return self

    def __exit__(self, *_error):
        self._napping.cancel()

    def begin(self):
        self._naps, self._cpu = 0, time.process_time()

    @property
    def seconds(self):
        return max(self._naps * self.NAP, time.process_time() - self._cpu)

    async def _nap(self):
        while True:
            await asyncio.sleep(self.NAP)
            self._naps += 1


def here(town):
    """The hub's folder as its commands find it: settings that name the very store."""
    folder = town.folder / "hub"
    settings = HubSettings(folder=folder, name="Test federation", url=HUB_URL, store=town.urls("hub"))
    (folder / FILE).write_text(to_toml(settings))
    return folder


async def status_of(town, name):
    _, found = await town.someone("operator@hub").ask("GET", "/api/members")
    return next(one for one in found if one["title"] == name)


def becomes(town, name, status):
    async def is_so():
        found = await status_of(town, name)
        return found if found["status"] == status else None

    return until(is_so)


async def shut_out(asking):
    """Whether a request gets no token any more, or is refused."""
    try:
        reply = await asking
    except NotLetIn:
        return True
    return (reply[0] if isinstance(reply, tuple) else reply.status) in {401, 403}


class Held:
    """Holds the worker of one site until it is let go; says when it began."""

    def __init__(self, town, *names):
        self.names, self.began, self.go = set(names), {n: asyncio.Event() for n in names}, asyncio.Event()
        town.before = self._before

    async def _before(self, name):
        if name in self.names:
            self.began[name].set()
            await self.go.wait()

    async def all_began(self):
        for began in self.began.values():
            await asyncio.wait_for(began.wait(), 20)


def kinds(town):
    return [entry["kind"] for entry in town.hub_log()]


# -- silence


def test_a_round_goes_on_without_a_site_that_falls_silent_and_it_is_online_again_when_it_comes_back(town):
    town.offline = 0.6

    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        began = time.monotonic()
        await town.stop_site("va")
        report = await town.ended(run, seconds=20)
        assert report["status"] == "finished", report["reason"]
        assert time.monotonic() - began < 15  # the machine's own patience for uploads is 60 s
        assert any("va is offline" in line["what"] for line in report["story"])
        assert [s["online"] for s in report["sites"] if s["title"] == "va"] == [False]
        gone = await becomes(town, "va", "offline")
        assert gone["seen"] >= 0.6
        held.go.set()
        await town.start_site("va")
        assert (await becomes(town, "va", "online"))["seen"] < 5
        assert [k for k in kinds(town) if k in {"member-offline", "member-online"}] == [
            "member-offline",
            "member-online",
        ]
        assert (await town.run(permit, TWO))["status"] == "finished"

    town.play(scene)


def test_a_site_that_computes_for_long_is_not_offline(town):
    town.offline = 0.5

    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        await asyncio.sleep(2.5)
        assert (await status_of(town, "va"))["status"] == "online"
        held.go.set()
        assert (await town.ended(run))["status"] == "finished"
        assert "member-offline" not in kinds(town)

    town.play(scene)


def test_a_run_that_too_few_are_left_for_fails_at_once_and_says_why(town):
    town.offline = 0.6

    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va", "hungarian")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        began = time.monotonic()
        await town.stop_site("va")
        await town.stop_site("hungarian")
        report = await town.ended(run, seconds=20)
        assert report["status"] == "failed"
        assert "too few of its hospitals are connected" in report["reason"]
        assert time.monotonic() - began < 10
        status, said = await town.someone("scientist@hub").ask(
            "POST", "/api/runs", {"permit": permit.id, "query": {"type": "statistics", "features": ["age"]}}
        )
        assert status == 403
        assert "2 participating sites are online, the permit needs 3" in said["detail"]

    town.play(scene)


def test_a_run_that_opens_while_a_site_is_offline_does_not_wait_for_it(town):
    town.offline = 0.6

    async def scene(town):
        permit = await town.permit()
        await town.stop_site("va")
        await becomes(town, "va", "offline")
        began = time.monotonic()
        assert (await town.run(permit, TWO))["status"] == "finished"
        assert time.monotonic() - began < 15  # setting up alone would have waited 30 s for it

    town.play(scene)


def test_who_was_online_before_a_restart_of_the_hub_and_never_comes_again_is_offline(town):
    town.offline = 0.6

    async def scene(town):
        await becomes(town, "va", "online")
        await town.stop_hub()
        await town.stop_site("va")
        await town.start_hub()
        assert (await status_of(town, "va"))["status"] == "online"  # it may need a while to reach the hub again
        await becomes(town, "va", "offline")
        assert (await becomes(town, "cleveland", "online"))["seen"] == 0

    town.play(scene)


# -- members


@pytest.mark.promise(3)
@pytest.mark.parametrize("way", ["route", "command"])
def test_a_site_in_quarantine_is_out_within_a_second_and_its_run_goes_on_without_it(town, way):
    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        site = town.sites["va"].membership.site
        caller = town.sites["va"].caller
        assert site in town.hub.parked.sites()
        with Lived() as lived:
            if way == "route":
                status, said = await town.someone("operator@hub").ask("POST", f"/api/members/{site}/quarantine", WHY)
                assert status == 200
                assert (said["state"], said["again"]) == ("quarantined", False)
            else:
                done = await asyncio.to_thread(operator.quarantine, here(town), site, WHY["reason"])
                lived.begin()  # from here on it is durable, and nobody has told the running hub
                assert not done.again
            out = lambda: shut_out(caller.call("GET", "/log/checkpoint", wait=5.0))  # noqa: E731
            while site in town.hub.parked.sites() or not await out():
                await asyncio.sleep(0.02)
            assert lived.seconds <= CONNECTED + BUSY
        assert (await town.ended(run, seconds=15))["status"] == "finished"
        entry = next(e for e in town.hub_log() if e["kind"] == "member-quarantined")
        assert entry["reason"] == WHY["reason"]
        assert entry["by"] in {town.someone("operator@hub").person, "at-the-machine"}

        async def others_know():
            found = await town.sites["cleveland"].store.read(lambda tx: members.member(tx, site))
            return found.status == "quarantined"

        await until(others_know)
        held.go.set()
        status, said = await town.someone("operator@hub").ask("POST", f"/api/members/{site}/quarantine", WHY)
        assert (status, said["again"]) == (200, True)
        status, said = await town.someone("operator@hub").ask("POST", f"/api/members/{site}/release", WHY)
        assert (status, said["state"]) == (200, "admitted")
        await becomes(town, "va", "online")

        async def others_know_that_too():
            found = [await s.store.read(lambda tx: members.member(tx, site)) for s in town.sites.values()]
            return all(one.status in members.TAKES_PART for one in found)

        await until(others_know_that_too)
        assert (await town.run(permit, TWO))["status"] == "finished"

    town.play(scene)


@pytest.mark.promise(3)
def test_a_site_that_is_shut_off_stays_out_over_a_restart_of_the_hub(town):
    async def scene(town):
        site = town.sites["va"].membership.site
        await town.someone("operator@hub").ask("POST", f"/api/members/{site}/quarantine", WHY)
        await town.stop_hub()
        await town.start_hub()
        await becomes(town, "cleveland", "online")
        await asyncio.sleep(1.0)
        assert (await status_of(town, "va"))["status"] == "quarantined"
        assert site not in town.hub.parked.sites()

    town.play(scene)


@pytest.mark.promise(3)
def test_a_member_that_was_removed_is_gone_for_good(town):
    async def scene(town):
        site, folder = town.sites["va"].membership.site, here(town)
        assert (await asyncio.to_thread(operator.remove, folder, site, "it closed")).state == "left"
        assert (await asyncio.to_thread(operator.remove, folder, site, "it closed")).again
        for act in (operator.quarantine, operator.release):
            with pytest.raises(Refused, match="is left and cannot become"):
                await asyncio.to_thread(act, folder, site, "no")
        with pytest.raises(Refused, match="there is no site `site-0000000000000000`"):
            await asyncio.to_thread(operator.quarantine, folder, "site-0000000000000000", "no")
        with pytest.raises(BadInput, match="no reason"):
            await asyncio.to_thread(operator.quarantine, folder, site, " \n")
        found = await asyncio.to_thread(operator.member_list, folder)
        assert {one.title: one.status for one in found}["va"] == "left"

    town.play(scene)


@pytest.mark.promise(3)
def test_only_an_operator_shuts_somebody_off_and_a_request_of_theirs_is_good_once(town):
    async def scene(town):
        site = town.sites["va"].membership.site
        person = town.someone("auditor@hub").person
        paths = [f"/api/members/{site}/{act}" for act in ("quarantine", "release", "remove")]
        paths += [f"/api/people/{person}/revoke", f"/api/keys/{'A' * 43}/revoke"]
        for path in paths:
            for who in ("scientist@hub", "auditor@hub"):
                status, said = await town.someone(who).ask("POST", path, WHY)
                assert (status, "operator" in said["detail"]) == (403, True), (path, who)
            reply = await town.sites["cleveland"].caller.call("POST", path, b"{}", wait=5.0)
            assert reply.status in {401, 403}
        assert not [k for k in kinds(town) if k in {"member-quarantined", "member-left", "person-revoked"}]
        await town.someone("operator@hub").ask("POST", f"/api/members/{site}/quarantine", WHY)
        sent = next(r for r in reversed(town.wires.seen) if r.url.endswith("/quarantine"))
        await town.someone("operator@hub").ask("POST", f"/api/members/{site}/release", WHY)
        assert (await town.wires.send(sent)).status == 401
        assert (await status_of(town, "va"))["status"] != "quarantined"

    town.play(scene)


# -- people and keys


@pytest.mark.promise(3)
@pytest.mark.parametrize("way", ["route", "command", "key"])
def test_a_person_who_is_revoked_is_out_within_a_second_with_what_waits_and_what_runs(town, way):
    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va")
        scientist, boss = town.someone("scientist@hub"), town.someone("operator@hub")
        report = await town.open_run(permit, TWO)
        await held.all_began()
        run = report["run"]
        waiting = asyncio.ensure_future(scientist.ask("GET", f"/api/runs/{run}?wait=20&after=999"))
        await asyncio.sleep(0.3)
        with Lived() as lived:
            if way == "command":
                await asyncio.to_thread(operator.revoke_person, here(town), scientist.person, "left the institute")
                lived.begin()
            else:
                what = f"people/{scientist.person}" if way == "route" else f"keys/{scientist.key.thumbprint}"
                status, said = await boss.ask("POST", f"/api/{what}/revoke", {"reason": "left the institute"})
                assert (status, said["kind"], said["again"]) == (200, "person", False)
            status, said = await asyncio.wait_for(waiting, 15)
            assert lived.seconds <= CONNECTED + BUSY
        assert status == 403
        assert await shut_out(scientist.ask("GET", "/api/runs"))
        _, report = await boss.ask("GET", f"/api/runs/{run}")
        assert (report["status"], report["reason"]) == ("stopped", "whoever opened it was revoked")
        held.go.set()
        status, said = await boss.ask("POST", f"/api/people/{scientist.person}/revoke", WHY)
        assert (status, said["again"]) == (200, True)
        status, said = await boss.ask("POST", "/api/people/person-0000000000000000/revoke", WHY)
        assert status == 403
        assert "no such person" in said["detail"]
        assert len([e for e in town.hub_log() if e["kind"] == "person-revoked"]) == 1

    town.play(scene)


@pytest.mark.promise(3)
def test_a_key_is_shut_off_with_whoever_holds_it(town):
    async def scene(town):
        folder, site = here(town), town.sites["va"]
        done = await asyncio.to_thread(operator.revoke_key, folder, site.key.thumbprint, "found on a USB stick")
        assert (done.kind, done.id, done.state) == ("member", site.membership.site, "quarantined")
        officer = town.someone("officer@cleveland")

        async def named():
            return await town.hub.store.read(lambda tx: members.officers(tx, town.sites["cleveland"].membership.site))

        await until(named)
        with pytest.raises(Refused, match="this key is an officer's"):
            await asyncio.to_thread(operator.revoke_key, folder, officer.key.thumbprint, "lost")
        with pytest.raises(Refused, match="nobody here holds the key"):
            await asyncio.to_thread(operator.revoke_key, folder, "A" * 43, "lost")

    town.play(scene)


# -- permits


@pytest.mark.promise(3)
@pytest.mark.parametrize("way", ["applicant", "operator", "command"])
def test_a_permit_that_is_revoked_stops_its_runs_at_once(town, way):
    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va", "cleveland")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        with Lived() as lived:
            if way == "command":
                done = await asyncio.to_thread(
                    operator.revoke_permit, here(town), permit.id, "the ethics vote was withdrawn"
                )
                lived.begin()
                assert not done.again
            else:
                who = town.someone("scientist@hub" if way == "applicant" else "operator@hub")
                status, said = await who.ask("POST", f"/api/permits/{permit.id}/revoke", {"reason": "it is not needed"})
                assert (status, said.get("state", "")) == (200, "revoked")
            report = await town.ended(run, seconds=15)
            assert report["status"] == "stopped"
            assert report["reason"].startswith("its permit was revoked: ")

            async def stopped():
                logs = [town.site_log(name) for name in ("va", "cleveland")]
                return all(any(e["kind"] == "run-left" for e in log) for log in logs)

            await until(stopped)
            assert lived.seconds <= CONNECTED + BUSY

        async def ended():
            return (await town.asked("va", permit.id))["state"] == "revoked"

        await until(ended)
        computing = [task for s in town.sites.values() for task in s.rounds._computing.values() if not task.done()]
        assert computing == []  # what computed was cut: nothing of it is let out any more
        held.go.set()
        again = await asyncio.to_thread(operator.revoke_permit, here(town), permit.id, "once more")
        assert again.again
        assert again.at == pytest.approx(town.clock.now(), abs=60)
        with pytest.raises(Refused, match="there is no permit"):
            await asyncio.to_thread(operator.revoke_permit, here(town), "permit-0000000000000000", "no")

    town.play(scene)


@pytest.mark.promise(3)
def test_an_officer_ends_a_valid_permit_at_her_site_and_the_run_is_told_why(town):
    async def scene(town):
        permit = await town.permit()
        held = Held(town, "va")
        run = (await town.open_run(permit, TWO))["run"]
        await held.all_began()
        officer = town.someone("officer@va")
        why = {"reason": "our board has changed its mind"}
        began = time.monotonic()
        status, said = await officer.ask("POST", f"/api/permits/{permit.id}/revoke", why)
        assert (status, said["again"]) == (200, False)
        report = await town.ended(run, seconds=20)
        assert report["status"] == "finished", report["reason"]  # three are enough
        assert time.monotonic() - began < 15
        assert any(
            "va has ended the permit there: our board has changed its mind" in s["what"] for s in report["story"]
        )
        log = town.site_log("va")
        entered = next(e for e in log if e["kind"] == "permit-ended")
        assert (entered["because"], entered["by"]) == (why["reason"], officer.person)
        assert not [e for e in log if e["kind"] in {"vote-signed", "answer-given"}]
        _, standing = await town.someone("scientist@hub").ask("GET", f"/api/applications/{permit.id}")
        assert standing["state"] == "valid"
        assert [(r["title"], r["because"]) for r in standing["refusals"]] == [("va", why["reason"])]
        status, said = await officer.ask("POST", f"/api/permits/{permit.id}/revoke", why)
        assert (status, said["again"]) == (200, True)
        held.go.set()
        assert (await town.run(permit, TWO, seconds=20))["status"] == "finished"
        await town.someone("officer@cleveland").ask("POST", f"/api/permits/{permit.id}/revoke", why)

        async def known():
            _, found = await town.someone("scientist@hub").ask("GET", f"/api/applications/{permit.id}")
            return len(found["refusals"]) == 2

        await until(known)
        status, said = await town.someone("scientist@hub").ask(
            "POST", "/api/runs", {"permit": permit.id, "query": {"type": "statistics", "features": ["age"]}}
        )
        assert status == 403
        status, said = await officer.ask("POST", "/api/permits/permit-0000000000000000/revoke", why)
        assert status == 403
        assert "does not hold" in said["detail"]

    town.play(scene)


def test_a_permit_that_is_not_signed_by_all_is_refused_rather_than_ended(town):
    async def scene(town):
        status, standing = await town.someone("scientist@hub").ask("POST", "/api/applications", town.wish())
        assert status == 201
        await town.asked("va", standing["permit"]["id"])
        path = f"/api/permits/{standing['permit']['id']}/revoke"
        status, said = await town.someone("officer@va").ask("POST", path, {"reason": "no"})
        assert status == 403
        assert "refuse it" in said["do"]

    town.play(scene)


@pytest.mark.promise(3)
def test_an_officer_whose_key_was_revoked_at_the_site_signs_nothing_and_what_they_signed_holds_no_more(town):
    async def scene(town):
        permit = await town.permit()
        officer = town.someone("officer@va")
        deputy = await town.enrol("va", "Deputy", "officer")
        held = Held(town, "cleveland")
        running = await town.open_run(permit, TWO)
        await held.all_began()
        status, said = await deputy.ask("POST", f"/api/people/{officer.person}/revoke", {"reason": "phone stolen"})
        assert (status, said["again"]) == (200, False)
        assert await shut_out(officer.ask("GET", "/api/requests"))

        async def unsigned():
            keys = await town.sites["cleveland"].store.read(members.officer_keys)
            return officer.key.thumbprint not in keys[town.sites["va"].membership.site]

        await until(unsigned)
        status, report = await town.someone("scientist@hub").ask(
            "POST", "/api/runs", {"permit": permit.id, "query": {"type": "statistics", "features": ["age"]}}
        )
        assert status == 403
        assert "does not carry the signature of every participant" in report["detail"]
        stopped = await town.ended(running["run"], seconds=5)
        assert stopped["status"] == "stopped"
        assert "an officer who signed its permit" in stopped["reason"]
        assert (await town.sites["va"].store.read(lambda tx: people.person(tx, officer.person))).revoked is not None

    town.play(scene)


def test_the_members_page_says_who_is_here_and_only_an_operator_is_shown_what_to_do(town):
    town.offline = 0.6

    async def scene(town):
        from paroma_test_federation import Browser

        await town.stop_site("va")
        await becomes(town, "va", "offline")
        shown = {}
        for who in ("operator@hub", "scientist@hub"):
            browser = Browser(town)
            status, said = await town.someone(who).ask("POST", "/people/browser-link", {"to": "/members"})
            assert status == 201
            await browser.ask("GET", said["url"])
            reply = await browser.ask("GET", HUB_URL + "/members")
            assert reply.status == 200
            shown[who] = reply.body.decode()
        for page in shown.values():
            assert "Three of four hospitals are online." in page
            assert "offline" in page
            assert "ago" in page
        assert "paroma hub member quarantine" in shown["operator@hub"]
        assert "quarantine" not in shown["scientist@hub"]

    town.play(scene)
