"""Plays the demo: the scenes in order, or one with what it needs; a line each; a table; then it waits or ends.

Start here: `play`. In a terminal the federation runs on until Ctrl-C; with `CI` set, or without a terminal, everything
stops at the end. Whatever happens, every process is stopped.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from paroma.kernel.errors import ParomaError
from paroma.lab.demo import federation
from paroma.lab.demo.addresses import addresses, look
from paroma.lab.demo.show import Held, Screen
from paroma.lab.demo.story import SCENES, Stage
from paroma.lab.four.serve import serve
from paroma.lab.processes import Programs, free_port

MOST_SECONDS: Final = 180.0


def play(scene: int | None = None, *, json: bool = False) -> bool:
    """Play every scene, or `scene` with what it needs first. True if all held. json: print one object instead of lines."""
    signal.signal(signal.SIGTERM, _interrupt)  # whoever ends us by a signal also ends what we started
    screen = Screen(quiet=json)
    folder = federation.new_folder()
    with Programs() as programs:
        stage = Stage(folder, programs, screen)
        try:
            held = _play(stage, scene, screen)
            sound = all(one.held for one in held)
            if json:
                _print_json(held, folder)
            elif sound:
                _end(stage, held, screen)
            else:
                screen.say(f"  the logs of all five lie in {folder / 'logs'}")
        except KeyboardInterrupt:
            screen.say("\n  stopping")
            return False
        finally:
            stage.close()
    return sound


def _play(stage: Stage, scene: int | None, screen: Screen) -> list[Held]:
    wanted = range(1, len(SCENES) + 1) if scene is None else (scene,)
    order = sorted({*wanted, *(needed for one in wanted for needed in SCENES[one - 1][2])})
    screen.say(f"Paroma: one study, four hospitals, on this machine ({stage.folder})")
    held: list[Held] = []
    for number in order:
        stage.screen = screen if number in wanted else Screen(quiet=True)
        one = _one(stage, number)
        if number in wanted or not one.held:
            screen.scene(one)
            held.append(one)
        if not one.held:
            break
    return held


def _one(stage: Stage, number: int) -> Held:
    title, scene, _ = SCENES[number - 1]
    began = time.monotonic()
    try:
        sentence, sound = scene(stage), True
    except ParomaError as problem:
        sentence, sound = f"{title} FAILED: {problem.message}; {problem.do}", False
    return Held(scene=number, title=title, sentence=sentence, held=sound, seconds=time.monotonic() - began)


def _end(stage: Stage, held: Sequence[Held], screen: Screen) -> None:
    screen.summary(held)
    stays = sys.stdout.isatty() and sys.stdin.isatty() and not os.environ.get("CI")
    if not stays:
        return
    running, port = stage.all(), free_port()

    def ready() -> None:
        screen.say("")
        for what, where in addresses(running, f"http://127.0.0.1:{port}/"):
            screen.say(f"  {what:<42} {where}")
        screen.say("\n  The federation runs until Ctrl-C.")

    serve(look(running), port, ready=ready)
    screen.say("\n  stopping")


def _print_json(held: Sequence[Held], folder: os.PathLike[str]) -> None:
    said = {"scenes": held, "held": all(one.held for one in held), "seconds": sum(one.seconds for one in held)}
    print(msgspec.json.encode(said | {"folder": os.fspath(folder)}).decode())


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
