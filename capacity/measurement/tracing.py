"""A workload lowered to its library calls, without running it: tensors exist as shapes only.

    trace_case(case, machine, caches)   any kernel or workload of the registry
    trace_module(module, inputs, ...)   any nn.Module, with its backward pass and optimizer if wanted

The same calls are seen that the real run makes, because shapes pass through the real dispatcher.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capacity.measurement import opaque
from capacity.measurement.registry import KERNELS
from capacity.measurement.residency import Caches, Residency
from capacity.record import replace
from capacity.spec.trace import Trace, TracedOp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from capacity.measurement.case import Case, Machine, Work

_NAMES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8",
    torch.float8_e4m3fn: "fp8", torch.int64: "int64", torch.int32: "int32", torch.bool: "bool",
}  # fmt: skip
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_int_mm", "_scaled_mm", "linear", "mkldnn_linear", "_linear_pointwise")
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")
# Written without being read, and operands of which only the rows asked for are read.
_OVERWRITES = ("copy_", "fill_", "zero_")
_LOOK_UPS = ("embedding", "index", "index_select", "gather")
# Look-ups of other rows at each call: where they lie is decided by the size of the whole table.
_BAGS = ("_embedding_bag", "_embedding_bag_forward_only", "_embedding_bag_backward")
_REDUCTIONS = ("sum", "mean", "amax")
_COPIES = ("clone", "copy_", "_to_copy")
_SKIPPED = ("prim", "prims", "profiler")
# Calls on lists of tensors.
_MANY = ("_foreach", "_fused")
# Calls that make a tensor and touch nothing.
_EMPTY = ("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "lift_fresh", "_to_copy_view")
# What a kernel may run through before its caches are in the state of every later run.
MOST_RUNS = 80
STEADY_RUNS = 1


class Tracer(TorchDispatchMode):
    """Writes a row for each call of the library."""

    def __init__(self, residency: Residency) -> None:
        super().__init__()
        self.residency = residency
        self.rows: list[TracedOp] = []
        self.phase = ""
        self._used: dict[str, float] = {}  # traffic when an op was used last
        self._traffic = 0.0
        self._passes = -1  # the backward pass that was seen last

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        backward = torch._C._current_graph_task_id()
        if backward not in (-1, self._passes):
            self._passes = backward
            self.called("backward pass")
        result = function(*args, **kwargs)
        if _sparse(result) and not result._nnz():
            result = _with_rows(result, args)
        space, _, name = function.name().partition("::")
        if space not in _SKIPPED:
            self._add(function, name.split(".", maxsplit=1)[0], args, kwargs, result)
        return result

    def called(self, what: str, which: str = "") -> None:
        """Python entered the library: a module, an optimizer's step, a backward pass, a phase of the workload."""
        self.rows.append(TracedOp(what, "python", "", self.phase, switches=self._cold(f"{what} {which}", 0.0)))

    def _cold(self, name: str, touched: float) -> float:
        """Whether more passed through since an op's last call than the inner caches hold; its own operands do not count."""
        since = self._traffic - self._used.get(name, -1e30)
        self._traffic += touched
        self._used[name] = self._traffic
        return float(since > self.residency.inner_bytes)

    def product(
        self, form: str, x: Any, outputs: int, inputs: int, stored: float, density: float, weight: object
    ) -> Any:
        """A product with a weight that cannot be traced."""
        m = x.numel() // inputs
        known = len(self.rows)
        result = x.new_empty(m, outputs)
        del self.rows[known:]  # the allocation just made
        block = self.residency.held(weight, int(stored))
        touched: dict[int, float] = {block: stored}
        self._touch(touched, (x,))
        self._touch(touched, (result,), made=True)
        use = self.residency.use(touched)
        switches = self._cold(form, sum(touched.values()))
        self.rows.append(
            TracedOp(
                f"linear-{form}", "product", _name(x.dtype), self.phase, m=float(m), n=float(outputs), k=float(inputs),
                flop=2.0 * m * outputs * inputs * density, elements=float(max(x.numel(), result.numel())), switches=switches,
                **_places(use),
            )
        )  # fmt: skip
        return result

    def announced(self, name: str, elements: float) -> None:
        """Work of another runtime: its operands are its own affair."""
        self.rows.append(TracedOp(name, "other", "fp32", self.phase, elements=elements))

    def collective(self, name: str, moved_bytes: float) -> None:
        """A collective among ranks."""
        self.rows.append(TracedOp(name, "collective", "", self.phase, elements=moved_bytes))

    def _touch(self, touched: dict[int, float], tensors: Sequence[Any], *, made: bool = False) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            block = self.residency.block(storage, made=made)
            amount = float(min(tensor.numel() * tensor.element_size(), storage.nbytes()))
            touched[block] = touched.get(block, 0.0) + amount

    def _add(self, function: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        written = _written(function)
        nodes = float(torch.is_grad_enabled() and any(one.requires_grad for one in inputs))
        dtype = _name((outputs or inputs)[0].dtype) if outputs or inputs else ""
        if name.startswith("_scaled_mm"):
            dtype = "fp8"
        elif name == "_int_mm":
            dtype = "int8"
        storages = {one.untyped_storage()._cdata for one in inputs}
        aliases = bool(outputs) and all(one.untyped_storage()._cdata in storages for one in outputs)
        if function.is_view or (aliases and not written) or name in _EMPTY:
            for tensor in outputs:
                self.residency.block(tensor.untyped_storage(), made=name in _EMPTY)
            self.rows.append(TracedOp("view", "view", "", self.phase, nodes=nodes))
            return
        if name in _BAGS or (name == "add_" and _sparse(args[1])):
            self.rows.append(self._bag(name, args, nodes, outputs))
            return
        touched: dict[int, float] = {}
        self._touch(touched, [one for one in outputs if one.untyped_storage()._cdata not in storages], made=True)
        read = inputs
        if name in _LOOK_UPS:
            read = inputs[1:]  # of the table, only the rows that are looked up
            block = self.residency.block(inputs[0].untyped_storage())
            touched[block] = float(sum(one.numel() * one.element_size() for one in outputs))
        self._touch(touched, read)
        if written and name not in _OVERWRITES:
            for tensor in outputs:
                block = self.residency.block(tensor.untyped_storage())
                touched[block] = touched.get(block, 0.0) + float(tensor.numel() * tensor.element_size())
        elements = float(max((one.numel() for one in (*inputs, *outputs)), default=0))
        if name in _LOOK_UPS:
            elements = float(max(one.numel() for one in outputs))
        many, layout = 0.0, ""
        if name.startswith("nll_loss") and "backward" not in name:
            elements = float(inputs[1].numel())  # one number of each row
            touched.clear()
            self._touch(touched, inputs[1:])
        elif name == "embedding_dense_backward":
            many = float(inputs[0].numel())
        elif name in _REDUCTIONS and outputs[0].numel() > 1:
            # Over rows whole vectors are added; over columns each vector is folded.
            layout = "rows" if outputs[0].shape[-1] == inputs[0].shape[-1] else "columns"
        elif name in _COPIES and not all(_dense(one) for one in (*inputs, *outputs)):
            layout = "strided"
        if name.startswith(_MANY):
            first = next(one for one in args if isinstance(one, (list, tuple)))
            elements, many = float(sum(one.numel() for one in first)), float(len(first))
        use = self.residency.use(touched)
        switches = self._cold(name, sum(touched.values()))
        row = TracedOp(
            name,
            _kind(function, name),
            dtype,
            self.phase,
            elements=elements,
            m=many,
            layout=layout,
            nodes=nodes,
            switches=switches,
            **_places(use),
        )
        self.rows.append(_shaped(row, name, args, kwargs, inputs, outputs))

    def _bag(self, name: str, args: Any, nodes: float, outputs: Sequence[Any]) -> TracedOp:
        """A call on rows of a table at random: m rows, n of which lie in memory."""
        touched: dict[int, float] = {}
        layout, table, passes = "", args[0], 1.0
        if name == "add_":
            # Rows of the table are read and written.
            layout, passes, indices, values = "sparse", 2.0, args[1]._indices(), args[1]._values()
            rows, width = float(values.shape[0]), float(values.shape[-1])
            self._touch(touched, (indices, values))
        elif name == "_embedding_bag_backward":
            # A dense gradient is a new table, cleared and then added to at random; a sparse one is written in order.
            gradient, indices = args[0], args[1]
            layout, table, passes = ("sparse", None, 0.0) if len(outputs) > 1 else ("", outputs[0], 2.0)
            rows, width = float(indices.numel()), float(gradient.shape[-1])
            self._touch(touched, outputs, made=True)
            self._touch(touched, (gradient, indices))
        else:
            indices = args[1]
            rows, width = float(indices.numel()), float(table.shape[-1])
            self._touch(touched, (outputs[0],), made=True)
            self._touch(touched, (indices, args[2]))
        far = 0.0
        at_random: dict[int, float] = {}
        if table is not None:
            block = self.residency.block(table.untyped_storage())
            at_random[block] = passes * rows * width * table.element_size()
            far = rows * (1.0 - self.residency.cached_shares(block)[1])
        use = self.residency.use(touched, at_random)
        switches = self._cold(f"{name} {layout}", sum(touched.values()) + sum(at_random.values()))
        return TracedOp(
            name, "bag", _name(outputs[-1 if layout else 0].dtype), self.phase, m=rows, n=far, layout=layout, elements=rows * width, nodes=nodes,
            switches=switches, **_places(use),
        )  # fmt: skip


def _with_rows(result: Any, args: Any) -> Any:
    """A sparse gradient with a row for each look-up, or the copy of one: shapes alone give it none."""
    rows = args[0]._nnz() if _sparse(args[0]) else args[1].numel()
    indices = torch.empty(1, rows, dtype=torch.int64, device=result.device)
    values = torch.empty(rows, result.shape[-1], dtype=result.dtype, device=result.device)
    return torch.sparse_coo_tensor(indices, values, result.shape, check_invariants=False)


def _sparse(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.layout == torch.sparse_coo


def _tensors(nest: Any) -> list[Any]:
    """All tensors in a nest; of a sparse one, its indices and its values."""
    found: list[Any] = []
    for leaf in tree_leaves(nest):
        if _sparse(leaf):
            found += [leaf._indices(), leaf._values()]
        elif isinstance(leaf, torch.Tensor):
            found.append(leaf)
    return found


def _dense(tensor: Any) -> bool:
    return bool(tensor.is_contiguous()) or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _places(use: Any) -> dict[str, Any]:
    return {"near_bytes": use.near_bytes, "far_bytes": use.far_bytes, "fresh_bytes": use.fresh_bytes}


def _name(dtype: Any) -> str:
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


def _written(function: Any) -> bool:
    return any(
        argument.alias_info is not None and argument.alias_info.is_write for argument in function._schema.arguments
    )


def _kind(function: Any, name: str) -> str:
    if name in _PRODUCTS:
        return "product"
    if name.startswith(_ATTENTION):
        return "attention"
    if name.startswith(("convolution", "mkldnn_convolution")):
        return "convolution"
    if "rnn_layer" in name or name.startswith("_cudnn_rnn"):
        return "recurrent"
    if torch.Tag.pointwise in function.tags:
        return "pointwise"
    return "other"


def _shaped(row: TracedOp, name: str, args: Any, kwargs: Any, inputs: list[Any], outputs: list[Any]) -> TracedOp:
    """The row with what its kind needs: shapes and floating-point operations."""
    if row.kind == "product":
        matrices = [one for one in inputs if one.dim() >= 2][-2:]
        if len(matrices) < 2:
            return row
        left, right = matrices
        out = outputs[0]
        k = float(left.shape[-1])
        n = float(out.shape[-1])
        batch = float(out.shape[0]) if out.dim() == 3 and right.dim() == 3 else 1.0
        m = out.numel() / n / batch
        layout = ("t" if left.stride(-1) != 1 and left.shape[-1] > 1 else "n") + ("t" if right.stride(-1) != 1 else "n")
        return replace(row, batch=batch, m=m, n=n, k=k, layout=layout, flop=2.0 * batch * m * n * k)
    if row.kind == "attention":
        backward = "backward" in name
        query, key, value = inputs[1:4] if backward else inputs[:3]
        b, h, q, size = query.shape
        keys = key.shape[-2]
        causal = any(argument is True for argument in args) or bool(kwargs.get("is_causal"))
        flop = 2.0 * b * h * q * keys * (size + value.shape[-1]) * (0.5 if causal and q > 1 else 1.0)
        # Keys of a head lie together in a cache, and between those of other heads as a projection leaves them.
        layout = "cached" if key.stride(-2) == size and not backward else ""
        return replace(
            row, batch=float(b * h), m=float(q), n=float(keys), k=float(size), flop=flop * (2.5 if backward else 1.0), layout=layout
        )  # fmt: skip
    if row.kind == "convolution":
        backward = "backward" in name
        weight = inputs[2] if backward else inputs[1]
        result = inputs[0] if backward else outputs[0]
        passes = 1.0
        if backward:
            mask = next(
                (
                    one
                    for one in reversed(args)
                    if isinstance(one, (list, tuple)) and all(isinstance(x, bool) for x in one)
                ),
                [True, True],
            )
            passes = float(sum(mask[:2]))
        flop = 2.0 * result.numel() * weight[0].numel() * passes
        channels_last = inputs[1 if backward else 0].is_contiguous(memory_format=torch.channels_last)
        return replace(
            row, flop=flop, m=float(result.numel() // result.shape[1]), n=float(weight.shape[0]), k=float(weight[0].numel()),
            layout="last" if channels_last and weight[0].numel() > weight.shape[1] else "first", batch=passes,
        )  # fmt: skip
    if row.kind == "recurrent":
        # Weights of inputs and of the hidden state, of every layer in the call, meet each token once; each of `batch` steps
        # waits for the one before, and reads the state's weights again.
        x = inputs[0]
        given = args[1] if isinstance(args[1], (list, tuple)) else inputs[1:3]
        matrices = [one for one in given if one.dim() == 2]
        weights = float(sum(one.numel() for one in matrices))
        tokens = x.numel() / x.shape[-1]
        steps = float(max(x.shape[0], 1))
        return replace(
            row, flop=2.0 * tokens * weights * (2.0 if "backward" in name else 1.0), batch=steps, m=float(tokens / steps),
            n=float(matrices[0].shape[0]), k=weights / matrices[0].shape[0],
        )  # fmt: skip
    return row


@contextmanager
def _shapes_only(tracer: Tracer) -> Iterator[None]:
    opaque.listen(tracer)
    hooks = (
        torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, *_: tracer.called("module", type(module).__name__)
        ),
        register_optimizer_step_pre_hook(lambda one, *_: tracer.called("optimizer step", type(one).__name__)),
    )
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        opaque.leave()


def trace_case(case: Case, machine: Machine, caches: Caches) -> Trace:
    """The ops of one run of a case in the steady state of its caches; raises whatever torch does where shapes do not suffice.

    Kept for the life of the process: whoever calibrates and validates asks twice.
    """
    key = (case.name, machine, caches)
    if key not in _kept:
        tracer = Tracer(Residency(caches))
        with _shapes_only(tracer):
            work = KERNELS[case.kernel].build(case.parameters, machine)
            _kept[key] = _traced(work, tracer)
    return _kept[key]


_kept: dict[tuple[str, Machine, Caches], Trace] = {}


def trace_module(
    module: Callable[[], Any],
    caches: Caches,
    *,
    loss: Callable[[Any], Any] | None = None,
    optimizer: Callable[[Any], Any] | None = None,
    inputs: Callable[[], tuple[Any, ...]],
    keywords: Callable[[], dict[str, Any]] = dict,
    autocast: Any = None,
) -> Trace:
    """The ops of one step of any network.

    module, inputs, keywords: make it and its inputs by position and by name; they are called with tensors as shapes, so no
    memory is taken. loss: of the result, for a backward pass; optimizer: made of the parameters, for an update. autocast: the
    format the forward pass is cast to.
    """
    from capacity.measurement.case import Work

    tracer = Tracer(Residency(caches))
    with _shapes_only(tracer):
        network, given, named = module(), inputs(), keywords()
        update = optimizer(network.parameters()) if optimizer else None
        device = next((one.device.type for one in network.parameters()), "cpu")
        held: dict[str, Any] = {}

        def forward() -> None:
            with (
                torch.set_grad_enabled(loss is not None),
                torch.autocast(device, autocast, enabled=autocast is not None),
            ):
                held["result"] = network(*given, **named)

        def backward() -> None:
            loss(held.pop("result")).backward()  # type: ignore[misc]

        def step() -> None:
            update.step()  # type: ignore[union-attr]
            update.zero_grad(set_to_none=True)  # type: ignore[union-attr]

        phases: list[tuple[str, Callable[[], object]]] = [("forward", forward)]
        if loss is not None:
            phases.append(("backward", backward))
        if update is not None:
            phases.append(("optimizer", step))
        return _traced(Work(phases=tuple(phases)), tracer)


def _traced(work: Work, tracer: Tracer) -> Trace:
    """Run often enough to fill the caches with what is used again, then keep one more run."""
    phases = work.phases or (("", work.run),)

    def once() -> None:
        for name, run in phases:
            tracer.phase = name
            if name:
                tracer.called("phase", name)
            assert run is not None
            run()

    with tracer:
        # A kernel that turns through cold operands has seen all of them when no run meets new memory any more.
        steady = 0
        for _ in range(MOST_RUNS):
            known = tracer.residency.blocks
            tracer.rows.clear()
            once()
            steady = steady + 1 if tracer.residency.blocks == known else 0
            if steady == STEADY_RUNS:
                break
    names = tuple(dict.fromkeys(name for name, _ in phases))
    return Trace(_grouped(tracer.rows), float(tracer.residency.peak_bytes), names)


def _grouped(rows: Sequence[TracedOp]) -> tuple[TracedOp, ...]:
    """Equal calls as one row with their number."""
    counts: dict[TracedOp, float] = {}
    for row in rows:
        counts[row] = counts.get(row, 0.0) + 1.0
    return tuple(replace(row, calls=count) for row, count in counts.items())
