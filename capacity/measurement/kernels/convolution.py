"""Convolutions of images, forward and backward, in both memory formats."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.kernels.operands import WIDTH_BYTES, dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

# images, channels in, channels out, side, kernel, stride
_SHAPES = (
    (4, 64, 64, 56, 3, 1),
    (4, 3, 64, 112, 7, 2),
    (2, 128, 128, 28, 3, 1),
    (4, 64, 128, 28, 3, 2),
    (4, 256, 256, 14, 3, 1),
    (4, 512, 512, 7, 3, 1),
    (8, 64, 128, 28, 1, 2),
    (8, 32, 32, 32, 3, 1),
    (16, 16, 32, 16, 3, 1),
    (1, 64, 64, 16, 3, 1),
    (4, 3, 384, 128, 16, 16),
    (2, 384, 384, 3, 3, 1),
    (8, 192, 192, 6, 3, 1),
    (2, 96, 96, 20, 3, 1),
    (4, 320, 640, 6, 3, 2),
    (4, 640, 640, 3, 3, 1),
    (4, 192, 384, 6, 1, 2),
    (8, 3, 32, 64, 7, 2),
    (8, 3, 128, 48, 8, 8),
)


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 16
    for dtype in ("fp32", "bf16"):
        for b, c, o, side, size, stride in _SHAPES if profile == FULL else _SHAPES[:1]:
            for backward in (False, True):
                for last in (False, True) if profile == FULL and size == 3 and side > 5 else (False,):
                    yield {
                        "dtype": dtype, "images": b * scale, "in": c, "out": o, "side": side, "kernel": size, "stride": stride,
                        "channels_last": last, "backward": backward,
                    }  # fmt: skip


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    b, c, o, side, size, stride = (parameters[name] for name in ("images", "in", "out", "side", "kernel", "stride"))
    padding = size // 2 if stride < size else 0
    layout = torch.channels_last if parameters["channels_last"] else torch.contiguous_format
    dtype = dtype_of(parameters["dtype"])
    image = torch.randn(b, c, side, side, device=machine.device).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(o, c, size, size, device=machine.device).to(dtype).contiguous(memory_format=layout)
    width = WIDTH_BYTES[parameters["dtype"]]

    def forward(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(x, w, stride=stride, padding=padding)

    with torch.no_grad():
        result = forward(image, weight)
    flop = 2.0 * result.numel() * c * size * size
    moved = float((image.numel() + weight.numel() + result.numel()) * width)
    if not parameters["backward"]:

        def run() -> None:
            with torch.no_grad():
                forward(image, weight)

        return Work(run=run, flop=flop, moved_bytes=moved)
    image.requires_grad_()
    weight.requires_grad_()
    result = forward(image, weight)
    gradient = torch.ones_like(result)

    def backward() -> None:
        torch.autograd.grad(result, (image, weight), gradient, retain_graph=True)

    return Work(run=backward, flop=2.0 * flop, moved_bytes=2.0 * moved)


FAMILIES = (Kernel("convolution", "two-dimensional convolutions", _cases, _build),)
