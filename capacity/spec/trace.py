"""What a program does, op by op: the rows a tracer writes and the laws of a machine price."""

from __future__ import annotations

from capacity.record import Record


class TracedOp(Record):
    """Calls of one library op on operands of known size and place.

    name: the library's, as "mm" or "native_layer_norm". kind: "product", "attention", "convolution", "recurrent", "bag" (rows of a
    table at random), "pointwise", "view", "collective" (elements: its bytes), "other", or "python" where the interpreter enters the library. phase: which part of the workload. calls: how often in a run; launches: of a call, 0 where it is part of another's loop. batch, m, n, k: of products;
    m: how many tensors, of calls on lists; gradients of an embedding's backward; rows of a bag, n of which lie in memory.
    A recurrent call multiplies m rows of k inputs and states by n gates' columns in each of `batch` steps. layout: of operands, where it matters. flop: of
    products, attention and convolutions. elements: the most numbers any operand holds. near_bytes: operands in the last-level
    cache, far_bytes: in memory; those in the first levels cost no traffic. fresh_bytes: of results for which the system gives
    untouched pages. nodes: recorded for a backward pass. switches: more
    passed through the inner caches since the op's last call than they hold, so that its code comes from further away.
    """

    name: str
    kind: str
    dtype: str
    phase: str = ""
    calls: float = 1.0
    launches: float = 1.0
    batch: float = 1.0
    m: float = 0.0
    n: float = 0.0
    k: float = 0.0
    layout: str = ""
    flop: float = 0.0
    elements: float = 0.0
    near_bytes: float = 0.0
    far_bytes: float = 0.0
    fresh_bytes: float = 0.0
    nodes: float = 0.0
    switches: float = 0.0


class Trace(Record):
    """All ops of one run of a workload. peak_bytes: most that was alive at once."""

    ops: tuple[TracedOp, ...]
    peak_bytes: float = 0.0
    phases: tuple[str, ...] = ()
