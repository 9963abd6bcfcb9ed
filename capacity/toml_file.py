"""TOML files, parsed once a machine as Python does with its own source.

`tomllib` takes 4 ms to import and most of a millisecond a file, more than pricing a whole cluster. What it
read is kept in the user's cache folder, named after the file, and used while path, size and time of
change are the same; within a process it is kept in memory. Where nothing can be kept, every process parses for itself.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_toml(path: str) -> dict[str, Any]:
    """The table a TOML file holds.

    Raises OSError where it cannot be read and ValueError (or RecursionError) where it is no TOML.
    """
    status = os.stat(path)
    known = _known.get(path)
    if known is not None and known[0] == (status.st_mtime_ns, status.st_size):
        return known[1]
    table = _read(path, status)
    _known[path] = ((status.st_mtime_ns, status.st_size), table)
    return table


_known: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}


def _read(path: str, status: os.stat_result) -> dict[str, Any]:
    stamp = (sys.hexversion, os.path.abspath(path), status.st_mtime_ns, status.st_size)
    place = _place(stamp[1])
    try:
        with open(place, "rb") as file:
            kept = marshal.load(file)  # noqa: S302 - from the user's own folder, as compiled Python is
        if kept[0] == stamp:
            table: dict[str, Any] = kept[1]
            return table
    except (OSError, ValueError, EOFError, TypeError, IndexError):
        pass
    import tomllib

    with open(path, "rb") as file:
        table = tomllib.load(file)
    _keep(place, (stamp, table))
    return table


def _place(path: str) -> str:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    number = int.from_bytes(os.fsencode(path), "big") % (2**61 - 1)
    return os.path.join(root, "capacity", f"{os.path.basename(path)}-{number:x}")


def _keep(place: str, content: Any) -> None:
    partial = f"{place}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(partial, "wb") as file:
            marshal.dump(content, file)
        os.replace(partial, place)
    except (OSError, ValueError):  # no such folder to write to, or a date, which marshal does not know
        return
