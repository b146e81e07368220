"""What a site decides by itself: a permit holds as long as the keys that signed it do, and each refusal stands in its log."""

import pytest

from paroma.kernel.wire import framing
from paroma.learn.algorithms.query import Statistics
from paroma.learn.runs.messages import Complete
from paroma.site import facts
from paroma.site.gate import HUB
from paroma.trust.channel import outbox
from paroma.trust.channel.line import Arrival
from paroma.trust.policy.facts import Entity


@pytest.mark.promise(3)
def test_a_key_that_is_ended_here_stops_the_uses_of_what_it_signed_though_the_hub_does_not_hear_of_it(town, fed):
    """A stolen key signs a permit, and its run goes on: neither a lying hub nor a cut line keeps it going at this site."""

    async def scene(town):
        permit = await town.permit()
        officer, deputy = town.someone("officer@va"), await town.enrol("va", "Deputy", "officer")
        site, study = town.sites["va"], Entity("Study", permit.study)

        def asked():
            def look(tx):
                cosigned, name, now = site.heads.cosigned, site.federation.name, town.clock.now()
                vote = facts.vote(tx, permit, site.membership.site, cosigned, name, now)
                return vote, facts.answer(tx, permit, site.membership.site, cosigned, name, now)

            return site.store.read_now(look)

        assert [one.permit_signed for one in asked()] == [True, True]
        assert all(site.gate.decide(HUB, one, study).allowed for one in asked())
        town.wires.cut.add(fed.origin(fed.HUB_URL))
        status, _ = await deputy.ask("POST", f"/api/people/{officer.person}/revoke", {"reason": "phone stolen"})
        assert status == 200
        assert [one.permit_signed for one in asked()] == [False, False]
        for one in asked():
            decision = site.gate.decide(HUB, one, study)
            assert not decision.allowed
            assert decision.reasons[0].policy == "permit-signed"

    town.play(scene)


@pytest.mark.promise(4)
def test_an_answer_that_policy_refuses_stands_in_the_log_with_the_rule(town):
    """The hub asks for a site's shares while the site is paused: nothing is given, and the refusal is not lost with it."""

    async def scene(town):
        run = await town.run(await town.permit(), Statistics(features=("age", "chol")))
        site = town.sites["va"]
        (entry,) = {e["entry"] for e in town.site_log("va") if e["kind"] == "answer-given" and e["run"] == run["run"]}
        assert (await town.someone("officer@va").ask("POST", "/api/pause"))[0] == 204
        asked = Complete(entry=entry, members=(), signatures=(), boxes=(), pair_boxes=())
        at = await site.store.read(outbox.position)
        before = len(town.site_log("va"))
        await site.rounds.heard(Arrival(seq=at.received + 1, id="again", body=framing.pack(asked)), asked)
        refusals = [e for e in town.site_log("va")[before:] if e["kind"] == "refused"]
        assert [(e["action"], e["entry"]) for e in refusals] == [("Answer", entry)]
        assert (await site.store.read(outbox.position)).received == at.received + 1

    town.play(scene)
