"""Matrix products: one law for every precision, a family where the libraries fall back."""

from __future__ import annotations

from capacity import ops
from capacity.laws.kernels.overlap import join, resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.kernels.overlap import Parameters

# dtype: (bytes per activation, bytes per weight, operand bits, activations quantised by a kernel of their own)
GEMM_DTYPES = {
    "bfloat16": (2.0, 2.0, 16, False),
    "fp8": (1.0, 1.0, 8, True),
    "fp8_block": (1.0, 1.0, 8, True),
    "nvfp4": (0.5625, 0.5625, 4, True),
    "int8_wo": (2.0, 1.0, 16, False),
    "int4_wo": (2.0, 0.53, 16, False),
    "sq": (1.0, 1.0, 8, True),
}
GEMM_TILES = ((16, 64), (16, 128), (64, 64), (64, 128), (128, 128), (128, 256), (256, 128))


def gemm_family(dtype: str, n: float, k: float) -> str:
    """The kernel family of a shape.

    Block-scaled kernels need n and k of at least one block of 128; below it a fallback runs, 7 to 40 times slower.
    """
    return "fallback" if dtype in ("fp8_block", "nvfp4") and min(n, k) < 128 else "standard"


def gemm(facts: Facts, p: Parameters, dtype: str, m: Any, n: Any, k: Any) -> Any:
    """Seconds of C[m,n] = A[m,k] B[k,n].

    1. Bytes: weights w k n, activations a m k, output 2 m n, at share eb of DRAM; what fits share*L2 may come from L2 (measured back to back).
    2. A tile (x,y) advances one k at the slowest of: tensor math 2xy/(ec peak/SM), operand feed (x a + y w)/(lam peak/SM), pipeline latency kc/64 clocks
       (kcp times as long where threads copy operands, not a bulk copy engine).
    3. waves = tiles/SM, a share wq of it rounded up, at least one; a tile's epilogue costs eo times its output bytes at one SM's share of
       DRAM, and all but the first wave hide 1-ov of it.
    4. 16-bit kernels may split k S ways to fill the device: S = min(SM/tiles, k/64, smax), paying tr us and the partial sums.
    5. Matrix units work on whole tiles; vector units (`padded` is false) on the rows there are. The fastest tile
       (and split) is taken: libraries choose by heuristics that come close.
    6. 8- and 4-bit: a kernel quantises the activations first: m k (2+a) bytes at share eq, or tq2 us once m >> mq.
    7. t = t0 + quantise + join(compute, memory; p).
    """
    a, w, bits, quantised = GEMM_DTYPES[dtype]
    sm, bw = facts.multiprocessors, facts.memory_bytes_per_s
    rate = facts.peak(bits) / sm
    memory_rate = bw * p["eb"]
    gain = max(1.0, p["l2c"] * sm * facts.clock_hz / memory_rate)
    wb, ab, ob = w * k * n, a * m * k, 2.0 * m * n
    tm = wb / memory_rate * resident(wb + ab + ob, p["fl2"], facts.l2_bytes, gain) + (ab + ob) / memory_rate * resident(
        ab + ob, p["fo"], facts.l2_bytes, gain
    )
    latency4 = (p["kc"] * (1.0 if facts.bulk_copies else p["kcp"]) / facts.clock_hz / 64.0) ** 4
    best: Any = None
    for x, y in GEMM_TILES:
        height: Any = x if facts.padded else ops.minimum(m, x)
        busy = ops.maximum(2.0 * height * y / (rate * p["ec"]), (height * a + y * w) / (p["lam"] * rate))
        step = (busy**4 + latency4) ** 0.25
        epilogue = p["eo"] * 2.0 * x * y * sm / bw
        tiles = ops.ceil(m / x) * ops.ceil(n / y)
        waves = tiles / sm
        waves = ops.maximum(1.0, waves + p["wq"] * (ops.ceil(waves) - waves))
        t = waves * (step * k) + epilogue * (1.0 - p["ov"] + p["ov"] * waves)
        if not quantised:
            s = ops.maximum(1.0, ops.minimum(ops.minimum(sm / tiles, k / 64.0), p["smax"]))
            waves = tiles * s / sm
            waves = ops.maximum(1.0, waves + p["wq"] * (ops.ceil(waves) - waves))
            split = (
                waves * (step * k / s)
                + epilogue * (1.0 - p["ov"] + p["ov"] * waves)
                + p["tr"] * facts.kiloclock_s
                + (s - 1.0) * (4.0 * m * n / (bw * p["rb"]))
            )
            t = ops.minimum(t, split)
        best = t if best is None else ops.minimum(best, t)
    quantise: Any = 0.0
    if quantised:
        qb = m * k * (2.0 + a)
        qt = p["tq2"] * facts.kiloclock_s * m / (m * m + p["mq"] ** 2) ** 0.5
        quantise = join(qb / (bw * p["eq"]) * resident(qb, p["fo"], facts.l2_bytes, gain), qt, 2.0)
    return p["t0"] * facts.kiloclock_s + quantise + join(best, tm, p["p"])
