"""Ways to make a model smaller, side by side: size, speed, energy, and what was published of the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, RULE, SERIES, Sheet, quiet, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 20
_PANELS = (
    ("memory", "memory, GiB", 2.0**-30), ("tokens_per_s", "tokens a second", 1.0), ("energy", "J a token", 1.0), ("perplexity", "perplexity, +%", 100.0),
)  # fmt: skip
_FIELDS = {"memory": "memory_per_device", "tokens_per_s": "tokens_per_s_per_user", "energy": "energy_per_token"}


def compression(methods: Sequence[dict[str, Any]]) -> Drawing | None:
    """A row for each method that fits, in the order given; intervals as bars."""
    rows: list[dict[str, Any]] = []
    for method in methods:
        if len(rows) == _MOST:
            break
        if method.get("memory_per_device") is None:
            continue
        row: dict[str, Any] = {
            "method": "as it is" if method["method"] == "none" else method["method"],
            "fits": method["fits"],
            "reached": method["reached"],
        }
        for name, field in _FIELDS.items():
            quantity = method.get(field) or {}
            row |= {name: quantity.get("mid"), f"{name}_low": quantity.get("low"), f"{name}_high": quantity.get("high")}
        loss = next((one for one in method.get("quality") or () if one["metric"] == "perplexity"), None)
        baseline = method.get("quality") == []
        row |= {
            "perplexity": loss["mid"] if loss else 0.0 if baseline else None,
            "perplexity_low": loss["low"] if loss else None,
            "perplexity_high": loss["high"] if loss else None,
        }
        rows.append(row)
    if not rows:
        return None
    return Drawing(
        name="compression",
        title="Size, speed, energy and loss of each method",
        caption="Bars are 90 % intervals, of the loss the range of what was published; a method without a mark there has no published measurement. "
        "Filled marks reach the targets, hollow ones do not; red ones do not fit on the device.",
        alt=f"{len(rows)} methods of compression: "
        + ", ".join(f"{row['method']} {row['memory'] / 2.0**30:.3g} GiB" for row in rows[:6])
        + ".",
        rows=tuple(rows),
        draw=draw,
    )


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A panel for each number, a line for each method."""
    panels = [panel for panel in _PANELS if any(row[panel[0]] is not None for row in rows)]
    sheet = Sheet(0.55 + 0.2 * len(rows))
    for place, (name, label, factor) in enumerate(panels):
        axes = sheet.axes(1, len(panels), place + 1)
        for line, row in enumerate(rows):
            axes.axhline(line, color=RULE, linewidth=0.5, zorder=0)
            if row[name] is None:
                continue
            colour = SERIES[0] if row["fits"] else SERIES[1]
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            if low is not None and high is not None:
                axes.plot([low * factor, high * factor], [line, line], color=colour, linewidth=1.0, alpha=0.55)
            mark = axes.plot(
                row[name] * factor,
                line,
                marker="o",
                markersize=5,
                color=colour,
                markerfacecolor=colour if row["reached"] else "white",
            )
            sheet.tip(
                mark[0],
                f"{row['method']}: {said.scaled(row[name] * factor, '')} {label}"
                + ("" if row["fits"] else ", does not fit"),
            )
        axes.set_yticks(range(len(rows)), [shortened(row["method"], 20) for row in rows] if place == 0 else [])
        axes.set(ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_title(label, fontsize=8, fontweight="normal", color=QUIET)
        axes.locator_params(axis="x", nbins=3)
        quiet(axes)
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
    return sheet
