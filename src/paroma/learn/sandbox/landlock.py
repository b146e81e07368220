"""Landlock: which files a process may touch, by three system calls.

Stackable: a second ruleset can only take away. Used twice: by the zygote for itself, and by every fork for its own
private folder. Source: the kernel's `Documentation/userspace-api/landlock.rst`; numbers are the same on x86-64 and
arm64.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GIVE_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << i for i in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_FILES_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights each version of the interface knows
_READ = _READ_FILE | _READ_DIR
_WRITE = (
    _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
)  # no links, sockets, devices
_ONLY_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_NET = 0b11  # bind and connect TCP, from version 4
_SCOPES = 0b11  # abstract sockets and signals, from version 6

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    as_long = [a if a is None or isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *as_long))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def version() -> int:
    """The version of the interface that this kernel speaks, at least 1. Raises OSError where there is none."""
    return _call(_CREATE_RULESET, None, 0, _GIVE_VERSION)


def restrict(*, read: Iterable[str], write: Iterable[str]) -> int:
    """From here on this process and its children can only read beneath `read`, and also write beneath `write`.

    Paths that do not exist are left out. Executing is allowed nowhere. Only the calling thread and what it starts are
    bound, so call it while there is one thread. Returns the version of the interface. Raises OSError.
    """
    abi = version()
    rights = (1 << _FILES_OF_ABI.get(abi, 16)) - 1
    attributes = struct.pack("<QQQ", rights, _NET if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    ruleset = _call(_CREATE_RULESET, attributes, 8 if abi < 4 else 16 if abi < 6 else 24, 0)
    try:
        for paths, wanted in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow(ruleset, path, wanted & rights)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            rights &= _ONLY_FILES  # the kernel refuses rights of folders on a file
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("<Qi", rights, folder), 0)
    finally:
        os.close(folder)
