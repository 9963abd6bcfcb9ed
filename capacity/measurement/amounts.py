"""Measured work beside the devices by family: cases that differ in size alone, and which sizes are kept from fits."""

from __future__ import annotations

from capacity.measurement.registry import KERNELS
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.measurement.measured import Measured

KINDS = ("storage", "security", "preparation")
# Parameters that say how much, not what.
_SIZES = ("KiB", "MiB", "sequences", "tokens", "seconds", "width", "height")
# A family with fewer sizes has none to spare.
FEWEST_SIZES = 4


class Amount(Record):
    """One case: what it moved and how long that took; whether it is kept from fits to check them."""

    case: str
    kind: str
    moved_bytes: float
    seconds: float
    kept_back: bool


def families(measured: Measured) -> dict[str, list[Amount]]:
    """Cases of storage, security and preparation by family, each by size; every second size inside the range is kept back."""
    visits = {visit.case: visit for visit in measured.visits}
    found: dict[str, list[tuple[float, str]]] = {}
    for name in measured.of_kind(*KINDS):
        case = measured.cases[name]
        words = [str(value) for key, value in case.parameters.items() if key not in _SIZES]
        family = "/".join([case.kernel, "-".join(words)]) if words else case.kernel
        found.setdefault(family, []).append((float(visits[name].moved_bytes or 0.0), name))
    return {
        family: [
            Amount(
                name,
                KERNELS[measured.cases[name].kernel].kind,
                moved,
                measured.summaries[name].seconds,
                len(members) >= FEWEST_SIZES and place % 2 == 1 and place < len(members) - 1,
            )
            for place, (moved, name) in enumerate(sorted(members))
        ]
        for family, members in found.items()
    }
