"""What happens in the process of one visit."""

from __future__ import annotations

import gc
import os
import resource
from random import Random
from time import perf_counter

from capacity.measurement.case import Case, Machine, NotSupportedError
from capacity.measurement.clock import Clock
from capacity.measurement.sampling import Effort, visit
from capacity.measurement.telemetry import counter
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from capacity.measurement.case import Work

# How long a case runs on its own while an energy counter is read: counters tick a few times in 100 ms.
ENERGY_WINDOW_S = 0.6
PINNED, DEFAULT = "pinned", "default"
# mallopt's names for: largest block kept on the heap, free memory kept on its top, and how much it grows by.
_MALLOPT = ((-3, 32 * 2**20), (-1, 2**31 - 1), (-2, 2**20))
CONTROL_SIDE = 384
CONTROL_BYTES = 4 * 2**20


class Settings(Record):
    """What is set before anything is timed, and written beside the result.

    allocator: "pinned" keeps every block up to 32 MiB for reuse and maps fresh pages for larger ones, as the C library does
    once it has seen large blocks; "default" leaves it to find that out, and to give memory back when it likes.
    """

    threads: int = 1
    allocator: str = PINNED
    matmul_precision: str = "highest"
    seed: int = 0


def prepare(settings: Settings, device: str) -> dict[str, Any]:
    """Set threads, precision and seed; returns what holds then."""
    import torch

    if settings.allocator == PINNED:
        _pin_allocator()
    torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision(settings.matmul_precision)
    torch.manual_seed(settings.seed)
    if device == "cuda" and not torch.cuda.is_available():
        raise NotSupportedError("torch sees no CUDA device")
    return {
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "allocator": f"{allocator()} {settings.allocator}",
        "nice": os.nice(0),
    }


def _warm_libraries(device: str) -> None:
    """A step of next to nothing, so that what libraries load at their first call is not the case's memory."""
    import torch

    with torch.device(device):
        layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
        optimizer = torch.optim.AdamW(layers.parameters(), fused=True)
        for half in (False, True):
            with torch.autocast(device, torch.bfloat16, enabled=half):
                result = layers(torch.ones(4, 8)).float().sum()
            result.backward()
            optimizer.step()


def _give_back() -> None:
    """Return free memory of building to the system, where the C library can."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def _pin_allocator() -> None:
    """Fix the thresholds of the C library's allocator: left alone, it moves them by what was freed before."""
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    for option, value in _MALLOPT:
        mallopt(option, value)
    import torch

    torch.empty(31 * 2**20, dtype=torch.uint8)  # the heap grows once, untouched, and stays


def allocator() -> str:
    """The allocator tensors come from, as far as the environment says."""
    preloaded = os.environ.get("LD_PRELOAD", "")
    name = next((known for known in ("jemalloc", "tcmalloc", "mimalloc") if known in preloaded), "system")
    tuned = [key for key in ("MALLOC_MMAP_THRESHOLD_", "THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES") if key in os.environ]
    return "+".join([name, *tuned])


def control_kernel(device: str) -> Callable[[], object]:
    """The same small work beside every case: a product and a copy, so that it slows down with either."""
    import torch

    left = torch.randn(CONTROL_SIDE, CONTROL_SIDE, device=device)
    product = torch.empty_like(left)
    source = torch.randn(CONTROL_BYTES // 4, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        torch.mm(left, left, out=product)
        target.copy_(source)

    return run


def measure(case: Case, machine: Machine, settings: Settings, effort: Effort, seed: int) -> dict[str, Any]:
    """Build a case, time it, and return the fields of a Measurement that are known here."""
    from capacity.measurement.registry import KERNELS

    kernel = KERNELS[case.kernel]
    settled = prepare(settings, machine.device)
    synchronise = _synchroniser(machine.device)
    clock = Clock(synchronise, threads=settings.threads)
    control = control_kernel(machine.device)
    control()
    _warm_libraries(machine.device)
    resting = _resting_bytes(machine.device)
    work = kernel.build(case.parameters, machine)
    gc.collect()
    _give_back()
    _reset_peak(machine.device)
    gc.disable()
    if work.sampler is not None:
        warm_ups, samples = work.sampler(effort)
    else:
        warm_ups, samples = visit(work, control, clock, effort, Random(seed))  # noqa: S311 - an order, no secret
    result: dict[str, Any] = {
        "flop": work.flop,
        "moved_bytes": work.moved_bytes,
        "warmups": warm_ups,
        "samples": samples,
        "overhead_s": clock.overhead_s(),
        "peak_memory_bytes": _peak_bytes(machine.device),
        "resting_memory_bytes": resting,
        "settings": settled,
    }
    if work.sampler is None:
        result |= _energy(work, clock, machine.device)
    result["facts"] = dict(work.facts()) if work.facts is not None else {}
    if work.close is not None:
        work.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    result["facts"]["cpu_s"] = used.ru_utime + used.ru_stime
    return result


def _energy(work: Work, clock: Clock, device: str) -> dict[str, Any]:
    """Joules of one run, from a window in which nothing else runs here."""
    meter = counter(device)
    if meter is None:
        return {"energy_j": None, "energy_source": "none"}
    runs = 0
    first, began = meter.energy_j(), perf_counter()
    while perf_counter() - began < ENERGY_WINDOW_S:
        if work.phases:
            clock.phased_sample(work.phases)
        else:
            assert work.run is not None
            clock.sample(work.run)
        runs += 1
    last = meter.energy_j()
    if first is None or last is None:
        return {"energy_j": None, "energy_source": "none"}
    return {"energy_j": (last - first) / runs, "energy_source": meter.source}


def _synchroniser(device: str) -> Callable[[], object] | None:
    if device != "cuda":
        return None
    import torch

    return torch.cuda.synchronize


def _resting_bytes(device: str) -> int | None:
    """What is held before the case is built: of the device, or by this process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.memory_allocated())
    return _resident_bytes()


def _resident_bytes() -> int | None:
    """Memory this process holds; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _reset_peak(device: str) -> None:
    """Forget the highest memory so far, so that the peak is the case's."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def _peak_bytes(device: str) -> int:
    """Highest memory since the case was built: of the device, or of this process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
