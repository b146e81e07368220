"""Requests that were let in a moment before what they rest on was ended: the transaction that acts looks again."""

import pytest

from paroma.hub import proposals
from paroma.hub.runs import Asked
from paroma.kernel.errors import Refused
from paroma.learn.algorithms.query import Statistics
from paroma.trust.identity.people import PersonUnknown


@pytest.mark.promise(3)
@pytest.mark.parametrize("what", ["person", "permit"])
def test_a_run_is_not_opened_for_who_or_under_what_was_revoked_a_moment_before(town, what):
    """Policy has allowed it, then the revocation commits and stops the runs that there are, then the run would begin."""

    async def scene(town):
        permit, hub = await town.permit(), town.hub
        who = town.someone("scientist@hub").person
        signed, data_set = await hub.store.read(
            lambda tx: (proposals.signed(tx, permit.id), proposals.data_set(tx, permit.data_set))
        )
        asked = Asked(signed=signed, query=Statistics(features=("age",)), data_set=data_set, by=who)

        def revoke(tx):
            acts = hub.lifecycle
            if what == "person":
                return acts.revoke_person(tx, who, by="an operator", reason="left")
            return acts.revoke_permit(tx, permit.id, by="an operator", reason="over")

        await hub.store.write(revoke)
        before = len(town.hub_log())
        with pytest.raises(PersonUnknown if what == "person" else Refused, match="revoked"):
            await hub.store.write(lambda tx: hub.runs.open(tx, asked))
        assert not [e for e in town.hub_log()[before:] if e["kind"] == "run-opened"]

    town.play(scene)
