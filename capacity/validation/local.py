"""This machine's laws, fitted on kernels, held against whole workloads: steps, phases, prefill, decode, memory.

No workload was fitted on. The interval of a row comes from the errors of the other families only, so that each family is
predicted as one never seen.
"""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from capacity.catalogue.own import laws_path, read_laws_document
from capacity.errors import InputError
from capacity.laws.local import LocalLaws, from_document, fused
from capacity.measurement.measured import Measured, held_out
from capacity.validation import platform, scoring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.case import Case
    from capacity.spec.trace import Trace

DEFAULT_DATA = "capacity-bench.jsonl"
STEP, PASS, PHASE, MEMORY = "step_time_s", "pass_time_s", "phase_time_s", "peak_memory_bytes"
RANKS, COLLECTIVE = "step_of_ranks_s", "collective_time_s"
METRICS = (STEP, PASS, RANKS, COLLECTIVE, PHASE, MEMORY)
WORKLOADS = ("training", "inference")
COVERAGE = 0.9
VIEWS = {
    "metric": (),
    "family": ("family",),
    "dtype": ("dtype",),
    "form": ("form",),
    "phase": ("phase",),
    "all": ("family", "dtype"),
}


def validate(data: str | None = None) -> dict[str, Any]:
    """Score the laws of this machine on the workloads of a store; see `capacity.validation.validate`.

    Raises InputError where there are no laws or no workloads, FileFormatError for files that are something else.
    """
    path = data or DEFAULT_DATA
    if data is None and not os.path.exists(path):
        raise InputError(f"{DEFAULT_DATA} is not here: measure with `capacity bench`, or give --data FILE")
    measured = Measured(path)
    laws = read_laws()
    rows = predict(laws, measured)
    scored = {metric: rows[rows["metric"] == metric] for metric in METRICS}
    groups: list[dict[str, Any]] = []
    for metric, part in scored.items():
        if len(part):
            keys = [names for names in VIEWS.values() if names and (names[-1] != "phase" or metric == PHASE)]
            groups += scoring.by_metric(part, metric, keys)
    groups += platform.scores(path)
    whole = rows[rows["metric"].isin((STEP, PASS))]
    return scoring.document(
        "local", rows, scoring.score(whole, STEP), groups,
        unit="s", views=VIEWS, baselines={"baseline_mdape": "naive"}, worst_of=whole, machine=dict(laws.environment),
    )  # fmt: skip


def read_laws(path: str | None = None) -> LocalLaws:
    """The laws `capacity calibrate local` wrote."""
    path = path or laws_path()
    return from_document(read_laws_document(path), path)


def predict(laws: LocalLaws, measured: Measured) -> pd.DataFrame:
    """A row for each step, phase, pass and peak of memory: measured, low, mid, high, baseline, and why where unpriced."""
    rows: list[dict[str, Any]] = []
    held = [name for name in measured.of_kind("kernel") if held_out(measured.cases[name])]
    for name in (*measured.of_kind(*WORKLOADS), *held):
        case, summary = measured.cases[name], measured.summaries[name]
        metric, family, form = _what(case)
        common = {
            "family": family,
            "dtype": str(case.parameters.get("dtype", form)),
            "form": form,
            "why": "",
            "phase": "",
        }
        trace = measured.trace(name)
        if trace is None:
            rows.append(
                {"id": name, "metric": metric, "measured": summary.seconds, **common, "why": "cannot be traced"}
            )
            continue
        if case.parameters.get("compiled"):
            trace = fused(trace)
        seconds, missing = laws.trace_s(trace)
        if missing:
            common["why"] = f"not measured here: {', '.join(missing[:3])}"
        naive = roofline(laws, trace)
        total = {"mid": np.nan if missing else sum(seconds.values()), "baseline": sum(naive.values())}
        rows.append({"id": name, "metric": metric, "measured": summary.seconds, **total, **common})
        if metric in (RANKS, COLLECTIVE) or any(op.name.endswith(" layer") for op in trace.ops):
            continue  # phases of ranks wait for each other; memory of other processes and runtimes cannot be seen in their calls
        if not missing and summary.parts_s:
            for phase, value in summary.parts_s.items():
                part = {"measured": value, "mid": seconds.get(phase, np.nan), "baseline": naive.get(phase, np.nan)}
                rows.append({"id": f"{name}:{phase}", "metric": PHASE, **common, **part, "phase": phase})
        rows += _memory(name, measured, laws, trace, common)
    if not rows:
        raise InputError("the store holds no training or inference workload: run `capacity bench training inference`")
    table = pd.DataFrame(rows).reindex(
        columns=[
            "id",
            "metric",
            "family",
            "dtype",
            "form",
            "phase",
            "measured",
            "low",
            "mid",
            "high",
            "baseline",
            "why",
        ]
    )
    for metric in table["metric"].unique():
        index = table.index[table["metric"] == metric]
        low, high = _intervals(table.loc[index])
        table.loc[index, "low"], table.loc[index, "high"] = low, high
    return table


def _what(case: Case) -> tuple[str, str, str]:
    """What is timed in a workload, the family whose errors say nothing of it, and its form."""
    parameters = case.parameters
    if case.kernel == "collective":
        return COLLECTIVE, parameters["op"], ""
    if case.kernel == "distributed":
        return RANKS, str(parameters["family"]), str(parameters["way"])
    if case.kernel == "inference":
        return PASS, f"decoder {parameters['phase']}", str(parameters["form"])
    if case.kernel == "runtime":
        return PASS, f"{parameters['backend']} {parameters['phase']}", str(parameters["form"])
    form = next((name for name in ("compiled", "recompute", "accumulate") if parameters.get(name)), "")
    return STEP, str(parameters.get("family", case.kernel)), form


def roofline(laws: LocalLaws, trace: Trace) -> dict[str, float]:
    """The naive estimate on measured ceilings, by phase: each call's FLOPs at the best product rate or its bytes at the memory's."""
    phases: dict[str, float] = {}
    for op in trace.ops:
        phases[op.phase] = phases.get(op.phase, 0.0) + op.calls * laws.roofline_s(op)
    return phases


def _memory(
    name: str, measured: Measured, laws: LocalLaws, trace: Trace, common: dict[str, Any]
) -> list[dict[str, Any]]:
    """What the process held at most: what it held before, its libraries' buffers, and what the trace had alive at once."""
    visits = [visit for visit in measured.visits if visit.case == name]
    peaks = [visit.peak_memory_bytes for visit in visits if visit.peak_memory_bytes]
    resting = [visit.resting_memory_bytes for visit in visits if visit.resting_memory_bytes is not None]
    if not peaks or not resting:
        return []
    rested = float(np.median(resting))
    facts = visits[0].facts
    # The rule of thumb: weights, gradients and two moments in fp32, or the weights alone; nothing else.
    naive = float(facts.get("parameters", 0.0)) * 16.0 or float(facts.get("weight_bytes", np.nan))
    row = {
        "measured": float(np.median(peaks)),
        "mid": rested + laws.memory_bytes(trace),
        "baseline": naive,
    }
    return [{"id": f"{name}:memory", "metric": MEMORY, **row, **common}]


def _intervals(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The 90 % interval of each row from the errors of the other families (split-conformal, each family left out)."""
    off = np.log(rows["measured"].to_numpy(dtype=float) / rows["mid"].to_numpy(dtype=float))
    families = rows["family"].to_numpy()
    low = np.full(len(rows), np.nan)
    high = np.full(len(rows), np.nan)
    for one in np.unique(families):
        inside = families == one
        known = off[~inside & np.isfinite(off)]
        if len(known) < 5:
            known = off[np.isfinite(off)]
        if not len(known):
            continue
        beyond = min(1.0, (1.0 + COVERAGE) / 2.0 * (len(known) + 1) / len(known))
        below, above = np.quantile(known, (1.0 - beyond, beyond))
        mid = rows["mid"].to_numpy(dtype=float)[inside]
        low[inside], high[inside] = mid * np.exp(min(below, 0.0)), mid * np.exp(max(above, 0.0))
    return low, high
