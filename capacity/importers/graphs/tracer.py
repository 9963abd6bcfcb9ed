"""Watches a module run on `meta` and writes a row for each call of the library; see `module`."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from math import prod

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capacity.importers.graphs.aten import FREE, moving_op, ops_of, product_op, recurrent_op
from capacity.record import replace
from capacity.spec.graph import BACKWARD, FORWARD, Graph
from capacity.spec.op import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

# Gates of each recurrent cell torch knows.
_CELLS = {"lstm": ("lstm", 4.0), "gru": ("gru", 3.0), "rnn_tanh": ("rnn", 1.0), "rnn_relu": ("rnn", 1.0)}
# Constructors of tensors small enough to hold, that code reads numbers from.
_READ = ("linspace", "arange", "tensor", "as_tensor", "logspace", "from_numpy")
LARGEST_READ = 2**22
# Written whole without being read.
_OVERWRITES = ("fill_", "zero_", "normal_", "uniform_", "bernoulli_", "zeros", "ones", "full")


class LargeOnMeta(TorchFunctionMode):
    """Tensors are made on meta, but for the small ones whose numbers a constructor may read."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if (
            name in ("empty", "zeros", "ones", "rand", "randn", "full", "empty_strided")
            and kwargs.get("device") is None
        ):
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


class _Watch(TorchFunctionMode):
    """Calls that a device runs as one kernel and meta would take apart: fused attention and recurrent layers."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._tracer.attention(*args, **kwargs)
        if name.removesuffix("_cell") in _CELLS and not name.startswith("_"):
            if name.endswith("_cell"):
                return self._tracer.cell(name.removesuffix("_cell"), *args, **kwargs)
            return self._tracer.recurrent(name, *args, **kwargs)
        return function(*args, **kwargs)


class Tracer(TorchDispatchMode):
    """The rows of one pass, the most memory alive, and what autograd kept."""

    def __init__(self, network: Any, inputs: Sequence[Any]) -> None:
        super().__init__()
        self.rows: dict[Op, float] = {}
        self.phase = FORWARD
        self.unknown: dict[str, float] = {}
        self.calls = 0.0
        self._network = network
        self._inputs = inputs
        self._own = {one.untyped_storage()._cdata for one in (*network.parameters(), *network.buffers())}
        self._alive: dict[int, tuple[Any, float]] = {}
        self._now = self._peak = 0.0
        self._saved: dict[int, tuple[Any, float, bool]] = {}
        for tensor in inputs:
            self._hold(tensor)

    def run(self, forward: Callable[[], Any], *, train: bool) -> None:
        """The pass; with its gradients where it is to train."""
        hook = torch.nn.modules.module.register_module_forward_pre_hook(self._called)
        try:
            with (
                torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept),
                torch.set_grad_enabled(train),
                self,
                _Watch(self),
            ):
                result = forward()
            if not train:
                return
            outputs = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor) and one.requires_grad]
            if not outputs:
                raise RuntimeError("no output needs a gradient, so there is nothing to train")
            seeds = [torch.empty_like(one) for one in outputs]
            self.phase = BACKWARD
            with self:
                torch.autograd.backward(outputs, seeds)
        finally:
            hook.remove()

    def graph(self, name: str, source: str, specs: Sequence[Any]) -> Graph:
        """What was seen."""
        parameters = list(self._network.parameters())
        trained = [one for one in parameters if one.requires_grad]
        floats = sum(size for _, size, floating in self._saved.values() if floating)
        return Graph(
            name=name,
            source=source,
            batch=float(specs[0].shape[0]),
            inputs=tuple(str(spec) for spec in specs),
            ops=tuple(replace(op, count=op.count * count) for op, count in self.rows.items()),
            parameters=float(sum(one.numel() for one in parameters)),
            trained=float(sum(one.numel() for one in trained)),
            tensors=float(len(trained)),
            buffer_bytes=float(sum(one.numel() * one.element_size() for one in self._network.buffers())),
            saved_elements=float(floats),
            saved_bytes=float(sum(size for _, size, floating in self._saved.values() if not floating)),
            peak_elements=self._peak,
            unknown=dict(self.unknown),
            calls=self.calls,
        )

    def add(self, op: Op) -> None:
        """Another call; equal ones are counted."""
        self.rows[op] = self.rows.get(op, 0.0) + 1.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        space, _, name = function.name().partition("::")
        if space in ("prim", "prims", "profiler"):
            return result
        name = name.split(".", maxsplit=1)[0]
        outputs = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        for tensor in outputs:
            self._hold(tensor)
        if function.is_view or name in FREE or not outputs:
            return result
        rows = ops_of(name, args, inputs, outputs, self.phase)
        if not rows:
            storages = {one.untyped_storage()._cdata for one in inputs}
            written = any(
                argument.alias_info is not None and argument.alias_info.is_write
                for argument in function._schema.arguments
            )
            if not written and all(one.untyped_storage()._cdata in storages for one in outputs):
                return result  # another view
            read = inputs[-1:] if name == "copy_" else [] if name in _OVERWRITES else inputs
            moved = self.moved([*read, *outputs])
            rows = [moving_op(name, moved, self.phase, pointwise=torch.Tag.pointwise in function.tags)]
            if space != "aten" or name.startswith(("_fft", "linalg_", "_linalg")):
                self.unknown[f"{space}::{name}" if space != "aten" else name] = self.unknown.get(name, 0.0) + moved
        for row in rows:
            self.add(row)
        return result

    @staticmethod
    def moved(tensors: Sequence[Any]) -> float:
        """Numbers read and written."""
        return float(sum(one.numel() for one in tensors))

    def attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        _dropout: float = 0.0,
        is_causal: bool = False,
        **_: Any,
    ) -> Any:
        """Fused attention of (..., heads, positions, size): one row, and the same backward."""
        sequences = prod(query.shape[:-3]) if query.dim() > 3 else 1
        heads, queries, size = (query.shape[-3] if query.dim() > 2 else 1), query.shape[-2], query.shape[-1]
        kv_heads = key.shape[-3] if key.dim() > 2 else 1
        masked = float(attn_mask.numel()) if attn_mask is not None else 0.0
        op = Op(
            "attention", "attention", "attention", 1.0, m=float(sequences * queries), sequences=float(sequences),
            queries=float(queries), keys=float(key.shape[-2]), heads=float(heads), kv_heads=float(kv_heads), key_size=float(size),
            value_size=float(value.shape[-1]), causal=bool(is_causal),
            elements=float(query.numel() + key.numel() + value.numel() + sequences * heads * queries * value.shape[-1]) + masked,
        )  # fmt: skip
        return _Kernel.apply(self, (op,), ((*query.shape[:-1], value.shape[-1]),), 0, query, key, value, attn_mask)

    def recurrent(self, name: str, data: Any, *args: Any, **_: Any) -> Any:
        """Layers of a recurrent network over whole sequences, as cuDNN runs them."""
        form, gates = _CELLS[name]
        packed = isinstance(args[0], torch.Tensor) and args[0].dtype == torch.int64 and args[0].dim() == 1
        if packed:
            sizes, state, weights, _, layers, _, _, both = (args + (False,) * 8)[:8]
            steps, first = sizes.numel(), False
            tokens = data.shape[0]
            sequences = tokens / steps
        else:
            state, weights, _, layers, _, _, both, first = args[:8]
            steps, sequences = (data.shape[1], data.shape[0]) if first else (data.shape[0], data.shape[1])
            if data.dim() == 2:
                steps, sequences = data.shape[0], 1
        hidden = (state[0] if isinstance(state, (list, tuple)) else state).shape[-1]
        ways = 2 if both else 1
        # With a projection the state is narrower than the cell.
        cell = weights[0].shape[0] / gates
        rows, width = [], float(data.shape[-1])
        for _layer in range(int(layers)):
            row = recurrent_op(form, float(sequences), float(steps), width, float(cell), gates, ways, FORWARD)
            rows.append(replace(row, k=width + hidden))
            if hidden != cell:
                rows.append(
                    replace(product_op("projection", 1.0, sequences * steps, hidden, cell, FORWARD), count=float(ways))
                )
            width = float(hidden * ways)
        out = (*data.shape[:-1], hidden * ways)
        states = [tuple(one.shape) for one in (state if isinstance(state, (list, tuple)) else (state,))]
        reserve = int(sequences * steps * cell * (gates + 1.0) * layers * ways)
        tensors = (data, *(state if isinstance(state, (list, tuple)) else (state,)), *weights)
        return _Kernel.apply(self, tuple(rows), (out, *states), reserve, *tensors)

    def cell(self, name: str, data: Any, state: Any, *weights: Any) -> Any:
        """One step of a recurrent cell."""
        form, gates = _CELLS[name]
        states = state if isinstance(state, (list, tuple)) else (state,)
        batch, hidden = states[0].shape
        row = recurrent_op(form, float(batch), 1.0, float(data.shape[-1]), float(hidden), gates, 1.0, FORWARD)
        shapes = tuple(tuple(one.shape) for one in states)
        return _Kernel.apply(self, (row,), shapes, int(batch * hidden * gates), data, *states, *weights)

    def _called(self, *_: Any) -> None:
        self.calls += self.phase == FORWARD

    def _pack(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            size = storage.nbytes()
            floating = tensor.is_floating_point()
            self._saved[storage._cdata] = (tensor, size / tensor.element_size() if floating else float(size), floating)
        return tensor

    def _hold(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._alive.get(key)
        if key in self._own or (known is not None and not known[0].expired()):
            return
        # As wide as activations are: other formats count by their bytes in fp32's.
        size = storage.nbytes() / (tensor.element_size() if tensor.is_floating_point() else 4)
        if known is not None:
            self._now -= known[1]
        self._alive[key] = (StorageWeakRef(storage), size)
        self._now += size
        if self._now > self._peak:
            for other, (life, held) in list(self._alive.items()):
                if life.expired():
                    self._now -= held
                    del self._alive[other]
            self._peak = max(self._peak, self._now)


class _Kernel(torch.autograd.Function):
    """Stands for a fused kernel: results of the right shapes, its rows forward and backward."""

    @staticmethod
    def forward(ctx: Any, tracer: Tracer, rows: tuple[Op, ...], shapes: Any, reserve: int, *tensors: Any) -> Any:
        given = [one for one in tensors if isinstance(one, torch.Tensor)]
        for row in rows:
            tracer.add(replace(row, phase=tracer.phase))
        results = tuple(given[0].new_empty(shape) for shape in shapes)
        kept = given[0].new_empty((reserve,)) if reserve else None
        ctx.tracer, ctx.rows = tracer, rows
        ctx.like = [(one.shape, one.dtype) if isinstance(one, torch.Tensor) else None for one in tensors]
        ctx.save_for_backward(*given, *results[:1], *([kept] if kept is not None else []))
        return results[0] if len(results) == 1 else results

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        for row in ctx.rows:
            # A projection's product goes back once for its input and once for its weight.
            ctx.tracer.add(replace(row, phase=BACKWARD, count=row.count * (2.0 if row.kind == "gemm" else 1.0)))
        grads = [
            torch.empty(like[0], dtype=like[1], device="meta") if wanted and like is not None else None
            for like, wanted in zip(ctx.like, ctx.needs_input_grad[4:], strict=True)
        ]
        return None, None, None, None, *grads


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of the user's libraries, and with transformers' masks made as while it is compiled."""
    import sys

    masks = sys.modules.get("transformers.masking_utils")
    real = getattr(masks, "is_tracing", None)
    if masks is not None and real is not None:
        masks.is_tracing = lambda *_: True  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if masks is not None and real is not None:
            masks.is_tracing = real  # type: ignore[attr-defined]
