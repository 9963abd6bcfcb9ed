"""Software generations: how much of the hardware's pace a training stack keeps."""

from __future__ import annotations

from capacity.record import Record


class Stack(Record):
    """Factors of a training stack on the laws, fitted on published runs (docs/accuracy.md).

    sustained: multiplies the architecture's sustained share of GEMM peak; attention: share of the benchmarked
    attention rate; elementwise: memory traffic over the fused minimum; exposed_forward, exposed_backward: share of
    tensor-parallel communication that is not hidden; accumulation_bytes: traffic per local weight and micro-batch to
    accumulate gradients; optimizer_bytes: traffic per local weight of a step; straggler: slow-down per doubling of nodes; host:
    share of the launching host's time that is left; routing_overlap: share of expert routing that runs beside compute.
    """

    name: str
    sustained: float
    attention: float
    elementwise: float
    exposed_forward: float
    exposed_backward: float
    accumulation_bytes: float
    optimizer_bytes: float
    overlap: float
    contention: float
    straggler: float
    host: float
    routing_overlap: float


STACKS = {
    "eager": Stack("eager", 1.0, 0.5, 1.39, 0.78, 0.66, 8.0, 52.0, 0.96, 0.35, 0.0096, 1.0, 0.0),
    "tuned": Stack("tuned", 1.18, 0.65, 1.1, 0.4, 0.4, 4.0, 40.0, 0.96, 0.2, 0.005, 0.4, 0.7),
}
