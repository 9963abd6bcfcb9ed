"""How fast kernel laws price columns: a million products in blocks that fit the cache, beside the same rows as floats
and beside one pass of NumPy's own power function over a million numbers, in the same run.

    python bench/kernel_laws.py
"""

import time

import numpy as np

from capacity.catalogue import load_device
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.profile import fitted_parameters
from capacity.laws.kernels.tables import seconds

ROWS, BLOCK, FLOATS = 1_000_000, 16_384, 2_000


def cpu_seconds(work, repeats=5):
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def main():
    device = load_device("h100-sxm")
    facts, parameters = facts_of(device), fitted_parameters(device, "gemm", "bfloat16").parameters
    chance = np.random.default_rng(0)
    shapes = {name: 2.0 ** chance.uniform(5, 14, ROWS) for name in ("m", "n", "k")}

    def columns():
        for start in range(0, ROWS, BLOCK):
            part = {name: column[start : start + BLOCK] for name, column in shapes.items()}
            seconds("gemm", facts, parameters, "bfloat16", {**part, "dtype": "bfloat16"})

    def floats():
        for row in range(FLOATS):
            part = {name: float(column[row]) for name, column in shapes.items()}
            seconds("gemm", facts, parameters, "bfloat16", {**part, "dtype": "bfloat16"})

    whole, single = cpu_seconds(columns), cpu_seconds(floats) / FLOATS
    power = cpu_seconds(lambda: shapes["m"] ** 0.37)
    print(f"a million products in columns: {whole:.2f} s of one core, {whole / power:.0f} passes of a power function")
    print(f"a row as a float: {single * 1e6:.0f} us, {single / (whole / ROWS):.0f} times a row of a column")


if __name__ == "__main__":
    main()
