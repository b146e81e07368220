"""`paroma bench start`: how fast the command and a site start, and how much is installed.

The command beside bare Python and beside Flower's; times are the best of several, so that other work on the machine
counts little. A site's cold start lasts from the start of its process until both hold: its port answers, and the hub has
it online, which is at the site's first exchange, with token and proof. Before, it was away for so long that the hub had
noticed. The size is that of everything that `pip install paroma` brings, without extras.
"""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.four import Four, cpu_of, four
from paroma.bench.peers.environment import Environment, PeerUnavailable, environment
from paroma.bench.rows import Row
from paroma.kernel.errors import Unavailable
from paroma.lab.processes import listening, until

REPEATS: Final = 7
COLD_REPEATS: Final = 3
AWAY_SECONDS: Final = 40.0
FLWR: Final = ("flwr==1.42.0",)
TIMES: Final = 6
COLD_SECONDS: Final = 1.0
MOST_MB: Final = 45.0
HEAVY: Final = ("numpy", "pandas", "pyarrow", "torch", "flwr")
BRINGS: Final = (
    "import importlib.metadata as m; print('\\n'.join(d.metadata['Name'].lower() for d in m.distributions()))"
)
STANDARD: Final = {"pip", "setuptools"}


def measure(say: Say) -> tuple[Row, ...]:
    """Command, site, size. Raises ParomaError."""
    say("starting the command")
    python = best([sys.executable, "-c", "pass"])
    command = best([Path(sys.executable).with_name("paroma"), "--help"])
    slow = best([sys.executable, "-c", "import numpy, pandas, paroma.cli"])
    found = [
        rows.share("`paroma --help`", 1000 * command, "ms", "bare Python", 1000 * python, most=TIMES),
        rows.caught("the command loads pandas", slow / python > TIMES),
    ]
    try:
        found.append(_beside_flwr(say, command))
    except PeerUnavailable as problem:
        found.append(rows.missing("`paroma --help`, beside Flower", problem.message))
    with four(say) as running:
        say(f"{COLD_REPEATS} cold starts of a site")
        found += _cold([_cold_start(running, running.sites[0]) for _ in range(COLD_REPEATS)])
    try:
        found += _size(say)
    except PeerUnavailable as problem:
        found.append(rows.missing("size of `paroma` alone", problem.message))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """One cold start, s since the process began: port answers; the hub has it online. cpu: of the process until then, s."""

    port: float
    online: float
    cpu: float


def _cold(starts: Sequence[Cold]) -> list[Row]:
    whole = min(max(one.port, one.online) for one in starts)
    return [
        rows.bound(
            "cold start of a site, until its port answers and the hub has it online", whole, "s", "<=", COLD_SECONDS
        ),
        rows.printed("of it, until its port answers", min(one.port for one in starts), "s"),
        rows.printed("of it, CPU of the site", min(one.cpu for one in starts), "s"),
    ]


def _cold_start(running: Four, key: str) -> Cold:
    site, hub = running.running.sites[key], running.running.folder / "hub" / "hub.db"
    me = running.running.site_seen(key).site
    site.stop()
    until(lambda: not _online(hub, me), seconds=AWAY_SECONDS, sentence=f"the hub did not notice that {key} is away")
    began = time.monotonic()
    site.start(lambda: True)
    port = until(partial(listening, running.running.ports[key]), seconds=AWAY_SECONDS, sentence=f"{key} did not start")
    until(lambda: _online(hub, me), seconds=AWAY_SECONDS, sentence=f"{key} did not come online")
    online = time.monotonic() - began
    return Cold(port=port, online=online, cpu=cpu_of(site.pid))


def _online(hub: Path, site: str) -> bool:
    """Whether the hub's database, read beside it, says that a member is online: the hub's own work is not disturbed."""
    with closing(sqlite3.connect(f"file:{hub}?mode=ro", uri=True)) as opened:
        asked = "select status from federation_members where site = ?"
        return bool(opened.execute(asked, (site,)).fetchone() == ("online",))


def _beside_flwr(say: Say, command: float) -> Row:
    """Flower's command, of this environment or else of one of its own. Raises PeerUnavailable."""
    what = "`paroma --help`, beside Flower"
    here = Path(sys.executable).with_name("flwr")
    if here.exists():
        return rows.against(what, 1000 * command, "ms", "`flwr --help`", 1000 * best([here, "--help"]), times=1)
    with environment(say, *FLWR) as peer:
        theirs = best([peer.python.with_name("flwr"), "--help"])
    return rows.against(what, 1000 * command, "ms", "`flwr --help`", 1000 * theirs, times=1)


def best(command: list[str | Path]) -> float:
    """Shortest wall of several starts, seconds. Raises Unavailable."""
    seconds = []
    for _ in range(REPEATS):
        began = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        seconds.append(time.monotonic() - began)
        if done.returncode != 0:
            raise Unavailable(f"`{command[0]}` failed: {done.stderr.strip()[-200:]}", do="run it by hand")
    return min(seconds)


def _size(say: Say) -> list[Row]:
    source = Path(__file__).parents[3]
    if not (source / "pyproject.toml").exists():
        return [rows.missing("size of `paroma` alone", "not run from a checkout, so there is no wheel to install")]
    with environment(say) as empty:
        before = _bytes(empty)
        empty.install(str(source))
        size = (_bytes(empty) - before) / 1e6
        brought = set(empty.said(BRINGS).split()) - STANDARD
    heavy = sorted(brought & set(HEAVY))
    say(f"`paroma` alone brings {', '.join(sorted(brought))}")
    return [
        rows.bound("installed size of `paroma` alone", size, "MB", "<=", MOST_MB),
        rows.bound("heavy packages that it brings (numpy, pandas, pyarrow, torch, flwr)", len(heavy), "", "==", 0),
    ]


def _bytes(where: Environment) -> int:
    return sum(path.stat().st_size for path in where.folder.rglob("*") if path.is_file() and not path.is_symlink())
