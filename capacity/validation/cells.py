"""Cells of a table of published training runs; blank ones are None or ""."""

from __future__ import annotations

from capacity.validation.tables import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def positive(row: dict[str, Any], name: str) -> float | None:
    """A number above nought, else None."""
    found = number(row, name)
    return found if found is not None and found > 0.0 else None


def word(row: dict[str, Any], name: str) -> str:
    """A text of a row, "" where the cell is blank or missing."""
    value = row.get(name)
    return "" if value is None or value != value else str(value).strip()


def publisher(identifier: str) -> str:
    """What stands before the number of a row's id: `llmf` of `llmf-017`. Tables of one publisher share it."""
    head = identifier.rstrip("0123456789abcdefghijklmnopqrstuvwxyz") if "-" in identifier else identifier
    return head.rstrip("-_") or identifier
