"""A document of a kind that is not known better, told as it is: its plain values, and a table for each list of rows."""

from __future__ import annotations

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Section, Table, Verdict, Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.reporting.documents import Document

MOST_ROWS = 200


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """One section."""
    data = document.data if isinstance(document.data, dict) else {"rows": document.data}
    blocks: list[Any] = (
        [Verdict(str(data["verdict"]), data.get("fits"))] if isinstance(data.get("verdict"), str) else []
    )
    facts = [(name, value) for name, value in _flat(data) if name != "verdict"]
    if facts:
        rows = tuple((Cell(_spoken(name)), cell(name, value)) for name, value in facts)
        blocks.append(
            Table(f"{prefix}facts", "What the document says", (Column("Name"), Column("Value", numeric=True)), rows)
        )
    blocks += [table for name, value in data.items() if (table := rows_table(name, value, prefix)) is not None]
    return (
        Section(f"{document.kind.capitalize()}: {document.name}", tuple(blocks) or (Words("The document is empty."),)),
    )


def rows_table(name: str, value: Any, prefix: str, caption: str = "") -> Table | None:
    """A list of dictionaries as a table, a column a key."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return None
    rows = [dict(_flat(row)) for row in value[:MOST_ROWS]]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key: all(isinstance(row.get(key), (int, float, type(None))) for row in rows) for key in keys}
    said = caption or _spoken(name).capitalize()
    more = f", the first {MOST_ROWS} of {len(value)}" if len(value) > MOST_ROWS else ""
    return Table(
        f"{prefix}{name}",
        said + more,
        tuple(Column(words.label(key), numeric[key]) for key in keys),
        tuple(tuple(cell(key, row.get(key)) for key in keys) for row in rows),
    )


def cell(name: str, value: Any) -> Cell:
    """A value whose unit is in its name."""
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return Cell(words.named(name.rpartition(".")[2], value), number)


def _flat(data: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values by name; those of dictionaries inside by `outer.inner`. Lists of rows are left to tables."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, list):
            if value and not isinstance(value[0], dict):
                yield f"{above}{name}", value
        else:
            yield f"{above}{name}", value


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")
