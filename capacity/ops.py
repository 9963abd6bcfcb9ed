"""The few operations formulas may use beside arithmetic.

Each works on floats (no import), on NumPy columns, and on any type registered with `register`
(SymPy symbols when a formula is printed, dimensions when its unit is proved in tests), so that
one formula body serves the single estimate, the sweep, the document and the proof.
"""

import math
import sys
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
    return all(isinstance(value, (float, int)) and not hasattr(value, "dtype") for value in values)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values, element by element; NaN wins, as in NumPy."""
    if _plain(a, b):
        return a if a >= b or a != a else b
    return _namespace(a, b).maximum(a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values, element by element; NaN wins, as in NumPy."""
    if _plain(a, b):
        return a if a <= b or a != a else b
    return _namespace(a, b).minimum(a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; both are computed."""
    if _plain(condition):
        return a if condition else b
    return _namespace(condition, a, b).where(condition, a, b)


def ceil(a: Any) -> Any:
    """The smallest whole number not below `a`, as a float (a count may exceed an int64 column)."""
    if _plain(a):
        return float(math.ceil(a))
    return _namespace(a).ceil(a)


def log(a: Any) -> Any:
    """Natural logarithm."""
    if _plain(a):
        return math.log(a)
    return _namespace(a).log(a)


def exp(a: Any) -> Any:
    """Natural exponential."""
    if _plain(a):
        return math.exp(a)
    return _namespace(a).exp(a)
