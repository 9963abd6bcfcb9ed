"""Every drawing by its name: what `capacity plot` offers."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.reporting.figures import breakdowns, parity, stores
from capacity.reporting.figures.compression import compression
from capacity.reporting.figures.footprint import footprint
from capacity.reporting.figures.pareto import pareto
from capacity.reporting.figures.pipeline import pipeline
from capacity.reporting.figures.roofline import roofline
from capacity.reporting.figures.scaling import scaling
from capacity.reporting.figures.shown import shown
from capacity.reporting.figures.tornado import tornado

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from capacity.reporting.documents import Document
    from capacity.reporting.figures import Drawing
    from capacity.reporting.figures.shown import Shown

OF_ESTIMATES: dict[str, Callable[[Shown], Drawing | None]] = {
    "memory": lambda one: breakdowns.memory(one.part),
    "time": lambda one: breakdowns.time(one.part),
    "prompt": lambda one: breakdowns.time(one.part, "prefill time"),
    "pipeline": pipeline,
    "roofline": roofline,
    "footprint": footprint,
    "scaling": scaling,
    "pareto": pareto,
    "tornado": tornado,
}


def drawing_of(name: str, document: Document, metric: str = "", *, measured: Sequence[dict[str, Any]] = ()) -> Drawing:
    """The drawing of a document; raises InputError where it does not apply.

    metric: which one of a validation. measured: kernels to show on a roofline, beside what is predicted.
    """
    found = None
    if name in OF_ESTIMATES and document.kind == "estimate":
        from capacity.reporting.documents import estimate_of

        parts = shown(estimate_of(document.data, document.name), document.request)
        drawn = (roofline(part, measured) if name == "roofline" else OF_ESTIMATES[name](part) for part in parts)
        found = next((one for one in drawn if one is not None), None)
    elif name == "roofline" and document.kind == "bench":
        found = stores.roofline(document.data)
    elif name in ("parity", "calibration") and document.kind == "validation":
        kinds = parity.metrics(document.data.get("rows") or (), str(document.data.get("kind", document.name)))
        chosen = metric or max(kinds, key=lambda one: len(kinds[one]), default="")
        if metric and metric not in kinds:
            raise InputError(f"--metric is {metric[:40]!r}: {document.name} has {', '.join(kinds)}")
        found = parity.calibration(kinds) if name == "calibration" else parity.parity(kinds.get(chosen, ()), chosen)
    elif name == "compression" and document.kind == "compress":
        found = compression(document.data["methods"])
    if found is None:
        why = {
            "pipeline": "it needs --mode train and a layout with --pp 2 or more, whose schedule is 1f1b or gpipe",
            "roofline": "it needs the question itself, not a document",
            "pareto": "it needs a question about serving",
        }.get(name, " ".join(dict.fromkeys((document.kind, document.name))) + " has nothing to draw for it")
        raise InputError(f"there is no figure {name!r} of this: {why}")
    return found
