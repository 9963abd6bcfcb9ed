"""Names and numbers as a reader wants them: labels, column heads, values by the unit their name ends in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.quantities import format as shown
from capacity.quantities import format_exact, format_interval, spellings, unit_in_name

if TYPE_CHECKING:
    from capacity.spec.estimate import Assumption, Estimate, Quantity

_ACRONYMS = {
    "mfu": "MFU", "mbu": "MBU", "flop": "FLOPs", "kv": "KV", "ttft": "TTFT", "tpot": "TPOT", "pue": "PUE",
    "usd": "USD", "hbm": "HBM", "lora": "LoRA", "zero": "ZeRO", "moe": "MoE", "gemm": "GEMM", "tdp": "TDP",
    "l2": "L2", "co2": "CO2",
}  # fmt: skip
_UNIT_ENDINGS = (
    "_flop_per_s", "_bytes_per_s", "_tokens_per_s", "_usd_per_hour", "_g_per_kwh", "_bytes", "_usd", "_bits", "_hz", "_s",
    "_w", "_j", "_g",
)  # fmt: skip
_LONGEST_COUNT = 7
# How much an assumption matters where no sensitivity says: what the user gave is echoed, guesses are owned up to.
_TAG_WEIGHT = {"user": 0.04, "inferred": 0.03, "default": 0.02, "measured": 0.01}


def label(name: str) -> str:
    """`train.step_time_s` -> `Step time`: without the section and the unit, acronyms as they are written."""
    name = name.rpartition(".")[2]
    name = next((name.removesuffix(ending) for ending in _UNIT_ENDINGS if name.endswith(ending)), name)
    text = " ".join(_ACRONYMS.get(word, word) for word in name.split("_") if word)
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
    if isinstance(what, (int, float)):
        exact = format_exact(float(what), unit) if unit == "1" and what == what and abs(what) < 1e300 else ""
        return exact if 0 < len(exact) <= _LONGEST_COUNT else shown(float(what), unit, binary=binary)
    if isinstance(what, (list, tuple)):
        return ", ".join(value(one, unit) for one in what)
    return f"{what} {unit}" if unit not in ("", "1") else str(what)


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
    return value(what, unit_in_name(name))


def middle(quantity: Quantity) -> tuple[str, str]:
    """Number and unit of the middle: ("9.31", "d"), ("92.0K", "tok/s"), ("$0.31", "/Mtok")."""
    text = value(quantity.mid, quantity.unit).replace("token", "tok").replace("FLOP/byte", "FLOP/B")
    number, _, unit = text.partition(" ")
    number, slash, rest = number.partition("/")
    return number, slash + rest + unit


def spread(quantity: Quantity) -> str:
    """The 90 % interval in the scale of the middle, `8.1–10`; empty when the quantity is exact."""
    if quantity.exact:
        return ""
    ends = format_interval(quantity.low, quantity.mid, quantity.high, quantity.unit).partition(" (")[2]
    return ends.rstrip(")").replace(" – ", "–").replace("$", "")


def leading(estimate: Estimate, most: int) -> list[Assumption]:
    """The assumptions to show first: what makes the intervals, what the user gave, what was guessed."""
    weight: dict[str, float] = {}
    for shares in estimate.sensitivities.values():
        for name, share in shares.items():
            weight[name] = max(weight.get(name, 0.0), share)
    ranked = sorted(
        estimate.assumptions,
        key=lambda one: -max(weight.get(one.name, 0.0), _TAG_WEIGHT.get(one.tag, 0.0)),
    )
    return ranked[:most]
