"""Optimizer steps in each of torch's implementations: one loop over tensors, multi-tensor, fused."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

WAYS = ("loop", "foreach", "fused")
# Arrays of fp32 an update reads and writes for each parameter: weight, gradient and moments in, weight and moments out.
PASSES = {"adamw": 7, "sgd": 3}


def make(name: str, way: str, parameters: Iterable[Any]) -> Any:
    """An optimizer of torch in one of its implementations."""
    import torch

    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    return kinds[name](parameters, lr=1e-4, foreach=way == "foreach", fused=way == "fused" or None)


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 16
    sizes = ((20, 64), (8, 4096), (8, 65536), (4, 1 << 20), (2, 1 << 22), (1, 1 << 24))
    for name in ("adamw", "sgd") if profile == FULL else ("adamw",):
        for way in WAYS:
            for tensors, elements in sizes if profile == FULL else sizes[2:3]:
                yield {"optimizer": name, "way": way, "tensors": tensors, "elements": elements * scale}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    tensors, elements = parameters["tensors"], parameters["elements"]
    weights = [torch.nn.Parameter(torch.randn(elements, device=machine.device)) for _ in range(tensors)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = make(parameters["optimizer"], parameters["way"], weights)
    moved = float(tensors * elements * 4 * PASSES[parameters["optimizer"]])
    return Work(run=optimizer.step, moved_bytes=moved)


FAMILIES = (Kernel("optimizer", "optimizer steps", _cases, _build),)
