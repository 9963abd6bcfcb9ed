"""What makes the intervals: each uncertain input at the ends of its range, the others in the middle."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, SERIES, Sheet, quiet, shortened

if TYPE_CHECKING:
    from capacity.reporting.figures.shown import Shown

_QUANTITIES = (
    "run_time",
    "cost",
    "memory_per_device",
    "energy",
    "ttft",
    "tpot",
    "cost_per_million_tokens",
    "energy_per_token",
    "latency",
)
_MOST, _LEAST = 4, 0.005


def tornado(shown: Shown) -> Drawing | None:
    """The share of each cause in the interval of the leading quantities, as a range."""
    rows: list[dict[str, Any]] = []
    names = [name for name in _QUANTITIES if f"{shown.mode}.{name}" in shown.answer.sensitivities][:_MOST]
    for name in names:
        quantity = shown.part.quantities[name]
        down, up = log(quantity.low / quantity.mid), log(quantity.high / quantity.mid)
        for cause, share in shown.answer.sensitivities[f"{shown.mode}.{name}"].items():
            if share > _LEAST:
                # Independent causes add in squares: a cause alone moves by the root of its share.
                reach = share**0.5
                rows.append(
                    {
                        "quantity": name,
                        "cause": cause,
                        "low": exp(down * reach) - 1.0,
                        "high": exp(up * reach) - 1.0,
                        "share": share,
                    }
                )
    if not rows:
        return None
    widest = max(rows, key=lambda row: row["high"] - row["low"])
    return Drawing(
        name="tornado",
        title="What the intervals are made of",
        caption="How far each uncertain input alone moves a result from its middle, at the ends of its own 90 % range; independent causes add in squares.",
        alt=f"Sensitivities: the widest is {widest['cause']} for {said.lower(said.label(widest['quantity']))}, {widest['low']:+.0%} to {widest['high']:+.0%}.",
        rows=tuple(rows),
        draw=draw,
    )


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Bars from the middle both ways, grouped by quantity, widest first."""
    names = list(dict.fromkeys(row["quantity"] for row in rows))
    sheet = Sheet(0.55 + 0.21 * (len(rows) + 1.2 * len(names)))
    axes = sheet.axes(1, 1, 1)
    place, ticks = 0.0, []
    low, high = min(row["low"] for row in rows), max(row["high"] for row in rows)
    room = 0.14 * (high - low)
    for name in names:
        axes.annotate(
            said.label(name),
            (0.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontweight="bold",
        )
        place += 1.0
        for row in sorted((row for row in rows if row["quantity"] == name), key=lambda row: -row["share"]):
            for side, colour in (("low", SERIES[0]), ("high", SERIES[1])):
                bar = axes.barh(place, row[side], height=0.68, color=colour)
                sheet.tip(
                    bar[0],
                    f"{said.label(name)}: {row['cause']} {row[side]:+.1%}, {row['share']:.0%} of the squared width",
                )
                axes.annotate(
                    f"{row[side]:+.0%}", (row[side], place), xytext=(3 if side == "high" else -3, 0), textcoords="offset points",
                    ha="left" if side == "high" else "right", va="center", color=QUIET, fontsize=7.5,
                )  # fmt: skip
            ticks.append((place, shortened(row["cause"], 24)))
            place += 1.0
        place += 0.2
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks])
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.set(xlim=(low - room, high + room), ylim=(place - 0.3, -0.7))
    axes.set_xticks([0.0], ["middle"])
    quiet(axes, keep="")
    return sheet
