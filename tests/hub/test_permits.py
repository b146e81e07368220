"""From a wish to a permit: who may refuse, and what an edited or unsigned permit is worth."""

import msgspec
import pytest

from paroma.kernel.wire import framing
from paroma.learn.algorithms.query import Statistics
from paroma.trust.channel import mailbox
from paroma.trust.permit import permit as permits
from paroma.trust.permit.messages import PermitIssued
from paroma.trust.permit.permit import Permit, SignedPermit


def test_a_site_that_refuses_says_why_and_what_would_pass(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        status, standing = await scientist.ask("POST", "/api/applications", town.wish())
        assert status == 201
        permit = standing["permit"]["id"]
        await town.asked("va", permit)
        officer = town.someone("officer@va")
        words = "not before \x1b[31mour ethics board\x1b[0m has met <script>alert(1)</script>"
        status, _ = await officer.ask("POST", f"/api/requests/{permit}/refuse", {"reason": words})
        assert status == 204
        status, found = await scientist.ask("GET", f"/api/applications/{permit}?wait=10&unless=submitted")
        assert found["state"] == "refused"
        (refusal,) = found["refusals"]
        assert refusal["title"] == "va"
        assert "our ethics board" in refusal["because"]
        assert "\x1b" not in refusal["because"]
        entry = next(e for e in town.site_log("va") if e["kind"] == "application-refused")
        assert entry["by"] == officer.person
        status, _ = await town.sign("cleveland", msgspec.convert(standing["permit"], Permit))
        after = (await scientist.ask("GET", f"/api/applications/{permit}"))[1]
        assert after["state"] == "refused"

    town.play(scene)


@pytest.mark.parametrize("days", [-1.0, 0.0, float("nan"), 1e300])
def test_a_wish_with_an_impossible_end_is_refused_in_a_sentence(town, days):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        wish = msgspec.to_builtins(town.wish())
        body = msgspec.json.encode(wish | {"days": 0}).replace(b'"days":0', f'"days":{days}'.encode())
        status, said = await scientist.ask("POST", "/api/applications", body)
        assert status in {400, 403}, said
        assert said["do"]
        assert (await scientist.ask("GET", "/api/applications"))[1] == []

    town.play(scene, sites=())


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "marketing"},
        {"features": ("age", "shoe-size")},
        {"data_set": "nothing-here"},
        {"least_owners": 5},
        {"title": ""},
        {"benefit": "x" * 900_000},
        {"most_patients": -1},
        {"attempts": 0},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_wish_that_cannot_be_a_permit_asks_nobody(town, changes):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        status, said = await scientist.ask("POST", "/api/applications", town.wish(**changes))
        assert status in {400, 403}, said
        assert said["do"]
        assert said["detail"]
        assert (await scientist.ask("GET", "/api/applications"))[1] == []

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_a_permit_that_the_hub_wrote_itself_is_none(town):
    """Edited after signing, signed by fewer, or never shown: no site takes it."""

    async def scene(town):
        permit = await town.permit()
        from paroma.hub import proposals

        signed = town.hub.store.read_now(lambda tx: proposals.signed(tx, permit.id))
        wider = msgspec.structs.replace(permit, least_patients=2)
        cases = [
            SignedPermit(permit=wider, signatures=signed.signatures),
            SignedPermit(permit=msgspec.structs.replace(wider, id="permit-0000000000000001"), signatures=()),
            SignedPermit(permit=permit, signatures=signed.signatures[:2]),
        ]
        site = town.sites["cleveland"].membership.site
        for place, forged in enumerate(cases):
            body = framing.pack(PermitIssued(signed=forged, asked_by="Lena"))
            await town.hub.store.write(
                lambda tx, place=place, body=body: mailbox.post(tx, site, f"forged/{place}", body, now=town.clock.now())
            )
        town.hub.parked.wake(site)

        async def refused():
            return len(town.sites["cleveland"].failures) >= len(cases)

        from paroma_test_federation import until

        await until(refused)
        found = (await town.someone("officer@cleveland").ask("GET", "/api/requests"))[1]
        assert [one["permit"]["least_patients"] for one in found if one["state"] == "valid"] == [permit.least_patients]

    town.play(scene)


@pytest.mark.promise(3)
def test_a_permit_that_has_ended_or_was_revoked_opens_no_run(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        ask = {"permit": "", "query": msgspec.to_builtins(Statistics(features=("age",)))}
        permit = await town.permit(days=1.0)
        town.clock.ahead += 2 * 86400
        status, said = await scientist.ask("POST", "/api/runs", ask | {"permit": permit.id})
        assert status == 403
        assert said["do"]
        town.clock.ahead = 0.0
        committee = await town.enrol("hub", "Cora Lind", "committee")
        status, _ = await committee.ask("POST", f"/api/permits/{permit.id}/revoke")
        assert status == 200
        assert (await scientist.ask("POST", "/api/runs", ask | {"permit": permit.id}))[0] == 403
        assert (await scientist.ask("POST", "/api/runs", ask | {"permit": "permit-none"}))[0] in {403, 404}

    town.play(scene)


@pytest.mark.promise(3)
def test_an_officer_cannot_sign_for_another_or_with_another_key(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        _, standing = await scientist.ask("POST", "/api/applications", town.wish())
        permit = msgspec.convert(standing["permit"], Permit)
        await town.asked("va", permit.id)
        mine, other = town.someone("officer@va"), town.someone("officer@cleveland")
        site = town.sites["va"].membership.site
        path = f"/api/requests/{permit.id}/sign"
        for signature in (
            permits.sign(permit, site, other.person, other.key, town.clock.now()),
            permits.sign(permit, town.sites["cleveland"].membership.site, mine.person, mine.key, town.clock.now()),
            permits.sign(msgspec.structs.replace(permit, title="x"), site, mine.person, mine.key, town.clock.now()),
        ):
            status, said = await mine.ask("POST", path, signature)
            assert status in {400, 403}, said
        assert (await town.asked("va", permit.id))["state"] == "waiting"

    town.play(scene)
