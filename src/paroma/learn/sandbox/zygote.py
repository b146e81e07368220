"""The program inside the walls: started once, it forks for every task.

Run as a script by `host`, as process 1 of its own namespaces, with one socket and nothing in its environment. In this
order: stop being root, limit itself, shut files and system calls, and only then import what the tasks need. A fork
closes the socket, puts a second pair of walls around itself (its private folder, no further process) and calls the
entry. Nothing of it stays. Any wall that cannot be built is reported, and the program ends.
"""

import contextlib
import ctypes
import gc
import io
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

NOBODY = 65534
CHANNEL = 3  # the descriptor of the socket to the host
FRAME = struct.Struct("<BQ")  # what it is, how many bytes follow
SAID, FINISHED, ENDED = 1, 2, 3
FOLDER = "/tmp"  # noqa: S108 - a private tmpfs
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ARROW_IO_THREADS",
)
_ZYGOTE_FILES, _ZYGOTE_PROCESSES = 1024, 1024
_MOST_FDS = 64


def drop_root() -> None:
    """Become nobody for good. Does nothing when we already are somebody without rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing the user clears it
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # one task cannot look into another through /proc


def facts() -> dict[str, Any]:
    """What the kernel says of this process: identities, capabilities, namespaces."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - pathlib would be the slowest import here
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    return {
        "users": sorted({*fields["Uid"].split(), *fields["Gid"].split()}),
        "capabilities": fields["CapEff"].strip().strip("0") or fields["CapPrm"].strip().strip("0"),
        "seccomp": fields.get("Seccomp", "").strip(),
        "pid": os.getpid(),
        "namespaces": {n: os.readlink(f"/proc/self/ns/{n}") for n in ("user", "mnt", "pid", "net", "ipc", "uts")},  # noqa: PTH115 - the same
    }


def build_walls(read: list[str]) -> list[tuple[str, bool, str]]:
    """Put up what a process can put up by itself. Returns (wall, whether it stands, what the kernel said)."""
    from paroma.learn.sandbox import landlock, seccomp

    walls: list[tuple[str, bool, str]] = []
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would be records on a disk
        resource.setrlimit(resource.RLIMIT_NPROC, (_ZYGOTE_PROCESSES, _ZYGOTE_PROCESSES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_ZYGOTE_FILES, _ZYGOTE_FILES))
        walls.append(("rlimits", True, "cores, processes, files here; memory, time and file size in each task"))
    except (OSError, ValueError) as error:
        walls.append(("rlimits", False, str(error)))
    try:
        abi = landlock.restrict(read=[*read, "/proc", "/dev/urandom"], write=[FOLDER, "/dev/null"])
        walls.append(("landlock", True, f"version {abi} of the interface"))
    except OSError as error:
        walls.append(("landlock", False, str(error)))
    try:
        seccomp.load(seccomp.for_zygote(platform.machine()))
        walls.append(("seccomp", True, f"filter for {platform.machine()}"))
    except OSError as error:
        walls.append(("seccomp", False, str(error)))
    except KeyError:
        walls.append(("seccomp", False, f"no table of system calls for {platform.machine()}"))
    return walls


class Notes(io.RawIOBase):
    """Standard output and error: a memory of a fixed size. What no longer fits is dropped, and nobody who prints
    fails.
    """

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any, /) -> int:
        """All of it, or what fits."""
        with contextlib.suppress(OSError):  # full: the seal of the memory says so
            os.write(2, data)
        return len(data)


class Pipe:
    """The worker's end of a task: frames out, frames in (see `task.Channel`)."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def frame(self, kind: int, data: bytes) -> None:
        """Send one frame."""
        self._end.sendall(FRAME.pack(kind, len(data)))
        self._end.sendall(data)

    def say(self, data: bytes) -> None:
        """Send one message out."""
        self.frame(SAID, data)

    def listen(self) -> bytes:
        """Wait for the answer."""
        _, length = FRAME.unpack(self._need(FRAME.size))
        return self._need(length)

    def _need(self, length: int) -> bytes:
        got = bytearray(length)
        view = memoryview(got)
        while view:
            n = self._end.recv_into(view)
            if n == 0:
                raise EOFError
            view = view[n:]
        return bytes(got)


def limit_task(limits: dict[str, int], shared: int) -> None:
    """The limits of one fork. shared: bytes of the tables, which are mapped beside what it may allocate."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - as above
        have = int(statm.read().split()[0]) * resource.getpagesize()
    space = have + shared + limits["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file"], limits["file"]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits["files"], limits["files"]))


def mapped(descriptor: int) -> memoryview:
    """A table as memory that can only be read, shared with whoever else has it: live consent bits change under us."""
    size = os.fstat(descriptor).st_size
    return memoryview(mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)) if size else memoryview(b"")


def work(header: dict[str, Any], fds: list[int], entries: dict[str, Any], read: list[str]) -> NoReturn:
    """The life of a fork. Never returns; what goes out is one frame, or several in a conversation."""
    from paroma.learn.sandbox import landlock, seccomp
    from paroma.learn.sandbox.task import ContractBroken, Ending

    reply, notes, *tables = fds
    os.dup2(notes, 1)
    os.dup2(notes, 2)
    os.close(notes)
    pipe = Pipe(socket.socket(fileno=reply))
    endings = [*Ending]
    try:
        folder = f"{FOLDER}/{header['task']}"
        os.chdir(folder)
        views = [mapped(t) for t in tables]
        for t in tables:
            os.close(t)
        payload = bytes(views.pop(0))
        limit_task(header["limits"], sum(len(v) for v in views))
        landlock.restrict(read=[*read, "/dev/urandom"], write=[folder, "/dev/null"])
        seccomp.load(seccomp.for_task(platform.machine(), os.getpid()))
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        if "tempfile" in sys.modules:
            vars(sys.modules["tempfile"])["tempdir"] = None  # else it remembers the zygote's
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # else every fork would draw the same numbers
        arguments = (payload, views, pipe) if header["talks"] else (payload, views)
        answer = entries[header["entry"]](*arguments)
        pipe.frame(FINISHED, answer)
    except ContractBroken:
        traceback.print_exc()
        pipe.frame(ENDED, bytes([endings.index(Ending.CONTRACT)]))
    except MemoryError:
        traceback.print_exc()
        pipe.frame(ENDED, bytes([endings.index(Ending.MEMORY)]))
    except BaseException:  # noqa: BLE001 - this is where a task ends, SystemExit and all
        traceback.print_exc()
        pipe.frame(ENDED, bytes([endings.index(Ending.RAISED)]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def clear(folder: str) -> None:
    """Remove a folder of a task that has ended, however deep it is and whatever its modes.

    Step by step instead of by recursion or by path: ten thousand folders in each other would break both.
    """
    path: list[str] = []
    waiting = [_files_away(folder)]
    while waiting:
        if waiting[-1]:
            path.append(waiting[-1].pop())
            waiting.append(_files_away(path[-1]))
        else:
            waiting.pop()
            os.chdir("..")
            os.rmdir(path.pop() if path else folder)  # noqa: PTH106 - as above


def _files_away(folder: str) -> list[str]:
    """Go into a folder, remove its files, and name its folders. There are no links: no task can make one."""
    os.chmod(folder, 0o700)  # noqa: PTH101 - as above
    os.chdir(folder)
    with os.scandir() as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name)  # noqa: PTH108 - as above
    return [name for name, is_folder in found if is_folder]


class Zygote:
    """Waits for tasks, forks, reaps."""

    def __init__(self, channel: socket.socket, entries: dict[str, Any], read: list[str]) -> None:
        self._channel, self._entries, self._read = channel, entries, read
        self._running: dict[int, int] = {}  # pid: task
        self._bell, self._ring = socket.socketpair()
        self._ring.setblocking(False)
        self._bell.setblocking(False)

    def serve(self) -> None:
        """Until the host closes the channel."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it interrupts the poll
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._bell.fileno():
                    self._bell.recv(4096)
                elif not self._take():
                    return
            self._reap()

    def _take(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._channel, 1 << 18, _MOST_FDS)
        if not data:
            return False
        header = json.loads(data)
        if "kill" in header:
            for pid, task in self._running.items():
                if task == header["kill"]:
                    os.kill(pid, signal.SIGKILL)
            return True
        os.mkdir(f"{FOLDER}/{header['task']}", 0o700)  # noqa: PTH102 - as above
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._channel, self._bell, self._ring):
                end.close()
            work(header, list(fds), self._entries, self._read)
        for fd in fds:
            os.close(fd)
        self._running[pid] = header["task"]
        return True

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            task = self._running.pop(pid)
            clear(f"{FOLDER}/{task}")  # an error ends the zygote: nothing may wait there for the next task
            self._channel.sendall(
                _packed({"ended": task, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0})
            )


def _packed(header: dict[str, Any]) -> bytes:
    return json.dumps(header).encode()


def main() -> None:
    """Start: the only argument is the descriptor of the socket."""
    given = int(sys.argv[1])
    drop_root()
    if given != CHANNEL:
        os.dup2(given, CHANNEL)
    os.closerange(CHANNEL + 1, 4096)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(Notes()), "utf-8", "replace", line_buffering=True)
    channel = socket.socket(fileno=CHANNEL)
    setup = json.loads(channel.recv(1 << 18))
    for name in _ONE_THREAD:
        os.environ[name] = "1"  # threads do not survive a fork
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own reserves 1 GiB of address space at the first array
    os.environ.update(setup["environment"])
    sys.dont_write_bytecode = True
    sys.path[:] = [*sys.path[1:], *setup["imports"]]  # without the folder of this script
    before = facts()
    walls = build_walls(setup["read"])
    if all(stands for _, stands, _ in walls):
        import paroma.learn.sandbox.task  # noqa: F401 - every fork needs it, and a fork should import nothing
        from paroma.learn.sandbox.entries import load

        entries = load(setup["preload"])
        gc.collect()
        gc.freeze()  # so that counting references in a fork copies no page of the preload
        channel.sendall(
            _packed({"facts": before | {"seccomp": facts()["seccomp"]}, "walls": walls, "entries": sorted(entries)})
        )
        Zygote(channel, entries, setup["read"]).serve()
    else:
        channel.sendall(_packed({"facts": before, "walls": walls, "entries": []}))


if __name__ == "__main__":
    main()
