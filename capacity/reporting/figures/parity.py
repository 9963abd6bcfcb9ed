"""Predicted against measured, and how many of the intervals held."""

from __future__ import annotations

from functools import partial
from math import exp, log
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import (
    BAND,
    INK,
    MARKS,
    QUIET,
    SERIES,
    Sheet,
    named_above,
    plain_ticks,
    quiet,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_GROUPS, _OUTLIERS, _MOST_BARS, _FEWEST = 6, 6, 120, 12
# What parts the rows of a kind best, in this order.
_GROUPS = ("op", "class", "family", "kind", "stack", "engine", "source", "device")
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Of kinds whose rows name no metric.
_UNITS = {"kernels": "s", "training": "s", "memory": "byte"}
_NAMES = {
    "kernels": "kernel time", "training": "step time", "memory": "peak memory of a device",
    "step_time_s": "step time", "peak_memory_bytes": "peak memory", "tpot_ms": "time to each next token, ms", "ttft_ms": "time to the first token, ms",
}  # fmt: skip


def metrics(rows: Sequence[dict[str, Any]], kind: str) -> dict[str, list[dict[str, Any]]]:
    """Rows that were priced, by what they measure."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("mid") and row.get("measured"):
            found.setdefault(str(row.get("metric") or kind), []).append(row)
    return found


def parity(rows: Sequence[dict[str, Any]], metric: str) -> Drawing | None:
    """Predictions of one metric against what was measured, one mark a row; the rows furthest off by name."""
    if len(rows) < 2:
        return None
    group = next(
        (name for name in _GROUPS if 1 < len({row.get(name) for row in rows if row.get(name) is not None}) <= 40), ""
    )
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.get(group, ""))] = counts.get(str(row.get(group, "")), 0) + 1
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:_MOST_GROUPS]
    kept = kept if len(counts) <= _MOST_GROUPS else kept[: _MOST_GROUPS - 1]
    data = tuple(
        {
            "id": row.get("id"), "group": str(row.get(group, "")) if str(row.get(group, "")) in kept else "others",
            "measured": row["measured"], "low": row.get("low"), "mid": row["mid"], "high": row.get("high"),
        }
        for row in rows
    )  # fmt: skip
    within = sum(abs(row["mid"] / row["measured"] - 1.0) <= 0.2 for row in data) / len(data)
    held = sum(_held(row) for row in data) / len(data)
    return Drawing(
        name=f"parity-{metric.replace('_', '-')}",
        title=f"Predicted against measured: {_named(metric)}",
        caption=f"{len(data)} rows, {within:.0%} of them in the band of 20 % either way; {held:.0%} of the 90 % intervals hold what was measured. The rows furthest off are named.",
        alt=f"Predicted against measured {_named(metric)} of {len(data)} rows: {within:.0%} within 20 %, {held:.0%} inside the 90 % interval.",
        rows=data,
        draw=partial(draw_parity, unit=_UNITS.get(metric) or said.unit_of(metric)[1]),
    )


def _held(row: dict[str, Any]) -> bool:
    return row["low"] is not None and row["high"] is not None and bool(row["low"] <= row["measured"] <= row["high"])


def _named(metric: str) -> str:
    return _NAMES.get(metric, said.lower(said.label(metric)))


def draw_parity(rows: tuple[dict[str, Any], ...], unit: str = "1") -> Sheet:
    """Both axes in one scale, the band of 20 %, marks by group."""
    sheet = Sheet(5.1)
    axes = sheet.axes(1, 1, 1)
    ends = [row[name] for row in rows for name in ("measured", "mid")]
    low, high = min(ends) * 0.7, max(ends) * 1.45
    axes.fill_between([low, high], [low * 0.8, high * 0.8], [low * 1.2, high * 1.2], color=BAND, linewidth=0)
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8)
    groups = sorted(
        {row["group"] for row in rows},
        key=lambda name: (name == "others", -sum(row["group"] == name for row in rows), name),
    )
    small = len(rows) > _MOST_BARS
    for number, group in enumerate(groups):
        own = [row for row in rows if row["group"] == group]
        colour, mark = (
            (SERIES[6], "o") if group == "others" else (SERIES[number % len(SERIES)], MARKS[number % len(MARKS)])
        )
        if not small:
            errors = [
                [row["mid"] - (row["low"] or row["mid"]) for row in own],
                [(row["high"] or row["mid"]) - row["mid"] for row in own],
            ]
            axes.errorbar(
                [row["measured"] for row in own],
                [row["mid"] for row in own],
                yerr=errors,
                fmt="none",
                ecolor=colour,
                elinewidth=0.5,
                alpha=0.45,
                zorder=1,
            )
        across, up = [row["measured"] for row in own], [row["mid"] for row in own]
        if small:
            axes.scatter(across, up, s=9, marker=mark, color=colour, linewidths=0, alpha=0.6, zorder=2)
        else:
            for row in own:
                point = axes.scatter(
                    row["measured"],
                    row["mid"],
                    s=22,
                    marker=mark,
                    color=colour,
                    linewidths=0.4,
                    edgecolors="white",
                    zorder=2,
                )
                sheet.tip(point, f"{row['id']}: predicted {row['mid'] / row['measured']:.2f} of measured")
        axes.scatter(
            [],
            [],
            s=26,
            marker=mark,
            color=colour,
            label=f"{shortened(group, 30)} ({len(own)})" if group else f"{len(own)} rows",
        )
    _name_outliers(axes, rows)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="measured")
    named_above(axes, "predicted")
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis, unit)
    axes.set_box_aspect(1.0)
    if len(groups) > 1:
        sheet.paper.legend(loc="outside upper left", ncols=3, handletextpad=0.1, columnspacing=1.2, borderpad=0.2)
    quiet(axes, keep="left bottom")
    return sheet


def _name_outliers(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """The rows furthest off, listed in the corner on their side of the line."""
    off = sorted(rows, key=lambda row: -abs(log(row["mid"] / row["measured"])))[:_OUTLIERS]
    for above in (True, False):
        own = sorted(
            (row for row in off if (row["mid"] > row["measured"]) is above), key=lambda row: row["mid"], reverse=True
        )
        for place, row in enumerate(own):
            spot = (0.02, 0.985 - 0.042 * place) if above else (0.99, 0.025 + 0.042 * (len(own) - 1 - place))
            note = axes.annotate(
                f"{shortened(str(row['id']), 34)}  ×{row['mid'] / row['measured']:.2g}", (row["measured"], row["mid"]), xytext=spot, textcoords="axes fraction",
                ha="left" if above else "right", va="center", fontsize=6.5, color=INK,
                arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.4, "shrinkA": 1, "shrinkB": 2, "relpos": (1.0 if above else 0.0, 0.5)},
            )  # fmt: skip
            note.set_in_layout(False)


def calibration(found: dict[str, list[dict[str, Any]]]) -> Drawing | None:
    """How many intervals hold what was measured, at every level they could be stated at."""
    normal = NormalDist()
    rows: list[dict[str, Any]] = []
    for metric, own in found.items():
        priced = [row for row in own if row.get("low") and row.get("high")]
        if len(priced) < _FEWEST:
            continue
        for level in _LEVELS:
            # As wide as a 90 % interval would be at this level, were errors normal in their logarithm.
            stretch = normal.inv_cdf(0.5 + level / 2.0) / normal.inv_cdf(0.95)
            inside = sum(
                row["mid"] * exp(log(row["low"] / row["mid"]) * stretch)
                <= row["measured"]
                <= row["mid"] * exp(log(row["high"] / row["mid"]) * stretch)
                for row in priced
            )
            rows.append({"metric": metric, "stated": level, "held": inside / len(priced), "n": len(priced)})
    if not rows:
        return None
    stated = {row["metric"]: row["held"] for row in rows if row["stated"] == 0.9}
    return Drawing(
        name="calibration",
        title="Do intervals hold what they promise",
        caption="Share of rows inside their interval against the share that was stated; on the line is right, below it is overconfident. Intervals other than the stated 90 % "
        "are those, widened or narrowed as if errors were normal in their logarithm.",
        alt="Coverage of the 90 % intervals: "
        + ", ".join(f"{_named(name)} {held:.0%}" for name, held in stated.items())
        + ".",
        rows=tuple(rows),
        draw=draw_calibration,
    )


def draw_calibration(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A line for each metric against the diagonal."""
    sheet = Sheet(3.5)
    axes = sheet.axes(1, 1, 1)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8)
    axes.axvline(0.9, color=QUIET, linewidth=0.6, linestyle=(0, (2, 3)))
    for number, metric in enumerate(dict.fromkeys(row["metric"] for row in rows)):
        own = [row for row in rows if row["metric"] == metric]
        axes.plot(
            [row["stated"] for row in own], [row["held"] for row in own], marker=MARKS[number % len(MARKS)], markersize=4.5, color=SERIES[number % len(SERIES)],
            label=f"{shortened(_named(metric), 30)} ({own[0]['n']})",
        )  # fmt: skip
        for row in own:
            mark = axes.plot(row["stated"], row["held"], marker="o", markersize=7, alpha=0.0)
            sheet.tip(mark[0], f"{_named(metric)}: stated {row['stated']:.0%}, held {row['held']:.0%}")
    ticks = [0.0, 0.25, 0.5, 0.75, 0.9]
    axes.set(xlim=(0, 1.0), ylim=(0, 1.02), xlabel="stated")
    named_above(axes, "held")
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_box_aspect(1.0)
    sheet.paper.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2, borderpad=0.2)
    quiet(axes, keep="left bottom")
    return sheet
