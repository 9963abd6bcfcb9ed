"""Calls torch cannot trace (products with packed or sparse weights, other runtimes): while a trace is made they announce themselves."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The tracer that listens, if a trace is being made.
_listeners: list[Any] = []


def tracing() -> bool:
    """Whether weights exist only as shapes now."""
    return bool(_listeners)


def listen(listener: Any) -> None:
    """Begin to announce products to a tracer."""
    _listeners.append(listener)


def leave() -> None:
    """Stop it."""
    _listeners.pop()


def product(form: str, outputs: int, inputs: int, stored_bytes: float, density: float = 1.0) -> Callable[[Any], Any]:
    """A stand-in for a product with a compressed weight of `stored_bytes`: its result has the right shape."""
    weight = object()

    def call(x: Any) -> Any:
        return _listeners[-1].product(form, x, outputs, inputs, stored_bytes, density, weight)

    return call


def call(name: str, *, elements: float) -> None:
    """Announce work of another runtime that is no product."""
    _listeners[-1].announced(name, elements)


def collective(name: str, moved_bytes: float) -> None:
    """Announce a collective among ranks over `moved_bytes`."""
    _listeners[-1].collective(name, moved_bytes)
