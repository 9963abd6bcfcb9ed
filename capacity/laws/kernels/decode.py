"""Attention of one new token a sequence over its cache."""

from __future__ import annotations

from capacity import ops
from capacity.laws.kernels.overlap import by_head_size, join, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.kernels.overlap import Parameters


def decode_family(facts: Facts, n_heads: Any, n_kv_heads: Any, head_dim: Any, window: Any) -> tuple[Any, Any]:
    """The kernel family of a shape: (lone, unpacked).

    lone: only one library has a kernel (small window at head size 128, or a GQA ratio that is no power of two, but for 5, 6, 12 at head size >= 128
    outside small windows since Hopper).  unpacked: the kernel serves one query head per work item and re-reads k, v for each (FlashAttention-2
    with a window on cp.async devices; ratios above 64 but at head size 128, from 64 at head size 256).
    """
    g = n_heads / n_kv_heads
    power2 = (g == 1) | (g == 2) | (g == 4) | (g == 8) | (g == 16) | (g == 32) | (g == 64) | (g == 128)
    small = (window > 0) & (window <= 512)
    wide_list = (head_dim >= 128) & ((window == 0) | (window > 512)) & ((g == 5) | (g == 6) | (g == 12))
    covered = power2 | (wide_list if facts.architecture != "ampere" else (g < 0))
    lone = (small & (head_dim == 128)) | (covered == 0)
    unpacked = ((g > 64) & (head_dim != 128)) | ((g >= 64) & (head_dim == 256))
    if not facts.bulk_copies:
        unpacked = unpacked | (small & lone)
    return lone, unpacked


def decode(
    facts: Facts,
    p: Parameters,
    kv_dtype: str,
    batch: Any,
    context: Any,
    n_heads: Any,
    n_kv_heads: Any,
    head_dim: Any,
    window: Any,
) -> Any:
    """Seconds of attention of one new token per sequence over its cache.

    1. Work items W = batch x KV heads (batch x heads when unpacked); each may be split S ways over the context, S = min(nsp SM/W, keys/smin), at tc us.
    2. An item costs c0 clocks (+ cq a query head) and its keys, each at the slower of r bytes/clock of one SM and the exponentials (ce of exp_rate).
    3. waves = (1 + n^q)^(1/q), n = W S/SM: one item is the floor, many items fill.
    4. Memory: k, v of every KV head once, q and o, at share eb of DRAM (L2 if it fits and was just read).
    5. t = t0 + min over S of join(waves x item, memory; p).  Families scale t0 (t*), c0 (c*), 1/r (r*): head size, MHA (m), lone (v), small window (w), unpacked (x).
    """
    w_: Any = ops.where
    sm, clk, bw = facts.multiprocessors, facts.clock_hz, facts.memory_bytes_per_s
    g = n_heads / n_kv_heads
    lone, unpacked = decode_family(facts, n_heads, n_kv_heads, head_dim, window)
    small = (window > 0) & (window <= 512)
    sw = small & (lone == 0)
    mha = g == 1
    per_key = 2.0 * head_dim * (1.0 if kv_dtype == "fp8" else 2.0)
    keys = ops.minimum(
        context, w_((window > 0) & (window < context), window + w_(window > 512, p["wxk"], p["wx"]), 1e9)
    )
    gs = w_(unpacked, 1.0, g)
    work = batch * n_heads / gs

    def factors(letter: str, x: float) -> Any:
        return (
            by_head_size(head_dim, p[letter + "64"], 1.0, p[letter + "192"], p[letter + "256"], p[letter + "512"])
            * w_(mha, p[letter + "m"], 1.0)
            * w_(lone, p[letter + "v"], 1.0)
            * w_(sw, p[letter + "w"], 1.0)
            * w_(unpacked, x, 1.0)
        )

    item = (p["c0"] * factors("c", p["cx"]) + p["cq"] * gs * head_dim / 128.0) / clk
    rate = p["r"] * clk / factors("r", p["rx"])
    key_time = per_key / rate + gs * p["ce"] / (facts.exp_per_clock * clk)
    bytes_ = batch * n_kv_heads * keys * per_key + 4.0 * batch * n_heads * head_dim
    memory_rate = bw * p["eb"] * w_(lone, p["ev"], 1.0)
    gain = ops.maximum(1.0, p["l2c"] * sm * clk / memory_rate)
    memory = bytes_ / memory_rate * resident(bytes_, p["fl2"], facts.l2_bytes, gain)
    split = ops.maximum(1.0, ops.minimum(p["nsp"] * sm / work, keys / p["smin"]))
    q = p["q"]
    whole = (1.0 + (work / sm) ** q) ** (1.0 / q) * (item + (keys + p["tk0"]) * key_time)
    parts = (1.0 + (work * split / sm) ** q) ** (1.0 / q) * (item + (keys / split + p["tk0"]) * key_time)
    best = ops.minimum(
        join(whole, memory, p["p"]),
        join(parts, memory, p["p"]) + p["tc"] * facts.kiloclock_s * ops.minimum(1.0, split - 1.0),
    )
    return p["t0"] * facts.kiloclock_s * factors("t", 1.0) + best
