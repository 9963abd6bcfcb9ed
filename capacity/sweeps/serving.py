"""Chunks of serving rows priced: layouts that are given, and the smallest replica of each row where they are not."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from capacity.errors import CapacityError
from capacity.estimators.refusal import noting
from capacity.estimators.serving import served
from capacity.sweeps.found import ends_of, note, refuse_all
from capacity.sweeps.grouping import case_of
from capacity.sweeps.stacking import template

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.estimators.case import Case
    from capacity.sweeps.found import Found
    from capacity.sweeps.grouping import Group

# From so many rows on a call of columns is cheaper than an estimate of each.
FEWEST_ROWS = 3


def pricer(group: Group, mode: str) -> tuple[Callable[[slice, Found], None], int] | None:
    """What prices a chunk of a group, and the most rows of one; None for a few rows."""
    if group.rows < FEWEST_ROWS:
        return None
    make = template(group.models) if group.models else None
    return partial(_price, group, mode, make), group.rows


def values_of(case: Case, *, intervals: bool) -> dict[str, Any]:
    """Every quantity of one case or of a case of columns, its parts of memory and time, and whether it fits."""
    load, quantities, _ = served(case, intervals=intervals)
    values = {name: quantity.mid for name, quantity in quantities.items()}
    values |= {f"memory.{name}": part for name, part in load.memory.items()}
    values |= {f"time.{name}": part for name, part in load.step.items()}
    return values | (ends_of(quantities) if intervals else {}) | {"fits": load.fits}


def _price(group: Group, mode: str, make: Any, part: slice, found: Found) -> None:
    """A chunk of rows."""
    where = group.where[part]
    with noting() as refused:
        try:
            case = case_of(group, mode, part, make)
            for name, value in values_of(case, intervals=found.intervals).items():
                found.put(where, f"{mode}.{name}", value)
        except CapacityError as error:
            refuse_all(refused, error, len(where))
    note(found, where, refused)
