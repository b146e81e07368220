"""Time passes for each run by itself: a transaction a run, and a run that cannot be read holds up nobody."""

import pytest
from sqlalchemy import update

from paroma.hub.tables import RUNS
from paroma.learn.algorithms.query import Statistics


@pytest.mark.promise(5)
def test_a_run_whose_state_cannot_be_read_does_not_hold_up_the_others(town):
    async def scene(town):
        permit, hub = await town.permit(), town.hub
        for name in list(town.sites):
            await town.stop_site(name)  # nobody answers, so each run waits for its deadline
        query = Statistics(features=("age", "chol"))
        broken, sound = sorted([(await town.open_run(permit, query))["run"] for _ in range(2)])
        await hub.store.write(lambda tx: tx.execute(update(RUNS).where(RUNS.c.run == broken).values(machine=b"\xc1")))
        town.clock.ahead += 40
        await hub.runs.tick()
        scientist = town.someone("scientist@hub")
        status, said = await scientist.ask("POST", f"/api/runs/{sound}/stop")
        assert (status, said["status"]) == (200, "stopped")

    town.play(scene)
