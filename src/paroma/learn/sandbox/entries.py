"""Entries by name: the only place of the platform where a module is loaded because a text says so.

The texts come from the program's own preload list, never from a message.
"""

import importlib
from collections.abc import Callable, Iterable
from typing import Any, cast

Entry = Callable[..., bytes]


def load(preload: Iterable[str]) -> dict[str, Entry]:
    """Import every name of the list, and return those of the form `module:function` with what they name.

    Raises ImportError, AttributeError: a preload list is part of the program, so that is a defect of the program.
    """
    entries: dict[str, Entry] = {}
    for name in preload:
        module, _, function = name.partition(":")
        loaded: Any = importlib.import_module(module)  # noqa: TID251 - the one place
        if function:
            entries[name] = cast("Entry", getattr(loaded, function))
    return entries
