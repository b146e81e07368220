"""`python -m paroma.lab.simulation SEED...`: play these seeds again, say what is wrong with them, and what was in them."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from paroma.lab.simulation.founding import found
from paroma.lab.simulation.liveness import FINISHED
from paroma.lab.simulation.plot import plot_of
from paroma.lab.simulation.story import play


def main() -> int:
    """The number of seeds in which something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m paroma.lab.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="+", help="numbers, or ranges such as 0-199")
    parser.add_argument("--plot", action="store_true", help="print what each seed decides, too")
    parser.add_argument("--brief", action="store_true", help="print a line every 25 seeds, and those that are wrong")
    asked = parser.parse_args()
    seeds = [seed for text in asked.seeds for seed in _range(text)]
    bad, reasons, kinds = 0, Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="paroma-founded-") as made:
        founded = found(Path(made) / "federation")
        began = time.process_time()
        for done, seed in enumerate(seeds, 1):
            if asked.plot:
                print(plot_of(seed, founded))
            start = time.process_time()
            seen = play(seed, founded)
            bad += bool(seen.wrong)
            reasons.update(seen.why.values())
            kinds += seen.kinds
            if not asked.brief or seen.wrong:
                print(
                    f"seed {seed}: {', '.join(seen.why.values()) or 'nothing opened'}, {seen.answered} sums, "
                    f"{seen.withdrawn} withdrawals, {seen.kills} restarts, {seen.lies} lies, {seen.seconds:.0f} virtual s, "
                    f"{time.process_time() - start:.2f} s, federation log {seen.log[:16]}, trace {seen.trace[:16]}"
                )
            for line in seen.wrong:
                print(f"  WRONG: {line}")
            if asked.brief and done % 25 == 0:
                print(f"{done} of {len(seeds)} seeds, {bad} wrong", flush=True)
    runs = sum(reasons.values())
    print(f"{len(seeds)} seeds, {bad} wrong, {(time.process_time() - began) / len(seeds):.2f} CPU seconds a seed")
    print(
        f"{reasons[FINISHED]} of {runs} runs came to their result ({reasons[FINISHED] / max(runs, 1):.1%}); the others:"
    )
    for reason, count in reasons.most_common():
        if reason != FINISHED:
            print(f"  {count:5} {reason}")
    print("seeds that had:")
    for kind, count in sorted(kinds.items()):
        print(f"  {count:5} {kind}")
    return bad


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
