"""seccomp: which system calls a process may make. Our own filter, so that no libseccomp is needed.

A network namespace does not stop AF_VSOCK or AF_NETLINK, and io_uring goes around a filter on `socket`: both are shut
here. Two filters, the second on top of the first: `for_zygote` for the whole sandbox, `for_task` for each fork (no new
process, no socket with a name, no signal to anybody else). What is newer than the table is answered as unknown. Source:
the kernel's `Documentation/userspace-api/seccomp_filter.rst`; numbers from `asm/unistd_64.h` and `asm-generic/unistd.h`
of Linux 6.1.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from typing import Final

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; each argument is 8 bytes, the low half first
_X32: Final = 0x40000000
_NEWEST: Final = 451  # the last call that the tables below were checked against
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_THREAD: Final = 0x00010000  # CLONE_THREAD
_AF_UNIX: Final = 1
_SET_MODE_FILTER, _TSYNC = 1, 1
_PR_SET_NO_NEW_PRIVS = 38

# name: (x86-64, arm64); None where the architecture has no such call.
_FORBIDDEN: Final[dict[str, tuple[int | None, int | None]]] = {
    # looking into, or steering, another process
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    # another program, another namespace, other mounts
    "execve": (59, 221),
    "execveat": (322, 281),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "mknod": (133, None),
    "mknodat": (259, 33),
    # the kernel's larger attack surfaces
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "clock_settime": (227, 112),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    # System V and POSIX queues, semaphores and memory: a way from one task to another
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
_CLONE, _CLONE3, _FORK, _VFORK = (56, 220), (435, 435), (57, None), (58, None)
_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_KILL_CALL, _TGKILL = (62, 129), (234, 131)
_PRLIMIT, _MEMFD, _MEMFD_SECRET = (302, 261), (319, 279), (447, 447)
_SECCOMP = (317, 277)
_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

Instructions = list[tuple[int, int, int, int]]  # struct sock_filter: code, jump if true, jump if false, k

_libc = ctypes.CDLL(None, use_errno=True)


def for_zygote(machine: str) -> Instructions:
    """The filter of the whole sandbox. Raises KeyError for a machine without a table."""
    column, arch = _MACHINES[machine]
    program = _head(arch, machine)
    for numbers in _FORBIDDEN.values():
        program += _when(numbers[column], [_error(errno.EPERM)])
    # glibc asks for clone3 first and falls back to clone, whose flags a filter can read
    program += _when(_CLONE3[column], [_error(errno.ENOSYS)])
    program += _when(_CLONE[column], _if_any_bit(_NEW_NAMESPACES, _error(errno.EPERM), _allow()))
    for numbers in (_SOCKET, _SOCKETPAIR):
        program += _when(numbers[column], _if_equal(0, [_AF_UNIX], _allow(), _error(errno.EAFNOSUPPORT)))
    return [*program, _allow()]


def for_task(machine: str, pid: int) -> Instructions:
    """The filter on top for one fork: threads but no process, socket pairs but no socket, signals and limits for itself
    alone.

    memfd_create goes too: its pages are bound by no limit of a process where there is no memory cgroup.
    """
    column, arch = _MACHINES[machine]
    program = _head(arch, machine)
    for numbers in (_FORK, _VFORK, _SOCKET, _MEMFD, _MEMFD_SECRET):
        program += _when(numbers[column], [_error(errno.EPERM)])
    program += _when(_CLONE[column], _if_any_bit(_THREAD, _allow(), _error(errno.EPERM)))
    for numbers in (_KILL_CALL, _TGKILL):
        program += _when(numbers[column], _if_equal(0, [pid], _allow(), _error(errno.EPERM)))
    program += _when(_PRLIMIT[column], _if_equal(0, [0, pid], _allow(), _error(errno.EPERM)))
    return [*program, _allow()]


def load(program: Instructions) -> None:
    """Put the filter on this process, all its threads and all that it starts, for good. Raises OSError."""
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    filters = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(filters))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _raise()
    number = _SECCOMP[_MACHINES[platform.machine()][0]]
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_TSYNC), fprog) != 0:
        _raise()


def _raise() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def _head(arch: int, machine: str) -> Instructions:
    program: Instructions = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        program += [(_ANY_BIT, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]  # the same calls under other numbers
    return [*program, (_GREATER, 0, 1, _NEWEST), _error(errno.ENOSYS)]


def _when(number: int | None, block: Instructions) -> Instructions:
    """If the call is `number`, go through `block`, which always returns."""
    return [] if number is None else [(_EQUAL, 0, len(block), number), *block]


def _if_equal(
    argument: int, values: Iterable[int], yes: tuple[int, int, int, int], no: tuple[int, int, int, int]
) -> Instructions:
    """The low half is enough: these arguments are C ints, of which the kernel itself drops the high half."""
    block: Instructions = [(_LOAD, 0, 0, _ARGUMENT + 8 * argument)]
    for value in values:
        block += [(_EQUAL, 0, 1, value), yes]
    return [*block, no]


def _if_any_bit(bits: int, yes: tuple[int, int, int, int], no: tuple[int, int, int, int]) -> Instructions:
    return [(_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 0, 1, bits), yes, no]


def _allow() -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ALLOW)


def _error(code: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | code)
