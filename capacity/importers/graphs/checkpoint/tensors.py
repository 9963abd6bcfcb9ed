"""A tensor of a file, and how large files and their headers may be."""

from __future__ import annotations

from math import prod

from capacity.errors import FileFormatError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The longest header, metadata or pickle that is looked at, and the most tensors and shards.
MOST_HEADER_BYTES = 100 * 2**20
MOST_TENSORS, MOST_SHARDS, MOST_DIMENSIONS = 1_000_000, 4096, 16


class Tensor(Record):
    """A tensor of a file: name, format as its file says it, shape, and the bytes it takes there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: float

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def read_shape(given: Any, path: str, name: str) -> tuple[int, ...]:
    """A shape a file gives for a tensor. Raises FileFormatError for one that is impossible."""
    if (
        not isinstance(given, (list, tuple))
        or len(given) > MOST_DIMENSIONS
        or not all(type(one) is int and 0 <= one < 2**48 for one in given)
    ):
        raise FileFormatError(f"{path[:200]}: {name[:80]!r} has the impossible shape {str(given)[:60]}")
    return tuple(given)
