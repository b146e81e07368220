"""A memory and process group around a sandbox, where this machine lets us make one.

A second wall behind the limits of each process: it also counts shared pages. Both versions of the kernel's interface
are known; a machine may have the controllers under either. Where it cannot be made, that is a fact for the policy, not
an error.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_NAME = "paroma-worker"


@dataclass(frozen=True, slots=True)
class Group:
    """Folders in the control group tree, one for version 2, one for each controller for version 1."""

    folders: tuple[Path, ...]

    def take_in(self, pid: int) -> None:
        """Put a process into the group; what it starts later is in it too. Raises OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def remove(self) -> None:
        """Remove the group when its processes have gone. A group that cannot be removed holds nothing."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def create(number: int, *, memory: int, processes: int) -> Group | str:
    """A group with at most `memory` bytes and `processes` processes, or a sentence that says why there is none."""
    made: list[Path] = []
    try:
        for parent, limits in _places(memory, processes):
            _tidy(parent)
            folder = parent / f"{_NAME}-{os.getpid()}-{number}"
            folder.mkdir()
            made.append(folder)
            for name, value in limits.items():
                (folder / name).write_text(str(value), encoding="ascii")
    except (OSError, LookupError) as error:
        Group(tuple(made)).remove()
        return f"no memory group can be made here ({error})"
    return Group(tuple(made))


def _tidy(parent: Path) -> None:
    """Remove the groups of programs that were killed before they could."""
    for old in parent.glob(f"{_NAME}-*"):
        if not Path(f"/proc/{old.name.split('-')[2]}").exists():
            with contextlib.suppress(OSError):
                old.rmdir()


def _places(memory: int, processes: int) -> list[tuple[Path, dict[str, int]]]:
    mounts = _mounts()
    own = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path.lstrip("/")
    if "memory" in mounts and "pids" in mounts:  # version 1
        return [
            (mounts["memory"] / own["memory"], {"memory.limit_in_bytes": memory}),
            (mounts["pids"] / own["pids"], {"pids.max": processes}),
        ]
    if "" not in mounts:
        raise LookupError("no control groups are mounted")
    return [(mounts[""] / own[""], {"memory.max": memory, "pids.max": processes})]


def _mounts() -> dict[str, Path]:
    """Where each controller is mounted; the empty name is version 2."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        place = Path(left.split(" ")[4])
        if kind == "cgroup2":
            found[""] = place
        elif kind == "cgroup":
            for option in options.split(" ")[-1].split(","):
                found[option] = place
    return found
