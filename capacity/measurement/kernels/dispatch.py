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
    "linear_backward", "layers_backward", "autocast_linear", "chain_modules",
    "cold_forward", "cold_backward", "cold_autocast", "cold_update", "cold_modules",
)  # fmt: skip
SIDE = 8
COLD_BYTES = 2 * 2**20


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

    def cold(rows: int, *, backward: bool, half: bool = False, update: bool = False) -> Callable[[], object]:
        # A few small layers after as much data as pushes their code and the interpreter's out of the inner caches.
        source, target = (torch.ones(COLD_BYTES // 4, device=device) for _ in range(2))
        value, label = torch.randn(rows, 32, device=device), torch.ones(rows, 1, device=device)
        weights = [torch.randn(32, 32, device=device, requires_grad=backward) for _ in range(3)]
        last = torch.randn(1, 32, device=device, requires_grad=backward)
        optimizer = torch.optim.AdamW([*weights, last], fused=True) if update else None

        def run() -> None:
            with torch.set_grad_enabled(backward), torch.autocast(device, torch.bfloat16, enabled=half):
                y = value
                for weight in weights:
                    target.copy_(source)
                    y = torch.relu(functional.linear(y, weight))
                target.copy_(source)
                y = functional.binary_cross_entropy_with_logits(functional.linear(y, last).float(), label)
            if backward:
                target.copy_(source)
                y.backward()
            if optimizer is not None:
                target.copy_(source)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        return run

    stream = torch.ones(COLD_BYTES // 4, device=device)
    kept = torch.ones_like(stream)

    def cold_modules() -> None:
        with torch.no_grad():
            kept.copy_(stream)
            modules(x)

    with torch.device(device):
        modules = torch.nn.Sequential(
            torch.nn.Linear(SIDE, SIDE), torch.nn.LayerNorm(SIDE), torch.nn.GELU(), torch.nn.Linear(SIDE, SIDE), torch.nn.Tanh(),
            torch.nn.Softmax(-1), torch.nn.Dropout(0.0), torch.nn.SiLU(), torch.nn.Sigmoid(), torch.nn.Linear(SIDE, SIDE),
        )  # fmt: skip

    return {
        "cold_forward": cold(8, backward=False),
        "cold_backward": cold(8, backward=True),
        "cold_autocast": cold(8, backward=True, half=True),
        "cold_update": cold(8, backward=True, update=True),
        "cold_modules": cold_modules,
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
