"""This machine's laws from its measured kernels: every kernel is lowered to library calls, and the calls' terms are fitted.

Whole workloads are never fitted on. They are what the laws are then held against.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from capacity.calibration.fit import fit_sum
from capacity.errors import InputError
from capacity.laws.local import MACHINE, NODES, PYTHON, SWITCHES, LocalLaws, law_name, libraries, named, pool, run_terms
from capacity.measurement.case import BETWEEN
from capacity.measurement.measured import Measured, held_out, threads_of
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from capacity.measurement.statistics import Summary
    from capacity.spec.trace import Trace

    Terms = dict[tuple[str, str], float]

# Residuals beyond this count less: a few kernels take a path of the library no law knows.
OUTLIER = 0.15
# Memory that is off by more than this counts less.
OUTLIER_BYTES = 3.0 * 2**20
FEWEST_KERNELS = 20
# Steps that say how far off the laws are of networks; variations of one step say the same again.
FEWEST_STEPS = 5
_VARIED = ("compiled", "recompute", "accumulate")
# An element-wise op has a law of its own if this many kernels of a few ops hold it; dispatch kernels of more ops are chains.
FEWEST_OF_A_LAW, MOST_LAWS = 3, 3
# Terms of calls among other calls.
_CONTEXT = ((MACHINE, SWITCHES), (MACHINE, NODES), *((law, term) for law in PYTHON for term in ("calls", SWITCHES)))
# Kernels of whole chains of calls.
_CHAINS = ("dispatch", "cold-step")
_FACTS = ("cpu", "gpu", "system", "python", "torch", "caches_bytes", "measured_clock_hz", "memory_bytes", "seen")


class Row(Record):
    """A kernel, or a phase of one, as the fit sees it."""

    name: str
    kernel: str
    trace: Trace
    terms: Terms
    seconds: float


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
    given = np.zeros(len(measured)) if known is None else np.asarray(known, dtype=float)
    found = fit_sum(matrix / measured[:, None], 1.0 - given / measured, OUTLIER)
    return dict(zip(columns, found.tolist(), strict=True)), given + matrix @ found


def calibrate(path: str) -> tuple[LocalLaws, dict[str, Any]]:
    """Laws fitted to the kernels of a store, and how well they fit: residuals by kernel.

    Raises InputError where the store holds too few kernels.
    """
    kernels = Measured(path)
    names, traces = _traces(kernels)
    if len(traces) < FEWEST_KERNELS:
        raise InputError(
            f"{path}: holds {len(traces)} kernels that can be fitted, at least {FEWEST_KERNELS} are needed: "
            f"run `capacity bench kernel --to {path}`"
        )
    rows = [row for name, trace in traces.items() for row in _rows(kernels, name, trace)]
    for threads in threads_of(path)[:-1]:
        # The same laws hold: what differs is how many threads a call is divided among.
        others = Measured(path, threads)
        rows += [row for name, trace in _traces(others)[1].items() for row in _rows(others, name, trace)]
    laws = LocalLaws(
        seconds=_laws(rows),
        spread=(0.0, 0.0, 0.0),
        environment={name: kernels.environment.get(name) for name in _FACTS},
        threads=kernels.threads,
        inner_cache_bytes=kernels.inner_cache_bytes,
        last_cache_bytes=kernels.last_cache_bytes,
        settings=kernels.settings,
        libraries_bytes=_libraries_bytes(kernels, traces),
        device=kernels.device,
    )
    predicted = {row.name: laws.run_s(row.terms, row.trace) for row in rows}
    residuals = np.log([row.seconds / max(predicted[row.name], 1e-12) for row in rows])
    laws = replace(laws, spread=_spread(residuals), steps=_steps(kernels, laws))
    return laws, {
        "kernels": len(traces),
        "residuals": {row.name: predicted[row.name] / row.seconds - 1.0 for row in rows},
        "untraced": sorted(set(names) - set(traces)),
    }


def _spread(residuals: np.ndarray) -> tuple[float, float, float]:
    low, mid, high = (float(value) for value in np.quantile(residuals, (0.05, 0.5, 0.95)))
    return low, mid, high


def _steps(measured: Measured, laws: LocalLaws) -> tuple[float, float, float] | None:
    """How far plain training steps are from what the laws say: the laws are not fitted to any of them."""
    residuals = []
    for name in measured.of_kind("training"):
        parameters = measured.cases[name].parameters
        plain = parameters["dtype"] == "fp32" and not any(parameters.get(word) for word in _VARIED)
        trace = measured.trace(name) if plain else None
        if trace is None:
            continue
        seconds, missing = laws.trace_s(trace)
        if not missing:
            residuals.append(np.log(measured.summaries[name].seconds / sum(seconds.values())))
    return _spread(np.array(residuals)) if len(residuals) >= FEWEST_STEPS else None


def _traces(kernels: Measured) -> tuple[list[str], dict[str, Trace]]:
    """Kernels to fit, and the calls of those that can be traced."""
    names = [name for name in kernels.of_kind("kernel") if not held_out(kernels.cases[name])]
    return names, {name: trace for name in names if (trace := kernels.trace(name)) is not None}


def _rows(kernels: Measured, name: str, trace: Trace) -> list[Row]:
    """A row for a kernel, or for each of its phases."""
    kernel, summary = kernels.cases[name].kernel, kernels.summaries[name]
    threads = kernels.threads
    if threads > 1 and summary.corrected:
        return []  # what several threads waited, each for the other, cannot be subtracted
    label = name if threads == 1 else f"{name}@{threads}"
    if not summary.parts_s:
        return [Row(label, kernel, trace, run_terms(trace, _fresh(summary), None, threads), summary.seconds)]
    return [
        Row(f"{label}:{phase}", kernel, trace, run_terms(trace, None, phase, threads), seconds)
        for phase, seconds in summary.parts_s.items()
        if phase != BETWEEN
    ]


def _laws(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """All terms, in three steps: a free term must be about what it is named after.

    1. Kernels of ops that have kernels of their own. An element-wise op that comes up only within others has no law: its
       free terms would swallow whatever those kernels are off. The medians over the laws of its kind stand in for it.
    2. All kernels but chains of calls, with what stands in held.
    3. Chains, with all of that held: what calls cost among other calls (cold code, nodes for backward, the interpreter).
    """
    kinds = {law_name(op): op.kind for row in rows for op in row.trace.ops}
    about: Counter[str] = Counter()
    for row in rows:
        laws = [law for law in named(row.terms) if kinds[law] != "view"]
        about.update(laws if len(laws) <= MOST_LAWS else ())
    rare = {law for law, kind in kinds.items() if kind in ("pointwise", "other") and about[law] < FEWEST_OF_A_LAW}
    plain = [
        row for row in rows if row.kernel not in _CHAINS or (":" not in row.name and len(named(row.terms)) <= MOST_LAWS)
    ]
    first = [row for row in plain if not rare.intersection(named(row.terms))]
    seconds = _fitted(first, [0.0] * len(first), rare)
    pools = _pools(rows, seconds)
    stand_in = LocalLaws({**pools, MACHINE: {}}, (0.0, 0.0, 0.0), {}, 1, 0.0, 0.0)
    known = [
        stand_in.run_s({key: amount for key, amount in row.terms.items() if key[0] in rare}, row.trace) for row in plain
    ]
    seconds = _fitted(plain, known, rare) | pools
    laws_so_far = LocalLaws(seconds, (0.0, 0.0, 0.0), {}, 1, 0.0, 0.0)
    busy = [row for row in rows if any(row.terms.get(key) for key in _CONTEXT)]
    context, _ = fit(
        [{key: row.terms[key] for key in _CONTEXT if key in row.terms} for row in busy],
        [row.seconds for row in busy],
        [laws_so_far.run_s(row.terms, row.trace) for row in busy],
    )
    for (law, term), value in context.items():
        seconds[law] = seconds.get(law, {}) | {term: value}
    return seconds


def _fitted(rows: Sequence[Row], known: Sequence[float], rare: set[str]) -> dict[str, dict[str, float]]:
    own = [
        {key: amount for key, amount in row.terms.items() if key not in _CONTEXT and key[0] not in rare} for row in rows
    ]
    found, _ = fit(own, [row.seconds for row in rows], known)
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for (law, term), value in found.items():
        seconds[law][term] = value
    return dict(seconds)


def _libraries_bytes(kernels: Measured, traces: Mapping[str, Trace]) -> dict[str, float]:
    """Memory that libraries hold once an op of a kind was called: what processes of kernels held beside their tensors."""
    rows, beside = [], []
    for visit in kernels.visits:
        if visit.case in traces and visit.peak_memory_bytes and visit.resting_memory_bytes:
            rows.append(libraries(traces[visit.case]))
            beside.append(
                max(visit.peak_memory_bytes - visit.resting_memory_bytes - traces[visit.case].peak_bytes, 0.0)
            )
    names = sorted({name for row in rows for name in row})
    if not names:
        return {}
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    found = fit_sum(matrix * 2**20 / OUTLIER_BYTES, np.array(beside) / OUTLIER_BYTES, 1.0)
    return {name: float(value) * 2**20 for name, value in zip(names, found, strict=True)}


def _pools(rows: Sequence[Row], seconds: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Medians over the laws of a kind and dtype: what stands in for an op never measured."""
    members: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for op in row.trace.ops:
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
