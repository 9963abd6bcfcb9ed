"""Metadata of GGUF files: counted strings, numbers and arrays, then a list of tensors."""

from __future__ import annotations

import struct
from itertools import pairwise
from math import prod

from capacity.errors import FileFormatError
from capacity.importers.graphs.checkpoint.tensors import (
    MOST_DIMENSIONS,
    MOST_HEADER_BYTES,
    MOST_TENSORS,
    Tensor,
    read_shape,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

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
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize("<" + form) for kind, form in _FORMS.items()}
_STRING, _ARRAY = 8, 9


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
            if inner in _SIZES:
                self.take(_SIZES[inner] * count)
            else:
                # The shortest string or array takes 8 bytes.
                if count > self.left // 8:
                    raise FileFormatError(f"{self.path[:200]}: an array of {count} values is longer than the file")
                for _ in range(count):
                    self.skip(inner, depth + 1)
            return f"{count} values"
        if kind not in _SIZES:
            raise FileFormatError(f"{self.path[:200]}: its metadata has the unknown type {kind}")
        return struct.unpack("<" + _FORMS[kind], self.take(_SIZES[kind]))[0]


def read_gguf(file: BinaryIO, path: str, size: int) -> tuple[list[Tensor], dict[str, Any]]:
    """Tensors and plain metadata of an open file of `size` bytes. Raises FileFormatError for what does not add up."""
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
        shape = read_shape([reader.number("Q") for _ in range(sides)], path, name)
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
