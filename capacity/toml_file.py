"""TOML files, parsed once a machine as Python does with its own source.

`tomllib` takes 4 ms to import and most of a millisecond a file, more than pricing a whole cluster. What it
read is kept in the user's cache folder, named after the file, and used while path, size and time of
change are the same. Where nothing can be kept, every process parses for itself.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# tomllib takes time with the square of the dots in a key: a minute for 40 kB of them on one line.
LONGEST_LINE_BYTES = 1000

_known: dict[str, dict[str, Any]] = {}


def read_toml(path: str, *, keep: bool = True) -> dict[str, Any]:
    """The table a TOML file holds.

    keep: use and make a kept copy; for files that come with the package, not for those somebody may be editing.
    Raises OSError where it cannot be read and ValueError (or RecursionError) where it is no TOML.
    """
    if not keep:
        return _parse(path)
    if path not in _known:
        _known[path] = _kept(path)
    return _known[path]


def _kept(path: str) -> dict[str, Any]:
    status = os.stat(path)
    stamp = (sys.hexversion, os.path.abspath(path), status.st_mtime_ns, status.st_size)
    place = _place(stamp[1])
    try:
        with open(place, "rb") as file:
            # Not marshal.load, which asks the file for each value: ten times as slow.
            kept = marshal.loads(file.read())  # noqa: S302 - from the user's own folder, as compiled Python is
        if kept[0] == stamp:
            table: dict[str, Any] = kept[1]
            return table
    except (OSError, ValueError, EOFError, TypeError, IndexError):
        pass
    table = _parse(path)
    _keep(place, (stamp, table))
    return table


def _parse(path: str) -> dict[str, Any]:
    import tomllib

    with open(path, "rb") as file:
        text = file.read()
    if any(len(line) > LONGEST_LINE_BYTES for line in text.split(b"\n")):
        raise ValueError(f"has a line longer than {LONGEST_LINE_BYTES} bytes: break it")
    return tomllib.loads(text.decode())


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
