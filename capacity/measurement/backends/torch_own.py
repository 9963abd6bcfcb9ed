"""Torch itself: dense, and compressed by its own kernels."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.backends import Session
from capacity.measurement.kernels.quantised import BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.backends import Task
    from capacity.measurement.workloads.decoder import Decoder


class Torch:
    """Eager torch, and the products with compressed weights it ships."""

    name = "torch"
    packages = {"torch": "torch"}
    bits = {"fp32": 32.0, "bf16": 16.0, **BITS}
    devices = ("cpu", "cuda")
    traced = True

    def load(self, decoder: Decoder, task: Task) -> Session:
        """The decoder compressed to a form; see `compress`."""
        from capacity.measurement.workloads.decoder import compress, stored_bytes

        module = compress(decoder, task.form)
        return session_of(module, task, module.weight_bytes(), lambda: float(stored_bytes(module)))


def session_of(module: Any, task: Task, weight_bytes: float, disk_bytes: Any, call: Any = None) -> Session:
    """A torch module as a session; its cache is filled with the past once. call: the module compiled."""
    import torch

    run_module = module if call is None else call
    place = 0
    with torch.no_grad():
        if task.past is not None:
            module(task.past, 0)
            place = task.past.shape[1]

    def run() -> Any:
        with torch.no_grad():
            return run_module(task.tokens, place)

    def scores() -> Any:
        return run()[:, -1].float()

    stored = 0.0 if opaque.tracing() else disk_bytes()  # shapes cannot be saved
    return Session(run=run, scores=scores, weight_bytes=weight_bytes, disk_bytes=stored)
