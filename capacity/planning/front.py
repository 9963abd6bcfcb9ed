"""Pareto fronts."""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def undominated(columns: list[Any]) -> Any:
    """Places of the rows that no other beats: as low in every column, and lower in one. Of equal rows the first stays.

    columns: of numbers to be made small, each of shape (rows,). Returns places, ascending.
    """
    if not len(columns[0]):
        return np.zeros(0, dtype=np.intp)
    table = np.stack(columns)
    # In this order no row can beat an earlier one, so each is held against those found so far only.
    order = np.lexsort(table[::-1])
    table = table[:, order]
    kept: list[int] = []
    alive = np.ones(table.shape[1], dtype=bool)
    while alive.any():
        first = int(alive.argmax())
        kept.append(first)
        alive &= (table < table[:, first : first + 1]).any(axis=0)
    return np.sort(order[kept])
