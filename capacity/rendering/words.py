"""Names and numbers as a reader wants them: labels, column heads, values by the unit their name ends in."""

from __future__ import annotations

from capacity.quantities import format as shown
from capacity.quantities import format_exact, format_interval, spellings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.spec.estimate import Quantity

_ACRONYMS = {
    "mfu": "MFU", "mbu": "MBU", "flop": "FLOPs", "kv": "KV", "ttft": "TTFT", "tpot": "TPOT", "pue": "PUE",
    "usd": "USD", "hbm": "HBM", "lora": "LoRA", "zero": "ZeRO", "moe": "MoE", "gemm": "GEMM", "tdp": "TDP",
    "l2": "L2", "co2": "CO2", "slo": "SLO", "hfu": "HFU", "cpu": "CPU", "gpu": "GPU", "tp": "TP", "pp": "PP", "dp": "DP",
    "ep": "EP", "cp": "CP", "mtp": "MTP",
}  # fmt: skip
# The unit a name ends in; the longest ending that fits is the one meant.
_UNITS = {
    "_flop_per_s": "FLOP/s", "_bytes_per_s": "byte/s", "_per_s": "1/s", "_usd_per_hour": "USD/h", "_g_per_kwh": "g/kWh",
    "_bytes": "byte", "_flop": "FLOP", "_usd": "USD", "_bits": "bit", "_hz": "Hz", "_s": "s", "_w": "W", "_j": "J", "_g": "g",
}  # fmt: skip
_LABELS = {
    "memory_per_device": "Memory", "cost_per_million_tokens": "Cost a M tokens",
    "cost_per_million_requests": "Cost a M requests",
    "cost_per_million_images": "Cost a M images", "tokens_per_s": "Tokens/s", "tokens_per_s_per_device": "Tokens/s a device", "flop_total": "FLOPs in all", "run_time": "Run", "kept_time": "Goodput",
    "activations_without_recomputation": "Activations, all kept",
    "activations_with_selective_recomputation": "Activations, selective", "activations_with_full_recomputation": "Activations, full",
}  # fmt: skip
_MEMORY = ("memory_per_device", "device_memory", "activations")
_LONGEST_COUNT, _LARGEST_COUNT = 7, 1e30


def unit_of(name: str) -> tuple[str, str]:
    """A name without the unit it ends in, and that unit; "1" for a bare name, which is a count."""
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return (name if unit == "1/s" else name[: -len(ending)]), unit
    return name, "1"


def label(name: str) -> str:
    """`train.step_time_s` -> `Step time`: without the section and the unit, acronyms as they are written."""
    bare = unit_of(name.rpartition(".")[2])[0]
    text = _LABELS.get(bare) or " ".join(_ACRONYMS.get(word, word) for word in bare.split("_") if word)
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    """A label inside a sentence: `Step time` -> `step time`, but `KV cache` stays."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def value(what: Any, unit: str = "1", *, binary: bool = False) -> str:
    """A value with its unit; a count keeps every digit while it is short; `binary` is GiB, not GB."""
    if what is None:
        return "–"
    if isinstance(what, bool):
        return "yes" if what else "no"
    if what == float("inf"):
        return "unlimited"
    if isinstance(what, (int, float)):
        exact = format_exact(float(what), unit) if unit == "1" and abs(what) < _LARGEST_COUNT else ""
        return exact if 0 < len(exact) <= _LONGEST_COUNT else shown(float(what), unit, binary=binary)
    if isinstance(what, (list, tuple)):
        return ", ".join(value(one, unit) for one in what)
    return f"{what} {unit}" if unit not in ("", "1") else str(what)


def together(sizes: Sequence[float], whole: float, unit: str, *, binary: bool = False) -> list[str]:
    """Sizes as numbers alone, all in the scale that the whole is printed in: parts that a reader can add up."""
    ends = (format_interval(size, whole, 2.0 * whole, unit, 3, binary=binary).partition(" (")[2] for size in sizes)
    return [end.partition(" – ")[0] for end in ends]


def scaled(what: float | None, unit: str) -> str:
    """A number alone, in the unit its column is headed by ("GiB", "TFLOP/s", "" for none)."""
    if what is None:
        return "–"
    above = unit.partition("/")[0]
    base = next((kind for kind in ("byte", "FLOP") if above in spellings(kind)), "")
    a, b = spellings(base)[above] if base else (1, 1)
    number = float(what) * b / a
    return f"{number:,.0f}" if number >= 100.0 else f"{number:.3g}"


def named(name: str, what: Any) -> str:
    """A value whose unit is in its name."""
    return value(what, unit_of(name)[1], binary=is_memory(name))


def is_memory(name: str) -> bool:
    """Whether bytes of this name lie in a device's memory: those are counted in GiB, as memory is built."""
    return name.startswith(_MEMORY)


def middle(quantity: Quantity) -> tuple[str, str]:
    """Number and unit of the middle: ("9.31", "d"), ("92.0K", "tok/s"), ("$0.31", "/Mtok")."""
    text = (
        value(quantity.mid, quantity.unit, binary=is_memory(quantity.name))
        .replace("token", "tok")
        .replace("FLOP/byte", "FLOP/B")
    )
    number, _, unit = text.partition(" ")
    number, slash, rest = number.partition("/")
    return number, slash + rest + unit


def spread(quantity: Quantity) -> str:
    """The 90 % interval in the scale of the middle, `8.1–10`; empty when the quantity is exact."""
    if quantity.exact:
        return ""
    binary = is_memory(quantity.name)
    ends = format_interval(quantity.low, quantity.mid, quantity.high, quantity.unit, binary=binary).partition(" (")[2]
    return ends.rstrip(")").replace(" – ", "–").replace("$", "")
