"""Runs in the peer's environment: rounds of NVFlare, over loopback with mutual TLS.

    python nvflare_rounds.py SITES NUMBERS ROUNDS default|tuned

Real processes: NVFlare's own proof-of-concept deployment (a server, clients, a job's processes at each), its FedAvg
recipe with a client script that adds 1 to each number. No evaluation, so a round is one exchange. `default` is as it
ships. `tuned` sets the waits that have a setting to 20 ms: `server.task_request_interval` (2 s) and the controller's
`task_check_period` (0.5 s). The 0.5 s between two looks of the client for a result have none.

A round lasts from the moment at which the server's own log has the last reply of one round ("Aggregated 4/4 results")
to that of the next, so ROUNDS + 1 are run. Prints one JSON object: seconds per round. Needs nvflare 2.9.
"""

import datetime as dt
import json
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

TUNED_SECONDS = 0.02
RESULT_SECONDS = 300.0
MARK = "PAROMA_BENCH_NVFLARE"  # in the environment of everything that is started here, so that it can be ended
AGGREGATED = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) .* Aggregated (\d+)/(\d+) results$", re.MULTILINE)
CLIENT = """
import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    params = {name: values + 1 for name, values in model.params.items()}
    flare.send(flare.FLModel(params=params, params_type=flare.ParamsType.FULL))
"""


def main(sites: int, size: int, rounds: int, mode: str) -> None:
    """Measure, print."""
    if mode not in {"default", "tuned"}:
        raise SystemExit(f"`{mode}` is neither default nor tuned")
    with tempfile.TemporaryDirectory(prefix="nvflare-rounds-") as name:
        folder = Path(name)
        prepare(folder)
        try:
            with redirect_stdout(sys.stderr):  # NVFlare talks on stdout, where our one line belongs
                log = measure(folder, sites, size, rounds + 1, tuned=mode == "tuned")
        finally:
            end(folder)
    ends = last_replies(log, sites)
    if len(ends) != rounds + 1:
        raise SystemExit(f"the server's log tells of {len(ends)} rounds with {sites} replies, not of {rounds + 1}")
    seconds = [after - before for before, after in pairwise(ends)]
    print(
        json.dumps(
            {
                "median_seconds": statistics.median(seconds),
                "min_seconds": min(seconds),
                "rounds": len(seconds),
                "replies": sites,
            }
        )
    )


def measure(folder: Path, sites: int, size: int, rounds: int, *, tuned: bool) -> str:
    """Start everything, run one job; the server's own log of it."""
    from nvflare.recipe import PocEnv  # type: ignore[import-not-found]  # it reads the environment while it is imported

    np.save(folder / "init.npy", np.zeros(size, np.float32))
    (folder / "client.py").write_text(CLIENT)
    recipe = job(folder, sites, rounds, tuned=tuned)
    env = PocEnv(num_clients=sites, project_conf_path=str(project(folder, sites)))
    try:
        run = recipe.execute(env)
        result = run.get_result(timeout=RESULT_SECONDS, clean_up=False)  # stops everything, keeps the logs
        if result is None:
            raise SystemExit(f"the job of NVFlare did not end within {RESULT_SECONDS:g} s")
        return (Path(result) / "workspace" / "log.txt").read_text()
    finally:
        env.stop(clean_up=False)


def job(folder: Path, sites: int, rounds: int, *, tuned: bool) -> Any:
    """The FedAvg recipe, as it ships or with its waits cut."""
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe  # type: ignore[import-not-found]

    class Quick(NumpyFedAvgRecipe):  # type: ignore[misc]  # NVFlare's own way to set the controller's arguments
        def _get_controller_kwargs(self) -> dict[str, Any]:
            return {"task_check_period": TUNED_SECONDS}

    maker = Quick if tuned else NumpyFedAvgRecipe
    made = maker(
        name="tiny",
        initial_ckpt=str(folder / "init.npy"),
        min_clients=sites,
        num_rounds=rounds,
        train_script=str(folder / "client.py"),
    )
    if tuned:
        made.add_server_config({"server": {"task_request_interval": TUNED_SECONDS}})
    return made


def project(folder: Path, sites: int) -> Path:
    """NVFlare's sample project with as many sites, on a port that is free."""
    import nvflare.lighter  # type: ignore[import-not-found]
    import yaml  # type: ignore[import-untyped]  # NVFlare brings it

    sample = Path(nvflare.lighter.__file__).with_name("dummy_project.yml")
    described = yaml.safe_load(sample.read_text())
    server = {"name": "server", "type": "server", "org": "nvidia", "fed_learn_port": free_port()}
    clients = [{"name": f"site-{place + 1}", "type": "client", "org": "nvidia"} for place in range(sites)]
    people = [one for one in described["participants"] if one["type"] == "admin"]
    described["participants"] = [server, *clients, *people]
    file = folder / "project.yml"
    file.write_text(yaml.safe_dump(described, sort_keys=False))
    return file


def prepare(folder: Path) -> None:
    """A home of its own, no proxies for loopback, one thread for each library."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ |= {
        MARK: str(folder),
        "HOME": str(folder),
        "NVFLARE_POC_WORKSPACE": str(folder / "poc"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    os.chdir(folder)


def last_replies(log: str, sites: int) -> list[float]:
    """When the server had the last reply of each round, s since 1970."""
    return [moment(said) for said, count, of in AGGREGATED.findall(log) if int(count) == int(of) == sites]


def moment(said: str) -> float:
    """Seconds since 1970 of a time in the log, which is in this machine's own zone."""
    return dt.datetime.strptime(said, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end(folder: Path) -> None:
    """End whatever still runs of what was started here: known by the mark in its environment."""
    ours = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                process.send_signal(signal.SIGKILL)
                ours.append(process)
    psutil.wait_procs(ours, timeout=5)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
