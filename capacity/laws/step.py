"""Kernels as an engine runs them inside a step: work and traffic at a share of the datasheet's rates, and launches.

The law of one kernel is a formula; its parameters are shares and launch times by name ("gemm.fp8", "cache.bf16",
"layer"), one table an engine or a family of engines, in `fitted/`.
"""

from __future__ import annotations

from capacity import ops
from capacity.formula import formula
from capacity.record import Record

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


class StepLaw(Record):
    """Parameters of the kernels of a step, by name; a name without an entry takes what stands before its last dot.

    launch_s: fixed time of a kernel or of a layer's small kernels; share_of_bandwidth, share_of_peak: as reached in
    large shapes; tile_rows: rows a grouped product's tile has at most; unpack_operations: vector operations
    to unpack one weight. source: what they were fitted on.
    """

    launch_s: dict[str, float]
    share_of_bandwidth: dict[str, float]
    share_of_peak: dict[str, float]
    unpack_operations: dict[str, float]
    tile_rows: float
    source: str

    def launch(self, name: str) -> float:
        """Fixed time of a kernel of this name, in s; 0 where the table has none."""
        return _of(self.launch_s, name, 0.0)

    def bandwidth(self, name: str) -> float:
        """Share of the bandwidth a kernel of this name reaches."""
        return _of(self.share_of_bandwidth, name, 0.7)

    def peak(self, name: str) -> float:
        """Share of the dense peak a kernel of this name reaches."""
        return _of(self.share_of_peak, name, 0.5)

    def unpack(self, name: str) -> float:
        """Vector operations to unpack one weight of this format; 0 where it is multiplied as stored."""
        return _of(self.unpack_operations, name, 0.0)


def _of(table: dict[str, float], name: str, fallback: float) -> float:
    known = table.get(name)
    if known is None:
        known = table.get(name.partition(".")[0])
    return fallback if known is None else known
