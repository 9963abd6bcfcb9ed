"""An ONNX file as a graph: shapes inferred, every node lowered to the op table. Weights' data is never read.

The road for TensorFlow, Keras, MXNet, JAX and scikit-learn: each has an exporter (docs/importing.md).
"""

from __future__ import annotations

import os
from math import prod

from capacity.errors import FileFormatError, InputError
from capacity.importers.graphs.aten import conv_op, moving_op, product_op, recurrent_op
from capacity.record import replace
from capacity.spec.graph import BACKWARD, FORWARD, Graph
from capacity.spec.op import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# ONNX allows 2 GiB in one file; what is larger keeps its weights beside.
MOST_BYTES = 2**31
_FORMATS = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    16: 2,
    17: 1,
    18: 1,
    19: 1,
    20: 1,
    21: 0.5,
    22: 0.5,
    23: 0.5,
}
_FLOATS = (1, 10, 11, 16, 17, 18, 19, 20, 23)
# What is computed of shapes is worked out in so many rounds, while it is so small.
MOST_FOLDS, MOST_FOLDED = 12, 4096
_INDICES = (6, 7, 9)
_FOLDABLE = frozenset((
    "Gather", "Concat", "Slice", "Unsqueeze", "Squeeze", "Reshape", "Cast", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Min", "Max", "Floor", "Ceil",
    "Equal", "Where", "ConstantOfShape", "Expand", "Range", "ReduceProd", "ReduceSum", "Identity", "Less", "Greater", "Not", "Split", "Transpose", "Sqrt",
))  # fmt: skip
# Nodes that move nothing, or make a shape.
_FREE = frozenset(
    (
        "Shape",
        "Size",
        "Constant",
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "ConstantOfShape",
        "Range",
        "Dropout",
    )
)
_RECURRENT = {"LSTM": ("lstm", 4.0), "GRU": ("gru", 3.0), "RNN": ("rnn", 1.0)}
_FORMS = {
    "batch norm": ("BatchNormalization",),
    "layer norm": ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "LpNormalization", "SimplifiedLayerNormalization", "LRN"),
    "softmax": ("Softmax", "LogSoftmax", "Hardmax"),
    "pool": ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxRoiPool"),
    "resample": ("Resize", "Upsample", "GridSample", "DepthToSpace", "SpaceToDepth"),
    "gather": ("GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "TopK", "NonZero", "OneHot", "Where", "Compress", "CumSum"),
    "copy": ("Transpose", "Concat", "Slice", "Split", "Pad", "Expand", "Tile", "Cast", "CastLike", "ReverseSequence", "Trilu", "Col2Im"),
    "reduce": ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp", "ArgMax", "ArgMin", "MeanVarianceNormalization"),
}  # fmt: skip
_POINTWISE = frozenset((
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu",
    "Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Tanh", "Erf", "Clip", "Floor", "Ceil", "Round", "Sin", "Cos", "Softplus", "Softsign", "Min", "Max",
    "Mean", "Sum", "And", "Or", "Not", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "Sign", "IsNaN", "IsInf", "Swish",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ThresholdedRelu", "Atan", "Asin", "Acos", "Tan", "Sinh", "Cosh", "Shrink",
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "EyeLike", "BitShift", "Scaler", "Normalizer", "LabelEncoder",
))  # fmt: skip
_FORM_OF = {name: form for form, names in _FORMS.items() for name in names}


def read_onnx(path: str, sizes: dict[str, int], *, train: bool) -> Graph:
    """The graph of an ONNX file with dynamic axes of these sizes. train: with the backward pass its ops would have.

    Raises FileFormatError for what is no ONNX file, InputError where an axis has no size.
    """
    model = _loaded(str(path))
    _sized(model, sizes, str(path))
    # What is folded later is no weight.
    weights = {one.name for one in model.graph.initializer if one.dims}
    model = _inferred(model, str(path))
    reading = _Reading(model, weights, str(path))
    for node in model.graph.node:
        reading.add(node)
    return reading.graph(train=train)


def _loaded(path: str) -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError('--onnx needs onnx: pip install "model-capacity[onnx]"') from None
    try:
        size = os.path.getsize(path)
        model = onnx.load(path, load_external_data=False) if size <= MOST_BYTES else None
    except OSError as error:
        raise FileFormatError(f"{path[:200]}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # noqa: BLE001 - the parser raises its own kinds
        raise FileFormatError(f"{path[:200]}: is no ONNX file ({' '.join(str(error).split())[:100]})") from None
    if model is None:
        raise FileFormatError(
            f"{path[:200]}: {size} bytes are more than an ONNX file may have; keep its weights beside it (external data)"
        )
    if not model.graph.node:
        raise FileFormatError(f"{path[:200]}: holds no graph: is it an ONNX file?")
    return model


def _sized(model: Any, sizes: dict[str, int], path: str) -> None:
    """Every dynamic axis of the inputs gets its size."""
    weights = {one.name for one in model.graph.initializer}
    asked: dict[str, None] = {}
    axes: set[str] = set()
    for given in model.graph.input:
        if given.name in weights:
            continue
        for at, side in enumerate(given.type.tensor_type.shape.dim):
            if side.HasField("dim_value") and side.dim_value > 0:
                continue
            # An axis without a name goes by that of its input and its place.
            name = side.dim_param or f"{given.name}.{at}"
            axes.add(name)
            size = sizes.get(name)
            if size is None:
                asked[name] = None
                continue
            side.dim_value = size
    if asked:
        names = list(asked)
        raise InputError(
            f"{path[:120]}: say how long its dynamic axes are: {' '.join(f'--dim {name}=N' for name in names[:6])[:200]}"
        )
    unused = sorted(set(sizes) - axes)
    if unused:
        raise InputError(f"--dim {unused[0][:40]!r}: {path[:120]} has no dynamic axis of that name")


def _inferred(model: Any, path: str) -> Any:
    """All shapes that follow from those of the inputs."""
    # Shapes of intermediate values that an exporter wrote for another batch would be believed: they are left out.
    del model.graph.value_info[:]
    for given in model.graph.output:
        given.type.tensor_type.ClearField("shape")
    from onnx import shape_inference

    try:
        for _ in range(MOST_FOLDS):
            model = shape_inference.infer_shapes(model, data_prop=True)
            if not _folded(model):
                break
    except Exception as error:  # noqa: BLE001 - onnx's own kinds
        raise FileFormatError(
            f"{path[:200]}: its shapes cannot be inferred ({' '.join(str(error).split())[:120]})"
        ) from None
    return model


def _folded(model: Any) -> bool:
    """Work out what a model computes of its own shapes, so that shapes made of these become known; whether there was any."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    shapes = {one.name: shape for one in (*graph.input, *graph.value_info) if (shape := _shape_of(one)) is not None}
    shapes |= {one.name: tuple(one.dims) for one in graph.initializer}
    known = {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if prod(one.dims) <= MOST_FOLDED and one.data_location == 0 and one.data_type in _INDICES
    }
    left, found = [], False
    for node in graph.node:
        value = None
        if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
            value = numpy_helper.to_array(
                helper.make_tensor("", 7, [len(shapes[node.input[0]])], shapes[node.input[0]])
            )
        elif node.op_type == "Constant" or (
            node.op_type in _FOLDABLE and all(name in known for name in node.input if name)
        ):
            made: Any = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input if name})
            value = made[0] if len(made) == 1 and made[0].size <= MOST_FOLDED else None
        if value is None:
            left.append(node)
            continue
        found = found or node.op_type != "Constant"
        known[node.output[0]] = value
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(left)
    return found


def _shape_of(value: Any) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(side.HasField("dim_value") for side in kind.shape.dim):
        return None
    return tuple(side.dim_value for side in kind.shape.dim)


class _Reading:
    """A model on its way to a graph."""

    def __init__(self, model: Any, weights: set[str], path: str) -> None:
        self.path = path
        self.title = os.path.basename(path)
        self.rows: dict[Op, float] = {}
        self.back: dict[Op, float] = {}
        self.unknown: dict[str, float] = {}
        self.unsized: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        graph = model.graph
        own = [one for one in graph.initializer if one.name in weights]
        self.weights = {one.name: prod(one.dims) for one in own}
        self.floating = {one.name for one in own if one.data_type in _FLOATS}
        self.bytes = float(sum(prod(one.dims) * _FORMATS.get(one.data_type, 4) for one in own))
        for one in graph.initializer:
            self.shapes[one.name] = tuple(one.dims)
        for one in (*graph.input, *graph.value_info, *graph.output):
            shape = _shape_of(one)
            if shape is not None:
                self.shapes.setdefault(one.name, shape)
        self.inputs = [one.name for one in graph.input if one.name not in {made.name for made in graph.initializer}]
        self.saved = 0.0
        self.peak = 0.0

    def add(self, node: Any) -> None:
        """The rows of a node."""
        if node.op_type in _FREE:
            return
        inputs = [self.shapes.get(name) for name in node.input if name]
        outputs = [self.shapes.get(name) for name in node.output if name]
        rows = _lowered(node, inputs, outputs, {one.name: one for one in node.attribute})
        if rows is None:
            known = [shape for shape in (*inputs, *outputs) if shape is not None]
            if len(known) < len(inputs) + len(outputs):
                self.unsized[node.op_type] = self.unsized.get(node.op_type, 0) + 1
            moved = float(sum(prod(shape) for shape in known))
            form = _FORM_OF.get(node.op_type) or ("pointwise" if node.op_type in _POINTWISE else None)
            if form is None:
                self.unknown[node.op_type] = self.unknown.get(node.op_type, 0.0) + moved
            row = moving_op(node.op_type, moved, FORWARD, pointwise=True)
            rows = [replace(row, form=form or "pointwise", part=form or "pointwise")] if moved else []
        for row in rows:
            self.rows[row] = self.rows.get(row, 0.0) + 1.0
            # What the user gives needs no gradient.
            for gradient in gradients(row, first=bool(node.input) and node.input[0] in self.inputs):
                self.back[gradient] = self.back.get(gradient, 0.0) + 1.0
        made = float(sum(prod(shape) for shape in outputs if shape is not None))
        self.saved += made
        self.peak = max(
            self.peak,
            made
            + sum(
                prod(shape)
                for name, shape in zip(node.input, inputs, strict=False)
                if shape is not None and name not in self.weights
            ),
        )

    def graph(self, *, train: bool) -> Graph:
        """All rows; with their gradients where it is to train."""
        forward, backward = (
            [replace(op, count=op.count * count) for op, count in rows.items()] for rows in (self.rows, self.back)
        )
        parameters = float(sum(self.weights[name] for name in self.floating))
        notes = []
        if self.unsized:
            names = ", ".join(f"{count} x {name}" for name, count in sorted(self.unsized.items())[:6])
            notes.append(f"shapes that could not be inferred, so not counted: {names}")
        if train:
            notes.append("backward pass: as each op's gradients usually run, not traced")
        first = self.shapes.get(self.inputs[0], (1,)) if self.inputs else (1,)
        return Graph(
            name=self.title, source=f"ONNX file {self.path}", batch=float(first[0] if first else 1),
            inputs=tuple(f"{name}={'x'.join(map(str, self.shapes.get(name, ())))}" for name in self.inputs),
            ops=tuple([*forward, *backward] if train else forward),
            parameters=parameters, trained=parameters, tensors=float(len(self.floating)), saved_elements=self.saved,
            peak_elements=self.saved * 1.2 if train else self.peak, parameter_bytes=self.bytes, unknown=self.unknown, notes=tuple(notes),
        )  # fmt: skip


def gradients(op: Op, *, first: bool = False) -> list[Op]:
    """What the backward pass of an op does: twice the products, and the traffic of its gradient; `first`: only for weights."""
    back = replace(op, phase=BACKWARD)
    if op.kind == "gemm":
        of_weight = replace(back, m=op.k * op.copies, n=op.n, k=op.m / op.copies)
        return [of_weight] if first else [replace(back, n=op.k, k=op.n), of_weight]
    if op.kind == "conv":
        return [replace(back, form=form) for form in ("input gradient", "weight gradient")[1 if first else 0 :]]
    if op.kind in ("attention", "recurrent"):
        return [back]
    return [] if first else [replace(back, elements=op.elements * 1.5)]


def _lowered(node: Any, inputs: list[Any], outputs: list[Any], attributes: dict[str, Any]) -> list[Op] | None:
    """Rows of a node that multiplies or looks up; None for what only moves, or where shapes are missing."""
    name = node.op_type
    if not outputs or any(shape is None for shape in (*inputs[:2], outputs[0])):
        return None
    result = outputs[0]
    if name in ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"):
        weight = inputs[3] if name == "QLinearConv" else inputs[1]
        groups = attributes["group"].i if "group" in attributes else 1
        return [conv_op(inputs[0], weight, result, groups, transposed=name == "ConvTranspose")]
    if name in ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"):
        a, b = inputs[0], inputs[3] if name == "QLinearMatMul" else inputs[1]
        if len(b) <= 2 or prod(b[:-2]) == 1:
            n = b[-1] if len(b) > 1 else 1
            return [product_op("MatMul", 1.0, prod(a[:-1]), n, a[-1], FORWARD)]
        batch = prod(result[:-2])
        return [product_op("MatMul", batch, prod(result) / batch / b[-1], b[-1], a[-1], FORWARD)]
    if name == "Gemm":
        a, b = inputs[:2]
        k = a[0] if attributes.get("transA") and attributes["transA"].i else a[1]
        return [product_op("Gemm", 1.0, result[0], result[1], k, FORWARD)]
    if name == "Einsum":
        return _einsum(attributes["equation"].s.decode(), inputs)
    if name in _RECURRENT and len(inputs[0]) == 3:
        form, gates = _RECURRENT[name]
        first = attributes["layout"].i if "layout" in attributes else 0
        steps, sequences = (inputs[0][1], inputs[0][0]) if first else inputs[0][:2]
        hidden = inputs[1][1] / gates
        return [recurrent_op(form, sequences, steps, inputs[0][2], hidden, gates, inputs[1][0], FORWARD)]
    if name == "Gather" and node.input[0] and len(inputs[0]) == 2 and prod(result) >= prod(inputs[1]):
        rows, width = float(prod(inputs[1])), float(inputs[0][1])
        return [Op(name, "embedding", "embedding", 1.0, m=rows, n=width, elements=2.0 * rows * width, form="look-up")]
    if name == "Gather":
        return [moving_op("index", 2.0 * prod(result), FORWARD)]
    if name == "Attention" and node.domain in ("", "ai.onnx") and len(inputs[0]) == 4:
        q, k, v = inputs[:3]
        return [Op("attention", "attention", "attention", 1.0, m=float(q[0] * q[2]), sequences=float(q[0]), queries=float(q[2]), keys=float(k[2]),
                   heads=float(q[1]), kv_heads=float(k[1]), key_size=float(q[3]), value_size=float(v[3]),
                   elements=float(prod(q) + prod(k) + prod(v) + prod(result)))]  # fmt: skip
    if name in ("LinearClassifier", "LinearRegressor"):
        columns = inputs[0][-1]
        return [product_op(name, 1.0, prod(inputs[0][:-1]), result[-1] if len(result) > 1 else 1, columns, FORWARD)]
    return None


def _einsum(equation: str, inputs: list[tuple[int, ...]]) -> list[Op] | None:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if (
        not arrow
        or len(terms) != 2
        or "." in equation
        or any(len(term) != len(shape) for term, shape in zip(terms, inputs, strict=False))
    ):
        return None
    size = {
        axis: side for term, shape in zip(terms, inputs, strict=False) for axis, side in zip(term, shape, strict=True)
    }
    a, b = set(terms[0]), set(terms[1])
    batch = prod(size[axis] for axis in right if axis in a and axis in b)
    m = prod(size[axis] for axis in right if axis in a and axis not in b)
    n = prod(size[axis] for axis in right if axis in b and axis not in a)
    k = prod(size[axis] for axis in a & b if axis not in right)
    return [product_op("Einsum", batch, m, n, k, FORWARD)]
