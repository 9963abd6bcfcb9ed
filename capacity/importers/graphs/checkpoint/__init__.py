"""What a checkpoint holds, tensor by tensor, from its headers alone: safetensors, GGUF and PyTorch's zip archives.

Nothing is unpickled and no weight is read. A file is never trusted: every length is held against the bytes there are,
before anything of that length is made.
"""

from __future__ import annotations

import os
import struct

from capacity.errors import FileFormatError
from capacity.importers.graphs.checkpoint.gguf import read_gguf
from capacity.importers.graphs.checkpoint.safetensors import read_safetensors
from capacity.importers.graphs.checkpoint.tensors import MOST_HEADER_BYTES, MOST_SHARDS, Tensor
from capacity.importers.graphs.checkpoint.torch_zip import read_torch_zip
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
            return ("gguf", *read_gguf(file, path, size))
        if head[:4] == b"PK\x03\x04":
            return ("torch", *read_torch_zip(path, size))
        if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise FileFormatError(
                f"{path[:200]}: a bare pickle (torch before 1.6) says its sizes only when it is run; save it again as safetensors"
            )
        if len(head) < 8:
            raise FileFormatError(f"{path[:200]}: {size} bytes are no checkpoint")
        return ("safetensors", *read_safetensors(file, path, size, struct.unpack("<Q", head)[0]))
