"""Noise that cannot hide what is asked is told to the applicant, and to whoever asks, before a site hears of it."""

import msgspec
import pytest

from paroma.learn.algorithms.query import Statistics
from paroma.sdk.study import privacy


@pytest.mark.promise(1)
def test_a_permit_under_which_nothing_could_be_answered_is_not_applied_for(town):
    async def scene(town):
        size = len(town.hub_log())
        wish = town.wish(privacy=privacy(40.0, questions=10))
        status, said = await town.someone("scientist@hub").ask("POST", "/api/applications", wish)
        assert (status, said["title"]) == (403, "NoiseTooCoarse"), said
        assert "epsilon" in said["do"]
        assert town.hub_log()[size:] == []

    town.play(scene, sites=())


@pytest.mark.promise(1)
def test_a_question_with_too_many_figures_is_refused_when_it_is_asked(town):
    async def scene(town):
        permit = await town.permit(privacy=privacy(10.0, questions=4), questions=4)
        wide = Statistics(features=("age", "chol"), bins=9_000)
        asked = {"permit": permit.id, "query": msgspec.to_builtins(wide)}
        status, said = await town.someone("scientist@hub").ask("POST", "/api/runs", asked)
        assert (status, said["title"]) == (403, "NoiseTooCoarse"), said
        assert "figures a question" in said["do"]
        _, runs = await town.someone("scientist@hub").ask("GET", "/api/runs")
        assert runs == []

    town.play(scene)
