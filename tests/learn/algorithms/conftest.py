import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire import framing
from paroma.learn.algorithms import plan as planning, worker
from paroma.learn.algorithms.query import Feature
from paroma.learn.disclosure import door
from paroma.learn.disclosure.ledger import Kept
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.trust.permit.permit import Participant, Permit, check

HEART = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
RANGES = {"age": (20, 90), "trestbps": (80, 200), "chol": (100, 400), "thalach": (60, 200), "oldpeak": (0, 4)}
SITES = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture
def make_permit():
    """A permit of `sites` owners; anything else by name."""

    def make(sites=4, **changes):
        figures = {
            "id": "permit-0000000000000000",
            "study": "study-0000000000000000",
            "title": "Heart",
            "purpose": "scientific-research",
            "applicant": "person-0000000000000000",
            "data_set": "dataset-0000000000000000",
            "features": (*HEART, "num", "fold", "x"),
            "algorithms": ("statistics", "logistic"),
            "participants": tuple(
                Participant(site=f"site-000000000000000{i}", owner=f"owner{i}") for i in range(sites)
            ),
            "least_patients": 10,
            "counts_to": 1,
            "least_owners": 3,
            "colluders": 0,
            "dropouts": 1,
            "most_patients": 4000,
            "attempts": 3,
            "questions": 40,
            "starts": 0.0,
            "ends": 1e9,
        }
        return Permit(**figures | changes)

    return make


class Register:
    """The ledger's bytes in memory."""

    data = None

    def read(self):
        return self.data

    def swap(self, old, new):
        assert old == self.data
        self.data = new


def ipc(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


class Federation:
    """Sites with their tables, budgets and noise; the real door; a plain ring sum in place of the secure one."""

    def __init__(self, tables, permit, seed=0):
        self.permit = permit
        self.tables = [memoryview(ipc(table)) for table in tables]
        self.rows = [table.num_rows for table in tables]
        self.live = [bytearray(np.packbits(np.ones(n, bool), bitorder="little").tobytes()) for n in self.rows]
        self.patients = [tuple(f"patient-{i}-{k}" for k in range(n)) for i, n in enumerate(self.rows)]
        self.ledgers = [Kept(Register(), SeededRandomness(seed, f"ledger{i}")) for i in range(len(tables))]
        self.noises = [DiscreteGaussian(SeededRandomness(seed, f"noise{i}")) for i in range(len(tables))]
        self.uploads = []

    def contribute(self, plan, step, site):
        """What a site does: worker, update, door."""
        request = planning.request(plan, step)
        reply = worker.compute(framing.pack(request), [self.tables[site], memoryview(self.live[site])])
        attempt, question = f"a{len(self.uploads)}-{step.number}", planning.question(plan, step)
        update = worker.received(reply, request, self.patients[site], attempt=attempt, question=question)
        return door.let_out(
            update, permit=self.permit, ledger=self.ledgers[site], noise=self.noises[site], masks=lambda data: data
        )

    def total(self, plan, step, sites=None):
        masked = [self.contribute(plan, step, site) for site in sites or range(len(self.tables))]
        self.uploads.append(masked)
        layout = planning.layout(plan, step)
        parts = [np.frombuffer(one.upload, "<u8") for one in masked]
        assert all(field.ring == 64 for field in layout.fields)
        return np.sum(parts, axis=0, dtype=np.uint64).tobytes()

    def ask(self, query, features):
        """Every step of a question. Each site's own recomputation must give the same step."""
        plan = planning.plan(query, features, self.permit)
        step = planning.first(plan)
        while True:
            total = self.total(plan, step)
            after = planning.advance(plan, step, total)
            assert planning.advance(plan, step, total) == after
            if planning.finished(after):
                return after
            step = after


@pytest.fixture
def federate(make_permit):
    """A federation over `tables`; the permit is checked as an officer's program would."""

    def make(tables, permit=None, seed=0):
        permit = permit or make_permit(len(tables))
        return Federation(tables, permit, seed)

    assert check
    return make


def heart_features():
    def one(name):
        if name in RANGES:
            return Feature(name=name, kind="number", low=RANGES[name][0], high=RANGES[name][1])
        levels = {"cp": ("1", "2", "3", "4"), "restecg": ("0", "1", "2")}.get(name)
        return Feature(name=name, kind="category", levels=levels) if levels else Feature(name=name, kind="truth")

    return (*map(one, HEART), Feature(name="num", kind="number", low=0, high=4), Feature(name="fold", kind="truth"))


@pytest.fixture(scope="session")
def heart():
    """FLamby's rows, sites and split of the UCI heart files; `x`, `y`: the pooled design matrix, made another way."""
    from sklearn.model_selection import train_test_split

    names = [*HEART, "slope", "ca", "thal", "num"]
    order = [
        "age",
        "sex",
        "cp",
        "trestbps",
        "chol",
        "fbs",
        "restecg",
        "thalach",
        "exang",
        "oldpeak",
        "slope",
        "ca",
        "thal",
        "num",
    ]
    frames = []
    for i, site in enumerate(SITES):
        path = Path(os.environ["PAROMA_DATA"], f"uci_heart_disease/processed.{site}.data")
        frame = pd.read_csv(path, header=None, names=order, na_values=["?", "-9", "-9.0"])[names]
        frame = frame.drop(columns=["slope", "ca", "thal"]).dropna().assign(site=i)
        frames.append(frame)
    rows = pd.concat(frames, ignore_index=True).astype(float)
    y = (rows.num > 0).to_numpy(float)
    rows["fold"] = 0.0
    for i in range(4):
        at = np.flatnonzero(rows.site == i)
        _, test = train_test_split(at, train_size=0.66, random_state=43, stratify=None if i == 2 else y[at])
        rows.loc[test, "fold"] = 1.0
    columns = [np.ones(len(rows))]
    for name in HEART:
        value = rows[name].to_numpy()
        if name in ("cp", "restecg"):
            levels = (2, 3, 4) if name == "cp" else (1, 2)
            columns += [np.where(value == level, 1.0, -1.0) for level in levels]
        else:
            low, high = RANGES.get(name, (0, 1))
            columns.append(np.clip((value - low) / (high - low), 0, 1) * 2 - 1)
    return SimpleNamespace(
        rows=rows,
        tables=[
            pa.Table.from_pandas(rows[rows.site == i].drop(columns="site"), preserve_index=False) for i in range(4)
        ],
        features=heart_features(),
        x=np.column_stack(columns),
        y=y,
        site=rows.site.to_numpy(),
        test=rows.fold.to_numpy() == 1,
    )
