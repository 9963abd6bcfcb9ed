"""Headers of safetensors files: a length, then JSON."""

from __future__ import annotations

from math import prod

from capacity.errors import FileFormatError
from capacity.importers.graphs.checkpoint.tensors import MOST_HEADER_BYTES, MOST_TENSORS, Tensor, read_shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip


def read_safetensors(file: BinaryIO, path: str, size: int, length: int) -> tuple[list[Tensor], dict[str, Any]]:
    """Tensors and metadata of an open file of `size` bytes, past its first 8, which say its header is `length` bytes.

    Raises FileFormatError for what does not add up, and whatever a broken JSON raises.
    """
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
        dtype, shape, (begin, end) = row["dtype"], read_shape(row["shape"], path, name), row["data_offsets"]
        bits = _BITS.get(dtype)
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
