"""The law of work beside the devices: a call, each byte, and each byte beyond what a cache or a read-ahead holds."""

from __future__ import annotations

from capacity.errors import FileFormatError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SCHEMA = 2


class PlatformLaw(Record):
    """Seconds of a kind of work on one machine: call_s + bytes x byte_s, and far_byte_s more for each byte beyond near_bytes.

    Beyond a cache a byte takes longer; beyond a read-ahead it takes less, for the next one is under way by then: far_byte_s
    is negative then, never below -byte_s.
    spread: quantiles (5, 50, 95 %) of ln(measured / predicted) of sizes that were not fitted, of all work of its kind.
    """

    call_s: float
    byte_s: float
    far_byte_s: float
    near_bytes: float
    spread: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def seconds(self, moved_bytes: float) -> float:
        """Time of one run that moves so many bytes."""
        far = max(moved_bytes - self.near_bytes, 0.0)
        return self.call_s + moved_bytes * self.byte_s + far * self.far_byte_s

    @property
    def bytes_per_s(self) -> float:
        """Pace of amounts up to near_bytes."""
        return 1.0 / self.byte_s if self.byte_s else float("inf")

    @property
    def far_bytes_per_s(self) -> float:
        """Pace of what is beyond."""
        each = self.byte_s + self.far_byte_s
        return 1.0 / each if each > 0.0 else float("inf")


def to_document(laws: Mapping[str, PlatformLaw], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values for a file."""
    from capacity.record import asdict

    return {
        "schema": SCHEMA,
        "environment": dict(environment),
        "laws": {name: asdict(law) for name, law in laws.items()},
    }


def from_document(document: Any, path: str) -> dict[str, PlatformLaw]:
    """The laws of a file, by family; raises FileFormatError for anything else."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: holds no laws of schema {SCHEMA}: run `capacity calibrate local` again")
    try:
        return {
            name: PlatformLaw(**(fields | {"spread": tuple(map(float, fields["spread"]))}))
            for name, fields in document["laws"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: is incomplete ({str(error)[:80]}): run `capacity calibrate local` again"
        ) from None
