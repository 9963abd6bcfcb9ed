"""Cases: a kernel with its parameters, by a name that says both."""

from __future__ import annotations

from capacity.errors import CapacityError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.sampling import Effort
    from capacity.spec.measurement import Sample

QUICK, FULL = "quick", "full"
PROFILES = (QUICK, FULL)
# A phase that only sets the stage for the next: no part of what a case measures.
BETWEEN = "between"


class NotSupportedError(CapacityError):
    """This device, build or library does not offer a kernel: a result, not a fault."""


class Machine(Record):
    """What kernels may ask of the machine they run on.

    device: "cpu" or "cuda". cache_bytes: the last-level cache, so that cold operands can be made; memory_bytes: free.
    """

    device: str = "cpu"
    threads: int = 1
    cache_bytes: float = 32.0 * 2**20
    memory_bytes: float = 8.0 * 2**30
    processes: int = 2


class Work(Record):
    """A case ready to run.

    run: one run; or phases: named parts of one run, in order; a name may come again. flop and moved_bytes: what one run must do, counted by
    hand, None where a count says nothing. facts: computed once, after the samples. close: gives resources back.
    sampler: takes the samples itself, for work of several processes: (effort) to (warm-ups, samples).
    """

    run: Callable[[], object] | None = None
    phases: tuple[tuple[str, Callable[[], object]], ...] = ()
    flop: float | None = None
    moved_bytes: float | None = None
    facts: Callable[[], Mapping[str, Any]] | None = None
    close: Callable[[], object] | None = None
    sampler: Callable[[Effort], tuple[tuple[Sample, ...], tuple[Sample, ...]]] | None = None


class Kernel(Record):
    """A family of cases.

    cases: parameters by profile and machine. build: parameters and machine to work. kind: "kernel", "training",
    "inference". processes: how many ranks torchrun starts for it, 0 for none. group: heading in lists.
    time_s: how long one visit may take before it is killed. effort: multiplies the budget of a visit. preload: modules that
    visits need and that are slow to import: they are imported once, where they are installed.
    """

    name: str
    summary: str
    cases: Callable[[str, Machine], Iterable[dict[str, Any]]]
    build: Callable[[Mapping[str, Any], Machine], Work]
    kind: str = "kernel"
    processes: int = 0
    time_s: float = 60.0
    effort: float = 1.0
    preload: tuple[str, ...] = ()


class Case(Record):
    """One kernel with one set of parameters."""

    kernel: str
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """`kernel/value-value...`: numbers carry the name of what they count."""
        words = [
            f"{key}{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else _word(key, value)
            for key, value in self.parameters.items()
        ]
        return "/".join([self.kernel, "-".join(word for word in words if word)])


def _word(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else ""
    if isinstance(value, (list, tuple)):
        return "x".join(str(one) for one in value)
    return str(value).replace("/", ".")
