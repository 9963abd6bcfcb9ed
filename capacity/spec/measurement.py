"""What was measured: raw samples with their circumstances, never only a mean."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK = "ok"
OUT_OF_MEMORY = "out of memory"
TIMED_OUT = "timed out"
CRASHED = "crashed"
FAILED = "failed"
UNSUPPORTED = "unsupported"
STATUSES = (OK, OUT_OF_MEMORY, TIMED_OUT, CRASHED, FAILED, UNSUPPORTED)


class Sample(Record):
    """One reading of the clock: `loops` runs back to back.

    wall_s: for all loops. waited_s: how long threads of this process were ready to run and had no core;
    None where the system does not say. faults: pages touched for the first time. control: it timed the control
    kernel, not the case. parts_s: the share of each phase, for a case that has phases.
    """

    wall_s: float
    loops: int
    waited_s: float | None = None
    faults: int | None = None
    control: bool = False
    parts_s: dict[str, float] = {}


class Measurement(Record):
    """One visit to one case: a process of its own that timed it beside the control kernel.

    case: its name; kernel and parameters: what it is made of. status: one of STATUSES, `why` where it is not ok.
    flop, moved_bytes: what one run does, by count of the mathematics; None where that says nothing.
    facts: what else the case reports of itself (output error, size on disk).
    settings: threads, matrix-product precision, allocator of the process. environment: key of the environment record.
    energy_j: of one run, and energy_source which counter said so: nvml or rapl. Without a counter the source is "modelled"
    and energy_interval_j holds (low, high), or it is "none" and energy_j is None.
    """

    case: str
    kernel: str
    parameters: dict[str, Any]
    device: str
    round: int
    status: str
    environment: str
    started: str
    why: str = ""
    flop: float | None = None
    moved_bytes: float | None = None
    warmups: tuple[Sample, ...] = ()
    samples: tuple[Sample, ...] = ()
    overhead_s: float | None = None
    peak_memory_bytes: int | None = None
    resting_memory_bytes: int | None = None
    energy_j: float | None = None
    energy_source: str = "none"
    energy_interval_j: tuple[float, float] | None = None
    settings: dict[str, Any] = {}
    telemetry: dict[str, Any] = {}
    facts: dict[str, Any] = {}

    @property
    def key(self) -> tuple[str, int]:
        """What makes a visit unique in a store."""
        return self.case, self.round
