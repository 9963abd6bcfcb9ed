"""What a report shows as tables for other programs: CSV or Parquet, one file for each table and figure."""

from __future__ import annotations

import csv
import os
from io import StringIO
from typing import Any

from capacity.errors import InputError
from capacity.rendering.style import harmless
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from capacity.reporting.content import Report

# What makes a spreadsheet take a cell for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(report: Report, folder: str, *, parquet: bool = False) -> list[str]:
    """Write every table and the data of every figure into a folder; the paths written. Raises InputError."""
    from capacity.reporting.content import figures, tables

    named = {table.name: [_row(table.columns, row) for row in table.rows] for table in tables(report)}
    named |= {figure.name: list(figure.rows) for figure in figures(report)}
    written = []
    try:
        os.makedirs(folder, exist_ok=True)
        for name, rows in named.items():
            path = os.path.join(folder, f"{name}.{'parquet' if parquet else 'csv'}")
            if parquet:
                _write_parquet(rows, path)
            else:
                write_whole(path, to_csv(rows))
            written.append(path)
    except OSError as error:
        raise InputError(f"tables: {folder[-80:]} cannot be written ({error.strerror or error})") from None
    return written


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV. Text that a spreadsheet would run as a formula gets a quote before it; numbers stay numbers."""
    out = StringIO()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([guarded(key) for key in keys])
    writer.writerows([guarded(row.get(key)) for key in keys] for row in rows)
    return out.getvalue()


def guarded(value: Any) -> Any:
    """A cell that is data in any program."""
    if value is None or isinstance(value, (bool, int, float)):
        return "" if value is None else value
    text = str(value)
    start = text.lstrip(" \u00a0")[:1]
    return f"'{harmless(text)}" if start in _FORMULA and start else harmless(text)


def _row(columns: Sequence[Any], cells: Sequence[Any]) -> dict[str, Any]:
    return {
        column.label: cell.text if cell.number is None else cell.number
        for column, cell in zip(columns, cells, strict=True)
    }


def _write_parquet(rows: list[dict[str, Any]], path: str) -> None:
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise InputError(f'Parquet needs {error.name}: pip install "model-capacity[sweep]"') from None
    partial = f"{path}.{os.getpid()}"
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if len({type(one) for one in frame[name]}) > 1 and not all(
            isinstance(one, (int, float)) for one in frame[name]
        ):
            frame[name] = frame[name].map(str)
    frame.to_parquet(partial, index=False)
    os.replace(partial, path)
