"""Attacks on a site that answers exactly: two permits, other features, filters, going and coming back, two runs at once."""

import asyncio
import hashlib

import pytest
from sqlalchemy import select

from paroma.data.consent.statement import EVERYTHING, Scope
from paroma.learn.algorithms.query import Marked, Statistics
from paroma.learn.runs.messages import sum_digest
from paroma.site.tables import SUMS

AGE = Statistics(features=("age",))
FLOOR = 4


def refused(town, name="va"):
    """The errors with which a site sat out."""
    return [e["error"] for e in town.site_log(name) if e["kind"] == "sat-out"]


async def withdraw(town, scope=EVERYTHING):
    """One patient of `va` says no."""
    patient = town.patients("va")[0]
    await town.sites["va"].withdraw(patient, scope, by="patient")
    return patient


@pytest.mark.promise(1)
def test_two_permits_are_not_differenced_around_one_withdrawal(town):
    async def scene(town):
        first = await town.permit(least_patients=FLOOR)
        before = await town.run(first, AGE)
        await withdraw(town)
        second = await town.permit(title="Another study", least_patients=FLOOR)
        assert first.study != second.study
        after = await town.run(second, AGE)
        assert refused(town) == []
        everybody = sum(len(town.rows(name)) for name in town.members) + 1
        assert before["result"]["patients"] == everybody
        assert after["status"] == "finished"
        assert after["result"]["patients"] == everybody - FLOOR  # she, and as many others as make a floor with her

    town.play(scene)


@pytest.mark.promise(1)
def test_who_says_no_to_one_study_only_is_not_what_two_studies_differ_by(town):
    async def scene(town):
        first = await town.permit(least_patients=FLOOR)
        second = await town.permit(title="Another study", least_patients=FLOOR)
        await withdraw(town, Scope("study", second.study))
        whole = await town.run(first, AGE)
        part = await town.run(second, AGE)
        assert refused(town) == []
        assert whole["result"]["patients"] - part["result"]["patients"] == FLOOR

    town.play(scene)


@pytest.mark.promise(1)
def test_other_features_are_no_way_around(town):
    async def scene(town):
        permit = await town.permit(least_patients=FLOOR)
        whole = await town.run(permit, AGE)
        await withdraw(town)
        part = await town.run(permit, Statistics(features=("chol", "sex")))
        assert refused(town) == []
        assert whole["result"]["patients"] - part["result"]["patients"] == FLOOR

    town.play(scene)


@pytest.mark.promise(1)
def test_filters_are_no_way_around(town):
    """All; one withdraws; then those with the outcome, and those without: together they are all but her."""

    async def scene(town):
        outcomes = town.rows("va")[:, 3].tolist()
        assert set(outcomes) == {0.0, 1.0}
        permit = await town.permit(least_patients=2)
        await town.run(permit, AGE)
        await withdraw(town)
        for value in (0.0, 1.0):
            assert refused(town) == []
            await town.run(permit, Statistics(features=("age",), rows=Marked(feature="num", value=value)))
        assert set(refused(town)) == {"DifferencingRefused"}

    town.play(scene)


@pytest.mark.promise(1)
def test_who_withdraws_and_returns_is_not_told_by_three_sums(town):
    async def scene(town):
        permit = await town.permit(least_patients=FLOOR)
        whole = await town.run(permit, AGE)
        patient = await withdraw(town)
        part = await town.run(permit, AGE)
        assert whole["result"]["patients"] - part["result"]["patients"] == FLOOR
        await town.sites["va"].give(patient, EVERYTHING, by="patient")
        again = await town.run(permit, AGE)
        assert refused(town) == []
        assert again["result"]["features"] == whole["result"]["features"]  # the same patients, the same number

    town.play(scene)


@pytest.mark.promise(1)
def test_two_runs_at_once_are_compared_at_the_vote(town):
    """Both are admitted before either has committed; the second vote finds what the first has committed, and is a no."""

    async def scene(town):
        first = await town.permit(least_patients=FLOOR)
        second = await town.permit(title="Another study", least_patients=FLOOR)
        await withdraw(town, Scope("study", second.study))
        both, computing = asyncio.Event(), []

        async def after(name):
            if name == "va":
                computing.append(name)
                if len(computing) == 2:
                    both.set()
                await asyncio.wait_for(both.wait(), 20)

        town.after = after
        runs = [(await town.open_run(permit, AGE))["run"] for permit in (first, second)]
        for run in runs:
            await town.ended(run)
        voted = {e["run"] for e in town.site_log("va") if e["kind"] == "vote-signed"}
        assert len(voted) == 1, "two sums that differ by one patient were both committed"
        no = [e for e in town.site_log("va") if e["kind"] in {"vote-declined", "sat-out"}]
        assert no

    town.play(scene)


@pytest.mark.promise(1)
def test_the_log_does_not_tell_whether_a_guess_at_the_counts_of_a_sum_is_right(town):
    """A scientist reads the log: a bare hash of the exact counts would confirm the few that stand below the floor."""

    async def scene(town):
        report = await town.run(await town.permit(), Statistics(features=("sex",)))
        (entry,) = [e for e in town.hub_log() if e["kind"] == "question-answered" and e["run"] == report["run"]]
        mine = select(SUMS.c.total, SUMS.c.salt).where(SUMS.c.run == report["run"], SUMS.c.total.is_not(None))

        async def told():
            return await town.sites["va"].store.read(lambda tx: tx.execute(mine).one_or_none())

        while (sum_ := await told()) is None:
            await asyncio.sleep(0.05)
        total, salt = bytes(sum_.total), bytes(sum_.salt)
        assert hashlib.sha256(total).hexdigest() not in str(town.hub_log())  # the right guess
        assert entry["total"] == sum_digest(salt, total)  # whoever was told the sum holds the log to it
        assert salt.hex() not in str(town.hub_log())

    town.play(scene)
