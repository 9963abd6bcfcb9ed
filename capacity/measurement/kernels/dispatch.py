"""What a call costs before it computes: ops of a few numbers."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

CALLS = (
    "empty", "view", "detach", "add", "mm", "linear", "linear_module", "norm_module", "softmax", "attention", "convert", "item",
    "linear_backward", "layers_backward", "autocast_linear",
)  # fmt: skip
SIDE = 8


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    del machine
    for name in CALLS if profile == FULL else ("add", "mm", "linear_backward"):
        yield {"call": name}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    return Work(run=_calls(machine.device)[parameters["call"]])


def _calls(device: str) -> dict[str, Callable[[], object]]:
    import torch
    from torch.nn import functional

    x = torch.randn(SIDE, SIDE, device=device)
    w = torch.randn(SIDE, SIDE, device=device, requires_grad=True)
    heads = torch.randn(1, 1, SIDE, SIDE, device=device)
    linear = torch.nn.Linear(SIDE, SIDE, device=device)
    norm = torch.nn.LayerNorm(SIDE, device=device)
    with torch.device(device):
        layers = torch.nn.Sequential(
            *(part for _ in range(3) for part in (torch.nn.Linear(SIDE, SIDE), torch.nn.ReLU()))
        )

    def without_gradient(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                call()

        return run

    def autocast() -> None:
        with torch.autocast(device, torch.bfloat16):
            linear(x)

    return {
        "empty": lambda: torch.empty(SIDE, device=device),
        "view": lambda: x.view(-1),
        "detach": x.detach,
        "add": lambda: x + x,
        "mm": lambda: torch.mm(x, x),
        "linear": without_gradient(lambda: functional.linear(x, w)),
        "linear_module": without_gradient(lambda: linear(x)),
        "norm_module": without_gradient(lambda: norm(x)),
        "softmax": lambda: torch.softmax(x, -1),
        "attention": lambda: functional.scaled_dot_product_attention(heads, heads, heads),
        "convert": lambda: x.to(torch.bfloat16),
        "item": x[0, 0].item,
        "linear_backward": lambda: functional.linear(x, w).sum().backward(),
        "layers_backward": lambda: layers(x).sum().backward(),
        "autocast_linear": autocast,
    }


FAMILIES = (Kernel("dispatch", "calls that compute next to nothing", _cases, _build, effort=0.5),)
