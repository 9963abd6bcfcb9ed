"""Measured kernels as a fit takes them: by device and dtype, dealt into tenths, without rows that cannot be."""

from __future__ import annotations

import zlib

import numpy as np

from capacity.catalogue import load_device
from capacity.errors import CapacityError
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.tables import NAMES, SHAPES, chosen, known, prepared, subs
from capacity.record import Record
from capacity.validation.baselines import bytes_moved
from capacity.validation.kernels import columns_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import pandas as pd

    from capacity.laws.kernels.facts import Facts

# A row is set aside if it moves its bytes faster than this share of the datasheet's bandwidth and could not have
# found them in the last-level cache.
MOST_OF_BANDWIDTH, CACHES = 1.0, 4.0
# Ops whose bytes follow from the shape; an expert layer reads the experts its routing picks.
CERTAIN = ("gemm", "prefill", "decode")


class Rows(Record):
    """Measured kernels of one op, dtype and device."""

    device: str
    facts: Facts
    table: Mapping[str, Any]
    measured: Any
    tenth: Any

    def at(self, index: Any) -> Rows:
        """The rows an index names."""
        return Rows(
            device=self.device,
            facts=self.facts,
            table=chosen(self.table, index),
            measured=self.measured[index],
            tenth=self.tenth[index],
        )

    def part(self, tenths: Iterable[int]) -> Rows:
        """The rows of some tenths."""
        return self.at(np.flatnonzero(np.isin(self.tenth, list(tenths))))


def groups_of(op: str, table: pd.DataFrame) -> tuple[dict[tuple[str, str], Rows], dict[tuple[str, str], int]]:
    """Rows by device and dtype, and how many were set aside."""
    table = table.reset_index(drop=True)
    columns = columns_of(table)
    keys = np.asarray(subs(op, columns), dtype=object)
    ready = prepared(op, columns)
    tenth = tenths(op, table)
    moved = bytes_moved(op, table)
    groups: dict[tuple[str, str], Rows] = {}
    aside: dict[tuple[str, str], int] = {}
    for (name, sub), part in table.groupby(["device", keys], sort=True):
        try:
            device = load_device(str(name))
        except CapacityError:
            continue
        if not known(op, str(sub)):
            continue
        facts = facts_of(device)
        index = part.index.to_numpy()
        measured = part["seconds"].to_numpy(dtype=float)
        fast = moved[index] / measured > MOST_OF_BANDWIDTH * facts.memory_bytes_per_s
        impossible = fast & (moved[index] > CACHES * facts.l2_bytes) & (op in CERTAIN)
        keep = np.isfinite(measured) & (measured > 0.0) & ~impossible
        aside[device.id, str(sub)] = int(impossible.sum())
        groups[device.id, str(sub)] = Rows(
            device=device.id,
            facts=facts,
            table=chosen(ready, index[keep]),
            measured=measured[keep],
            tenth=tenth[index[keep]],
        )
    return groups, aside


def tenths(op: str, table: pd.DataFrame) -> np.ndarray:
    """Which tenth each row is dealt to, by its shape alone: the same on every device and engine."""
    shape = table[[*NAMES[op], *SHAPES[op]]].astype(str).agg("|".join, axis=1)
    return np.array([zlib.crc32(f"{op}|{one}".encode()) % 10 for one in shape])
