"""Matrix products."""

from capacity import ops
from capacity.formula import formula

# Elements of the output tile one multiprocessor computes in large products, on every current library.
TILE_ELEMENTS = 128.0 * 256.0


@formula(unit="s", symbol="t_gemm")
def gemm_time_s(
    m: float,
    n: float,
    k: float,
    matrices: float,
    moved_bytes: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_peak: float,
    share_of_bandwidth: float,
    depth_half: float,
    wave_weight: float,
    multiprocessors: float,
    launch_s: float,
    least_rows: float = 16.0,
    flop_per_mac: float = 2.0,
    sharpness: float = 3.0,
) -> float:
    """Time of a product of m rows in all with `matrices` matrices of n x k.

    1. Compute: 2 m n k at share_of_peak of the dense peak, slower when the inner loop is short
       (1 + depth_half / k) and when there are few output tiles for the multiprocessors (1 + w SM / tiles).
       Rows are padded to least_rows for each matrix:
       16 on tensor cores, 1 on processors that multiply vectors.
    2. Memory: moved_bytes at share_of_bandwidth.
    3. The slower of both, as a smooth maximum, after a launch.
    Ignores: split-k, residency in the last-level cache.
    """
    rows = ops.maximum(m, least_rows * matrices)
    tiles = ops.maximum(rows * n / TILE_ELEMENTS, matrices)
    compute = rows * n * k * flop_per_mac / (peak_flop_per_s * share_of_peak)
    compute = compute * (1.0 + depth_half / k) * (1.0 + wave_weight * multiprocessors / tiles)
    memory = moved_bytes / (memory_bytes_per_s * share_of_bandwidth)
    slower: float = (compute**sharpness + memory**sharpness) ** (1.0 / sharpness)
    return launch_s + slower
