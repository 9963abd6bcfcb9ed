"""Kernel laws fitted to tables of measured kernels: a profile a device, and the pool that stands in for the others.

1. Shapes are dealt by a hash: seven tenths are fitted, two tenths are kept for the intervals, one tenth is seen by nobody,
   so that `capacity validate kernels` can tell what the laws say of shapes they were not fitted to.
2. Rows that beat the datasheet's memory bandwidth are set aside: no kernel reads faster than the memory gives.
3. The pool is one set of parameters for all devices, each weighing the same; a device's own parameters are held near it.
4. An interval holds 90 % of the kept rows: of the device for its own parameters; for the pool, of devices whose
   architecture was left out of a pool of its own. What a sibling needs on top is measured between siblings.
"""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from capacity.calibration.fit import fit
from capacity.calibration.kernel_rows import Rows, groups_of
from capacity.calibration.profile_file import Fitted, write_profile
from capacity.catalogue import load_device
from capacity.errors import InputError
from capacity.laws.kernels.parameters import SPECS, names_of, starts
from capacity.laws.kernels.profile import USUAL_SIBLING_WIDENING, nearest
from capacity.laws.kernels.tables import SHAPES, chosen, launch_s, regime, seconds
from capacity.record import replace
from capacity.validation.kernels import BEST, read_tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    import pandas as pd

    Talk = Callable[[str], None]

FITTED_TENTHS, KEPT_TENTHS, UNSEEN_TENTHS = range(7), range(7, 9), (9,)
# A regime with fewer kept rows takes the quantiles of all of them.
LEAST_KEPT = 60
# Fewer rows than this carry no parameters of their own: the pool's are taken.
LEAST_ROWS = 50
# Rows of each device in a pool's fit.
POOL_ROWS = 250
QUANTILES = (0.05, 0.5, 0.95)
# Nothing within this (in logarithms) is believed: repeats of a measurement differ by as much.
LEAST_HALF_WIDTH = 0.02


def calibrate(
    data: str, output: str, *, source: str = "", date: str = "", talk: Talk = lambda _: None
) -> dict[str, Any]:
    """Fit every op, dtype and device of the tables in `data`; write one profile a device and the pool to `output`.

    Returns what was written: {"profiles": [{"device", "op", "dtype", "rows", "mdape", "set_aside"}], "files"}.
    Raises FileFormatError for tables that are missing or lack a column, InputError where nothing can be fitted.
    """
    profiles: dict[str, dict[str, dict[str, Fitted]]] = {}
    widening: dict[str, dict[str, float]] = {}
    engines: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    report: list[dict[str, Any]] = []
    for op, table in read_tables(data).items():
        best = table[(table["engine"] == BEST) | (op == "collective")]
        groups, aside = groups_of(op, best)
        siblings: list[float] = []
        for sub in sorted({key for _, key in groups}):
            mine = {device: rows for (device, key), rows in groups.items() if key == sub}
            talk(f"{op} {sub}: {', '.join(mine)}")
            pool = _pool(op, sub, mine)
            profiles.setdefault("pool", {}).setdefault(op, {})[sub] = pool
            for device, rows in mine.items():
                if len(rows.measured) < LEAST_ROWS:
                    continue
                own = _device(op, sub, rows, pool)
                profiles.setdefault(device, {}).setdefault(op, {})[sub] = own
                report.append(
                    {
                        "device": device, "op": op, "dtype": sub, "rows": own.rows,
                        "set_aside": aside.get((device, sub), 0),
                        "mdape": own.errors["unseen"][0] if own.errors else None,
                    }
                )  # fmt: skip
            for pair, (wider, errors) in _siblings(op, sub, mine, profiles).items():
                siblings.append(wider)
                profiles["pool"][op][sub] = replace(pool, errors=pool.errors | {pair: errors})
                pool = profiles["pool"][op][sub]
        _widen_lone(op, groups, profiles.get("pool", {}).get(op, {}))
        widening[op] = {"sibling": max(float(np.mean(siblings)), 1.0) if siblings else USUAL_SIBLING_WIDENING}
        for brand, factors in _engines(op, table, profiles).items():
            engines.setdefault(brand, {})[op] = factors
    if not report:
        raise InputError(f"{data[:200]}: no device of the catalogue has {LEAST_ROWS} kernels of one kind there")
    os.makedirs(output, exist_ok=True)
    files = []
    for name, ops_ in profiles.items():
        extra = {"widening": widening, "engines": engines} if name == "pool" else {}
        files.append(
            write_profile(os.path.join(output, f"{name}.toml"), ops_, extra, source or os.path.abspath(data), date)
        )
    return {"profiles": report, "files": files}


def _predict(op: str, sub: str, groups: list[Rows]) -> Any:
    edges = np.cumsum([0, *(len(one.measured) for one in groups)])
    cut: dict[int, list[Mapping[str, Any]]] = {}

    def predict(parameters: Mapping[str, float], rows: np.ndarray | None) -> np.ndarray:
        tables = [one.table for one in groups]
        if rows is not None:
            if id(rows) not in cut:
                parts = [rows[(rows >= low) & (rows < high)] - low for low, high in pairwise(edges)]
                cut[id(rows)] = [chosen(one.table, part) for one, part in zip(groups, parts, strict=True)]
            tables = cut[id(rows)]
        return np.concatenate(
            [np.asarray(seconds(op, one.facts, parameters, sub, t)) for one, t in zip(groups, tables, strict=True)]
        )

    return predict


def _ratio(op: str, sub: str, rows: Rows, parameters: Mapping[str, float]) -> np.ndarray:
    """ln(measured / predicted)."""
    if not len(rows.measured):
        return np.zeros(0)
    predicted = np.asarray(seconds(op, rows.facts, parameters, sub, rows.table))
    return np.asarray(np.log(rows.measured / predicted))


def shipped_start(op: str, sub: str, device: str) -> list[Mapping[str, float]]:
    """A start for the search: what the shipped profile of a device or of its kin says; a new parameter at its first guess."""
    row = nearest(load_device(device), op, sub)[2]
    return [starts(op, sub) | {k: v for k, v in row["parameters"].items() if k in names_of(op, sub)}] if row else []


def _joint(op: str, sub: str, groups: dict[str, Rows], hops: int) -> Any:
    """One set of parameters for several devices, each weighing the same."""
    chance = np.random.default_rng(0)
    some = []
    for rows in groups.values():
        seen = rows.part(FITTED_TENTHS)
        index = np.arange(len(seen.measured))
        if len(index) > POOL_ROWS:
            index = np.sort(chance.choice(index, POOL_ROWS, replace=False))
        some.append(seen.at(index))
    some = [one for one in some if len(one.measured)]
    measured = np.concatenate([one.measured for one in some])
    weights = np.concatenate([np.full(len(one.measured), POOL_ROWS / len(one.measured)) for one in some])
    begin = [start for device in groups for start in shipped_start(op, sub, device)]
    return fit(
        _predict(op, sub, some), measured, SPECS[op], starts(op, sub),
        starts=begin[:2], weights=weights, hops=hops,
    )  # fmt: skip


def _pool(op: str, sub: str, groups: dict[str, Rows]) -> Fitted:
    """The pool, its residuals those of architectures that were left out of pools of their own."""
    found = _joint(op, sub, groups, hops=2)
    families = {device: rows.facts.architecture.partition("-")[0] for device, rows in groups.items()}
    left_out: list[np.ndarray] = []
    regimes: list[np.ndarray] = []
    errors: dict[str, tuple[float, float]] = {}
    for family in sorted(set(families.values())):
        others = {device: rows for device, rows in groups.items() if families[device] != family}
        parameters = _joint(op, sub, others, hops=1).parameters if others else found.parameters
        for device, rows in groups.items():
            if families[device] != family:
                continue
            kept = rows.part(KEPT_TENTHS)
            left_out.append(_ratio(op, sub, kept, parameters))
            regimes.append(_regimes(op, sub, kept, parameters))
            if others:
                errors[device] = _errors(_ratio(op, sub, rows, parameters))
    return Fitted(
        parameters=found.parameters,
        uncertainty=found.uncertainty,
        residuals=_quantiles(np.concatenate(left_out), np.concatenate(regimes)),
        range=_ranges(op, list(groups.values())),
        rows=sum(len(rows.measured) for rows in groups.values()),
        errors=errors,
    )


def _widen_lone(op: str, groups: dict[tuple[str, str], Rows], pools: dict[str, Fitted]) -> None:
    """Widen the pools of dtypes that one architecture alone has, by what leaving one out widens the others."""
    grown, lone = [], []
    for sub, pool in pools.items():
        mine = [rows for (_, key), rows in groups.items() if key == sub]
        if len({rows.facts.architecture.partition("-")[0] for rows in mine}) < 2:
            lone.append(sub)
            continue
        inside = np.concatenate([_ratio(op, sub, rows.part(KEPT_TENTHS), pool.parameters) for rows in mine])
        width = np.subtract(*np.quantile(inside, (QUANTILES[2], QUANTILES[0])))
        grown += [(high - low) / width for low, _, high in pool.residuals.values()]
    factor = max(float(np.median(grown)), 1.0) if grown else 2.0
    for sub in lone:
        wide = {name: (low * factor, mid, high * factor) for name, (low, mid, high) in pools[sub].residuals.items()}
        pools[sub] = replace(pools[sub], residuals=wide)


def _device(op: str, sub: str, rows: Rows, pool: Fitted) -> Fitted:
    """A device's own parameters, held near the pool's."""
    seen, kept = rows.part(FITTED_TENTHS), rows.part(KEPT_TENTHS)
    found = fit(
        _predict(op, sub, [seen]), seen.measured, SPECS[op], pool.parameters, starts=shipped_start(op, sub, rows.device)
    )
    ratio = _ratio(op, sub, kept, found.parameters)
    unseen = _ratio(op, sub, rows.part(UNSEEN_TENTHS), found.parameters)
    return Fitted(
        parameters=found.parameters,
        uncertainty=found.uncertainty,
        residuals=_quantiles(ratio, _regimes(op, sub, kept, found.parameters)),
        range=_ranges(op, [rows]),
        rows=len(rows.measured),
        errors={"unseen": _errors(unseen)} if len(unseen) else {},
    )


def _errors(ratio: np.ndarray) -> tuple[float, float]:
    """Median and 90th percentile of |predicted / measured - 1|."""
    middle, most = np.quantile(np.abs(np.expm1(-ratio)), (0.5, 0.9))
    return float(middle), float(most)


def _regimes(op: str, sub: str, rows: Rows, parameters: Mapping[str, float]) -> np.ndarray:
    if not len(rows.measured):
        return np.zeros(0, dtype=object)
    predicted = np.asarray(seconds(op, rows.facts, parameters, sub, rows.table))
    return np.asarray(regime(predicted, launch_s(op, rows.facts, parameters)))


def _quantiles(ratio: np.ndarray, regimes: np.ndarray) -> dict[str, tuple[float, ...]]:
    """The 5, 50 and 95 % of ln(measured / predicted) by regime, at the ranks split-conformal prediction asks for."""

    def levels(values: np.ndarray) -> tuple[float, ...]:
        count = len(values)
        outer = min(np.ceil((count + 1) * QUANTILES[2]) / count, 1.0)
        low, middle, high = np.quantile(values, (1.0 - outer, QUANTILES[1], outer))
        return min(low, -LEAST_HALF_WIDTH), middle, max(high, LEAST_HALF_WIDTH)

    names = ("launch", "middle", "large")
    parts = {name: ratio[regimes == name] for name in names}
    return {name: levels(part if len(part) >= LEAST_KEPT else ratio) for name, part in parts.items()}


def _ranges(op: str, groups: list[Rows]) -> dict[str, tuple[float, float]]:
    return {
        name: (min(float(one.table[name].min()) for one in groups), max(float(one.table[name].max()) for one in groups))
        for name in SHAPES[op]
    }


def _siblings(
    op: str, sub: str, groups: dict[str, Rows], profiles: dict[str, dict[str, dict[str, Fitted]]]
) -> dict[str, tuple[float, tuple[float, float]]]:
    """For each device predicted with a sibling's parameters, how much wider the interval must be, and the errors."""
    found: dict[str, tuple[float, tuple[float, float]]] = {}
    for device, rows in groups.items():
        for donor, others in groups.items():
            kin = donor != device and others.facts.architecture == rows.facts.architecture
            fitted = profiles.get(donor, {}).get(op, {}).get(sub)
            if not kin or fitted is None:
                continue
            ratio = _ratio(op, sub, rows, fitted.parameters)
            regimes = _regimes(op, sub, rows, fitted.parameters)
            found[f"{device} from {donor}"] = _wider(ratio, regimes, fitted.residuals), _errors(ratio)
    return found


def _engines(
    op: str, table: pd.DataFrame, profiles: dict[str, dict[str, dict[str, Fitted]]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """For each brand of engine and dtype: how much slower than the best kernels, and how much wider the interval."""
    rest = table[table["engine"] != BEST]
    if op == "collective" or rest.empty:
        return {}
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for engine, part in rest.groupby("engine"):
        for (device, sub), rows in groups_of(op, part)[0].items():
            fitted = profiles.get(device, {}).get(op, {}).get(sub)
            if fitted is None or len(rows.measured) < LEAST_ROWS:
                continue
            ratio = _ratio(op, sub, rows, fitted.parameters)
            slower = float(np.median(ratio))
            regimes = _regimes(op, sub, rows, fitted.parameters)
            wider = _wider(ratio - slower, regimes, fitted.residuals)
            groups.setdefault((str(engine).split()[0], sub), []).append((slower, wider))
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for (brand, sub), pairs in sorted(groups.items()):
        # Devices differ in how much slower an engine is: that scatter is part of the interval too.
        slower, wider = float(np.mean([pair[0] for pair in pairs])), max(pair[1] for pair in pairs)
        found.setdefault(brand, {})[sub] = float(np.exp(slower)), max(wider, 1.0)
    return found


def _wider(ratio: np.ndarray, regimes: np.ndarray, residuals: Mapping[str, tuple[float, ...]]) -> float:
    """The factor on the kept quantiles that makes them hold 90 % of other rows."""
    low = np.array([residuals[str(name)][0] for name in regimes])
    high = np.array([residuals[str(name)][2] for name in regimes])
    return float(np.quantile(np.maximum(ratio / low, ratio / high), 0.9))
