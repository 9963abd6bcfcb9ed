"""What a user sees against what a device yields: latency and throughput as more requests are in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import CapacityError
from capacity.quantities import parse
from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, RULE, SERIES, Sheet, plain_ticks, quiet, round_numbers, tick
from capacity.reporting.figures.scaling import asked_again, base

if TYPE_CHECKING:
    from capacity.reporting.figures.shown import Shown

_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PANELS = (("ttft", "ttft_slo", "time to the first token"), ("tpot", "tpot_slo", "time to each next token"))


def pareto(shown: Shown) -> Drawing | None:
    """Time to the first and to each next token against tokens a second for each device, over requests in flight."""
    if shown.request is None or "tpot" not in shown.part.quantities:
        return None
    most = shown.value("most_concurrent") or 1.0
    asked = base(shown, "concurrency")
    if asked is None:
        asked = shown.value("running")
    devices = base(shown, "devices") or 1.0
    steps = sorted({*(one for one in _STEPS if one <= most), *([round(asked)] if asked else [])})
    rows: list[dict[str, Any]] = []
    for concurrency in steps:
        part = (
            shown.part if concurrency == asked and "request_rate" not in shown.request else _asked(shown, concurrency)
        )
        if part is None or "ttft" not in part.quantities:
            continue
        rate = part.quantities["tokens_per_s"].mid / devices
        row: dict[str, Any] = {
            "concurrency": concurrency,
            "tokens_per_s_per_device": rate,
            "asked": concurrency == asked,
        }
        for name, option, _ in _PANELS:
            quantity = part.quantities[name]
            row |= {f"{name}_s": quantity.mid, f"{name}_low_s": quantity.low, f"{name}_high_s": quantity.high}
            if option in shown.request:
                row[f"{option}_s"] = _seconds(shown.request[option])
        rows.append(row)
    if len(rows) < 3:
        return None
    return Drawing(
        name="pareto",
        title="Latency against throughput",
        caption="Each mark is a number of requests in flight on these devices (the number beside it); bars are 90 % intervals."
        + (" The line is the promise." if any(option in shown.request for _, option, _ in _PANELS) else ""),
        alt=f"Time to the first and next token against tokens a second for each device, {rows[0]['concurrency']} to {rows[-1]['concurrency']} requests in flight.",
        rows=tuple(rows),
        draw=draw,
    )


def _asked(shown: Shown, concurrency: int) -> Any:
    """The answer for a load of its own, in place of a rate of requests."""
    from capacity.record import replace

    loose = {
        name: value
        for name, value in (shown.request or {}).items()
        if name not in ("request_rate", "night", "percentile", "ttft_slo", "tpot_slo")
    }
    return asked_again(replace(shown, request=loose), concurrency=concurrency)


def _seconds(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return float(parse(str(value), "s"))
    except CapacityError:
        return None


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """Two panels that share what a device yields."""
    sheet = Sheet(2.75)
    for place, (name, option, label) in enumerate(_PANELS):
        axes = sheet.axes(1, 2, place + 1)
        across = [row["tokens_per_s_per_device"] for row in rows]
        down = [row[f"{name}_s"] for row in rows]
        errors = [
            [row[f"{name}_s"] - row[f"{name}_low_s"] for row in rows],
            [row[f"{name}_high_s"] - row[f"{name}_s"] for row in rows],
        ]
        axes.plot(across, down, color=SERIES[0], zorder=2)
        axes.errorbar(across, down, yerr=errors, fmt="none", ecolor=SERIES[0], elinewidth=0.8, alpha=0.6, zorder=1)
        for row in rows:
            mark = axes.plot(
                row["tokens_per_s_per_device"], row[f"{name}_s"], marker="o", markersize=5, color=SERIES[0], zorder=3
            )
            sheet.tip(
                mark[0],
                f"{row['concurrency']} requests: {label} {said.value(row[f'{name}_s'], 's')}, {said.value(row['tokens_per_s_per_device'], '1/s')} tokens a device",
            )
            note = axes.annotate(
                str(row["concurrency"]), (row["tokens_per_s_per_device"], row[f"{name}_s"]), xytext=(5, -9), textcoords="offset points", fontsize=7,
                color=INK if row["asked"] else QUIET, fontweight="bold" if row["asked"] else "normal",
            )  # fmt: skip
            note.set_in_layout(False)
            if row["asked"]:
                axes.plot(
                    row["tokens_per_s_per_device"],
                    row[f"{name}_s"],
                    marker="o",
                    markersize=11,
                    markerfacecolor="none",
                    markeredgecolor=INK,
                )
        promise = rows[0].get(f"{option}_s")
        if promise:
            axes.axhline(promise, color=SERIES[1], linewidth=1.2, zorder=0)
            axes.annotate(
                f"promise {said.value(promise, 's')}",
                (min(across), promise),
                xytext=(0, 3),
                textcoords="offset points",
                color=SERIES[1],
                va="bottom",
            )
        axes.set(xscale="log", yscale="log", xlabel="tokens a second, each device")
        axes.set_title(label, fontsize=8.5, fontweight="normal", color=QUIET)
        _ticks(axes, across, [row[f"{name}_low_s"] for row in rows] + [row[f"{name}_high_s"] for row in rows])
        axes.grid(color=RULE)
        axes.set_xlim(right=max(across) * 1.6)
        quiet(axes)
    return sheet


def _ticks(axes: Any, across: list[float], down: list[float]) -> None:
    for axis, values, unit in ((axes.xaxis, across, "1"), (axes.yaxis, down, "s")):
        plain_ticks(axis, unit)
        ticks = round_numbers(min(values) * 0.9, max(values) * 1.1)
        axis.set_ticks(ticks, labels=[tick(one, unit) for one in ticks])
