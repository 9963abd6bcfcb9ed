"""What runs the blocks of a sweep: this process, its own processes, or a cluster that is there already.

An engine is a function: numbered blocks and a task in, priced parts out, in any order; each runs `capacity.sweeps.run.price`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capacity.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from capacity.sweeps.run import Part, Task

    Blocks = Iterator[tuple[int, pd.DataFrame]]
    Engine = Callable[[Blocks, Task], Iterator[Part]]

ENGINES = ("local", "dask", "spark")


def engine_of(name: str, jobs: int = 1, address: str | None = None) -> Engine:
    """An engine by name. jobs: processes on this machine; address: of a cluster that is there. Raises UnknownNameError."""
    if name == "local":
        from capacity.sweeps.engines.local import run

        return partial(run, jobs=jobs)
    if name == "dask":
        from capacity.sweeps.engines.dask import run as run_dask

        return partial(run_dask, jobs=jobs, address=address)
    if name == "spark":
        from capacity.sweeps.engines.spark import run as run_spark

        return partial(run_spark, jobs=jobs, address=address)
    raise UnknownNameError("engine", name, ENGINES, f"known are {', '.join(ENGINES)}")
