import asyncio
import io
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from paroma.lab.workers import InProcess
from paroma.learn.flower import fab, names
from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.task import Limits

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # flwr brings a typer that a newer click warns about
    import flwr.cli.build
    import flwr.cli.install
    import flwr.serverapp.strategy  # noqa: F401 - imported here, once, for all

APP = Path(__file__).parent / "app"
ROWS = (130, 90, 70, 110)


@pytest.fixture(scope="session")
def app_folder():
    return APP


@pytest.fixture(scope="session")
def bundle():
    return fab.build(APP)


@pytest.fixture(scope="session")
def tables():
    """The rows of four hospitals, (patients, 6), the outcome last."""
    made = []
    for site, n in enumerate(ROWS):
        g = np.random.default_rng(site)
        x = g.normal(size=(n, 5)) + 0.3 * site
        y = (x @ np.array([1.0, -0.5, 0.2, 0, 0.4]) + g.normal(size=n) > 0).astype(float)
        made.append(np.column_stack([x, y]))
    return made


@pytest.fixture(scope="session")
def arrow():
    """Makes an Arrow IPC stream of rows."""

    def make(rows):
        names = ["age", "thalach", "chol", "oldpeak", "trestbps", "num"]
        table = pa.table([pa.array(column.tolist(), pa.float64()) for column in rows.T], names)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    return make


@pytest.fixture(scope="session")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def sandbox(loop, tmp_path_factory):
    started = loop.run(
        Sandbox.start(
            (names.TRAIN, names.SERVE),
            environment=names.ENVIRONMENT,
            limits=Limits(memory=512 << 20, seconds=30),
            notes=tmp_path_factory.mktemp("notes"),
        )
    )
    yield started
    loop.run(started.stop())


@pytest.fixture(params=["in process", "sandbox"])
def workers(request):
    """The two that stand behind the same port pass the same tests."""
    if request.param == "sandbox":
        return request.getfixturevalue("sandbox")
    return InProcess((names.TRAIN, names.SERVE))
