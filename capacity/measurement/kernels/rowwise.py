"""Everything between the products: element-wise ops, norms, softmax, losses, look-ups, reductions, pooling, layout changes.

Each is one call of the library on (rows, columns), as models make it: the result is a new tensor.
"""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.kernels.operands import dtype_of, rotated, tensor_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

    # Operands for (rows, columns, dtype, device), and the call on them.
    Maker = Callable[[int, int, Any, str], tuple[Any, ...]]

VOCABULARY = 8192


def _one(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    return (torch.randn(rows, columns, device=device).to(dtype),)


def _positive(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    (x,) = _one(rows, columns, dtype, device)
    return (x.abs(),)


def _two(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    return _one(rows, columns, dtype, device) + _one(rows, columns, dtype, device)


def _norm(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    weight = torch.ones(columns, device=device, dtype=dtype)
    return (*_one(rows, columns, dtype, device), weight, torch.zeros_like(weight))


def _scaled(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    return _norm(rows, columns, dtype, device)[:2]


def _norm_backward(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    x, weight, bias = _norm(rows, columns, dtype, device)
    _, mean, scale = torch.ops.aten.native_layer_norm(x, [columns], weight, bias, 1e-5)
    return x, torch.ones_like(x), mean, scale, weight, bias


def _images(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    """Rows are images times channels of 64, columns a square of pixels."""
    import torch

    side = int(columns**0.5)
    return (torch.randn(max(rows // 64, 1), 64, side, side, device=device).to(dtype),)


def _batch_norm(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    weight = torch.ones(64, device=device)
    return (*_images(rows, columns, dtype, device), weight, torch.zeros(64, device=device))


def _batch_norm_backward(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    x, weight, bias = _batch_norm(rows, columns, dtype, device)
    _, mean, scale = torch.ops.aten.native_batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)
    return torch.ones_like(x), x, weight, mean, scale


def _pooled(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    (x,) = _images(rows, columns, dtype, device)
    out, indices = torch.ops.aten.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])
    return torch.ones_like(out), x, indices


def _tokens(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    table = torch.randn(VOCABULARY, columns, device=device).to(dtype)
    return table, torch.randint(0, VOCABULARY, (rows,), device=device)


def _token_gradients(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    return (*_one(rows, columns, dtype, device), torch.randint(0, VOCABULARY, (rows,), device=device))


def _labels(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    return (*_one(rows, columns, dtype, device), torch.randint(0, columns, (rows,), device=device))


def _heads(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    size = min(64, columns)
    return (torch.randn(1, rows, columns // size, size, device=device).to(dtype).transpose(1, 2),)


def _chosen_rows(rows: int, columns: int, dtype: Any, device: str) -> tuple[Any, ...]:
    import torch

    return (
        *_one(rows, columns, dtype, device),
        torch.randperm(rows, device=device),
        *_one(rows, columns, dtype, device),
    )


def _calls() -> dict[str, tuple[Callable[..., Any], Maker]]:
    """Each op's call and what makes its operands."""
    import torch

    aten = torch.ops.aten
    other = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}
    return {
        "add": (torch.add, _two),
        "add_": (lambda x, y: x.add_(y), _two),
        "mul": (torch.mul, _two),
        "mul_scalar": (lambda x: x * 0.5, _one),
        "gelu": (torch.nn.functional.gelu, _one),
        "gelu_backward": (aten.gelu_backward, _two),
        "silu": (torch.nn.functional.silu, _one),
        "silu_backward": (aten.silu_backward, _two),
        "relu": (torch.relu, _one),
        "threshold_backward": (lambda g, x: aten.threshold_backward(g, x, 0.0), _two),
        "sigmoid": (torch.sigmoid, _one),
        "tanh": (torch.tanh, _one),
        "exp": (torch.exp, _one),
        "sqrt": (torch.sqrt, _positive),
        "pow2": (lambda x: x.pow(2), _one),
        "addcmul_": (lambda x, y: x.mul_(0.9).addcmul_(y, y, value=0.1), _two),
        "convert": (lambda x: x.to(other.get(x.dtype, torch.float32)), _one),
        "copy_": (lambda x, y: x.copy_(y), _two),
        "transpose_copy": (lambda x: x.contiguous(), _heads),
        "fill": (torch.zeros_like, _one),
        "cat": (lambda x, y: torch.cat((x, y), 1), _two),
        "sum": (torch.sum, _one),
        "sum_rows": (lambda x: x.sum(0), _one),
        "mean_columns": (lambda x: x.mean(-1), _one),
        "softmax": (lambda x: torch.softmax(x, -1), _one),
        "softmax_backward": (lambda g, y: aten._softmax_backward_data(g, y, -1, y.dtype), _two),
        "log_softmax": (lambda x: torch.log_softmax(x, -1), _one),
        "log_softmax_backward": (lambda g, y: aten._log_softmax_backward_data(g, y, -1, y.dtype), _two),
        "nll_loss": (torch.nn.functional.nll_loss, _labels),
        "cross_entropy": (torch.nn.functional.cross_entropy, _labels),
        "layer_norm": (lambda x, w, b: torch.nn.functional.layer_norm(x, (x.shape[-1],), w, b), _norm),
        "layer_norm_backward": (
            lambda x, g, m, s, w, b: aten.native_layer_norm_backward(
                g, x, [x.shape[-1]], m, s, w, b, [True, True, True]
            ),
            _norm_backward,
        ),
        "rms_norm": (lambda x, w: torch.nn.functional.rms_norm(x, (x.shape[-1],), w), _scaled),
        "batch_norm": (
            lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, training=True),
            _batch_norm,
        ),
        "batch_norm_backward": (
            lambda g, x, w, m, s: aten.native_batch_norm_backward(
                g, x, w, None, None, m, s, True, 1e-5, [True, True, True]
            ),
            _batch_norm_backward,
        ),
        "max_pool": (lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1), _images),
        "max_pool_backward": (
            lambda g, x, i: aten.max_pool2d_with_indices_backward(g, x, [3, 3], [2, 2], [1, 1], [1, 1], False, i),
            _pooled,
        ),
        "mean_pixels": (lambda x: x.mean((2, 3)), _images),
        "embedding": (lambda table, t: torch.nn.functional.embedding(t, table), _tokens),
        "embedding_backward": (
            lambda g, t: aten.embedding_dense_backward(g, t, VOCABULARY, -1, False),
            _token_gradients,
        ),
        "index_rows": (lambda x, i: x[i], lambda *shape: _chosen_rows(*shape)[:2]),
        "index_add": (lambda x, i, y: y.index_add(0, i, x), _chosen_rows),
        "top_2": (lambda x: torch.topk(x, 2, -1), _one),
        "bce": (lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y.sigmoid_()), _two),
    }


# Ops measured in each precision.
_NAMES = {
    "fp32": (
        "add", "add_", "mul", "mul_scalar", "gelu", "gelu_backward", "silu", "silu_backward", "relu", "threshold_backward",
        "sigmoid", "tanh", "exp", "sqrt", "pow2", "addcmul_", "convert", "copy_", "transpose_copy", "fill", "cat", "sum", "sum_rows",
        "mean_columns", "softmax", "softmax_backward", "log_softmax", "log_softmax_backward", "nll_loss", "layer_norm",
        "layer_norm_backward", "rms_norm", "batch_norm", "batch_norm_backward", "max_pool", "max_pool_backward", "mean_pixels",
        "embedding", "embedding_backward", "index_rows", "index_add", "top_2", "bce",
    ),
    "bf16": (
        "add", "add_", "mul", "mul_scalar", "gelu", "gelu_backward", "silu", "silu_backward", "relu", "threshold_backward",
        "convert", "transpose_copy", "copy_", "fill", "sum", "sum_rows", "softmax", "log_softmax", "log_softmax_backward", "layer_norm",
        "layer_norm_backward", "rms_norm", "batch_norm", "batch_norm_backward", "max_pool", "max_pool_backward", "embedding",
        "embedding_backward", "index_rows", "index_add", "cat",
    ),
}  # fmt: skip
# (rows, columns) from a call that computes nothing to results out of all caches.
_SIZES = ((4, 64), (64, 256), (512, 576), (2048, 2304))
# Results so large that the system gives fresh pages for them.
_FRESH = (2048, 9216)
_FRESH_NAMES = ("add", "gelu", "mul", "softmax", "log_softmax", "convert", "log_softmax_backward")
_QUICK_NAMES = ("add", "gelu", "softmax", "layer_norm", "embedding", "cross_entropy")


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    scale = 1 if machine.device == "cpu" else 8
    if profile != FULL:
        for name in _QUICK_NAMES:
            yield {"op": name, "dtype": "fp32", "rows": 1024 * scale, "columns": 1024, "cold": False}
        return
    for dtype, names in _NAMES.items():
        for name in (*names, "cross_entropy") if dtype == "fp32" else names:
            for rows, columns in (*_SIZES, _FRESH) if name in _FRESH_NAMES else _SIZES:
                yield {"op": name, "dtype": dtype, "rows": rows * scale, "columns": columns, "cold": False}
            yield {"op": name, "dtype": dtype, "rows": 1024 * scale, "columns": 1024, "cold": True}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    import torch

    call, maker = _calls()[parameters["op"]]
    rows, columns, dtype = parameters["rows"], parameters["columns"], dtype_of(parameters["dtype"])
    with torch.no_grad():
        run, operands = rotated(
            call, lambda: maker(rows, columns, dtype, machine.device), machine, cold=parameters["cold"]
        )
        moved = tensor_bytes(operands) + tensor_bytes(call(*operands))

    def quiet() -> None:
        with torch.no_grad():
            run()

    return Work(run=quiet if parameters["op"] == "bce" else run, moved_bytes=float(moved))


FAMILIES = (
    Kernel("rowwise", "element-wise ops, norms, softmax, losses, look-ups, reductions", _cases, _build, effort=0.5),
)
