"""The few operations formulas may use beside arithmetic.

Each works on floats (no import), on NumPy columns, and on any type registered with `register`
(SymPy symbols when a formula is printed, dimensions when its unit is proved in tests), so that
one formula body serves the single estimate, the sweep, the document and the proof. To the type
checker a formula is about floats: a column is a float in every row.
"""

from __future__ import annotations

import math
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_registered: list[tuple[type, Any]] = []


def register(kind: type, namespace: Any) -> None:
    """Let `namespace.maximum`, `.minimum`, `.where`, `.ceil`, `.log`, `.exp` serve values of type `kind`."""
    if all(known is not kind for known, _ in _registered):
        _registered.append((kind, namespace))


def _namespace(*values: Any) -> Any:
    for kind, namespace in _registered:
        if any(isinstance(value, kind) for value in values):
            return namespace
    # A column can only exist where NumPy has been imported already.
    return sys.modules.get("numpy")


def _plain(*values: Any) -> bool:
    for value in values:
        # NumPy's float64 is a float too; the plain type, which nearly all are, is told at once.
        if type(value) is not float and (not isinstance(value, (float, int)) or hasattr(value, "dtype")):
            return False
    return True


# Nearly all values are plain floats, which are told apart before anything is called.


def maximum(a: float, b: float) -> float:
    """The larger of two values, element by element; NaN wins, as in NumPy."""
    if (type(a) is float and type(b) is float) or _plain(a, b):
        return a if a >= b or a != a else b
    columns: float = _namespace(a, b).maximum(a, b)
    return columns


def minimum(a: float, b: float) -> float:
    """The smaller of two values, element by element; NaN wins, as in NumPy."""
    if (type(a) is float and type(b) is float) or _plain(a, b):
        return a if a <= b or a != a else b
    columns: float = _namespace(a, b).minimum(a, b)
    return columns


def where(condition: float, a: float, b: float) -> float:
    """`a` where the condition holds (is not 0), else `b`; both are computed."""
    if type(condition) is bool or _plain(condition):
        return a if condition else b
    columns: float = _namespace(condition, a, b).where(condition, a, b)
    return columns


def is_column(value: Any) -> bool:
    """Whether a value is a column: a number in every row, instead of one."""
    return not isinstance(value, (float, int)) and hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0


def anywhere(condition: Any) -> bool:
    """Whether a condition holds, of a column in any row: what holds nowhere need not be computed."""
    return (
        bool(condition)
        if type(condition) is bool or _plain(condition) or not hasattr(condition, "any")
        else bool(condition.any())
    )


def everywhere(condition: Any) -> bool:
    """Whether a condition holds, of a column in all rows."""
    return (
        bool(condition)
        if type(condition) is bool or _plain(condition) or not hasattr(condition, "all")
        else bool(condition.all())
    )


def floor(a: float) -> float:
    """The largest whole number not above `a`, as a float."""
    return -ceil(-a)


def rounded(a: float) -> float:
    """The nearest whole number, as a float; halves go to the even one."""
    if _plain(a):
        return float(round(a))
    columns: float = _namespace(a).rint(a)
    return columns


def ceil(a: float) -> float:
    """The smallest whole number not below `a`, as a float (a count may exceed an int64 column)."""
    if _plain(a):
        return float(math.ceil(a)) if math.isfinite(a) else a
    columns: float = _namespace(a).ceil(a)
    return columns


def log(a: float) -> float:
    """Natural logarithm."""
    if _plain(a):
        return math.log(a)
    columns: float = _namespace(a).log(a)
    return columns


def exp(a: float) -> float:
    """Natural exponential."""
    if _plain(a):
        return math.exp(a)
    columns: float = _namespace(a).exp(a)
    return columns
