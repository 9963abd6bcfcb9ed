"""What a plan was chosen from: layouts on the front, and why the next best lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, RULE, SERIES, Sheet, quiet, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEMORY = "memory_per_device_bytes"
# What a front is drawn by, the first that its options have.
_BY = ("run_time_s", "step_time_s", "tpot_s", "latency_s")
_NAMED = 5


def front(options: Sequence[dict[str, Any]], best: dict[str, Any]) -> Drawing | None:
    """Layouts that no other beats in everything, by time and memory; the chosen one is ringed."""
    name = next((one for one in _BY if one in best.get("values", {})), None)
    if name is None or len(options) < 3:
        return None
    rows = tuple(
        {
            "layout": _layout(one),
            name: one["values"][name],
            _MEMORY: one["values"][_MEMORY],
            "chosen": one["options"] == best["options"],
        }
        for one in options
        if one["values"].get(name) and one["values"].get(_MEMORY)
    )
    return Drawing(
        name="front",
        title="Layouts that no other beats",
        caption=f"{len(rows)} layouts of the Pareto front by {said.lower(said.label(name))} and memory; the ring is the one chosen.",
        alt=f"{len(rows)} layouts of the Pareto front, {said.lower(said.label(name))} against memory of a device; chosen is {_layout(best)}.",
        rows=rows,
        draw=draw_front,
    )


def _layout(option: dict[str, Any]) -> str:
    """The layout without the machines it stands on."""
    return str(option["setting"]).rpartition("; ")[2]


def draw_front(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Marks by memory and time, the fastest named."""
    name = next(key for key in rows[0] if key not in ("layout", _MEMORY, "chosen"))
    unit = said.unit_of(name)[1]
    scale, label = _axis(max(row[name] for row in rows), unit)
    sheet = Sheet(2.9)
    axes = sheet.axes(1, 1, 1)
    for row in rows:
        mark = axes.plot(
            row[_MEMORY] / 2.0**30, row[name] / scale, marker="o", markersize=5, color=SERIES[0], linestyle=""
        )
        sheet.tip(
            mark[0], f"{row['layout']}: {said.value(row[name], unit)}, {said.value(row[_MEMORY], 'byte', binary=True)}"
        )
        if row["chosen"]:
            axes.plot(
                row[_MEMORY] / 2.0**30,
                row[name] / scale,
                marker="o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=INK,
            )
    spread = sorted(rows, key=lambda row: row[_MEMORY])
    named = [row for row in rows if row["chosen"]] + spread[:: max(1, len(spread) // (_NAMED - 1))]
    seen: set[str] = set()
    for row in named:
        if row["layout"] in seen:
            continue
        seen.add(row["layout"])
        right = row[_MEMORY] > 0.5 * max(one[_MEMORY] for one in rows)
        axes.annotate(
            shortened(row["layout"], 48), (row[_MEMORY] / 2.0**30, row[name] / scale), xytext=(-8 if right else 6, 8), textcoords="offset points", fontsize=7,
            ha="right" if right else "left", color=INK if row["chosen"] else QUIET, fontweight="bold" if row["chosen"] else "normal",
        ).set_in_layout(False)  # fmt: skip
    axes.set(xlabel="memory of a device, GiB", xlim=(0.0, None))
    axes.set_title(f"{said.lower(said.label(name))}, {label}", fontsize=8.5, fontweight="normal", color=QUIET)
    axes.grid(color=RULE)
    quiet(axes)
    return sheet


def _axis(largest: float, unit: str) -> tuple[float, str]:
    """What one step of the axis is in base units, and its name."""
    text = said.value(largest, unit)
    name = text.partition(" ")[2]
    return {"ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0, "d": 86400.0}.get(name, 1.0), name or unit


def runner_up(terms: dict[str, float], unit: str = "s") -> Drawing | None:
    """What the next best layout gains and loses against the chosen one, part by part."""
    rows = tuple(
        {"part": name, "difference": value, "unit": unit}
        for name, value in sorted(terms.items(), key=lambda item: -abs(item[1]))
        if value
    )[:10]
    if not rows:
        return None
    part, lost = max(terms.items(), key=lambda item: item[1])
    return Drawing(
        name="runner-up",
        title="Why the next best lost",
        caption="Time of a step of the next best layout less that of the chosen one, part by part: to the right it loses, to the left it gains.",
        alt=f"The next best layout loses most in {part}: {said.value(lost, unit)}.",
        rows=rows,
        draw=draw_runner_up,
    )


def draw_runner_up(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Bars both ways from nought."""
    sheet = Sheet(0.35 + 0.23 * len(rows))
    axes = sheet.axes(1, 1, 1)
    reach = max(abs(row["difference"]) for row in rows)
    for place, row in enumerate(rows):
        worse = row["difference"] > 0.0
        bar = axes.barh(place, row["difference"], height=0.66, color=SERIES[1 if worse else 0])
        text = ("+" if worse else "−") + said.value(abs(row["difference"]), row["unit"])
        sheet.tip(bar[0], f"{row['part']}: {text}")
        axes.annotate(
            text,
            (row["difference"], place),
            xytext=(4 if worse else -4, 0),
            textcoords="offset points",
            ha="left" if worse else "right",
            va="center",
            color=QUIET,
        )
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [shortened(row["part"], 28) for row in rows])
    axes.set(
        xlim=(min(0.0, 1.35 * min(row["difference"] for row in rows)) - 0.3 * reach, 1.4 * reach),
        ylim=(len(rows) - 0.4, -0.6),
        xticks=[],
    )
    for label in axes.get_yticklabels():
        label.set_color(INK)
    quiet(axes, keep="")
    return sheet
