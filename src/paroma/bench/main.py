"""`run`: one bench, its rows on stdout, its progress on stderr, its verdict as exit code."""

import sys

import msgspec

from paroma.bench import benches
from paroma.bench.rows import Row


def run(name: str, json: bool) -> int:
    """Print the rows of a bench; 0 only if there are rows and all hold. Raises BenchUnknown, ParomaError."""
    rows = benches.run(name, say=_say)
    if json:
        sys.stdout.write(msgspec.json.encode({"bench": name, "rows": rows}).decode() + "\n")
    else:
        for row in rows:
            sys.stdout.write(line(row) + "\n")
    return 0 if rows and all(row.holds for row in rows) else 1


def line(row: Row) -> str:
    """A row for people."""
    value = "-" if row.value is None else f"{row.value:.4g}"
    beside = "" if row.against_value is None else f", {row.against}: {row.against_value:.4g}"
    ratio = "" if row.ratio is None else f" (ratio {row.ratio:.4g})"
    return f"{'holds' if row.holds else 'DOES NOT HOLD':13}  {row.what}: {value} {row.unit}{beside}{ratio}; goal {row.goal}"


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
