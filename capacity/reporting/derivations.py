"""How a number came about, as steps of a report: formula, numbers put in, inputs with where they are from."""

from __future__ import annotations

from typing import Any

from capacity import derivation
from capacity.derivation import keeps_terms, nested, origin, quantity, unit_of, unscaled
from capacity.formula import Sourced, Traced
from capacity.rendering import words
from capacity.reporting import mathematics
from capacity.reporting.content import Derivation, Step
from capacity.reporting.mathematics import spoken

MOST_STEPS = 9
_TIMES = "·"


def derive(
    label: str, name: str, value: float, *, depth: int = 4, most: int = MOST_STEPS, seen: set[str] | None = None
) -> Derivation:
    """The steps behind a value that was computed while a ledger was open: itself, then what it is made of, level by level.

    seen: what was told already, of this number or of another; it is not told again, and grows by what is told here.
    """
    steps: list[Step] = []
    seen = set() if seen is None else seen
    queue: list[tuple[str, float, str, int]] = [(name, value, "", 0)]
    while queue and len(steps) < most:
        key, part, unit, level = queue.pop(0)
        part = unscaled(part)
        if not isinstance(part, Traced) or (level and not part):
            continue
        unit = unit or unit_of(part, key)
        if level and part.call.formula.name == "scaled":  # a repetition explains nothing that its parts do not
            each, times = part.call.inputs["each"], part.call.inputs["times"]
            queue[:0] = [(key, each, unit, level), (_called(times, "times"), times, "1", level)]
            continue
        if level and keeps_terms(part.call.formula) and len(part.call.inputs["terms"]) == 1:
            queue[:0] = [(key, inside, unit, level) for inside in part.call.inputs["terms"].values()]
            continue
        shown = f"{part.call.formula.name} {float(part)!r}"
        if level and shown in seen:
            continue
        seen.add(shown)
        step, inner = _step(key, part, unit, level)
        steps.append(step)
        if level < depth:
            queue += [(one, inside, its, level + 1) for one, inside, its in inner]
    return Derivation(label, name, tuple(steps))


def _step(name: str, value: Traced, unit: str, level: int) -> tuple[Step, list[tuple[str, float, str]]]:
    """A step, and what of its inputs were computed in turn."""
    call = value.call
    formula = call.formula
    where: list[mathematics.Node]
    if keeps_terms(formula):
        terms = sorted(call.inputs["terms"].items(), key=lambda term: -abs(term[1]))
        inputs = tuple(
            (str(key), quantity(part, unit), f"{100.0 * part / float(value):.1f} %" if value else "")
            for key, part in terms
        )
        inner = [(str(key), part, unit) for key, part in terms if part]
        left, body, where, put_in, about = None, None, [], "", "the sum of"
    elif formula.name == "scaled":
        each, times = call.inputs["each"], call.inputs["times"]
        inputs = (("each", quantity(each, unit), _from(each)), ("times", quantity(times, "1"), _from(times)))
        inner = [("each", each, unit), (_called(times, "times"), times, "1")]
        left, body, where, about = mathematics.name(name), mathematics.SCALED, [], ""
        put_in = f"{quantity(each, unit)} {_TIMES} {quantity(times, '1')}"
    else:
        parts: dict[str, Any] = call.inputs | dict(nested(call))
        units = {key: unit_of(part, key) for key, part in parts.items()}
        inputs = tuple(
            (
                spoken(key),
                quantity(part, units[key]),
                _from(part, "in the formula" if formula.defaults.get(key) == part else ""),
            )
            for key, part in parts.items()
            if not isinstance(part, dict)
        )
        inner = [(spoken(key), part, units[key]) for key, part in parts.items() if isinstance(part, Traced)]
        left = mathematics.symbol(formula.symbol)
        body, where = mathematics.body(formula)
        texts = {key: quantity(part, units[key], factor=True) for key, part in parts.items()}
        put_in = derivation.substituted(formula)(texts, _TIMES)
        about = formula.derivation.strip().partition("\n")[0]
    return Step(
        name=words.label(name) if level == 0 else spoken(name),
        left=left,
        body=body,
        where=tuple(where),
        put_in=put_in,
        value=quantity(value, unit),
        about=about,
        source=formula.cite,
        inputs=inputs,
        level=level,
    ), inner  # fmt: skip


def _called(value: float, otherwise: str) -> str:
    return spoken(value.call.formula.name) if isinstance(value, Traced) else otherwise


def _from(value: Any, otherwise: str = "") -> str:
    if isinstance(value, Traced):
        return "derived"
    if isinstance(value, Sourced) and value.label:
        said = origin(value, otherwise).strip()
        return f"{value.label}, {said}" if said else value.label
    return origin(value, otherwise).strip()
