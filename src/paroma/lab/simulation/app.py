"""Both parts of an app, in place of a Flower app in a worker: what the platform makes of them is the real code.

The server part asks for two rounds of training a model of two numbers; a client part moves it half way to the mean of the site's
first two columns, which are whole numbers, so that the sums are exact in any order of the rows. The bundle that a permit names is
that of a real app, which nobody runs here: `tests/learn/flower` runs it.
"""

from collections.abc import Generator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from paroma.learn.flower.messages import Exchange, Mean, Model, Shape, Trained, TrainRequest
from paroma.learn.sandbox.task import Finished, Said

ROUNDS: Final = 2
SHAPES: Final = (Shape(name="middle", dims=(2,), width=8),)
F64 = npt.NDArray[np.float64]


def train(payload: bytes, tables: list[memoryview]) -> bytes:
    """As `learn.flower.client.train`: a packed `Trained` of a packed `TrainRequest`. Tables: bundle, cohort, live bits, model."""
    msgspec.msgpack.decode(payload, type=TrainRequest)
    _, cohort, bits, values = tables
    table = pa.ipc.open_stream(pa.py_buffer(cohort), options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
    used = np.unpackbits(np.frombuffer(bits, np.uint8), count=table.num_rows, bitorder="little").astype(np.bool_)
    rows = np.column_stack([column.to_numpy() for column in table.columns])[used]
    before = np.frombuffer(values, "<f8")
    return msgspec.msgpack.encode(
        Trained(
            change=change(rows, before).astype("<f8").tobytes(),
            weight=float(len(rows)),
            rows=len(rows),
            used=np.packbits(used, bitorder="little").tobytes(),
        )
    )


def change(rows: F64, before: F64) -> F64:
    """How far the client part moves the model. rows: (patients, features >= 2). before: (2,)."""
    if not len(rows):
        return np.zeros(2)
    moved: F64 = (rows[:, :2].sum(axis=0) / len(rows) - before) / 2
    return moved


def serve() -> Generator[bytes, bytes, bytes]:
    """The server part: gives packed `Exchange`s, is sent packed `Mean`s. FedAvg: the mean is the next model."""
    model = Model(shapes=SHAPES, values=np.zeros(2).astype("<f8").tobytes())
    for number in range(1, ROUNDS + 1):
        asked = Exchange(number=number, model=model, arrays_key="arrays", config_key="config", config={"lr": 0.5})
        told = msgspec.msgpack.decode((yield msgspec.msgpack.encode(asked)), type=Mean)
        model = Model(shapes=SHAPES, values=told.values)
    return b""


class Talk:
    """A `Conversation` with a server part in this very process: it thinks in no time."""

    def __init__(self, part: Generator[bytes, bytes, bytes]) -> None:
        self._part = part
        self._told: Sequence[bytes] = ()

    async def listen(self) -> Said | Finished:
        """What it asks next, or that it has ended."""
        try:
            return Said(self._part.send(self._told[0]) if self._told else next(self._part))
        except StopIteration as over:
            return Finished(over.value)

    async def say(self, data: bytes) -> None:
        """Tell it the mean; it hears when it is listened to."""
        self._told = (data,)

    async def close(self) -> None:
        """End it."""
        self._part.close()
