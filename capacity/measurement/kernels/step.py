"""Steps of tiny networks between which other data has passed: what calls cost where their code and the interpreter's are cold.

Each part of the step is timed apart from the data that passes in between ("between" is nobody's time).
"""

from __future__ import annotations

from capacity.measurement.case import BETWEEN, FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

# What passes in between: beyond the first caches, beyond the second, beyond all.
_PASSES_KIB = (1024, 8192, 65536)
NETS = ("dense", "norm", "image", "attention")
BATCH, WIDTH, CLASSES = 8, 32, 50


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    scale = 1 if machine.device == "cpu" else 4
    for kibibytes in _PASSES_KIB:
        for net in NETS:
            for dtype in ("fp32", "bf16"):
                yield {"net": net, "dtype": dtype, "optimizer": "adamw-fused", "passes-KiB": kibibytes * scale}
        for optimizer in ("adamw-foreach", "adamw-loop", "sgd-loop"):
            yield {"net": "dense", "dtype": "fp32", "optimizer": optimizer, "passes-KiB": kibibytes * scale}


def _net(name: str) -> tuple[Any, Any]:
    """A network of a few layers, and inputs for it."""
    import torch
    from torch import nn

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out, self.norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, CLASSES), nn.LayerNorm(WIDTH)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(self.norm(x)).view(BATCH, 4, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(mixed.transpose(1, 2).reshape(BATCH, 4, WIDTH))[:, 0]

    if name == "dense":
        layers = [nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1)]
        return nn.Sequential(*layers), torch.randn(BATCH, WIDTH)
    if name == "norm":
        layers = [nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES)]
        return nn.Sequential(*layers), torch.randn(BATCH, WIDTH)
    if name == "image":
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, CLASSES)]
        return nn.Sequential(*layers), torch.randn(BATCH, 3, 8, 8)
    return Mixing(), torch.randn(BATCH, 4, WIDTH)


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch
    from torch.nn import functional

    from capacity.measurement.kernels.optimizer import make

    with torch.device(machine.device):
        net, inputs = _net(parameters["net"])
        dense = parameters["net"] == "dense"
        targets = torch.ones(BATCH, 1) if dense else torch.randint(0, CLASSES, (BATCH,))
        source = torch.ones(parameters["passes-KiB"] * 1024 // 8)
        target = torch.ones_like(source)
    loss_of: Callable[..., Any] = functional.binary_cross_entropy_with_logits if dense else functional.cross_entropy
    kind, way = parameters["optimizer"].split("-")
    optimizer = make(kind, way, net.parameters())
    half = parameters["dtype"] == "bf16"
    held: dict[str, Any] = {}

    def passes() -> None:
        target.copy_(source)

    def forward() -> None:
        with torch.autocast(machine.device, torch.bfloat16, enabled=half):
            held["scores"] = net(inputs)

    def loss() -> None:
        with torch.autocast(machine.device, torch.bfloat16, enabled=half):
            held["loss"] = loss_of(held.pop("scores").float(), targets) / 1

    def backward() -> None:
        held.pop("loss").backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    steps = (("forward", forward), ("loss", loss), ("backward", backward), ("optimizer", update))
    return Work(phases=tuple(part for step in steps for part in ((BETWEEN, passes), step)))


FAMILIES = (Kernel("cold-step", "steps of tiny networks whose code is cold", _cases, _build, effort=2.0),)
