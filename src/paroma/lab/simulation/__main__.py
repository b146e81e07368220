"""`python -m paroma.lab.simulation SEED...`: play these seeds again and say what is wrong with them."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from paroma.lab.simulation.founding import found
from paroma.lab.simulation.story import play, plot_of


def main() -> int:
    """The number of seeds in which something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m paroma.lab.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="+", help="numbers, or ranges such as 0-199")
    parser.add_argument("--plot", action="store_true", help="print what each seed decides, too")
    asked = parser.parse_args()
    seeds = [seed for text in asked.seeds for seed in _range(text)]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="paroma-founded-") as made:
        founded = found(Path(made) / "federation")
        for seed in seeds:
            if asked.plot:
                print(plot_of(seed, founded))
            began = time.process_time()
            seen = play(seed, founded)
            bad += bool(seen.wrong)
            print(
                f"seed {seed}: {', '.join(seen.ended.values()) or 'nothing opened'}, {seen.answered} sums, "
                f"{seen.withdrawn} withdrawals, {seen.kills} restarts, {seen.seconds:.0f} virtual s, "
                f"{time.process_time() - began:.2f} s, federation log {seen.log[:16]}, trace {seen.trace[:16]}"
            )
            for line in seen.wrong:
                print(f"  WRONG: {line}")
    return bad


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
