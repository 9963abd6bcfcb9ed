"""This machine's laws from its measured kernels: every kernel is lowered to library calls, and the calls' terms are fitted.

Whole workloads are never fitted on. They are what the laws are then held against.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.optimize import nnls

from capacity.errors import InputError
from capacity.laws.local import LocalLaws, family, pool, run_terms
from capacity.measurement.measured import Measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from capacity.measurement.statistics import Summary
    from capacity.spec.trace import Trace

    Terms = dict[tuple[str, str], float]

# Residuals beyond this count less: a few kernels take a path of the library no law knows.
OUTLIER = 0.15
ROUNDS = 6
FEWEST_KERNELS = 20


def fit(rows: Sequence[Terms], seconds: Sequence[float]) -> tuple[dict[tuple[str, str], float], np.ndarray]:
    """Seconds per unit of each term, none negative, by relative error; and the predictions.

    Robust: weights of rows that stay far off shrink, so that one odd kernel does not bend a law.
    """
    columns = sorted({key for row in rows for key in row})
    measured = np.asarray(seconds, dtype=float)
    matrix = np.array([[row.get(column, 0.0) for column in columns] for row in rows])
    relative = matrix / measured[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)
    relative = relative / scale
    weights = np.ones(len(measured))
    found = np.zeros(len(columns))
    for _ in range(ROUNDS):
        found, _ = nnls(relative * weights[:, None], weights, maxiter=100 * len(columns))
        off = np.abs(relative @ found - 1.0)
        weights = np.sqrt(np.minimum(1.0, OUTLIER / np.maximum(off, 1e-9)))
    return dict(zip(columns, (found / scale).tolist(), strict=True)), matrix @ (found / scale)


def calibrate(path: str) -> tuple[LocalLaws, dict[str, Any]]:
    """Laws fitted to the kernels of a store, and how well they fit: residuals by kernel.

    Raises InputError where the store holds too few kernels.
    """
    kernels = Measured(path)
    traces = {name: trace for name in kernels.of_kind("kernel") if (trace := kernels.trace(name)) is not None}
    if len(traces) < FEWEST_KERNELS:
        raise InputError(
            f"{path}: holds {len(traces)} kernels that can be fitted, at least {FEWEST_KERNELS} are needed: "
            f"run `capacity bench kernel --to {path}`"
        )
    names = list(traces)
    rows = [run_terms(traces[name], _fresh(kernels.summaries[name])) for name in names]
    measured = [kernels.summaries[name].seconds for name in names]
    found, predicted = fit(rows, measured)
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for (law, term), value in found.items():
        seconds[law][term] = value
    seconds |= _pools(traces, seconds)
    residuals = np.log(np.asarray(measured) / np.maximum(predicted, 1e-12))
    low, mid, high = (float(value) for value in np.quantile(residuals, (0.05, 0.5, 0.95)))
    laws = LocalLaws(
        seconds=dict(seconds),
        spread=(low, mid, high),
        environment={
            name: kernels.environment.get(name)
            for name in (
                "cpu",
                "gpu",
                "system",
                "python",
                "torch",
                "caches_bytes",
                "measured_clock_hz",
                "memory_bytes",
                "seen",
            )
        },
        threads=kernels.threads,
        inner_cache_bytes=kernels.inner_cache_bytes,
        last_cache_bytes=kernels.last_cache_bytes,
        settings=kernels.settings,
        device=kernels.device,
    )
    off = {name: float(value / one - 1.0) for name, value, one in zip(names, predicted, measured, strict=True)}
    return laws, {
        "kernels": len(names),
        "residuals": off,
        "untraced": sorted(set(kernels.of_kind("kernel")) - set(names)),
    }


def _pools(traces: Mapping[str, Trace], seconds: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Medians over the laws of a kind and dtype: what stands in for an op never measured."""
    members: dict[str, set[str]] = defaultdict(set)
    for trace in traces.values():
        for op in trace.ops:
            law = f"{family(op)} {op.dtype}".strip()
            if op.kind in ("pointwise", "other") and law in seconds:
                members[pool(law, op.kind)].add(law)
    found: dict[str, dict[str, float]] = {}
    for name, laws in members.items():
        found[name] = {
            term: float(np.median([seconds[law].get(term, 0.0) for law in laws])) for term in ("calls", "elements")
        }
    return found


def _fresh(summary: Summary) -> float:
    """Fresh pages of a run; single pages are the interpreter's."""
    return summary.fresh_bytes if summary.fresh_bytes > 2**20 else 0.0
