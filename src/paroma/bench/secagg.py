"""`paroma bench secagg`: what masking costs, 16 sites with a million numbers each.

The platform's own layout, masks: CPU time of one site beside Flower's SecAgg+, bytes beside float32, and a
whole round beside the same round without masks. A round's critical path: one site puts its numbers on the grid, masks
them, hashes them and writes them durably, as a spool does; the hub reads 16 of them, hashes, adds, and takes the masks
away. What every round has besides (training, network, vote) would only make the ratio smaller and is left out.

Both ratios are measured in pairs, ours and the other in turn, in CPU time: other work on the machine meets both and
counts little. The figure is the median of the pairs' ratios; a 95 % interval of it is printed. CPU time leaves out the
waiting for the disk, which is the same with and without masks, so the ratio is rather too large than too small.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.peers.environment import PeerUnavailable, environment
from paroma.bench.rows import Row
from paroma.bench.spread import spread
from paroma.kernel.ids import SiteId
from paroma.learn.secagg import masks, seeds, unmask
from paroma.learn.secagg.layout import Field, Layout

F32 = npt.NDArray[np.float32]
SITES: Final = 16
NUMBERS: Final = 1_000_000
PAIRS: Final = 15
FLWR: Final = ("flwr==1.42.0",)
REPLY_SECONDS: Final = 60.0
MOST_PATIENTS: Final = 1000
NAMES: Final = tuple(SiteId(f"site-{place:016d}") for place in range(SITES))
SECRET: Final = bytes(range(32))


def measure(say: Say) -> tuple[Row, ...]:
    """A site's CPU, bytes, a round, exactness; then Flower's part."""
    layout = Layout(
        fields=(Field(name="weights", length=NUMBERS, ring=32, scale_bits=16, bound=1.0),), sites=SITES, most=MOST_PATIENTS
    )  # fmt: skip
    values = np.random.default_rng(0).uniform(-8, 8, NUMBERS).astype(np.float32)
    say(f"{PAIRS} pairs of whole rounds, with and without masks")
    with tempfile.TemporaryDirectory(prefix="paroma-secagg-") as folder:
        rounds = [
            (_cpu(lambda: _round(layout, values, Path(folder), masked=True)),
             _cpu(lambda: _round(layout, values, Path(folder), masked=False)))
            for _ in range(PAIRS)
        ]  # fmt: skip
    whole = spread([masked / plain for masked, plain in rounds])
    exact, reused = _exact(layout, values), _reuse_tells(layout, values)
    upload = len(_masked(layout, values, _masks(0)))
    found = [
        rows.share("upload of a site", upload, "bytes", "float32", 4 * NUMBERS, most=1.01),
        rows.paired("whole round on its critical path, no network: CPU", 1000 * median(masked for masked, _ in rounds),
                    "ms", "without masks", 1000 * median(plain for _, plain in rounds), whole.median, "<=", 1.3),
        *rows.interval("whole round, with masks over without", whole),
        rows.bound("numbers of the sum that differ from the sum in clear", exact, "", "==", 0),
        rows.caught("the same masks in two rounds: their difference is the update's", reused),
    ]  # fmt: skip
    try:
        return (*_beside_flwr(say, lambda: _masked(layout, values, _masks(0))), *found)
    except PeerUnavailable as problem:
        return (rows.missing("CPU of a site, beside flwr SecAgg+", problem.message), *found)


def _beside_flwr(say: Say, ours: Callable[[], object]) -> list[Row]:
    """A site's masking and Flower's, in turn. Raises PeerUnavailable."""
    with environment(say, *FLWR) as peer, as_file(files("paroma.bench.peers") / "flwr_masks.py") as script:
        say(f"{PAIRS} pairs of one site's masking, ours and flwr's")
        with peer.asking(script, (str(SITES), str(NUMBERS)), seconds=REPLY_SECONDS) as ask:
            ask()  # imports and first touches are not what is measured
            pairs = [(float(ask()["cpu_seconds"]), _cpu(ours)) for _ in range(PAIRS)]
    found = spread([theirs / mine for theirs, mine in pairs])
    mine, theirs = median(mine for _, mine in pairs), median(theirs for theirs, _ in pairs)
    what = "CPU of a site: grid and 16 masks"
    return [
        rows.paired(what, 1000 * mine, "ms", "flwr SecAgg+", 1000 * theirs, found.median, ">=", 8),
        *rows.interval("CPU of a site, flwr's over ours", found),
    ]


def _masks(place: int, entry: str = "00") -> list[masks.Mask]:
    """All masks of a site: its own, and those of 15 pairs."""
    me = NAMES[place]
    pairs = {
        other: seeds.pair_seed(seeds.expand(SECRET, b"pair", *(n.encode() for n in sorted((me, other)))), entry)
        for other in NAMES
        if other != me
    }
    return masks.masks_of(me, _own(me, entry), pairs)


def _own(me: SiteId, entry: str = "00") -> bytes:
    return seeds.self_seed(seeds.expand(SECRET, b"root", me.encode()), entry)


def _masked(layout: Layout, values: F32, put_on: Sequence[masks.Mask]) -> bytearray:
    data = layout.encode({"weights": values})
    masks.apply(layout, data, put_on)
    return data


def _round(layout: Layout, values: F32, folder: Path, *, masked: bool) -> bytes:
    data = _masked(layout, values, _masks(0) if masked else [])
    name = hashlib.sha256(data).hexdigest()
    with (folder / "upload").open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    uploads = []
    for _ in range(SITES):
        content = (folder / "upload").read_bytes()
        if hashlib.sha256(content).hexdigest() != name:
            raise OSError("the spool gives other bytes than were written")
        uploads.append(content)
    return unmask.total(layout, uploads, {me: _own(me) for me in NAMES} if masked else {}, {})


def _exact(layout: Layout, values: F32) -> int:
    """Numbers of the unmasked sum that are not those of the sum in clear."""
    uploads = [_masked(layout, values, _masks(place)) for place in range(SITES)]
    clear = [layout.encode({"weights": values}) for _ in range(SITES)]
    total = layout.steps(unmask.total(layout, uploads, {me: _own(me) for me in NAMES}, {}))["weights"]
    return int((total != layout.steps(unmask.total(layout, clear, {}, {}))["weights"]).sum())


def _reuse_tells(layout: Layout, values: F32) -> bool:
    """Whether the difference of two uploads under one attempt's masks is the difference of what is under them."""
    later = values + np.float32(0.5)
    one, other = (layout.steps(_masked(layout, v, _masks(0)))["weights"] for v in (values, later))
    fresh = layout.steps(_masked(layout, later, _masks(0, "01")))["weights"]
    clear = (layout.steps(layout.encode({"weights": later}))["weights"]
             - layout.steps(layout.encode({"weights": values}))["weights"])  # fmt: skip
    told = ((other - one - clear) % (1 << 32) == 0).all()
    hidden = ((fresh - one - clear) % (1 << 32) == 0).mean() < 1e-3
    return bool(told and hidden)


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began
