"""Blocks priced by a Dask cluster: one that runs at an address, or workers started on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import CapacityError
from capacity.sweeps.run import price

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.sweeps.engines import Blocks
    from capacity.sweeps.run import Part, Task

# Blocks under way for each thread of the cluster.
AHEAD = 2


def run(blocks: Blocks, task: Task, *, jobs: int = 1, address: str | None = None) -> Iterator[Part]:
    """Price blocks on a cluster; a block whose worker dies is priced again by another. Raises CapacityError."""
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise CapacityError("--engine dask needs dask: pip install 'model-capacity[engines]'") from None
    try:
        with (
            (
                LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
                if address is None
                else _Given(address)
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            most = AHEAD * max(sum(client.nthreads().values()), 1)
            waiting = as_completed(loop=client.loop)
            for number, block in blocks:
                waiting.add(client.submit(price, number, block, task, pure=False))
                if waiting.count() >= most:
                    yield next(waiting).result()
            yield from (future.result() for future in waiting)
    except OSError as error:
        raise CapacityError(f"no Dask scheduler answers at {address}: {str(error)[:80]}") from None


class _Given:
    """A cluster that somebody else starts and stops."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> Any:
        return self.address

    def __exit__(self, *_: object) -> None:
        pass
