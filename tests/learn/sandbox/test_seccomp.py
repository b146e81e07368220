"""The filters, run by an interpreter of our own: the only way to try the table of the architecture that this machine is not."""

import errno

import pytest

from paroma.learn.sandbox import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(program, *, arch, number, arguments=()):
    """What the kernel would do with this call: classic BPF with the six instructions that the filters use."""
    data = (
        number.to_bytes(4, "little")
        + arch.to_bytes(4, "little")
        + bytes(8)
        + b"".join(a.to_bytes(8, "little") for a in arguments)
    )
    data = data.ljust(64, b"\0")
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x15:
                at += yes if accumulator == k else no
            case 0x25:
                at += yes if accumulator > k else no
            case 0x45:
                at += yes if accumulator & k else no
            case 0x06:
                return k


def refused(code):
    return 0x00050000 | code


@pytest.mark.parametrize("machine", ARCHES)
def test_every_forbidden_call_is_refused_and_reading_is_not(machine):
    program, arch = seccomp.for_zygote(machine), ARCHES[machine]
    column = list(ARCHES).index(machine)
    for name, numbers in seccomp._FORBIDDEN.items():
        if numbers[column] is not None:
            assert answer(program, arch=arch, number=numbers[column]) == refused(errno.EPERM), name
    read, futex, mmap = {"x86_64": (0, 202, 9), "aarch64": (63, 98, 222)}[machine]
    for number in (read, futex, mmap):
        assert answer(program, arch=arch, number=number) == ALLOW


@pytest.mark.parametrize("machine", ARCHES)
def test_sockets_are_only_those_of_this_machine(machine):
    program, arch = seccomp.for_zygote(machine), ARCHES[machine]
    column = list(ARCHES).index(machine)
    for family in range(46):
        for numbers in (seccomp._SOCKET, seccomp._SOCKETPAIR):
            expected = ALLOW if family == 1 else refused(errno.EAFNOSUPPORT)
            assert answer(program, arch=arch, number=numbers[column], arguments=(family,)) == expected


@pytest.mark.parametrize("machine", ARCHES)
def test_a_thread_starts_and_a_process_or_a_namespace_does_not(machine):
    arch, column = ARCHES[machine], list(ARCHES).index(machine)
    zygote, task = seccomp.for_zygote(machine), seccomp.for_task(machine, 77)
    clone, clone3 = seccomp._CLONE[column], seccomp._CLONE3[column]
    thread, process, user = 0x003D0F00, 0x01200011, 0x10000011
    assert answer(zygote, arch=arch, number=clone, arguments=(process,)) == ALLOW
    assert answer(zygote, arch=arch, number=clone, arguments=(user,)) == refused(errno.EPERM)
    assert answer(zygote, arch=arch, number=clone3) == refused(errno.ENOSYS)
    assert answer(task, arch=arch, number=clone, arguments=(thread,)) == ALLOW
    assert answer(task, arch=arch, number=clone, arguments=(process,)) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", ARCHES)
def test_a_task_signals_itself_alone(machine):
    arch, column = ARCHES[machine], list(ARCHES).index(machine)
    task = seccomp.for_task(machine, 77)
    for numbers in (seccomp._KILL_CALL, seccomp._TGKILL):
        assert answer(task, arch=arch, number=numbers[column], arguments=(77,)) == ALLOW
        for other in (0, 1, 78, 2**32 - 1):
            assert answer(task, arch=arch, number=numbers[column], arguments=(other,)) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", ARCHES)
def test_calls_of_another_architecture_kill_and_newer_ones_are_unknown(machine):
    other = next(a for m, a in ARCHES.items() if m != machine)
    for program in (seccomp.for_zygote(machine), seccomp.for_task(machine, 77)):
        assert answer(program, arch=other, number=0) == KILL
        assert answer(program, arch=0x40000003, number=0) == KILL
        assert answer(program, arch=ARCHES[machine], number=452) == refused(errno.ENOSYS)
    if machine == "x86_64":
        assert answer(seccomp.for_zygote(machine), arch=ARCHES[machine], number=0x40000000 | 41) == KILL


def test_a_machine_without_a_table_has_no_filter():
    with pytest.raises(KeyError):
        seccomp.for_zygote("riscv64")
