"""Matrix products: square, of model shapes in the three layouts of training, skinny, batched, in every precision.

Layouts name what training multiplies: "nt" x W' forward, "nn" dy W for the input's gradient, "tn" dy' x for the weight's.
"""

from __future__ import annotations

from math import exp, log
from random import Random

from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work
from capacity.measurement.kernels.operands import WIDTH_BYTES, dtype_of, rotated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

LAYOUTS = ("nt", "nn", "tn")
# Where both a CPU core and a GPU have work of milliseconds.
_RANGE = {"cpu": (24, 1600), "cuda": (128, 12288)}
_MOST_FLOP = {"cpu": 6e9, "cuda": 2e12}
_SQUARES = {"cpu": (64, 128, 256, 512, 1024, 2048), "cuda": (512, 1024, 2048, 4096, 8192, 16384)}


def drawn_shapes(machine: Machine, count: int, seed: int) -> list[tuple[int, int, int]]:
    """Log-uniform shapes, the same in every run."""
    random = Random(seed)  # noqa: S311 - a choice of shapes, no secret
    least, most = _RANGE[machine.device]
    found: list[tuple[int, int, int]] = []
    while len(found) < count:
        m, n, k = (round(exp(random.uniform(log(least), log(most))) / 8) * 8 for _ in range(3))
        if 2.0 * m * n * k <= _MOST_FLOP[machine.device]:
            found.append((m, n, k))
    return found


def _dtypes(profile: str) -> tuple[str, ...]:
    return ("fp32", "bf16") if profile != FULL else ("fp32", "bf16", "fp16", "int8", "fp8")


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    squares = _SQUARES[machine.device]
    for dtype in _dtypes(profile):
        for side in squares if profile == FULL else squares[2:5]:
            yield {"dtype": dtype, "m": side, "n": side, "k": side, "layout": "nt"}
    drawn = 30 if profile == FULL else 3
    for dtype in ("fp32", "bf16"):
        for index, (m, n, k) in enumerate(drawn_shapes(machine, drawn, 7)):
            yield {"dtype": dtype, "m": m, "n": n, "k": k, "layout": LAYOUTS[index % 3]}


def _skinny(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 2
    for dtype in ("fp32", "bf16", "fp16") if profile == FULL else ("bf16",):
        for n, k in ((1024, 1024), (2048, 2048), (5504, 2048)) if profile == FULL else ((2048, 2048),):
            for m in (1, 4, 16, 64) if profile == FULL else (1,):
                yield {"dtype": dtype, "m": m, "n": n * scale, "k": k * scale, "layout": "nt"}


def build_gemm(parameters: Mapping[str, Any], machine: Machine, *, cold: bool = False) -> Work:
    """One product of m x k by k x n."""
    m, n, k = parameters["m"], parameters["n"], parameters["k"]
    dtype, layout = parameters["dtype"], parameters["layout"]
    width = WIDTH_BYTES[dtype]
    function, make = _product(dtype, layout, m, n, k, machine.device)
    run, _ = rotated(function, make, machine, cold=cold)
    out_width = 4 if dtype == "int8" else 2 if dtype == "fp8" else width
    return Work(run=run, flop=2.0 * m * n * k, moved_bytes=(m * k + n * k) * width + m * n * out_width)


def _product(
    dtype: str, layout: str, m: int, n: int, k: int, device: str
) -> tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]:
    import torch

    def numbers(rows: int, columns: int) -> Any:
        if dtype == "int8":
            return torch.randint(-8, 8, (rows, columns), dtype=torch.int8, device=device)
        return (torch.randn(rows, columns, device=device) * 0.1).to(dtype_of(dtype))

    if dtype == "int8":
        return torch._int_mm, lambda: (numbers(m, k), numbers(n, k).t())
    if dtype == "fp8":
        if device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
            raise NotSupportedError("fp8 products need compute capability 8.9")
        one = torch.ones((), device=device)

        def scaled(left: Any, right: Any) -> Any:
            return torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

        try:
            scaled(numbers(16, 16), numbers(16, 16).t())
        except (RuntimeError, NotImplementedError) as error:
            raise NotSupportedError(f"no fp8 product here: {str(error)[:120]}") from None
        return scaled, lambda: (numbers(m, k), numbers(n, k).t())
    makers = {
        "nt": lambda: (numbers(m, k), numbers(n, k).t()),
        "nn": lambda: (numbers(m, k), numbers(k, n)),
        "tn": lambda: (numbers(k, m).t(), numbers(k, n)),
    }
    return torch.mm, makers[layout]


def _build_skinny(parameters: Mapping[str, Any], machine: Machine) -> Work:
    return build_gemm(parameters, machine, cold=not parameters.get("warm"))


def _batched(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 8
    shapes = (
        (16, 128, 128, 64),
        (32, 64, 256, 64),
        (8, 256, 256, 128),
        (4, 512, 64, 512),
        (64, 32, 32, 32),
        (8, 128, 512, 512),
    )
    for dtype in ("fp32", "bf16"):
        for batch, m, n, k in shapes if profile == FULL else shapes[:1]:
            yield {"dtype": dtype, "batch": batch * scale, "m": m, "n": n, "k": k}


def _build_batched(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    batch, m, n, k = (parameters[name] for name in ("batch", "m", "n", "k"))
    dtype = dtype_of(parameters["dtype"])
    left = torch.randn(batch, m, k, device=machine.device).to(dtype)
    right = torch.randn(batch, k, n, device=machine.device).to(dtype)
    moved = batch * (m * k + k * n + m * n) * WIDTH_BYTES[parameters["dtype"]]
    return Work(run=lambda: torch.bmm(left, right), flop=2.0 * batch * m * n * k, moved_bytes=moved)


FAMILIES = (
    Kernel("gemm", "matrix products of warm operands", _cases, build_gemm),
    Kernel("gemm-skinny", "few rows against weights, cold as in decoding, and warm", _skinny, _build_skinny),
    Kernel("gemm-batched", "many small products in one call", _batched, _build_batched),
)
