"""A file of measurements, one JSON document a line, that survives a kill at any point.

A line is written by one call and flushed to the disk before the next case begins. A kill can leave the last line
short, and nothing else: opening the file again drops that line, and the suite visits that case once more.
"""

from __future__ import annotations

import json
import os

from capacity.errors import FileFormatError, InputError
from capacity.record import asdict
from capacity.spec.measurement import Measurement, Sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

SCHEMA = 1


class Store:
    """Appends to a file; use it as a context manager. Raises InputError while another process writes to it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Self:
        import fcntl

        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(f"{self.path[:200]} cannot be written: {error.strerror or error}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise InputError(f"{self.path[:200]} is being written by another run: wait, or name another file") from None
        try:
            os.ftruncate(self._file, _whole_bytes(self._file))
            self.environments, self.measurements = read(self.path)
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add_environment(self, key: str, facts: dict[str, Any]) -> None:
        """Keep what is known of the machine, once."""
        if key not in self.environments:
            self.environments[key] = facts
            self._append({"schema": SCHEMA, "type": "environment", "key": key, **facts})

    def add(self, measurement: Measurement) -> None:
        """Keep one visit."""
        self.measurements.append(measurement)
        self._append({"schema": SCHEMA, "type": "measurement", **asdict(measurement)})

    def _append(self, document: dict[str, Any]) -> None:
        line = json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)


def read(path: str) -> tuple[dict[str, dict[str, Any]], list[Measurement]]:
    """Environments by key and measurements in order; a last line without its end is left out.

    Raises FileFormatError for a file that is missing or holds anything else.
    """
    environments: dict[str, dict[str, Any]] = {}
    measurements: list[Measurement] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                document = _document(path, number, line)
                kind = document.pop("type", None)
                document.pop("schema", None)
                if kind not in ("environment", "measurement"):
                    raise FileFormatError(f"{path}: line {number} is of type {str(kind)[:40]!r}, no measurement")
                try:
                    if kind == "environment":
                        environments[document.pop("key")] = document
                    else:
                        measurements.append(_measurement(document))
                except (KeyError, TypeError, ValueError) as error:
                    raise FileFormatError(f"{path}: line {number} is no measurement ({str(error)[:120]})") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror or error})") from None
    return environments, measurements


def _document(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise FileFormatError(f"{path}: line {number} is not JSON ({str(error)[:80]})") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: line {number} is not of schema {SCHEMA}; it may come from another version")
    return document


def _measurement(document: dict[str, Any]) -> Measurement:
    for name in ("warmups", "samples"):
        document[name] = tuple(Sample(**sample) for sample in document.get(name, ()))
    if document.get("energy_interval_j"):
        document["energy_interval_j"] = tuple(document["energy_interval_j"])
    return Measurement(**document)


def _whole_bytes(descriptor: int) -> int:
    """Length of the file up to its last line end."""
    size = os.fstat(descriptor).st_size
    block = 65536
    while size > 0:
        start = max(size - block, 0)
        found = os.pread(descriptor, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0
