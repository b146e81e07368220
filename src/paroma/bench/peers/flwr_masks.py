"""Runs in the peer's environment: what a client of Flower's SecAgg+ computes to mask its numbers.

    python flwr_masks.py CLIENTS NUMBERS

Quantise, then for its own mask and the mask of every pair: generate, add, reduce. With flwr's own functions, in the order
of `secaggplus_mod`. For each line on stdin it does so once and prints one JSON object: CPU seconds. Needs flwr 1.42.
"""

import json
import os
import sys
import time

import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

CLIPPING = 8.0
LEVELS = 1 << 22
MODULUS = 1 << 32


def main(clients: int, size: int) -> None:
    """Measure once for each line, print."""
    numbers = [np.random.default_rng(0).standard_normal(size)]
    for _line in sys.stdin:
        began = time.process_time()
        masked = quantize(numbers, CLIPPING, LEVELS)
        for _mask in range(clients):  # its own, and those of clients - 1 pairs
            mask = pseudo_rand_gen(os.urandom(32), MODULUS, [(size,)])
            masked = parameters_mod(parameters_addition(masked, mask), MODULUS)
        seconds = time.process_time() - began
        print(json.dumps({"cpu_seconds": seconds, "bytes": sum(one.nbytes for one in masked)}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
