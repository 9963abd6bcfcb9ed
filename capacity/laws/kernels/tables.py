"""A kernel law applied to a table of shapes: what calibration fits and validation scores.

Columns are named as in the tables of measurements. A column is an array; plain values (one shape) do as well.
"""

from __future__ import annotations

from capacity import ops
from capacity.errors import FileFormatError
from capacity.laws.kernels.collective import collective
from capacity.laws.kernels.decode import decode
from capacity.laws.kernels.expert import EXPERT_DTYPES, GENERIC_EXPERTS, UNGATED, expert, expert_load
from capacity.laws.kernels.gemm import GEMM_DTYPES, gemm
from capacity.laws.kernels.overlap import MICROSECOND
from capacity.laws.kernels.prefill import prefill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.laws.kernels.facts import Facts
    from capacity.laws.kernels.overlap import Parameters

# The file of an op's measurements, without its ending.
TABLES = {
    "gemm": "gemm",
    "prefill": "attention_prefill",
    "decode": "attention_decode",
    "expert": "moe",
    "collective": "collective",
}
# What tells kernels apart by name, and by number.
NAMES = {
    "gemm": ("dtype",),
    "prefill": ("dtype", "kv_dtype"),
    "decode": ("kv_dtype",),
    "expert": ("dtype", "distribution"),
    "collective": ("collective",),
}
SHAPES = {
    "gemm": ("m", "n", "k"),
    "prefill": ("batch", "seq_len", "n_heads", "n_kv_heads", "head_dim", "window"),
    "decode": ("batch", "context_len", "n_heads", "n_kv_heads", "head_dim", "window"),
    "expert": ("tokens", "hidden", "expert_ffn", "topk", "n_experts", "tp", "ep"),
    "collective": ("n_devices", "message_bytes"),
}
# Formats of queries and of cached keys and values.
ATTENTION_DTYPES = ("bfloat16", "fp8")
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
FALLBACK = "|fallback"
# Exponent of the popularity of experts; `balanced` gives each the same, its exponent is not used.
_BALANCED_ALPHA = 1.1


def prepared(op: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns a law takes, as floats, with what follows from shapes alone worked out once; idempotent."""
    if op in columns:
        return dict(columns)
    table: dict[str, Any] = {name: columns[name] for name in NAMES[op]}
    table |= {name: columns[name] * 1.0 for name in SHAPES[op]}
    table[op] = True
    if op != "expert":
        return table
    balanced = table["distribution"] == "balanced"
    alpha: Any = _BALANCED_ALPHA
    for name in _distinct(table["distribution"]):
        if name != "balanced":
            alpha = ops.where(table["distribution"] == name, _exponent(name), alpha)
    # Arrays that rows are chosen from together: pairs, active experts, rows of 16-, 64- and 128-row tiles.
    pairs, active, rows = expert_load(table["tokens"], table["topk"], table["n_experts"], table["ep"], alpha, balanced)
    table |= {"pairs": pairs, "active": active, "rows16": rows[0], "rows64": rows[1], "rows128": rows[2]}
    table["ungated"] = _among(table, UNGATED)
    table["generic"] = table["ungated"] & False
    for dtype, shapes in GENERIC_EXPERTS.items():
        table["generic"] = table["generic"] | ((table["dtype"] == dtype) & _among(table, shapes))
    return table


def chosen(columns: Mapping[str, Any], index: Any) -> dict[str, Any]:
    """The rows of a table that an index or a mask names."""
    return {name: column if column is True else column[index] for name, column in columns.items()}


def subs(op: str, columns: Mapping[str, Any]) -> Any:
    """What has parameters of its own within an op: dtype (query and KV for prefill, KV for decode) and family."""
    if op == "gemm":
        dtype = _text(columns["dtype"])
        blocks = (columns["dtype"] == "fp8_block") | (columns["dtype"] == "nvfp4")
        small = ops.minimum(columns["n"], columns["k"]) < 128  # a block: see gemm_family
        return dtype + _text(ops.where(blocks & small, FALLBACK, ""))  # type: ignore[arg-type]
    if op == "prefill":
        return _text(columns["dtype"]) + "/" + _text(columns["kv_dtype"])
    if op == "collective":
        return _text(ops.where(columns["message_bytes"] >= 0, "all", "all"))  # type: ignore[arg-type]
    return _text(columns["kv_dtype" if op == "decode" else "dtype"])


def known(op: str, sub: str) -> bool:
    """Whether the law of an op knows a dtype of its own (see `subs`)."""
    if op == "collective":
        return sub == "all"
    dtypes = tuple(GEMM_DTYPES) if op == "gemm" else tuple(EXPERT_DTYPES) if op == "expert" else ATTENTION_DTYPES
    return all(one in dtypes for one in sub.partition("|")[0].split("/"))


def seconds(op: str, facts: Facts, parameters: Parameters, sub: str, columns: Mapping[str, Any]) -> Any:
    """Seconds of every row; all rows are of the one `sub`, whose parameters are given."""
    table = prepared(op, columns)
    shape = [table[name] for name in SHAPES[op]]
    if op == "gemm":
        return gemm(facts, parameters, sub.removesuffix(FALLBACK), *shape)
    if op == "prefill":
        dtype, kv_dtype = sub.split("/")
        return prefill(facts, parameters, dtype, kv_dtype, *shape)
    if op == "decode":
        return decode(facts, parameters, sub, *shape)
    if op == "expert":
        return _expert(facts, parameters, sub, table)
    result: Any = 0.0
    for kind in COLLECTIVES:
        mine = table["collective"] == kind
        if _any(mine):
            result = ops.where(mine, collective(facts, parameters, kind, *shape), result)
    return result


def launch_s(op: str, facts: Facts, parameters: Parameters) -> float:
    """The fixed time of a kernel."""
    return parameters["a"] * MICROSECOND if op == "collective" else parameters["t0"] * facts.kiloclock_s


def regime(predicted_s: Any, launch_s: float) -> Any:
    """Whether a kernel is mostly launch (below twice its fixed time), large (from ten times) or in the middle."""
    launches = predicted_s / launch_s
    middle: Any = ops.where(launches < 10.0, "middle", "large")  # type: ignore[arg-type]
    return ops.where(launches < 2.0, "launch", middle)  # type: ignore[arg-type]


def _expert(facts: Facts, parameters: Parameters, dtype: str, table: Mapping[str, Any]) -> Any:
    load = (table["pairs"], table["active"], (table["rows16"], table["rows64"], table["rows128"]))
    generic = table["generic"] & facts.architecture.startswith("blackwell")
    return expert(
        facts,
        parameters,
        dtype,
        load,
        table["tokens"],
        table["topk"],
        table["hidden"],
        table["expert_ffn"],
        table["n_experts"],
        table["tp"],
        table["ep"],
        table["ungated"],
        generic,
    )


def _exponent(name: str) -> float:
    """The exponent of a power_law_ALPHA."""
    try:
        return float(name.removeprefix("power_law_"))
    except ValueError:
        raise FileFormatError(f"distribution is {name[:40]!r}: it is balanced or power_law_ALPHA") from None


def _among(table: Mapping[str, Any], shapes: Iterable[tuple[int, int, int]]) -> Any:
    """Whether (hidden, expert_ffn, experts) of a row is one of a few."""
    found: Any = table["hidden"] < 0
    for hidden, ffn, experts in shapes:
        found = found | ((table["hidden"] == hidden) & (table["expert_ffn"] == ffn) & (table["n_experts"] == experts))
    return found


def _text(column: Any) -> Any:
    """A column of words that `+` joins row by row, as it does two words."""
    return column.astype(object) if hasattr(column, "astype") else column


def _distinct(column: Any) -> list[str]:
    return [column] if isinstance(column, str) else sorted(set(column.tolist()))


def _any(mask: Any) -> bool:
    return bool(mask.any()) if hasattr(mask, "any") else bool(mask)
