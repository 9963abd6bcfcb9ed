"""Any network as a table of ops, whichever way it came: traced from code, read from ONNX, or kept in the catalogue."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.op import Op

FORWARD, BACKWARD = "forward", "backward"


class Graph(Record):
    """One pass of a network over one batch.

    ops: every op of the pass, equal ones as one row with their count; rows of phase "backward" only where it was traced to
    train. batch: the first dimension of the first input. inputs: shapes and formats as given. parameters, trained: numbers
    in all tensors of weights, and in those that learn; tensors: how many of those there are. buffer_bytes: what is
    kept beside weights. saved_elements, saved_bytes: floating-point numbers, and bytes of other formats, that the backward
    pass needs of the forward pass; peak_elements: most floating-point numbers alive at once beside weights.
    parameter_bytes: as stored, where the file says. unknown: ops whose FLOPs nobody counts, by name, with their
    number of elements. calls: Python modules called in a forward pass.
    """

    name: str
    source: str
    batch: float
    inputs: tuple[str, ...]
    ops: tuple[Op, ...]
    parameters: float
    trained: float
    tensors: float
    buffer_bytes: float = 0.0
    saved_elements: float = 0.0
    saved_bytes: float = 0.0
    peak_elements: float = 0.0
    parameter_bytes: float | None = None
    unknown: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    calls: float = 0.0

    def phase(self, name: str) -> tuple[Op, ...]:
        """The ops of one phase."""
        return tuple(op for op in self.ops if op.phase == name)
