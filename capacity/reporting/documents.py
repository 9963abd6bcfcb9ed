"""What a report is made of: documents that the other commands wrote, each of a kind, and estimates of its own."""

from __future__ import annotations

import json
import os
from typing import Any

from capacity.errors import FileFormatError
from capacity.record import Record
from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

MOST_BYTES = 64 * 2**20


class Document(Record):
    """One input of a report.

    kind: "estimate", "validation", "compress", "bench", "plan", "sweep", or what a document calls itself. name: what a reader
    knows it by. data: as it was read. request: how to make it again, where that is known: {"command", options}.
    """

    kind: str
    name: str
    data: Any
    request: dict[str, Any] | None = None


def read(path: str) -> Document:
    """The document in a file; raises FileFormatError."""
    shown = path[-80:]
    try:
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise FileFormatError(
                f"{shown} has {size / 2**20:.0f} MiB; a report takes files of at most {MOST_BYTES // 2**20}"
            )
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise FileFormatError(f"cannot read {shown}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileFormatError(
            f"{shown} is not a text file: give a JSON document that `capacity ... --json` wrote"
        ) from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError(f"{shown} is no JSON document: give one that `capacity ... --json` wrote") from None
    if not isinstance(data, dict):
        raise FileFormatError(
            f"{shown} holds a {type(data).__name__}, no document: give what `capacity ... --json` wrote"
        )
    return document(data, os.path.basename(path))


def document(data: dict[str, Any], name: str) -> Document:
    """A document of the kind that its keys say."""
    kind = str(data.get("kind", ""))
    if {"overall", "groups"} <= data.keys():
        return Document("validation", kind or name, data)
    if "methods" in data and "request" in data:
        return Document("compress", name, data)
    if kind == "estimate" or {"sections", "assumptions"} <= data.keys():
        return Document("estimate", name, data)
    return Document(kind or "data", name, data)


def estimate_of(data: dict[str, Any], name: str = "estimate") -> Estimate:
    """The record of an estimate's JSON; raises FileFormatError where it is not one."""
    try:
        sections = {
            mode: Section(
                **{
                    **section,
                    "quantities": {key: Quantity(**_unlimited(value)) for key, value in section["quantities"].items()},
                    "alternatives": tuple(section.get("alternatives", ())),
                    "warnings": tuple(section.get("warnings", ())),
                }
            )
            for mode, section in data["sections"].items()
        }
        return Estimate(
            request=data["request"],
            model=data["model"],
            sections=sections,
            assumptions=tuple(Assumption(**one) for one in data["assumptions"]),
            warnings=tuple(data.get("warnings", ())),
            sensitivities=data.get("sensitivities", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{name} is no estimate that can be read ({error}): write it again with --json") from None


def _unlimited(quantity: dict[str, Any]) -> dict[str, Any]:
    """JSON has null for what has no limit."""
    ends = {key: float("inf") if quantity[key] is None else float(quantity[key]) for key in ("low", "mid", "high")}
    return {**quantity, **ends}


def estimated(request: dict[str, Any]) -> Document:
    """The estimate that a question asks for."""
    from capacity.estimators.answer import estimate
    from capacity.rendering.record import record

    return Document("estimate", "estimate", record(estimate(**request)), request)


def compressed(request: dict[str, Any]) -> Document:
    """The methods that make a model smaller, for a question with the options of `capacity compress`."""
    from capacity.estimators.compression import compress
    from capacity.rendering.record import compression_record
    from capacity.rendering.record import json as written

    record = json.loads(written(compression_record(request, compress(**request))))
    return Document(
        "compress", f"{request.get('model', 'model')} on {request.get('device', 'a device')}", record, request
    )


def validated(kind: str) -> Document:
    """The scores of a kind of predictions against the project's own measurements, with the predictions."""
    from capacity.validation import validate

    return Document("validation", kind, scored(validate(kind)), {"validate": kind})


def scored(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores as plain data: JSON of `capacity validate`, and the rows that figures are drawn of."""
    rows = scores.pop("rows")
    views = {name: list(keys) for name, keys in scores.pop("views").items()}
    named = (
        "id",
        "device",
        "model",
        "stack",
        "engine",
        "op",
        "source",
        "class",
        "kind",
        "metric",
        "measured",
        "low",
        "mid",
        "high",
    )
    columns = [name for name in named if name in rows.columns]
    kept = json.loads(rows[columns].to_json(orient="records", double_precision=15))
    return {**scores, "views": views, "rows": kept}


def remade(kept: dict[str, Any]) -> Document:
    """An input of an earlier report: its question asked again where there is one, else as it was."""
    request = kept.get("request")
    if request is None:
        return Document(kept["kind"], kept["name"], kept["data"])
    if kept["kind"] == "validation":
        return validated(request["validate"])
    request = {name: tuple(value) if isinstance(value, list) else value for name, value in request.items()}
    request |= _restored(kept.get("files", {}), request)
    return compressed(request) if kept["kind"] == "compress" else estimated(request)


def _restored(files: dict[str, str], request: dict[str, Any]) -> dict[str, str]:
    """The configuration of a question, from the report itself where the file is gone."""
    path = request.get("config")
    if path is None or path not in files or os.path.exists(path):
        return {}
    import tempfile

    # A model is called after the folder of its configuration.
    folder = os.path.join(
        tempfile.mkdtemp(prefix="capacity-"), os.path.basename(os.path.dirname(os.path.abspath(path)))
    )
    os.makedirs(folder)
    place = os.path.join(folder, os.path.basename(path))
    with open(place, "w", encoding="utf-8") as file:
        file.write(files[path])
    return {"config": place}
