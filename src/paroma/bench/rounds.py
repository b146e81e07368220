"""`paroma bench round`: one round of four sites with every protection on, beside Flower and NVFlare
on the same machine.

A logistic regression's questions, about a hundred numbers each. A round lasts from the attempt's opening entry to the
entry of its answer, by the hub's clock. It counts only if the sites' own logs show that each of them decided, read,
voted and answered in it.
"""

import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.four import INPUTS, OUTCOME, Four, cpu_of, four
from paroma.bench.peers.environment import PeerUnavailable, environment
from paroma.bench.rows import Row
from paroma.sdk.study import Study
from paroma.trust.audit.entries import Entry

LEAST_ROUNDS: Final = 20
TRACED_RUNS: Final = 1
NUMBERS: Final = 100
FLWR: Final = ("flwr==1.42.0", "psutil>=7")
FLWR_ROUNDS: Final = 5
NVFLARE: Final = ("nvflare==2.9.0", "psutil>=7")
NVFLARE_ROUNDS: Final = 10
PEER_SECONDS: Final = 400.0
RUN_SECONDS: Final = 120.0
MARKS: Final = ("contribution-made", "vote-signed", "answer-given")
DECISIONS: Final = ("TakePart", "Vote", "Answer")
FORMULA: Final = f"{OUTCOME} ~ {' + '.join(INPUTS[:9])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """seconds: of each round. cpu: seconds per round, by program. numbers: in one question's sum."""

    seconds: tuple[float, ...]
    cpu: Mapping[str, float]
    numbers: int


def measure(say: Say) -> tuple[Row, ...]:
    """Rounds here, fsyncs, then the peers. Raises ParomaError."""
    with four(say) as running:
        study = running.agree("How long one round takes", ("logistic",), questions=400)
        _run(study, 1)
        say("measuring rounds")
        before = {key: len(running.site_log(key)) for key in running.sites}
        found = _rounds(running, study)
        logs = {key: running.site_log(key)[before[key] :] for key in running.sites}
        say("counting fsyncs")
        synced = _fsyncs(running, study)
    median = statistics.median(found.seconds)
    per_site = [found.cpu[key] for key in logs]
    shown = [
        rows.bound("one round, 4 sites: median of the wall", 1000 * median, "ms", "<=", 60),
        rows.printed("one round: best", 1000 * min(found.seconds), "ms"),
        rows.bound("rounds measured", len(found.seconds), "", ">=", LEAST_ROUNDS),
        rows.printed("numbers in one question's sum", found.numbers, ""),
        rows.bound("CPU of a site and round, mean of sites", 1000 * statistics.mean(per_site), "ms", "<=", 25),
        rows.printed("CPU of the hub and round", 1000 * found.cpu["hub"], "ms"),
        rows.bound("rounds in which every site decided, read, voted, answered", _share(logs, found), "", "==", 1.0),
        rows.caught("a site that skips its vote", _share(_without(logs, "vote-signed"), found) < 1),
        *synced,
    ]
    return (*shown, *_peers(say, median))


def protected(log: Sequence[Entry]) -> int:
    """Rounds of a site's log in which it decided three times, let one contribution out, voted and answered."""
    entries: dict[str, set[str]] = {}
    for one in log:
        if one.kind in MARKS:
            entries.setdefault(str(one.facts["entry"]), set()).add(one.kind)
    whole = sum(found == set(MARKS) for found in entries.values())
    decided = Counter(str(one.facts.get("action")) for one in log if one.kind == "allowed")
    return min(whole, *(decided[action] for action in DECISIONS))


def _rounds(running: Four, study: Study) -> Measured:
    start = len(running.federation_log())
    names = dict(zip(("hub", *running.sites), running.programs.pids(), strict=True))
    before = {name: cpu_of(pid) for name, pid in names.items()}
    answered, numbers, asked = 0, 0, 1
    while answered < LEAST_ROUNDS:
        asked += 1
        done, numbers = _run(study, asked)
        answered += done
    cpu = {name: (cpu_of(pid) - before[name]) / answered for name, pid in names.items()}
    opened: dict[tuple[object, object], float] = {}
    seconds = []
    for entry in running.federation_log()[start:]:
        question = entry.facts.get("run"), entry.facts.get("step")
        if entry.kind == "attempt-opened":
            opened.setdefault(question, entry.at)
        elif entry.kind == "question-answered":
            seconds.append(entry.at - opened[question])
    return Measured(seconds=tuple(seconds), cpu=cpu, numbers=numbers)


def _run(study: Study, asked: int) -> tuple[int, int]:
    """One regression; rounds answered, numbers per question. Each has a ridge of its own: no question is asked twice."""
    run = study.logistic(FORMULA, ridge=asked / 1000)
    run.wait(seconds=RUN_SECONDS)
    return len(run.report.progress), run.report.numbers


def _share(logs: Mapping[str, Sequence[Entry]], found: Measured) -> float:
    return min(protected(log) for log in logs.values()) / len(found.seconds)


def _without(logs: Mapping[str, Sequence[Entry]], kind: str) -> dict[str, list[Entry]]:
    return {key: [entry for entry in log if entry.kind != kind] for key, log in logs.items()}


def _fsyncs(running: Four, study: Study) -> list[Row]:
    """Calls of fsync and fdatasync of each program and round, seen by strace while one more regression runs."""
    if shutil.which("strace") is None:
        return [rows.missing("fsyncs of a round", "strace is not installed")]
    with tempfile.TemporaryDirectory(prefix="paroma-strace-") as name:
        pids = dict(zip(("hub", *running.sites), running.programs.pids(), strict=True))
        tracers = [
            subprocess.Popen(
                ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", "-o", f"{name}/{who}", "-p", str(pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for who, pid in pids.items()
        ]
        try:
            time.sleep(1.0)
            if any(tracer.poll() is not None for tracer in tracers):
                return [rows.missing("fsyncs of a round", "strace may not attach here")]
            answered = sum(_run(study, 1000 + place)[0] for place in range(TRACED_RUNS))
        finally:
            for tracer in tracers:
                tracer.send_signal(signal.SIGINT)
                tracer.wait()
        counted = {who: _lines(Path(name) / who) / answered for who in pids}
    sites = statistics.mean(counted[key] for key in running.sites)
    return [
        rows.printed("fsyncs of the hub and round", counted["hub"], ""),
        rows.printed("fsyncs of a site and round, mean", sites, ""),
    ]


def _lines(file: Path) -> int:
    if not file.exists():
        return 0
    return sum("sync(" in line and "resumed" not in line for line in file.read_text().splitlines())


def _peers(say: Say, median: float) -> list[Row]:
    """Flower and NVFlare, each in an environment of its own, one after the other on the same machine."""
    found = []
    try:
        with environment(say, *FLWR) as peer, as_file(files("paroma.bench.peers") / "flwr_rounds.py") as script:
            say(f"{FLWR_ROUNDS} rounds of flwr")
            said = peer.run(script, ("4", str(NUMBERS), str(FLWR_ROUNDS)), seconds=PEER_SECONDS)
        found.append(_beside(f"one round, beside {FLWR[0]}", median, "flwr, median", said, times=100))
    except PeerUnavailable as problem:
        found.append(rows.missing("one round, beside flwr", problem.message))
    try:
        with environment(say, *NVFLARE) as peer, as_file(files("paroma.bench.peers") / "nvflare_rounds.py") as script:
            for mode in ("default", "tuned"):
                say(f"{NVFLARE_ROUNDS} rounds of NVFlare, {mode}")
                asked = ("4", str(NUMBERS), str(NVFLARE_ROUNDS), mode)
                said = peer.run(script, asked, seconds=PEER_SECONDS)
                what = f"one round, beside {NVFLARE[0]}, {mode}"
                found.append(
                    _beside(what, median, f"NVFlare {mode}, median", said, times=40 if mode == "default" else 1)
                )
    except PeerUnavailable as problem:
        found.append(rows.missing("one round, beside NVFlare", problem.message))
    return found


def _beside(what: str, median: float, peer: str, said: Mapping[str, float | str], *, times: float) -> Row:
    """median: ours, s. said: what the peer's script printed, with its own median in seconds."""
    theirs = 1000 * float(said["median_seconds"])
    return rows.against(what, 1000 * median, "ms", peer, theirs, times=times)
