"""Scores: how far predictions are from measurements, and how honest their intervals."""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import pandas as pd

SCHEMA = 1
MOST_WORST = 50


def score(rows: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The score of some rows: errors as fractions of what was measured.

    rows: columns measured, low, mid, high and baseline; NaN in mid where a row could not be priced.
    """
    priced = rows[np.isfinite(rows["mid"].to_numpy(dtype=float))]
    result: dict[str, Any] = {"metric": metric, "n": len(rows), "priced": len(priced)}
    if priced.empty:
        return result | dict.fromkeys(
            ("mdape", "mape", "bias", "within_20", "p10", "p50", "p90", "p90_absolute", "coverage_90", "baseline_mdape")
        )
    measured = priced["measured"].to_numpy(dtype=float)
    signed = priced["mid"].to_numpy(dtype=float) / measured - 1.0
    absolute = np.abs(signed)
    inside = (priced["low"].to_numpy() <= measured) & (measured <= priced["high"].to_numpy())
    baselines = {
        f"{name}_mdape": float(np.nanmedian(np.abs(priced[name].to_numpy(dtype=float) / measured - 1.0)))
        for name in priced.columns
        if str(name).startswith("baseline") and priced[name].notna().any()
    }
    p10, p50, p90 = np.quantile(signed, (0.1, 0.5, 0.9))
    return (
        result
        | {
            "mdape": float(np.median(absolute)),
            "mape": float(absolute.mean()),
            "bias": float(p50),
            "within_20": float((absolute <= 0.2).mean()),
            "p10": float(p10),
            "p50": float(p50),
            "p90": float(p90),
            "p90_absolute": float(np.quantile(absolute, 0.9)),
            "coverage_90": float(inside.mean()),
        }
        | baselines
    )


def groups(rows: pd.DataFrame, metric: str, keys: Iterable[tuple[str, ...]]) -> list[dict[str, Any]]:
    """One score for each value of each combination of columns."""
    found: list[dict[str, Any]] = []
    for names in keys:
        for value, part in rows.groupby(list(names), sort=True, dropna=False):
            values = value if isinstance(value, tuple) else (value,)
            by = {name: _plain(one) for name, one in zip(names, values, strict=True)}
            found.append({"by": by, **score(part, metric)})
    return found


def by_metric(part: pd.DataFrame, metric: str, keys: Iterable[tuple[str, ...]]) -> list[dict[str, Any]]:
    """The scores of one metric's rows: of all of them, then of each group."""
    return [{"by": {}, **score(part, metric)}, *groups(part, metric, keys)]


def document(
    kind: str,
    rows: pd.DataFrame,
    overall: dict[str, Any],
    groups: list[dict[str, Any]],
    *,
    unit: str,
    views: Mapping[str, tuple[str, ...]],
    baselines: Mapping[str, str] | None = None,
    worst_of: pd.DataFrame | None = None,
    about: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """The scores of a kind in the form that `capacity.validation.validate` returns.

    unit: of what was predicted. baselines: what each baseline column of a score is called on the screen. worst_of: the
    rows the furthest off are looked for in, if not all; about: columns that say what such a row measured. more: what
    this kind tells beside.
    """
    unpriced = rows.loc[rows["mid"].isna(), "why"].value_counts()
    return {
        "schema": SCHEMA,
        "kind": kind,
        "overall": overall,
        "groups": groups,
        "worst": worst(rows if worst_of is None else worst_of, unit, about=about),
        "unpriced": {str(why): int(count) for why, count in unpriced.items()},
        "views": dict(views),
        "baselines": dict(baselines or {}),
        **more,
        "rows": rows,
    }


def worst(
    rows: pd.DataFrame, unit: str, most: int = MOST_WORST, *, about: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The rows furthest off, as ratios, with what is known of why; "about": what they measured, by those columns."""
    priced = rows[np.isfinite(rows["mid"].to_numpy(dtype=float))]
    off = np.abs(np.log(priced["mid"].to_numpy(dtype=float) / priced["measured"].to_numpy(dtype=float)))
    order = np.argsort(-off, kind="stable")[:most]
    return [
        {
            "id": str(row["id"]),
            "measured": float(row["measured"]),
            "predicted": [float(row["low"]), float(row["mid"]), float(row["high"])],
            "unit": unit,
            "why": str(row["why"]),
            **({"about": _about(row, about)} if about else {}),
        }
        for _, row in priced.iloc[order].iterrows()
    ]


def _about(row: pd.Series, names: tuple[str, ...]) -> dict[str, Any]:
    """The cells of a row that hold something; a table need not have every column."""
    return {name: _plain(row[name]) for name in names if name in row and row[name] == row[name]}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
