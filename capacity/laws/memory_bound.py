"""Ops that only move memory: norms, activations, residual additions, optimizer steps, look-ups."""

from capacity.formula import formula


@formula(unit="s", symbol="t_mem")
def memory_bound_time_s(
    moved_bytes: float, memory_bytes_per_s: float, share_of_bandwidth: float, launches: float, launch_s: float
) -> float:
    """Bytes at a share of the bandwidth, and a launch for each kernel."""
    return launches * launch_s + moved_bytes / (memory_bytes_per_s * share_of_bandwidth)
