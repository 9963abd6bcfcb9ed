"""Operands of kernels: by dtype name, warm in the caches or not."""

from __future__ import annotations

from itertools import cycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from capacity.measurement.case import Machine

# Operands that are to be cold are rotated through this many times the last-level cache.
COLD_CACHES = 2.5
MOST_COPIES = 64

WIDTH_BYTES = {"fp64": 8, "fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1, "int4": 0.5}


def dtype_of(name: str) -> Any:
    """The torch dtype of a name such as bf16."""
    import torch

    return {
        "fp64": torch.float64,
        "fp32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "int8": torch.int8,
        "fp8": torch.float8_e4m3fn,
    }[name]


def tensor_bytes(values: Any) -> int:
    """Bytes of all tensors in a nest of tuples."""
    if isinstance(values, (tuple, list)):
        return sum(tensor_bytes(value) for value in values)
    return values.numel() * values.element_size() if hasattr(values, "element_size") else 0


def rotated(
    function: Callable[..., object], make: Callable[[], tuple[Any, ...]], machine: Machine, *, cold: bool
) -> tuple[Callable[[], object], tuple[Any, ...]]:
    """A run of `function` on operands of `make`; cold ones were pushed out of the caches since their last use.

    Returns the run and one set of operands.
    """
    first = make()
    if not cold:
        return (lambda: function(*first)), first
    copies = int(min(max(COLD_CACHES * machine.cache_bytes / max(tensor_bytes(first), 1), 1), MOST_COPIES)) + 1
    turns: Iterable[tuple[Any, ...]] = cycle([first, *(make() for _ in range(copies - 1))])
    following = iter(turns).__next__
    return (lambda: function(*following())), first
