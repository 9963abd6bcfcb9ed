"""Recurrent layers over whole sequences: LSTM, which is one call of the library, and GRU, which on a processor is a chain of them."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.kernels.operands import dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

# Gates of a cell: products of its inputs and of its state.
GATES = {"lstm": 4, "gru": 3}
# sequences, steps, width of inputs and state, layers
_SHAPES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "lstm": (
        (16, 32, 128, 1), (8, 64, 256, 1), (32, 16, 512, 1), (4, 32, 256, 1), (16, 24, 384, 1), (1, 64, 128, 1), (1, 32, 1024, 1),
        (64, 16, 256, 1), (32, 8, 1024, 1), (2, 128, 64, 1), (8, 32, 192, 2), (16, 16, 320, 3),
    ),
    "gru": ((16, 16, 128, 1), (4, 32, 256, 1), (32, 8, 512, 1), (1, 24, 256, 1), (8, 12, 384, 2)),
}  # fmt: skip
# LSTM layers in half precision, for inference: autocast trains them in fp32.
_HALF = ((16, 32, 128, 1), (4, 32, 256, 1), (32, 16, 512, 1), (1, 32, 1024, 1))


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 8

    def case(cell: str, dtype: str, shape: tuple[int, int, int, int], *, backward: bool) -> dict[str, Any]:
        batch, length, width, layers = shape
        sizes = {"batch": batch * scale, "length": length, "width": width, "layers": layers}
        return {"cell": cell, "dtype": dtype, **sizes, "backward": backward}

    for cell, shapes in _SHAPES.items():
        for shape in shapes if profile == FULL else shapes[:1]:
            for backward in (False, True):
                yield case(cell, "fp32", shape, backward=backward)
    for shape in _HALF if profile == FULL else ():
        yield case("lstm", "bf16", shape, backward=False)


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    batch, length, width = (parameters[name] for name in ("batch", "length", "width"))
    # Stores from before there were several cells and layers name neither.
    cell, layers = parameters.get("cell", "lstm"), parameters.get("layers", 1)
    dtype = dtype_of(parameters["dtype"])
    make = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
    layer = make(width, width, layers, batch_first=True, device=machine.device, dtype=dtype)
    inputs = torch.randn(batch, length, width, device=machine.device).to(dtype)
    flop = 2.0 * batch * length * layers * 2 * GATES[cell] * width * width
    if not parameters["backward"]:

        def run() -> None:
            with torch.no_grad():
                layer(inputs)

        return Work(run=run, flop=flop)
    inputs.requires_grad_()

    def both() -> None:
        layer(inputs)[0].sum().backward()

    return Work(run=both, flop=3.0 * flop)


FAMILIES = (Kernel("recurrent", "LSTM and GRU layers", _cases, _build),)
