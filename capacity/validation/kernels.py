"""Kernel laws held against tables of measured kernels, on devices and engines seen or not."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from capacity.catalogue import load_device
from capacity.errors import CapacityError, FileFormatError
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.profile import FOLDER, engine_factor, fitted_parameters
from capacity.laws.kernels.tables import NAMES, SHAPES, TABLES, launch_s, regime, seconds, subs
from capacity.validation import scoring
from capacity.validation.baselines import roofline
from capacity.validation.tables import CURATED, read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BEST = "best"
# A prediction this far off is more likely a fallback kernel or a faulty row than a wrong term.
SUSPECT = 5.0


def read_tables(folder: str) -> dict[str, pd.DataFrame]:
    """The tables a folder holds, by op; each is checked for its columns."""
    found: dict[str, pd.DataFrame] = {}
    for op, name in TABLES.items():
        paths = (os.path.join(folder, name + ending) for ending in (".parquet", ".csv"))
        path = next((one for one in paths if os.path.isfile(one)), None)
        if path:
            found[op] = read_table(path, ("device", "engine", "seconds", *NAMES[op], *SHAPES[op]))
    if not found:
        names = ", ".join(TABLES.values())
        raise FileFormatError(f"{folder}: holds none of the tables {names} as .parquet or .csv")
    return found


def predict(op: str, table: pd.DataFrame, profiles: str = FOLDER) -> pd.DataFrame:
    """A row for each row of a table: measured, low, mid, high, baselines, basis, and why where it could not be priced."""
    table = table.reset_index(drop=True)
    sub = pd.Series(subs(op, columns_of(table)), index=table.index)
    result = pd.DataFrame(
        {
            "id": [f"{op}-{index}" for index in table.index],
            "op": op,
            "device": table["device"].astype(str),
            "engine": table["engine"].astype(str),
            "dtype": sub.astype(str),
            "measured": table["seconds"].astype(float),
        }
    )
    for name in ("low", "mid", "high", "baseline", "baseline_single"):
        result[name] = np.nan
    # What was measured, for the file of predictions and for naming the rows furthest off.
    for name in (*NAMES[op], *SHAPES[op]):
        if name not in result.columns:
            result[name] = table[name].to_numpy()
    result["basis"] = ""
    result["why"] = ""
    for (device_name, engine, one), part in table.groupby(["device", "engine", sub], sort=False):
        index = part.index
        try:
            device = load_device(str(device_name))
        except CapacityError as error:
            result.loc[index, "why"] = str(error)
            continue
        fitted = fitted_parameters(device, op, str(one), profiles)
        if fitted is None:
            result.loc[index, "why"] = f"no device has been measured for {op} in {one}"
            continue
        facts = facts_of(device)
        columns = columns_of(part)
        parameters = fitted.parameters
        law = seconds(op, facts, parameters, str(one), columns)
        kind = regime(law, launch_s(op, facts, parameters))
        factor, wider = engine_factor("" if engine == BEST else str(engine), op, str(one), profiles)
        low, high = fitted.interval(law, kind, fitted.outside_of(columns) * wider)
        naive, single = roofline(op, str(one), facts, part)
        result.loc[index, "mid"] = law * factor
        result.loc[index, "low"] = low * factor
        result.loc[index, "high"] = high * factor
        result.loc[index, "baseline"] = naive
        result.loc[index, "baseline_single"] = single
        result.loc[index, "basis"] = fitted.basis
    ratio = result["mid"] / result["measured"]
    far = (ratio > SUSPECT) | (ratio < 1.0 / SUSPECT)
    result.loc[far, "why"] = "more than five-fold off: a fallback kernel or a faulty row"
    return result


def columns_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns as arrays, numbers as floats."""
    return {
        str(name): table[name].to_numpy(dtype=float) if table[name].dtype.kind in "iuf" else table[name].to_numpy()
        for name in table.columns
    }


VIEWS = {
    "device": ("op", "device", "engine"),
    "dtype": ("op", "device", "engine", "dtype"),
    "op": ("op",),
    "basis": ("op", "basis"),
}


def validate(data: str | None, profiles: str = FOLDER) -> dict[str, Any]:
    """Score every table of a folder, or of the project's own that no fit has seen; see `capacity.validation.validate`."""
    if not os.path.isfile(os.path.join(profiles, "pool.toml")):
        raise FileFormatError(
            f"{profiles[:200]}: holds no pool.toml; `capacity calibrate kernels` writes such a folder"
        )
    tables = read_tables(data or os.path.join(CURATED, "kernels"))
    rows = pd.concat([predict(op, table, profiles) for op, table in tables.items()], ignore_index=True)
    return scoring.document(
        "kernels", rows, scoring.score(rows, "seconds"), scoring.groups(rows, "seconds", VIEWS.values()),
        unit="s", views=VIEWS, baselines={"baseline_mdape": "roofline", "baseline_single_mdape": "one share"},
        about=tuple(dict.fromkeys(("device", "engine", "dtype", *sum((NAMES[op] + SHAPES[op] for op in TABLES), ())))),
    )  # fmt: skip
