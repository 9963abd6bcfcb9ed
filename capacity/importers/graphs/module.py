"""A PyTorch module as a graph: built and run on the `meta` device, where tensors are shapes and take no memory.

This runs the user's own code; nothing but the option that names the module leads here.
"""

from __future__ import annotations

import sys

from capacity.errors import InputError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from capacity.spec.graph import Graph

DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool")
_SPELT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp64": "float64", "long": "int64", "int": "int32"}
LONGEST_TARGET, MOST_DIMENSIONS, LARGEST_SIDE = 2000, 8, 2**40


class InputSpec:
    """One input: its shape and format, and its name where it is passed by name."""

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: str = "float32", name: str = "") -> None:
        self.shape = shape
        self.dtype = dtype
        self.name = name

    def __str__(self) -> str:
        shape = "x".join(str(side) for side in self.shape)
        return f"{self.name}={shape}:{self.dtype}" if self.name else f"{shape}:{self.dtype}"


def read_input(text: str) -> InputSpec:
    """`100x1000`, `1x128:int64`, `input_ids=1x128:int64`; raises InputError."""
    rest, name = text.strip(), ""
    if "=" in rest:
        name, _, rest = rest.partition("=")
        if not name.isidentifier():
            raise InputError(
                f"--input {text[:60]!r}: {name[:40]!r} is no name of an argument; write NAME=SHAPE or SHAPE"
            )
    shape, _, dtype = rest.partition(":")
    dtype = _SPELT.get(dtype.lower(), dtype.lower()) or "float32"
    if dtype not in DTYPES:
        raise InputError(f"--input {text[:60]!r}: format {dtype[:20]!r} is not known; choose from {', '.join(DTYPES)}")
    sides = shape.lower().replace("×", "x").replace(",", "x").split("x")
    if not all(side.isascii() and side.isdigit() and len(side) < 13 for side in sides) or len(sides) > MOST_DIMENSIONS:
        raise InputError(
            f"--input {text[:60]!r} is no shape: write whole numbers with x between, like 8x3x224x224 or 1x128:int64"
        )
    numbers = tuple(int(side) for side in sides)
    if min(numbers) < 1:
        raise InputError(f"--input {text[:60]!r}: every side is at least 1")
    return InputSpec(numbers, dtype, name)


class Target(Record):
    """What `package.module:name`, `file.py:name` or either with literal arguments, `pkg:make('resnet50', classes=10)`, says."""

    text: str
    place: str
    names: tuple[str, ...]
    called: bool
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}


def read_target(target: str) -> Target:
    """A target taken apart, nothing imported. Raises InputError."""
    import ast

    place, _, call = target.partition(":")
    if not place or not call or len(target) > LONGEST_TARGET:
        raise InputError(f"--module {target[:80]!r} names nothing: write package.module:factory, or file.py:factory")
    refused = InputError(
        f"--module {target[:80]!r}: after the colon goes a name, or a name with literal arguments, like make('resnet50')"
    )
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        called = tree if isinstance(tree, ast.Call) else None
        names = tuple(ast.unparse(called.func if called else tree).split("."))
        arguments = tuple(ast.literal_eval(one) for one in called.args) if called else ()
        named = {one.arg or "": ast.literal_eval(one.value) for one in called.keywords} if called else {}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise refused from None
    if "" in named or not all(name.isidentifier() for name in names):
        raise refused
    return Target(target, place, names, called is not None, arguments, named)


def load_target(target: Target) -> Any:
    """The object a target names, its module imported: this runs the user's code. Raises InputError, whatever that code raises."""
    import os
    from importlib import import_module, util

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    spec = None
    if target.place.endswith(".py"):
        spec = util.spec_from_file_location(os.path.basename(target.place)[:-3], target.place)
        if spec is None or not os.path.isfile(target.place):
            raise InputError(f"--module: {target.place[:80]} is not there")
    try:
        if spec is not None and spec.loader is not None:
            found: Any = util.module_from_spec(spec)
            sys.modules[spec.name] = found
            spec.loader.exec_module(found)
        else:
            found = import_module(target.place)
        for name in target.names:
            found = getattr(found, name)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise InputError(f"--module {target.text[:80]!r}: {_said(error)}") from None
    return found


def maker_of(text: str) -> Any:
    """What makes the module a target names: a factory, a class or a module. Raises InputError."""
    target = read_target(text)
    torch = _torch()
    found = load_target(target)

    def make() -> Any:
        if isinstance(found, torch.nn.Module) and not target.called:
            return found
        return found(*target.arguments, **target.named)

    return make


def trace_target(text: str, inputs: Sequence[InputSpec], *, train: bool) -> Graph:
    """The graph of what a target names. Raises InputError."""
    return trace(maker_of(text), inputs, train=train, name=text, source=f"traced from {text}")


def network_on_meta(module: Any) -> Any:
    """A module, or what a callable of no arguments returns, with all its tensors on meta; raises what its code raises."""
    from capacity.importers.graphs.tracer import quiet

    with quiet():
        return _on_meta(module if isinstance(module, _torch().nn.Module) else _built(module))


def trace(
    module: Any,
    inputs: Sequence[InputSpec] | Sequence[Any],
    *,
    train: bool,
    name: str = "",
    source: str = "a module in memory",
    keywords: Mapping[str, Any] | None = None,
) -> Graph:
    """One pass of a module, or of what a callable of no arguments returns, over inputs of these shapes.

    inputs: `InputSpec`s or tensors, of which only shape and format are read. train: with the backward pass, in training mode;
    otherwise in evaluation mode without gradients. Raises InputError for whatever the module's code raises.
    """
    torch = _torch()
    from capacity.importers.graphs.tracer import quiet

    specs = [
        one if isinstance(one, InputSpec) else InputSpec(tuple(one.shape), str(one.dtype).removeprefix("torch."))
        for one in inputs
    ]
    specs += [
        InputSpec(tuple(one.shape), str(one.dtype).removeprefix("torch."), key) for key, one in (keywords or {}).items()
    ]
    if not specs:
        raise InputError("--module is given without --input: say the shape of an input, like --input 8x3x224x224")
    title = name or type(module).__name__
    try:
        with quiet():
            network = module if isinstance(module, torch.nn.Module) else _built(module)
            tracer = _traced(_on_meta(network), specs, train=train) if isinstance(network, torch.nn.Module) else None
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        what = "to train" if train else "to infer"
        raise InputError(
            f"--module {title[:80]!r} cannot be traced {what} with {', '.join(map(str, specs))[:120]}: {_said(error)}"
        ) from None
    if tracer is None:
        raise InputError(f"--module {title[:80]!r} gave {type(network).__name__[:40]!r}, not a torch.nn.Module")
    graph: Graph = tracer.graph(title, source, specs)
    return graph


def _traced(network: Any, specs: Sequence[InputSpec], *, train: bool) -> Any:
    from capacity.importers.graphs.tracer import Tracer

    torch = _torch()
    network.train(train)
    made = [(spec, torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")) for spec in specs]
    positional = [tensor for spec, tensor in made if not spec.name]
    by_name = {spec.name: tensor for spec, tensor in made if spec.name}
    tracer = Tracer(network, [tensor for _, tensor in made])
    tracer.run(lambda: network(*positional, **by_name), train=train)
    return tracer


def _built(make: Any) -> Any:
    """A module without memory: built on meta, or where its code needs numbers, on the host and emptied."""
    torch = _torch()
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        # Some constructors read numbers they have just computed (drop rates, tables of positions).
        from capacity.importers.graphs.tracer import LargeOnMeta

        try:
            with LargeOnMeta():
                return make()
        except (NotImplementedError, RuntimeError):
            return make()


def _on_meta(network: Any) -> Any:
    if all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        return network
    if any(not tensor.is_meta for tensor in network.parameters()):
        from copy import deepcopy

        memo = {
            id(one): _torch().nn.Parameter(one.detach().to("meta"), requires_grad=one.requires_grad)
            for one in network.parameters()
        }
        network = deepcopy(network, memo)
    return network.to("meta")


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text[:240]}"


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise InputError('--module needs torch: pip install "model-capacity[bench]"') from None
    return torch
