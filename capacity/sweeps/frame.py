"""Frames of cases in, the same frames with every quantity out: the function behind `capacity sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capacity.errors import UnknownNameError
from capacity.estimators.case import KEYS
from capacity.sweeps.columns import answer_columns
from capacity.sweeps.found import is_part

if TYPE_CHECKING:
    from collections.abc import Iterable

ERROR = "error"
# Columns that are no option and are handed on: what a row is called, and its number.
LABELS = ("id", "name", "row")


def estimate_frame(
    cases: pd.DataFrame,
    *,
    intervals: bool = False,
    columns: Iterable[str] | None = None,
    **shared: Any,
) -> pd.DataFrame:
    """Every quantity of many cases: a row each, on one core.

    cases: a column an option of `capacity.estimate` (a cell that is empty: not given), and `id`, `name` and `row`, which are
    handed on. shared: options of all rows. intervals: the ends of each quantity's 90 % interval too, as `NAME_low` and
    `NAME_high`. columns: the quantities wanted, by full name or without their section (all).
    Returns the cases with a float64 column for each quantity ("train.step_time", in base units) and `error`, which says why
    a row has no answer. Raises UnknownNameError for a column that is no option.
    """
    request = asked(cases, shared)
    answer = answer_columns(request, intervals=intervals)
    wanted = answer.quantities if columns is None else chosen(answer.quantities, columns)
    found = pd.concat([cases, pd.DataFrame(wanted, index=cases.index)], axis=1)
    found[ERROR] = pd.array(answer.errors, dtype="string")
    found.attrs["priced singly"] = answer.singly
    return found


def asked(cases: pd.DataFrame, shared: dict[str, Any]) -> dict[str, Any]:
    """A request of columns from a frame and what all its rows share."""
    for name in cases.columns:
        if name not in KEYS and name not in LABELS:
            raise UnknownNameError("column", str(name), (*KEYS, *LABELS), "columns are options of `capacity.estimate`")
    request = {name: value for name, value in shared.items() if value is not None}
    return request | {name: cases[name].array for name in cases.columns if name not in LABELS}


def chosen(values: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Some of the quantities, by full name or without their section; whether it fits is always told."""
    wanted = {*columns, "fits"}
    return {name: column for name, column in values.items() if name in wanted or name.partition(".")[2] in wanted}


def completed(frame: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """A frame with further columns of quantities that none of its rows has; a part of time or memory is nought."""
    missing = [name for name in names if name not in frame.columns]
    if not missing:
        return frame
    added = {}
    for name in missing:
        fits = frame.get(f"{name.partition('.')[0]}.fits")
        absent = np.full(len(frame), np.nan)
        added[name] = np.where(fits.notna(), 0.0, np.nan) if is_part(name) and fits is not None else absent
    return pd.concat([frame, pd.DataFrame(added, index=frame.index)], axis=1)
