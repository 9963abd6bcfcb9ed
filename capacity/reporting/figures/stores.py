"""Measured kernels: on the roofline of their machine, and of one machine or day against another."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import (
    BAND,
    INK,
    MARKS,
    QUIET,
    RULE,
    SERIES,
    Sheet,
    named_above,
    plain_ticks,
    quiet,
    round_numbers,
    shortened,
    tick,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST = 3


def measured_points(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Kernels with work and bytes as marks of a roofline."""
    return [
        {
            "op": case["case"], "kernel": case["kernel"], "dtype": case.get("dtype", ""), "flop_per_byte": case["flop"] / case["moved_bytes"],
            "flop_per_s": case["flop"] / case["seconds"], "seconds": case["seconds"],
        }
        for case in data["cases"]
        if case.get("flop") and case.get("moved_bytes") and case["kernel"] not in ("training", "inference")
    ]  # fmt: skip


def roofline(data: dict[str, Any]) -> Drawing | None:
    """Every measured kernel under the rates that the machine reached."""
    points = measured_points(data)
    band = data["reached"].get("memory, byte/s")
    peaks = {
        name.removeprefix("products in ").partition(",")[0]: rate
        for name, rate in data["reached"].items()
        if name.startswith("products")
    }
    if len(points) < _FEWEST or not band or not peaks:
        return None
    roofs = [
        {"op": "roof", "dtype": dtype, "flop_per_s": peak, "memory_bytes_per_s": band} for dtype, peak in peaks.items()
    ]
    return Drawing(
        name="measured-roofline",
        title="Measured kernels on their roofline",
        caption=f"{len(points)} kernels by work for a byte and pace; the roofs are the best rates measured on this machine, not a datasheet's. Marks above the slope came from the caches.",
        alt=f"{len(points)} measured kernels under roofs of "
        + ", ".join(f"{dtype} {said.value(peak, 'FLOP/s')}" for dtype, peak in peaks.items())
        + ".",
        rows=(*roofs, *points),
        draw=draw_roofline,
    )


def draw_roofline(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Marks by format under a roof for each."""
    roofs = [row for row in rows if row["op"] == "roof"]
    points = [row for row in rows if row["op"] != "roof"]
    low, high = min(row["flop_per_byte"] for row in points) / 2.0, max(row["flop_per_byte"] for row in points) * 2.0
    sheet = Sheet(3.8)
    axes = sheet.axes(1, 1, 1)
    order = [row["dtype"] for row in sorted(roofs, key=lambda row: -row["flop_per_s"])]
    for row in roofs:
        colour = SERIES[order.index(row["dtype"]) % len(SERIES)]
        ridge = row["flop_per_s"] / row["memory_bytes_per_s"]
        high = max(high, ridge * 2.0)
        axes.plot(
            [low, ridge, high * 4.0],
            [low * row["memory_bytes_per_s"], row["flop_per_s"], row["flop_per_s"]],
            color=colour,
            linewidth=1.0,
        )
        axes.annotate(f"{row['dtype']} {said.value(row['flop_per_s'], 'FLOP/s')}", (1.0, row["flop_per_s"]), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", color=colour, fontsize=7.5)  # fmt: skip
    for dtype in dict.fromkeys(row["dtype"] for row in points):
        own = [row for row in points if row["dtype"] == dtype]
        number = order.index(dtype) if dtype in order else len(order)
        axes.scatter(
            [row["flop_per_byte"] for row in own], [row["flop_per_s"] for row in own], s=9, marker=MARKS[number % len(MARKS)], color=SERIES[number % len(SERIES)],
            alpha=0.65, linewidths=0, zorder=3,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="work for a byte moved, FLOP/byte")
    named_above(axes, "pace")
    for axis, limits, unit in ((axes.xaxis, axes.get_xlim(), "1"), (axes.yaxis, axes.get_ylim(), "FLOP/s")):
        plain_ticks(axis, unit)
        ticks = round_numbers(*limits)
        axis.set_ticks(ticks, labels=[tick(one, unit) for one in ticks])
    axes.set_xlim(low, high)
    quiet(axes, keep="left bottom")
    return sheet


def ratios(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Cases that both stores timed: how long the other takes as a share of the one, and whether the medians' intervals part."""
    known = {case["case"]: case for case in one["cases"]}
    return [
        {
            "case": case["case"], "kernel": case["kernel"], "one_s": known[case["case"]]["seconds"], "other_s": case["seconds"],
            "ratio": case["seconds"] / known[case["case"]]["seconds"],
            "apart": case["low_s"] > known[case["case"]]["high_s"] or case["high_s"] < known[case["case"]]["low_s"],
        }
        for case in other["cases"]
        if case["case"] in known
    ]  # fmt: skip


def comparison(rows: Sequence[dict[str, Any]], one: str, other: str) -> Drawing | None:
    """The ratio of every case, by kind of kernel."""
    if len(rows) < _FEWEST:
        return None
    middle = median(row["ratio"] for row in rows)
    return Drawing(
        name="comparison",
        title="One against the other",
        caption=f"Time in {other} over time in {one}, a tick for every case, a diamond for the median of its kind; left of the line {other} is faster. Grey: within 10 %.",
        alt=f"{len(rows)} cases timed in both: {other} takes {middle:.2f} times as long as {one} in the median.",
        rows=tuple(rows),
        draw=draw_comparison,
    )


def draw_comparison(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A lane for each kind of kernel."""
    kinds = sorted(
        {row["kernel"] for row in rows}, key=lambda kind: median(row["ratio"] for row in rows if row["kernel"] == kind)
    )
    sheet = Sheet(0.6 + 0.24 * len(kinds))
    axes = sheet.axes(1, 1, 1)
    axes.axvspan(0.9, 1.1, color=BAND, linewidth=0)
    axes.axvline(1.0, color=INK, linewidth=0.8)
    for place, kind in enumerate(kinds):
        values = [row["ratio"] for row in rows if row["kernel"] == kind]
        axes.axhline(place, color=RULE, linewidth=0.4, zorder=0)
        axes.plot(values, [place] * len(values), "|", color=SERIES[0], markersize=8, alpha=0.55)
        middle = median(values)
        mark = axes.plot(middle, place, marker="D", markersize=6, color=SERIES[1])
        sheet.tip(mark[0], f"{kind}: {middle:.3f} in the median of {len(values)}")
        axes.annotate(
            f"{middle:.2f}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=QUIET,
        )
    axes.set_yticks(
        range(len(kinds)), [f"{shortened(kind, 20)} ({sum(row['kernel'] == kind for row in rows)})" for kind in kinds]
    )
    for label in axes.get_yticklabels():
        label.set_color(INK)
    low, high = min(min(row["ratio"] for row in rows) * 0.9, 0.8), max(max(row["ratio"] for row in rows) * 1.1, 1.25)
    axes.set(xscale="log", xlim=(low, high), ylim=(len(kinds) - 0.4, -0.6))
    ticks = [one for one in (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0) if low <= one <= high]
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    quiet(axes, keep="")
    return sheet
