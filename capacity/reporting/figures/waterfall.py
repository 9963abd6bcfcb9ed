"""Parts that add up to a whole, one below the other: each begins where the one before ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures.canvas import BAND, INK, QUIET, RULE, SERIES, Sheet, quiet, shortened, words

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW = 0.235  # inches


def draw(rows: Sequence[dict[str, Any]], *, unit: str, whole: str, limit: str = "", binary: bool = False) -> Sheet:
    """A bar for each part, the sum with its interval below, and a line for what may not be passed.

    rows: {"part", "value"}, and "low", "high" on the row of the whole, named `whole`; a row named `limit` is the line.
    """
    parts = [row for row in rows if row["part"] not in (whole, limit)]
    total = next(row for row in rows if row["part"] == whole)
    line = next((row["value"] for row in rows if limit and row["part"] == limit), None)
    scale, name = _scale(max(total["value"], line or 0.0), unit, binary=binary)
    sheet = Sheet(0.62 + ROW * (len(parts) + 1.6))
    axes = sheet.axes(1, 1, 1)
    start, last = 0.0, len(parts)
    end = max(total.get("high") or 0.0, total["value"], line or 0.0)
    for place, row in enumerate(parts):
        bar = axes.barh(place, row["value"] / scale, left=start / scale, height=0.66, color=SERIES[0])
        share = row["value"] / total["value"] if total["value"] else 0.0
        text = said.value(row["value"], unit, binary=binary)
        sheet.tip(bar[0], f"{row['part']}: {text}, {share:.1%}")
        after = start + max(row["value"], 0.0)
        _number(axes, place, start, after, end, scale, f"{text}  {share:.0%}")
        if place + 1 < last:
            axes.plot([after / scale] * 2, [place + 0.33, place + 0.67], color=RULE, linewidth=0.8)
        start = after
    bar = axes.barh(last, total["value"] / scale, height=0.66, color=INK)
    sheet.tip(bar[0], f"{whole}: {said.value(total['value'], unit, binary=binary)}")
    right = total["value"]
    if total.get("low") is not None and total["high"] > total["low"]:
        reach = [[(total["value"] - total["low"]) / scale], [(total["high"] - total["value"]) / scale]]
        axes.errorbar(total["value"] / scale, last, xerr=reach, color=QUIET, capsize=3, elinewidth=1.4, capthick=1.4)
        right = total["high"]
    _number(axes, last, 0.0, right, end, scale, said.value(total["value"], unit, binary=binary), weight="bold")
    if line is not None:
        axes.axvline(line / scale, color=SERIES[1], linewidth=1.4, zorder=0)
        axes.axvspan(line / scale, end * 1.4 / scale, color=BAND, zorder=-1, linewidth=0)
        near = line > 0.75 * end
        axes.annotate(
            f"{limit} {said.value(line, unit, binary=binary)}", (line / scale, -0.75), xytext=(-4 if near else 4, 0), textcoords="offset points",
            ha="right" if near else "left", va="center", color=SERIES[1],
        )  # fmt: skip
    labels = [shortened(row["part"], 26) for row in parts]
    axes.set_yticks(range(last + 1), [*labels, words(whole)])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.set(ylim=(last + 0.6, -1.15), xlim=(0.0, end * 1.2 / scale), xlabel=name)
    quiet(axes)
    return sheet


def _number(
    axes: Any, place: float, left: float, right: float, end: float, scale: float, text: str, **more: Any
) -> None:
    """The value of a bar, on the side of it that has room."""
    if right > 0.72 * end and left > 0.3 * end:
        axes.annotate(
            text, (left / scale, place), xytext=(-4, 0), textcoords="offset points", ha="right", va="center", **more
        )
    else:
        axes.annotate(
            text, (right / scale, place), xytext=(4, 0), textcoords="offset points", ha="left", va="center", **more
        )


def _scale(largest: float, unit: str, *, binary: bool) -> tuple[float, str]:
    """What one step of the axis is in base units, and what the axis is called."""
    text = said.value(largest, unit, binary=binary)
    number, _, name = text.partition(" ")
    if text.startswith("$"):
        letter = text[-1] if text[-1].isalpha() else ""
        return {"K": 1e3, "M": 1e6, "B": 1e9}.get(letter, 1.0), f"{letter} USD".strip()
    digits = "".join(one for one in number if one.isdigit() or one == ".")
    shown = float(digits or 1.0)
    step = {"K": 1e3, "M": 1e6, "B": 1e9}.get(number[-1:], 0.0)
    if step:
        return step, f"{number[-1]} {name}".strip()
    exact = {
        "GiB": 2.0**30,
        "MiB": 2.0**20,
        "TiB": 2.0**40,
        "ms": 1e-3,
        "µs": 1e-6,
        "s": 1.0,
        "min": 60.0,
        "h": 3600.0,
        "d": 86400.0,
    }
    return exact.get(name, largest / shown if shown else 1.0), name
