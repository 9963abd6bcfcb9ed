"""Formulas that explain themselves: the registry, the ledger and the derivation tree.

A formula is a pure function over named numbers whose parameter names carry their units
(`weight_bytes`, `bytes_per_element`, `peak_flop_per_s`; a bare name is a count). The decorator
only registers it; a call costs one global check. While a `ledger()` is open each call returns a
`Traced` float that remembers its formula and inputs, so the lineage of a result is the tree of
calls that made it and `--explain` has nothing to reconstruct.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, ParamSpec, Self, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    Recorder = Callable[["Formula", tuple[Any, ...], dict[str, Any]], Any]


class Formula:
    """What is known of a registered formula: name, unit, symbol, source, and the function itself."""

    __slots__ = ("cite", "function", "name", "symbol", "unit")

    def __init__(self, function: Callable[..., Any], unit: str, symbol: str, cite: str) -> None:
        self.function = function
        self.name: str = function.__name__
        self.unit = unit
        self.symbol = symbol
        self.cite = cite

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        code: CodeType = self.function.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters that need not be given, with their values."""
        code: CodeType = self.function.__code__
        positional = self.function.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(positional) : code.co_argcount]
        return dict(zip(names, positional, strict=True)) | (self.function.__kwdefaults__ or {})

    @property
    def derivation(self) -> str:
        """The docstring: numbered derivation, what it counts, what it ignores, where it is valid."""
        return self.function.__doc__ or ""


class Call:
    """One recorded evaluation: a formula, its named inputs and its value."""

    __slots__ = ("formula", "inputs", "value")

    def __init__(self, formula: Formula, inputs: dict[str, Any], value: float) -> None:
        self.formula = formula
        self.inputs = inputs
        self.value = value


class Sourced(float):
    """A number that knows where it came from: a datasheet, a config file, the user, a default.

    `tag` is one of user, measured, catalogue, model, inferred, default.
    """

    __slots__ = ("label", "source", "tag")
    label: str
    source: str
    tag: str

    def __new__(cls, value: float, label: str = "", source: str = "", tag: str = "catalogue") -> Self:
        """Make a number and note where it came from."""
        self = super().__new__(cls, value)
        self.label = label
        self.source = source
        self.tag = tag
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Sourced, (float(self), self.label, self.source, self.tag))


class Traced(float):
    """A formula's result made while a ledger is open; `call` is how it came about."""

    __slots__ = ("call",)
    call: Call

    def __new__(cls, value: float, call: Call) -> Self:
        """Make a number and note the call that gave it."""
        self = super().__new__(cls, value)
        self.call = call
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (float, (float(self),))


_registry: dict[str, Formula] = {}
_recorder: Recorder | None = None


def formula(*, unit: str, symbol: str, cite: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a pure function as a formula.

    unit: of the result, in base SI words ("byte", "FLOP", "s", "J", "byte/s", "1" for a count).
    symbol: how it is written in mathematics, TeX-like ("M_act").
    cite: where it comes from; empty when it is a definition.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        entry = Formula(function, unit, symbol, cite)
        known = _registry.get(entry.name)
        if known is not None and known.function.__code__.co_filename != function.__code__.co_filename:
            raise RuntimeError(f"two formulas are called {entry.name}")
        _registry[entry.name] = entry

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _recorder is None:
                return function(*args, **kwargs)
            result: R = _recorder(entry, args, kwargs)
            return result

        # As functools.wraps does, whose import takes longer than a whole estimate's formulas.
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
            setattr(call, name, getattr(function, name))
        call.__dict__["__wrapped__"] = function
        return call

    return decorate


def registry() -> dict[str, Formula]:
    """All formulas imported so far, by name."""
    return dict(_registry)


def _record(entry: Formula, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = entry.function(*args, **kwargs)
    if not isinstance(value, (float, int)):
        return value  # a column: lineage is kept for single estimates only
    # Terms as they were: a caller may put the sum itself among them later.
    inputs = {
        name: dict(given) if isinstance(given, dict) else given for name, given in bind(entry, args, kwargs).items()
    }
    return Traced(float(value), Call(entry, inputs, float(value)))


def bind(entry: Formula, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Inputs by parameter name, defaults filled in."""
    names = entry.parameters
    inputs = entry.defaults | dict(zip(names, args, strict=False)) | kwargs
    return {name: inputs[name] for name in names if name in inputs}


class recording:  # noqa: N801 - a context manager, without the import of contextlib
    """Send every formula call to `recorder` while the block runs; recorders nest."""

    __slots__ = ("_outer", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        global _recorder
        self._outer, _recorder = _recorder, self._recorder

    def __exit__(self, *_: object) -> None:
        global _recorder
        _recorder = self._outer


def ledger() -> recording:
    """While open, formulas return `Traced` floats that carry their derivation."""
    return recording(_record)


def sourced(value: float, label: str, source: str = "", tag: str = "model") -> float:
    """Name an input for the derivation; costs nothing unless a ledger is open."""
    if _recorder is None or isinstance(value, (Sourced, Traced)) or not isinstance(value, (float, int)):
        return value
    return Sourced(value, label, source, tag)


@formula(unit="same", symbol="\\Sigma")
def total(terms: dict[str, float]) -> float:
    """Sum of named terms of one unit.

    Counts: every term given. Valid for: any unit, all terms alike.
    """
    result = 0.0
    for term in terms.values():
        result = result + term
    return result


@formula(unit="same", symbol="\\times")
def scaled(each: float, times: float) -> float:
    """A quantity repeated, or shared out: `times` may be below one."""
    return each * times
