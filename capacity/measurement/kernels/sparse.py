"""Products with pruned weights: unstructured in CSR, 2:4 where the device has it."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work
from capacity.measurement.kernels.operands import dtype_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

INDEX_BYTES = 4


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    side = 2048 if machine.device == "cpu" else 8192
    for m in (1, 32, 256):
        for zeros in (0.5, 0.8, 0.9, 0.95):
            yield {"form": "csr", "dtype": "fp32", "m": m, "n": side, "k": side, "zeros": zeros}
    for m in (64, 256):
        yield {"form": "2of4", "dtype": "bf16", "m": m, "n": side, "k": side, "zeros": 0.5}


def pruned(weight: Any, zeros: float) -> Any:
    """The weight with its smallest entries set to zero."""
    keep = max(int(weight.numel() * (1.0 - zeros)), 1)
    least = weight.abs().flatten().kthvalue(weight.numel() - keep + 1).values
    return weight * (weight.abs() >= least)


def pruned_2of4(weight: Any) -> Any:
    """The weight with the smaller two of every four inputs set to zero."""
    groups = weight.reshape(weight.shape[0], -1, 4)
    smallest = groups.abs().argsort(-1)[..., :2]
    return groups.scatter(-1, smallest, 0.0).reshape(weight.shape)


def csr(weight: Any) -> Any:
    """A CSR matrix with 32-bit indices: half the index traffic of torch's default."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSR is in beta
        wide = weight.to_sparse_csr()
        return torch.sparse_csr_tensor(
            wide.crow_indices().int(), wide.col_indices().int(), wide.values(), size=wide.shape
        )


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    m, n, k, zeros = (parameters[name] for name in ("m", "n", "k", "zeros"))
    dtype = dtype_of(parameters["dtype"])
    weight = torch.randn(n, k, device=machine.device)
    inputs = torch.randn(k, m, device=machine.device).to(dtype)
    if parameters["form"] == "2of4":
        if machine.device != "cuda":
            raise NotSupportedError("2:4 products exist on CUDA only")
        from torch.sparse import to_sparse_semi_structured

        half = to_sparse_semi_structured(pruned_2of4(weight).to(dtype))
        return Work(run=lambda: torch.mm(half, inputs), flop=2.0 * m * n * k * 0.5)
    call, stored, _ = linear(weight.to(dtype), zeros)
    rows = inputs.t()
    kept = (stored - (n + 1) * INDEX_BYTES) / (INDEX_BYTES + 4)
    return Work(
        run=lambda: call(rows),
        flop=2.0 * m * kept,
        moved_bytes=float(stored + (m * k + m * n) * 4),
        facts=lambda: {"weight_bytes": stored},
    )


def linear(weight: Any, zeros: float) -> tuple[Callable[[Any], Any], int, Any]:
    """A product with the pruned weight in CSR: the call on (rows, inputs), the bytes stored, the dtype it takes."""
    import torch

    outputs, inputs = weight.shape
    kept = max(int(weight.numel() * (1.0 - zeros)), 1)
    stored = kept * (4 + INDEX_BYTES) + (outputs + 1) * INDEX_BYTES
    if opaque.tracing():
        return opaque.product("csr", outputs, inputs, stored, density=kept / weight.numel()), stored, torch.float32
    matrix = csr(pruned(weight.float(), zeros))
    return (lambda x: (matrix @ x.t()).t()), stored, torch.float32


FAMILIES = (Kernel("linear-sparse", "products with pruned weights", _cases, _build),)
