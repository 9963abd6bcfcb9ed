"""One half of an estimate, as the drawings take it: the answer, and the ledger behind it where the question can be asked again."""

from __future__ import annotations

from typing import Any

from capacity.errors import CapacityError
from capacity.formula import Traced
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.formula import Call
    from capacity.spec.estimate import Estimate, Section


# Sections with one of these are asked again with settings turned.
_TURNED = {"step_time", "tpot", "latency"}


class Shown(Record):
    """mode, part: which section of the answer. request: the question, None where it is not known. found: every value, traced."""

    mode: str
    part: Section
    answer: Estimate
    request: dict[str, Any] | None = None
    found: dict[str, float] = {}

    @property
    def training(self) -> bool:
        """Whether this is a run that trains."""
        return "step_time" in self.part.quantities

    def value(self, name: str) -> float | None:
        """The middle of a quantity, None where this part has none."""
        quantity = self.part.quantities.get(name)
        return None if quantity is None else quantity.mid


def shown(answer: Estimate, request: dict[str, Any] | None) -> list[Shown]:
    """Every section of an answer; the ledger is opened once, and stays shut for questions whose numbers have none."""
    found: dict[str, float] = {}
    if request is not None:
        from capacity.estimators.answer import values
        from capacity.formula import ledger

        try:
            with ledger():
                found = values(**request)
        except CapacityError:
            request = None
    return [
        Shown(mode, part, answer, request if part.quantities.keys() & _TURNED else None, found)
        for mode, part in answer.sections.items()
    ]


def calls(value: Any) -> list[tuple[Call, float, tuple[str, ...]]]:
    """Every call behind a value once, callers first: how many times it counts in the value, and the names it hangs from.

    A call that several others use is one call here, so a ledger of a thousand shared sums is walked in its own length.
    """
    order: list[tuple[Call, tuple[str, ...]]] = []
    seen: set[int] = set()
    # Depth first, a call after all that it uses: turned round, every caller comes before what it calls.
    waiting: list[tuple[Any, tuple[str, ...], bool]] = [(value, (), False)]
    while waiting:
        part, path, done = waiting.pop()
        if done:
            order.append((part.call, path))
        elif isinstance(part, dict):
            waiting += [(inner, (*path, str(name)), False) for name, inner in part.items()]
        elif isinstance(part, Traced) and id(part.call) not in seen:
            seen.add(id(part.call))
            waiting.append((part, path, True))
            waiting += [(inner, (*path, *name), False) for inner, name, _ in _used(part.call)]
    times = dict.fromkeys(seen, 0.0)
    if isinstance(value, Traced):
        times[id(value.call)] = 1.0
    elif isinstance(value, dict):
        times |= {id(inner.call): 1.0 for inner in value.values() if isinstance(inner, Traced)}
    for call, _ in reversed(order):
        for inner, _, factor in _used(call):
            times[id(inner.call)] += times[id(call)] * factor
    return [(call, times[id(call)], path) for call, path in reversed(order)]


def _used(call: Call) -> Iterator[tuple[Traced, tuple[str, ...], float]]:
    """The calls whose values a call was given: their names, and how often each counts."""
    if call.formula.name == "scaled":
        if isinstance(call.inputs["each"], Traced):
            yield call.inputs["each"], (), float(call.inputs["times"])
        return
    for name, inner in call.inputs.get("terms", call.inputs).items():
        if isinstance(inner, Traced):
            yield inner, (str(name),), 1.0
