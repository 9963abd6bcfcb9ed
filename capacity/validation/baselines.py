"""What simpler models say of the same kernels: a roofline on the datasheet, and one share of it for everything."""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pandas as pd

    from capacity.laws.kernels.facts import Facts

# The usual single efficiencies: of peak, of bandwidth; and a launch.
SHARE_OF_PEAK, SHARE_OF_BANDWIDTH, LAUNCH_S = 0.7, 0.8, 5e-6
_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625, "int8_wo": 1.0, "int4_wo": 0.53, "sq": 1.0}
_BITS = {"bfloat16": 16, "fp8": 8, "fp8_block": 8, "nvfp4": 4, "int8_wo": 16, "int4_wo": 16, "sq": 8}


def roofline(op: str, dtype: str, facts: Facts, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Seconds by the naive roofline and by the roofline with single efficiencies."""
    work, moved = _costs(op, dtype, rows)
    if op == "collective":
        wire = moved / facts.link_bytes_per_s
        return wire, wire / SHARE_OF_BANDWIDTH + LAUNCH_S
    compute = work / facts.peak(_BITS.get(dtype.partition("/")[0].partition("|")[0], 16))
    memory = moved / facts.memory_bytes_per_s
    single = np.maximum(compute / SHARE_OF_PEAK, memory / SHARE_OF_BANDWIDTH) + LAUNCH_S
    return np.maximum(compute, memory), single


def bytes_moved(op: str, rows: pd.DataFrame) -> np.ndarray:
    """The least bytes each row reads and writes, in the dtype it names."""
    names = "kv_dtype" if op == "decode" else "dtype"
    if op == "collective":
        return _costs(op, "", rows)[1]
    moved = np.zeros(len(rows))
    keys = rows[names].astype(str) + ("/" + rows["kv_dtype"].astype(str) if op == "prefill" else "")
    for dtype, part in rows.groupby(keys):
        moved[rows.index.get_indexer(part.index)] = _costs(op, str(dtype), part)[1]
    return moved


def _costs(op: str, dtype: str, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs and bytes of each row."""
    column = {name: rows[name].to_numpy(dtype=float) for name in rows.columns if rows[name].dtype.kind in "if"}
    query, _, cache = dtype.partition("/")
    width = _BYTES.get(query.partition("|")[0], 2.0)
    if op == "gemm":
        m, n, k = column["m"], column["n"], column["k"]
        narrow = width if query.partition("|")[0] in ("fp8", "fp8_block", "nvfp4", "sq") else 2.0
        return 2.0 * m * n * k, n * k * width + m * k * narrow + 2.0 * m * n
    if op in ("prefill", "decode"):
        batch, heads, kv, size = (column[name] for name in ("batch", "n_heads", "n_kv_heads", "head_dim"))
        window = np.where(column["window"] > 0.0, column["window"], np.inf)
        cached = _BYTES.get(cache or query, 2.0)
        if op == "decode":
            seen = np.minimum(column["context_len"], window)
            return 4.0 * batch * heads * seen * size, 2.0 * batch * kv * seen * size * cached
        length = column["seq_len"]
        seen = np.minimum(length, window)
        pairs = seen * (length - seen / 2.0)
        return 4.0 * batch * heads * pairs * size, batch * length * size * (heads * 4.0 + 2.0 * kv * cached)
    if op == "expert":
        pairs = column["tokens"] * column["topk"] / column["ep"]
        inner = column["hidden"] * column["expert_ffn"] / column["tp"]
        touched = np.minimum(column["n_experts"] / column["ep"], np.maximum(pairs, 1.0))
        return 6.0 * pairs * inner, 3.0 * touched * inner * width + 4.0 * pairs * column["hidden"]
    devices = column["n_devices"]
    passes = np.where(rows["collective"].to_numpy() == "all_reduce", 2.0, 1.0)
    return np.zeros(len(rows)), passes * (devices - 1.0) / devices * column["message_bytes"]
