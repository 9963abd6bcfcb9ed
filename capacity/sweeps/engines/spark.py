"""Blocks priced by Spark (mapInPandas): the session that is there, a cluster at an address, or this machine."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import TYPE_CHECKING

from capacity.errors import CapacityError
from capacity.sweeps.run import price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd

    from capacity.sweeps.engines import Blocks
    from capacity.sweeps.run import Part, Task

# Blocks of one Spark job, each a partition, for each core of the cluster: few enough to hold, enough to keep it busy.
BLOCKS_A_CORE = 4
_SCHEMA = "part binary"


def run(blocks: Blocks, task: Task, *, jobs: int = 1, address: str | None = None) -> Iterator[Part]:
    """Price blocks in Spark's Python workers; a lost partition is priced again. Raises CapacityError."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise CapacityError("--engine spark needs pyspark: pip install 'model-capacity[engines]'") from None
    own = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName("capacity sweep").config("spark.ui.enabled", "false")
    try:
        session = own or builder.master(address or f"local[{jobs}]").getOrCreate()
    except Exception as error:  # noqa: BLE001 - without Java, Spark has many ways to fail
        raise CapacityError(
            f"Spark does not start ({str(error).splitlines()[0][:80]}); it needs Java 17 or later"
        ) from None
    try:
        most = BLOCKS_A_CORE * max(session.sparkContext.defaultParallelism, 1)
        while chunk := list(islice(blocks, most)):
            packed = [(pickle.dumps(block),) for block in chunk]
            rows = session.createDataFrame(session.sparkContext.parallelize(packed, len(packed)), "block binary")
            for row in rows.mapInPandas(_worker(task), _SCHEMA).collect():
                yield pickle.loads(row.part)  # noqa: S301 - made by `_worker` above
    finally:
        if own is None:
            session.stop()


def _worker(task: Task) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    def priced(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        for batch in batches:
            for packed in batch["block"]:
                number, block = pickle.loads(packed)  # noqa: S301 - made by `run` above
                yield pd.DataFrame({"part": [pickle.dumps(price(number, block, task))]})

    return priced
