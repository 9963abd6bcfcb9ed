"""Intervals: how far each uncertain input can move each quantity, and which input moves it most.

An uncertain input has a 90 % range as factors on its mid value. Each is moved to its ends alone; the
(log) moves of independent inputs add in squares. The same pass says what the interval is made of.
"""

from __future__ import annotations

from capacity import ops
from capacity.record import Record
from capacity.spec.estimate import Quantity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Quantities for given factors on what is uncertain; a missing factor is 1.
    Account = Callable[[Mapping[str, float]], dict[str, "Value"]]


class Uncertain(Record):
    """A factor of mid value 1 with its 90 % range, and where the range comes from."""

    name: str
    low: float
    high: float
    source: str


class Value:
    """A quantity before it has an interval. Hundreds are made for one answer, so it is no Record."""

    __slots__ = ("mid", "note", "unit")

    def __init__(self, mid: float, unit: str, note: str = "") -> None:
        self.mid = mid
        self.unit = unit
        self.note = note


def with_intervals(
    account: Account,
    uncertain: tuple[Uncertain, ...],
    variants: tuple[dict[str, Value], ...] = (),
) -> tuple[dict[str, Quantity], dict[str, dict[str, float]]]:
    """Quantities with intervals, and for each the share of its squared width by uncertain input.

    account: quantities for given factors (missing ones are 1). variants: the same quantities for other
    plausible models, when the model itself was inferred.
    """
    middle = account({})
    moves: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in middle}
    for factor in uncertain:
        low, high = account({factor.name: factor.low}), account({factor.name: factor.high})
        for name, value in middle.items():
            _note_move(moves[name], factor.name, value.mid, low[name].mid, high[name].mid)
    if variants:
        for name, value in middle.items():
            # Rows that a variant has no such quantity of stay where they are.
            others = [variant[name].mid for variant in variants if name in variant]
            others = [ops.where(other == other, other, value.mid) for other in others]
            if others:
                _note_move(moves[name], "model shape", value.mid, *_ends([*others, value.mid]))
    quantities = {name: _quantity(name, value, moves[name]) for name, value in middle.items()}
    sensitivities = {name: shares for name in middle if (shares := _shares(moves[name]))}
    return quantities, sensitivities


def _ends(values: list[float]) -> tuple[float, float]:
    """The least and the largest of some values, row by row."""
    least = most = values[0]
    for value in values[1:]:
        least, most = ops.minimum(least, value), ops.maximum(most, value)
    return least, most


def _note_move(moves: dict[str, tuple[float, float]], name: str, mid: float, a: float, b: float) -> None:
    moved = (mid > 0.0) & (a > 0.0) & (b > 0.0) & ((a != mid) | (b != mid))
    if ops.anywhere(moved):
        down = ops.log(ops.minimum(ops.minimum(a, b), mid) / mid)
        up = ops.log(ops.maximum(ops.maximum(a, b), mid) / mid)
        moves[name] = (ops.where(moved, down, 0.0), ops.where(moved, up, 0.0))


def _quantity(name: str, value: Value, moves: dict[str, tuple[float, float]]) -> Quantity:
    down = sum(low * low for low, _ in moves.values()) ** 0.5
    up = sum(high * high for _, high in moves.values()) ** 0.5
    mid = value.mid if ops.is_column(value.mid) else float(value.mid)
    low, high = mid * ops.exp(-down), mid * ops.exp(up)
    if value.unit == "fraction":
        high = ops.maximum(mid, ops.minimum(high, 1.0))
    return Quantity(name, low, mid, high, value.unit, value.note)


def _shares(moves: dict[str, tuple[float, float]]) -> dict[str, float]:
    squares = {name: (high - low) ** 2 for name, (low, high) in moves.items()}
    whole = sum(squares.values())
    if ops.is_column(whole) or whole == 0.0:
        return {}  # of a column every row has its own
    return {name: part / whole for name, part in sorted(squares.items(), key=lambda item: -item[1])}
