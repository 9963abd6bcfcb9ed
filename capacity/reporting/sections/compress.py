"""Ways to make a model smaller, told: what reaches the targets, and what it costs in quality."""

from __future__ import annotations

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Section, Table, Verdict, Words
from capacity.reporting.figures import figure
from capacity.reporting.figures.compression import compression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

_UNITS = {"memory": "byte", "energy_per_token": "J", "tokens_per_s": "1/s"}
_NUMBERS = (
    ("memory_per_device", "Memory", "byte"), ("tokens_per_s_per_user", "Tokens/s each", "1/s"), ("energy_per_token", "Energy a token", "J"),
    ("cost_per_million_tokens", "Cost a M tokens", "USD"),
)  # fmt: skip


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """The verdict, the methods side by side, and the published losses with their sources."""
    data = document.data
    methods = data["methods"]
    reached = [one for one in methods if one["reached"]]
    request = ", ".join(
        f"{words.lower(words.label(f'.{name}'))} {_asked(name, value)}" for name, value in data["request"].items()
    )
    verdict = (
        f"{len(reached)} of {len(methods)} methods reach the target; least loss is published for {reached[0]['title']}"
        if reached and reached[0].get("quality") is not None
        else f"{len(reached)} of {len(methods)} methods reach the target"
    )
    blocks = (
        Words(request, "quiet"),
        Verdict(verdict, bool(reached)),
        *figure(compression(methods), prefix),
        _methods(methods, prefix),
        *(Words(f"{one['method']}: {one['note']}", "quiet") for one in methods if one.get("note")),
        _losses(methods, prefix),
    )
    return (Section("Ways to make it smaller", blocks),)


def _asked(name: str, value: str) -> str:
    """A word of the question; numbers in their unit."""
    try:
        return words.value(float(value), _UNITS.get(name, "1"), binary=name == "memory")
    except ValueError:
        return value


def _methods(methods: list[dict[str, Any]], prefix: str) -> Table:
    shown = [(key, label, unit) for key, label, unit in _NUMBERS if any(one.get(key) for one in methods)]
    columns = (
        Column("Method"),
        Column("Fits"),
        Column("Reaches"),
        *(Column(label, numeric=True) for _, label, _ in shown),
        Column("Misses"),
    )
    rows = tuple(
        (
            Cell(one["title"]),
            Cell("yes" if one["fits"] else "no"),
            Cell("yes" if one["reached"] else "no"),
            *(_number(one.get(key), unit) for key, _, unit in shown),
            Cell(", ".join(one["missed"])),
        )
        for one in methods
    )
    return Table(
        f"{prefix}methods",
        "All methods, those that reach the target with the least published loss first",
        columns,
        rows,
    )


def _number(quantity: dict[str, Any] | None, unit: str) -> Cell:
    return (
        Cell("–") if not quantity else Cell(words.value(quantity["mid"], unit, binary=unit == "byte"), quantity["mid"])
    )


def _losses(methods: list[dict[str, Any]], prefix: str) -> Table:
    columns = (Column("Method"), Column("Metric"), Column("Change", numeric=True), Column("Models"), Column("Source"))
    rows = tuple(
        (
            Cell(one["method"]), Cell(loss["metric"]), Cell(f"{loss['low'] * 100.0:+.1f} to {loss['high'] * 100.0:+.1f} %", loss["mid"]), Cell(loss["models"]),
            Cell(f"{loss['source']} ({loss['date']})"),
        )
        for one in methods
        for loss in one.get("quality") or ()
    )  # fmt: skip
    return Table(f"{prefix}losses", "Published losses of quality, and who measured them", columns, rows, folded=True)
