"""Blocks priced here: in this process, or on all cores by processes of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capacity.errors import CapacityError
from capacity.sweeps.run import price

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from capacity.sweeps.engines import Blocks
    from capacity.sweeps.run import Part, Task

# Blocks under way for each process: one that is priced, and the next.
AHEAD = 2


def run(blocks: Blocks, task: Task, *, jobs: int = 1) -> Iterator[Part]:
    """Price blocks; only a few are in memory at a time. Raises CapacityError where a process dies."""
    if jobs == 1:
        for number, block in blocks:
            yield price(number, block, task)
        return
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # A fork would copy the threads of libraries in whatever state they are.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        under_way: set[Future[Part]] = set()
        try:
            for number, block in blocks:
                under_way.add(pool.submit(price, number, block, task))
                while len(under_way) >= AHEAD * jobs:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise CapacityError("a process of the sweep was killed (out of memory?); --resume goes on") from None
        finally:
            pool.shutdown(cancel_futures=True)
