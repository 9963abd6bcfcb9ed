"""Every op of a step on the device's roofline: work for a byte, and the pace its kernel law says."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import (
    INK,
    QUIET,
    SERIES,
    Sheet,
    named_above,
    plain_ticks,
    quiet,
    round_numbers,
    shortened,
    tick,
)
from capacity.reporting.figures.shown import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capacity.formula import Call
    from capacity.reporting.figures.shown import Shown

# The value whose ledger holds the kernels, and what it is, for each kind of work.
_OF = {"step_time": "a training step", "tpot": "a decoding step", "latency": "a batch"}
_KERNELS = ("gemm_time_s", "attention_time_s")
_LABELLED = 5
_ONE_SPOT = 0.1  # decades
# Where under a value its own kernels hang; what else is there is others' work that it waits for.
_OWN = {"tpot": {"decode_step_s"}}


def roofline(shown: Shown, measured: Sequence[dict[str, Any]] = ()) -> Drawing | None:
    """Ops that multiply, by work for a byte and pace; nothing without a ledger.

    measured: kernels that were measured on the device, {"op", "flop_per_byte", "flop_per_s"}.
    """
    name = next((one for one in _OF if one in shown.part.quantities), "")
    value = shown.found.get(f"{shown.mode}.{name}")
    if value is None:
        return None
    rows, other, together = _rows(shown, name, value)
    if not rows:
        return None
    ridge = rows[0]["peak_flop_per_s"] / rows[0]["memory_bytes_per_s"]
    below = sum(row["share"] for row in rows if row["flop_per_byte"] < ridge)
    above = sum(row["share"] for row in rows) - below
    return Drawing(
        name="roofline",
        title=f"Roofline of {_OF[name]}",
        caption=f"Each mark is an op as one device sees it, its size the share of kernel time. {above:.0%} of that time is spent right of the ridge, "
        f"where arithmetic binds, {below:.0%} left of it, where memory does; {other / together:.0%} goes to kernels that only move bytes and have no place here.",
        alt=f"Roofline of {_OF[name]}: {len(rows)} ops, ridge at {ridge:.0f} FLOP a byte, {above:.0%} of the time right of it.",
        rows=(*rows, *measured),
        draw=draw,
    )


def _rows(shown: Shown, name: str, value: float) -> tuple[list[dict[str, Any]], float, float]:
    """Ops by name, pass and place; the seconds of kernels without products; the seconds of all."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    other = together = 0.0
    for call, times, path in calls(value):
        seconds = float(call.value) * times
        kernel = _kernel(shown, call)
        if kernel is None or seconds <= 0.0 or not _OWN.get(name, set(path)) & set(path):
            continue
        work, moved, peak, bandwidth = kernel
        together += seconds
        if work == 0.0 or moved == 0.0:
            other += seconds
            continue
        phase = next((one for one in ("forward", "backward") if one in path), "")
        key = (_named(call, path), phase, f"{work / moved:.4g} {work / float(call.value):.4g}")
        row = found.setdefault(
            key,
            {
                "op": key[0], "way": phase, "flop_per_byte": work / moved, "flop_per_s": work / float(call.value), "seconds": 0.0,
                "peak_flop_per_s": peak, "memory_bytes_per_s": bandwidth,
            },
        )  # fmt: skip
        row["seconds"] += seconds
    rows = sorted(found.values(), key=lambda row: -row["seconds"])
    for row in rows:
        row["share"] = row["seconds"] / together
    return rows, other, together


def _kernel(shown: Shown, call: Call) -> tuple[float, float, float, float] | None:
    """Work and bytes of a kernel on the device, and its device's peak and bandwidth; None for any other call."""
    inputs = call.inputs
    if call.formula.name == "kernel_time_s":  # a kernel of an engine: work and bytes as times at the datasheet's rates
        ridge = shown.value("ridge_point")
        if ridge is None or str(getattr(inputs["share_of_bandwidth"], "label", "")).endswith("link"):
            return None
        bandwidth = _bandwidth(shown)
        return (
            float(inputs["work_s"]) * ridge * bandwidth,
            float(inputs["memory_s"]) * bandwidth,
            ridge * bandwidth,
            bandwidth,
        )
    if call.formula.name in _KERNELS:
        return (
            _work(call),
            float(inputs["moved_bytes"]),
            float(inputs["peak_flop_per_s"]),
            float(inputs["memory_bytes_per_s"]),
        )
    if call.formula.name == "memory_bound_time_s":
        return 0.0, float(inputs["moved_bytes"]), 0.0, float(inputs["memory_bytes_per_s"])
    return None


def _bandwidth(shown: Shown) -> float:
    from capacity.estimators.case import read_case

    return float(read_case(shown.request or {}).cluster.device.memory_bytes_per_s)


def _work(call: Call) -> float:
    inputs = call.inputs
    if call.formula.name == "attention_time_s":
        return float(inputs["work_flop"])
    return float(inputs["flop_per_mac"]) * float(inputs["m"]) * float(inputs["n"]) * float(inputs["k"])


def _named(call: Call, path: tuple[str, ...]) -> str:
    """What the op is called in the table of ops."""
    label = str(getattr(call.inputs.get("m"), "label", ""))
    if label.startswith("rows of "):
        return label.removeprefix("rows of ").rpartition(".")[2]
    last = [name.rpartition(".")[2] for name in path if "." in name]
    return last[-1] if last else "attention core"


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Marks under the roof; measured ones, where rows have them, are hollow."""
    ops = [row for row in rows if "share" in row]
    measured = [row for row in rows if "share" not in row]
    peaks = sorted({(row["peak_flop_per_s"], row["memory_bytes_per_s"]) for row in ops}, reverse=True)
    reach = [*(row["flop_per_byte"] for row in rows), *(peak / band for peak, band in peaks)]
    left, right = min(reach) / 4.0, max(reach) * 3.0
    sheet = Sheet(3.5)
    axes = sheet.axes(1, 1, 1)
    for peak, band in peaks:
        ridge = peak / band
        axes.plot([left, ridge, right], [band * left, peak, peak], color=INK, linewidth=1.3, zorder=1)
        axes.annotate(
            said.value(peak, "FLOP/s"),
            (right, peak),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=QUIET,
        )
        axes.plot([ridge, ridge], [peak, band * left], color=QUIET, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
    band = peaks[0][1]
    axes.annotate(
        said.value(band, "byte/s"),
        (left * 2.0, band * left * 2.0),
        xytext=(7, -2),
        textcoords="offset points",
        ha="left",
        va="top",
        color=QUIET,
    )
    bottom = min(*(row["flop_per_s"] for row in rows), band * left * 4.0) / 5.0
    for row in reversed(ops):
        place = int(row["way"] == "backward")
        mark = axes.scatter(
            row["flop_per_byte"], row["flop_per_s"], s=14.0 + 420.0 * row["share"], marker="os"[place], color=SERIES[(0, 1)[place]], alpha=0.75,
            linewidths=0.6, edgecolors="white", zorder=3,
        )  # fmt: skip
        sheet.tip(
            mark,
            f"{row['op']} {row['way']}: {row['flop_per_byte']:.3g} FLOP/byte, {said.value(row['flop_per_s'], 'FLOP/s')}, "
            f"{row['share']:.1%} of kernel time",
        )
    for row in measured:
        axes.scatter(
            row["flop_per_byte"],
            row["flop_per_s"],
            s=16,
            marker="D",
            facecolors="none",
            edgecolors=SERIES[2],
            linewidths=1.0,
            zorder=2,
        )
    if any(row["way"] == "backward" for row in ops) or measured:
        kinds = (
            [("o", SERIES[0], "forward", True), ("s", SERIES[1], "backward", True)]
            if any(row["way"] for row in ops)
            else [("o", SERIES[0], "predicted", True)]
        )
        kinds += [("D", SERIES[2], "measured", False)] if measured else []
        for shape, colour, text, filled in kinds:
            axes.scatter([], [], s=30, marker=shape, color=colour if filled else "none", edgecolors=colour, label=text)
        axes.legend(loc="lower right", handletextpad=0.2)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(left, right),
        ylim=(bottom, peaks[0][0] * 2.2),
        xlabel="work for a byte moved, FLOP/byte",
    )
    named_above(axes, "pace")
    _label(axes, ops)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis, "FLOP/s")
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        unit = "1" if axis is axes.xaxis else "FLOP/s"
        axis.set_ticks(ticks := round_numbers(low, high), labels=[tick(one, unit) for one in ticks])
    quiet(axes, keep="left bottom")
    return sheet


def _label(axes: Any, ops: list[dict[str, Any]]) -> None:
    """Name the largest marks; those that lie on one another share a line."""
    spots: list[list[dict[str, Any]]] = []
    for row in ops:
        near = next((spot for spot in spots if _distance(spot[0], row) < _ONE_SPOT), None)
        if near is not None:
            near.append(row)
        else:
            spots.append([row])
    chosen = sorted(spots, key=lambda spot: -sum(row["share"] for row in spot))[:_LABELLED]
    low, high = (log10(end) for end in axes.get_xlim())
    bottom, top = (log10(end) for end in axes.get_ylim())
    line = 0.63
    for spot in sorted(chosen, key=lambda spot: -spot[0]["flop_per_byte"]):
        line = min(line - 0.07, (log10(spot[0]["flop_per_s"]) - bottom) / (top - bottom) - 0.08)
        names = list(dict.fromkeys(row["op"] for row in spot))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        text = f"{shortened(', '.join(names[:3]), 36)}{more}  {sum(row['share'] for row in spot):.0%}"
        right = log10(spot[0]["flop_per_byte"]) < (low + high) / 2.0
        axes.annotate(
            text, (spot[0]["flop_per_byte"], spot[0]["flop_per_s"]), xytext=(spot[0]["flop_per_byte"] * (1.12 if right else 0.89), max(line, 0.05)),
            textcoords=axes.get_xaxis_transform(), ha="left" if right else "right", va="top", color=INK, fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": (0.0 if right else 1.0, 0.8)},
        )  # fmt: skip


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """In decades of both axes."""
    return max(abs(log10(one[name] / other[name])) for name in ("flop_per_byte", "flop_per_s"))
