"""Fit the training stacks to published runs, or to a site's own: `capacity calibrate training DATA`.

Scores in sample stand beside those with each publisher left out of the fit that predicts it.
"""

from __future__ import annotations

import os

import numpy as np

from capacity.calibration.fit import fit as fit_law
from capacity.calibration.training_parameters import (
    FACTORS,
    GENERATIONS,
    HIDDEN,
    NARROW,
    OTHER_PACE,
    PACE,
    RIDGE,
    RIDGE_PRIOR,
    fitted_values,
    priors,
    stacks_text,
)
from capacity.calibration.training_runs import read_runs, tables_in
from capacity.calibration.training_scores import anchored, asked, figures, intervals, routed_models
from capacity.errors import InputError
from capacity.estimators.stacks import FILE, MOST_PACE, load_stack
from capacity.estimators.training_terms import Terms
from capacity.estimators.training_time import assemble
from capacity.laws.kernels.parameters import Parameter
from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from capacity.calibration.training_runs import Runs

    Key = tuple[str, ...]

# A parameter may leave its prior by so many of its widths at most.
WIDEST = 8.0
# Fewer runs than this say nothing of intervals: the project's own are kept.
LEAST_RUNS = 60


def predicted_s(values: Mapping[tuple[str, ...], float], runs: Runs) -> np.ndarray:
    """Seconds of each run's step under some parameters."""
    words, rows = runs.words, len(runs.measured)
    generation, architecture = words["generation"], words["architecture"]
    columns: dict[str, Any] = {}
    for name in FACTORS:
        columns[name] = np.ones(rows)
        for one in GENERATIONS:
            columns[name][generation == one] = values.get((name, one), 1.0)
    columns["attention"] = np.ones(rows)
    for one in GENERATIONS:
        columns["attention"][generation == one] = values[("attention", one, "other")]
        for name in set(architecture):
            chosen = (generation == one) & (architecture == name)
            columns["attention"][chosen] = values.get(("attention", one, name), values[("attention", one, "other")])
    for _, name, stack in (key for key in values if key[0] == "departure"):
        columns[name][words["stack"] == stack] *= values[("departure", name, stack)]
    pace = np.full(rows, OTHER_PACE)
    for name in PACE:
        pace[architecture == name] = values[("pace", name)]
    for kind in RIDGE_PRIOR:
        built = runs.words["kind"] == kind
        pace[built] = np.minimum(pace[built] * (runs.ridge[built] / RIDGE) ** -values[("ridge", kind)], MOST_PACE)
    pace = pace * runs.watts ** values[("watts", "power")]
    for dtype, name in NARROW:
        chosen = (words["precision"] == dtype) & ((architecture == name) | (name == "other"))
        pace[chosen] *= values[("narrow", dtype, name)]
    columns["sustained"] = columns["sustained"] * pace
    columns["grouped"] = columns["grouped"] * np.where(
        np.isin(words["precision"], ("fp8", "fp4", "int8")), columns.pop("grouped_narrow"), 1.0
    )
    for exposed, hidden in HIDDEN.items():
        columns[hidden] = 1.0 - np.minimum(columns.pop(exposed), 1.0)
    fixed = load_stack("eager")
    columns |= {name: getattr(fixed, name) for name in ("overlap", "launches", "fused_attention")}
    columns |= {"name": "", "title": "", "generation": "", "source": "", "file": ""}
    parts = assemble(Terms(**runs.terms), _Columns(columns), runs.host)  # type: ignore[arg-type]
    result: np.ndarray = np.sum([np.broadcast_to(part, rows) for part in parts.values()], axis=0)
    return result


class _Columns:
    """A stack whose factors are columns."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


def fit(
    runs: Runs, known: Mapping[Key, tuple[float, float]], start: Mapping[Key, float] | None = None
) -> dict[Key, float]:
    """Parameters that fit the weighted rows best, near their priors; known: of each the prior and its width."""
    used = runs.only(runs.weight > 0.0)
    names = {".".join(key): key for key in known}

    def predict(values: Mapping[str, float], rows: np.ndarray | None) -> np.ndarray:
        chosen = used if rows is None else used.only(np.isin(np.arange(len(used.measured)), rows))
        return predicted_s({names[name]: value for name, value in values.items()}, chosen)

    bounds = {
        name: Parameter(mid, mid * np.exp(-WIDEST * width), mid * np.exp(WIDEST * width), width, "")
        for name, (mid, width) in ((name, known[key]) for name, key in names.items())
    }
    found = fit_law(
        predict,
        used.measured,
        bounds,
        {name: known[key][0] for name, key in names.items()},
        starts=() if start is None else ({name: start[key] for name, key in names.items()},),
        weights=used.weight,
        smooth=12 if start is None else 6,
    )
    return {names[name]: value for name, value in found.parameters.items()}


def left_out(
    runs: Runs, known: Mapping[Key, tuple[float, float]], start: Mapping[Key, float], groups: np.ndarray
) -> np.ndarray:
    """Seconds of each run's step by parameters fitted without any row of its group ("": no group)."""
    result = predicted_s(start, runs)
    for name in sorted(set(groups[(runs.weight > 0.0) & (groups != "")])):
        mine = groups == name
        others = type(runs)(**(runs.__dict__ | {"weight": np.where(mine, 0.0, runs.weight)}))
        values = fit(others, known, start) if others.weight.any() else {key: mid for key, (mid, _) in known.items()}
        result = np.where(mine, predicted_s(values, runs), result)
    return result


def calibrate(
    data: str,
    folder: str,
    *,
    source: str = "",
    date: str = "",
    fresh: bool = False,
    talk: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fit, score and write `stacks.toml` into a folder.

    fresh: from the project's priors and on published runs only, as its own stacks are made. Otherwise the project's stacks
    are the prior, which a site's own runs move as far as they are many and agree.
    """
    runs = read_runs(tables_in(data), held_out=fresh)
    count = int((runs.weight > 0.0).sum())
    if not count:
        raise InputError(
            f"{data}: no run of it can be fitted on: none states a step time or rate, or all are the project's own"
        )
    old = read_toml(os.path.join(FITTED, FILE), keep=False)
    known = priors() if fresh else fitted_values(old)
    talk(f"{count} runs to fit")
    values = fit(runs, known)
    talk("leaving each publisher out")
    seen, unseen = predicted_s(values, runs), left_out(runs, known, values, runs.family)
    scores = {
        name: {"in_sample": figures(seen, runs, rows), "left_out": figures(unseen, runs, rows)}
        for name, rows in asked(runs).items()
        if rows.any()
    }
    routed = routed_models(runs)
    if fresh and (routed != "").any():
        talk("leaving each mixture of experts out")
        others = left_out(runs, known, values, routed)
        rows = routed != ""
        scores["mixtures of experts, each model left out"] = {
            "in_sample": figures(seen, runs, rows),
            "left_out": figures(others, runs, rows),
        }
    spans = {kind: span for kind, span in intervals(unseen, runs).items() if span["rows"] >= LEAST_RUNS or fresh}
    helped, kept = anchored(unseen, runs, {**old["interval"], **spans})
    rows = kept & np.array([setup.tier == "A" for setup in runs.setups])
    if rows.any():
        scores["tier A with three anchors"] = {
            "in_sample": figures(seen, runs, rows),
            "left_out": figures(helped, runs, rows),
        }
    told = {"source": source or f"{count} {'published ' if fresh else ''}training runs", "date": date or old["date"]}
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, FILE)
    write_whole(path, stacks_text(values, {**old["interval"], **spans}, scores, old["stack"], old["generation"], told))
    return {"files": [path], "runs": count, "scores": scores}
