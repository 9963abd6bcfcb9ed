"""Images a second of vision networks, in training and inference, against measured runs.

A row names a network, a device, a number format, a batch. The network's op table comes from the catalogue; of one that is not
there, from the network nearest to the parameters, multiply-adds and activations the row states.
"""

from __future__ import annotations

import re
from math import log

import numpy as np
import pandas as pd

from capacity import ops
from capacity.catalogue.networks import NUMBERS, columns, load_table, network_names, scales
from capacity.errors import CapacityError, UnknownNameError
from capacity.estimators.network_pricing import machine_numbers, pass_seconds
from capacity.laws.network import Machine, category, load_network_law, op_time_s
from capacity.spec.op import Op
from capacity.validation import scoring
from capacity.validation.naming import device_named
from capacity.validation.tables import number, read_runs, size, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.catalogue.networks import Table
    from capacity.laws.network import NetworkLaw
    from capacity.spec.device import Device

COLUMNS = ("mode", "model", "device", "images_per_s")
VIEWS = {
    "mode": ("mode",),
    "kind": ("mode", "kind"),
    "device": ("mode", "device"),
    "family": ("mode", "family"),
    "compile": ("mode", "compile"),
    "layout": ("mode", "layout"),
    "dtype": ("mode", "dtype"),
}
# Images a device works on at once where a row does not say.
USUAL_BATCH = 256.0
# timm's and NVIDIA's training benchmarks use stochastic gradient descent with momentum.
MOMENTUM_BYTES = 4.0
# The baseline: multiply-adds at one share of the device's peak, the median of the public rows; training three times as many.
BASELINE_SHARE = {"infer": 0.23, "train": 0.18}
# Fused attention came with PyTorch 2.
_VERSION = re.compile(r"pytorch (\d+)\.(\d+)")
FEWEST_RANKED = 8


def validate(path: str | None) -> dict[str, Any]:
    """Score a table of vision runs; see `capacity.validation.validate`."""
    rows = predict(read_runs(path, "vision", COLUMNS))
    groups = scoring.by_metric(rows, "images_per_s", VIEWS.values())
    gpus = rows[rows["kind"] == "GPU"]
    overall = scoring.score(gpus if len(gpus) else rows, "images_per_s")
    return scoring.document(
        "vision", rows, overall, groups, unit="1/s", views=VIEWS, baselines={"baseline_mdape": "GMACs"},
        about=("model", "device", "dtype", "layout", "compile", "batch_per_device"), rank_correlation=ranked(rows),
    )  # fmt: skip


def ranked(rows: pd.DataFrame) -> dict[str, Any]:
    """Spearman's rank correlation over the networks of one source, device, mode and setting; the median of those, and the baseline's."""
    found: list[tuple[int, float, float]] = []
    for _, part in rows[rows["mid"].notna()].groupby(
        ["source", "mode", "device", "dtype", "layout", "compile"], dropna=False
    ):
        if part["model"].nunique() >= FEWEST_RANKED:
            ranks = part[["measured", "mid", "baseline"]].rank().to_numpy()
            found.append(
                (len(part), float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1]), _rank(ranks[:, 0], part["baseline"]))
            )
    if not found:
        return {"n": 0}
    return {
        "n": len(found),
        "median": float(np.median([one[1] for one in found])),
        "least": min(one[1] for one in found),
        "baseline_median": float(np.nanmedian([one[2] for one in found])),
    }


def _rank(measured: np.ndarray, other: pd.Series) -> float:
    known = other.notna().to_numpy()
    if known.sum() < FEWEST_RANKED:
        return float("nan")
    return float(np.corrcoef(np.argsort(np.argsort(measured[known])), other[known].rank())[0, 1])


def predict(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run: measured, low, mid, high, baseline, and why where it has no answer."""
    runs = [Run(row, str(row.get("id", f"vision-{index}"))) for index, row in enumerate(table.to_dict("records"))]
    for kind in ("gpu", "cpu"):
        part = [run for run in runs if run.device is not None and run.table is not None and run.kind == kind]
        if part:
            law = load_network_law(part[0].device)  # type: ignore[arg-type]
            for run, seconds in zip(part, Batch(part).seconds(law), strict=True):
                low, high = law.interval[run.mode]
                run.answer(seconds, low, high)
    return pd.DataFrame([run.row() for run in runs])


class Run:
    """One measured run, read: its device, network and setting, and why it has no answer where it has none."""

    def __init__(self, row: dict[str, Any], key: str) -> None:
        self.about = {
            name: row.get(name)
            for name in ("model", "device", "dtype", "layout", "compile", "batch_per_device", "source")
        }
        self.key, self.why, self.assumed = key, "", ""
        self.device: Device | None = None
        self.table: Table | None = None
        self.mids = (np.nan, np.nan, np.nan)
        self.mode = "train" if word(row, "mode").lower().startswith("train") else "infer"
        self.measured = number(row, "images_per_s")
        self.devices = size(row, "n_devices")
        self.batch = number(row, "batch_per_device") or USUAL_BATCH
        self.family = family_of(str(row.get("model", "")))
        self.gmacs = number(row, "gmacs")
        self.area, self.work, self.moved = 1.0, 1.0, 1.0
        if self.measured is None or self.measured <= 0.0:
            self.why, self.measured = "states no images a second", np.nan
        if self.why:
            return
        try:
            self.device = device_named(re.sub(r"^cpu ", "", str(row["device"]).strip(), flags=re.IGNORECASE))
            self.set_up(row, self.device)
            self.find(row)
        except CapacityError as error:
            self.why = str(error)
            self.table = None

    def set_up(self, row: dict[str, Any], device: Device) -> None:
        """Format and software."""
        text = word(row, "dtype").lower()
        self.mixed = float("amp" in text or "autocast" in text)
        wide = (
            "bf16" if "bf16" in text else "fp16" if self.mixed or "16" in text else "tf32" if "tf32" in text else "fp32"
        )
        self.dtype = wide
        self.kind = "cpu" if device.kind == "CPU" else "gpu"
        self.numbers = machine_numbers(device, wide)
        self.link = float(device.link.bytes_per_s) if device.link else 16e9
        layout = word(row, "layout").lower()
        version = _VERSION.search(word(row, "notes").lower())
        # NVIDIA's own examples keep images channels last under mixed precision.
        own = "deeplearningexamples" in word(row, "source").lower()
        self.last = float(layout == "nhwc" or (own and self.mixed > 0.0) or self.kind == "cpu")
        compiled = word(row, "compile").lower()
        self.compiled = float(bool(compiled) and compiled not in ("no", "nan", "eager", "none", "false"))
        old = bool(version and int(version[1]) < 2) or own
        self.fused = float(not old)

    def find(self, row: dict[str, Any]) -> None:
        """The op table, and by how much its work is another's."""
        side = number(row, "img_size")
        name = str(row["model"])
        try:
            self.table = load_table(name)
        except UnknownNameError:
            self.table = nearest(name, {key: number(row, key) for key in ("params_m", "gmacs", "mactivations")}, side)
            if self.table is None:
                raise
            self.assumed = f"as {self.table.name}"
            facts = _facts()[self.table.name]
            side_area = (side / self.table.side) ** 2 if side else 1.0
            self.area = side_area
            if self.gmacs:
                self.work = self.gmacs / (facts[1] * side_area)
            moved = number(row, "mactivations")
            self.moved = moved / (facts[2] * side_area) if moved else self.work
            return
        if side:
            self.area = (side / self.table.side) ** 2
        elif self.gmacs:
            self.area = self.gmacs / _facts()[self.table.name][1]

    def answer(self, seconds: float, low: float, high: float) -> None:
        """From seconds of a step to images a second of all devices."""
        images = self.batch * self.devices
        self.mids = (images / (seconds * high), images / seconds, images / (seconds * low))

    def row(self) -> dict[str, Any]:
        """What is scored and what says why."""
        low, mid, high = self.mids
        baseline = np.nan
        if self.device is not None and self.table is not None:
            macs = self.gmacs or _facts()[self.table.name][1] * self.area
            passes = 3.0 if self.mode == "train" else 1.0
            baseline = (
                self.numbers["peak_flop_per_s"] * BASELINE_SHARE[self.mode] * self.devices / (2e9 * macs * passes)
            )
        known = self.about | {
            "layout": self.about["layout"] if isinstance(self.about["layout"], str) else "",
            "compile": self.about["compile"] if isinstance(self.about["compile"], str) else "",
        }
        kind = self.device.kind if self.device is not None else ""
        return {
            "id": self.key, "mode": self.mode, "family": self.family, "kind": kind, **known, "measured": self.measured, "low": low,
            "mid": mid, "high": high, "baseline": baseline, "assumed": self.assumed, "why": self.why,
        }  # fmt: skip


def family_of(name: str) -> str:
    """The family of a network's name: `convnextv2_base` -> `convnext`."""
    text = name.lower().strip()
    text = re.sub(r"^(tf|tv|gluon|legacy|ssl|swsl|ig|ese|eca|se|gc|sk|wide|cs|jx|tiny|nf|dm)_?(?=[a-z])", "", text)
    found = re.match(r"[a-z]+", text)
    return found[0] if found else text[:12]


def _facts() -> dict[str, tuple[float, float, float]]:
    """Millions of parameters, billions of multiply-adds and millions of numbers products make, of each network on one image."""
    if not _facts_known:
        all_columns = {name: np.asarray(values) for name, values in columns().items()}
        kinds, phases = all_columns["kind"], all_columns["phase"]
        m, n, k = (all_columns[name].astype(float) for name in ("m", "n", "k"))
        forward = phases == "forward"
        macs = np.where(
            np.isin(kinds, ("gemm", "conv")) & forward, m * n * k * np.where(kinds == "gemm", 1.0, 1.0), 0.0
        )
        scores = np.prod(
            [all_columns[name].astype(float) for name in ("sequences", "heads", "queries", "keys")], axis=0
        )
        macs += np.where(
            (kinds == "attention") & forward, scores * (all_columns["key_size"] + all_columns["value_size"]), 0.0
        )
        made = np.where(np.isin(kinds, ("gemm", "conv")) & forward, m * n, 0.0)
        for name in network_names():
            table = load_table(name)
            rows, counts = np.asarray(table.rows), np.asarray(table.counts, dtype=float)
            _facts_known[name] = (
                table.parameters / 1e6,
                float((macs[rows] * counts).sum()) / 1e9,
                float((made[rows] * counts).sum()) / 1e6,
            )
    return _facts_known


_facts_known: dict[str, tuple[float, float, float]] = {}


def nearest(name: str, stated: dict[str, float | None], side: float | None) -> Table | None:
    """The network nearest to what a row states of one that is not in the catalogue; None where it states too little."""
    from difflib import SequenceMatcher

    wanted = [stated["params_m"], stated["gmacs"], stated["mactivations"]]
    if sum(one is not None and one > 0.0 for one in wanted) < 2:
        return None
    own = family_of(name)
    best, found = 1e30, ""
    for other, facts in _facts().items():
        area = (side / load_table(other).side) ** 2 if side else 1.0
        sizes = (facts[0], facts[1] * area, facts[2] * area)
        apart = sum(
            abs(log(one / there)) for one, there in zip(wanted, sizes, strict=True) if one and one > 0.0 and there > 0.0
        )
        if family_of(other) == own:
            apart = apart * 0.3 - SequenceMatcher(None, name, other).ratio()
        if apart < best:
            best, found = apart, other
    return load_table(found)


class Batch:
    """Many runs as columns: every op of every run, grouped by category."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        base = {name: np.asarray(values) for name, values in columns().items()}
        growing, inner = _scaling()
        tables = [run.table for run in runs]
        rows = np.concatenate([np.asarray(table.rows) for table in tables])  # type: ignore[union-attr]
        self.count = np.concatenate([np.asarray(table.counts, dtype=float) for table in tables])  # type: ignore[union-attr]
        self.run_of = np.repeat(np.arange(len(runs)), [len(table.rows) for table in tables])  # type: ignore[union-attr]
        self.training: Any = np.array([run.mode == "train" for run in runs])
        phases = base["phase"][rows]
        keep = (phases == "forward") | self.training[self.run_of]
        rows, self.count, self.run_of = rows[keep], self.count[keep], self.run_of[keep]
        self.forward = phases[keep] == "forward"
        batch = np.array([run.batch for run in runs])[self.run_of]
        area = np.array([run.area for run in runs])[self.run_of]
        values = {
            name: base[name][rows].astype(float)
            * np.where(growing[name][rows], batch, 1.0)
            * np.where(inner[name][rows], area, 1.0)
            for name in NUMBERS
        }
        heavy = np.isin(base["kind"][rows], ("gemm", "conv"))
        values["m"] = values["m"] * np.where(heavy, np.array([run.work for run in runs])[self.run_of], 1.0)
        values["elements"] = values["elements"] * np.array([run.moved for run in runs])[self.run_of]
        names = _categories()[rows]
        facts: dict[str, Any] = {name: np.array([run.numbers[name] for run in runs]) for name in runs[0].numbers}
        for name in ("last", "compiled", "fused", "mixed"):
            facts[name] = np.array([getattr(run, name) for run in runs])
        self.parts: list[tuple[str, np.ndarray, Op, Machine]] = []
        for one in np.unique(names):
            at = np.flatnonzero(names == one)
            first = rows[at[0]]
            op = Op(
                one,
                "",
                str(base["kind"][first]),
                1.0,
                form=str(base["form"][first]),
                phase=str(base["phase"][first]),
                **{name: column[at] for name, column in values.items()},
            )
            self.parts.append(
                (
                    str(one).partition("|")[0],
                    at,
                    op,
                    Machine(**{name: column[self.run_of[at]] for name, column in facts.items()}),
                )
            )
        self.machine = Machine(**facts)
        # Formulas are typed for floats and take columns.
        self.parameters: Any = np.array([run.table.parameters * run.work for run in runs])  # type: ignore[union-attr]
        self.tensors: Any = np.array([run.table.tensors for run in runs])  # type: ignore[union-attr]
        self.calls: list[Any] = [
            np.bincount(self.run_of[mask], self.count[mask], len(runs)) for mask in (self.forward, ~self.forward)
        ]
        self.devices: Any = np.array([run.devices for run in runs])
        self.link: Any = np.array([run.link for run in runs])

    def seconds(self, law: NetworkLaw) -> np.ndarray:
        """Seconds of each run's step."""
        each = np.zeros(len(self.count))
        for name, at, op, machine in self.parts:
            each[at] = op_time_s(op, name, law, machine)
        each = each * self.count
        passes: list[Any] = [
            np.bincount(self.run_of[mask], each[mask], len(self.runs)) for mask in (self.forward, ~self.forward)
        ]
        found: Any = pass_seconds(
            law, self.machine, passes[0], passes[1], self.calls[0], self.calls[1], self.parameters, self.tensors, MOMENTUM_BYTES,
            ops.where(self.training, 1.0, 0.0), self.devices, self.link,
        )  # fmt: skip
        seconds: np.ndarray = found
        return seconds


_scaled: list[Any] = []


def _scaling() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    if not _scaled:
        names = ("kind", "linear", *NUMBERS)
        all_columns = columns()
        found = [
            scales(dict(zip(names, values, strict=True)))
            for values in zip(*(all_columns[name] for name in names), strict=True)
        ]
        _scaled.append({name: np.array([name in one for one, _ in found]) for name in NUMBERS})
        _scaled.append({name: np.array([name in one for _, one in found]) for name in NUMBERS})
    return _scaled[0], _scaled[1]


_named: list[np.ndarray] = []


def _categories() -> np.ndarray:
    """The category of each distinct op, and what else its law branches on."""
    if not _named:
        all_columns = columns()
        names = []
        for kind, form, phase, groups, k, taps in zip(
            *(all_columns[name] for name in ("kind", "form", "phase", "groups", "k", "taps")), strict=True
        ):
            op = Op("", "", kind, 1.0, form=form, phase=phase, groups=groups, k=k, taps=taps)
            names.append(f"{category(op)}|{form}|{phase}")
        _named.append(np.array(names))
    return _named[0]
