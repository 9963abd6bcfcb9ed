"""How long `capacity estimate --params 7e9` takes, in units of starting Python at all.

    python bench/start_up.py [PAIRS]

The two are run in turn, so that both see the same machine; the ratio is taken pair by pair.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAIRS = 40
WARM_UP = 3
BUDGET = 4.0
# As an installed package runs: its modules compiled once, in the warm-up.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    """Wall time of a command, its output thrown away."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - start


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    script = Path(sys.executable).with_name("capacity")
    capacity = [str(script)] if script.exists() else [sys.executable, "-m", "capacity"]
    python, estimate = [sys.executable, "-c", "pass"], [*capacity, "estimate", "--params", "7e9"]
    for _ in range(WARM_UP):
        seconds(python)
        seconds(estimate)
    times = [(seconds(python), seconds(estimate)) for _ in range(pairs)]
    ratios = sorted(long / short for short, long in times)
    print(f"{pairs} pairs, median (fastest):")
    for name, column in zip(
        ("python -c pass", "capacity estimate --params 7e9"), zip(*times, strict=True), strict=True
    ):
        print(f"  {name:32} {1e3 * statistics.median(column):6.1f} ms ({1e3 * min(column):.1f})")
    tenth = pairs // 10
    print(
        f"  ratio, pair by pair              {statistics.median(ratios):6.2f}    "
        f"(80 % of pairs {ratios[tenth]:.2f} – {ratios[-1 - tenth]:.2f}); budget {BUDGET:g}"
    )


if __name__ == "__main__":
    main()
