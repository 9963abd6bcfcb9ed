"""Fitted parameters of the kernel laws for any device: its own, a sibling's, or the pool's, and how far each may be off."""

from __future__ import annotations

import os
from math import log

from capacity import ops
from capacity.errors import FileFormatError
from capacity.laws.kernels.facts import facts_of
from capacity.laws.kernels.parameters import names_of
from capacity.laws.kernels.priors import with_prior
from capacity.laws.profile import load_profile
from capacity.record import Record
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.laws.kernels.overlap import Parameters
    from capacity.spec.device import Device

FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "fitted", "kernels")

# Whose parameters a device takes that was never measured, by architecture: a sibling's.
SIBLINGS = {
    "hopper": "h100-sxm",
    "blackwell": "b200",
    "blackwell-ultra": "b200",
    "blackwell-rtx": "l40s",
    "ampere": "a100-sxm-80gb",
    "ada": "l40s",
}
# Chips that share an architecture's name, not its kernels: smaller multiprocessors fed by GDDR.
_DISTANT = ("blackwell-rtx",)
FITTED, SIBLING, ARCHITECTURE, GENERIC = "fitted", "sibling", "architecture", "generic"
# A device of another vendor is further from the pool than any architecture in it was from the others.
GENERIC_WIDENING = 1.5
# Where nobody measured two siblings of one architecture.
USUAL_SIBLING_WIDENING = 1.3
# Each doubling beyond the shapes that were measured widens an interval by this much, up to a limit.
OUTSIDE_WIDENING, MOST_OUTSIDE = 0.15, 2.0


class Fitted(Record):
    """Parameters of one op and dtype on one device.

    residuals: quantiles (5, 50, 95 %) of ln(measured / predicted) by regime ("launch", "middle", "large").
    widening: factor on those quantiles for parameters carried from elsewhere. valid: measured range of each column.
    """

    parameters: Parameters
    residuals: Mapping[str, tuple[float, float, float]]
    widening: float
    valid: Mapping[str, tuple[float, float]]
    basis: str
    source: str

    def interval(self, mid: Any, regime: Any, outside: Any = 1.0) -> tuple[Any, Any]:
        """The 90 % interval of predicted seconds; `regime` and `outside` (see `outside_of`) may be columns."""
        low: Any = 1.0
        high: Any = 1.0
        for name, (q05, _, q95) in self.residuals.items():
            chosen: Any = regime == name
            low = ops.where(chosen, min(q05, -1e-3), low)
            high = ops.where(chosen, max(q95, 1e-3), high)
        wide: Any = self.widening * outside
        down: Any = ops.exp(low * wide)
        up: Any = ops.exp(high * wide)
        return mid * down, mid * up

    def outside_of(self, columns: Mapping[str, Any]) -> Any:
        """How much to widen for shapes beyond those measured: 1 inside."""
        doublings: Any = 0.0
        for name, (least, most) in self.valid.items():
            if name not in columns or least <= 0.0:
                continue
            value: Any = ops.maximum(columns[name], 1e-9)
            beyond: Any = ops.maximum(ops.log(value / most), ops.log(least / value))
            doublings = doublings + ops.maximum(beyond, 0.0) / log(2.0)
        return ops.minimum(1.0 + OUTSIDE_WIDENING * doublings, MOST_OUTSIDE)


def fitted_parameters(device: Device, op: str, sub: str, folder: str = FOLDER) -> Fitted | None:
    """What is known of an op and dtype on a device, from the nearest place that measured it; None if nowhere did."""
    name, basis, row = nearest(device, op, sub, folder)
    if row is None:
        return None
    parameters = row["parameters"]
    lacking = [one for one in names_of(op, sub) if one not in parameters]
    if lacking:
        raise FileFormatError(
            f"{os.path.join(folder, name)}.toml: {op} {sub} lacks {', '.join(lacking)}; make it again with "
            "`capacity calibrate kernels`"
        )
    if basis == GENERIC:
        parameters = with_prior(op, sub, parameters, load_profile(device), facts_of(device))
    pool = _file(folder, "pool")
    # What an architecture's own kin is off by says nothing of another: the pool's errors come from left-out ones.
    errors = pool.get(op, {}).get(sub, row) if basis in (ARCHITECTURE, GENERIC) else row
    sibling = pool.get("widening", {}).get(op, {}).get("sibling", USUAL_SIBLING_WIDENING)
    return Fitted(
        parameters=parameters,
        residuals={regime: (q[0], q[1], q[2]) for regime, q in errors["residuals"].items()},
        widening={SIBLING: sibling, GENERIC: GENERIC_WIDENING}.get(basis, 1.0),
        valid={column: (low, high) for column, (low, high) in row.get("range", {}).items()},
        basis=basis,
        source=str(_file(folder, name).get("source", "")),
    )


def nearest(device: Device, op: str, sub: str, folder: str = FOLDER) -> tuple[str, str, dict[str, Any] | None]:
    """The nearest place that measured an op and dtype: its name, what that makes of its parameters, and its section."""
    donor = SIBLINGS.get(device.architecture, "")
    for name, basis in (
        (device.id, FITTED),
        (donor, ARCHITECTURE if device.architecture in _DISTANT else SIBLING),
        ("pool", ARCHITECTURE if device.architecture in SIBLINGS else GENERIC),
    ):
        row = _file(folder, name).get(op, {}).get(sub) if name else None
        if row is not None:
            return name, basis, row
    return "", GENERIC, None


def engine_factor(engine: str, op: str, sub: str, folder: str = FOLDER) -> tuple[float, float]:
    """How much slower than the best kernels an engine's are, and how much wider their interval; 1 where never measured."""
    brand = engine.lower().split()[0] if engine.split() else ""
    slower, wider = _file(folder, "pool").get("engines", {}).get(brand, {}).get(op, {}).get(sub, (1.0, 1.0))
    return float(slower), float(wider)


def _file(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, f"{name}.toml")
    return read_toml(path, keep=folder == FOLDER) if os.path.isfile(path) else {}
