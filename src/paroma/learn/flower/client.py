"""A ClientApp at work inside a site's worker: it gets the model and a file of the patients that may be used, and a
plain vector comes out.

Of the app's reply only the one ArrayRecord (same names, shapes and types as it was given) and `num-examples` are read.
Metrics, configs, bytes, further records and `Context.state` end here: each would be a way out for records. Clipping,
noise and masks are the door's.
"""

import math
from pathlib import Path
from typing import Final, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc
from flwr.app import ConfigRecord, ConfigRecordValues, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from paroma.kernel.errors import BadInput
from paroma.learn.flower import rule
from paroma.learn.flower.app import component, identify, model_of, numbered, record_of, unpacked
from paroma.learn.flower.fab import read
from paroma.learn.flower.messages import Model, Trained, TrainRequest
from paroma.learn.sandbox.task import ContractBroken

BATCH: Final = 1024  # rows between two looks at the consent bits
_SERVER: Final = 1 << 62  # a node number that no site has


def train(payload: bytes, tables: list[memoryview]) -> bytes:
    """Run one training message (`TrainRequest`) through the app. Tables: FAB, cohort (Arrow IPC stream), live consent
    bits, model (float64).

    Returns a packed `Trained`. Raises ContractBroken when the app's reply is not what a training reply must be.
    """
    request = msgspec.msgpack.decode(payload, type=TrainRequest)
    bundle, cohort, bits, values = tables
    fab = read(bytes(bundle))
    model = Model(shapes=request.shapes, values=bytes(values))
    before = rule.vector(model)
    with unpacked(fab) as folder:
        path, used = write_cohort(cohort, bits, folder / f"cohort.{request.format}", request.format)
        rows = int(used.sum())
        if rows == 0:  # nothing to train on; how few is too few is the door's question
            change, weight = np.zeros_like(before), 0.0
        else:
            context = Context(
                request.run,
                request.site,
                {"data": str(path), "partition-id": request.site - 1, "num-partitions": request.sites},
                RecordDict(),
                {**fab.config, **request.run_config},
            )
            after, weight = _call(component(fab.clientapp, ClientApp), request, model, context, rows)
            change = rule.vector(after) - before
    packed = np.packbits(used, bitorder="little").tobytes()
    return msgspec.msgpack.encode(Trained(change=change.astype("<f8").tobytes(), weight=weight, rows=rows, used=packed))


def write_cohort(
    cohort: memoryview, bits: memoryview, path: Path, form: Literal["csv", "npz", "arrow"]
) -> tuple[Path, npt.NDArray[np.bool_]]:
    """Write the rows whose consent bit is set at the moment of reading. Returns the file, and which rows are in it
    (rows,).

    The bits are looked at again before every batch, because a withdrawal may come while we read.
    """
    table = pa.ipc.open_stream(pa.py_buffer(cohort), options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
    used = np.zeros(table.num_rows, np.bool_)
    live = np.frombuffer(bits, np.uint8)
    parts = []
    for start in range(0, table.num_rows, BATCH):
        stop = min(start + BATCH, table.num_rows)
        now = live[
            start // 8 : (stop + 7) // 8
        ].tobytes()  # one look: what is kept and what is reported are the same bits
        used[start:stop] = np.unpackbits(np.frombuffer(now, np.uint8), bitorder="little")[: stop - start]
        # Arrow's own bitmap has this very form; made from a numpy array it would import pandas in every fork
        kept = pa.Array.from_buffers(pa.bool_(), stop - start, [None, pa.py_buffer(now)])
        parts.append(table.slice(start, stop - start).filter(kept))
    chosen = pa.concat_tables(parts) if parts else table
    match form:
        case "csv":
            pa.csv.write_csv(chosen, path)
        case "npz":
            np.savez(path, **{name: chosen[name].to_numpy() for name in chosen.column_names})
        case "arrow":
            with pa.ipc.new_file(path, chosen.schema) as writer:
                writer.write_table(chosen)
    return path, used


def _call(app: ClientApp, request: TrainRequest, model: Model, context: Context, rows: int) -> tuple[Model, float]:
    """Call the app as Flower's own runtime does, and read from its reply what may be read."""
    identify(request.run, _SERVER)
    config = cast("dict[str, ConfigRecordValues]", dict(request.config))
    content = RecordDict({request.arrays_key: record_of(model), request.config_key: ConfigRecord(config)})
    message = numbered(
        Message(content, dst_node_id=request.site, message_type=MessageType.TRAIN), f"{request.run}-{request.site}"
    )
    identify(request.run, request.site)
    reply = app(message, context)
    if not reply.has_content():
        raise ContractBroken("the app's reply is an error or no message")
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise ContractBroken(f"the app's reply holds {len(records)} array records, not one")
    try:
        after = model_of(records[0])
    except BadInput as problem:
        raise ContractBroken(str(problem)) from problem
    if after.shapes != model.shapes:
        raise ContractBroken("the app's arrays have other names, shapes or types than those it was given")
    return after, _weight(reply, rows)


def _weight(reply: Message, rows: int) -> float:
    """`num-examples` as the app says it, but never more than the rows that it was given: more would be more
    influence.
    """
    for metrics in reply.content.metric_records.values():
        said = metrics.get("num-examples")
        if isinstance(said, (int, float)):
            if not math.isfinite(said):
                raise ContractBroken("num-examples is not finite")
            return float(min(max(said, 0), rows))
    return float(rows)
