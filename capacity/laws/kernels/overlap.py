"""What the laws share: how two costs that overlap join, what stays in cache, families by head size."""

from __future__ import annotations

from capacity import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Parameters = Mapping[str, float]

MICROSECOND = 1e-6


def join(a: Any, b: Any, p: float) -> Any:
    """Smooth maximum of two times that overlap: (a^p + b^p)^(1/p); p=1 adds them, p=inf is a roofline."""
    return (a**p + b**p) ** (1.0 / p)


def resident(x: Any, share: float, l2: float, gain: Any) -> Any:
    """Factor on a DRAM time when x bytes may still sit in L2 from the previous call: 1/gain below share*l2, 1 above."""
    h = 1.0 / (1.0 + (x / (share * l2)) ** 8)
    return 1.0 - h + h / gain


def smooth_min(a: Any, b: Any, r: float) -> Any:
    """The smaller of two costs between which a library switches by size, without a corner."""
    m = ops.minimum(a, b)
    return m * ((a / m) ** -r + (b / m) ** -r) ** (-1.0 / r)


def by_head_size(head_dim: Any, h64: Any, h128: Any, h192: Any, h256: Any, h512: Any) -> Any:
    """Attention kernels are compiled per head size: the family table (sizes in between take the next larger one)."""
    w = ops.where
    return w(head_dim <= 64, h64, w(head_dim <= 128, h128, w(head_dim <= 192, h192, w(head_dim <= 256, h256, h512))))
