"""Names as a reader wants them: labels, column heads and values by the unit their name ends in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering.numbers import digits, show

if TYPE_CHECKING:
    from capacity.spec.estimate import Assumption, Estimate

CAPACITY = "device_memory"
HIDDEN = frozenset({CAPACITY})

_UNITS = (
    ("_flop_per_s", "FLOP/s"), ("_bytes_per_s", "byte/s"), ("_usd_per_hour", "USD/h"), ("_g_per_kwh", "g/kWh"),
    ("_usd", "USD"), ("_bytes", "byte"), ("_flop", "FLOP"), ("_bits", "bit"), ("_hz", "Hz"),
    ("_s", "s"), ("_w", "W"), ("_j", "J"), ("_g", "g"),
)  # fmt: skip
_ACRONYMS = {
    "mfu": "MFU", "flop": "FLOPs", "kv": "KV", "ttft": "TTFT", "tpot": "TPOT", "pue": "PUE", "usd": "USD", "hbm": "HBM",
    "lora": "LoRA", "zero": "ZeRO", "moe": "MoE", "mfu_share": "MFU", "id": "id",
}  # fmt: skip


def unit_of(name: str) -> tuple[str, str]:
    """A name without the unit it ends in, and that unit ("1" for a bare name)."""
    for ending, unit in _UNITS:
        if name.endswith(ending):
            return name[: -len(ending)], unit
    return name, "1"


def label(name: str) -> str:
    """`train.step_time_s` -> `Step time`."""
    bare = unit_of(name.rpartition(".")[2])[0] or name
    text = " ".join(_ACRONYMS.get(word, word) for word in bare.split("_") if word)
    return text[:1].upper() + text[1:]


def column(key: str) -> str:
    """The head of a table's column."""
    return label(key).lower() if label(key) not in _ACRONYMS.values() else label(key)


def value(what: Any, unit: str) -> str:
    """An assumption's value with its unit."""
    if isinstance(what, bool):
        return "yes" if what else "no"
    if isinstance(what, (int, float)):
        return show(float(what), unit) if unit else digits(float(what))
    return f"{what} {unit}".rstrip() if unit not in ("", "1") else str(what)


def cell(key: str, what: Any) -> str:
    """A table's cell, its unit read from the column's key."""
    if what is None:
        return "–"
    return value(what, unit_of(key)[1])


def model_line(facts: dict[str, Any]) -> tuple[str, list[str]]:
    """The model's name, and its other facts in a few words each."""
    rest = [f"{label(name).lower()} {value(what, unit_of(name)[1])}" for name, what in facts.items() if name != "name"]
    return str(facts.get("name", "model")), rest


def leading(estimate: Estimate, most: int) -> list[Assumption]:
    """The assumptions to show first: those that make the intervals, then the user's, then the least certain."""
    weight: dict[str, float] = {}
    for shares in estimate.sensitivities.values():
        for name, share in shares.items():
            weight[name] = max(weight.get(name, 0.0), share)
    order = {"user": 0.4, "inferred": 0.3, "default": 0.2, "measured": 0.1}
    ranked = sorted(
        estimate.assumptions, key=lambda one: -(weight.get(one.name, 0.0) or order.get(one.tag, 0.0))
    )
    return ranked[:most]
