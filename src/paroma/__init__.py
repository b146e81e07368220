"""Hospitals compute together: no record leaves, every consent is live, every use is in a log nobody can rewrite."""

from typing import TYPE_CHECKING

from paroma.kernel.release import VERSION

if TYPE_CHECKING:
    from paroma.sdk.connection import Connection, connect

__version__ = VERSION
__all__ = ["Connection", "connect"]


def __getattr__(name: str) -> object:
    """`paroma.connect`, loaded when first asked for: a site never loads it."""
    if name in __all__:
        from paroma.sdk import connection

        return getattr(connection, name)
    raise AttributeError(f"module `paroma` has no attribute `{name}`")
