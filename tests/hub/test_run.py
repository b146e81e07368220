"""A run from end to end: what comes out is what the pooled rows give."""

import numpy as np
import pytest

from paroma.learn.algorithms.query import Statistics


@pytest.mark.promise(1)
def test_a_run_under_masks_gives_the_figures_of_the_pooled_rows(town):
    async def scene(town):
        permit = await town.permit()
        report = await town.run(permit, Statistics(features=("age", "chol")))
        assert report["status"] == "finished", report
        pooled = np.concatenate([town.rows(name) for name in town.members])
        age, chol = report["result"]["features"]
        assert age["count"] == len(pooled)
        assert age["mean"] == pytest.approx(pooled[:, 0].mean(), abs=1e-9)
        assert chol["variance"] == pytest.approx(pooled[:, 2].var(ddof=1), rel=1e-9)

    town.play(scene)
