"""Embedding bags: rows of a table looked up at random and summed, their gradients, and the update of a table by sparse ones.

Each run looks up other rows, as each batch of a log does: of a table larger than the caches they come from memory.
"""

from __future__ import annotations

from itertools import cycle

from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.kernels.operands import COLD_CACHES, WIDTH_BYTES, dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

FORWARD, DENSE, SPARSE, UPDATE = "forward", "dense", "sparse", "update"
# rows and width of the table, rows of a bag, bags: tables in the second cache, in the last one, and in memory
_SHAPES = (
    (1000, 128, 4, 16),
    (4096, 64, 1, 128),
    (4096, 64, 8, 128),
    (4096, 64, 32, 512),
    (8192, 16, 8, 2048),
    (65536, 64, 8, 128),
    (65536, 64, 32, 512),
    (65536, 128, 1, 2048),
    (65536, 16, 100, 128),
    (250000, 256, 4, 256),
    (1000000, 16, 8, 2048),
    (1000000, 64, 1, 2048),
    (1000000, 64, 8, 512),
    (1000000, 64, 32, 512),
    (1000000, 128, 20, 128),
)
# A dense gradient is a table of its own, all zeros but for the rows looked up.
_LARGEST_DENSE = 65536 * 128
_MOST_TURNS = 1024


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 16

    def case(shape: tuple[int, int, int, int], way: str, mode: str = "sum", dtype: str = "fp32") -> dict[str, Any]:
        rows, width, bag, bags = shape
        return {
            "pass": way, "mode": mode, "dtype": dtype, "rows": rows, "width": width, "bag": bag, "bags": bags * scale,
        }  # fmt: skip

    if profile != FULL:
        for way in (FORWARD, SPARSE):
            yield case(_SHAPES[12], way)
        return
    for shape in _SHAPES:
        yield case(shape, FORWARD)
        yield case(shape, SPARSE)
        yield case(shape, UPDATE)
        if shape[0] * shape[1] <= _LARGEST_DENSE:
            yield case(shape, DENSE)
        yield case(shape, FORWARD, dtype="bf16")
    for shape in _SHAPES[2::4]:
        for way in (FORWARD, SPARSE) if shape[0] * shape[1] > _LARGEST_DENSE else (FORWARD, DENSE):
            yield case(shape, way, "mean")


def turns(rows: int, shape: tuple[int, ...], row_bytes: float, machine: Machine) -> Any:
    """Index tensors of a shape, in turns: so many that what they look up passes through the caches before any comes again."""
    import torch

    looked_up = row_bytes
    for side in shape:
        looked_up *= side
    count = int(min(max(COLD_CACHES * machine.cache_bytes / looked_up, 1.0), _MOST_TURNS)) + 1
    return cycle(torch.randint(0, rows, (count, *shape), device=machine.device).unbind())


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch
    from torch.nn import functional

    rows, width, bag, bags = (parameters[name] for name in ("rows", "width", "bag", "bags"))
    way, mode, dtype = parameters["pass"], parameters["mode"], dtype_of(parameters["dtype"])
    row_bytes = float(width * WIDTH_BYTES[parameters["dtype"]])
    table = torch.randn(rows, width, device=machine.device).to(dtype)
    following = turns(rows, (bags, bag), row_bytes, machine).__next__
    read, made = bags * bag * row_bytes, bags * row_bytes

    def look_up(*, sparse: bool) -> Any:
        return functional.embedding_bag(following(), table, mode=mode, sparse=sparse)

    if way == FORWARD:

        def run() -> None:
            with torch.no_grad():
                look_up(sparse=False)

        return Work(run=run, flop=float(bags * bag * width), moved_bytes=read + made)
    gradient = torch.ones(bags, width, device=machine.device, dtype=dtype)
    if way == UPDATE:
        values = torch.ones(bags * bag, width, device=machine.device, dtype=dtype)

        def update() -> None:
            found = torch.sparse_coo_tensor(following().view(1, -1), values, table.shape, check_invariants=False)
            table.add_(found, alpha=-1e-4)

        return Work(run=update, flop=2.0 * bags * bag * width, moved_bytes=3.0 * read)
    table.requires_grad_()

    def backward() -> None:
        # The forward pass of these very rows comes first, as in a step.
        torch.autograd.grad(look_up(sparse=way == SPARSE), table, gradient)

    whole = float(rows) * row_bytes if way == DENSE else 0.0
    return Work(run=backward, flop=2.0 * bags * bag * width, moved_bytes=2.0 * read + 2.0 * made + whole)


FAMILIES = (Kernel("embedding-bag", "sums of rows looked up at random, and their gradients", _cases, _build),)
