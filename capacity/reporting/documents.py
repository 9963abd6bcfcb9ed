"""What a report is made of: documents that the other commands wrote, each of a kind, and estimates of its own."""

from __future__ import annotations

import json
import os
from typing import Any

from capacity.errors import CapacityError, FileFormatError, InputError
from capacity.record import Record
from capacity.reporting.machines import STORES, read_store
from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

MOST_BYTES = 64 * 2**20
MOST_CASES = 4000  # of a sweep that are told
_MODES = ("train.", "serve.", "finetune.", "lora.")
_ON_EVERY = ("schema", "kind")  # keys that say nothing of what a document holds


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
    if path.endswith(STORES):
        return Document("bench", os.path.basename(path).partition(".jsonl")[0], read_store(path))
    text = _text(path)
    if path.endswith((".md", ".txt")):
        return Document("notes", os.path.basename(path), {"text": text})
    if path.endswith(".csv"):
        return predictions(text, path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError(f"{shown} is no JSON document: give one that `capacity ... --json` wrote") from None
    if not isinstance(data, dict):
        raise FileFormatError(
            f"{shown} holds a {type(data).__name__}, no document: give what `capacity ... --json` wrote"
        )
    return document(data, os.path.basename(path))


def _text(path: str) -> str:
    """A file as text, or standard input where it is `-`."""
    shown = path[-80:]
    if path == "-":
        import sys

        return sys.stdin.read(MOST_BYTES)
    try:
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise FileFormatError(
                f"{shown} has {size / 2**20:.0f} MiB; a report takes files of at most {MOST_BYTES // 2**20}"
            )
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise FileFormatError(f"cannot read {shown}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{shown} is not a text file: give a document that `capacity ... --json` wrote") from None


def predictions(text: str, path: str) -> Document:
    """What `capacity validate --predictions FILE` wrote, scored again; or the answers of `capacity sweep`."""
    from io import StringIO

    try:
        import pandas as pd

        from capacity.validation import scoring
    except ModuleNotFoundError as error:
        raise InputError(f'predictions need {error.name}: pip install "model-capacity[sweep]"') from None
    try:
        rows = pd.read_csv(StringIO(text))
    except ValueError as error:  # empty, or with ragged rows
        raise FileFormatError(f"{path[-80:]}: cannot be read as a table ({str(error).strip()})") from None
    name = os.path.basename(path).removesuffix(".csv")
    if any(str(column).startswith(_MODES) for column in rows.columns):  # the answers of a sweep
        answers = json.loads(rows.head(MOST_CASES).to_json(orient="records", double_precision=15))
        return Document("sweep", name, {"kind": "sweep", "cases": len(rows), "rows": answers})
    lacking = {"id", "measured", "low", "mid", "high"} - set(rows.columns)
    if lacking:
        raise FileFormatError(
            f"{path[-80:]} lacks the column {min(lacking)}: give what `capacity validate --predictions` wrote"
        )
    for column in ("measured", "low", "mid", "high"):
        try:
            rows[column] = pd.to_numeric(rows[column])
        except (ValueError, TypeError) as error:
            raise FileFormatError(f"{path[-80:]}: the column {column} holds what is no number ({error})") from None
    rows["why"] = rows["why"].fillna("") if "why" in rows else ""
    metrics = rows["metric"].unique() if "metric" in rows else [name]
    keys = [(one,) for one in ("op", "family", "kind", "stack", "engine", "device") if one in rows]
    groups: list[dict[str, Any]] = []
    for metric in metrics:
        part = rows[rows["metric"] == metric] if "metric" in rows else rows
        groups += scoring.by_metric(part, str(metric), [key for key in keys if part[key[0]].notna().any()])
    first = rows[rows["metric"] == metrics[0]] if "metric" in rows else rows
    scores = scoring.document(
        name, rows, scoring.score(first, str(metrics[0])), groups, unit="1", views={key[0]: key for key in keys}, worst_of=first,
        baselines={"baseline_mdape": "simpler"} if "baseline" in rows else {},
    )  # fmt: skip
    return Document("validation", name, scored(scores))


def document(data: dict[str, Any], name: str) -> Document:
    """A document of the kind that its keys say; raises FileFormatError for what no command wrote."""
    kind = str(data.get("kind", ""))
    if {"overall", "groups"} <= data.keys():
        return Document("validation", kind or name, data)
    if "methods" in data and "request" in data:
        return Document("compress", name, data)
    if kind == "estimate" or {"sections", "assumptions"} <= data.keys():
        return asked_again(data, name)
    if not set(_ON_EVERY) & data.keys() or not any(data.get(key) for key in data if key not in _ON_EVERY):
        raise FileFormatError(
            f"{name[-80:]} is no document of this program: give what `capacity estimate`, `validate`, `compress`, `plan`, "
            "`sweep` or `calibrate` wrote with --json, or a store of `capacity bench`"
        )
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


def asked_again(data: dict[str, Any], name: str) -> Document:
    """An estimate from a file; with its question, where asking it here gives the same answer: then it can be derived."""
    asked = data.get("request")
    if not isinstance(asked, dict) or {"catalogue", "site"} & asked.keys():
        return Document("estimate", name, data)
    if all(isinstance(value, (str, int, float, bool)) for value in asked.values()):
        try:
            fresh = estimated(asked)
        except CapacityError:
            return Document("estimate", name, data)
        told, found = _middles(data), _middles(fresh.data)
        if told and all(found.get(key) == value for key, value in told.items()):
            return Document("estimate", name, data, asked)
    return Document("estimate", name, data)


def _middles(data: dict[str, Any]) -> dict[str, Any]:
    sections = data.get("sections")
    if not isinstance(sections, dict):
        return {}
    return {
        f"{mode}.{name}": quantity.get("mid")
        for mode, part in sections.items()
        for name, quantity in part.get("quantities", {}).items()
    }


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


def validated(kind: str, data: str | None = None) -> Document:
    """The scores of a kind of predictions against measurements, the project's own or a table's, with the predictions."""
    from capacity.validation import validate

    request = {"validate": kind} if data is None else None  # a table of the user's is kept as what came of it
    return Document("validation", kind, scored(validate(kind, data)), request)


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
