"""Many cases at once: a quantity over what was turned, and what one quantity costs in another."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import (
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

# What is told of a case, the leading ones first: heading and unit.
QUANTITIES = {
    "run_time": ("Run", "s"), "tpot": ("Next token", "s"), "ttft": ("First token", "s"), "cost": ("Cost", "USD"),
    "cost_per_million_tokens": ("Cost a M tokens", "USD"), "memory_per_device": ("Memory", "byte"), "step_time": ("Step", "s"),
    "tokens_per_s": ("Tokens/s", "1/s"), "mfu": ("MFU", "fraction"), "energy": ("Energy", "J"), "energy_per_token": ("Energy a token", "J"),
    "carbon": ("Carbon", "g"),
}  # fmt: skip
# What is drawn against what, where nobody said: pairs that pull apart.
_PAIRS = (
    ("run_time", "memory_per_device"),
    ("tpot", "tokens_per_s"),
    ("step_time", "memory_per_device"),
    ("cost", "memory_per_device"),
)
_LOWER = frozenset(QUANTITIES) - {"tokens_per_s", "mfu"}
_MOST_LINES, _LEAST_POINTS, _MOST_ROWS = 6, 3, 4000


def varied(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The inputs that are not the same in all cases."""
    names = [name for name in rows[0] if "." not in name and name != "error"]
    return [name for name in names if len({str(row.get(name)) for row in rows}) > 1]


def _numbers(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return sorted(
        {
            float(row[name])
            for row in rows
            if isinstance(row.get(name), (int, float)) and not isinstance(row.get(name), bool)
        }
    )


def curves(rows: Sequence[dict[str, Any]], mode: str, turned: Sequence[str]) -> Drawing | None:
    """The leading quantity over the input with most values, a line for each value of the next; only for two inputs or one."""
    numeric = sorted(
        (name for name in turned if len(_numbers(rows, name)) >= _LEAST_POINTS),
        key=lambda name: -len(_numbers(rows, name)),
    )
    quantity = next(
        (name for name in QUANTITIES if sum(row.get(f"{mode}.{name}") is not None for row in rows) >= _LEAST_POINTS),
        None,
    )
    if not numeric or quantity is None or len(turned) > 2:
        return None
    across, other = numeric[0], next((name for name in turned if name != numeric[0]), "")
    data = tuple(
        {
            across: row[across],
            "line": f"{_spoken(other)} {said.value(row[other])}" if other else "",
            quantity: row[f"{mode}.{quantity}"],
        }
        for row in rows
        if row.get(f"{mode}.{quantity}") is not None
    )
    if len({row["line"] for row in data}) > _MOST_LINES:
        return None
    label = QUANTITIES[quantity][0]
    return Drawing(
        name="curves",
        title=f"{label} over {_spoken(across)}",
        caption=f"{len(data)} cases that fit" + (f", a line for each {_spoken(other)}." if other else "."),
        alt=f"{label} over {_spoken(across)}, {len(data)} cases.",
        rows=data,
        draw=partial(draw_curves, across=across, quantity=quantity),
    )


def draw_curves(rows: tuple[dict[str, Any], ...], *, across: str, quantity: str) -> Sheet:
    """Lines with their names at their ends."""
    unit = QUANTITIES[quantity][1]
    sheet = Sheet(2.9)
    axes = sheet.axes(1, 1, 1)
    for number, line in enumerate(dict.fromkeys(row["line"] for row in rows)):
        own = sorted((row for row in rows if row["line"] == line), key=lambda row: row[across])
        colour, mark = SERIES[number % len(SERIES)], MARKS[number % len(MARKS)]
        axes.plot([row[across] for row in own], [row[quantity] for row in own], color=colour)
        for row in own:
            point = axes.plot(row[across], row[quantity], marker=mark, markersize=4.5, color=colour)
            sheet.tip(point[0], f"{said.value(row[across])} {line}: {said.value(row[quantity], unit)}")
        if line:
            axes.plot([], [], marker=mark, markersize=4.5, color=colour, label=shortened(line, 26))
    _scales(axes, [row[across] for row in rows], "1", [row[quantity] for row in rows], unit)
    axes.set_xlabel(across.replace("_", " "))
    named_above(axes, said.lower(QUANTITIES[quantity][0]))
    if rows[0]["line"]:
        sheet.paper.legend(loc="outside upper right", ncols=3, handlelength=1.4)
    return sheet


def trade(rows: Sequence[dict[str, Any]], mode: str, turned: Sequence[str], goals: Sequence[str]) -> Drawing | None:
    """One quantity against another; cases that none beats in both are joined and named."""
    names = [goal.partition(".")[2] for goal in goals] if len(goals) > 1 else []
    known = {name for name in QUANTITIES if len(_numbers(rows, f"{mode}.{name}")) >= _LEAST_POINTS}
    names += [name for pair in _PAIRS if set(pair) <= known for name in pair]
    if len(names) < 2:
        return None
    across, up = names[0], names[1]
    cases = [row for row in rows[:_MOST_ROWS] if row.get(f"{mode}.{across}") and row.get(f"{mode}.{up}")]
    if len(cases) < _LEAST_POINTS:
        return None
    data = [
        {
            "case": ", ".join(
                f"{name.replace('_', ' ')} {said.value(row[name])}" for name in turned if row.get(name) is not None
            ),
            across: row[f"{mode}.{across}"],
            up: row[f"{mode}.{up}"],
        }
        for row in cases
    ]
    best = _front(data, across, up)
    told = tuple({**row, "unbeaten": place in best} for place, row in enumerate(data))
    labels = (_label(across), _label(up))
    return Drawing(
        name="trade",
        title=f"{labels[0]} against {said.lower(labels[1])}",
        caption=f"{len(told)} cases; the {len(best)} joined by a line are beaten by none in both.",
        alt=f"{labels[0]} against {said.lower(labels[1])} of {len(told)} cases, {len(best)} on the Pareto front.",
        rows=told,
        draw=partial(draw_trade, across=across, up=up),
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _label(name: str) -> str:
    return QUANTITIES[name][0] if name in QUANTITIES else said.label("." + name)


def _front(rows: Sequence[dict[str, Any]], across: str, up: str) -> set[int]:
    """Places of the rows that no other beats in both."""
    signs = [1.0 if name in _LOWER else -1.0 for name in (across, up)]
    order = sorted(range(len(rows)), key=lambda place: (signs[0] * rows[place][across], signs[1] * rows[place][up]))
    found, least = set(), float("inf")
    for place in order:
        if signs[1] * rows[place][up] < least:
            found.add(place)
            least = signs[1] * rows[place][up]
    return found


def draw_trade(rows: tuple[dict[str, Any], ...], *, across: str, up: str) -> Sheet:
    """Marks, the front joined; its ends and middle named."""
    units = [QUANTITIES.get(name, ("", "1"))[1] for name in (across, up)]
    sheet = Sheet(3.1)
    axes = sheet.axes(1, 1, 1)
    rest = [row for row in rows if not row["unbeaten"]]
    front = sorted((row for row in rows if row["unbeaten"]), key=lambda row: row[across])
    axes.scatter(
        [row[across] for row in rest], [row[up] for row in rest], s=12, color=SERIES[6], alpha=0.6, linewidths=0
    )
    axes.plot([row[across] for row in front], [row[up] for row in front], color=SERIES[0], linewidth=1.0)
    for row in front:
        mark = axes.plot(row[across], row[up], marker="o", markersize=5, color=SERIES[0])
        sheet.tip(
            mark[0],
            f"{row['case']}: {said.value(row[across], units[0])}, {said.value(row[up], units[1], binary=said.is_memory(up))}",
        )
    for row in {id(one): one for one in (front[0], front[len(front) // 2], front[-1])}.values():
        right = row is front[-1] and len(front) > 1
        axes.annotate(
            shortened(row["case"], 40),
            (row[across], row[up]),
            xytext=(-6 if right else 6, 7),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=7,
            color=INK,
        ).set_in_layout(False)
    _scales(
        axes, [row[across] for row in rows], units[0], [row[up] for row in rows], units[1], binary=said.is_memory(up)
    )
    axes.set_xlabel(said.lower(_label(across)))
    named_above(axes, said.lower(_label(up)))
    return sheet


def _scales(
    axes: Any, across: Sequence[float], x_unit: str, up: Sequence[float], y_unit: str, *, binary: bool = False
) -> None:
    """Logarithmic axes where the numbers span more than a few times themselves, else plain ones; ticks in one unit."""
    for axis, values, unit, two in ((axes.xaxis, across, x_unit, False), (axes.yaxis, up, y_unit, binary)):
        low, high = min(values), max(values)
        factor, name = _step(high, unit, binary=two)
        if low > 0.0 and high / low > 4.0:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            plain_ticks(axis, unit)
            ticks = round_numbers(low * 0.95 / factor, high * 1.05 / factor)
        else:
            (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(
                low - 0.06 * (high - low or low), high + 0.1 * (high - low or low)
            )
            ticks = [
                value
                for value in MaxNLocator(5).tick_values(low / factor, high / factor)
                if low * 0.97 <= value * factor <= high * 1.1
            ]
        axis.set_ticks(
            [one * factor for one in ticks],
            labels=[f"{said.value(one) if one < 1e4 else tick(one)}{name}" for one in ticks],
        )
    axes.grid(color=RULE)
    axes.tick_params(colors=QUIET)
    quiet(axes)


def _step(largest: float, unit: str, *, binary: bool) -> tuple[float, str]:
    """What a tick of 1 stands for, and the unit after it."""
    if unit == "s":
        return next(
            (size, f" {name}")
            for size, name in ((86400.0, "d"), (3600.0, "h"), (1.0, "s"), (1e-3, "ms"), (0.0, "s"))
            if largest > 2.0 * size or not size
        )
    if unit == "byte":
        return (2.0**30, " GiB") if binary else (1e9, " GB")
    return (0.01, " %") if unit == "fraction" else (1.0, " USD" if unit == "USD" else "")
