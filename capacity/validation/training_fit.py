"""Fit the software stacks on published training runs: `python -m capacity.validation.training_fit RUNS.csv ...`.

Writes capacity/laws/fitted/stacks.toml and prints in-sample scores beside those with each publisher left out. Few
parameters are shared by many runs: the pace an architecture sustains, factors of three software generations, and small
departures of each stack from its generation. All are positive and fitted as logarithms with a prior and its width, so
that what no row speaks of keeps its prior; none belongs to a publisher, a model or a row.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from capacity.errors import CapacityError
from capacity.estimators.stacks import FILE, load_stack, relative_watts, stack_names
from capacity.estimators.training_terms import Terms
from capacity.estimators.training_time import assemble
from capacity.laws.profile import FITTED
from capacity.record import Record, fields
from capacity.toml_file import read_toml
from capacity.validation.tables import read_runs as read_rows
from capacity.validation.training import NEEDED, terms_of
from capacity.validation.training_rows import Setup, read_setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

GENERATIONS = ("eager", "tuned", "compiled")
# Prior of the pace an architecture sustains in a long run, as a share of what its kernels reach alone.
PACE = {"ampere": 1.0, "hopper": 0.82, "blackwell": 0.65, "volta": 1.0, "tpu": 1.0, "gaudi": 0.8, "trainium": 0.75, "cdna3": 0.6, "cdna4": 0.6}  # fmt: skip
PACE_WIDTH, OTHER_PACE = 0.08, 0.75
# Accelerators with more compute for their bandwidth than this (FLOP/byte) keep less of it: their compilers' tiles are smaller.
RIDGE, RIDGE_PRIOR, RIDGE_WIDTH = 220.0, 0.2, 0.5
# Devices clock down to their power limit: watts for a dense TFLOP/s (16 bits) of the device an architecture's pace is of,
# and prior and width of the power of the pace in a device's own watts over these.
WATTS = {"ampere": 1.282, "hopper": 0.708, "blackwell": 0.48, "volta": 2.4}
POWER_PRIOR, POWER_WIDTH = 0.4, 0.3
# Of each generation, in the order above: prior, then the width of its logarithm.
FACTORS: dict[str, tuple[float, float, float, float]] = {
    "sustained": (1.0, 1.12, 1.0, 0.08),
    "elementwise": (1.6, 1.05, 0.5, 0.12),
    "cast": (1.0, 0.75, 1.0, 0.15),
    "grouped": (1.4, 1.5, 1.5, 0.15),
    "exposed_forward": (0.78, 0.35, 0.55, 0.15),
    "exposed_backward": (0.8, 0.35, 0.55, 0.15),
    "exposed_hops": (1.0, 0.35, 0.6, 0.2),
    "accumulation_bytes": (8.0, 4.0, 4.0, 0.15),
    "optimizer_bytes": (52.0, 55.0, 40.0, 0.2),
    "contention": (0.2, 0.2, 0.05, 0.25),
    "straggler": (0.011, 0.0045, 0.004, 0.2),
    "host": (1.0, 0.8, 0.02, 0.12),
    "exposed_reduction": (0.75, 0.2, 0.2, 0.2),
    "exposed_routing": (0.9, 0.45, 0.6, 0.2),
    "expert_launches": (1.5, 1.3, 1.5, 0.2),
    "selective": (0.01, 0.02, 0.33, 0.2),
}
# What is fitted as the exposed share and kept as the hidden one.
HIDDEN = {"exposed_reduction": "reduce_overlap", "exposed_routing": "routing_overlap"}
# Fused attention against the benchmarked kernels, by generation and architecture.
ATTENTION = {("eager", "other"): 0.6, ("eager", "hopper"): 0.42, ("eager", "blackwell"): 0.6, ("tuned", "other"): 0.9, ("compiled", "other"): 0.6}  # fmt: skip
ATTENTION_WIDTH = 0.12
# How far one stack may depart from its generation.
DEPARTURES = {"sustained": 0.05, "elementwise": 0.12, "host": 0.2, "grouped": 0.1}
# A release that is known to run otherwise may depart further.
RELEASES = {"megatron-core-26.06": 3.0}
# Products in narrow formats inside a run against the kernels alone: prior and width.
NARROW = {("fp8", "hopper"): (1.07, 0.05), ("fp8", "blackwell"): (1.4, 0.08), ("fp4", "other"): (1.5, 0.1)}
# An error of this size (of the logarithm) is where a residual stops to count in squares.
SOFT = 0.08
# Publishers whose rows share one cluster and author are left out together.
FAMILIES = {
    "mlm-sc": "megatron", "mlm-seqsel": "megatron", "vtrainM": "vtrain", "vtrainS": "vtrain", "bs-v100": "bigscience",
    "bloom": "bigscience", "nemo2407ft": "nemo", "nemo2407": "nemo", "nemolaunch": "nemo", "nemolong": "nemo", "mbridge": "nemo",
}  # fmt: skip
# A publisher weighs no more than so many rows. Rows that are known to stand for something else weigh less: single
# iterations of a search on one site, tests run in deterministic mode, short runs of a regression suite.
MOST_ROWS = 10.0
WEIGHTS = {"bloom": 0.12, "mlm-ci": 0.1, "gaudi": 0.3, "mlm-seqsel": 2.5, "mlm-sc": 2.5}
# Of a sweep with thousands of like rows every so manieth is used.
EVERY = 12


class Runs(Record):
    """Setups and their terms as columns, and what parameters are chosen by."""

    setups: list[Setup]
    terms: dict[str, np.ndarray]
    measured: np.ndarray
    weight: np.ndarray
    family: np.ndarray
    words: dict[str, np.ndarray]
    host: np.ndarray
    ridge: np.ndarray
    watts: np.ndarray

    def only(self, chosen: np.ndarray) -> Runs:
        """Some of the rows."""
        return Runs(
            [setup for setup, one in zip(self.setups, chosen, strict=True) if one],
            {name: column[chosen] for name, column in self.terms.items()},
            self.measured[chosen], self.weight[chosen], self.family[chosen],
            {name: column[chosen] for name, column in self.words.items()}, self.host[chosen], self.ridge[chosen], self.watts[chosen],
        )  # fmt: skip


def read_runs(paths: list[str]) -> Runs:
    """All rows of some tables that can be priced and were measured."""
    table = pd.concat([read_rows(path, "training", NEEDED) for path in paths], ignore_index=True).drop_duplicates("id")
    setups: list[Setup] = []
    priced: list[Terms] = []
    for row in table.to_dict("records"):
        try:
            setup = read_setup(row)
        except CapacityError:
            continue
        if setup.measured_s is not None:
            setups.append(setup)
            priced.append(terms_of(setup))
    publishers = pd.Series([setup.publisher for setup in setups])
    family = publishers.map(lambda name: FAMILIES.get(name, name))
    counts = family.map(family.value_counts())
    weight = np.minimum(1.0, MOST_ROWS / counts.to_numpy(float))
    large = publishers.map(publishers.value_counts()) > 100.0 * EVERY
    weight = np.where(large, np.where(large.cumsum() % EVERY == 0, weight * EVERY, 0.0), weight)
    weight *= publishers.map(WEIGHTS).fillna(1.0).to_numpy(float)
    whole = [setup.tier == "C" or setup.given in ("device_hours", "total_days") for setup in setups]
    weight = np.where(whole, 0.0, weight)
    peaks = [setup.cluster.device.peak_dense_flop_per_s.get("bf16", 1e14) for setup in setups]
    return Runs(
        setups,
        {name: np.array([getattr(one, name) for one in priced], dtype=float) for name in fields(Terms)},
        np.array([setup.measured_s for setup in setups]),
        weight,
        family.to_numpy(str),
        {
            "stack": np.array([setup.stack for setup in setups]),
            "generation": np.array([load_stack(setup.stack).generation for setup in setups]),
            "architecture": np.array([setup.cluster.device.architecture for setup in setups]),
            "kind": np.array([setup.cluster.device.kind for setup in setups]),
            "precision": np.array([setup.workload.precision.compute for setup in setups]),
        },
        np.array([setup.profile.host_layer_s for setup in setups]),
        np.array(peaks) / np.array([setup.cluster.device.memory_bytes_per_s for setup in setups]),
        np.array([relative_watts(setup.cluster.device, WATTS) for setup in setups]),
    )


def priors() -> dict[tuple[str, ...], tuple[float, float]]:
    """Every parameter with its prior and the width of its logarithm."""
    found: dict[tuple[str, ...], tuple[float, float]] = {
        ("pace", name): (mid, PACE_WIDTH) for name, mid in PACE.items()
    }
    found[("ridge", "power")] = (RIDGE_PRIOR, RIDGE_WIDTH)
    found[("watts", "power")] = (POWER_PRIOR, POWER_WIDTH)
    for name, (*mids, width) in FACTORS.items():
        found |= {(name, generation): (mid, width) for generation, mid in zip(GENERATIONS, mids, strict=True)}
    del found[("sustained", "eager")]  # the pace itself
    found |= {("attention", *key): (mid, ATTENTION_WIDTH) for key, mid in ATTENTION.items()}
    for stack in stack_names():
        found |= {("departure", name, stack): (1.0, width * RELEASES.get(stack, 1.0)) for name, width in DEPARTURES.items()}
    found |= {("narrow", *key): prior for key, prior in NARROW.items()}
    return found


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
    built = runs.words["kind"] != "GPU"
    pace[built] *= (runs.ridge[built] / RIDGE) ** -values[("ridge", "power")]
    pace = pace * runs.watts ** values[("watts", "power")]
    for dtype, name in NARROW:
        chosen = (words["precision"] == dtype) & ((architecture == name) | (name == "other"))
        pace[chosen] *= values[("narrow", dtype, name)]
    columns["sustained"] = columns["sustained"] * pace
    for exposed, hidden in HIDDEN.items():
        columns[hidden] = 1.0 - np.minimum(columns.pop(exposed), 1.0)
    fixed = load_stack("eager")
    columns |= {name: getattr(fixed, name) for name in ("overlap", "launches", "fused_attention")}
    columns |= {"name": "", "title": "", "generation": "", "source": ""}
    parts = assemble(Terms(**runs.terms), _Columns(columns), runs.host)  # type: ignore[arg-type]
    result: np.ndarray = np.sum([np.broadcast_to(part, rows) for part in parts.values()], axis=0)
    return result


class _Columns:
    """A stack whose factors are columns."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


def fit(
    runs: Runs, start: dict[tuple[str, ...], float] | None = None, rounds: int = 12
) -> dict[tuple[str, ...], float]:
    """Parameters that fit the weighted rows best, near their priors."""
    used = runs.only(runs.weight > 0.0)
    known = priors()
    keys = list(known)
    middle = np.log([known[key][0] for key in keys])
    width = np.array([known[key][1] for key in keys])
    share = np.sqrt(used.weight)

    def residuals(point: np.ndarray) -> np.ndarray:
        off = np.log(predicted_s(dict(zip(keys, np.exp(point), strict=True)), used) / used.measured) / SOFT
        soft = np.sign(off) * np.sqrt(2.0 * (np.sqrt(1.0 + off * off) - 1.0))
        return np.concatenate([share * soft, (point - middle) / width])

    first = middle if start is None else np.log([start[key] for key in keys])
    found = least_squares(residuals, first, x_scale=width, max_nfev=rounds)
    return dict(zip(keys, np.exp(found.x), strict=True))


def left_out(runs: Runs, start: dict[tuple[str, ...], float]) -> np.ndarray:
    """Seconds of each run's step by parameters fitted without any row of its publisher."""
    result = predicted_s(start, runs)
    for name in sorted(set(runs.family[runs.weight > 0.0])):
        mine = runs.family == name
        others = Runs(**(runs.__dict__ | {"weight": np.where(mine, 0.0, runs.weight)}))
        values = fit(others, start, 6)
        result = np.where(mine, predicted_s(values, runs), result)
    return result


def write_stacks(values: Mapping[tuple[str, ...], float], rows: int, path: str) -> None:
    """The fitted parameters as a file, beside the words of the one that is there."""
    old = read_toml(path, keep=False)
    text = [
        "# Training software, fitted on published runs by `python -m capacity.validation.training_fit`: see",
        "# docs/accuracy-training.md. A stack states what sets it apart from its generation; pace is the share of their",
        "# kernels' pace that devices sustain in long runs of eager stacks, narrow the further factor of narrow formats.",
        f'source = "{rows} published training runs"',
        f'date = "{old["date"]}"',
        "",
        "[pace]",
        *(f"{name} = {values[('pace', name)]:.4g}" for name in PACE),
        f"other = {OTHER_PACE}",
        f"ridge = {RIDGE:g}",
        f"ridge_power = {values[('ridge', 'power')]:.4g}",
        f"watts_power = {values[('watts', 'power')]:.4g}",
        "",
        "[watts]",
        *(f"{name} = {watts}" for name, watts in WATTS.items()),
        "",
    ]
    for dtype in dict.fromkeys(dtype for dtype, _ in NARROW):
        text.append(f"[narrow.{dtype}]")
        text += [f"{name} = {values[('narrow', dtype, name)]:.4g}" for one, name in NARROW if one == dtype]
        text.append("")
    for generation in GENERATIONS:
        text.append(f"[generation.{generation}]")
        for name in FACTORS:
            value = values.get((name, generation), 1.0)
            hidden = HIDDEN.get(name)
            text.append(f"{name} = {value:.4g}" if hidden is None else f"{hidden} = {max(1.0 - value, 0.0):.4g}")
        kept = old["generation"][generation]
        text += [f"{name} = {kept[name]}" for name in ("overlap", "launches", "fused_attention")]
        table = ", ".join(
            f"{name} = {values[key]:.4g}" for key in values if key[:2] == ("attention", generation) for name in key[2:]
        )
        text += [f"attention = {{ {table} }}", ""]
    for stack, own in old["stack"].items():
        text += [f'[stack."{stack}"]', f'title = "{own["title"]}"', f'generation = "{own["generation"]}"']
        for name in DEPARTURES:
            whole = values.get((name, own["generation"]), 1.0) * values[("departure", name, stack)]
            text.append(f"{name} = {whole:.4g}")
        text.append("")
    partial = f"{path}.new"
    with open(partial, "w", encoding="utf-8") as file:
        file.write("\n".join(text))
    os.replace(partial, path)


def score(predicted: np.ndarray, runs: Runs, chosen: np.ndarray) -> str:
    """Median, mean, 90th percentile, bias in percent, and the share within 20 %."""
    off = (predicted / runs.measured - 1.0)[chosen] * 100.0
    if not len(off):
        return "-"
    size = np.abs(off)
    return (
        f"{len(off):5d} rows  median {np.median(size):5.1f}  mean {size.mean():5.1f}  90 % {np.quantile(size, 0.9):5.1f}"
        f"  bias {np.median(off):+5.1f}  within 20 % {np.mean(size <= 20.0) * 100.0:3.0f}"
    )


def report(label: str, predicted: np.ndarray, runs: Runs) -> list[str]:
    """Scores of all that is asked of the estimator, and by publisher."""
    publisher = np.array([setup.publisher for setup in runs.setups])
    tier = np.array([setup.tier for setup in runs.setups])
    kind = np.array([setup.kind for setup in runs.setups])
    generation = runs.words["generation"]
    routed, graded = np.isin(kind, ["moe", "mla"]), np.isin(tier, ["A", "B"])
    lines = [f"== {label}"]
    chosen = {
        "tier A": tier == "A",
        "tuned, tier B, dense": (tier == "B") & (generation == "tuned") & ~routed,
        "experts, A and B": routed & graded,
        "sequence parallel": (publisher == "mlm-seqsel") & (tier == "A"),
        "vTrain, many nodes": publisher == "vtrainM",
        "vTrain, one node": publisher == "vtrainS",
    }
    lines += [f"{name:24} {score(predicted, runs, rows)}" for name, rows in chosen.items()]
    for name in sorted(set(publisher)):
        for one in "ABC":
            rows = (publisher == name) & (tier == one)
            if rows.any():
                lines.append(f"  {name:20} {one} {score(predicted, runs, rows)}")
    return lines


def main(arguments: list[str]) -> int:
    """Fit, score and write."""
    if not arguments:
        sys.stderr.write("give one or more tables of training runs (.csv)\n")
        return 2
    runs = read_runs(arguments)
    values = fit(runs)
    lines = report("in sample", predicted_s(values, runs), runs)
    lines += report("each publisher left out", left_out(runs, values), runs)
    sys.stdout.write("\n".join(lines) + "\n")
    write_stacks(values, int((runs.weight > 0.0).sum()), os.path.join(FITTED, FILE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
