"""Loads an app from its bundle inside a worker, and turns its records into plain vectors and back. Imports flwr: never
in a program.

Two names here are not public in flwr: `TaskIdentity`, which `Message` reads (one run a process), and the message id
that the runtime would set.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before the import, which reads them
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.supercore.task_identity import TaskIdentity

from paroma.learn.flower import rule
from paroma.learn.flower.fab import Fab
from paroma.learn.flower.messages import Model, Shape
from paroma.learn.sandbox.entries import load
from paroma.learn.sandbox.task import ContractBroken

T = TypeVar("T")


@contextlib.contextmanager
def unpacked(fab: Fab) -> Iterator[Path]:
    """The files of a bundle in a private folder, importable until the end; then nothing of it is left, in a worker or
    not.
    """
    folder = Path(tempfile.mkdtemp(prefix="app-"))
    try:
        for name, content in fab.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        sys.path.insert(0, str(folder))
        yield folder
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
        shutil.rmtree(folder)


def component(reference: str, kind: type[T]) -> T:
    """The ClientApp or ServerApp that a bundle names. Raises ContractBroken when it is something else."""
    found = cast("object", load([reference])[reference])
    if not isinstance(found, kind):
        raise ContractBroken(f"`{reference}` is not a {kind.__name__}")
    return found


def identify(run: int, node: int) -> None:
    """Say who we are to flwr, which keeps it in one place for the whole process."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, 1


def numbered(message: Message, number: str) -> Message:
    """Give a message the id that the runtime would have set."""
    message.metadata.__dict__["_message_id"] = number
    return message


def model_of(record: ArrayRecord) -> Model:
    """The arrays of a record as a model. Raises ContractBroken for anything but finite float32 or float64."""
    shapes, parts = [], []
    for name, array in record.items():
        values = array.numpy()
        if values.dtype.kind != "f" or values.dtype.itemsize not in {4, 8}:
            raise ContractBroken(f"array `{name}` is {values.dtype}, not float32 or float64")
        shapes.append(Shape(name=name, dims=values.shape, width=4 if values.dtype.itemsize == 4 else 8))
        parts.append(values.astype("<f8").ravel())
    model = Model(shapes=tuple(shapes), values=np.concatenate(parts).tobytes() if parts else b"")
    rule.vector(model)
    return model


def record_of(model: Model) -> ArrayRecord:
    """A model as the record that an app expects."""
    return ArrayRecord({name: Array(values) for name, values in rule.arrays(model).items()})
