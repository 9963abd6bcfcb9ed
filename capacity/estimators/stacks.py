"""Training software: how much of the hardware's pace a stack keeps, and how it trains unless told otherwise."""

from __future__ import annotations

import os

from capacity.laws.profile import FITTED
from capacity.record import Record, fields
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.device import Device


class Stack(Record):
    """Factors of a training stack on the laws, fitted on published runs (docs/accuracy-training.md).

    sustained: multiplies the architecture's sustained share of GEMM peak; attention: share of the benchmarked
    attention rate; elementwise: memory traffic over the fused minimum; cast: traffic of casting to narrow formats over
    its minimum; grouped: time of grouped expert products over that of one product of their size, with
    grouped_narrow beside it in 8 bits and fewer. exposed_forward,
    exposed_backward: share of tensor-parallel communication that is not hidden, exposed_hops of hand-overs between stages; selective: share of the forward pass that
    its policy of selective recomputation repeats beside attention. accumulation_bytes: traffic per local weight and
    micro-batch to accumulate gradients; optimizer_bytes: traffic per local weight of a step; overlap: share of the
    gathering of sharded weights that may run beside compute, reduce_overlap of gradient reduction; contention: share of hidden
    traffic's time it takes from compute; straggler: slow-down per doubling of nodes; host: share of the launching host's
    time that is left; launches: of the small kernels' own launch time; expert_launches: host time of an expert layer
    beside that of a dense one; routing_overlap: share of expert routing that runs beside compute; fused_attention: 1 or 0.
    """

    name: str
    title: str
    generation: str
    source: str
    file: str
    sustained: float
    attention: float
    elementwise: float
    cast: float
    grouped: float
    grouped_narrow: float
    exposed_forward: float
    exposed_backward: float
    exposed_hops: float
    selective: float
    accumulation_bytes: float
    optimizer_bytes: float
    overlap: float
    reduce_overlap: float
    contention: float
    straggler: float
    host: float
    launches: float
    expert_launches: float
    routing_overlap: float
    fused_attention: float


# Usual spellings and the two generations by name.
ALIASES = {
    "tuned": "megatron-core",
    "nemo": "megatron-core",
    "megatron-bridge": "megatron-core",
    "megatron": "megatron-core",
    "megatron-deepspeed": "megatron-lm",
    "eager": "fsdp",
    "nanotron": "fsdp",
    "internevo": "fsdp",
    "litgpt": "hugging-face",
    "llm-foundry": "fsdp",
    "pytorch": "fsdp",
    "fsdp2": "torchtitan",
    "maxtext": "jax",
    "xla": "jax",
    "pax": "jax",
    "hf": "hugging-face",
    "transformers": "hugging-face",
}
_KIN = {"blackwell-ultra": "blackwell", "blackwell-rtx": "blackwell", "turing": "volta"}
# However little compute an accelerator has for its bandwidth, its runs are this much faster than its kernels at most.
MOST_PACE = 1.15
# Formats of 8 and fewer bits, whose groups of rows are padded and scaled one by one.
_NARROW = ("fp8", "fp4", "int8")
FILE = "stacks.toml"
WORDS = ("name", "title", "generation", "source")


def stack_names() -> tuple[str, ...]:
    """Names of all stacks."""
    return tuple(_tables()["stack"])


def load_stack(name: str, device: Device | None = None, compute: str = "bf16") -> Stack:
    """A stack by name or alias, on a device and for products in one format.

    `FILE.toml:NAME` takes it from a file that `capacity calibrate training` wrote (NAME left out: megatron-core).

    What a profile does not state its generation does; `sustained` is then the share of its kernels' pace that the
    device keeps under this stack (relative to its eager pace where no device is given). Raises UnknownNameError.
    """
    path, _, plain = name.rpartition(":") if ".toml" in name else ("", "", name)
    if plain.endswith(".toml"):
        path, plain = plain, "tuned"
    tables = _tables(path)
    key = ALIASES.get(plain.lower(), plain.lower())
    own = tables["stack"].get(key)
    if own is None:
        from capacity.errors import UnknownNameError

        raise UnknownNameError("stack", name, (*tables["stack"], *ALIASES), f"known are {', '.join(tables['stack'])}")
    source = f"{tables['source']} ({tables['date']})"
    values: dict[str, Any] = {**tables["generation"][own["generation"]], **own, "name": key, "source": source}
    values["file"] = path or os.path.join(FITTED, FILE)
    architecture = "other" if device is None else kin(device)
    by_architecture = values["attention"]
    values["attention"] = by_architecture.get(architecture, by_architecture["other"])
    if compute in _NARROW:
        values["grouped"] = values["grouped"] * values["grouped_narrow"]
    if device is not None:
        values["sustained"] = values["sustained"] * _pace(tables, device, compute)
    return Stack(**{field: values[field] for field in fields(Stack)})


def _pace(tables: dict[str, Any], device: Device, compute: str) -> float:
    """The share of its kernels' pace a device sustains in a long run of an eager stack."""
    paces = tables["pace"]
    pace: float = paces.get(kin(device), paces["other"])
    if device.kind in ("TPU", "ASIC") and "bf16" in device.peak_dense_flop_per_s:
        ridge = device.peak_dense_flop_per_s["bf16"] / device.memory_bytes_per_s
        pace = min(pace * (ridge / paces["ridge"]) ** -paces[f"ridge_power_{device.kind}"], MOST_PACE)
    pace = pace * relative_watts(device, tables["watts"]) ** paces["watts_power"]
    narrow = tables["narrow"].get(compute, {})
    pace *= narrow.get(kin(device), narrow.get("other", 1.0))
    return pace


def kin(device: Device) -> str:
    """The architecture whose runs speak for a device: Blackwell's for Blackwell Ultra."""
    return _KIN.get(device.architecture, device.architecture)


def relative_watts(device: Device, watts: dict[str, float]) -> float:
    """Watts a device has for its peak, over those of the device its architecture's pace was fitted on; 1 where unknown."""
    peak = device.peak_dense_flop_per_s.get("bf16") or device.peak_dense_flop_per_s.get("fp16")
    usual = watts.get(kin(device))
    if peak is None or usual is None or device.tdp_w is None:
        return 1.0
    return min(max(device.tdp_w / (peak / 1e12) / usual, 0.4), 1.25)


def _tables(path: str = "") -> dict[str, Any]:
    if not path:
        return read_toml(os.path.join(FITTED, FILE))
    from capacity.errors import FileFormatError

    try:
        tables = read_toml(path)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"--stack {path}: cannot be read ({str(error)[:80]})") from None
    if not {"stack", "generation", "pace", "interval"} <= set(tables):
        raise FileFormatError(
            f"--stack {path}: holds no training stacks; `capacity calibrate training` writes such a file"
        )
    return tables
