"""Calls of torch's library as rows of the op table: what each multiplies and what it moves."""

from __future__ import annotations

from math import prod

from capacity.spec.op import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Calls that move nothing: a new view, or memory nobody has written to.
FREE = frozenset((
    "alias", "detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view",
    "set_", "resize_", "_reshape_alias", "is_same_size", "sym_size", "sym_numel", "sym_stride", "_local_scalar_dense",
))  # fmt: skip
# Element-wise and memory-bound work by what it is, in the order in which names are looked at.
_FORMS = (
    ("batch norm", ("batch_norm",)),
    ("layer norm", ("layer_norm", "group_norm", "instance_norm", "rms_norm", "linalg_vector_norm", "_weight_norm")),
    ("softmax", ("softmax",)),
    ("pool", ("pool",)),
    ("resample", ("upsample", "grid_sampler", "affine_grid", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle")),
    ("gather", (
        "index", "gather", "scatter", "embedding", "masked_fill", "take", "topk", "sort", "where", "nonzero", "cumsum", "unique",
        "bucketize", "searchsorted",
    )),
    ("copy", (
        "clone", "copy", "cat", "stack", "_to_copy", "constant_pad", "reflection_pad", "replication_pad", "roll", "flip",
        "slice", "select", "repeat", "im2col", "col2im", "as_strided", "unfold", "split", "triu", "tril", "diagonal", "fill",
    )),
    ("reduce", ("sum", "mean", "amax", "amin", "max", "min", "var", "std", "prod", "any", "all", "argmax", "argmin", "logsumexp")),
)  # fmt: skip


def conv_op(
    image: tuple[int, ...],
    weight: tuple[int, ...],
    result: tuple[int, ...],
    groups: int,
    *,
    transposed: bool,
    form: str = "",
    phase: str = "forward",
) -> Op:
    """A convolution, or the gradient of one, of shapes (batch, channels, space...) and (out, in of a group, taps...)."""
    taps = float(prod(weight[2:]))
    if transposed:
        # Each position in makes channels out of a group times taps.
        positions, out, depth = image[0] * prod(image[2:]), weight[1] * groups * taps, weight[0] / groups
    else:
        positions, out, depth = result[0] * prod(result[2:]), float(weight[0]), weight[1] * taps
    return Op(
        f"conv {'x'.join(str(size) for size in weight[2:]) or '1'}",
        "convolution",
        "conv",
        1.0,
        m=float(positions),
        n=float(out),
        k=float(depth),
        groups=float(groups),
        taps=taps,
        form=form or ("transposed" if transposed else "conv"),
        elements=float(prod(image) + prod(result)),
        phase=phase,
    )


def product_op(name: str, batch: float, m: float, n: float, k: float, phase: str) -> Op:
    """`batch` products of m x k by k x n."""
    return Op(
        name, "product", "gemm", 1.0, m=float(batch * m), n=float(n), k=float(k), copies=float(batch),
        elements=float(batch * (m * k + k * n + m * n)), phase=phase,
    )  # fmt: skip


def moving_op(name: str, elements: float, phase: str, *, pointwise: bool = False) -> Op:
    """An op that only moves numbers: `elements` read and written."""
    form = "pointwise" if pointwise else form_of(name)
    return Op(name, form, "elementwise", 1.0, elements=float(elements), form=form, phase=phase)


def form_of(name: str) -> str:
    """What kind of moving a call of this name is."""
    for form, parts in _FORMS:
        if any(part in name for part in parts):
            return form
    return "pointwise"


def recurrent_op(
    form: str, sequences: float, steps: float, width: float, hidden: float, gates: float, count: float, phase: str
) -> Op:
    """Layers of a recurrent cell: `gates` products of inputs and state with hidden columns, step after step."""
    tokens = sequences * steps
    return Op(
        f"{form} {hidden:g}", "recurrent", "recurrent", float(count), m=float(tokens), n=float(gates * hidden),
        k=float(width + hidden), sequences=float(sequences), queries=float(steps), key_size=float(width), value_size=float(hidden),
        form=form, elements=float(tokens * (width + hidden * (2.0 * gates + 2.0))), phase=phase,
    )  # fmt: skip


def ops_of(name: str, args: tuple[Any, ...], inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    """The rows of one call. inputs, outputs: its tensors (anything with a shape)."""
    lowered = _LOWERINGS.get(name)
    if lowered is not None:
        rows: list[Op] = lowered(name, args, inputs, outputs, phase)
        return rows
    return []


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape)


def _matrices(name: str, _: Any, inputs: list[Any], __: list[Any], phase: str) -> list[Op]:
    left, right = [one for one in inputs if len(one.shape) >= 1][-2:]
    a, b = _shape(left), _shape(right)
    if len(a) == 1:
        return [product_op(name, 1.0, 1.0, 1.0 if len(b) == 1 else b[-1], a[-1], phase)]
    if len(a) == 3 and len(b) == 3:
        return [product_op(name, a[0], a[1], b[2], a[2], phase)]
    n = 1.0 if len(b) == 1 else b[-1]
    return [product_op(name, 1.0, prod(a[:-1]), n, a[-1], phase)]


def _linear(name: str, _: Any, inputs: list[Any], __: list[Any], phase: str) -> list[Op]:
    a, b = _shape(inputs[0]), _shape(inputs[1])
    return [product_op(name, 1.0, prod(a[:-1]), b[0], a[-1], phase)]


def _convolution(_: str, args: Any, inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    image, weight, transposed, groups = inputs[0], inputs[1], bool(args[6]), int(args[8])
    return [conv_op(_shape(image), _shape(weight), _shape(outputs[0]), groups, transposed=transposed, phase=phase)]


def _convolution_backward(_: str, args: Any, inputs: list[Any], __: list[Any], phase: str) -> list[Op]:
    result, image, weight = _shape(inputs[0]), _shape(inputs[1]), _shape(inputs[2])
    transposed, groups, mask = bool(args[7]), int(args[9]), args[10]
    forms = ("input gradient", "weight gradient")
    return [
        conv_op(image, weight, result, groups, transposed=transposed, form=form, phase=phase)
        for form, wanted in zip(forms, mask[:2], strict=True)
        if wanted
    ]


def _look_up(name: str, _: Any, inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    rows, width = float(prod(inputs[1].shape)), float(outputs[0].shape[-1])
    return [
        Op(
            name,
            "embedding",
            "embedding",
            1.0,
            m=rows,
            n=width,
            elements=2.0 * rows * width,
            form="look-up",
            phase=phase,
        )
    ]


def _look_up_backward(name: str, _: Any, inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    rows, width = float(prod(inputs[1].shape)), float(outputs[0].shape[-1])
    # The gradient of the whole table is written, whatever was looked up.
    elements = 2.0 * rows * width + float(prod(outputs[0].shape))
    return [Op(name, "embedding", "embedding", 1.0, m=rows, n=width, elements=elements, form="look-up", phase=phase)]


def _bag(name: str, _: Any, inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    rows, width = float(prod(inputs[1].shape)), float(outputs[0].shape[-1])
    elements = rows * width + float(prod(outputs[0].shape))
    return [Op(name, "embedding", "embedding", 1.0, m=rows, n=width, elements=elements, form="bag", phase=phase)]


def _bag_backward(name: str, _: Any, inputs: list[Any], outputs: list[Any], phase: str) -> list[Op]:
    rows, width = float(prod(inputs[1].shape)), float(inputs[0].shape[-1])
    elements = 2.0 * rows * width + float(prod(outputs[0].shape)) if outputs else 2.0 * rows * width
    return [Op(name, "embedding", "embedding", 1.0, m=rows, n=width, elements=elements, form="bag", phase=phase)]


_LOWERINGS: dict[str, Any] = {
    **dict.fromkeys(
        ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot", "_int_mm", "_scaled_mm", "addbmm"), _matrices
    ),
    "linear": _linear,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "embedding": _look_up,
    "embedding_dense_backward": _look_up_backward,
    "_embedding_bag": _bag,
    "_embedding_bag_forward_only": _bag,
    "_embedding_bag_dense_backward": _bag_backward,
    "_embedding_bag_backward": _bag_backward,
}
