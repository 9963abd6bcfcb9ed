"""Where the memory, the time, the energy of an estimate go."""

from __future__ import annotations

from functools import partial

from capacity.rendering import words
from capacity.reporting.figures import Drawing, waterfall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.estimate import Quantity, Section

# Breakdowns of a section that are drawn: the quantity they add up to, their unit, and the words.
TIMES = {
    "time": (("step_time", "tpot", "latency"), "Where the time goes", "a step"),
    "prefill time": (("ttft",), "Where the time of a prompt goes", "a prompt"),
}
_SMALLEST = 0.004  # of the whole: what is less is drawn as one


def memory(section: Section) -> Drawing | None:
    """The parts of the memory of the fullest device against what it has."""
    parts = section.breakdowns.get("memory", {})
    full = section.quantities.get("device_memory")
    used = section.quantities.get("memory_per_device")
    if not parts or used is None:
        return None
    rows = _rows(parts, "in all", used)
    if full is not None:
        rows.append({"part": "device has", "value": full.mid, "unit": "byte"})
    largest = max(parts, key=lambda name: parts[name])
    return Drawing(
        name="memory",
        title="Memory of a device",
        caption="The fullest device, part by part; the whisker is the 90 % interval of the sum.",
        alt=f"Memory of a device: {words.value(used.mid, 'byte', binary=True)} in all"
        + (f" of {words.value(full.mid, 'byte', binary=True)}" if full else "")
        + f", most of it {largest}.",
        rows=tuple(rows),
        draw=partial(waterfall.draw, unit="byte", whole="in all", limit="device has", binary=True),
    )


def time(section: Section, kind: str = "time") -> Drawing | None:
    """The parts of a training step, of a decoding step, or of a prompt."""
    parts = section.breakdowns.get(kind, {})
    names, title, of = TIMES[kind]
    whole = next((section.quantities[name] for name in names if name in section.quantities), None)
    if not parts or whole is None:
        return None
    together = sum(parts.values())
    training = "step_time" in section.quantities
    # Loads of other requests stretch a token and a prompt beyond their own work; the parts are of that work.
    span = whole if training else None
    largest = max(parts, key=lambda name: parts[name])
    of = of if training or kind != "time" else "a decoding step"
    return Drawing(
        name=kind.replace(" ", "-"),
        title=title if training or kind != "time" else "Where the time of a decoding step goes",
        caption=f"Parts of {of}; the whisker is the 90 % interval of the sum."
        if span
        else f"Parts of {of}, alone on the devices.",
        alt=f"Parts of {of}, {words.value(together, 's')} in all; the largest is {largest} with {parts[largest] / together:.0%}.",
        rows=tuple(_rows(parts, "in all", span)),
        draw=partial(waterfall.draw, unit="s", whole="in all"),
    )


def _rows(parts: dict[str, float], whole: str, quantity: Quantity | None) -> list[dict[str, Any]]:
    """The parts in their order, small ones put together, and the sum."""
    together = sum(parts.values())
    shown = {name: value for name, value in parts.items() if value >= _SMALLEST * together}
    rest = together - sum(shown.values())
    rows: list[dict[str, Any]] = [{"part": name, "value": float(value)} for name, value in shown.items()]
    small = [name for name, value in parts.items() if 0.0 < value < _SMALLEST * together]
    if small:
        rows.append({"part": small[0] if len(small) == 1 else f"{len(small)} small parts", "value": rest})
    ends = {"low": quantity.low, "high": quantity.high} if quantity is not None else {}
    return [*rows, {"part": whole, "value": together, **ends}]
