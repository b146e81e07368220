"""Everything that code inside may try fails inside, and is shown to work outside: an attempt that fails everywhere proves nothing."""

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import paroma
from paroma.learn.sandbox.task import Task

INSIDE = Path(__file__).parent / "inside"
spec = importlib.util.spec_from_file_location("attacks_outside", INSIDE / "attacks.py")
attacks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(attacks)
ATTEMPTS = tuple(attacks.ATTEMPTS)

NEVER_OUTSIDE_EITHER = {  # for want of the device or the right on this machine; their refusal inside is looked at by its errno
    "a vsock socket",
    "an IPv6 socket",
    "io_uring",
    "a user namespace",
}
ONLY_ROOT_OUTSIDE = {
    "a mount namespace",
    "changing the packages",
    "being root",
    "the limits of process 1",
    "a signal to process 1",
}
REFUSED_BY = {
    "a vsock socket": errno.EPERM,  # by the filter, not for want of a device
    "a netlink socket": errno.EPERM,
    "an IPv6 socket": errno.EPERM,
    "io_uring": errno.EPERM,
    "a user namespace": errno.EPERM,
    "a program": errno.EPERM,
}


def by_hand(*arguments, script=INSIDE / "by_hand.py"):
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.promise(1)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_is_refused_inside(loop, sandbox, port, name):
    argument = port if "port" in name else "."
    worked, code = json.loads(
        loop.run(sandbox.run(Task(entry="attacks:attempt", payload=json.dumps([name, argument]).encode())))
    )
    assert not worked
    if name in REFUSED_BY:
        assert code == REFUSED_BY[name]


@pytest.fixture(scope="module")
def outside(port, tmp_path_factory):
    """Every attempt, each in a process of its own, without walls."""
    return by_hand("outside", port, tmp_path_factory.mktemp("free"), json.dumps(sorted(NEVER_OUTSIDE_EITHER)))


@pytest.mark.promise(1)
@pytest.mark.parametrize("name", [n for n in ATTEMPTS if n not in NEVER_OUTSIDE_EITHER])
def test_the_same_attempt_works_without_the_walls(outside, name):
    if name in ONLY_ROOT_OUTSIDE and os.geteuid() != 0:
        pytest.skip("needs rights that this user does not have outside either")
    if name == "exec":
        assert outside[name] is None  # the other program took its place and said nothing
    else:
        assert outside[name][0], name


@pytest.mark.promise(1)
def test_a_task_finds_nothing_of_ours_around_it(loop, sandbox):
    around = json.loads(loop.run(sandbox.run(Task(entry="attacks:surroundings", payload=b"", tables=(b"table",)))))
    ours = set(os.environ) - {"HOME", "TMPDIR", "LC_CTYPE", "PWD"}
    assert not {n for n in around["environment"] if not n.endswith("_THREADS")} & ours
    assert len(around["descriptors"]) == 5  # none, notes twice, the reply, the table's mapping
    assert around["user"] == [65534] * 6
    assert around["here"] == []
    assert around["threads"] == 1
    assert all(
        m in {"paroma", "paroma.kernel", "paroma.kernel.errors", "paroma.kernel.release", "paroma.learn"}
        or m.startswith("paroma.learn.sandbox")
        for m in around["modules"]
    )


def plain_interpreter():
    """A Python that everybody may run, of the same version as ours."""
    found = Path("/usr/bin/python3").resolve()
    if not found.exists():
        pytest.skip("no /usr/bin/python3")
    version = subprocess.run(
        [found, "-c", "import sys; print(sys.version_info[:2] == " + str(tuple(sys.version_info[:2])) + ")"],
        capture_output=True,
        check=True,
    )
    if version.stdout.strip() != b"True":
        pytest.skip(f"{found} is of another version")
    return found


def refuses_everything(told):
    assert all(not worked for worked, _ in told["results"].values())
    assert all(there for name, there in told["walls"].items() if name != "cgroup")
    assert told["around"]["user"] == [65534] * 6


def by_plain_interpreter(port, **more):
    """Everything readable by everybody: another Python, with the packages of our environment."""
    python, packages, source = plain_interpreter(), sysconfig.get_paths()["purelib"], Path(paroma.__file__).parents[1]
    script = (
        f"import runpy, site, sys\nsite.getsitepackages = lambda: [{packages!r}]\nsys.path[:0] = [{str(source)!r}, {packages!r}]\n"
        f"sys.argv = ['by_hand.py', 'inside', '{port}']\nrunpy.run_path({str(INSIDE / 'by_hand.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, check=False, timeout=60, env={}, cwd="/", **more)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.promise(1)
@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite already runs as an ordinary user")
def test_the_walls_stand_for_an_ordinary_user(port):
    told = by_plain_interpreter(port, user=65534, group=65534, extra_groups=[])
    assert told["user"] == 65534
    refuses_everything(told)


@pytest.mark.promise(1)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts in this way")
def test_the_walls_stand_for_root_with_everything_readable(port):
    told = by_plain_interpreter(port)
    assert told["user"] == 0
    refuses_everything(told)


@pytest.mark.promise(1)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts in this way")
def test_the_walls_stand_for_root_in_a_folder_that_only_root_may_enter(port, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(INSIDE, closed / "inside")
    told = by_hand("inside", port, script=closed / "inside" / "by_hand.py")
    refuses_everything(told)


CALLS = {"landlock": (444, 444), "seccomp": (317, 277), "rlimits": (302, 261), "namespaces": (165, 40)}


@pytest.mark.promise(1)
@pytest.mark.parametrize("wall", CALLS)
def test_a_wall_that_cannot_be_built_is_named_and_nothing_runs(wall):
    numbers = CALLS[wall]
    told = by_hand("walls", numbers[0] if os.uname().machine == "x86_64" else numbers[1])
    assert told["walls"][wall][0] is False
    assert told["refused"] == wall


def test_all_walls_are_listed_where_all_stand(loop, sandbox):
    assert [w.name for w in sandbox.walls()] == [
        "namespaces",
        "identity",
        "capabilities",
        "rlimits",
        "landlock",
        "seccomp",
        "cgroup",
    ]
    assert all(w.there for w in sandbox.walls() if w.required)
