"""One half of an estimate, as the drawings take it: the answer, and the ledger behind it where the question can be asked again."""

from __future__ import annotations

from typing import Any

from capacity.formula import Traced
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.formula import Call
    from capacity.spec.estimate import Estimate, Section


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
    """Every section of an answer; the ledger is opened once."""
    found: dict[str, float] = {}
    if request is not None:
        from capacity.estimators.answer import values
        from capacity.formula import ledger

        with ledger():
            found = values(**request)
    return [Shown(mode, part, answer, request, found) for mode, part in answer.sections.items()]


def calls(value: Any, times: float = 1.0, path: tuple[str, ...] = ()) -> Iterator[tuple[Call, float, tuple[str, ...]]]:
    """Every call behind a value, how many times it counts in it, and the names it hangs from."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from calls(part, times, (*path, str(name)))
    elif isinstance(value, Traced):
        call = value.call
        yield call, times, path
        if call.formula.name == "scaled":
            yield from calls(call.inputs["each"], times * float(call.inputs["times"]), path)
        else:
            yield from calls(call.inputs.get("terms", call.inputs), times, path)
