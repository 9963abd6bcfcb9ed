"""One kernel on one device: seconds with an interval, what binds, and where the parameters are from."""

from __future__ import annotations

from capacity.catalogue import load_device
from capacity.errors import InputError, UnknownNameError
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.profile import FOLDER, fitted_parameters
from capacity.laws.kernels.tables import NAMES, SHAPES, known, launch_s, regime, seconds, subs
from capacity.record import Record
from capacity.spec.estimate import Quantity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# Usual names of formats, as the kernel tables have them.
_FORMATS = {
    "bf16": "bfloat16",
    "fp16": "bfloat16",
    "float16": "bfloat16",
    "float8": "fp8",
    "fp4": "nvfp4",
    "int8": "sq",
    "int4": "int4_wo",
}
# What a shape is unless told otherwise; None: it has to be said. A name in quotes: what that column has.
_USUAL: dict[str, dict[str, Any]] = {
    "gemm": {},
    "prefill": {"batch": 1.0, "n_kv_heads": "n_heads", "head_dim": 128.0, "window": 0.0},
    "decode": {"batch": 1.0, "n_kv_heads": "n_heads", "head_dim": 128.0, "window": 0.0},
    "expert": {"tp": 1.0, "ep": 1.0, "distribution": "balanced"},
    "collective": {"collective": "all_reduce"},
}


class Kernel(Record):
    """A priced kernel.

    time: seconds, with its 90 % interval. regime: "launch" (below twice the fixed time), "middle" or "large".
    basis: "fitted" on this device, carried from a "sibling", from another "architecture", or "generic".
    """

    op: str
    device: str
    dtype: str
    shape: dict[str, float | str]
    time: Quantity
    regime: str
    basis: str
    source: str


def kernel(
    op: str,
    device: str,
    dtype: str = "bf16",
    *,
    cold: bool = True,
    catalogue: Sequence[str] = (),
    profiles: str = FOLDER,
    **shape: Any,
) -> Kernel:
    """Price one kernel: op is gemm, prefill, decode, expert or collective, shape what its table names.

    gemm: m, n, k. prefill: batch, seq_len, n_heads, n_kv_heads, head_dim, window. decode: context_len for seq_len.
    expert: tokens, hidden, expert_ffn, topk, n_experts, tp, ep, distribution (balanced or power_law_ALPHA).
    collective: collective (all_reduce, all_gather, reduce_scatter, alltoall), n_devices, message_bytes.
    cold: the cache holds nothing of the last call, as in a running model; benchmarks that repeat one kernel find it hot.
    Raises UnknownNameError or InputError, in one line.
    """
    if op not in SHAPES:
        raise UnknownNameError("kernel", op, tuple(SHAPES), f"known are {', '.join(SHAPES)}")
    found = load_device(device, catalogue)
    table = _table(op, dtype, shape)
    sub = str(subs(op, table))
    if not known(op, sub):
        raise InputError(f"dtype is {dtype[:40]!r}: no law of {op} knows it; try bf16, fp8, fp8_block, nvfp4 or int4")
    facts = facts_of(found)
    fitted = fitted_parameters(found, op, sub, profiles)
    if fitted is None:
        raise InputError(f"no device has been measured for {op} in {sub}; try bf16 or fp8")
    mid = seconds(op, facts.cold() if cold else facts, fitted.parameters, sub, table)
    kind = str(regime(mid, launch_s(op, facts, fitted.parameters)))
    low, high = fitted.interval(mid, kind, fitted.outside_of(table))
    return Kernel(
        op=op,
        device=found.id,
        dtype=sub,
        shape=table,
        time=Quantity("time", float(low), float(mid), float(high), "s", kind),
        regime=kind,
        basis=fitted.basis,
        source=fitted.source,
    )


def _table(op: str, dtype: str, shape: dict[str, Any]) -> dict[str, Any]:
    """The columns of one row."""
    wanted = (*NAMES[op], *SHAPES[op])
    for name in shape:
        if name not in wanted:
            raise UnknownNameError(f"part of a {op}", name, wanted, f"it has {', '.join(wanted)}")
    fixed = _FORMATS.get(dtype.lower(), dtype.lower())
    table: dict[str, Any] = {}
    for name in wanted:
        usual = fixed if name in ("dtype", "kv_dtype") else _USUAL[op].get(name)
        value = shape.get(name, usual)
        if name in NAMES[op]:
            table[name] = _FORMATS.get(str(value).lower(), str(value))
            continue
        value = table.get(value) if isinstance(value, str) and value in table else value
        if value is None:
            raise InputError(f"{name} is missing: a {op} takes {', '.join(SHAPES[op])}")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InputError(f"{name} is {str(value)[:40]!r}: give a number, like {name}=4096") from None
        if not 0.0 <= number < 1e15 or (number < 1.0 and name != "window"):
            raise InputError(f"{name} is {number:g}: give 1 or more")
        table[name] = number
    return table
