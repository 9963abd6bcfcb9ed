"""The tensors a pickle would make, followed opcode by opcode: nothing is imported and nothing called."""

from __future__ import annotations

from math import prod

from capacity.errors import FileFormatError
from capacity.importers.graphs.checkpoint.tensors import MOST_DIMENSIONS, MOST_TENSORS, Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# What torch calls its storages in a pickle.
_STORAGES = {
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2), "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1), "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1), "ComplexFloatStorage": ("C64", 8), "Float8_e4m3fnStorage": ("F8_E4M3", 1),
}  # fmt: skip


class _Storage:
    def __init__(self, dtype: str, width: int, key: str, elements: int) -> None:
        self.dtype, self.width, self.key, self.elements = dtype, width, key, elements


class _Made:
    """A tensor that a pickle would make: shape and storage."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape


_MARK = object()
_REBUILDS = ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter", "_rebuild_parameter_with_state")


def tensors_of(data: bytes, sizes: dict[str, int], path: str) -> Iterator[Tensor]:
    """The tensors a pickle names, held against the sizes of the storages beside it. Raises FileFormatError."""
    found: dict[str, tuple[_Made, ...]] = {}
    top = _unpickled(data, path)
    seen: set[int] = set()
    for name, made in _walk(top, "", seen, 0):
        found[name] = (made,)
        storage = made.storage
        there = sizes.get(storage.key)
        if there is None or storage.elements * storage.width != there or prod(made.shape) > storage.elements:
            raise FileFormatError(
                f"{path[:200]}: {name[:80]!r} of {prod(made.shape)} {storage.dtype} does not fit its storage of {there} bytes"
            )
        yield Tensor(name, storage.dtype, made.shape, float(prod(made.shape) * storage.width))


def _walk(value: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, _Made]]:
    if isinstance(value, _Made):
        yield name, value
        return
    if depth > 40 or id(value) in seen:
        return
    if isinstance(value, dict):
        seen.add(id(value))
        for key, inner in value.items():
            yield from _walk(inner, f"{name}.{key}" if name else str(key), seen, depth + 1)
    elif isinstance(value, (list, tuple)):
        seen.add(id(value))
        for at, inner in enumerate(value):
            yield from _walk(inner, f"{name}.{at}" if name else str(at), seen, depth + 1)


class _Named:
    """A global a pickle names, or an object it would make of one: known by name only."""

    def __init__(self, name: str) -> None:
        self.name = name


def _unpickled(data: bytes, path: str) -> Any:
    import pickletools

    machine = _Machine(path)
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if steps > 50 * MOST_TENSORS:
            raise FileFormatError(f"{path[:200]}: its data.pkl takes more steps than any checkpoint's")
        if opcode.name == "STOP":
            return machine.stack[-1] if machine.stack else None
        if not machine.step(opcode.name, argument):
            if opcode.arg is None:
                raise FileFormatError(f"{path[:200]}: its data.pkl uses {opcode.name}, which no checkpoint needs")
            machine.stack.append(argument)  # a plain number or text
    raise FileFormatError(f"{path[:200]}: its data.pkl ends too early")


class _Machine:
    """The stack of a pickle, on which nothing is ever imported or called."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> bool:
        """Follow an opcode; False where it is none of those that move or make things."""
        return self._moved(name, argument) or self._filled(name) or self._called(name, argument)

    def _marked(self) -> list[Any]:
        taken: list[Any] = []
        while (one := self.stack.pop()) is not _MARK:
            taken.append(one)
        taken.reverse()
        return taken

    def _moved(self, name: str, argument: Any) -> bool:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        else:
            return False
        return True

    def _filled(self, name: str) -> bool:
        stack = self.stack
        if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE"):
            stack.append({} if name == "EMPTY_DICT" else () if name == "EMPTY_TUPLE" else [])
        elif name == "DICT":
            stack.append(_paired(self._marked()))
        elif name == "LIST":
            stack.append(self._marked())
        elif name in ("TUPLE", "FROZENSET"):
            stack.append(tuple(self._marked()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            taken = tuple(stack.pop() for _ in range(int(name[-1])))
            stack.append(taken[::-1])
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._marked()
            if isinstance(stack[-1], dict):
                stack[-1].update(_paired(items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        else:
            return False
        return True

    def _called(self, name: str, argument: Any) -> bool:
        stack = self.stack
        if name in ("GLOBAL", "STACK_GLOBAL"):
            last = stack.pop() if name == "STACK_GLOBAL" else str(argument).partition(" ")[2]
            if name == "STACK_GLOBAL":
                stack.pop()
            stack.append(_Named(str(last)))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), self.path))
        elif name in ("REDUCE", "NEWOBJ", "OBJ", "INST"):
            arguments = self._marked() if name in ("OBJ", "INST") else stack.pop()
            maker = _Named("") if name in ("OBJ", "INST") else stack.pop()
            stack.append(_made(maker, arguments))
        elif name == "NEWOBJ_EX":
            del stack[-2:]
            stack[-1] = {}
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], dict) and isinstance(state, dict):
                stack[-1].update(state)
        else:
            return False
        return True


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _paired(items: list[Any]) -> dict[Any, Any]:
    return {
        key if isinstance(key, (str, int, float, bool, tuple, type(None))) and _plain(key) else f"#{at}": value
        for at, (key, value) in enumerate(zip(items[::2], items[1::2], strict=False))
    }


def _plain(key: Any) -> bool:
    return not isinstance(key, tuple) or all(isinstance(one, (str, int, float, bool)) for one in key)


def _storage(argument: Any, path: str) -> Any:
    if (
        not isinstance(argument, tuple)
        or len(argument) < 5
        or argument[0] != "storage"
        or not isinstance(argument[1], _Named)
    ):
        return None
    kind, key, elements = argument[1].name, argument[2], argument[4]
    known = _STORAGES.get(kind.rpartition(".")[2])
    if known is None and kind.endswith("UntypedStorage"):
        known = ("U8", 1)
    if known is None or not isinstance(key, str) or type(elements) is not int or not 0 <= elements < 2**48:
        raise FileFormatError(f"{path[:200]}: a storage of {kind[:40]!r} is not known")
    return _Storage(known[0], known[1], key, elements)


def _made(maker: Any, arguments: Any) -> Any:
    """What a call would make, as far as sizes go: tensors as shapes, dictionaries as such, all else as nothing."""
    name = maker.name.rpartition(".")[2] if isinstance(maker, _Named) else ""
    if name in _REBUILDS and isinstance(arguments, tuple) and arguments:
        if isinstance(arguments[0], _Made):
            return arguments[0]
        if isinstance(arguments[0], _Storage) and len(arguments) >= 3 and isinstance(arguments[2], tuple):
            shape = arguments[2]
            if len(shape) <= MOST_DIMENSIONS and all(type(one) is int and 0 <= one < 2**48 for one in shape):
                return _Made(arguments[0], shape)
    return {}
