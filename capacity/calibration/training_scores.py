"""What a fit of training stacks says of runs it has not seen: errors, and the intervals they make."""

from __future__ import annotations

import numpy as np
import pandas as pd

from capacity.calibration.training_runs import WEIGHTS
from capacity.validation.training import ROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.calibration.training_runs import Runs
    from capacity.validation.training_rows import Setup


def interval_kind(setup: Setup, generation: str) -> str:
    """Which interval a run takes: of its generation, of mixtures of experts, or of accelerators that are no GPUs."""
    if setup.kind in ROUTED:
        return "experts"
    return generation if setup.cluster.device.kind == "GPU" else "accelerator"


def intervals(predicted: np.ndarray, runs: Runs) -> dict[str, dict[str, Any]]:
    """5 % and 95 % quantiles of measured over predicted of held-out runs, and the deviations of sites and of the rest.

    predicted: with each publisher left out. Rows of a publisher together weigh as the root of their number.
    """
    kinds = np.array([interval_kind(s, g) for s, g in zip(runs.setups, runs.words["generation"], strict=True)])
    # Rows that stand for something else, and weigh next to nothing, say nothing of others.
    odd = [WEIGHTS.get(setup.publisher, 1.0) <= 0.1 for setup in runs.setups]
    used = (runs.weight > 0.0) & ~np.array(odd)
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(set(kinds)):
        mine = used & (kinds == kind)
        logs = pd.Series(np.log(runs.measured / predicted)[mine])
        family = pd.Series(runs.family[mine])
        share = 1.0 / np.sqrt(family.map(family.value_counts()).to_numpy(float))
        order = np.argsort(logs.to_numpy())
        mass = np.cumsum(share[order]) / share.sum()
        low, high = (float(logs.to_numpy()[order][min(np.searchsorted(mass, q), len(mass) - 1)]) for q in (0.05, 0.95))
        middle = logs.groupby(family).transform("median")
        found[kind] = {
            "low": float(np.exp(min(low, -0.02))),
            "high": float(np.exp(max(high, 0.02))),
            "site": max(float(logs.groupby(family).median().std(ddof=0)), 0.05),
            "rest": max(float((logs - middle).abs().median() * 1.4826), 0.03),
            "rows": float(mine.sum()),
            "source": f"{mine.sum()} runs of {family.nunique()} publishers, each left out of the fit that predicts it",
        }
    return found


def anchored(
    predicted: np.ndarray, runs: Runs, spread: Mapping[str, Mapping[str, Any]], anchors: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions with a site factor from a few rows of each publisher, and which rows were not used for it."""
    publisher = np.array([setup.publisher for setup in runs.setups])
    result, rest = predicted.copy(), np.ones(len(predicted), dtype=bool)
    for name in set(publisher):
        rows = np.flatnonzero(publisher == name)
        if len(rows) <= anchors:
            rest[rows] = False
            continue
        chosen = rows[np.linspace(0, len(rows) - 1, anchors).astype(int)]
        kind = interval_kind(runs.setups[rows[0]], runs.words["generation"][rows[0]])
        site, within = spread[kind]["site"] ** 2, spread[kind]["rest"] ** 2
        trust = anchors * site / (anchors * site + within)
        factor = np.exp(np.log(runs.measured / predicted)[chosen].mean() * trust)
        result[rows] *= factor
        rest[chosen] = False
    return result, rest


FIGURES = ("rows", "median", "mean", "p90", "bias", "within_20")


def figures(predicted: np.ndarray, runs: Runs, chosen: np.ndarray) -> dict[str, float]:
    """Number of rows, then median, mean, 90th percentile of the error, bias and the share within 20 %, in percent."""
    off = (predicted / runs.measured - 1.0)[chosen] * 100.0
    if not len(off):
        return dict.fromkeys(FIGURES, 0.0)
    size = np.abs(off)
    values = (
        len(off),
        np.median(size),
        size.mean(),
        np.quantile(size, 0.9),
        np.median(off),
        np.mean(size <= 20.0) * 100.0,
    )
    return {name: round(float(value), 1) for name, value in zip(FIGURES, values, strict=True)}


def routed_models(runs: Runs) -> np.ndarray:
    """Which mixture of experts or latent attention a graded run trains, by the first word of its name; "" for others."""
    names = [
        setup.model.name.lower().split(" ")[0] if setup.kind in ROUTED and setup.tier in ("A", "B") else ""
        for setup in runs.setups
    ]
    return np.array(names)


def asked(runs: Runs) -> dict[str, np.ndarray]:
    """Rows of what is asked of the estimator, then of each publisher that was fitted on, by name."""
    publisher = np.array([setup.publisher for setup in runs.setups])
    tier = np.array([setup.tier for setup in runs.setups])
    kind = np.array([setup.kind for setup in runs.setups])
    generation = runs.words["generation"]
    routed, graded = np.isin(kind, ["moe", "mla"]), np.isin(tier, ["A", "B"])
    rows = {
        "all of tier A": tier == "A",
        "tuned stacks, tier B, dense": (tier == "B") & (generation == "tuned") & ~routed,
        "mixtures of experts and latent attention": routed & graded,
        "Megatron with sequence parallelism": (publisher == "mlm-seqsel") & (tier == "A"),
        "vTrain, many nodes": publisher == "vtrainM",
        "vTrain, one node": publisher == "vtrainS",
    }
    return rows | {name: (publisher == name) & graded for name in sorted(set(publisher[graded]))}
