"""Storage: the disk under the temporary folder with and without its page cache, tokens read through a map, checkpoints.

Set TMPDIR to measure another disk. Files have no name while they are measured where that can be, so a kill leaves none.
"""

from __future__ import annotations

import os
from random import Random

from capacity.measurement.case import FULL, Kernel, NotSupportedError, Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

BLOCK = 4096
# File that random reads are taken from, and how many are read in one run.
SPREAD_BYTES, READS = 256 * 2**20, 64
PIECE_BYTES = 4 * 2**20
_STATE_MIB = (8, 16, 32, 64, 96, 160, 256)
_FILE_KIB = (4, 64, 512, 2048, 8192, 24576, 65536, 131072, 262144)
# File systems that are memory.
_NO_DISK = ("tmpfs", "ramfs")


def file_system(folder: str) -> str:
    """The kind of file system a folder lies on; "" where the system does not say."""
    best, kind = "", ""
    try:
        with open("/proc/mounts", encoding="utf-8") as file:
            for line in file:
                _, place, name = line.split()[:3]
                if os.path.realpath(folder).startswith(place) and len(place) >= len(best):
                    best, kind = place, name
    except OSError:
        return ""
    return kind


def disk_folder() -> str:
    """Where measured files lie: the temporary folder, unless that is memory."""
    import tempfile

    folder = tempfile.gettempdir()
    if file_system(folder) in _NO_DISK:
        folder = os.getcwd()
    if file_system(folder) in _NO_DISK:
        raise NotSupportedError(f"{folder} is memory: set TMPDIR to a folder on a disk")
    return folder


def forget(descriptor: int) -> None:
    """Drop what the page cache holds of a file that is written already."""
    if not hasattr(os, "posix_fadvise"):
        raise NotSupportedError("this system cannot drop one file from its page cache")
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read_ahead_bytes(folder: str) -> float:
    """What the system reads at once when a page of a map is missing: its read-ahead for the folder's disk, 128 KiB if untold."""
    device = os.stat(folder).st_dev
    try:
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", encoding="ascii") as file:
            return max(float(file.read()) * 1024.0, float(BLOCK))
    except (OSError, ValueError):
        return 128.0 * 1024.0


def fetched_bytes(places: int, each: float, window: float, whole: float) -> float:
    """What a disk gives for `places` random reads of a file, each widened to a window; windows overlap where they are many."""
    from math import exp

    return whole * (1.0 - exp(-places * max(each, window) / whole))


def _open(filled: int = 0) -> int:
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="capacity-bench-", dir=disk_folder())
    os.unlink(path)
    block = Random(7).randbytes(min(filled, 2**20)) if filled else b""  # noqa: S311 - no secret
    for start in range(0, filled, 2**20):
        os.pwrite(descriptor, block[: filled - start], start)
    if filled:
        os.fsync(descriptor)
    return descriptor


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for op in ("write", "write-fsync", "read-cold", "read-warm") if profile == FULL else ("write-fsync", "read-cold"):
        for kibibytes in _FILE_KIB if profile == FULL else (65536,):
            yield {"op": op, "KiB": kibibytes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001 - every kernel's signature
    size = int(parameters["KiB"] * 1024)
    op = parameters["op"]
    writes = op.startswith("write")
    descriptor = _open(0 if writes else size)
    buffer = bytearray(Random(11).randbytes(min(size, 2**20)) * (max(size // 2**20, 1)))  # noqa: S311 - no secret

    def write() -> None:
        os.ftruncate(descriptor, 0)
        _all(os.pwrite, descriptor, memoryview(buffer))

    def write_through() -> None:
        write()
        os.fsync(descriptor)

    def read() -> None:
        _all(lambda file, part, start: os.preadv(file, [part], start), descriptor, memoryview(buffer))

    def read_cold() -> None:
        forget(descriptor)
        read()

    run = {"write": write, "write-fsync": write_through, "read-warm": read, "read-cold": read_cold}[op]
    return Work(
        run=run,
        moved_bytes=float(size),
        facts=lambda: {"file_system": file_system(disk_folder())},
        close=lambda: os.close(descriptor),
    )


def _all(call: Callable[[int, memoryview, int], int], descriptor: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += call(descriptor, view[done:], done)


def _random_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for depth in (1, 4, 16) if profile == FULL else (1,):
        yield {"cache": "cold", "depth": depth, "KiB": BLOCK // 1024}
    if profile == FULL:
        for kibibytes in (16, 64, 256):
            yield {"cache": "cold", "depth": 1, "KiB": kibibytes}
        yield {"cache": "warm", "depth": 1, "KiB": BLOCK // 1024}


def _build_random(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    from concurrent.futures import ThreadPoolExecutor

    size, depth = int(parameters["KiB"] * 1024), int(parameters["depth"])
    descriptor = _open(SPREAD_BYTES)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # or each read brings its neighbours
    chance = Random(13)  # noqa: S311 - an order, no secret
    blocks = SPREAD_BYTES // size
    pool = ThreadPoolExecutor(depth)

    def read(start: int) -> int:
        return len(os.pread(descriptor, size, start))

    def run() -> None:
        places = [chance.randrange(blocks) * size for _ in range(READS)]
        if parameters["cache"] == "cold":
            forget(descriptor)
        if depth == 1:
            for place in places:
                read(place)
        else:
            list(pool.map(read, places))

    def close() -> None:
        pool.shutdown()
        os.close(descriptor)

    return Work(run=run, moved_bytes=float(READS * size), facts=lambda: {"reads": READS}, close=close)


def _token_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    for order in ("sequential", "random"):
        for cache in ("warm", "cold"):
            sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 128) if profile == FULL else (32,)
            for sequences in sizes if profile == FULL or (order, cache) == ("random", "warm") else ():
                yield {"order": order, "cache": cache, "sequences": sequences, "tokens": 1024}


def _build_tokens(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    """One batch of sequences from a file of two-byte tokens, as a loader takes it, widened for the model."""
    import numpy as np

    sequences, length = int(parameters["sequences"]), int(parameters["tokens"])
    descriptor = _open(SPREAD_BYTES)
    total = SPREAD_BYTES // 2
    path = f"/proc/self/fd/{descriptor}"
    chance = np.random.default_rng(17)
    batch = np.empty((sequences, length), dtype=np.int64)
    last = total - length - sequences * length

    def fill(tokens: Any) -> None:
        if parameters["order"] == "random":
            starts = chance.integers(0, last, sequences)
        else:
            first = int(chance.integers(0, last))
            starts = first + np.arange(sequences) * length
        for row, start in enumerate(starts):
            batch[row] = tokens[start : start + length]

    if parameters["cache"] == "warm":
        mapped = np.memmap(path, dtype=np.uint16, mode="r")
        int(mapped.astype(np.uint32).sum())
        return Work(run=lambda: fill(mapped), moved_bytes=2.0 * batch.size, close=lambda: os.close(descriptor))

    def run() -> None:
        forget(descriptor)
        fill(np.memmap(path, dtype=np.uint16, mode="r"))  # mapped anew: pages in a map are not dropped

    window = read_ahead_bytes(disk_folder())
    if parameters["order"] == "random":
        moved = fetched_bytes(sequences, 2.0 * length, window, SPREAD_BYTES)
    else:
        moved = max(2.0 * batch.size, window)
    return Work(
        run=run, moved_bytes=moved, facts=lambda: {"read_ahead_bytes": window}, close=lambda: os.close(descriptor)
    )


def _checkpoint_cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if machine.device != "cpu":
        return
    if profile != FULL:
        yield {"op": "save", "format": "safetensors", "MiB": 64}
        return
    for op in ("save", "save-fsync", "load-warm", "load-cold"):
        for form in ("torch", "safetensors", "dcp"):
            for mebibytes in _STATE_MIB:
                yield {"op": op, "format": form, "MiB": mebibytes}
    for mebibytes in _STATE_MIB:
        yield {"op": "snapshot", "format": "memory", "MiB": mebibytes}


def _build_checkpoint(parameters: Mapping[str, Any], machine: Machine) -> Work:  # noqa: ARG001
    """Weights and two moments saved, or loaded into tensors that are there already, as a restarted run does."""
    import shutil
    import tempfile

    import torch

    count = max(int(parameters["MiB"] * 2**20 // PIECE_BYTES), 1)
    own = {f"layer.{index}": torch.randn(PIECE_BYTES // 4) for index in range(count)}
    other = {name: torch.zeros_like(value) for name, value in own.items()}
    moved = float(count * PIECE_BYTES)

    def copy(source: Mapping[str, Any]) -> None:
        for name, value in source.items():
            other[name].copy_(value)

    op, form = parameters["op"], parameters["format"]
    if op == "snapshot":
        return Work(run=lambda: copy(own), moved_bytes=2.0 * moved)
    folder = tempfile.mkdtemp(prefix="capacity-bench-", dir=disk_folder())
    place = os.path.join(folder, "state")
    save, load = _ways(form, own, other, copy, place)

    def save_through() -> None:
        save()
        for path in _files(folder):
            _with(path, os.fsync)

    def load_cold() -> None:
        for path in _files(folder):
            _with(path, forget)
        load()

    if op.startswith("load"):
        save_through()
    run = {"save": save, "save-fsync": save_through, "load-warm": load, "load-cold": load_cold}[op]
    return Work(run=run, moved_bytes=moved, close=lambda: shutil.rmtree(folder, ignore_errors=True))


def _ways(
    form: str, own: Mapping[str, Any], other: Mapping[str, Any], copy: Callable[[Mapping[str, Any]], None], place: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """How a format saves, and how it loads."""
    if form == "torch":
        import torch

        return (lambda: torch.save(own, place)), (lambda: copy(torch.load(place, weights_only=True)))
    if form == "safetensors":
        from safetensors.torch import load_file, save_file

        return (lambda: save_file(dict(own), place)), (lambda: copy(load_file(place)))
    import warnings

    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    warnings.simplefilter("ignore")  # it says that there is one process
    return (
        lambda: save(dict(own), checkpoint_id=place, no_dist=True),
        lambda: load(dict(other), checkpoint_id=place, no_dist=True),
    )


def _files(folder: str) -> list[str]:
    return [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]


def _with(path: str, call: Callable[[int], object]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        call(descriptor)
    finally:
        os.close(descriptor)


FAMILIES = (
    Kernel("disk", "files written and read, page cache cold and warm", _cases, _build, kind="storage"),
    Kernel("disk-random", "blocks read at random places", _random_cases, _build_random, kind="storage"),
    Kernel("token-map", "batches of tokens through a memory map", _token_cases, _build_tokens, kind="storage"),
    Kernel("checkpoint", "saving and loading by format", _checkpoint_cases, _build_checkpoint, kind="storage"),
)
