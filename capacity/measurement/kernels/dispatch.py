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
    "linear_backward", "layers_backward", "autocast_linear", "chain", "chain_wide", "chain_backward", "chain_backward_wide", "chain_autocast",
    "chain_modules",
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

    def chain(rows: int, columns: int, *, backward: bool, half: bool = False) -> Callable[[], object]:
        # Ops of many kinds, none twice in a row: what a call costs when its code was not used last.
        value = torch.randn(rows, columns, device=device, requires_grad=backward)
        weight = torch.randn(columns, columns, device=device, requires_grad=backward)
        scale = torch.ones(columns, device=device, requires_grad=backward)

        def run() -> None:
            with torch.set_grad_enabled(backward), torch.autocast(device, torch.bfloat16, enabled=half):
                y = functional.linear(value, weight)
                y = functional.gelu(y + scale)
                y = functional.layer_norm(y * scale, (columns,), scale, scale)
                y = torch.softmax(y, -1).view(columns, rows).t()
                y = torch.cat((torch.relu(y), torch.sigmoid(y)), -1)[:, :columns]
                y = functional.silu(y.contiguous()) + torch.tanh(y).mean(-1, keepdim=True)
                y = functional.linear(y, weight).pow(2).sum()
                if backward:
                    y.backward()

        return run

    with torch.device(device):
        modules = torch.nn.Sequential(
            torch.nn.Linear(SIDE, SIDE), torch.nn.LayerNorm(SIDE), torch.nn.GELU(), torch.nn.Linear(SIDE, SIDE), torch.nn.Tanh(),
            torch.nn.Softmax(-1), torch.nn.Dropout(0.0), torch.nn.SiLU(), torch.nn.Sigmoid(), torch.nn.Linear(SIDE, SIDE),
        )  # fmt: skip

    return {
        "chain": chain(16, 64, backward=False),
        "chain_wide": chain(256, 256, backward=False),
        "chain_backward": chain(16, 64, backward=True),
        "chain_backward_wide": chain(256, 256, backward=True),
        "chain_autocast": chain(64, 128, backward=True, half=True),
        "chain_modules": without_gradient(lambda: modules(x)),
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
