"""Many estimates searched: the best legal layout, and questions asked backwards."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOMES = {"plan": "capacity.planning.answer", "solve": "capacity.planning.backwards"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'capacity.planning' has no attribute {name!r}")
