"""An estimate as a record of plain types: the JSON the command prints and the lines `--plain` prints."""

from __future__ import annotations

from math import isfinite

from capacity.rendering.style import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.estimators.compression import Option
    from capacity.spec.choice import Choice
    from capacity.spec.estimate import Estimate
    from capacity.spec.solution import Solution


def record(estimate: Estimate) -> dict[str, Any]:
    """The whole answer; what is unlimited or unknown is null, since JSON has no other word for it."""
    from capacity.record import asdict

    whole = {"schema": estimate.schema, "kind": "estimate", **asdict(estimate)}
    result: dict[str, Any] = _plain(whole)
    return result


def planned_record(answer: Choice | Solution, kind: str) -> dict[str, Any]:
    """The whole answer to `capacity plan`, its estimate in full."""
    from capacity.record import asdict

    whole: dict[str, Any] = {"schema": answer.schema, "kind": kind, **asdict(answer)}
    if answer.estimate is not None:
        whole["estimate"] = record(answer.estimate)
    return whole


def compression_record(request: dict[str, Any], found: list[Option]) -> dict[str, Any]:
    """The methods that `capacity compress` weighed, those that reach the target first."""
    methods = [_method(one) for one in found]
    return {
        "schema": 1,
        "kind": "compress",
        "request": {name: str(value) for name, value in request.items()},
        "methods": methods,
    }


def _method(one: Option) -> dict[str, Any]:
    numbers = {
        name: None if value is None else {"low": value.low, "mid": value.mid, "high": value.high, "unit": value.unit}
        for name, value in (
            ("memory_per_device", one.memory),
            ("tokens_per_s_per_user", one.tokens_per_s),
            ("energy_per_token", one.energy),
            ("cost_per_million_tokens", one.cost),
        )
    }
    quality = None
    if one.quality is not None:
        quality = [{name: getattr(row, name) for name in row._fields} for row in one.quality]
    return {
        "method": one.method, "title": one.title, "kind": one.kind, "fits": one.fits, "reached": one.reached,
        "missed": list(one.missed), **numbers, "quality": quality, "note": one.note,
    }  # fmt: skip


def json(what: Any) -> str:
    """JSON text, two spaces an indent, one line at the end."""
    from json import dumps

    return dumps(_plain(what), indent=2, allow_nan=False) + "\n"


def _plain(what: Any) -> Any:
    if isinstance(what, dict):
        return {str(name): _plain(value) for name, value in what.items()}
    if isinstance(what, (list, tuple)):
        return [_plain(value) for value in what]
    if isinstance(what, bool) or what is None:
        return what
    if isinstance(what, float):  # floats that carry their lineage are written as floats
        return float(what) if isfinite(what) else None
    if isinstance(what, int):
        return int(what)
    return str(what).encode("utf-8", "backslashreplace").decode()


def lines(estimate: Estimate) -> str:
    """`key: value` lines in base units, one datum a line, ASCII, in a stable order: made for grep and awk."""
    return (
        "".join(f"{key}: {harmless(value)}\n" for key, value in _pairs(estimate))
        .encode("ascii", "backslashreplace")
        .decode()
    )


def _pairs(estimate: Estimate) -> Iterator[tuple[str, str]]:
    yield "schema", str(estimate.schema)
    for name, value in estimate.model.items():
        yield f"model.{_key(name)}", _value(value)
    for mode, section in estimate.sections.items():
        yield f"{mode}.verdict", section.verdict
        yield f"{mode}.fits", _value(section.fits)
        yield f"{mode}.binding", section.binding
        yield f"{mode}.setting", section.setting
        for name, quantity in section.quantities.items():
            unit = "" if quantity.unit == "1" else f" {quantity.unit}"
            yield f"{mode}.{_key(name)}", _value(quantity.mid) + unit
            if not quantity.exact:
                yield f"{mode}.{_key(name)}.low", _value(quantity.low) + unit
                yield f"{mode}.{_key(name)}.high", _value(quantity.high) + unit
        for kind, parts in section.breakdowns.items():
            unit = {"memory": " byte", "storage": " byte", "time": " s", "preparation": " s", "work": " FLOP"}.get(
                kind, ""
            )
            for name, size in parts.items():
                yield f"{mode}.{_key(kind)}.{_key(name)}", f"{_value(size)}{unit}"
        for number, row in enumerate(section.alternatives, 1):
            for name, value in row.items():
                yield f"{mode}.alternative.{number}.{_key(name)}", _value(value)
        for warning in section.warnings:
            yield f"{mode}.warning", warning
    for assumption in estimate.assumptions:
        unit = "" if assumption.unit in ("", "1") else f" {assumption.unit}"
        source = f" ({assumption.source})" if assumption.source else ""
        yield f"assumption.{_key(assumption.name)}", f"{_value(assumption.value)}{unit} [{assumption.tag}]{source}"
    for name, shares in estimate.sensitivities.items():
        for cause, share in shares.items():
            yield f"sensitivity.{_key(name)}.{_key(cause)}", f"{share:.4f}"
    for warning in estimate.warnings:
        yield "warning", warning


def _key(name: str) -> str:
    """A name that cannot be taken for the end of a key."""
    return harmless(str(name)).replace(" ", "_").replace(":", "_")


def _value(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, int)):
        return repr(float(value)).removesuffix(".0")
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(one) for one in value)
    return str(value)
