"""Clocks: of the wall, of waiting for a core, and of first touches; and what reading them costs."""

from __future__ import annotations

import os
import resource
from time import perf_counter_ns

from capacity.spec.measurement import Sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NS_PER_S = 1e9


class RunQueue:
    """How long this process's threads stood ready without a core, read from Linux; None elsewhere.

    A sample in which the kernel waited is not a measurement of the kernel, whatever the load average says.
    """

    def __init__(self, *, every_thread: bool) -> None:
        self._every_thread = every_thread
        self._files: dict[str, int] = {}
        self._known = self.waited_s() is not None

    def waited_s(self) -> float | None:
        """Seconds waited since the threads began, summed; None where the system does not count them."""
        try:
            threads = os.listdir("/proc/self/task") if self._every_thread else ("",)
        except OSError:
            return None
        total = 0
        seen = False
        for thread in threads:
            text = self._read(thread)
            if text:
                total += int(text.split()[1])
                seen = True
        return total / NS_PER_S if seen else None

    def _read(self, thread: str) -> bytes:
        path = f"/proc/self/task/{thread}/schedstat" if thread else "/proc/thread-self/schedstat"
        try:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            return os.pread(self._files[path], 100, 0)
        except OSError:  # a thread that ended, or a system without these counters
            descriptor = self._files.pop(path, None)
            if descriptor is not None:
                os.close(descriptor)
            return b""


class Clock:
    """Times a callable; `synchronise` waits for the device, so that queued work is counted."""

    def __init__(self, synchronise: Callable[[], object] | None = None, *, threads: int = 1) -> None:
        self._synchronise = synchronise
        self._queue = RunQueue(every_thread=threads > 1)

    def sample(self, run: Callable[[], object], loops: int = 1, *, control: bool = False) -> Sample:
        """One reading over `loops` runs."""
        waited, faults = self._queue.waited_s(), _faults()
        self._settle()
        started = perf_counter_ns()
        for _ in range(loops):
            run()
        self._settle()
        wall = (perf_counter_ns() - started) / NS_PER_S
        return self._reading(wall, loops, waited, faults, control, {})

    def phased_sample(self, phases: Iterable[tuple[str, Callable[[], object]]]) -> Sample:
        """One run of a case in phases, each timed apart."""
        waited, faults = self._queue.waited_s(), _faults()
        parts: dict[str, float] = {}
        self._settle()
        begin = last = perf_counter_ns()
        for name, run in phases:
            run()
            self._settle()
            now = perf_counter_ns()
            parts[name] = parts.get(name, 0.0) + (now - last) / NS_PER_S
            last = now
        return self._reading((last - begin) / NS_PER_S, 1, waited, faults, False, parts)

    def overhead_s(self, readings: int = 200) -> float:
        """What a sample of nothing reads: the part of every sample that is the harness."""
        walls = sorted(self.sample(_nothing).wall_s for _ in range(readings))
        return walls[len(walls) // 2]

    def _settle(self) -> None:
        if self._synchronise is not None:
            self._synchronise()

    def _reading(
        self, wall: float, loops: int, waited: float | None, faults: int, control: bool, parts: dict[str, float]
    ) -> Sample:
        after = self._queue.waited_s()
        lost = None if waited is None or after is None else max(after - waited, 0.0)
        return Sample(wall, loops, lost, _faults() - faults, control, parts)


def _nothing() -> None:
    """Do nothing; what a sample of it reads is the harness."""


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
