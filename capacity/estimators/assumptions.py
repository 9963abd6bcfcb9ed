"""What an answer rests on: every value with its tag, the user's own before anything else."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.estimators.refusal import refuse
from capacity.formula import sourced
from capacity.spec.estimate import Assumption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The order of trust.
TAGS = ("user", "measured", "catalogue", "model", "inferred", "default")


class Assumptions:
    """Collects assumptions in the order they are made; a later one of the same name replaces the earlier."""

    def __init__(self) -> None:
        self._by_name: dict[str, Assumption] = {}

    def note(self, name: str, value: float | str, unit: str, tag: str, source: str = "") -> None:
        """Record an assumption."""
        plain = float(value) if isinstance(value, (float, int)) else value
        self._by_name[name] = Assumption(name, plain, unit, tag, source)

    def take(
        self, name: str, given: float | None, fallback: float, unit: str, source: str, tag: str = "default"
    ) -> float:
        """The user's value, or the fallback; either is recorded and knows where it came from."""
        if given is None:
            self.note(name, fallback, unit, tag, source)
            # A fallback that was derived keeps its derivation.
            return sourced(fallback, name, source, tag)
        self.note(name, given, unit, "user")
        return sourced(given, name, "given", "user")

    def all(self) -> tuple[Assumption, ...]:
        """Every assumption, the most trusted first."""
        return tuple(sorted(self._by_name.values(), key=lambda item: TAGS.index(item.tag)))


def number(
    name: str,
    value: Any,
    unit: str = "1",
    least: float = 0.0,
    most: float = 1e30,
    *,
    whole: bool = False,
    above: bool = False,
) -> float | None:
    """A number given by the user, checked; text is read as a quantity; None stays None; of a column each row is checked.

    above: `least` itself is refused.
    """
    if value is None:
        return None
    if isinstance(value, str):
        from capacity.quantities import parse

        value = parse(value, unit)
    if ops.is_column(value):
        result = value
        outside = (result < least) | (result > most) | (result != result)
        outside = outside | (result == least) if above else outside
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} is {value!r:.60}; give a number")
    else:
        result = float(value)
        outside = result != result or not least <= result <= most or (above and result == least)
    bound = "more than" if above else "at least"
    refuse(outside, lambda row: f"{name} is {row(value)!r:.60}; it must be {bound} {least:g} and at most {most:g}")
    if whole:
        refuse(result != ops.floor(result), lambda row: f"{name} is {row(value)!r:.60}; it must be a whole number")
    number: float = result
    return number


def one_of(name: str, value: str | None, choices: tuple[str, ...]) -> str | None:
    """A word from a list, or None; a near miss is named."""
    if value is None or value in choices:
        return value
    from difflib import get_close_matches

    near = get_close_matches(str(value).lower(), choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(choices)}"
    raise InputError(f"{name} is {value!r:.60}: {hint}")
