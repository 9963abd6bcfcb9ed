"""Chunks of training rows priced: layouts that are given, and layouts that are searched first, a candidate over all open rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from capacity.errors import CapacityError
from capacity.estimators import layout
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.refusal import noting, refuse
from capacity.estimators.training import priced, run_values, with_ranges
from capacity.estimators.training_account import account, case_fewest
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.training_weights import weights_of
from capacity.importers.shape import TIED_BELOW, infer_shape
from capacity.record import replace
from capacity.sweeps.found import ends_of, note, refuse_all
from capacity.sweeps.grouping import case_of, coded, densely, refined, thin
from capacity.sweeps.search import choose, rows_of
from capacity.sweeps.stacking import template

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.estimators.case import Case
    from capacity.estimators.training_run import Run
    from capacity.spec.workload import Workload
    from capacity.sweeps.found import Found
    from capacity.sweeps.grouping import Group

    Column = np.ndarray


# From so many rows on layouts are searched as columns, so many at a time.
SEARCHED_ROWS, SEARCHED_CHUNK = 200, 4096


def pricer(group: Group, mode: str) -> tuple[Callable[[slice, Found], None], int] | None:
    """What prices a chunk of a group, and the most rows of one; None for few rows whose layouts are to be searched."""
    stated = _is_stated(group)
    if not stated and group.rows < SEARCHED_ROWS:
        return None
    make = template(group.models) if group.models else None
    fewest = _fewest(group, mode, make)
    price = _price_stated if stated else _price_searched
    return partial(price, group, mode, make, fewest), group.rows if stated else SEARCHED_CHUNK


def values_of(case: Case, *, intervals: bool) -> dict[str, Any]:
    """Every quantity of one case, its parts of memory and time, and whether it fits."""
    workload, devices = read_workload(case)
    run, told = priced(case, workload, devices)
    ends = ends_of(with_ranges(case, workload, devices, run, told)[0]) if intervals else {}
    return run_values(run, told) | ends | {"fits": run.fits}


def _is_stated(group: Group) -> bool:
    """Whether no layout has to be searched."""
    model = group.models[0][0] if group.models else infer_shape(TIED_BELOW)
    return layout.leaves_nothing_open(model, {*group.words, *group.numbers})


def _price_stated(group: Group, mode: str, make: Any, fewest: Column | None, part: slice, found: Found) -> None:
    """A chunk of rows whose layouts are given."""
    where = group.where[part]
    with noting() as refused:
        try:
            case = case_of(group, mode, part, make)
            workload, devices = read_workload(case)
            run = price_run(case, case.model, workload, case.cluster, devices)
            _tell(found, where, mode, case, workload, devices, run, None if fewest is None else thin(fewest[part]))
        except CapacityError as error:
            refuse_all(refused, error, len(where))
    note(found, where, refused)


def _price_searched(group: Group, mode: str, make: Any, fewest: Column | None, part: slice, found: Found) -> None:
    """A chunk of rows whose layouts are searched first, a candidate at a time over all of them."""
    where = group.where[part]
    rows = len(where)
    with noting() as refused:
        try:
            case = case_of(group, mode, part, make)
            workload, devices = read_workload(case)
            shut = np.zeros(rows, dtype=bool)
            for condition, _ in refused:
                shut |= condition
            choice = choose(case, workload, devices, rows, shut)
            refuse((choice.policy < 0) & ~shut, layout.illegal(case.model, choice.given, devices))
        except CapacityError as error:
            refuse_all(refused, error, rows)
            note(found, where, refused)
            return
    note(found, where, refused)
    for here, plan in choice.layouts():
        one, work, all_devices = rows_of((case, workload, devices), here, rows)
        known = None if fewest is None else thin(fewest[part][here])
        with noting() as refused:
            try:
                layout.check(one.model, plan, all_devices)
                run = price_run(one, one.model, work, one.cluster, all_devices, plan=plan)
                run = replace(run, fits=choice.fits[here])
                _tell(found, where[here], mode, one, work, all_devices, run, known)
            except CapacityError as error:
                refuse_all(refused, error, len(here))
        note(found, where[here], refused)


def _tell(
    found: Found, where: Column, mode: str, case: Case, workload: Workload, devices: float, run: Run, fewest: Any
) -> None:
    """Give rows the quantities of their runs."""
    told = account(case, run, fewest=fewest)
    ends = ends_of(with_ranges(case, workload, devices, run, told)[0]) if found.intervals else {}
    for name, value in (run_values(run, told) | ends | {"fits": run.fits}).items():
        found.put(where, f"{mode}.{name}", value)


def _fewest(group: Group, mode: str, make: Any) -> Column | None:
    """The fewest devices that hold each case, found once for cases that differ in nothing it depends on; None: not here."""
    ids = np.zeros(group.rows, dtype=np.int64)
    if group.codes is not None:
        ids = refined(ids, group.codes)
    for key in ("seq_len", "lora_rank", "devices", "nodes", "dp", "tp", "pp", "cp", "params"):
        # A layout matters where it says how many devices there are, and these are less than a node.
        counts = "devices" in group.numbers or "nodes" in group.words or "devices" in group.words
        if key in group.numbers and not (counts and key in ("dp", "tp", "pp", "cp")):
            ids = refined(ids, coded(group.numbers[key]))
    ids = densely(ids)
    first = np.empty(int(ids.max()) + 1, dtype=np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)
    if len(first) * 4 > group.rows:
        return None
    try:
        with noting():
            case = case_of(group, mode, first, make)
            workload, _ = read_workload(case)
            weights = weights_of(lower(case.model, Tokens()))
            fewest = case_fewest(case, case.model, weights, workload)
    except CapacityError:
        return None
    held = np.nan if fewest is None else fewest
    return np.broadcast_to(np.asarray(held, dtype=np.float64), (len(first),))[ids]
