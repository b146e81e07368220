"""Typer imports names that click 8.2 and later call deprecated; nothing of ours can change that."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer  # noqa: F401
