"""Runs in the peer's environment: rounds of Flower, over loopback with TLS and node authentication.

    python flwr_rounds.py SITES NUMBERS ROUNDS

Real processes: SuperLink, SuperNodes, an app with FedAvg that adds 1 to each number. No evaluation, so a round is one
exchange. Telemetry and the update check are off. Prints one JSON object: seconds per round. Needs flwr 1.42.
"""

import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BIN = Path(sys.executable).parent
WAIT_SECONDS = 200.0
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.30"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "tiny.server:app"
clientapp = "tiny.client:app"
[tool.flwr.app.config]
"""
CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(msg, ctx):
    arrays = [x + 1 + np.float32((ctx.node_id % 7) * 1e-3) for x in msg.content["arrays"].to_numpy_ndarrays()]
    back = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 10})}
    return Message(content=RecordDict(back), reply_to=msg)
"""
SERVER = """
import json, time
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

class Timed(FedAvg):
    times = []
    def configure_train(self, *args, **kwargs):
        messages = list(super().configure_train(*args, **kwargs))
        self.times.append([time.time(), 0.0, 0])
        return messages
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        out = super().aggregate_train(server_round, replies)
        self.times[-1][1:] = [time.time(), sum(r.has_content() for r in replies)]
        return out

@app.main()
def main(grid, ctx):
    c = ctx.run_config
    while len(list(grid.get_node_ids())) < c["sites"]:
        time.sleep(0.2)
    s = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=c["sites"], min_available_nodes=c["sites"])
    s.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(c["size"], np.float32)]), num_rounds=c["rounds"])
    with open(c["out"] + ".new", "w") as f:
        json.dump(s.times, f)
    import os
    os.replace(c["out"] + ".new", c["out"])
"""


def main(sites: int, size: int, rounds: int) -> None:
    """Measure, print."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="flwr-rounds-") as name:
        folder = Path(name)
        try:
            times = measure(folder, started, sites, size, rounds)
        finally:
            stop(started)
    seconds = [end - begin for begin, end, _ in times]
    print(
        json.dumps(
            {
                "median_seconds": statistics.median(seconds),
                "min_seconds": min(seconds),
                "rounds": len(seconds),
                "replies": min(int(count) for _, _, count in times),
            }
        )
    )


def measure(
    folder: Path, started: list[subprocess.Popen[bytes]], sites: int, size: int, rounds: int
) -> list[tuple[float, float, float]]:
    """Start everything, run the app; begin, end (unix s) and number of replies of each round."""
    env = environment(folder)
    keys(folder, sites)
    out = folder / "rounds.json"
    app(folder / "app", f'size = {size}\nrounds = {rounds}\nsites = {sites}\nout = "{out}"\n')
    port = free_port()
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "b"\n[superlink.b]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{folder / "ca.pem"}"\n'
    )

    def start(log: str, *command: str) -> None:
        with (folder / f"{log}.log").open("wb") as said:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=env,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)

    def call(*command: str) -> None:
        subprocess.run([str(BIN / "flwr"), *command], env=env, check=True, capture_output=True, timeout=120)

    tls = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.pem"]
    tls = [str(folder / one) if one.endswith((".pem", ".key")) else one for one in tls]
    start(
        "link", "flower-superlink", *tls, "--enable-supernode-auth", "--port", str(port), "--isolation", "subprocess",
        "--disable-runtime-dependency-installation",
    )  # fmt: skip
    await_port(port)
    for place in range(sites):
        call("supernode", "register", str(folder / f"node{place}.pub"), "b")
    for place in range(sites):
        own = free_port()
        start(
            f"node{place}", "flower-supernode", "--root-certificates", str(folder / "ca.pem"), "--superlink",
            f"127.0.0.1:{port}", "--auth-supernode-private-key", str(folder / f"node{place}"), "--port", str(own),
            "--isolation", "subprocess",
        )  # fmt: skip
        await_port(own)
    call("run", str(folder / "app"), "b", "--format", "json")
    until = time.time() + WAIT_SECONDS
    while not out.exists():
        if time.time() > until:
            raise SystemExit(f"the app of flwr did not end within {WAIT_SECONDS:g} s")
        time.sleep(0.1)
    found: list[tuple[float, float, float]] = [tuple(one) for one in json.loads(out.read_text())]
    return found


def environment(folder: Path) -> dict[str, str]:
    """Without proxies for loopback, without telemetry, one thread for each library."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def app(folder: Path, config: str) -> None:
    """Write the app."""
    (folder / "tiny").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT + config)
    (folder / "tiny" / "__init__.py").write_text("")
    (folder / "tiny" / "client.py").write_text(CLIENT)
    (folder / "tiny" / "server.py").write_text(SERVER)


def keys(folder: Path, sites: int) -> None:
    """A certificate authority, a certificate for loopback, a key for each node."""
    now = dt.datetime.now(dt.UTC)
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench-ca")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    begin, end = now - dt.timedelta(days=1), now + dt.timedelta(days=9)
    made = x509.CertificateBuilder().issuer_name(issuer).not_valid_before(begin).not_valid_after(end)
    root = (
        made.subject_name(issuer)
        .public_key(authority.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        made.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .public_key(server.public_key())
        .serial_number(2)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    plain = ser.NoEncryption()
    (folder / "ca.pem").write_bytes(root.public_bytes(ser.Encoding.PEM))
    (folder / "server.pem").write_bytes(certificate.public_bytes(ser.Encoding.PEM))
    (folder / "server.key").write_bytes(server.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, plain))
    for place in range(sites):
        node = ec.generate_private_key(ec.SECP384R1())
        file = folder / f"node{place}"
        file.write_bytes(node.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.OpenSSH, plain))
        file.chmod(0o600)
        public = node.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH)
        file.with_suffix(".pub").write_bytes(public)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int) -> None:
    """Until somebody listens there."""
    until = time.time() + 60
    while time.time() < until:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def stop(started: list[subprocess.Popen[bytes]]) -> None:
    """End what was started, each with the processes of its own session."""
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
