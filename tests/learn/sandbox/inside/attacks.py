"""What code inside a worker may try. Each attempt raises OSError when it is refused and returns a text when it worked."""

# ruff: noqa: PTH101, PTH102, PTH108, PTH118, PTH120, PTH123, PTH208, PTH211, NPY002 - attackers call the system directly

import ctypes
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"


def _syscall(number, *arguments):
    result = _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _read(path):
    with open(path, "rb") as file:
        return file.read(100)


def _write(path):
    with open(path, "wb") as file:
        file.write(b"x")
    os.unlink(path)


def _open_socket(family, kind):
    with socket.socket(family, kind):
        return "open"


def connect(port):
    with socket.create_connection(("127.0.0.1", int(port)), 2):
        return "connected"


def fork(_):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


ATTEMPTS = {
    "tcp to a port that listens": connect,
    "an IPv4 socket": lambda _: _open_socket(socket.AF_INET, socket.SOCK_DGRAM),
    "an IPv6 socket": lambda _: _open_socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "a vsock socket": lambda _: _open_socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "a netlink socket": lambda _: _open_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "a unix socket": lambda _: _open_socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "the machine's configuration": lambda _: _read("/etc/passwd"),
    "the environment of who started it": lambda _: _read(f"/proc/{os.getppid()}/environ"),
    "the list of processes": lambda _: os.listdir("/proc"),
    "its own descriptors through proc": lambda _: os.listdir("/proc/self/fd"),
    "other tasks' folders": lambda _: os.listdir("/tmp"),
    "a file outside its folder": lambda _: _write("/tmp/left-behind"),
    "shared memory with a name": lambda _: _write("/dev/shm/left-behind"),
    "changing the packages": lambda _: _write(os.path.join(os.path.dirname(np.__file__), "left-behind")),
    "a symbolic link": lambda folder: os.symlink("/etc/passwd", os.path.join(folder, "link")),
    "a program": lambda _: subprocess.run([sys.executable, "-c", ""], check=True),
    "exec": lambda _: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "another process": fork,
    "ptrace": lambda _: _syscall(101 if X86 else 117, 0, 0, 0, 0),
    "a user namespace": lambda _: _syscall(272 if X86 else 97, 0x10000000),
    "a mount namespace": lambda _: _syscall(272 if X86 else 97, 0x00020000),
    "io_uring": lambda _: _syscall(425, 4, ctypes.addressof(ctypes.create_string_buffer(200))),
    "a queue of System V": lambda _: _syscall(68 if X86 else 186, 4242, 0o1600),
    "memory with a descriptor": lambda _: os.close(os.memfd_create("x")),
    "a signal to process 1": lambda _: os.kill(1, 0),
    "a signal to the whole group": lambda _: os.kill(0, 0),
    "the limits of process 1": lambda _: resource.prlimit(1, resource.RLIMIT_NOFILE),
    "being root": lambda _: (os.setgid(0), os.setuid(0)),
}


def attempt(payload, tables):
    """Reply: [whether it worked, errno or None]."""
    name, argument = json.loads(payload)
    try:
        ATTEMPTS[name](argument)
    except OSError as error:
        return json.dumps([False, error.errno]).encode()
    return json.dumps([True, None]).encode()


def echo(payload, tables):
    return payload + b"".join(bytes(t) for t in tables)


def surroundings(payload, tables):
    """What a task finds around itself."""
    open_ones = []
    for fd in range(256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        open_ones.append(fd)
    return json.dumps(
        {
            "environment": sorted(os.environ),
            "descriptors": open_ones,
            "user": [*os.getresuid(), *os.getresgid()],
            "modules": sorted(m for m in sys.modules if m.startswith("paroma")),
            "here": os.listdir("."),
            "random": float(np.random.random()),
            "threads": threading.active_count(),
        }
    ).encode()


def fill_memory(payload, tables):
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def burn(payload, tables):
    while True:
        pass


def sleep(payload, tables):
    time.sleep(float(payload))
    return b"awake"


def many_threads(payload, tables):
    halt = threading.Event()
    started = 0
    try:
        while started < 5000:
            threading.Thread(target=halt.wait, daemon=True).start()
            started += 1
    except (RuntimeError, MemoryError):
        pass
    halt.set()
    return str(started).encode()


def fill_disk(payload, tables):
    written = 0
    try:
        for n in range(1000):
            with open(f"file-{n}", "wb") as file:
                file.write(bytes(1 << 20))
            written += 1
    except OSError as error:
        return json.dumps([written, error.errno]).encode()
    return json.dumps([written, None]).encode()


def bury(payload, tables):
    """Leave folders in each other, deeper than a path can be long, and one that its owner may not enter."""
    os.mkdir("closed")
    with open("closed/file", "wb") as file:
        file.write(b"x")
    os.chmod("closed", 0)
    for _ in range(3000):
        os.mkdir("in")
        os.chdir("in")
    return b"buried"


def one_large_file(payload, tables):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("large", "wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(1000))
    return b"written"


def reply_of(payload, tables):
    return bytes(int(payload))


def write_table(payload, tables):
    tables[0][0] = 1
    return b"written"


def raise_with(payload, tables):
    raise ValueError(payload.decode())


def print_much(payload, tables):
    for _ in range(10_000):
        print("x" * 100)
    return b"printed"


def abort(payload, tables):
    os.abort()


def leave(payload, tables):
    sys.exit(payload.decode())


def forge(payload, tables):
    """Write straight to every descriptor: the reply socket is one of them."""
    for fd in range(3, 64):
        try:
            os.write(fd, payload)
        except OSError:
            continue
    os._exit(0)


def converse(payload, tables, channel):
    """Answers every message with the first byte of the table, read at that moment."""
    channel.say(payload)
    while (heard := channel.listen()) != b"stop":
        channel.say(heard + bytes(tables[0][:1]))
    return b"stopped"
