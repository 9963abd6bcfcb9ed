"""This machine's laws of storage, ciphers and preparation, held against sizes that no fit has seen."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from capacity.catalogue.own import platform_laws_path, read_laws_document
from capacity.errors import InputError
from capacity.laws.platform import PlatformLaw, from_document
from capacity.measurement.amounts import KINDS, families
from capacity.measurement.measured import Measured
from capacity.validation import scoring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DATA = "capacity-bench.jsonl"
COVERAGE = 0.9
METRICS = {kind: f"{kind}_time_s" for kind in KINDS}
VIEWS = {"metric": (), "family": ("family",), "all": ("family",)}
_COLUMNS = ["id", "metric", "family", "measured", "low", "mid", "high", "baseline", "why"]


def validate(data: str | None = None) -> dict[str, Any]:
    """Score the laws of this machine on held-out sizes of a store; see `capacity.validation.validate`.

    Raises InputError where there are no laws or nothing to hold them against.
    """
    path = data or DEFAULT_DATA
    if data is None and not os.path.exists(path):
        raise InputError(f"{DEFAULT_DATA} is not here: measure with `capacity bench`, or give --data FILE")
    measured = Measured(path)
    rows = predict(read_laws(), measured)
    if rows.empty:
        raise InputError(f"{path}: holds no sizes that were kept from the fit: run `capacity bench {' '.join(KINDS)}`")
    groups = groups_of(rows)
    return scoring.document(
        "platform", rows, scoring.score(rows, "time_s"), groups,
        unit="s", views=VIEWS, baselines={"baseline_mdape": "by bytes"},
    )  # fmt: skip


def scores(path: str) -> list[dict[str, Any]]:
    """Scores of a store's storage, security and preparation; none where it holds none or this machine has no laws of them."""
    if not os.path.exists(platform_laws_path()):
        return []
    return groups_of(predict(read_laws(), Measured(path)))


def groups_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Scores of each metric and of each family."""
    groups: list[dict[str, Any]] = []
    for metric in METRICS.values():
        part = rows[rows["metric"] == metric]
        if len(part):
            groups += scoring.by_metric(part, metric, [("family",)])
    return groups


def read_laws(path: str | None = None) -> dict[str, PlatformLaw]:
    """The laws `capacity calibrate local` wrote."""
    path = path or platform_laws_path()
    return from_document(read_laws_document(path), path)


def predict(laws: dict[str, PlatformLaw], measured: Measured) -> pd.DataFrame:
    """A row for each case that was kept from the fit: measured, low, mid, high, and what bytes over the best pace would say."""
    rows: list[dict[str, Any]] = []
    for family, amounts in families(measured).items():
        law = laws.get(family)
        for one in amounts:
            if not one.kept_back:
                continue
            row: dict[str, Any] = {
                "id": one.case,
                "metric": METRICS[one.kind],
                "family": family,
                "measured": one.seconds,
            }
            if law is None:
                rows.append(row | {"why": "not calibrated"})
                continue
            baseline = one.moved_bytes * law.byte_s if law.byte_s else np.nan
            rows.append(row | {"mid": law.seconds(one.moved_bytes), "baseline": baseline, "why": ""})
    table = pd.DataFrame(rows).reindex(columns=_COLUMNS)
    for metric in table["metric"].unique():
        index = table.index[table["metric"] == metric]
        table.loc[index, "low"], table.loc[index, "high"] = _intervals(table.loc[index])
    return table


def _intervals(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The 90 % interval of each row, from the errors of the other families of its kind."""
    off = np.log(rows["measured"].to_numpy(dtype=float) / rows["mid"].to_numpy(dtype=float))
    family = rows["family"].to_numpy()
    low, high = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for one in np.unique(family):
        inside = family == one
        known = off[~inside & np.isfinite(off)]
        if len(known):
            share = min(1.0, (1.0 + COVERAGE) / 2.0 * (len(known) + 1) / len(known))
            below, above = np.quantile(known, (1.0 - share, share))
            mid = rows["mid"].to_numpy(dtype=float)[inside]
            low[inside], high[inside] = mid * np.exp(min(below, 0.0)), mid * np.exp(max(above, 0.0))
    return low, high
