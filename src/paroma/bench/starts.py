"""`paroma bench start`: how fast the command and a site start, and how much is installed.

The command beside bare Python and beside Flower's; times are the best of several, so that other work on the machine
counts little. The size is that of everything that `pip install paroma` brings, without extras.
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.four import four
from paroma.bench.peers.environment import Environment, PeerUnavailable, environment
from paroma.bench.rows import Row
from paroma.kernel.errors import Unavailable
from paroma.lab.processes import listening

REPEATS: Final = 7
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
    flwr = Path(sys.executable).with_name("flwr")
    if flwr.exists():
        found.append(rows.against("`paroma --help`, beside Flower", 1000 * command, "ms", "`flwr --help`",
                                  1000 * best([flwr, "--help"]), times=1))  # fmt: skip
    else:
        found.append(rows.missing("`flwr --help`", "flwr is not installed here"))
    with four(say) as running:
        say("a cold start of a site")
        key = running.sites[0]
        seconds = []
        for _ in range(3):
            site = running.running.sites[key]
            site.stop()
            began = time.monotonic()
            site.start(partial(listening, running.running.ports[key]))
            seconds.append(time.monotonic() - began)
    found.append(rows.bound("cold start of a site, until its port answers", min(seconds), "s", "<=", COLD_SECONDS))
    try:
        found += _size(say)
    except PeerUnavailable as problem:
        found.append(rows.missing("size of `paroma` alone", problem.message))
    return tuple(found)


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
