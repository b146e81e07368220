"""What runs inside the sandbox: rows in, integer totals out. Knows no permit, no patient, no key.

The live bits may change at any moment: each batch of 1,024 rows reads them afresh, and a row whose bit is 0 is not
looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId
from paroma.kernel.wire import framing
from paroma.learn.algorithms import design, evaluate, logistic, statistics
from paroma.learn.algorithms.query import Descent, Evaluate, Logistic, Newton, Statistics
from paroma.learn.algorithms.request import Reply, Request
from paroma.learn.algorithms.table import TableUnfit, columns
from paroma.learn.disclosure.door import PUBLIC, Update
from paroma.learn.secagg.layout import Field

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
BATCH: Final = 1024  # rows, a multiple of 8
MOST_REQUEST: Final = 1 << 20  # bytes


class ReplyUnfit(BadInput):
    """The worker's reply does not fit what it was asked."""


def compute(payload: bytes, tables: list[memoryview]) -> bytes:
    """The worker's entry. payload: a Request, msgpack. tables: the cohort (an Arrow IPC stream), the live bits
    (lowest first).

    Returns a Reply, msgpack. Raises BadInput.
    """
    request = framing.unpack(payload, Request, MOST_REQUEST)
    if len(tables) != 2:
        raise TableUnfit("a worker needs the cohort's table and the live bits", do="hand over both")
    with pa.ipc.open_stream(pa.py_buffer(tables[0]), options=pa.ipc.IpcReadOptions(use_threads=False)) as stream:
        table = stream.read_all()
    rows, live = table.num_rows, tables[1].cast("B")
    if rows > request.most_patients or len(live) < (rows + 7) // 8:
        raise TableUnfit(
            "the cohort is larger than the cap, or than its live bits", do="cap the cohort when it is assembled"
        )
    used, selected = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
    total: dict[str, F64 | I64] = {}
    for start, alive, chosen, read in batches(table, live, request):
        used[start : start + len(alive)] = alive
        selected[start : start + len(alive)] = chosen
        part = _contribute(request, read)
        if request.bound is not None:
            # Public is how many were read. How many of them are selected, or complete, is a figure about patients: it
            # would need noise of its own.
            part[PUBLIC] = np.array([int(alive.sum())], np.int64)
        total = {name: total[name] + value for name, value in part.items()} if total else part
    totals = [_on_grid(field, total.get(field.name)) for field in request.layout.fields]
    counted = int(totals[0][0])
    reply = Reply(
        totals=np.concatenate(totals).astype("<i8").tobytes(),
        used=np.packbits(used, bitorder="little").tobytes(),
        selected=np.packbits(selected, bitorder="little").tobytes(),
        rows=counted,
    )
    return framing.pack(reply)


def batches(table: pa.Table, live: memoryview, request: Request) -> Iterator[tuple[int, Bool, Bool, dict[str, F64]]]:
    """The rows, a batch at a time: its first row, its live bits as they are at this moment, those of them that
    the query is about, and the columns of these.

    A batch in which nobody is alive is passed over.
    """
    for start in range(0, table.num_rows, BATCH):
        size = min(BATCH, table.num_rows - start)
        alive = _bits(live, start, size)
        if alive.any():
            yield start, alive, *_read(table.slice(start, size), alive, request)


def received(reply: bytes, request: Request, patients: Sequence[PatientId], *, attempt: str, question: str) -> Update:
    """The worker's reply as an update, checked against the request. patients: the cohort's, in row order. Raises
    BadInput.
    """
    length = sum(field.length for field in request.layout.fields)
    answer = framing.unpack(reply, Reply, 8 * length + len(patients) + 1024)
    bits = (len(patients) + 7) // 8
    if len(answer.totals) != 8 * length or not len(answer.used) == len(answer.selected) == bits:
        raise ReplyUnfit(
            "the worker's reply has another size than was asked for", do="look into the site's worker notes"
        )
    return Update(
        attempt=attempt,
        question=question,
        layout=request.layout,
        totals=np.frombuffer(answer.totals, "<i8").astype(np.int64),
        rows=answer.rows,
        patients=_named(answer.used, patients),
        bound=request.bound,
        selected=_named(answer.selected, patients),
    )


def _named(bits: bytes, patients: Sequence[PatientId]) -> tuple[PatientId, ...]:
    on = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(patients), bitorder="little")
    return tuple(patients[i] for i in np.flatnonzero(on).tolist())


def _bits(live: memoryview, start: int, size: int) -> Bool:
    """The live bits of a batch, as they are at this moment: copied once, then used."""
    now = bytes(live[start // 8 : (start + size + 7) // 8])
    return np.unpackbits(np.frombuffer(now, np.uint8), count=size, bitorder="little").astype(np.bool_)


def _read(batch: pa.Table, alive: Bool, request: Request) -> tuple[Bool, dict[str, F64]]:
    if not alive.all():
        # not `pa.array(alive)`: where pandas is installed that imports it, most of a second in every fork
        packed = pa.py_buffer(np.packbits(alive, bitorder="little").tobytes())
        batch = batch.filter(pa.Array.from_buffers(pa.bool_(), len(alive), [None, packed]))
    read = columns(batch, request.features)
    chosen = design.selected(read, request.query.rows, int(alive.sum()))
    selected = alive.copy()
    selected[alive] = chosen & _whole(request, read)
    return selected, {name: column[chosen] for name, column in read.items()}


def _whole(request: Request, read: dict[str, F64]) -> Bool:
    """The rows that a sum is about: a model leaves out those in which something is missing, statistics does not."""
    rows = np.ones(len(next(iter(read.values()))), np.bool_)
    if not isinstance(request.query, Statistics):
        for name in (*(feature.name for feature in request.model), request.query.outcome.feature):
            rows &= ~np.isnan(read[name])
    return rows


def _contribute(request: Request, read: dict[str, F64]) -> dict[str, F64 | I64]:
    match request.query, request.step:
        case Statistics() as query, _:
            bits = next((field.scale_bits for field in request.layout.fields if field.name == "sums"), 0)
            return dict(statistics.contribute(query, request.model, read, request.bound, bits))
        case Evaluate() as query, _:
            return dict(evaluate.contribute(query, request.model, read, request.bound))
        case Logistic() as query, (Newton() | Descent()) as step:
            return logistic.contribute(query, request.model, step, read, request.bound)
        case _:
            raise ReplyUnfit("the step does not belong to the query", do="ask with the query's own step")


def _on_grid(field: Field, value: F64 | I64 | None) -> I64:
    if value is None:
        return np.zeros(field.length, np.int64)
    if value.dtype.kind == "f":
        value = np.rint(np.ldexp(value, field.scale_bits))
    return value.astype(np.int64)
