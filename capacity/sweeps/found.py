"""What a sweep finds, as it comes: quantities scattered to their rows, and why others have none."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.estimators.refusal import RefusedError, at
from capacity.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.errors import CapacityError
    from capacity.estimators.refusal import Refused
    from capacity.spec.estimate import Quantity

    Column = np.ndarray


class Answer(Record):
    """Quantities of many cases, a row each.

    quantities: by full name ("train.step_time"), float64, NaN where a row has none; errors: why a row has no answer, None where
    it has one; singly: rows that were not priced as columns.
    """

    quantities: dict[str, Column]
    errors: Column
    singly: int = 0


class Found:
    """Results as they come, scattered to their rows."""

    def __init__(self, rows: int, *, intervals: bool) -> None:
        self.rows = rows
        self.intervals = intervals
        self.values: dict[str, Column] = {}
        self.errors = np.full(rows, None, dtype=object)
        self.singly = 0

    def put(self, where: Any, name: str, values: Any) -> None:
        """Give rows their values of a quantity."""
        column = self.values.get(name)
        if column is None:
            column = self.values[name] = np.full(self.rows, 0.0 if is_part(name) else np.nan)
        column[where] = values

    def answer(self) -> Answer:
        """All of it; a part of memory or time that a row has nothing of is nought, in a row without an answer unknown."""
        bad = self.errors != None  # noqa: E711 - element by element
        for name, column in self.values.items():
            if is_part(name):
                column[np.isnan(self.values[f"{name.split('.', 1)[0]}.fits"])] = np.nan
            column[bad] = np.nan
        return Answer(self.values, self.errors, self.singly)


def is_part(name: str) -> bool:
    """Whether a quantity is a part of a breakdown, such as `train.time.GEMM`."""
    return name.count(".") > 1


def refuse_rows(found: Found, where: Column, text: str) -> None:
    """Give rows that have no reason yet this one."""
    open_rows = where[found.errors[where] == None]  # noqa: E711 - element by element
    found.errors[open_rows] = text


def note(found: Found, where: Column, refused: Refused) -> None:
    """Give the rows that were refused their reasons, the first of each."""
    for condition, message in refused:
        for index in np.flatnonzero(condition):
            if found.errors[where[index]] is None:
                found.errors[where[index]] = message(partial(at, index=int(index)))


def refuse_all(refused: Refused, error: CapacityError, rows: int) -> None:
    """The same is wrong in every row; what to tell each may still differ."""
    told = error.message if isinstance(error, RefusedError) else partial(_said, str(error))
    refused.append((np.ones(rows, dtype=bool), told))


def _said(text: str, _: Any) -> str:
    return text


def ends_of(quantities: Mapping[str, Quantity]) -> dict[str, float]:
    """Both ends of each interval."""
    found = {}
    for name, quantity in quantities.items():
        found[f"{name}_low"], found[f"{name}_high"] = quantity.low, quantity.high
    return found
