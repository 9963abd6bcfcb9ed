"""What a checkpoint holds, tensor by tensor, from its headers alone: safetensors, GGUF and PyTorch's zip archives.

Nothing is unpickled and no weight is read. A file is never trusted: every length is held against the bytes there are,
before anything of that length is made.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from math import prod

from capacity.errors import FileFormatError
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

# The longest header, metadata or pickle that is looked at, and the most tensors and shards.
MOST_HEADER_BYTES = 100 * 2**20
MOST_TENSORS, MOST_SHARDS, MOST_DIMENSIONS = 1_000_000, 4096, 16
_SAFETENSORS_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip
# GGML types: elements and bytes of a block (ggml.h).
_GGML = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
# Bytes of a GGUF metadata value by type; 8 is a string, 9 an array.
_GGUF_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_GGUF_SIZES = {kind: struct.calcsize("<" + form) for kind, form in _GGUF_FORMS.items()}
_STRING, _ARRAY = 8, 9
# What torch calls its storages in a pickle.
_TORCH = {
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2), "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1), "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1), "ComplexFloatStorage": ("C64", 8), "Float8_e4m3fnStorage": ("F8_E4M3", 1),
}  # fmt: skip


class Tensor(Record):
    """A tensor of a file: name, format as its file says it, shape, and the bytes it takes there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: float

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


class Checkpoint(Record):
    """All tensors of a checkpoint, over all its files; metadata: the plain values beside them."""

    path: str
    format: str
    files: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    file_bytes: float
    metadata: dict[str, Any] = {}

    @property
    def parameters(self) -> float:
        """Numbers in all."""
        return float(sum(one.elements for one in self.tensors))

    @property
    def bytes(self) -> float:
        """Bytes of all tensors."""
        return float(sum(one.bytes for one in self.tensors))

    def by_dtype(self) -> dict[str, tuple[int, float, float]]:
        """Tensors, numbers and bytes of each format, most bytes first."""
        found: dict[str, tuple[int, float, float]] = {}
        for one in self.tensors:
            count, elements, size = found.get(one.dtype, (0, 0.0, 0.0))
            found[one.dtype] = (count + 1, elements + one.elements, size + one.bytes)
        return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def read_checkpoint(path: str) -> Checkpoint:
    """The tensors of a .safetensors or .gguf file, a torch zip archive, an index of shards, or a folder of one of these.

    Raises FileFormatError in one line for anything else, whatever the file says of itself.
    """
    path = str(path)
    try:
        files, index = _files(path)
        parts = [_read(file) for file in files]
        size = float(sum(os.path.getsize(file) for file in files))
    except FileFormatError:
        raise
    except OSError as error:
        raise FileFormatError(f"{path[:200]}: cannot be read ({error.strerror or error})") from None
    except (RecursionError, MemoryError):
        raise FileFormatError(f"{path[:200]}: nested or sized beyond any checkpoint") from None
    except (
        ValueError,
        struct.error,
        KeyError,
        TypeError,
        IndexError,
        OverflowError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise FileFormatError(f"{path[:200]}: is no whole checkpoint ({' '.join(str(error).split())[:120]})") from None
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for _, found, facts in parts:
        for tensor in found:
            if tensor.name in tensors:
                raise FileFormatError(f"{path[:200]}: the tensor {tensor.name[:80]!r} is there twice")
            tensors[tensor.name] = tensor
        metadata |= facts
    if index is not None and index != tensors.keys():
        lost = sorted(index ^ tensors.keys())[:3]
        raise FileFormatError(f"{path[:200]}: its index and its shards differ: {', '.join(lost)[:160]}")
    return Checkpoint(
        path=path,
        format=parts[0][0],
        files=tuple(files),
        tensors=tuple(tensors.values()),
        file_bytes=size,
        metadata=metadata,
    )


def _files(path: str) -> tuple[list[str], set[str] | None]:
    """The files of a checkpoint, and the tensors its index promises."""
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        index = next((name for name in names if name.endswith(".safetensors.index.json")), None)
        if index is not None:
            return _files(os.path.join(path, index))
        for ending in (".safetensors", ".gguf", (".bin", ".pt", ".pth")):
            found = [os.path.join(path, name) for name in names if name.endswith(ending)]
            if found:
                return found[:MOST_SHARDS], None
        raise FileFormatError(f"{path[:200]}: holds no .safetensors, .gguf, .bin, .pt or .pth file")
    if not path.endswith(".index.json"):
        return [path], None
    import json

    if os.path.getsize(path) > MOST_HEADER_BYTES:
        raise FileFormatError(f"{path[:200]}: {os.path.getsize(path)} bytes is too large for an index")
    with open(path, "rb") as file:
        document = json.loads(file.read().decode("utf-8"))
    weights = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise FileFormatError(f"{path[:200]}: has no weight_map of files")
    shards = sorted(set(weights.values()))
    bad = [name for name in shards if os.path.basename(name) != name or name in ("", ".", "..")]
    if bad or not shards or len(shards) > MOST_SHARDS:
        raise FileFormatError(
            f"{path[:200]}: names {len(shards)} files, among them {str(bad[:1])[:80]}: shards lie beside their index"
        )
    return [os.path.join(os.path.dirname(path), name) for name in shards], set(weights)


def _read(path: str) -> tuple[str, list[Tensor], dict[str, Any]]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(8)
        if head[:4] == b"GGUF":
            return ("gguf", *_gguf(file, path, size))
        if head[:4] == b"PK\x03\x04":
            return ("torch", *_torch(path, size))
        if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise FileFormatError(
                f"{path[:200]}: a bare pickle (torch before 1.6) says its sizes only when it is run; save it again as safetensors"
            )
        if len(head) < 8:
            raise FileFormatError(f"{path[:200]}: {size} bytes are no checkpoint")
        return ("safetensors", *_safetensors(file, path, size, struct.unpack("<Q", head)[0]))


def _safetensors(file: BinaryIO, path: str, size: int, length: int) -> tuple[list[Tensor], dict[str, Any]]:
    if length > size - 8 or length < 2:
        raise FileFormatError(
            f"{path[:200]}: says its header is {length} bytes, and {max(size - 8, 0)} are there; no safetensors, or not whole"
        )
    if length > MOST_HEADER_BYTES:
        raise FileFormatError(
            f"{path[:200]}: a header of {length} bytes is more than safetensors allows ({MOST_HEADER_BYTES})"
        )
    import json

    text = file.read(length)
    if not text.lstrip().startswith(b"{"):
        raise FileFormatError(f"{path[:200]}: its header is not JSON; not a safetensors, GGUF or torch file")
    header = json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
    facts = header.pop("__metadata__", {})
    if len(header) > MOST_TENSORS:
        raise FileFormatError(f"{path[:200]}: {len(header)} tensors are more than any checkpoint holds")
    room = size - 8 - length
    tensors, ends = [], []
    for name, row in header.items():
        dtype, shape, (begin, end) = row["dtype"], _shape(row["shape"], path, name), row["data_offsets"]
        bits = _SAFETENSORS_BITS.get(dtype)
        if bits is None:
            raise FileFormatError(f"{path[:200]}: {name[:80]!r} has the unknown format {str(dtype)[:20]!r}")
        whole = all(type(one) is int for one in (begin, end)) and 0 <= begin <= end <= room
        if not whole or (end - begin) * 8 != prod(shape) * bits:
            raise FileFormatError(
                f"{path[:200]}: {name[:80]!r} of {prod(shape)} {dtype} does not fill bytes {str(begin)[:20]} to {str(end)[:20]} of {room}"
            )
        ends.append((begin, end, name))
        tensors.append(Tensor(name, dtype, shape, float(end - begin)))
    last = 0
    for begin, end, name in sorted(ends):
        if begin != last:
            raise FileFormatError(
                f"{path[:200]}: {name[:80]!r} begins at byte {begin}, the tensor before ends at {last}"
            )
        last = end
    if last != room:
        raise FileFormatError(f"{path[:200]}: its tensors end at byte {last} of {room}")
    return tensors, facts if isinstance(facts, dict) else {}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _shape(given: Any, path: str, name: str) -> tuple[int, ...]:
    if (
        not isinstance(given, (list, tuple))
        or len(given) > MOST_DIMENSIONS
        or not all(type(one) is int and 0 <= one < 2**48 for one in given)
    ):
        raise FileFormatError(f"{path[:200]}: {name[:80]!r} has the impossible shape {str(given)[:60]}")
    return tuple(given)


class _Reader:
    """Numbers and strings of a GGUF file, never beyond what is there."""

    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self.file, self.path, self.left = file, path, min(size, MOST_HEADER_BYTES) - 8
        self.size = size

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise FileFormatError(
                f"{self.path[:200]}: its metadata ends before it should, or is longer than {MOST_HEADER_BYTES} bytes"
            )
        self.left -= count
        data = self.file.read(count)
        if len(data) != count:
            raise FileFormatError(f"{self.path[:200]}: ends within its metadata")
        return data

    def number(self, form: str) -> int:
        found: int = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]
        return found

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def skip(self, kind: int, depth: int = 0) -> Any:
        """Pass one value; strings and numbers are returned, arrays are only counted."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if depth > 3:
                raise FileFormatError(f"{self.path[:200]}: its metadata is nested too deeply")
            if inner in _GGUF_SIZES:
                self.take(_GGUF_SIZES[inner] * count)
            else:
                # The shortest string or array takes 8 bytes.
                if count > self.left // 8:
                    raise FileFormatError(f"{self.path[:200]}: an array of {count} values is longer than the file")
                for _ in range(count):
                    self.skip(inner, depth + 1)
            return f"{count} values"
        if kind not in _GGUF_SIZES:
            raise FileFormatError(f"{self.path[:200]}: its metadata has the unknown type {kind}")
        data = self.take(_GGUF_SIZES[kind])
        return struct.unpack(
            "<" + "BbHhIif?xxQqd".replace("x", "")[(0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 8, 9, 10)[kind]], data
        )[0]


def _gguf(file: BinaryIO, path: str, size: int) -> tuple[list[Tensor], dict[str, Any]]:
    file.seek(4)
    reader = _Reader(file, path, size)
    version = reader.number("I")
    if version not in (2, 3):
        raise FileFormatError(f"{path[:200]}: GGUF version {version} is not known (2 and 3 are)")
    count, pairs = reader.number("Q"), reader.number("Q")
    if count > MOST_TENSORS or pairs > MOST_TENSORS:
        raise FileFormatError(
            f"{path[:200]}: says it holds {count} tensors and {pairs} values: more than any checkpoint"
        )
    facts: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.string()
        facts[key] = reader.skip(reader.number("I"))
    alignment = facts.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
        raise FileFormatError(f"{path[:200]}: an alignment of {str(alignment)[:20]} is impossible")
    rows = []
    for _ in range(count):
        name = reader.string()
        sides = reader.number("I")
        if sides > MOST_DIMENSIONS:
            raise FileFormatError(f"{path[:200]}: {name[:80]!r} has {sides} dimensions")
        shape = _shape([reader.number("Q") for _ in range(sides)], path, name)
        kind = reader.number("I")
        if kind not in _GGML:
            raise FileFormatError(f"{path[:200]}: {name[:80]!r} has the unknown format {kind}")
        rows.append((name, shape, kind, reader.number("Q")))
    room = size - -(-file.tell() // alignment) * alignment
    tensors = []
    for name, shape, kind, offset in rows:
        dtype, block, width = _GGML[kind]
        elements = prod(shape)
        held = elements // block * width
        if elements % block or offset % alignment or offset + held > max(room, 0):
            raise FileFormatError(
                f"{path[:200]}: {name[:80]!r} of {elements} {dtype} at byte {offset} does not lie in the {max(room, 0)} bytes of data"
            )
        tensors.append(Tensor(name, dtype, tuple(reversed(shape)), float(held)))
    spans = sorted(
        (offset, offset + prod(shape) // _GGML[kind][1] * _GGML[kind][2], name) for name, shape, kind, offset in rows
    )
    for (_, end, _), (begin, _, name) in pairwise(spans):
        if begin < end:
            raise FileFormatError(f"{path[:200]}: {name[:80]!r} lies over the tensor before")
    return tensors, {key: value for key, value in facts.items() if isinstance(value, (str, int, float, bool))}


def _torch(path: str, size: int) -> tuple[list[Tensor], dict[str, Any]]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_TENSORS:
                raise FileFormatError(f"{path[:200]}: {len(entries)} entries are more than any checkpoint holds")
            pickles = [one for one in entries if one.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise FileFormatError(
                    f"{path[:200]}: a zip archive that is no torch checkpoint (it has {len(pickles)} data.pkl)"
                )
            root = pickles[0].filename.removesuffix("data.pkl")
            # torch stores, it does not pack: whatever would grow when read is refused.
            if any(one.file_size > one.compress_size for one in entries):
                raise FileFormatError(f"{path[:200]}: packed entries, which torch never writes: this may be a zip bomb")
            if sum(one.compress_size for one in entries) > size or pickles[0].file_size > MOST_HEADER_BYTES:
                raise FileFormatError(
                    f"{path[:200]}: its entries are larger than the file, or its data.pkl than {MOST_HEADER_BYTES} bytes"
                )
            sizes = {
                one.filename.removeprefix(f"{root}data/"): one.file_size
                for one in entries
                if one.filename.startswith(f"{root}data/")
            }
            with archive.open(pickles[0]) as file:
                pickle = file.read(MOST_HEADER_BYTES + 1)
    except zipfile.BadZipFile as error:
        raise FileFormatError(f"{path[:200]}: a broken zip archive ({str(error)[:80]})") from None
    return list(_pickled(pickle, sizes, path)), {}


class _Storage:
    def __init__(self, dtype: str, width: int, key: str, elements: int) -> None:
        self.dtype, self.width, self.key, self.elements = dtype, width, key, elements


class _Made:
    """A tensor that a pickle would make: shape and storage."""

    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape


_MARK = object()
_REBUILDS = ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter", "_rebuild_parameter_with_state")


def _pickled(data: bytes, sizes: dict[str, int], path: str) -> Iterator[Tensor]:
    """The tensors a pickle names, read opcode by opcode: nothing is imported and nothing called."""
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
    known = _TORCH.get(kind.rpartition(".")[2])
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
