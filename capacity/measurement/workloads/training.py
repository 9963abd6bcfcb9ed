"""Training steps: forward, loss, backward and optimizer timed apart."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

_TEXT = ("layers", "width", "vocabulary", "length", "batch")
_SPEECH = ("layers", "width", "bands", "frames", "batch")
# Tables, their rows and width, rows of a bag, and whether their gradients are sparse.
_CLICKS = ("tables", "rows", "width", "bag", "batch", "sparse")
# The network of the founding document, and wider ones.
_FOUNDING = (1000, 500, 250, 100, 1)

_CPU: tuple[dict[str, Any], ...] = (
    *({"family": "gpt", **dict(zip(_TEXT, shape, strict=True))} for shape in (
        (2, 128, 1024, 64, 2), (4, 256, 4096, 128, 1), (4, 256, 4096, 128, 4), (6, 384, 8192, 256, 1), (4, 512, 8192, 256, 2),
        (8, 512, 16384, 128, 1), (3, 192, 2048, 512, 1),
    )),
    {"family": "moe", **dict(zip(_TEXT, (2, 256, 4096, 128, 2), strict=True)), "experts": 4},
    {"family": "moe", **dict(zip(_TEXT, (4, 192, 2048, 128, 2), strict=True)), "experts": 8},
    {"family": "bert", **dict(zip(_TEXT, (4, 256, 8192, 128, 4), strict=True))},
    {"family": "bert", **dict(zip(_TEXT, (6, 384, 4096, 64, 4), strict=True))},
    {"family": "vit", "layers": 6, "width": 192, "side": 64, "patch": 8, "batch": 8},
    {"family": "vit", "layers": 4, "width": 192, "side": 224, "patch": 16, "batch": 2},
    {"family": "vit", "layers": 4, "width": 384, "side": 96, "patch": 8, "batch": 2},
    {"family": "resnet", "blocks": [2, 2, 2, 2], "width": 64, "side": 64, "batch": 4},
    {"family": "resnet", "blocks": [1, 1, 1], "width": 32, "side": 64, "batch": 8},
    {"family": "resnet", "blocks": [2, 2, 2, 2], "width": 64, "side": 128, "batch": 2, "channels_last": True},
    {"family": "lstm", **dict(zip(_TEXT, (1, 256, 4096, 32, 16), strict=True))},
    {"family": "lstm", **dict(zip(_TEXT, (2, 384, 2048, 24, 8), strict=True))},
    *({"family": "speech", **dict(zip(_SPEECH, shape, strict=True))} for shape in ((1, 256, 64, 64, 4), (2, 128, 32, 48, 8))),
    *({"family": "dlrm", **dict(zip(_CLICKS, shape, strict=True))} for shape in (
        (8, 200_000, 32, 4, 256, True), (4, 1_000_000, 64, 1, 1024, True), (26, 20_000, 16, 1, 512, True), (8, 5_000, 32, 4, 256, False),
    )),
    *({"family": "mlp", "widths": list(_FOUNDING), "batch": batch} for batch in (10, 100, 1000)),
    {"family": "mlp", "widths": [1024, 2048, 2048, 10], "batch": 128},
    {"family": "mlp", "widths": [768, 3072, 768, 10], "batch": 512},
)  # fmt: skip

_CUDA: tuple[dict[str, Any], ...] = (
    *({"family": "gpt", **dict(zip(_TEXT, shape, strict=True))} for shape in (
        (12, 768, 50304, 1024, 8), (24, 1024, 50304, 1024, 8), (24, 2048, 50304, 2048, 2),
    )),
    {"family": "moe", **dict(zip(_TEXT, (12, 768, 50304, 1024, 4), strict=True)), "experts": 8},
    {"family": "bert", **dict(zip(_TEXT, (12, 768, 30522, 512, 16), strict=True))},
    {"family": "vit", "layers": 12, "width": 768, "side": 224, "patch": 16, "batch": 64},
    {"family": "resnet", "blocks": [2, 2, 2, 2], "width": 64, "side": 224, "batch": 128, "channels_last": True},
    {"family": "lstm", **dict(zip(_TEXT, (2, 1024, 32768, 128, 64), strict=True))},
    {"family": "speech", **dict(zip(_SPEECH, (5, 1024, 80, 512, 32), strict=True))},
    {"family": "dlrm", **dict(zip(_CLICKS, (26, 1_000_000, 128, 1, 8192, True), strict=True))},
    {"family": "mlp", "widths": list(_FOUNDING), "batch": 100},
    {"family": "mlp", "widths": [4096, 16384, 4096, 1000], "batch": 4096},
)  # fmt: skip

# How a step is varied: two of each family would say little more than two of one.
_VARIATIONS: tuple[dict[str, Any], ...] = (
    {"optimizer": "adamw-foreach"},
    {"optimizer": "adamw-loop"},
    {"optimizer": "sgd-loop"},
    {"accumulate": 4},
    {"recompute": True},
    {"compiled": True},
)
# Networks that are measured compiled beside the one all variations are of: by family.
_COMPILED = ("mlp", "vit", "bert", "resnet")
# Autocast leaves recurrent layers and embedding bags in fp32.
_WIDE = ("lstm", "speech", "dlrm")
OPTIMIZER = "adamw-fused"
# As recommenders with sparse gradients are trained.
SPARSE_OPTIMIZER = "sgd-loop"


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    shapes = _CPU if machine.device == "cpu" else _CUDA
    if profile != FULL:
        founding = next(one for one in shapes if one["family"] == "mlp" and one["batch"] == 100)
        for shape in (shapes[1], founding):
            yield {**shape, "dtype": "fp32", "optimizer": OPTIMIZER}
        return
    for shape in shapes:
        for dtype in ("fp32", "bf16"):
            if dtype == "bf16" and shape["family"] in _WIDE:
                continue
            yield {**shape, "dtype": dtype, "optimizer": SPARSE_OPTIMIZER if shape.get("sparse") else OPTIMIZER}
    for variation in _VARIATIONS:
        yield {**shapes[1], "dtype": "fp32", "optimizer": OPTIMIZER, **variation}
    for family in _COMPILED:
        shape = next(one for one in shapes if one["family"] == family)
        yield {**shape, "dtype": "fp32", "optimizer": OPTIMIZER, "compiled": True}


def optimizer_of(name: str, weights: Iterable[Any]) -> Any:
    """An optimizer by name and implementation, such as adamw-fused."""
    from capacity.measurement.kernels.optimizer import make

    kind, way = name.split("-")
    return make(kind, way, weights)


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    from capacity.measurement.workloads.models import network

    module, (inputs, targets), loss_of = network(parameters, machine.device)
    optimizer = optimizer_of(parameters["optimizer"], module.parameters())
    # Where shapes alone exist, the calls before fusion are seen; see `laws.local.fused`.
    run = torch.compile(module) if parameters.get("compiled") and not opaque.tracing() else module
    half = parameters["dtype"] == "bf16"
    accumulate = parameters.get("accumulate", 1)
    held: dict[str, Any] = {}

    def forward() -> None:
        with torch.autocast(machine.device, torch.bfloat16, enabled=half):
            held["scores"] = run(inputs)

    def loss() -> None:
        with torch.autocast(machine.device, torch.bfloat16, enabled=half):
            held["loss"] = loss_of(held.pop("scores"), targets) / accumulate

    def backward() -> None:
        held.pop("loss").backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    passes: list[tuple[str, Callable[[], object]]] = [("forward", forward), ("loss", loss), ("backward", backward)]
    count = sum(weight.numel() for weight in module.parameters())
    return Work(phases=(*passes * accumulate, ("optimizer", update)), facts=lambda: {"parameters": count})


FAMILIES = (Kernel("training", "training steps in phases", _cases, _build, kind="training", time_s=240.0, effort=3.0),)
