"""Whether the layout that is predicted fastest is fast: runs of one question that differ in their layout only."""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

# Fewer layouts than this are no choice.
LEAST = 4


def sweeps(rows: pd.DataFrame, question: tuple[str, ...]) -> dict[str, Any]:
    """Rank correlation and regret within groups of rows that ask the same question.

    question: columns that say so. Regret: how much longer the layout predicted fastest takes than the fastest there is.
    Returns {"n": groups, "spearman": median, "regret": mean, "regret_worst": ..., "groups": [...]} with fractions.
    """
    priced = rows[np.isfinite(rows["mid"].to_numpy(dtype=float)) & np.isfinite(rows["measured"].to_numpy(dtype=float))]
    found: list[dict[str, Any]] = []
    for _, part in priced.groupby(list(question), dropna=False, sort=True):
        if len(part) < LEAST or part["layout"].nunique() < LEAST:
            continue
        measured, predicted = part["measured"], part["mid"]
        chosen = float(measured.loc[predicted.idxmin()])
        found.append(
            {
                "first": str(part.iloc[0]["id"]),
                "n": len(part),
                "spearman": float(measured.rank().corr(predicted.rank())),
                "regret": chosen / float(measured.min()) - 1.0,
            }
        )
    if not found:
        return {"n": 0, "groups": []}
    regrets = np.array([group["regret"] for group in found])
    return {
        "n": len(found),
        "spearman": float(np.nanmedian([group["spearman"] for group in found])),
        "regret": float(regrets.mean()),
        "regret_worst": float(regrets.max()),
        "groups": found,
    }
