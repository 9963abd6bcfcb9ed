"""Products with compressed weights: weight-only int8 and int4, and int8 with activations quantised as they come."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work
from capacity.measurement.kernels.operands import rotated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

INT4_GROUP = 32
FORMATS = ("int8-weight", "int4-weight", "int8-dynamic")
BITS = {"int8-weight": 8.0, "int4-weight": 4.0 + 32.0 / INT4_GROUP, "int8-dynamic": 8.0}


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for kind in FORMATS:
        for n, k in ((1024, 1024), (2048, 2048), (5504, 2048)) if profile == FULL else ((2048, 2048),):
            for m in (1, 4, 16, 64, 256) if profile == FULL else (1,):
                yield {"format": kind, "m": m, "n": n, "k": k}
                if profile == FULL and m <= 16:
                    yield {"format": kind, "m": m, "n": n, "k": k, "warm": True}


def linear(kind: str, weight: Any) -> tuple[Callable[[], Callable[[Any], Any]], int, Any]:
    """Compress `weight` (outputs x inputs) once.

    Returns what makes a product with a copy of its own, the bytes a copy stores, and the dtype of its inputs.
    """
    import torch

    outputs, inputs = weight.shape
    aten = torch.ops.aten
    if opaque.tracing():
        stored = int(outputs * inputs * BITS[kind] / 8.0)
        dtype = torch.float32 if kind == "int8-dynamic" else torch.bfloat16
        return (lambda: opaque.product(kind, outputs, inputs, stored)), stored, dtype
    if kind == "int8-weight":
        scale = weight.float().abs().amax(1).clamp_min(1e-8) / 127.0
        packed = (weight.float() / scale[:, None]).round().clamp(-128, 127).to(torch.int8)
        scales = scale.to(torch.bfloat16)

        def weight_only_8() -> Callable[[Any], Any]:
            own = packed.clone()
            return lambda x: aten._weight_int8pack_mm(x, own, scales)

        return weight_only_8, packed.numel() + scales.numel() * 2, torch.bfloat16
    if kind == "int4-weight":
        groups = weight.float().reshape(outputs, inputs // INT4_GROUP, INT4_GROUP)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = ((high - low) / 15.0).clamp_min(1e-8)
        codes = ((groups - low) / step).round().clamp(0, 15).to(torch.int32).reshape(outputs, inputs)
        nibbles = aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        zero = low + step * 8.0  # the kernel computes (code - 8) * step + zero
        meta = torch.cat((step, zero), -1).transpose(0, 1).contiguous().to(torch.bfloat16)

        def weight_only_4() -> Callable[[Any], Any]:
            own = nibbles.clone()
            return lambda x: aten._weight_int4pack_mm_for_cpu(x, own, INT4_GROUP, meta)

        return weight_only_4, nibbles.numel() * nibbles.element_size() + meta.numel() * 2, torch.bfloat16
    if kind == "int8-dynamic":
        import warnings

        if "onednn" not in torch.backends.quantized.supported_engines:
            raise NotSupportedError("torch was built without oneDNN's quantised products")
        torch.backends.quantized.engine = "onednn"
        scale = max(float(weight.detach().abs().max()) / 127.0, 1e-8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantised = torch.quantize_per_tensor(weight.detach().float(), scale, 0, torch.qint8)

        def both_8() -> Callable[[Any], Any]:
            own = torch.ops.quantized.linear_prepack(quantised, None)
            return lambda x: torch.ops.quantized.linear_dynamic(x, own, True)

        return both_8, weight.numel(), torch.float32
    raise ValueError(kind)


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    m, n, k = parameters["m"], parameters["n"], parameters["k"]
    weight = torch.randn(n, k) * 0.05
    copy, stored, dtype = linear(parameters["format"], weight)
    inputs = torch.randn(m, k).to(dtype)

    class Packed:
        """A packed weight that counts as its bytes when operands are rotated."""

        def __init__(self) -> None:
            self.call = copy()

        def numel(self) -> int:
            return stored

        def element_size(self) -> int:
            return 1

    run, _ = rotated(lambda packed: packed.call(inputs), lambda: (Packed(),), machine, cold=not parameters.get("warm"))
    exact = inputs.float() @ weight.t()

    def facts() -> dict[str, Any]:
        error = (copy()(inputs).float() - exact).norm() / exact.norm()
        return {"relative_error": float(error), "weight_bytes": stored}

    moved = stored + (m * k + m * n) * inputs.element_size()
    return Work(run=run, flop=2.0 * m * n * k, moved_bytes=float(moved), facts=facts)


FAMILIES = (Kernel("linear-quantised", "products with compressed weights, cold and warm", _cases, _build),)
