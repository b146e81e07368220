"""An app that somebody else wrote runs unchanged, and gives what Flower's own averaging gives."""

import contextlib
import sys

import msgspec
import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from paroma.learn.flower import fab, names, rule, session
from paroma.learn.flower.app import component, identify, numbered, unpacked
from paroma.learn.flower.messages import Trained, TrainRequest
from paroma.learn.sandbox.task import Ending, Task, WorkerFailed


def request(model, *, site=1, sites=4, **more):
    asked = {"arrays_key": "arrays", "config_key": "config", "config": {}, "run_config": {}, "run": 7, **more}
    return msgspec.msgpack.encode(TrainRequest(shapes=model.shapes, site=site, sites=sites, **asked))


def ones(n):
    return np.packbits(np.ones(n, np.uint8), bitorder="little").tobytes()


async def train(workers, bundle, model, cohort, bits, **more):
    reply = await workers.run(
        Task(entry=names.TRAIN, payload=request(model, **more), tables=(bundle, cohort, bits, model.values))
    )
    return msgspec.msgpack.decode(reply, type=Trained)


async def federate(workers, bundle, cohorts, *, run_config=None, answering=None):
    """What the hub's driver does, with plain sums in place of masked ones. Returns every model, the first one first."""
    models, asked = [], []
    answering = answering or [len(cohorts)] * 100
    async with await session.open_session(
        workers, bundle, run=7, sites=len(cohorts), run_config=run_config or {}
    ) as server:
        async for exchange in server:
            asked.append(exchange)
            start = models[-1] if models else exchange.model
            if not models:
                models.append(start)
            total, weight = np.zeros(rule.size(start.shapes)), 0.0
            n = answering[exchange.number - 1]
            for site, (cohort, rows) in enumerate(cohorts[:n], 1):
                more = {
                    "arrays_key": exchange.arrays_key,
                    "config_key": exchange.config_key,
                    "config": exchange.config,
                    "run_config": run_config or {},
                }
                update = await train(workers, bundle, start, cohort, ones(rows), site=site, **more)
                total += update.weight * np.frombuffer(update.change)
                weight += update.weight
            models.append(rule.mean(start, total, weight))
            await server.reply(models[-1], weight, n)
    return models, asked


class PlainGrid(Grid):
    """Flower as it is: the server gets every reply as the client sent it."""

    def __init__(self, client, paths, config):
        self.client, self.paths, self.config, self.results, self.count = client, paths, config, [], 0

    def set_run(self, run): ...

    @property
    def run(self):
        return Run.create_empty(7)

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        return range(1, len(self.paths) + 1)

    def push_messages(self, messages): ...

    def pull_messages(self, message_ids): ...

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            self.count += 1
            site = message.metadata.dst_node_id
            if message.metadata.message_type == "train":
                context = Context(7, site, {"data": str(self.paths[site - 1])}, RecordDict(), self.config)
                replies.append(self.client(numbered(message, str(self.count)), context))
        return replies


def plain(bundle, tables, tmp_path, folder):
    """The oracle: the same app under Flower's own FedAvg. Returns its final arrays as one vector."""
    paths = []
    for site, rows in enumerate(tables):
        paths.append(tmp_path / f"site-{site}.csv")
        np.savetxt(paths[-1], rows, delimiter=",", header="a,b,c,d,e,num", comments="", fmt="%.17g")
    read = fab.read(bundle)
    with unpacked(read):
        identify(7, 99)
        grid = PlainGrid(component(read.clientapp, ClientApp), paths, dict(read.config))
        component(read.serverapp, ServerApp)(grid, Context(7, 99, {}, RecordDict(), dict(read.config)))
    final = np.load(folder / "final_model.npz")
    return np.concatenate([final[name].ravel() for name in final.files])


@pytest.fixture
def somewhere(tmp_path):
    """The unchanged app writes its model where it runs."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture
def cohorts(tables, arrow):
    return [(arrow(rows), len(rows)) for rows in tables]


def test_the_unchanged_app_equals_plain_averaging(loop, workers, bundle, tables, cohorts, tmp_path, somewhere):
    models, asked = loop.run(federate(workers, bundle, cohorts))
    assert len(asked) == 3
    expected = plain(bundle, tables, tmp_path, somewhere)
    assert np.abs(expected).max() > 0.1
    assert np.abs(rule.vector(models[-1]) - expected).max() < 1e-5


def test_every_next_model_that_the_app_asks_for_follows_the_rule(loop, workers, bundle, cohorts, somewhere):
    models, asked = loop.run(federate(workers, bundle, cohorts))
    for exchange, model in zip(asked, models, strict=False):
        assert rule.follows(exchange.model, model, 4)
    assert not rule.follows(asked[1].model, models[0], 4)


def test_both_kinds_of_workers_give_the_same_bits(loop, sandbox, bundle, cohorts, somewhere):
    from paroma.lab.workers import InProcess

    models = [loop.run(federate(w, bundle, cohorts))[0] for w in (sandbox, InProcess((names.TRAIN, names.SERVE)))]
    assert models[0] == models[1]


def test_a_run_config_of_the_permit_overrides_the_apps_own(loop, workers, bundle, cohorts, somewhere):
    _, asked = loop.run(federate(workers, bundle, cohorts, run_config={"num-server-rounds": 1}))
    assert len(asked) == 1


def test_a_round_with_one_site_less_goes_on(loop, workers, bundle, cohorts, somewhere):
    models, _ = loop.run(federate(workers, bundle, cohorts, answering=[4, 3, 4]))
    assert len(models) == 4


def test_nothing_of_an_app_is_left_in_the_simulation(loop, bundle, cohorts, somewhere):
    from paroma.lab.workers import InProcess

    path = list(sys.path)
    loop.run(federate(InProcess((names.TRAIN, names.SERVE)), bundle, cohorts))
    assert not [m for m in sys.modules if m.startswith("heartapp")]
    assert sys.path == path


@pytest.fixture
def zeros(bundle):
    shapes = (rule.Shape(name="0", dims=(5,)), rule.Shape(name="1", dims=(1,)))
    return rule.rounded(shapes, np.zeros(6))


@pytest.mark.promise(2)
@pytest.mark.parametrize("form", ["csv", "npz", "arrow"])
def test_only_rows_whose_bit_is_set_reach_the_app(loop, workers, bundle, tables, arrow, zeros, form):
    rows = np.concatenate([tables[0]] * 20)
    usable = np.random.default_rng(3).random(len(rows)) < 0.7
    bits = np.packbits(usable.astype(np.uint8), bitorder="little").tobytes()
    if form != "csv":
        with pytest.raises(WorkerFailed):  # this app reads CSV; the file is there in the form that was asked for
            loop.run(
                train(
                    workers,
                    bundle,
                    zeros,
                    arrow(rows),
                    bits,
                    format=form,
                    run_config={"learning-rate": 0.1, "local-epochs": 1},
                )
            )
        return
    some = loop.run(
        train(workers, bundle, zeros, arrow(rows), bits, run_config={"learning-rate": 0.1, "local-epochs": 1})
    )
    same = loop.run(
        train(
            workers,
            bundle,
            zeros,
            arrow(rows[usable]),
            ones(usable.sum()),
            run_config={"learning-rate": 0.1, "local-epochs": 1},
        )
    )
    assert some.change == same.change
    assert some.rows == some.weight == usable.sum()
    assert (np.unpackbits(np.frombuffer(some.used, np.uint8), bitorder="little")[: len(rows)] == usable).all()


@pytest.mark.promise(2)
def test_a_cohort_that_nobody_may_use_runs_no_code(loop, workers, bundle, tables, arrow, zeros):
    update = loop.run(train(workers, bundle, zeros, arrow(tables[0]), bytes(len(tables[0]) // 8 + 1)))
    assert (update.rows, update.weight, set(update.change)) == (0, 0.0, {0})


HEAD = """
import numpy as np, os, socket, time
from flwr.app import ArrayRecord, Array, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(msg, context):
    arrays = msg.content["arrays"]
    rows = np.genfromtxt(context.node_config["data"], delimiter=",", skip_header=1)
    def reply(change=0.0, metrics=None, records=None):
        out = ArrayRecord({k: Array(v.numpy() + np.float32(change)) for k, v in arrays.items()})
        return Message(RecordDict({"arrays": out, "metrics": MetricRecord({"num-examples": len(rows), **(metrics or {})}), **(records or {})}), reply_to=msg)
"""
PROJECT = """
[project]
name = "hostile"
version = "1"
[tool.flwr.app]
publisher = "mallory"
[tool.flwr.app.components]
serverapp = "app:app"
clientapp = "app:app"
"""


@pytest.fixture
def hostile(tmp_path):
    def make(body):
        (tmp_path / "pyproject.toml").write_text(PROJECT)
        (tmp_path / "app.py").write_text(HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()))
        return fab.build(tmp_path)

    return make


MARK = 4242.4242  # a patient's value that must not get out


@pytest.fixture
def marked(tables):
    rows = tables[0].copy()
    rows[7, 2] = MARK
    return rows


@pytest.mark.promise(1)
def test_records_packed_into_metrics_and_configs_do_not_come_out(loop, workers, hostile, marked, arrow, zeros):
    bundle = hostile("""
packed = rows[7].tobytes()
return reply(metrics={"loss": float(rows[7, 2]), "all": rows.ravel().tolist()}, records={"more": ConfigRecord({"bytes": packed, "text": str(rows)})})
""")
    payload = request(zeros)
    reply = loop.run(
        workers.run(
            Task(entry=names.TRAIN, payload=payload, tables=(bundle, arrow(marked), ones(len(marked)), zeros.values))
        )
    )
    update = msgspec.msgpack.decode(reply, type=Trained)
    assert np.float64(MARK).tobytes() not in reply
    assert b"4242" not in reply
    assert set(update.change) == {0}
    # the planted defect: the same search finds it where the reply is handed on whole
    assert np.float64(MARK).tobytes() in marked[7].tobytes()


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            'return reply(records={"extra": ArrayRecord({"rows": Array(rows.astype(np.float32))})})',
            id="a second array record",
        ),
        pytest.param(
            'out = reply()\nout.content["arrays"] = ArrayRecord({"rows": Array(rows.astype(np.float32))})\nreturn out',
            id="other names and shapes",
        ),
        pytest.param("return reply(change=float('nan'))", id="not a number"),
        pytest.param("return reply(change=float('inf'))", id="infinity"),
        pytest.param("return Message(Error(1, str(rows)), reply_to=msg)", id="an error with a text"),
        pytest.param("return reply(metrics={'num-examples': float('nan')})", id="a weight that is not a number"),
        pytest.param(
            'out = reply()\nout.content["arrays"] = ArrayRecord({k: Array(v.numpy().astype(np.float64)) for k, v in arrays.items()})\nreturn out',
            id="wider numbers",
        ),
    ],
)
def test_a_reply_that_breaks_the_contract_is_no_reply(loop, workers, hostile, marked, arrow, zeros, body):
    with pytest.raises(WorkerFailed) as failed:
        loop.run(train(workers, hostile(body), zeros, arrow(marked), ones(len(marked))))
    assert failed.value.ending is Ending.CONTRACT
    assert "4242" not in str(failed.value)


@pytest.mark.parametrize(("said", "weight"), [("10**9", None), ("-5", 0.0), ("3", 3.0), ("0.5", 0.5)])
def test_a_weight_is_at_most_the_rows_that_were_read(loop, workers, hostile, marked, arrow, zeros, said, weight):
    update = loop.run(
        train(
            workers,
            hostile(f"return reply(metrics={{'num-examples': {said}}})"),
            zeros,
            arrow(marked),
            ones(len(marked)),
        )
    )
    assert update.weight == (len(marked) if weight is None else weight)


@pytest.mark.promise(2)
def test_nothing_is_remembered_from_one_message_to_the_next(loop, sandbox, hostile, marked, arrow, zeros):
    """Were anything kept, a record could be used after its patient has withdrawn."""
    bundle = hostile("""
import builtins, glob
seen = len(context.state) + hasattr(builtins, "kept") + len(glob.glob("/tmp/*/kept")) + os.path.exists("kept") + os.path.exists("/dev/shm/kept")
context.state["kept"] = ArrayRecord([rows])
builtins.kept = rows
np.save("kept", rows)
open("kept", "wb").write(rows.tobytes())
return reply(change=seen)
""")
    for _ in range(3):
        update = loop.run(train(sandbox, bundle, zeros, arrow(marked), ones(len(marked))))
        assert set(update.change) == {0}


@pytest.mark.promise(1)
def test_network_processes_and_disks_are_out_of_reach_of_an_app(loop, sandbox, hostile, marked, arrow, zeros):
    bundle = hostile("""
worked = 0
def attempt(what):
    try: what()
    except (OSError, RuntimeError): return 0
    return 1
worked += attempt(lambda: socket.create_connection(("127.0.0.1", 80), 1))
worked += attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(rows.tobytes()[:500], ("192.0.2.1", 53)))
worked += attempt(lambda: os.fork())
worked += attempt(lambda: open("/etc/passwd").read())
worked += attempt(lambda: open("/tmp/out", "wb").write(rows.tobytes()))
def fill():
    for n in range(10000): open(f"f{n}", "wb").write(bytes(1 << 20))
worked += attempt(fill)
return reply(change=worked)
""")
    update = loop.run(train(sandbox, bundle, zeros, arrow(marked), ones(len(marked))))
    assert set(update.change) == {0}


SERVER = """
import numpy as np, socket
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg, FedAdam
app = ServerApp()
arrays = ArrayRecord([np.zeros(5, np.float32), np.zeros(1, np.float32)])
@app.main()
def main(grid, context):
"""


@pytest.fixture
def server(tmp_path):
    def make(body):
        (tmp_path / "pyproject.toml").write_text(PROJECT)
        (tmp_path / "app.py").write_text(SERVER + "".join(f"    {line}\n" for line in body.strip().splitlines()))
        return fab.build(tmp_path)

    return make


async def asked_by(workers, bundle, answer=True):
    seen = []
    async with await session.open_session(workers, bundle, run=1, sites=4, run_config={}) as running:
        async for exchange in running:
            seen.append(exchange)
            if answer:
                await running.reply(rule.rounded(exchange.model.shapes, rule.vector(exchange.model) + 1), 100.0, 4)
    return seen


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            "FedAvg(fraction_train=0.5).start(grid=grid, initial_arrays=arrays, num_rounds=1)", id="only some sites"
        ),
        pytest.param(
            "grid.send_and_receive([Message(RecordDict({'a': ArrayRecord([np.full(2, i, np.float32)])}), i, 'train') for i in (1, 2, 3, 4)])",
            id="each site another model",
        ),
        pytest.param(
            "grid.send_and_receive([Message(RecordDict({'a': ArrayRecord([np.zeros(2, np.int64)])}), i, 'train') for i in (1, 2, 3, 4)])",
            id="whole numbers",
        ),
        pytest.param("socket.create_connection(('127.0.0.1', 80))", id="the network"),
        pytest.param("raise ValueError('no')", id="a defect"),
    ],
)
@pytest.mark.promise(1)
def test_a_server_part_that_cannot_work_on_sums_is_refused(loop, sandbox, server, body):
    with pytest.raises(WorkerFailed):
        loop.run(asked_by(sandbox, server(body)))


def test_evaluation_is_answered_without_asking_a_site(loop, workers, server):
    seen = loop.run(
        asked_by(
            workers,
            server(
                "FedAvg(fraction_train=1.0, fraction_evaluate=1.0).start(grid=grid, initial_arrays=arrays, num_rounds=2)"
            ),
        )
    )
    assert [e.number for e in seen] == [1, 2]
    assert seen[1].config == {"server-round": 2}


def test_a_server_that_steps_adaptively_does_not_follow_the_rule(loop, workers, server):
    seen = loop.run(
        asked_by(
            workers,
            server(
                "FedAdam(fraction_train=1.0, fraction_evaluate=0.0).start(grid=grid, initial_arrays=arrays, num_rounds=2)"
            ),
        )
    )
    mean = rule.rounded(seen[0].model.shapes, rule.vector(seen[0].model) + 1)
    assert not rule.follows(seen[1].model, mean, 4)


def test_pushing_and_pulling_is_one_exchange(loop, workers, server):
    seen = loop.run(
        asked_by(
            workers,
            server("""
content = RecordDict({"a": arrays})
ids = list(grid.push_messages([grid.create_message(content, "train", i, "1") for i in grid.get_node_ids()]))
replies = list(grid.pull_messages(ids))
assert len(replies) == 4 and not list(grid.pull_messages(ids))
assert all(float(r.content["metrics"]["num-examples"]) == 25.0 for r in replies)
assert all((r.content["a"].to_numpy_ndarrays()[0] == 1).all() for r in replies)
"""),
        )
    )
    assert len(seen) == 1
