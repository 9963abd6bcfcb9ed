"""The largest, or the smallest, value that holds."""

from __future__ import annotations

from capacity.spec.solution import Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # Whether a value holds, and what it came to.
    Holds = Callable[[float], tuple[bool, str]]


class Trials:
    """Values as they are tried, each once."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._known: dict[float, Trial] = {}

    def __call__(self, value: float) -> bool:
        """Whether a value holds."""
        if value not in self._known:
            held, why = self._holds(value)
            self._known[value] = Trial(value, held, why)
        return self._known[value].holds

    def at(self, value: float) -> Trial:
        """What came of a value."""
        self(value)
        return self._known[value]

    def all(self) -> tuple[Trial, ...]:
        """In the order they were tried."""
        return tuple(self._known.values())


def largest(
    trials: Trials, least: float, most: float, *, whole: bool, within: float = 0.0
) -> tuple[float | None, float | None]:
    """The largest value from `least` to `most` that holds, and the one tried just above it, which does not.

    What holds at a value is taken to hold below it. whole: only whole numbers, found exactly; else within: the fraction by
    which the two may differ. Returns (None, least) where nothing holds, (most, None) where all does.
    """
    if not trials(least):
        return None, least
    low, high = least, least
    while high < most:
        high = min(high * 2.0, most)
        if not trials(high):
            break
        low = high
    else:
        return most, None
    while (high - low > 1.0) if whole else (high / low > 1.0 + within):
        middle = (low + high) // 2.0 if whole else (low * high) ** 0.5
        if trials(middle):
            low = middle
        else:
            high = middle
    return low, high


def first(trials: Trials, values: Sequence[float]) -> tuple[float | None, float | None]:
    """The first of ascending values that holds, and the one before it, which does not; nothing is taken to be monotone."""
    before = None
    for value in values:
        if trials(value):
            return value, before
        before = value
    return None, before
