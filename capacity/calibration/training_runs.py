"""Published training runs as columns, weighted for a fit."""

from __future__ import annotations

import glob
import os

import numpy as np
import pandas as pd

from capacity.errors import CapacityError, InputError
from capacity.estimators.stacks import kin, load_stack, relative_watts
from capacity.estimators.training_terms import Terms
from capacity.record import Record, fields
from capacity.validation.tables import read_runs as read_rows
from capacity.validation.training import NEEDED, terms_of
from capacity.validation.training_rows import read_setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.validation.training_rows import Setup

# Devices clock down to their power limit: watts for a dense TFLOP/s (16 bits) of the device an architecture's pace is of.
WATTS = {"ampere": 1.282, "hopper": 0.708, "blackwell": 0.48, "volta": 2.4}
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


def tables_in(path: str) -> list[str]:
    """The table a path is, or all tables of training runs in a folder; refuses a folder without one."""
    if not os.path.isdir(path):
        return [path]
    found = sorted(one for end in ("csv", "parquet") for one in glob.glob(os.path.join(path, f"training*.{end}")))
    if not found:
        raise InputError(
            f"{path}: has no table of training runs; name one training*.csv, with the columns of `validate training`"
        )
    return found


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


def read_runs(paths: list[str], *, held_out: bool = True) -> Runs:
    """All rows of some tables that can be priced and were measured; whole runs weigh nothing.

    held_out: nor do rows of the project's own table, which is validated on, and rows from memory (tier C).
    """
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
    publishers = pd.Series([setup.publisher for setup in setups], dtype=object)
    family = publishers.map(lambda name: FAMILIES.get(name, name))
    counts = family.map(family.value_counts())
    weight = np.minimum(1.0, MOST_ROWS / counts.to_numpy(float))
    large = publishers.map(publishers.value_counts()) > 100.0 * EVERY
    weight = np.where(large, np.where(large.cumsum() % EVERY == 0, weight * EVERY, 0.0), weight)
    weight *= publishers.map(WEIGHTS).fillna(1.0).to_numpy(float)
    kept = set(read_rows(None, "training", NEEDED)["id"].astype(str))
    whole = [setup.given in ("device_hours", "total_days") for setup in setups]
    apart = [held_out and (setup.tier == "C" or setup.id in kept) for setup in setups]
    weight = np.where(np.logical_or(whole, apart), 0.0, weight)
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
