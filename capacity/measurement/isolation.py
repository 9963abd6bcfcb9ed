"""A function in a process of its own, with a limit of memory and of time: whatever happens there is a result here.

Processes are forked from a server that has imported torch and done nothing else, so one costs 20 ms, not 2 s. Nothing
that ran before, no warm allocator and no dead CUDA context, reaches the next case.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from time import monotonic

from capacity.record import Record
from capacity.spec.measurement import CRASHED, FAILED, OK, OUT_OF_MEMORY, TIMED_OUT, UNSUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from typing import Any

POLL_S = 0.1
# torch and its libraries cannot be imported in less; a limit below says "out of memory" of everything.
LEAST_MEMORY_BYTES = 512 * 2**20


class Outcome(Record):
    """How a process ended: `value` is what it returned where status is ok, `why` says what happened elsewhere."""

    status: str
    value: Any = None
    why: str = ""
    peak_memory_bytes: int | None = None


def server(preload: Sequence[str] = ()) -> Any:
    """The context processes are started from; modules in `preload` are imported there once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def run_isolated(
    context: Any,
    target: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    memory_bytes: float | None = None,
    time_s: float = 60.0,
    watch: Callable[[int], object] | None = None,
) -> Outcome:
    """Call target(*arguments) in its own process.

    memory_bytes: limit on its private memory, enforced by the system and watched from here. watch: called with its process
    id a few times a second. Never raises for what happens inside.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_inside, args=(sender, target, arguments, memory_bytes, time_s), daemon=False)
    process.start()
    sender.close()
    ends = monotonic() + time_s
    peak = 0
    try:
        while True:
            if receiver.poll(POLL_S):
                return _received(receiver, process, peak)
            if watch is not None:
                watch(process.pid)
            peak = max(peak, _resident_bytes(process.pid))
            if memory_bytes is not None and peak > max(memory_bytes, LEAST_MEMORY_BYTES) * 1.1:
                return Outcome(OUT_OF_MEMORY, None, f"held {peak:.3g} of {memory_bytes:.3g} bytes allowed", peak)
            if monotonic() > ends:
                return Outcome(TIMED_OUT, None, f"took longer than {time_s:g} s", peak)
            if not process.is_alive() and not receiver.poll(0):
                return _died(process, peak)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        receiver.close()


def _received(receiver: Connection, process: Any, peak: int) -> Outcome:
    try:
        status, value, why, own_peak = receiver.recv()
    except (EOFError, OSError):
        process.join(5.0)
        return _died(process, peak)
    process.join(10.0)  # the answer is here: a slow farewell must not change it
    return Outcome(status, value, why, max(peak, own_peak))


def _died(process: Any, peak: int) -> Outcome:
    code = process.exitcode
    if code is not None and code < 0:
        number = -code
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        if number == signal.SIGALRM:
            return Outcome(TIMED_OUT, None, "stopped by its own alarm", peak)
        why = f"ended by {name}" + (", as the system does when memory runs out" if number == signal.SIGKILL else "")
        return Outcome(OUT_OF_MEMORY if number == signal.SIGKILL else CRASHED, None, why, peak)
    return Outcome(CRASHED, None, f"ended with status {code} and no answer", peak)


def _inside(
    sender: Connection,
    target: Callable[..., Any],
    arguments: tuple[Any, ...],
    memory_bytes: float | None,
    time_s: float,
) -> None:
    import resource

    # Where the parent is killed nobody ends this process: it ends itself.
    signal.alarm(int(time_s) + 5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory_bytes is not None:
        limit = int(max(memory_bytes, LEAST_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        answer = (OK, target(*arguments), "")
    except MemoryError as error:
        answer = (OUT_OF_MEMORY, None, _line(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result of this case
        answer = (_status(error), None, _line(error))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sender.send((*answer, peak))
    sender.close()
    os._exit(0)  # libraries that hang in their farewells must not hold the suite


def _status(error: Exception) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if (
        "outofmemory" in text
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    ):
        return OUT_OF_MEMORY
    if type(error).__name__ == "NotSupportedError" or isinstance(error, (ModuleNotFoundError, NotImplementedError)):
        return UNSUPPORTED
    return FAILED


def _line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."


def _resident_bytes(process_id: int | None) -> int:
    try:
        with open(f"/proc/{process_id}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
