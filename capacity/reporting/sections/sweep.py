"""A sweep told: how many cases, what they gain and cost, which ones none beats."""

from __future__ import annotations

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Words
from capacity.reporting.figures import figure, sweeps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

_MOST_ROWS = 200


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """One section."""
    data = document.data
    rows = data.get("rows") or []
    if not rows:
        return (Section(f"Sweep: {document.name}", (Words("No case has an answer.", "warning"),)),)
    mode = next((name.partition(".")[0] for name in rows[0] if "." in name), "train")
    varied = sweeps.varied(rows)
    counts = [
        ("Cases", data.get("cases", len(rows))),
        ("Do not fit", data.get("unfit")),
        ("Without an answer", data.get("errors")),
    ]
    goals = [goal for goal in data.get("objectives") or () if goal in rows[0]]
    blocks = (
        Facts(tuple(Fact(label, f"{value:,}") for label, value in counts if value is not None)),
        *figure(sweeps.curves(rows, mode, varied), prefix),
        *figure(sweeps.trade(rows, mode, varied, goals), prefix),
        _table(rows, mode, varied, prefix),
    )
    return (Section(f"Sweep over {', '.join(name.replace('_', ' ') for name in varied) or document.name}", blocks),)


def _table(rows: list[dict[str, Any]], mode: str, varied: list[str], prefix: str) -> Table:
    quantities = [
        (name, label, unit)
        for name, (label, unit) in sweeps.QUANTITIES.items()
        if any(row.get(f"{mode}.{name}") is not None for row in rows)
    ][:8]
    columns = (
        *(Column(words.label(f".{name}"), numeric=_numeric(rows, name)) for name in varied),
        *(Column(label, numeric=True) for _, label, _ in quantities),
    )
    told = tuple(
        (
            *(_cell(row.get(name), "1") for name in varied),
            *(_cell(row.get(f"{mode}.{name}"), unit, binary=words.is_memory(name)) for name, _, unit in quantities),
        )
        for row in rows[:_MOST_ROWS]
    )
    more = f", the first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
    return Table(f"{prefix}cases", f"Cases{more}", columns, told, folded=len(rows) > 30)


def _numeric(rows: list[dict[str, Any]], name: str) -> bool:
    return all(isinstance(row.get(name), (int, float, type(None))) for row in rows)


def _cell(value: Any, unit: str, *, binary: bool = False) -> Cell:
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return Cell(
        words.value(value, unit, binary=binary) if number is not None or not isinstance(value, str) else value, number
    )
