"""Where formulas meet records: lowering, sharding, pricing, and the estimates made of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    if name == "estimate":
        from capacity.estimators.answer import estimate

        return estimate
    raise AttributeError(f"module 'capacity.estimators' has no attribute {name!r}")
