"""Duties are separate: nobody approves their own study, whichever door they come through."""

import asyncio

import msgspec
import pytest

from paroma.kernel.randomness import OsRandomness
from paroma.trust.channel.caller import Caller
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.permit import permit as permits

HUB = "https://hub.test:443"


async def enrolled(town, where, role, key):
    """Status and answer of enrolling this very key."""
    program = town.hub if where == "hub" else town.sites[where]
    url = HUB if where == "hub" else program.settings.origin
    site = None if where == "hub" else program.membership.site
    code = await program.store.write(
        lambda tx: people.invite(
            tx, name="Two Hats", role=role, site=site, now=town.clock.now(), randomness=OsRandomness()
        )
    )
    caller = Caller(town.wires, key, "nobody", url, clock=town.clock, randomness=OsRandomness())
    body = msgspec.json.encode({"code": code, "jwk": key.public_jwk})
    reply = await caller.prove("POST", "/people/enrol", body, kind="application/json", wait=10.0)
    said = msgspec.json.decode(reply.body)
    if reply.status == 201:
        town.people[f"{role}@{where}"] = (key, said["person"], url)
    return reply.status, said


@pytest.mark.promise(3)
def test_nobody_signs_the_permit_of_their_own_study(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        assert (await enrolled(town, "va", "officer", scientist.key))[
            0
        ] == 201  # the hospital cannot know whose key it is
        _, standing = await scientist.ask("POST", "/api/applications", town.wish())
        permit = msgspec.convert(standing["permit"], permits.Permit)
        for name in town.members:
            await town.asked(name, permit.id)
            status, said = await town.sign(name, permit)
            assert status == 204, said
        _, found = await scientist.ask("GET", f"/api/applications/{permit.id}?wait=20&unless=submitted")
        assert found["state"] == "refused"
        assert [(one["policy"], one["because"]) for one in found["refusals"]] == [
            ("own-study", "the officer who signed there is who applied")
        ]
        assert not [e for e in town.hub_log() if e["kind"] == "permit-issued"]
        status, _ = await scientist.ask(
            "POST", "/api/runs", {"permit": permit.id, "query": {"type": "statistics", "features": ["age"]}}
        )
        assert status == 403

    town.play(scene)


@pytest.mark.promise(3)
def test_an_officers_key_is_enrolled_for_nothing_else_at_the_hub(town):
    async def scene(town):
        async with asyncio.timeout(30):
            while not await town.hub.store.read(lambda tx: members.officers(tx, town.sites["va"].membership.site)):
                await asyncio.sleep(0.05)  # its site names its officer as soon as it is heard
        for role in ("scientist", "committee", "operator"):
            status, said = await enrolled(town, "hub", role, town.someone("officer@va").key)
            assert (status, said.get("title")) == (403, "KeyTaken")
        status, said = await enrolled(town, "hub", "committee", town.someone("scientist@hub").key)
        assert (status, said.get("title")) == (403, "KeyTaken")

    town.play(scene, sites=("va",))


@pytest.mark.promise(3)
def test_who_applies_has_no_role_that_decides(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        _, standing = await scientist.ask("POST", "/api/applications", town.wish())
        permit = standing["permit"]["id"]
        for path in (f"/api/requests/{permit}/sign", f"/api/requests/{permit}/refuse"):
            assert (await scientist.ask("POST", path, {"reason": "mine"}))[0] == 404  # no such door at the hub
        for who in ("committee", "operator", "auditor"):
            if who == "committee":
                await town.enrol("hub", "Cora Lind", who)
            status, said = await town.someone(f"{who}@hub").ask("POST", "/api/applications", town.wish())
            assert (status, said["title"]) == (403, "Refused"), who  # who decides or watches applies for nothing

    town.play(scene, sites=())
