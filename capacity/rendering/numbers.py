"""Numbers as a reader wants them: three significant digits, one prefix for a value and its interval."""

from __future__ import annotations

from math import floor, isfinite, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capacity.spec.estimate import Quantity

_SI = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_COUNTS = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k"))
_TIMES = ((2 * 31557600.0, "years", 31557600.0), (2 * 86400.0, "days", 86400.0), (2 * 3600.0, "h", 3600.0), (120.0, "min", 60.0))
_ENERGIES = ((3.6e12, "GWh"), (3.6e9, "MWh"), (3.6e6, "kWh"))
_MASSES = ((1e9, "kt"), (1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg"), (1e-6, "µg"))


def scale(value: float, unit: str) -> tuple[float, str]:
    """The factor to divide by, and the unit to show, so that `value` in base `unit` reads well."""
    size = abs(value)
    base, _, per = unit.partition("/")
    if not isfinite(size) or size == 0.0:
        return 1.0, shown_unit(unit)
    if base == "1":
        factor, name = next(((step, prefix) for step, prefix in _COUNTS if size >= step), (1.0, ""))
        return factor, name + (f"/{per}" if per else "")
    if base == "fraction":
        return 0.01, "%"
    if base == "USD":
        return _money(size, per)
    if base == "s" and not per:
        for least, name, seconds in _TIMES:
            if size >= least:
                return seconds, name
    if base == "J" and not per:
        for joules, name in _ENERGIES:
            if size >= joules:
                return joules, name
    if base == "g":
        factor, name = next(((step, name) for step, name in _MASSES if size >= step), _MASSES[-1])
        return factor, name + (f"/{per}" if per else "")
    if base == "token":
        factor, name = next(((step, prefix + " ") for step, prefix in _COUNTS if size >= step), (1.0, ""))
        return factor, f"{name}token" + (f"/{per}" if per else "")
    if per == "byte":
        return 1.0, unit
    steps = _SI if size >= 1.0 else (*_SI, *_SMALL)
    factor, prefix = next(((step, prefix) for step, prefix in steps if size >= step), _SMALL[-1])
    return factor, prefix + shown_unit(unit)


def shown_unit(unit: str) -> str:
    """The base unit as it is printed after a prefix."""
    if unit == "1":
        return ""
    return "B" + unit[4:] if unit.startswith("byte") else unit


def _money(size: float, per: str) -> tuple[float, str]:
    if per == "token":
        return 1e-6, "USD/M token"
    factor, name = next(((step, name) for step, name in ((1e9, "B USD"), (1e6, "M USD")) if size >= step), (1.0, "USD"))
    return factor, name + (f"/{per}" if per else "")


def digits(value: float) -> str:
    """Three significant digits, thousands parted by commas: 0.0123, 1.23, 12.3, 123, 1,234."""
    if not isfinite(value):
        return "unlimited" if value > 0 else "unknown"
    if value == 0.0:
        return "0"
    places = 2 - floor(log10(abs(value)) + 1e-12)
    if places > 8:
        return f"{value:.2e}"
    return f"{round(value, places) + 0.0:,.{max(places, 0)}f}"


def show(value: float, unit: str) -> str:
    """A value with its unit: `61.2 GB`, `9.31 days`, `44.1 %`."""
    factor, name = scale(value, unit)
    return f"{digits(value / factor)} {name}".rstrip()


def interval(quantity: Quantity) -> tuple[str, str, str]:
    """Middle, unit and 90 % interval (empty when exact), all by the prefix of the middle."""
    factor, name = scale(quantity.mid, quantity.unit)
    spread = "" if quantity.exact else f"{digits(quantity.low / factor)} – {digits(quantity.high / factor)}"
    return digits(quantity.mid / factor), name, spread
