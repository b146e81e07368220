"""A Flower app that knows nothing of us runs through hub and sites, under the same masks as any question."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from paroma.data.consent.statement import Scope
from paroma.hub.tables import BUNDLES
from paroma.lab.workers import InProcess
from paroma.learn.algorithms.names import COMPUTE
from paroma.learn.flower import fab, names
from paroma.learn.flower.messages import FlowerApp

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # flwr brings a typer that a newer click warns about
    import flwr.serverapp.strategy  # noqa: F401 - imported here, once, for all

APP = Path(__file__).parents[1] / "learn" / "flower" / "app"
CONFIG = {"num-features": 3}  # age, sex, chol; the last column of the file is the outcome


@pytest.fixture(scope="module")
def bundle():
    return fab.build(APP)


@pytest.fixture
def town(town, tmp_path):
    """The federation, with workers for apps at the hub and at the sites; the app writes its model where it runs."""
    town.preload = (COMPUTE, names.TRAIN)
    town.hub_workers = InProcess((names.SERVE,))
    town.patience = 30.0  # nobody is silent here: an app that trains in this very process keeps the votes waiting
    folder = tmp_path / "cwd"
    folder.mkdir()
    with contextlib.chdir(folder):
        yield town


@pytest.fixture
def changed(tmp_path):
    """The same app, with a text in one of its files changed."""

    def make(name, old, new):
        folder = tmp_path / "changed"
        for path in APP.rglob("*"):
            if path.is_file():
                there = folder / path.relative_to(APP)
                there.parent.mkdir(parents=True, exist_ok=True)
                text = path.read_text()
                if path.name == name:
                    assert old in text
                    text = text.replace(old, new)
                there.write_text(text)
        return fab.build(folder)

    return make


async def bring(town, bundle):
    return await town.someone("scientist@hub").ask("POST", "/api/bundles", bundle)


async def permit_for(town, bundle, **changes):
    status, said = await bring(town, bundle)
    assert status == 201, said
    asked = {"algorithms": ("flower",), "code": said["code"], "questions": 8} | changes
    return await town.permit(**asked)


def averaged(tables, *, rounds=3, lr=0.1, epochs=5):
    """Plain FedAvg of the app's model over these rows, in double precision."""
    sites = []
    for rows in tables:
        x, y = rows[:, :-1], rows[:, -1]
        sites.append(((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9), y))
    n = sum(len(y) for _, y in sites)
    model = np.zeros(sites[0][0].shape[1] + 1)
    for _ in range(rounds):
        total = np.zeros_like(model)
        for x, y in sites:
            own = model.copy()
            for _ in range(epochs):
                error = 1 / (1 + np.exp(-(x @ own[:-1] + own[-1]))) - y
                own -= lr * np.append(x.T @ error, error.sum()) / len(y)
            total += len(y) * own
        model = total / n
    return model


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_an_unchanged_app_gives_what_plain_averaging_over_the_consented_rows_gives(town, bundle):
    async def scene(town):
        gone = town.patients("cleveland")[0]
        await town.sites["cleveland"].withdraw(gone, Scope(kind="everything"), by="patient")
        permit = await permit_for(town, bundle)
        report = await town.run(permit, FlowerApp(code=permit.code, run_config=CONFIG))
        assert report["status"] == "finished", report
        result = report["result"]
        tables = [town.rows(name) for name in town.members]
        assert result["patients"] == sum(map(len, tables)) == 4 * 14 - 1
        assert result["rounds"] == len(report["progress"]) == 3
        assert np.abs(np.array(result["values"]) - averaged(tables)).max() < 1e-5
        assert [shape["dims"] for shape in result["shapes"]] == [[3], [1]]
        for name in town.members:
            used = [one for one in town.site_log(name) if one["kind"] == "contribution-made"]
            assert len(used) == 3

    town.play(scene)


@pytest.mark.promise(3)
def test_an_app_that_is_not_the_one_of_the_permit_gets_nowhere(town, bundle, changed):
    async def scene(town):
        edited = bytearray(bundle)
        edited[len(edited) // 2] ^= 1
        status, said = await bring(town, bytes(edited))
        assert (status, said["title"]) == (400, "FabInvalid")

        lena = town.someone("scientist@hub")
        wish = town.wish(algorithms=("flower",), code=fab.digest(bundle))
        status, said = await lena.ask("POST", "/api/applications", wish)
        assert (status, said["title"]) == (400, "BundleUnknown")

        await bring(town, bundle)
        other = changed("task.py", "lr * x.T", "2 * lr * x.T")
        # a hub that sends another app under the digest that officers sign
        await town.hub.store.write(lambda tx: tx.execute(BUNDLES.update().values(content=other)))
        status, said = await lena.ask("POST", "/api/applications", wish)
        assert status == 201
        asked = await town.asked("va", said["permit"]["id"])
        assert asked["state"] == "refused"
        assert "not the one that the permit names" in asked["reasons"][0]

    town.play(scene)


def test_another_app_than_the_permits_is_no_run_of_it(town, bundle):
    async def scene(town):
        permit = await permit_for(town, bundle)
        body = {"permit": permit.id, "query": {"type": "flower", "code": "0" * 64}}
        status, said = await town.someone("scientist@hub").ask("POST", "/api/runs", body)
        assert (status, said["title"]) == (403, "AppNotAllowed")

    town.play(scene)


@pytest.mark.promise(3)
def test_a_server_part_that_does_more_than_averaging_ends_its_run(town, changed):
    async def scene(town):
        hostile = changed("server_app.py", "FedAvg", "FedAdam")
        permit = await permit_for(town, hostile)
        report = await town.run(permit, FlowerApp(code=permit.code, run_config=CONFIG))
        assert report["status"] == "failed"
        assert "averaging" in report["reason"]
        assert report["result"] is None
        assert len(report["progress"]) == 1

    town.play(scene)


def test_a_client_part_that_leaps_is_not_let_out(town, changed):
    async def scene(town):
        leaping = changed("client_app.py", "ArrayRecord([coef, intercept])", "ArrayRecord([coef + 5000, intercept])")
        permit = await permit_for(town, leaping, attempts=1)
        report = await town.run(permit, FlowerApp(code=permit.code, run_config=CONFIG))
        assert report["status"] == "failed"
        for name in town.members:
            log = town.site_log(name)
            assert [one["error"] for one in log if one["kind"] == "sat-out"] == ["ChangeTooLarge"]
            assert not any(one["kind"] == "contribution-made" for one in log)

    town.play(scene)


def test_an_app_has_no_more_rounds_than_it_was_given(town, bundle):
    async def scene(town):
        permit = await permit_for(town, bundle)
        report = await town.run(permit, FlowerApp(code=permit.code, run_config=CONFIG, rounds=2))
        assert (report["status"], len(report["progress"])) == ("failed", 2)
        assert "more than 2 rounds" in report["reason"]

    town.play(scene)


def test_a_restart_of_the_hub_ends_the_run_and_says_why(town, bundle):
    async def scene(town):
        permit = await permit_for(town, bundle)
        report = await town.open_run(permit, FlowerApp(code=permit.code, run_config=CONFIG | {"num-server-rounds": 8}))
        lena = town.someone("scientist@hub")
        while not report["progress"]:
            _, report = await lena.ask("GET", f"/api/runs/{report['run']}?wait=5&after={report['revision']}")
        await town.stop_hub()
        await town.start_hub()
        report = await town.ended(report["run"])
        assert report["status"] == "failed"
        assert "started anew" in report["reason"]

    town.play(scene)
