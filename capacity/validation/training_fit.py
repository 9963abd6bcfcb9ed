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
from capacity.estimators.stacks import FILE, kin, load_stack, relative_watts, stack_names
from capacity.estimators.training_terms import Terms
from capacity.estimators.training_time import assemble
from capacity.laws.profile import FITTED
from capacity.record import Record, fields
from capacity.toml_file import read_toml
from capacity.validation.tables import read_runs as read_rows
from capacity.validation.training import NEEDED, ROUTED, terms_of
from capacity.validation.training_rows import Setup, read_setup
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

GENERATIONS = ("eager", "tuned", "compiled")
# Prior of the pace an architecture sustains in a long run, as a share of what its kernels reach alone.
PACE = {"ampere": 1.0, "hopper": 0.82, "blackwell": 0.65, "volta": 1.0, "tpu": 1.0, "gaudi": 0.8, "trainium": 0.75, "cdna3": 0.6, "cdna4": 0.6}  # fmt: skip
PACE_WIDTH, OTHER_PACE = 0.08, 0.75
# Accelerators with more compute for their bandwidth than this (FLOP/byte) keep less of it: their compilers' tiles are smaller.
RIDGE, RIDGE_PRIOR, RIDGE_WIDTH = 220.0, {"TPU": 0.25, "ASIC": 0.8}, 0.3
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
# Products in other formats than 16 bits inside a run against the kernels alone: prior and width.
NARROW = {
    ("fp8", "hopper"): (1.07, 0.05),
    ("fp8", "blackwell"): (1.4, 0.08),
    ("fp4", "other"): (1.5, 0.1),
    ("tf32", "other"): (1.15, 0.08),
    ("fp32", "other"): (1.15, 0.08),
}
# An error of this size (of the logarithm) is where a residual stops to count in squares.
SOFT = 0.08
# Publishers whose rows share one cluster and author are left out together.
FAMILIES = {
    "mlm-sc21": "megatron", "mlm-seqsel": "megatron", "vtrainM": "vtrain", "vtrainS": "vtrain", "bs-v100": "bigscience",
    "bloom": "bigscience", "nemo2407ft": "nemo", "nemo2407": "nemo", "nemolaunch": "nemo", "nemolong": "nemo", "mbridge": "nemo",
}  # fmt: skip
# A publisher weighs no more than so many rows. Rows that are known to stand for something else weigh less: single
# iterations of a search on one site, tests run in deterministic mode, short runs of a regression suite.
MOST_ROWS = 10.0
WEIGHTS = {"bloom": 0.12, "mlm-ci": 0.1, "gaudi": 0.3, "mlm-seqsel": 4.0, "mlm-sc21": 2.5}
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
    # The project's own table is validated on, never fitted on.
    kept = set(read_rows(None, "training", NEEDED)["id"].astype(str))
    whole = [setup.tier == "C" or setup.given in ("device_hours", "total_days") or setup.id in kept for setup in setups]
    weight = np.where(whole, 0.0, weight)
    peaks = [setup.cluster.device.peak_dense_flop_per_s.get("bf16", 1e14) for setup in setups]
    return Runs(
        setups,
        {name: np.array([getattr(one, name) for one in priced], dtype=float) for name in fields(Terms)},
        np.array([setup.measured_s for setup in setups]),
        weight,
        family.to_numpy(str),
        {
            "stack": np.array([load_stack(setup.stack).name for setup in setups]),
            "generation": np.array([load_stack(setup.stack).generation for setup in setups]),
            "architecture": np.array([kin(setup.cluster.device) for setup in setups]),
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
    found |= {("ridge", kind): (prior, RIDGE_WIDTH) for kind, prior in RIDGE_PRIOR.items()}
    found[("watts", "power")] = (POWER_PRIOR, POWER_WIDTH)
    for name, (*mids, width) in FACTORS.items():
        found |= {(name, generation): (mid, width) for generation, mid in zip(GENERATIONS, mids, strict=True)}
    del found[("sustained", "eager")]  # the pace itself
    found |= {("attention", *key): (mid, ATTENTION_WIDTH) for key, mid in ATTENTION.items()}
    for stack in stack_names():
        found |= {
            ("departure", name, stack): (1.0, width * RELEASES.get(stack, 1.0)) for name, width in DEPARTURES.items()
        }
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
    for kind in RIDGE_PRIOR:
        built = runs.words["kind"] == kind
        pace[built] *= (runs.ridge[built] / RIDGE) ** -values[("ridge", kind)]
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


def write_stacks(
    values: Mapping[tuple[str, ...], float],
    spans: dict[str, dict[str, float]],
    scores: dict[str, dict[str, dict[str, float]]],
    rows: int,
    path: str,
) -> None:
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
        *(f"ridge_power_{kind} = {values[('ridge', kind)]:.4g}" for kind in RIDGE_PRIOR),
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
    for kind, span in spans.items():
        text.append(f"[interval.{kind}]")
        text += [f"{name} = {span[name]:.4g}" for name in ("low", "high", "site", "rest")]
        source = (
            f"{span['rows']:.0f} runs of {span['publishers']:.0f} publishers, each left out of the fit that predicts it"
        )
        text += [f'source = "{source}"', ""]
    for name, pair in scores.items():
        text.append(f'[score."{name}"]')
        text += [
            f"{sample} = {{ {', '.join(f'{key} = {one[key]}' for key in FIGURES)} }}" for sample, one in pair.items()
        ]
        text.append("")
    write_whole(path, "\n".join(text))


def interval_kind(setup: Setup, generation: str) -> str:
    """Which interval a run takes: of its generation, of mixtures of experts, or of accelerators that are no GPUs."""
    if setup.kind in ROUTED:
        return "experts"
    return generation if setup.cluster.device.kind == "GPU" else "accelerator"


def intervals(predicted: np.ndarray, runs: Runs) -> dict[str, dict[str, float]]:
    """5 % and 95 % quantiles of measured over predicted of held-out runs, and the deviations of sites and of the rest.

    predicted: with each publisher left out. Rows of a publisher together weigh as the root of their number.
    """
    kinds = np.array([interval_kind(s, g) for s, g in zip(runs.setups, runs.words["generation"], strict=True)])
    # Rows that stand for something else, and weigh next to nothing, say nothing of others.
    odd = [WEIGHTS.get(setup.publisher, 1.0) <= 0.1 for setup in runs.setups]
    used = (runs.weight > 0.0) & ~np.array(odd)
    found: dict[str, dict[str, float]] = {}
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
            "publishers": float(family.nunique()),
        }
    return found


def anchored(predicted: np.ndarray, runs: Runs, anchors: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Predictions with a site factor from a few rows of each publisher, and which rows were not used for it."""
    publisher = np.array([setup.publisher for setup in runs.setups])
    spread = intervals(predicted, runs)
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


def report(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Scores in sample and left out, a line each."""
    lines = [f"{'':42} " + " ".join(f"{name:>9}" for name in FIGURES)]
    for name, pair in scores.items():
        lines += [f"{name:42} " + " ".join(f"{one[key]:9.1f}" for key in FIGURES) for one in pair.values()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Fit, score and write."""
    if not arguments:
        sys.stderr.write("give one or more tables of training runs (.csv)\n")
        return 2
    runs = read_runs(arguments)
    values = fit(runs)
    seen, unseen = predicted_s(values, runs), left_out(runs, values)
    scores = {
        name: {"in_sample": figures(seen, runs, rows), "left_out": figures(unseen, runs, rows)}
        for name, rows in asked(runs).items()
    }
    helped, others = anchored(unseen, runs)
    tiers = np.array([setup.tier for setup in runs.setups])
    rows = others & (tiers == "A")
    scores["tier A with three anchors"] = {
        "in_sample": figures(seen, runs, rows),
        "left_out": figures(helped, runs, rows),
    }
    sys.stdout.write(report(scores))
    count = int((runs.weight > 0.0).sum())
    write_stacks(values, intervals(unseen, runs), scores, count, os.path.join(FITTED, FILE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
