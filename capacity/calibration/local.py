"""This machine's laws from its measured kernels: every kernel is lowered to library calls, and the calls' terms are fitted.

Whole workloads are never fitted on. They are what the laws are then held against.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from scipy.optimize import nnls

from capacity.errors import InputError
from capacity.laws.local import MACHINE, MODULES, NODES, SWITCHES, LocalLaws, law_name, named, pool, run_terms
from capacity.measurement.measured import Measured
from capacity.record import replace

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
# An element-wise op has a law of its own if this many kernels hold it; dispatch kernels of more laws than that are chains.
FEWEST_OF_A_LAW, MOST_LAWS = 4, 4
# Terms of calls among other calls.
_CONTEXT = ((MACHINE, SWITCHES), (MACHINE, NODES), (MACHINE, MODULES))
_FACTS = ("cpu", "gpu", "system", "python", "torch", "caches_bytes", "measured_clock_hz", "memory_bytes", "seen")


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
    measured = np.array([kernels.summaries[name].seconds for name in names])
    seconds = _laws(traces, rows, measured)
    laws = LocalLaws(
        seconds=seconds,
        spread=(0.0, 0.0, 0.0),
        environment={name: kernels.environment.get(name) for name in _FACTS},
        threads=kernels.threads,
        inner_cache_bytes=kernels.inner_cache_bytes,
        last_cache_bytes=kernels.last_cache_bytes,
        settings=kernels.settings,
        libraries_bytes=_libraries_bytes(kernels, traces),
        device=kernels.device,
    )
    predicted = np.array([laws.run_s(row, traces[name]) for name, row in zip(names, rows, strict=True)])
    residuals = np.log(np.asarray(measured) / np.maximum(predicted, 1e-12))
    low, mid, high = (float(value) for value in np.quantile(residuals, (0.05, 0.5, 0.95)))
    laws = replace(laws, spread=(low, mid, high))
    off = {name: float(value / one - 1.0) for name, value, one in zip(names, predicted, measured, strict=True)}
    return laws, {
        "kernels": len(names),
        "residuals": off,
        "untraced": sorted(set(kernels.of_kind("kernel")) - set(names)),
    }


def _laws(traces: Mapping[str, Trace], rows: Sequence[Terms], measured: np.ndarray) -> dict[str, dict[str, float]]:
    """Terms of ops from kernels that are about them; then, with these held, what calls cost among other calls.

    An op that no kernel is about (it comes up only within some other) has no law of its own: it takes the pool's. Otherwise its
    free terms would swallow what the machine's switches, nodes and modules cost.
    """
    counts: Counter[str] = Counter(law for row in rows for law in named(row))
    kinds = {law_name(op): op.kind for trace in traces.values() for op in trace.ops}
    rare = {law for law, count in counts.items() if count < FEWEST_OF_A_LAW and kinds[law] in ("pointwise", "other")}
    names = list(traces)
    plain = [
        index
        for index, row in enumerate(rows)
        if not rare.intersection(named(row))
        and not (names[index].startswith("dispatch/") and len(named(row)) > MOST_LAWS)
    ]
    own = [{key: amount for key, amount in rows[index].items() if key not in _CONTEXT} for index in plain]
    found, _ = fit(own, measured[plain].tolist())
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for (law, term), value in found.items():
        seconds[law][term] = value
    seconds |= _pools(traces, seconds)
    laws = LocalLaws(seconds, (0.0, 0.0, 0.0), {}, 1, 0.0, 0.0)
    busy = [index for index, row in enumerate(rows) if any(row.get(key) for key in _CONTEXT)]
    left = np.array([measured[index] - laws.run_s(rows[index], traces[names[index]]) for index in busy])
    context = _context([rows[index] for index in busy], left, measured[busy])
    seconds[MACHINE] |= context
    return dict(seconds)


def _context(rows: Sequence[Terms], left: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """What is left of the time, by switches, nodes and modules: relative to the whole, robustly, never negative."""
    matrix = np.array([[row.get(key, 0.0) for key in _CONTEXT] for row in rows]) / measured[:, None]
    wanted = left / measured
    scale = np.maximum(matrix.max(axis=0), 1e-300)
    weights = np.ones(len(rows))
    found = np.zeros(len(_CONTEXT))
    for _ in range(ROUNDS):
        found, _ = nnls(matrix / scale * weights[:, None], wanted * weights)
        off = np.abs(matrix / scale @ found - wanted)
        weights = np.sqrt(np.minimum(1.0, OUTLIER / np.maximum(off, 1e-9)))
    return {term: float(value) for (_, term), value in zip(_CONTEXT, found / scale, strict=True)}


def _libraries_bytes(kernels: Measured, traces: Mapping[str, Trace]) -> float:
    """What processes of kernels held beside their tensors, in the median."""
    beside = [
        visit.peak_memory_bytes - visit.resting_memory_bytes - traces[visit.case].peak_bytes
        for visit in kernels.visits
        if visit.case in traces and visit.peak_memory_bytes and visit.resting_memory_bytes
    ]
    return max(float(np.median(beside)), 0.0) if beside else 0.0


def _pools(traces: Mapping[str, Trace], seconds: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Medians over the laws of a kind and dtype: what stands in for an op never measured."""
    members: dict[str, set[str]] = defaultdict(set)
    for trace in traces.values():
        for op in trace.ops:
            law = law_name(op)
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
