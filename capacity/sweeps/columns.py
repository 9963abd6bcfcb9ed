"""Columns of cases in, columns of quantities out: the same formulas as one estimate, a chunk of rows at a time.

1. Rows are grouped by what is structure (`grouping`).
2. A chunk of a group that fits the cache is one call of the estimators, whose numbers are columns (`training`, `serving`).
3. What cannot be a column is estimated row by row, each case once, and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import CapacityError, InputError
from capacity.estimators.case import PLATFORM_KEYS, read_case
from capacity.record import replace
from capacity.spec.workload import TRAINING_MODES
from capacity.sweeps import serving, training
from capacity.sweeps.found import Answer, Found, refuse_rows
from capacity.sweeps.grouping import Cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from capacity.spec.model import ModelSpec
    from capacity.sweeps.grouping import Group

    Column = np.ndarray
    # Prices a chunk of a group's rows.
    Price = Callable[[slice, Found], None]

# Rows priced in one call: the columns that are alive at a time fit a core's own cache, and Python's share is small.
CHUNK_ROWS = 16384
# Modes whose rows can be columns, and what prices them: it says how many rows at a time at most, or None for what it cannot.
COLUMNAR: dict[str, Callable[[Group, str], tuple[Price, int] | None]] = {
    "train": training.pricer,
    "finetune": training.pricer,
    "lora": training.pricer,
    "serve": serving.pricer,
}


def estimate_columns(
    request: Mapping[str, Any], *, intervals: bool = False, chunk_rows: int = CHUNK_ROWS
) -> dict[str, Column]:
    """Every quantity of many cases by its full name, as float64 columns.

    request: the options of `capacity.estimate`, each a value for all cases or a column of them (NaN or None: not given).
    intervals: the ends of each quantity's 90 % interval too, as `train.step_time_low` and `_high`.
    Raises InputError for a row that makes no sense; `answer_columns` gives its reason as a value instead.
    """
    answer = answer_columns(request, intervals=intervals, chunk_rows=chunk_rows)
    for row, error in enumerate(answer.errors):
        if error is not None:
            raise InputError(f"row {row}: {error}")
    return answer.quantities


def answer_columns(request: Mapping[str, Any], *, intervals: bool = False, chunk_rows: int = CHUNK_ROWS) -> Answer:
    """Every quantity of many cases; rows that make no sense have a reason instead."""
    cases = Cases(request, intervals=intervals)
    found = Found(cases.rows, intervals=intervals)
    with np.errstate(all="ignore"):
        for group in cases.groups():
            for mode in group.modes:
                _price_group(group, mode, found, chunk_rows)
    return found.answer()


def _price_group(group: Group, mode: str, found: Found, chunk_rows: int) -> None:
    """One section of the answers of a group."""
    if group.error is not None:
        found.errors[group.where] = group.error
        return
    known = group.models or "params" in group.numbers
    pricer = COLUMNAR[mode](group, mode) if mode in COLUMNAR and known and not _is_beside(group) else None
    if pricer is None:
        _price_singly(group, mode, found)
        return
    price, most_rows = pricer
    chunk_rows = min(chunk_rows, most_rows)
    for start in range(0, group.rows, chunk_rows):
        part = slice(start, start + chunk_rows)
        try:
            price(part, found)
        except (ArithmeticError, IndexError, TypeError, ValueError):
            # Something that takes no columns yet: nobody is left without an answer for that.
            _price_singly(group.part(part), mode, found)


def _is_beside(group: Group) -> bool:
    """Whether something is asked about the platform under the rows, which takes no columns."""
    return not {*group.words, *group.numbers}.isdisjoint(PLATFORM_KEYS)


def _price_singly(group: Group, mode: str, found: Found) -> None:
    """One section of the answers of a group whose rows cannot be columns: each different case once."""
    known: dict[tuple[Any, ...], dict[str, Any] | str] = {}
    columns = dict(group.numbers)
    for row, where in enumerate(group.where):
        key = tuple(float(column[row]) for column in columns.values())
        if group.codes is not None:
            key = (*key, int(group.codes[row]))
        if key not in known:
            request = group.words | {"mode": mode} | {name: float(column[row]) for name, column in columns.items()}
            others: list[ModelSpec] = []
            if group.codes is not None:
                request["model"], *others = group.models[int(group.codes[row])]
            try:
                known[key] = section_values(request, mode, tuple(others), intervals=found.intervals)
            except CapacityError as error:
                known[key] = str(error)
            found.singly += 1
        values = known[key]
        if isinstance(values, str):
            refuse_rows(found, np.array([where]), values)
            continue
        for name, value in values.items():
            found.put(where, name, value)


def section_values(
    request: dict[str, Any], mode: str, shapes: tuple[ModelSpec, ...] = (), *, intervals: bool = False
) -> dict[str, Any]:
    """Every quantity of one section of one case by its full name, and whether it fits. shapes: other models it may be."""
    case = read_case(request)
    if shapes or not intervals:
        case = replace(case, shapes=shapes)
    of_mode = training.values_of if mode in TRAINING_MODES else serving.values_of
    beside: dict[str, Any] = {}
    values = of_mode(case, intervals=intervals)
    if case.on_platform and mode in TRAINING_MODES:
        from capacity.estimators.platform import platform_values

        beside = {f"platform.{name}": value for name, value in platform_values(case).items()}
    return {f"{mode}.{name}": value for name, value in values.items()} | beside
