"""A network on the machine that was measured: its calls, traced on shapes, through the laws `capacity calibrate local` fitted."""

from __future__ import annotations

from capacity.catalogue.own import laws_path, read_laws_document
from capacity.errors import InputError
from capacity.formula import scaled, sourced, total
from capacity.laws.local import MACHINE, NODES, from_document, fused
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.importers.graphs.module import InputSpec
    from capacity.laws.local import LocalLaws
    from capacity.spec.trace import Trace, TracedOp

HOST, OPTIMIZER = "host", "optimizer"
# No interval is narrower than by this share: a machine is never twice the same.
LEAST_OFF = 0.05
# How calls are told apart on the screen, by kind or a part of their name.
_KINDS = {
    "product": "products", "convolution": "convolutions", "attention": "attention", "recurrent": "recurrent", "bag": "embedding",
    "python": HOST, "view": HOST,
}  # fmt: skip
_NAMES = (
    ("embedding", "embedding"),
    ("norm", "norms"),
    ("softmax", "norms"),
    ("pool", "pooling"),
    ("upsample", "resampling"),
)


class Here(Record):
    """Seconds of a step on this machine: by part, each call by itself. missing: calls nothing like which was measured."""

    parts: dict[str, dict[str, float]]
    missing: tuple[str, ...]
    interval: tuple[float, float]
    source: str

    def step_s(self) -> float:
        """Seconds of the whole step."""
        return total({part: total(calls) for part, calls in self.parts.items()})


def read_local_laws() -> LocalLaws:
    """The laws of this machine's calls. Raises InputError where it was not measured."""
    path = laws_path()
    return from_document(read_laws_document(path), path)


def time_here(
    laws: LocalLaws,
    module: Any,
    specs: Sequence[InputSpec],
    *,
    train: bool,
    precision: str,
    optimizer: str,
    compiled: bool,
    channels_last: bool,
) -> Here:
    """A step or a pass of a module, or of what a callable makes, on inputs of these shapes, call by call.

    Raises InputError for whatever the module's code raises.
    """
    from capacity.importers.graphs.module import network_on_meta
    from capacity.importers.graphs.tracer import quiet
    from capacity.measurement.steps import OPTIMIZERS, trace_step

    if train and optimizer not in OPTIMIZERS:
        raise InputError(
            f"--optimizer {optimizer}: on this machine stock torch's are known; choose from {', '.join(OPTIMIZERS)}"
        )
    try:
        with quiet():
            trace = trace_step(
                network_on_meta(module), [(one.name, one.shape, one.dtype) for one in specs],
                laws.device, laws.inner_cache_bytes, laws.last_cache_bytes,
                train=train, precision=precision, optimizer=optimizer, channels_last=channels_last,
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"--module cannot be traced on the processor's own calls: {type(error).__name__}: {text}"
        ) from None
    return priced(laws, fused(trace) if compiled else trace)


def priced(laws: LocalLaws, trace: Trace) -> Here:
    """A trace through a machine's laws."""
    parts: dict[str, dict[str, float]] = {}
    missing: dict[str, None] = {}
    node = laws.seconds[MACHINE].get(NODES, 0.0)
    recorded = 0.0
    for at, op in enumerate(trace.ops):
        seconds = laws.op_s(op)
        if seconds is None:
            missing[f"{op.name} {op.dtype}"] = None
            seconds = laws.roofline_s(op)
        each = scaled(sourced(seconds, f"{op.name} {op.dtype}", "this machine's laws"), sourced(op.calls, "calls"))
        parts.setdefault(_part(op), {})[f"{op.phase} {op.name} {at}"] = each
        recorded += op.calls * op.nodes * node
    if recorded:
        parts.setdefault(HOST, {})["nodes recorded for backward"] = recorded
    low, _, high = laws.steps or laws.spread
    what = "training steps measured on this machine" if laws.steps else "kernels of this machine"
    return Here(parts, tuple(missing), (_ratio(min(low, -LEAST_OFF)), _ratio(max(high, LEAST_OFF))), what)


def _ratio(log: float) -> float:
    from math import exp

    return exp(log)


def _part(op: TracedOp) -> str:
    if op.phase == OPTIMIZER:
        return OPTIMIZER
    named = next((part for word, part in _NAMES if word in op.name), "element-wise")
    return _KINDS.get(op.kind, named)
