"""What a report remembers of how it was made, and what changes when it is made again."""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from typing import Any

from capacity.errors import FileFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capacity.reporting.documents import Document

SCHEMA = 1
NAME = "capacity-provenance"
_PROGRAMS = ("matplotlib", "jinja2", "typst", "sympy")
_CHANGED = 1e-9  # of a number: less is how it was rounded


def of(inputs: Sequence[Document], title: str) -> dict[str, Any]:
    """Inputs, versions and results, as plain data."""
    return {
        "schema": SCHEMA,
        "kind": "report",
        "title": title,
        "versions": versions(),
        "inputs": [_input(document) for document in inputs],
        "results": dict(_results(inputs)),
    }


def versions() -> dict[str, str]:
    """Of this package and of what sets its reports."""
    from importlib.metadata import PackageNotFoundError, version

    from capacity import __version__

    found = {"capacity": __version__, "Python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in _PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _input(document: Document) -> dict[str, Any]:
    """A document, whole, or only the question where it can be asked again."""
    kept: dict[str, Any] = {"kind": document.kind, "name": document.name}
    if document.request is not None:
        return {**kept, "request": document.request, "files": _files(document.request)}
    return {**kept, "data": document.data}


def _files(request: dict[str, Any]) -> dict[str, str]:
    """The text of a configuration that the question names, since the file may be gone next time."""
    path = request.get("config")
    if not isinstance(path, str) or not os.path.isfile(path) or os.path.getsize(path) > 2**18:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            return {path: file.read()}
    except (OSError, UnicodeDecodeError):
        return {}


def _results(inputs: Sequence[Document]) -> Iterator[tuple[str, float]]:
    """The numbers of all documents by name, to tell what moved."""
    for place, document in enumerate(inputs):
        yield from _numbers(document.data, f"{place}.{document.kind}")


def _numbers(data: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        if "mid" in data and isinstance(data["mid"], (int, float)):
            yield name, float(data["mid"])
            return
        for key, value in data.items():
            if key not in ("rows", "worst", "request", "assumptions", "sensitivities", "schema", "space", "seconds"):
                yield from _numbers(value, f"{name}.{key}")
    elif isinstance(data, list):
        for one in data:
            if isinstance(one, dict) and "method" in one:
                yield from _numbers(one, f"{name}.{one['method']}")
    elif isinstance(data, (int, float)) and not isinstance(data, bool):
        yield name, float(data)


def read(path: str) -> dict[str, Any]:
    """What a report, as a page or a document, remembers; raises FileFormatError."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise FileFormatError(f"cannot read {path[-80:]}: {error.strerror or error}") from None
    for text in _candidates(raw):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("kind") == "report" and "inputs" in found:
            if found.get("schema") != SCHEMA:
                raise FileFormatError(
                    f"{path[-80:]} was made by another version (schema {found.get('schema')}, not {SCHEMA})"
                )
            return found
    raise FileFormatError(f"{path[-80:]} remembers no inputs: give a page or document that `capacity report` wrote")


def _candidates(raw: bytes) -> Iterator[bytes]:
    """Texts that may be the provenance: a script of a page, or a compressed stream of a document."""
    if raw.startswith(b"%PDF"):
        for found in re.finditer(rb"stream\r?\n", raw):
            try:
                text = zlib.decompressobj().decompress(raw[found.end() :])
            except zlib.error:
                continue
            if text.startswith(b"{"):
                yield text
        return
    script = re.search(rb'<script type="application/json" id="' + NAME.encode() + rb'">(.*?)</script>', raw, re.DOTALL)
    if script:
        yield script[1]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not as it was, a line each: versions, then numbers, those that moved most first."""
    lines = [
        f"{name}: {before['versions'].get(name, 'none')} then, {now} now"
        for name, now in after["versions"].items()
        if before["versions"].get(name) != now
    ]
    old, new = before["results"], after["results"]
    moved = [
        (abs(new[name] / old[name] - 1.0), name)
        for name in old.keys() & new.keys()
        if old[name] and abs(new[name] / old[name] - 1.0) > _CHANGED
    ]
    moved += [(float("inf"), name) for name in old.keys() & new.keys() if not old[name] and new[name]]
    for _, name in sorted(moved, key=lambda one: (-one[0], one[1])):
        ratio = f" ({new[name] / old[name] - 1.0:+.2%})" if old[name] else ""
        lines.append(f"{name}: {old[name]:.6g} then, {new[name]:.6g} now{ratio}")
    lines += [f"{name}: was {old[name]:.6g}, is no longer told" for name in sorted(old.keys() - new.keys())]
    lines += [f"{name}: {new[name]:.6g} is new" for name in sorted(new.keys() - old.keys())]
    return lines
