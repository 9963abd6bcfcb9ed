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
# An element-wise op has a law of its own if this many kernels of a few ops hold it; dispatch kernels of more ops are chains.
FEWEST_OF_A_LAW, MOST_LAWS = 3, 3
# Terms of calls among other calls.
_CONTEXT = ((MACHINE, SWITCHES), (MACHINE, NODES), (MACHINE, MODULES))
_FACTS = ("cpu", "gpu", "system", "python", "torch", "caches_bytes", "measured_clock_hz", "memory_bytes", "seen")


def fit(
    rows: Sequence[Terms], seconds: Sequence[float], known: Sequence[float] | None = None
) -> tuple[dict[tuple[str, str], float], np.ndarray]:
    """Seconds per unit of each term, none negative, by relative error; and the predictions.

    known: seconds of each row that are priced already.

    Robust: weights of rows that stay far off shrink, so that one odd kernel does not bend a law.
    """
    columns = sorted({key for row in rows for key in row})
    measured = np.asarray(seconds, dtype=float)
    matrix = np.array([[row.get(column, 0.0) for column in columns] for row in rows])
    relative = matrix / measured[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)
    relative = relative / scale
    given = np.zeros(len(measured)) if known is None else np.asarray(known, dtype=float)
    wanted = 1.0 - given / measured
    weights = np.ones(len(measured))
    found = np.zeros(len(columns))
    for _ in range(ROUNDS):
        found, _ = nnls(relative * weights[:, None], wanted * weights, maxiter=100 * len(columns))
        off = np.abs(relative @ found - wanted)
        weights = np.sqrt(np.minimum(1.0, OUTLIER / np.maximum(off, 1e-9)))
    return dict(zip(columns, (found / scale).tolist(), strict=True)), given + matrix @ (found / scale)


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
    """All terms, in three steps: a free term must be about what it is named after.

    1. Kernels of ops that have kernels of their own. An element-wise op that comes up only within others has no law: its
       free terms would swallow whatever those kernels are off. The medians over the laws of its kind stand in for it.
    2. All kernels but chains of calls, with what stands in held.
    3. Chains, with all of that held: what calls cost among other calls (cold code, nodes for backward, Python modules).
    """
    names = list(traces)
    kinds = {law_name(op): op.kind for trace in traces.values() for op in trace.ops}
    about: Counter[str] = Counter()
    for row in rows:
        laws = [law for law in named(row) if kinds[law] != "view"]
        about.update(laws if len(laws) <= MOST_LAWS else ())
    rare = {law for law, kind in kinds.items() if kind in ("pointwise", "other") and about[law] < FEWEST_OF_A_LAW}
    chains = {
        index for index, row in enumerate(rows) if names[index].startswith("dispatch/") and len(named(row)) > MOST_LAWS
    }
    plain = [index for index in range(len(rows)) if index not in chains]
    first = [index for index in plain if not rare.intersection(named(rows[index]))]
    seconds = _fitted([rows[index] for index in first], measured[first], np.zeros(len(first)), rare)
    pools = _pools(traces, seconds)
    stand_in = LocalLaws({**pools, MACHINE: {}}, (0.0, 0.0, 0.0), {}, 1, 0.0, 0.0)
    known = [
        stand_in.run_s({key: amount for key, amount in rows[index].items() if key[0] in rare}, traces[names[index]])
        for index in plain
    ]
    seconds = _fitted([rows[index] for index in plain], measured[plain], known, rare) | pools
    laws_so_far = LocalLaws(seconds, (0.0, 0.0, 0.0), {}, 1, 0.0, 0.0)
    busy = [index for index, row in enumerate(rows) if any(row.get(key) for key in _CONTEXT)]
    context, _ = fit(
        [{key: rows[index].get(key, 0.0) for key in _CONTEXT} for index in busy],
        measured[busy].tolist(),
        [laws_so_far.run_s(rows[index], traces[names[index]]) for index in busy],
    )
    seconds[MACHINE] = seconds.get(MACHINE, {}) | {term: value for (_, term), value in context.items()}
    return seconds


def _fitted(
    rows: Sequence[Terms], measured: np.ndarray, known: Sequence[float] | np.ndarray, rare: set[str]
) -> dict[str, dict[str, float]]:
    own = [{key: amount for key, amount in row.items() if key not in _CONTEXT and key[0] not in rare} for row in rows]
    found, _ = fit(own, measured.tolist(), list(known))
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for (law, term), value in found.items():
        seconds[law][term] = value
    return dict(seconds)


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
