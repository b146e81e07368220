"""Run by tests in a process of its own: `walls CALL...` lists the walls when those system calls are forbidden,
`inside` and `outside` try all attempts with and without walls.
"""

import asyncio
import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def forbid(numbers):
    """Make some system calls fail, as an older kernel or a stricter machine would."""
    from paroma.learn.sandbox import seccomp

    program = [(0x20, 0, 0, 0)]
    for number in numbers:
        program += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 1)]
    seccomp.load([*program, (0x06, 0, 0, 0x7FFF0000)])


async def walls():
    from paroma.learn.sandbox.host import Sandbox, inspect_walls
    from paroma.learn.sandbox.task import SandboxIncomplete

    found = {w.name: [w.there, w.why] for w in await inspect_walls()}
    try:
        await (await Sandbox.start(())).stop()
        refused = None
    except SandboxIncomplete as missing:
        refused = missing.wall
    return {"walls": found, "refused": refused}


async def inside(port):
    from attacks import ATTEMPTS

    from paroma.learn.sandbox.host import Sandbox
    from paroma.learn.sandbox.mounts import Interpreter
    from paroma.learn.sandbox.task import Task

    sandbox = await Sandbox.start(
        ("attacks:attempt", "attacks:surroundings"), interpreter=Interpreter.current(also=(HERE,))
    )
    try:
        results = {}
        for name in ATTEMPTS:
            reply = await sandbox.run(Task(entry="attacks:attempt", payload=json.dumps([name, port]).encode()))
            results[name] = json.loads(reply)
        around = json.loads(await sandbox.run(Task(entry="attacks:surroundings", payload=b"")))
        return {
            "results": results,
            "around": around,
            "walls": {w.name: w.there for w in sandbox.walls()},
            "user": os.geteuid(),
        }
    finally:
        await sandbox.stop()


def outside(port, folder, without):
    """Every attempt in a fork of this process, which has no walls."""
    from attacks import ATTEMPTS, attempt

    results = {}
    for name in ATTEMPTS:
        if name in without:
            continue
        readable, writable = os.pipe()
        if os.fork() == 0:
            os.setpgid(0, 0)
            os.write(writable, attempt(json.dumps([name, port if "port" in name else folder]).encode(), []))
            os._exit(0)
        os.wait()
        os.close(writable)
        results[name] = json.loads(os.read(readable, 999) or "null")
        os.close(readable)
    return results


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["walls", *numbers]:
            forbid([int(n) for n in numbers])
            print(json.dumps(asyncio.run(walls())))
        case ["inside", port]:
            print(json.dumps(asyncio.run(inside(port))))
        case ["outside", port, folder, without]:
            print(json.dumps(outside(port, folder, json.loads(without))))
        case _:
            sys.exit(f"what on {platform.machine()}?")
