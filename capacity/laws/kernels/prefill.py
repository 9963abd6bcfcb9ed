"""Attention of a prompt over itself."""

from __future__ import annotations

from capacity import ops
from capacity.laws.kernels.overlap import by_head_size, join, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.kernels.overlap import Parameters


# Data-centre Blackwell has no windowed kernel for these (query format, KV format, head size): the window is ignored, as
# the times of windowed and full attention of long sequences show (0.8 to 0.9, where 0.2 was due).
WINDOWLESS = (("bfloat16", "bfloat16", 192), ("fp8", "fp8", 192), ("fp8", "fp8", 256))


def keeps_window(facts: Facts, dtype: str, kv_dtype: str, head_dim: Any) -> Any:
    """Whether the kernel of these formats skips keys outside a window; the family table of prefill."""
    kept: Any = head_dim > 0
    if facts.architecture in ("blackwell", "blackwell-ultra"):
        for query, cache, size in WINDOWLESS:
            if (query, cache) == (dtype, kv_dtype):
                kept = kept & (head_dim != size)
    return kept


def prefill(
    facts: Facts,
    p: Parameters,
    dtype: str,
    kv_dtype: str,
    batch: Any,
    seq_len: Any,
    n_heads: Any,
    n_kv_heads: Any,
    head_dim: Any,
    window: Any,
) -> Any:
    """Seconds of causal attention of seq_len new tokens per sequence (window 0: full).

    1. A work item is Tq rows of queries; with GQA packing g^pk heads of a KV group share it, so it spans Ts = Tq/g^pk positions.
    2. Keys a head's items see: triangle (band with a window, overshooting by wx, or wxk when window > 512) / Ts + half a tile of masked keys and kx per item.
    3. Per key: join(4 Tq hd/(ec peak/SM), Tq cs/exp_rate clocks; 4) times the family factor of the head size (f*) and window (g*).
    4. Compute = items (c0 clocks + keys)/SM, a share wa of the last wave lost, plus lg times the longest item (ramp and tail).
    5. Memory = (q + o + kvx (k + v)) bytes at share eb: k and v are also appended to the cache, hence kvx of 3-4.
    6. t = t0 (family factors u*, tw windowed, t1 one token) + join(compute, memory; r).
    """
    w_: Any = ops.where
    sm, clk, bw = facts.multiprocessors, facts.clock_hz, facts.memory_bytes_per_s
    rate = (facts.peak(8) if dtype == "fp8" else facts.peak(16)) / sm
    g = n_heads / n_kv_heads
    tq = p["Tq"] * (128.0 / head_dim) ** p["th"]
    ge = w_(seq_len <= 1, ops.minimum(g, tq), g ** p["pk"])
    ts = ops.maximum(1.0, tq / ge)
    items = ops.ceil(seq_len / ts)
    windowed = (window > 0) & keeps_window(facts, dtype, kv_dtype, head_dim)
    reach = w_(windowed, window + w_(window > 512, p["wxk"], p["wx"]), 1e8)
    m = ops.minimum(seq_len, reach)
    keys = w_(
        items <= 1,
        ops.minimum(ops.maximum(seq_len, p["kx"]), reach),
        m * (seq_len - 0.5 * m) / ts + items * (0.5 * ts + p["kx"]),
    )
    family = by_head_size(head_dim, p["f64"], 1.0, p["f192"], p["f256"], p["f512"])
    family = family * w_(
        windowed & (window <= 512), by_head_size(head_dim, p["g64"], p["g128"], p["g192"], 1.0, 1.0), 1.0
    )
    per_key = (
        (4.0 * tq * head_dim / (rate * p["ec"])) ** 4 + (tq * p["cs"] / (facts.exp_per_clock * clk)) ** 4
    ) ** 0.25 * family
    c0 = p["c0"] / clk * w_(windowed, p["c0w"], 1.0)
    heads = batch * n_heads / ge
    n = heads * items / sm
    compute = heads * (items * c0 + keys * per_key) / sm * (1.0 + p["wa"] * (ops.ceil(n) / ops.maximum(n, 1.0) - 1.0))
    compute = compute + (c0 + (m + p["kx"]) * per_key) * p["lg"]
    bq, bk = (1.0 if dtype == "fp8" else 2.0), (1.0 if kv_dtype == "fp8" else 2.0)
    bytes_ = batch * seq_len * head_dim * (n_heads * (bq + 2.0) + 2.0 * n_kv_heads * bk * p["kvx"])
    gain = max(1.0, p["l2c"] * sm * clk / (bw * p["eb"]))
    memory = bytes_ / (bw * p["eb"]) * resident(bytes_, p["fo"], facts.l2_bytes, gain)
    t0 = (
        p["t0"]
        * facts.kiloclock_s
        * by_head_size(head_dim, p["u64"], 1.0, p["u192"], p["u256"], p["u512"])
        * w_(windowed, p["tw"], 1.0)
        * w_(seq_len <= 1, p["t1"], 1.0)
    )
    return t0 + join(compute, memory, p["r"])
