"""What goes into a worker that runs a Flower app, and what may come out: plain vectors, a weight, and which rows were
read. Also what a scientist asks of an app, and gets.

Everything else that an app puts into its reply (metrics, configs, bytes, state) ends inside the worker.
"""

from typing import Literal

import msgspec

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One array of a model: its name in the ArrayRecord, its dimensions, the width of its numbers in bytes (4 or 8)."""

    name: str
    dims: tuple[int, ...]
    width: Literal[4, 8] = 4


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model as one vector: the arrays one after the other, rows first."""

    shapes: tuple[Shape, ...]
    values: bytes  # float64, little endian, (weights,)


class TrainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of `client:train`. Its tables: FAB, cohort (Arrow IPC stream), consent bits (packed, live), model
    values (float64).
    """

    shapes: tuple[Shape, ...]
    arrays_key: str  # name of the ArrayRecord in the message, as the ServerApp chose it
    config_key: str  # name of the ConfigRecord
    config: dict[str, Value]  # what the ServerApp sent along
    run_config: dict[str, Scalar]  # overrides of the FAB's own, as the permit says
    run: int
    site: int  # 1..sites
    sites: int
    format: Literal["csv", "npz", "arrow"] = "csv"  # of the file that `context.node_config["data"]` names


class Trained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reply of `client:train`. Clipping, noise and masks are the door's."""

    change: bytes  # float64, (weights,): the app's arrays minus the model that it was given
    weight: float  # num-examples as the app says, at most the rows read, at least 0
    rows: int  # rows read
    used: bytes  # packed bitmap, bit i (little) = row i of the cohort was read


class ServeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of `server:serve`. Its table: FAB."""

    run_config: dict[str, Scalar]
    run: int
    sites: int


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag="exchange", forbid_unknown_fields=True):
    """A ServerApp asks every site to train on a model."""

    number: int  # 1, 2, ...
    model: Model
    arrays_key: str
    config_key: str
    config: dict[str, Value]


class Mean(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a ServerApp is told: the mean of the sites' models, and the weights' sum over the sites that are in it."""

    values: bytes  # float64, (weights,)
    weight: float
    sites: int


class FlowerApp(msgspec.Struct, frozen=True, kw_only=True, tag="flower", forbid_unknown_fields=True):
    """Run a Flower app. code: SHA-256 of its bundle, hex, as the permit names it. run_config: in place of its own values.

    features: columns of the file that the app reads, in this order; empty for all of the permit. rounds: at most so
    many; None for as many as the permit has questions.
    """

    code: str
    run_config: dict[str, Scalar] = {}
    features: tuple[str, ...] = ()
    rounds: int | None = None


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True, tag="trained-model"):
    """What a Flower app trained. values: the arrays of `shapes` one after the other. sha256: of them as float64, little
    endian. patients: rows read for the last mean, over all sites, to the nearest `counts_to`.
    """

    shapes: tuple[Shape, ...]
    values: tuple[float, ...]
    sha256: str
    rounds: int
    patients: int
    counts_to: int = 1
