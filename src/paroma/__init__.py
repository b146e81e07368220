"""Hospitals compute together: no record leaves, every consent is live, every use is in a log nobody can rewrite."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paroma.sdk.connection import Connection, connect
    from paroma.sdk.results import Logistic, Performance, Statistics

__version__ = "0.1.0"
__all__ = ["Connection", "Logistic", "Performance", "Statistics", "connect"]


def __getattr__(name: str) -> object:
    """`paroma.connect` and what it hands out, loaded when first asked for: a site never loads them."""
    if name in {"connect", "Connection"}:
        from paroma.sdk import connection

        return getattr(connection, name)
    if name in __all__:
        from paroma.sdk import results

        return getattr(results, name)
    raise AttributeError(f"module `paroma` has no attribute `{name}`")
