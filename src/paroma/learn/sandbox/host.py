"""The outside of the sandbox: starts the zygote, hands it tasks, kills what is late, and takes replies within their
limits.

Everything that comes out of a worker is treated as written by an attacker: frames of a limited size, and an ending from
a fixed list. The reply of a task comes over a socket of its own, so that no task can speak for another. If the zygote
ends, its tasks end with it and the next task starts a new one.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paroma.learn.sandbox import cgroup
from paroma.learn.sandbox.mounts import Interpreter, command
from paroma.learn.sandbox.task import (
    Conversation,
    Ending,
    EntryUnknown,
    Finished,
    Limits,
    LimitTooHigh,
    PreloadFailed,
    Said,
    SandboxIncomplete,
    TableUnsealed,
    Task,
    WorkerFailed,
)
from paroma.learn.sandbox.walls import NAMES, Wall
from paroma.learn.sandbox.zygote import ENDED, FINISHED, FRAME, SAID

_SCRIPT: Final = Path(__file__).with_name("zygote.py")
_START_SECONDS: Final = 60.0  # a cold import of torch on a busy machine
_LEAVING_SECONDS: Final = 2.0
_NOTES: Final = 64 << 10  # bytes that a task can print
_KEPT_NOTES: Final = 20
_ZYGOTE_MEMORY: Final = 768 << 20  # bytes of the group for the preload and the scratch of all tasks
_PROCESSES: Final = 512
_SEAL_FUTURE_WRITE: Final = 0x0010  # linux/fcntl.h; not in the library
_CHUNK: Final = 1 << 18


class Sandbox:
    """Workers behind walls. Make one with `start`, or with `at_need`; belongs to the event loop in which it was made.

    The loop must run in a thread that lives as long as the sandbox: the kernel ends the workers when that thread ends.
    """

    def __init__(self, plan: "_Plan", *, at_once: int, limits: Limits, notes: Path | None) -> None:
        self._plan, self._limits, self._notes = plan, limits, notes
        self._turns = asyncio.Semaphore(at_once)
        self._numbers = itertools.count(1)
        self._starting = asyncio.Lock()
        self._zygote: _Zygote | None = None
        self._stopped = False

    @classmethod
    async def start(
        cls,
        preload: tuple[str, ...],
        *,
        interpreter: Interpreter | None = None,
        limits: Limits | None = None,
        at_once: int = 4,
        scratch: int = 256 << 20,
        notes: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "Sandbox":
        """Start the zygote and wait until its walls stand and its imports are done. As `at_need` otherwise.

        Raises SandboxIncomplete, naming the wall; PreloadFailed.
        """
        sandbox = cls.at_need(
            preload,
            interpreter=interpreter,
            limits=limits,
            at_once=at_once,
            scratch=scratch,
            notes=notes,
            environment=environment,
        )
        await sandbox._ready()  # noqa: SLF001  # of our own making
        return sandbox

    @classmethod
    def at_need(
        cls,
        preload: tuple[str, ...],
        *,
        interpreter: Interpreter | None = None,
        limits: Limits | None = None,
        at_once: int = 4,
        scratch: int = 256 << 20,
        notes: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "Sandbox":
        """A sandbox whose zygote starts with the first task, which waits for it, or raises SandboxIncomplete, PreloadFailed.

        preload: `module` (imported before the first fork) or `module:function` (that too, and an entry). limits: the
        most that a task may ask for in memory, from which the group's limit follows. at_once: tasks at the same time;
        further ones wait. scratch: bytes of the tmpfs of all tasks. notes: a folder for what failed tasks printed, the
        last few, readable by us alone. environment: settings of libraries, set inside before the imports; never a
        secret.
        """
        limits = limits or Limits()
        plan = _Plan(
            preload=preload,
            interpreter=interpreter or Interpreter.current(),
            memory=_ZYGOTE_MEMORY + scratch + at_once * limits.memory,
            scratch=scratch,
            environment=environment or {},
        )
        return cls(plan, at_once=at_once, limits=limits, notes=notes)

    async def run(self, task: Task) -> bytes:
        """Call `entry(payload, tables)` in a fork of the zygote; return its reply. Raises WorkerFailed, EntryUnknown,
        TableUnsealed, SandboxIncomplete.
        """
        async with self._turns:
            talk = await self._begin(task, talks=False)
            try:
                match await talk.listen():
                    case Finished(data):
                        return data
                    case Said():
                        raise WorkerFailed(task.entry, Ending.REPLY)
            finally:
                await talk.close()

    async def converse(self, task: Task) -> Conversation:
        """Start `entry(payload, tables, channel)` in a fork and talk to it. Close the conversation when done."""
        return await self._begin(task, talks=True)

    def walls(self) -> tuple[Wall, ...]:
        """The walls of the zygote that runs now."""
        return self._zygote.walls if self._zygote else ()

    async def stop(self) -> None:
        """End the zygote and everything in it."""
        self._stopped = True
        async with self._starting:
            if self._zygote:
                await self._zygote.end()

    async def _ready(self) -> "_Zygote":
        async with self._starting:
            if self._stopped:
                raise SandboxIncomplete("namespaces", "the sandbox was stopped")
            if self._zygote is None or self._zygote.gone:
                if self._zygote:
                    await self._zygote.end()
                zygote = await _Zygote.launch(self._plan)
                missing = next((w for w in zygote.walls if w.required and not w.there), None)
                if missing:
                    await zygote.end()
                    raise SandboxIncomplete(missing.name, missing.why)
                self._zygote = zygote
            return self._zygote

    async def _begin(self, task: Task, *, talks: bool) -> "_Talk":
        zygote = await self._ready()
        if task.entry not in zygote.entries:
            raise EntryUnknown(task.entry)
        limits = task.limits or self._limits
        if limits.memory > self._limits.memory:
            raise LimitTooHigh(limits.memory, self._limits.memory)
        if zygote.leaving:  # what they hold of the scratch is this one's too; a reply need not wait for that
            await asyncio.wait(zygote.leaving, timeout=_LEAVING_SECONDS)
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        notes = _memfd(b"", size=_NOTES)
        with contextlib.ExitStack() as closing, contextlib.ExitStack() as unless_begun:
            closing.callback(theirs.close)
            unless_begun.callback(ours.close)
            unless_begun.callback(os.close, notes)
            fds = [theirs.fileno(), notes]
            # the payload goes as memory too: what passed through the zygote could be found in it by every later fork
            for position, table in enumerate((task.payload, *task.tables)):
                fds.append(_memfd(table) if isinstance(table, bytes) else _only_read(table, position - 1))
                closing.callback(os.close, fds[-1])
            header = {
                "task": number,
                "entry": task.entry,
                "talks": talks,
                "limits": {
                    "memory": limits.memory,
                    "cpu_seconds": limits.cpu_seconds,
                    "file": limits.file,
                    "files": limits.files,
                },
            }
            ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            zygote.running[number] = ended
            talk = _Talk(task.entry, limits, number, zygote, ours, notes, ended, self._notes)
            unless_begun.pop_all()  # from here on the conversation closes them
            try:
                await zygote.send(header, fds)
            except OSError:
                await talk.close()
                raise WorkerFailed(task.entry, Ending.DIED) from None
            except asyncio.CancelledError:
                await talk.close()
                raise
        return talk


async def inspect_walls(interpreter: Interpreter | None = None) -> tuple[Wall, ...]:
    """Try every wall on this machine, start nothing behind them, and say which stand."""
    try:
        zygote = await _Zygote.launch(_Plan(interpreter=interpreter or Interpreter.current()))
    except SandboxIncomplete as missing:
        others = tuple(Wall(name, there=False, why="not reached") for name in NAMES if name != missing.wall)
        return (Wall(missing.wall, there=False, why=missing.why), *others)
    await zygote.end()
    return zygote.walls


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How a zygote is started, and started again."""

    interpreter: Interpreter
    preload: tuple[str, ...] = ()
    memory: int = _ZYGOTE_MEMORY  # bytes of the whole group
    scratch: int = 16 << 20  # bytes
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Talk:
    """One task as seen from outside."""

    entry: str
    limits: Limits
    number: int
    zygote: "_Zygote"
    end: socket.socket
    notes: int
    ended: asyncio.Future[int]
    folder: Path | None
    waited: float = 0.0  # seconds that the worker kept us waiting so far
    closed: bool = False

    async def listen(self) -> Said | Finished:
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            async with asyncio.timeout(max(0.0, self.limits.seconds - self.waited)):
                kind, data = await self._frame()
        except TimeoutError:
            raise await self._fail(Ending.LATE) from None
        except (OSError, EOFError):
            raise await self._fail(await self._why()) from None
        self.waited += loop.time() - since
        if kind == SAID:
            return Said(data)
        if kind == FINISHED:
            return Finished(data)
        endings = [*Ending]
        known = kind == ENDED and len(data) == 1 and data[0] < len(endings)
        raise await self._fail(endings[data[0]] if known else Ending.REPLY)

    async def say(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.seconds):
                await loop.sock_sendall(self.end, FRAME.pack(SAID, len(data)))
                await loop.sock_sendall(self.end, data)
        except TimeoutError:
            raise await self._fail(Ending.LATE) from None
        except OSError:
            raise await self._fail(await self._why()) from None

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.end.close()
        os.close(self.notes)
        if not self.ended.done():
            self.zygote.leaving.add(self.ended)
            self.ended.add_done_callback(self.zygote.leaving.discard)
            with contextlib.suppress(OSError):  # the zygote has gone, and the task with it
                await self.zygote.send({"kill": self.number}, [])  # also after a reply: nothing of it stays

    async def _frame(self) -> tuple[int, bytes]:
        kind, length = FRAME.unpack(await self._need(FRAME.size))
        if length > self.limits.reply:
            raise await self._fail(Ending.REPLY)
        return kind, bytes(await self._need(length))

    async def _need(self, length: int) -> bytearray:
        loop = asyncio.get_running_loop()
        got = bytearray()  # grows with what came, not with what was announced
        while len(got) < length:
            part = await loop.sock_recv(self.end, min(length - len(got), _CHUNK))
            if not part:
                raise EOFError
            got += part
        return got

    async def _why(self) -> Ending:
        """The socket has closed: ask the zygote how the task ended."""
        try:
            by = await asyncio.wait_for(asyncio.shield(self.ended), 5)
        except TimeoutError:
            return Ending.DIED  # it closed its socket and goes on
        return Ending.CPU if by == signal.SIGXCPU else Ending.DIED

    async def _fail(self, ending: Ending) -> WorkerFailed:
        if self.folder and not self.closed:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = os.pread(self.notes, _NOTES, 0).rstrip(b"\0")
            _keep(
                self.folder / f"worker-{self.number % _KEPT_NOTES:02}.txt",
                f"{self.entry}: {ending.value}\n".encode() + text,
            )
        await self.close()
        return WorkerFailed(self.entry, ending)


@dataclass(slots=True)
class _Zygote:
    """The process inside the walls, its socket, and the tasks that it runs."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    group: cgroup.Group | None
    walls: tuple[Wall, ...] = ()
    entries: frozenset[str] = frozenset()
    running: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    leaving: set[asyncio.Future[int]] = field(default_factory=set)  # tasks that are done, but not yet gone
    gone: bool = False

    @classmethod
    async def launch(cls, plan: _Plan) -> "_Zygote":
        """Start it; its walls may still be incomplete. Raises SandboxIncomplete where it did not come to life."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        info_out, info_in = os.pipe()
        errors = _memfd(b"", size=_NOTES)
        as_root = os.geteuid() == 0
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - a fork; what is slow comes after it, and is awaited
                command(
                    plan.interpreter, _SCRIPT, theirs.fileno(), as_root=as_root, scratch=plan.scratch, info=info_in
                ),
                env={},  # what bwrap is started with can be read inside, whatever it passes on
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(theirs.fileno(), info_in),
                start_new_session=True,  # Ctrl-C in a terminal is for the program, which stops us in order
            )
        except OSError as error:
            for fd in (info_out, info_in, errors):
                os.close(fd)
            ours.close()
            theirs.close()
            raise SandboxIncomplete("namespaces", f"`bwrap` does not start: {error.strerror}") from error
        os.close(info_in)
        theirs.close()
        zygote = cls(process, ours, None)
        try:
            async with asyncio.timeout(_START_SECONDS):
                pid = await _child(info_out)
                made = cgroup.create(process.pid, memory=plan.memory, processes=_PROCESSES)
                why = made if isinstance(made, str) else f"{plan.memory >> 20} MiB, {_PROCESSES} processes"
                if isinstance(made, cgroup.Group):
                    zygote.group = made
                    try:
                        made.take_in(pid)
                    except OSError as error:
                        made.remove()
                        zygote.group, why = None, f"the worker cannot be put into a group: {error.strerror}"
                setup = {
                    "imports": plan.interpreter.imports,
                    "read": plan.interpreter.readable,
                    "preload": plan.preload,
                    "environment": dict(plan.environment),
                }
                await loop.sock_sendall(ours, json.dumps(setup).encode())
                hello = json.loads(await loop.sock_recv(ours, _CHUNK) or b"{}")
        except (TimeoutError, OSError, ValueError):
            hello = {}
        except asyncio.CancelledError:
            await zygote.end()
            raise
        finally:
            os.close(info_out)
            text = os.pread(errors, _NOTES, 0).rstrip(b"\0").decode("utf-8", "replace").strip()
            os.close(errors)
        if not hello:
            await zygote.end()
            if "Traceback" in text:
                raise PreloadFailed(text.rsplit("\n", 1)[-1])
            raise SandboxIncomplete("namespaces", text or "the worker did not come to life in time")
        zygote.walls = (
            *_judge(hello["facts"], as_root=as_root),
            *(Wall(*w) for w in hello["walls"]),
            Wall("cgroup", zygote.group is not None, why, required=False),
        )
        zygote.entries = frozenset(hello["entries"])
        loop.add_reader(ours, zygote._hear)
        return zygote

    def _hear(self) -> None:
        """The zygote says which task has ended, or has gone itself."""
        try:
            data = self.channel.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        said = json.loads(data)
        future = self.running.pop(said["ended"], None)
        if future and not future.done():
            future.set_result(said["signal"])

    def _lost(self) -> None:
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().remove_reader(self.channel)
            for future in self.running.values():
                if not future.done():
                    future.set_result(signal.SIGKILL)
            self.running.clear()

    async def send(self, header: dict[str, Any], fds: list[int]) -> None:
        """Send one datagram. Raises OSError when the zygote has gone."""
        data = json.dumps(header).encode()
        for _ in range(2000):
            if self.gone:
                break
            try:
                socket.send_fds(self.channel, [data], fds)
            except BlockingIOError:
                await asyncio.sleep(0.005)  # its queue is full: it forks, or removes a folder
            else:
                return
        raise BrokenPipeError

    async def end(self) -> None:
        """Kill it, wait for it, and remove its group."""
        self._lost()
        self.process.kill()  # bwrap; the kernel ends its child with it, and with that, process 1, all the others
        self.channel.close()
        for _ in range(1000):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.002)
        if self.group:
            for _ in range(100):
                self.group.remove()
                if not any(f.exists() for f in self.group.folders):
                    break
                await asyncio.sleep(0.005)


def _judge(facts: dict[str, Any], *, as_root: bool) -> tuple[Wall, ...]:
    """Compare what the zygote saw of itself with what we are."""
    same = [
        n
        for n, name in facts["namespaces"].items()
        if name == str(Path(f"/proc/self/ns/{n}").readlink()) and not (as_root and n == "user")
    ]
    users = " ".join(facts["users"])
    return (
        Wall(
            "namespaces",
            not same and facts["pid"] == 1,
            f"shared with us: {', '.join(same)}" if same else "mnt, pid, net, ipc, uts" + ("" if as_root else ", user"),
        ),
        Wall(
            "identity",
            users == "65534",
            f"runs as {users}" + ("" if as_root else f" (outside {os.geteuid()}, in a user namespace)"),
        ),
        Wall("capabilities", not facts["capabilities"], facts["capabilities"] or "none"),
    )


async def _child(info: int) -> int:
    """The pid of the process that bwrap started, from its --info-fd."""
    loop = asyncio.get_running_loop()
    text = b""
    while True:
        ready = asyncio.Event()
        loop.add_reader(info, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(info)
        part = os.read(info, 4096)
        text += part
        if not part or b"}" in text:
            return int(json.loads(text)["child-pid"])


def _memfd(data: bytes, *, size: int = 0) -> int:
    """Memory with a descriptor. With data: sealed, nobody can change it. With a size: it can be written, but never
    grow.
    """
    descriptor = os.memfd_create("paroma", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if size:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    else:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    return descriptor


def _only_read(table: int, position: int) -> int:
    """Our memfd for reading only. A mode would not do: through /proc the worker could open it again for writing, a
    seal holds.
    """
    try:
        seals = fcntl.fcntl(table, fcntl.F_GET_SEALS)
    except OSError:
        raise TableUnsealed(position) from None  # not a memfd
    if not seals & fcntl.F_SEAL_SHRINK or not seals & (fcntl.F_SEAL_WRITE | _SEAL_FUTURE_WRITE):
        raise TableUnsealed(position)
    return os.open(f"/proc/self/fd/{table}", os.O_RDONLY | os.O_CLOEXEC)


def _keep(path: Path, text: bytes) -> None:
    """What a failed task printed may be records: readable by us alone, never sent."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - by descriptor, for its mode
        file.write(text)
