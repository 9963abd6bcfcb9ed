"""Tables of runs: read, checked for their columns, and cells that may be blank."""

from __future__ import annotations

import math
import os

import pandas as pd

from capacity.errors import FileFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CURATED = os.path.join(os.path.dirname(__file__), "data")


def read_runs(path: str | None, kind: str, columns: Iterable[str]) -> pd.DataFrame:
    """A table of runs (.csv or .parquet), or the project's own of this kind; refuses one that lacks a column."""
    path = path or os.path.join(CURATED, f"{kind}.csv")
    if os.path.isdir(path):
        path = next(
            (
                one
                for one in (os.path.join(path, f"{kind}{end}") for end in ("_runs.csv", ".csv"))
                if os.path.isfile(one)
            ),
            path,
        )
    return read_table(path, columns).reset_index(drop=True)


def read_table(path: str, columns: Iterable[str]) -> pd.DataFrame:
    """The table of a .csv or .parquet file; refuses one that lacks a column."""
    try:
        table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path, low_memory=False)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)[:100]
        raise FileFormatError(f"{path}: cannot be read as a table ({why})") from None
    lacking = [one for one in columns if one not in table.columns]
    if lacking:
        raise FileFormatError(f"{path}: lacks the columns {', '.join(lacking)}")
    return table


def number(row: dict[str, Any], name: str) -> float | None:
    """A cell as a number, None where it is blank, not a number or not finite."""
    value = row.get(name)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def size(row: dict[str, Any], name: str) -> float:
    """A count that may be blank or nought, which both mean one."""
    value = number(row, name)
    return value if value is not None and value >= 1.0 else 1.0


def positive(row: dict[str, Any], name: str) -> float | None:
    """A number above nought, else None."""
    found = number(row, name)
    return found if found is not None and found > 0.0 else None


def word(row: dict[str, Any], name: str) -> str:
    """A cell as text, "" where it is blank or missing."""
    value = row.get(name)
    return "" if value is None or value != value else str(value).strip()


def publisher(identifier: str) -> str:
    """What stands before the number of a row's id: `llmf` of `llmf-017`. Tables of one publisher share it."""
    head = identifier.rstrip("0123456789abcdefghijklmnopqrstuvwxyz") if "-" in identifier else identifier
    return head.rstrip("-_") or identifier
