"""Fits the laws of networks to measured images a second: `python -m capacity.calibration.networks FILE.csv`.

Shares and times are fitted in logarithms, each held near its prior; families of networks left out in turn give the intervals.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from capacity.errors import InputError
from capacity.laws.network import FILE, NetworkLaw
from capacity.validation.tables import read_runs, read_table
from capacity.validation.vision import COLUMNS, Batch, Run, family_of
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Prior and its spread (in logarithms) of each parameter; a peak or bandwidth is a share.
_PEAK = {
    "conv": 0.45, "conv input gradient": 0.4, "conv weight gradient": 0.4, "grouped": 0.3, "grouped input gradient": 0.25,
    "grouped weight gradient": 0.2, "depthwise": 0.2, "depthwise input gradient": 0.15, "depthwise weight gradient": 0.08,
    "product": 0.6, "attention": 0.35, "recurrent": 0.4,
}  # fmt: skip
_BANDWIDTH = {
    "conv": 0.7, "conv input gradient": 0.6, "conv weight gradient": 0.6, "grouped": 0.5, "grouped input gradient": 0.4,
    "grouped weight gradient": 0.4, "depthwise": 0.6, "depthwise input gradient": 0.5, "depthwise weight gradient": 0.3,
    "product": 0.75, "attention": 0.6, "recurrent": 0.5, "look-up": 0.6, "bag": 0.5,
    "pointwise": 0.8, "batch norm": 0.75, "batch norm backward": 0.7, "layer norm": 0.6, "layer norm backward": 0.5,
    "softmax": 0.6, "softmax backward": 0.6, "pool": 0.6, "pool backward": 0.4, "resample": 0.6, "resample backward": 0.3,
    "gather": 0.5, "gather backward": 0.3, "copy": 0.6, "reduce": 0.7,
}  # fmt: skip
_NUMBER = {
    "launch_s": (3e-6, 0.5), "host_s": (9e-6, 0.7), "host_backward_s": (8e-6, 0.7), "host_tensor_s": (2e-6, 0.5), "fixed_s": (5e-4, 0.7),
    "depth_half": (60.0, 0.7), "product_depth_half": (60.0, 0.7), "wave_weight": (0.15, 0.7), "tile_columns": (16.0, 0.0),
    "first_passes": (0.8, 0.7), "first_depthwise": (0.2, 0.7), "mixed_norm": (0.6, 0.5), "mixed_host": (0.6, 0.5), "score_passes": (5.0, 0.5),
    "attention_backward": (2.5, 0.2), "size_half": (48.0, 0.6), "compiled_traffic": (0.45, 0.4), "compiled_launches": (0.35, 0.5),
    "step_s": (6e-6, 0.0), "j_per_flop": (6e-13, 0.5),
}  # fmt: skip
# A processor multiplies on its vector units: no launches to speak of, no tensor cores, memory far below a GPU's.
_CPU_NUMBER = _NUMBER | {
    "launch_s": (5e-6, 0.5),
    "tile_columns": (8.0, 0.0),
    "wave_weight": (0.01, 0.0),
    "j_per_flop": (1e-13, 0.0),
    "first_passes": (1e-3, 0.0),
    "first_depthwise": (1e-3, 0.0),
}
SPREAD = 0.6
# Logarithmic errors beyond this count less.
OUTLIER = 0.25
FOLDS = 6


class Fit:
    """The parameters of one kind of processor as one vector of logarithms."""

    def __init__(self, kind: str) -> None:
        numbers = _NUMBER if kind == "gpu" else _CPU_NUMBER
        self.names = (
            [("peak", name) for name in _PEAK]
            + [("bandwidth", name) for name in _BANDWIDTH]
            + [("number", name) for name in numbers]
        )
        self.prior = np.log([*_PEAK.values(), *_BANDWIDTH.values(), *(mid for mid, _ in numbers.values())])
        self.spread = np.array([SPREAD] * (len(_PEAK) + len(_BANDWIDTH)) + [wide for _, wide in numbers.values()])
        self.free = self.spread > 0.0

    def law(self, vector: np.ndarray) -> NetworkLaw:
        """The law of the free parameters' logarithms."""
        logs = self.prior.copy()
        logs[self.free] = vector
        tables: dict[str, dict[str, float]] = {"peak": {}, "bandwidth": {}, "number": {}}
        for (table, name), value in zip(self.names, np.exp(logs), strict=True):
            tables[table][name] = float(value)
        return NetworkLaw(**tables, interval={"infer": (1.0, 1.0), "train": (1.0, 1.0)}, source="")

    def solve(self, batch: Batch, weights: np.ndarray, start: np.ndarray | None = None, rounds: int = 12) -> np.ndarray:
        """The parameters that fit best."""
        measured = _measured(batch.runs)
        prior, spread = self.prior[self.free], self.spread[self.free]
        most = np.array([MOST.get(table, 1e9) for table, _ in self.names])[self.free]
        most = np.log(most)

        def off(vector: np.ndarray) -> np.ndarray:
            logs: np.ndarray = np.log(batch.seconds(self.law(vector))) - measured
            return logs

        vector = prior.copy() if start is None else start
        # Gauss-Newton with a Jacobian by differences; far rows count less (Huber), each parameter is held by its prior.
        for _ in range(rounds):
            here = off(vector)
            weight = weights * np.minimum(1.0, OUTLIER / np.maximum(np.abs(here), 1e-9))
            jacobian = np.empty((len(here), len(vector)))
            for at in range(len(vector)):
                moved = vector.copy()
                moved[at] += 1e-3
                jacobian[:, at] = (off(moved) - here) / 1e-3
            rows = np.sqrt(weight)[:, None]
            system = np.vstack([jacobian * rows, np.diag(1.0 / spread) * PRIOR])
            wanted = np.concatenate([-here * rows[:, 0], (prior - vector) / spread * PRIOR])
            step = np.linalg.lstsq(system, wanted, rcond=None)[0]
            step = np.clip(step, -0.7, 0.7)
            vector = np.minimum(vector + step, most)
            if np.abs(step).max() < 2e-3:
                break
        return vector


# A share is at most what caches and boosted clocks can add to a datasheet's figure.
MOST = {"peak": 1.1, "bandwidth": 1.2}
# Against one row, how much a parameter's prior weighs.
PRIOR = 0.5


def weights_of(runs: list[Run]) -> np.ndarray:
    """Every device, mode and setting counts alike, by the root of how many rows it has."""
    keys = [(run.numbers["peak_flop_per_s"], run.mode, run.compiled, run.last, run.dtype) for run in runs]
    counts = {key: keys.count(key) for key in set(keys)}
    each = np.array([counts[key] ** -0.5 for key in keys])
    weights: np.ndarray = each * len(each) / each.sum()
    return weights


def read(path: str) -> list[Run]:
    """The rows of a table that can be fitted: of no network that the project's own validation rows are of."""
    kept = {str(name) for name in read_runs(None, "vision", COLUMNS)["model"]}
    runs = [
        Run(row, str(row.get("id", index)))
        for index, row in enumerate(read_table(path, COLUMNS).to_dict("records"))
        if str(row["model"]) not in kept
    ]
    return [
        run
        for run in runs
        if run.table is not None and run.device is not None and not run.assumed and run.measured == run.measured
    ]


def main(path: str) -> None:
    """Fit both kinds of processor, leave families out for the intervals, and write the file."""
    runs = read(path)
    if not runs:
        raise InputError(f"{path}: holds no row that can be fitted")
    lines = ["# Written by `python -m capacity.calibration.networks`.", ""]
    for kind in ("gpu", "cpu"):
        own = [run for run in runs if run.kind == kind and run.device is not None and run.device.kind in ("GPU", "CPU")]
        lines += _section(kind, own)
    write_whole(FILE, "\n".join(lines) + "\n")


def _section(kind: str, own: list[Run]) -> list[str]:
    fit = Fit(kind)
    vector = fit.solve(Batch(own), weights_of(own))
    logs = left_out(fit, own, vector)
    table = fit.law(vector)
    print(
        kind,
        len(own),
        "in sample",
        _said(np.log(Batch(own).seconds(table)) - _measured(own)),
        "families left out",
        _said(-logs),
    )
    lines = [
        f"[{kind}]",
        f'source = "published images a second of {len({run.about["model"] for run in own})} networks, {len(own)} runs"',
        'date = "2026-11"',
        "",
    ]
    for name in ("peak", "bandwidth", "number"):
        lines += [f"[{kind}.{name}]", *(f'"{key}" = {value:.3g}' for key, value in getattr(table, name).items()), ""]
    lines.append(f"[{kind}.interval]")
    for mode in ("infer", "train"):
        off = np.array([one for one, run in zip(logs, own, strict=True) if run.mode == mode])
        off = off if len(off) > 50 else logs
        low, high = np.exp(np.quantile(off, (0.05, 0.95)))
        lines.append(f"{mode} = [{min(low, 0.98):.3g}, {max(high, 1.02):.3g}]")
    return [*lines, ""]


def _measured(runs: list[Run]) -> np.ndarray:
    logs: np.ndarray = np.log(np.array([run.batch * run.devices / (run.measured or np.nan) for run in runs]))
    return logs


def left_out(fit: Fit, runs: list[Run], start: np.ndarray, key: Any = None) -> np.ndarray:
    """Logarithms of measured over predicted seconds of each run, its family of networks (or `key`) never seen."""
    keys = [key(run) if key else family_of(str(run.about["model"])) for run in runs]
    order = sorted(set(keys))
    fold = (
        {name: at % FOLDS for at, name in enumerate(order)}
        if key is None
        else {name: at for at, name in enumerate(order)}
    )
    folds = np.array([fold[name] for name in keys])
    logs = np.full(len(runs), np.nan)
    for one in np.unique(folds):
        seen = [run for run, at in zip(runs, folds, strict=True) if at != one]
        held = [run for run, at in zip(runs, folds, strict=True) if at == one]
        vector = fit.solve(Batch(seen), weights_of(seen), start, rounds=3)
        logs[folds == one] = _measured(held) - np.log(Batch(held).seconds(fit.law(vector)))
    return logs


def _said(logs: np.ndarray) -> str:
    off = np.abs(np.exp(-logs) - 1.0)
    return f"median {np.median(off):.3f}, 90 % below {np.quantile(off, 0.9):.3f}, bias {np.exp(np.median(-logs)) - 1.0:+.3f}"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.join("vision_runs.csv"))
