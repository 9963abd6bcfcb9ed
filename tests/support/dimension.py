"""A number that carries its unit, to prove the units of formulas by running them."""

from __future__ import annotations

import math
from fractions import Fraction

from capacity import ops

# Words of units as products of base units; hours and kWh differ from s and J in size, not in kind.
BASES = {
    "1": {},
    "fraction": {},
    "byte": {"byte": 1},
    "bit": {"bit": 1},
    "FLOP": {"FLOP": 1},
    "s": {"s": 1},
    "h": {"s": 1},
    "Hz": {"s": -1},
    "J": {"J": 1},
    "Wh": {"J": 1},
    "kWh": {"J": 1},
    "W": {"J": 1, "s": -1},
    "USD": {"USD": 1},
    "g": {"g": 1},
}


class UnitError(TypeError):
    """Quantities of different units were added, compared or chosen between."""


def units(text: str) -> dict[str, Fraction]:
    """Exponents of the base units in "FLOP/byte", "1/s" or "USD/h"."""
    result: dict[str, Fraction] = {}
    for position, word in enumerate(text.split("/")):
        for base, power in BASES[word].items():
            result[base] = result.get(base, Fraction(0)) + (power if position == 0 else -power)
    return {base: power for base, power in result.items() if power}


class Dim:
    """A value with a unit. Nought and infinity fit any unit, other bare numbers only a count."""

    __slots__ = ("unit", "value")

    def __init__(self, value, unit):
        self.value = value
        self.unit = units(unit) if isinstance(unit, str) else unit

    def __repr__(self):
        return f"Dim({self.value}, {'·'.join(f'{base}^{power}' for base, power in self.unit.items()) or '1'})"

    def __bool__(self):
        raise UnitError("a formula branches on a value: use ops.where")

    def __float__(self):
        raise UnitError("a formula leaves its units behind: float() of a quantity")

    def __add__(self, other):
        return Dim(self.value + _value(other), _common("+", self, other))

    __radd__ = __add__

    def __sub__(self, other):
        return Dim(self.value - _value(other), _common("-", self, other))

    def __rsub__(self, other):
        return Dim(_value(other) - self.value, _common("-", other, self))

    def __neg__(self):
        return Dim(-self.value, self.unit)

    def __mul__(self, other):
        return Dim(self.value * _value(other), _product(self, other, 1))

    __rmul__ = __mul__

    def __truediv__(self, other):
        return Dim(self.value / _value(other), _product(self, other, -1))

    def __rtruediv__(self, other):
        return Dim(_value(other) / self.value, _product(other, self, -1))

    def __pow__(self, power):
        exponent = Fraction(_pure("an exponent", power)).limit_denominator(10_000)
        value = self.value ** _value(power)
        return Dim(value, {base: own * exponent for base, own in self.unit.items() if own * exponent})

    def __rpow__(self, base):
        return Dim(base ** _pure("an exponent", self), {})

    def __lt__(self, other):
        return _compare(self, other, "__lt__")

    def __le__(self, other):
        return _compare(self, other, "__le__")

    def __gt__(self, other):
        return _compare(self, other, "__gt__")

    def __ge__(self, other):
        return _compare(self, other, "__ge__")

    def __eq__(self, other):
        return _compare(self, other, "__eq__")

    def __ne__(self, other):
        return _compare(self, other, "__ne__")

    __hash__ = None


def _value(x):
    return x.value if isinstance(x, Dim) else x


def _unit(x):
    """The unit of an operand; None for a bare nought or infinity, which fit any."""
    if isinstance(x, Dim):
        return x.unit
    return None if x == 0 or math.isinf(x) else {}


def _common(what, a, b):
    left, right = _unit(a), _unit(b)
    if left is None or right is None:
        return left if right is None else right
    if left != right:
        raise UnitError(f"{a} {what} {b}")
    return left


def _product(a, b, sign):
    result = dict(_unit(a) or {})
    for base, power in (_unit(b) or {}).items():
        result[base] = result.get(base, 0) + sign * power
    return {base: power for base, power in result.items() if power}


def _pure(what, x):
    if _unit(x):
        raise UnitError(f"{what} has a unit: {x}")
    return _value(x)


def _compare(a, b, operator):
    _common("compared with", a, b)
    return Dim(float(getattr(float(a.value), operator)(float(_value(b)))), {})


class _Operations:
    """What `ops` does to dimensions."""

    @staticmethod
    def maximum(a, b):
        return Dim(max(_value(a), _value(b)), _common("or", a, b))

    @staticmethod
    def minimum(a, b):
        return Dim(min(_value(a), _value(b)), _common("or", a, b))

    @staticmethod
    def where(condition, a, b):
        return Dim(_value(a) if _pure("a condition", condition) else _value(b), _common("or", a, b))

    @staticmethod
    def ceil(a):
        return Dim(float(math.ceil(_pure("a whole number", a))), {})

    @staticmethod
    def log(a):
        return Dim(math.log(_pure("a logarithm's argument", a)), {})

    @staticmethod
    def exp(a):
        return Dim(math.exp(_pure("an exponent", a)), {})


ops.register(Dim, _Operations)
