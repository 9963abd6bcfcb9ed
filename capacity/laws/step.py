"""Kernels as an engine runs them inside a step: work and traffic at a share of the datasheet's rates, and launches.

The law of one kernel is a formula; its parameters are shares and launch times by name ("gemm.fp8", "cache.bf16",
"layer"), one table an engine or a family of engines, in `fitted/`.
"""

from __future__ import annotations

from capacity import ops
from capacity.formula import Sourced, formula
from capacity.record import Record, replace

# Rows of the smallest tile a grouped product is cut into.
LEAST_TILE_ROWS = 8.0


@formula(unit="s", symbol="t_kernel")
def kernel_time_s(
    memory_s: float,
    work_s: float,
    tile_s: float,
    rows: float,
    unpack_s: float,
    share_of_bandwidth: float,
    share_of_peak: float,
    tile_rows: float,
    unpack_operations: float,
    least_rows: float = LEAST_TILE_ROWS,
) -> float:
    """Time of one kernel inside a step, before its launch.

    1. Memory: its bytes at the datasheet's bandwidth take memory_s, at the share that is reached longer.
    2. Compute: the same with work_s at the dense peak. Grouped products (experts) are padded to tiles: each matrix
       adds tile_s for every row of padding, least_rows + rows of them, at most tile_rows.
    3. The slower of both; and unpacking weights narrower than what is multiplied: unpack_operations for each
       weight, which take unpack_s each on the vector units.
    """
    padded = work_s + tile_s * ops.minimum(tile_rows, least_rows + rows)
    slower: float = ops.maximum(memory_s / share_of_bandwidth, padded / share_of_peak)
    return slower + unpack_s * unpack_operations


class Parameters(dict[str, float]):
    """Parameters of kernels by name, as far as they were asked for; known: all that have a value of their own.

    A name without an entry takes what stands before its last dot, then before the one before, then the fallback.
    """

    __slots__ = ("fallback", "known", "source", "what")

    def __init__(self, known: dict[str, float], what: str, fallback: float, source: str) -> None:
        super().__init__()
        self.known = known
        self.what = what
        self.fallback = fallback
        self.source = source

    def __missing__(self, name: str) -> float:
        """Found and labelled once, then kept."""
        value, nearest = None, name
        while value is None and nearest:
            value = self.known.get(nearest)
            nearest = nearest.rpartition(".")[0]
        value = self.fallback if value is None else value
        self[name] = found = Sourced(value, f"{self.what}, {name}", self.source, "measured")
        return found


class StepLaw(Record):
    """Parameters of the kernels of a step.

    launch_s: fixed time of a kernel or of a layer's small kernels; bandwidth, peak: shares as reached in
    large shapes; unpack: vector operations to unpack one weight; tile_rows: rows a grouped product's tile has at most. source: what
    they were fitted on. clock_hz: where launches take cycles, the clock they were timed at; core_bytes_per_s: what one processor core
    reads of memory at most, None without such a limit.
    """

    launch_s: Parameters
    bandwidth: Parameters
    peak: Parameters
    unpack: Parameters
    tile_rows: float
    source: str
    clock_hz: float | None = None
    core_bytes_per_s: float | None = None

    def paced(self, factor: float, more_s: float = 0.0) -> StepLaw:
        """The same law with launches that take `factor` as long, those of a layer more_s on top; wires keep their pace."""
        launch = self.launch_s
        slower = {
            name: value if name.startswith("all_reduce") else value * factor for name, value in launch.known.items()
        }
        slower["layer"] = slower.get("layer", launch.fallback) + more_s
        return replace(self, launch_s=Parameters(slower, launch.what, launch.fallback, launch.source))


def step_law(
    launch_s: dict[str, float],
    share_of_bandwidth: dict[str, float],
    share_of_peak: dict[str, float],
    unpack_operations: dict[str, float],
    tile_rows: float,
    source: str,
    clock_hz: float | None = None,
    core_bytes_per_s: float | None = None,
) -> StepLaw:
    """A law from plain tables; what none names launches in no time and is multiplied as stored."""
    return StepLaw(
        Parameters(launch_s, "launch", 0.0, source),
        Parameters(share_of_bandwidth, "share of bandwidth", 0.7, source),
        Parameters(share_of_peak, "share of peak", 0.5, source),
        Parameters(unpack_operations, "operations to unpack", 0.0, source),
        tile_rows,
        source,
        clock_hz,
        core_bytes_per_s,
    )
