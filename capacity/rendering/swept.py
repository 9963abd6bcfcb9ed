"""A sweep on one screen: how many cases, what became of them, and the rows worth looking at."""

from __future__ import annotations

from capacity.quantities import format as shown
from capacity.rendering import words
from capacity.rendering.layout import joined, table, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.rendering.style import Style

# Quantities beside the objectives: name, heading, unit. What has no room is left out from the end.
_COLUMNS = (
    ("step_time", "step", "s"),
    ("run_time", "run", "s"),
    ("memory_per_device", "memory", "byte"),
    ("cost", "cost", "USD"),
    ("mfu", "MFU", "fraction"),
    ("tpot", "next token", "s"),
    ("ttft", "first token", "s"),
    ("tokens_per_s", "tok/s", "1/s"),
    ("cost_per_million_tokens", "$ a M tok", "USD"),
    ("energy", "energy", "J"),
    ("carbon", "carbon", "g"),
)
_MOST_ROWS = 20


def screen(found: Any, style: Style) -> str:
    """The whole answer."""
    cases = found.rows - found.resumed
    pace = f"{cases:,} case{'' if cases == 1 else 's'} in {shown(max(found.seconds, 1e-3), 's')}"
    told = [pace]
    if found.resumed:
        told.append(f"{found.resumed:,} were there")
    if found.unfit:
        told.append(f"{found.unfit:,} do not fit")
    if found.errors:
        told.append(f"{found.errors:,} {'has' if found.errors == 1 else 'have'} no answer: the error column says why")
    if found.singly:  # counted by section: both of a row that is trained and served
        told.append(
            "priced one by one" if found.singly >= cases - found.errors else f"{found.singly:,} priced one by one"
        )
    lines = [style.paint("SWEEP", "bold"), *joined(told, style, "  ")]
    if found.output is not None:
        lines.append(f"  every row in {style.text(found.output)}")
    if found.lacking and found.errors < found.rows:
        lacking = f"! --columns: no row has {', '.join(found.lacking)}; --json of `capacity estimate` shows the names"
        lines += wrap(style.text(lacking), style.width)
    if len(found.shown):
        lines += ["", *_rows(found, style)]
    elif found.errors == found.rows:
        lines.append("  no row has an answer: see the error column")
    else:
        lines.append("  no row fits")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _rows(found: Any, style: Style) -> list[str]:
    frame = found.shown.head(_MOST_ROWS)
    section = found.goals[0].partition(".")[0] if found.goals else ""
    goals = [goal.partition(".")[2] for goal in found.goals]
    inputs = [name for name in frame.columns if "." not in name and name != "error"]
    varied = [name for name in inputs if frame[name].astype(str).nunique() > 1] or inputs[:1]
    units = {name: (heading, unit) for name, heading, unit in _COLUMNS}
    quantities = [*goals, *(name for name, _, _ in _COLUMNS if name not in goals)]
    quantities = [name for name in quantities if f"{section}.{name}" in frame.columns]
    quantities = [name for name in quantities if frame[f"{section}.{name}"].notna().any()]
    header = [[*varied, *(units.get(name, (name.replace("_", " "), ""))[0] for name in quantities)]]
    body = [
        [
            *(words.value(row[name]) if row[name] == row[name] else "" for name in varied),
            *(_value(row[f"{section}.{name}"], name, units) for name in quantities),
        ]
        for row in frame.to_dict("records")
    ]
    of = f", {len(frame)} of {len(found.shown)}" if len(frame) < len(found.shown) else ""
    title = f"none beats these in {' and '.join(goals)}{of}" if len(goals) > 1 else f"best {goals[0]} first"
    return [style.paint(title.replace("_", " "), "dim"), *table(header, body, style, "  ")]


def _value(what: float, name: str, units: dict[str, tuple[str, str]]) -> str:
    if what != what:
        return words.value(None)
    unit = units.get(name, ("", "1"))[1]
    if unit == "fraction":
        return f"{what:.1%}"
    return shown(what, unit, binary=words.is_memory(name))


def record(found: Any) -> dict[str, Any]:
    """Counts and the rows shown, as plain types."""
    rows = [
        {name: None if value != value else value for name, value in row.items()}
        for row in found.shown.to_dict("records")
    ]
    return {
        "schema": 1,
        "kind": "sweep",
        "cases": found.rows,
        "errors": found.errors,
        "unfit": found.unfit,
        "priced_singly": found.singly,
        "columns_lacking": list(found.lacking),
        "seconds": found.seconds,
        "output": found.output,
        "objectives": list(found.goals),
        "rows": rows,
    }
