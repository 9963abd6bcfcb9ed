"""The Pareto front: rows that no other beats in every objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from capacity.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

# What people call the usual objectives.
WORDS = {
    "time": "run_time",
    "step": "step_time",
    "memory": "memory_per_device",
    "throughput": "tokens_per_s",
    "devices": "device_hours",
}
# Of these more is better; of anything else less.
MORE = frozenset(
    {"goodput", "hfu", "mfu", "requests_per_s", "tokens_per_s", "tokens_per_s_per_device", "longest_context", "mbu"}
)


def objectives(words: str, names: Iterable[str]) -> list[str]:
    """Full names of the quantities that a front is about: "time,cost". Raises UnknownNameError."""
    known = list(names)
    found = []
    for word in words.split(","):
        wanted = WORDS.get(word.strip(), word.strip().replace("-", "_"))
        ends = [name for name in known if wanted in (name, name.partition(".")[2])]
        if not ends:
            choices = [*WORDS, *(name.partition(".")[2] for name in known)]
            raise UnknownNameError("objective", word.strip(), choices, "objectives are quantities, such as time,cost")
        found.append(ends[0])
    return found


def front(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows of a frame that fit and that no other row beats in all of the quantities, best in the first one first."""
    fits = frame[f"{names[0].partition('.')[0]}.fits"] == 1.0
    candidates = frame[fits & frame[list(names)].notna().all(axis=1)]
    costs = np.column_stack([_cost(candidates[name].to_numpy(), name) for name in names])
    return candidates.iloc[undominated(costs)]


def _cost(values: np.ndarray, name: str) -> np.ndarray:
    return -values if name.rpartition(".")[2] in MORE else values


def undominated(costs: np.ndarray) -> np.ndarray:
    """Numbers of the rows that no other row is as good as in every column and better in one, in order of the first column.

    costs: rows x objectives, less is better. Of equal rows the first is kept.
    """
    order = np.lexsort(costs.T[::-1])
    costs = costs[order]
    if costs.shape[1] <= 2 and len(costs):
        last = costs[:, -1]
        best = np.minimum.accumulate(last)
        better = np.ones(len(last), dtype=bool)
        better[1:] = last[1:] < best[:-1]
        return order[better] if costs.shape[1] == 2 else order[:1]
    left = np.arange(len(costs))
    kept = []
    while len(left):
        first = left[0]
        kept.append(first)
        # Rows are in order of the first column, so that nothing after the first left can beat it.
        left = left[(costs[left] < costs[first]).any(axis=1)]
    return order[np.array(kept, dtype=np.int64)]
