"""The attention core, fused."""

from capacity.formula import formula


@formula(unit="s", symbol="t_attn")
def attention_time_s(
    work_flop: float,
    moved_bytes: float,
    queries: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_peak: float,
    share_of_bandwidth: float,
    queries_half: float,
    launch_s: float,
    sharpness: float = 3.0,
) -> float:
    """Time of one attention core over the visible keys.

    1. Compute: at share_of_peak, slower for short runs of queries (1 + queries_half / queries): tiles at the
       causal border are half empty.
    2. Memory: queries, keys, values and outputs once; in decode this is the KV cache and binds.
    3. The slower of both, as a smooth maximum, after a launch.
    """
    compute = work_flop / (peak_flop_per_s * share_of_peak) * (1.0 + queries_half / queries)
    memory = moved_bytes / (memory_bytes_per_s * share_of_bandwidth)
    slower: float = (compute**sharpness + memory**sharpness) ** (1.0 / sharpness)
    return launch_s + slower
