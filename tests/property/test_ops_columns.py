"""One body for floats and columns: every operation and every formula gives the same on both."""

import math

import numpy as np
import pytest
from formulary import formulas, parameter_units
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from capacity import ops
from capacity.formula import scaled, total

FORMULAS = formulas()

numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
plain = st.floats(min_value=-1e300, max_value=1e300)

# Ranges in which a parameter of this unit makes sense.
RANGES = {
    "byte": (1.0, 1e13), "bit": (1.0, 64.0), "FLOP": (1.0, 1e22), "s": (1e-6, 1e6), "W": (1.0, 1e7), "J": (1.0, 1e15),
    "USD": (1e-3, 1e9), "g": (1.0, 1e9), "Hz": (1e6, 1e10), "fraction": (0.01, 1.0),
    "byte/s": (1e6, 1e14), "FLOP/s": (1e9, 1e16),
}  # fmt: skip


def values(unit, default):
    if default is not None:
        return st.floats(0.5, 2.0).map(lambda factor: float(default) * factor)
    if unit == "1":
        return st.one_of(st.integers(1, 4096).map(float), st.floats(0.01, 1.0))
    return st.floats(*RANGES.get(unit, (1e-3, 1e3)))


@st.composite
def cases(draw, entry):
    """Rows of inputs, and which parameters are columns (at least one)."""
    known = entry.defaults
    row = st.tuples(*(values(unit, known.get(name)) for name, unit in parameter_units(entry).items()))
    rows = draw(st.lists(row, min_size=1, max_size=5))
    columns = draw(st.sets(st.sampled_from(entry.parameters), min_size=1))
    first = dict(zip(entry.parameters, rows[0], strict=True))
    return [
        {name: (value if name in columns else first[name]) for name, value in zip(entry.parameters, row, strict=True)}
        for row in rows
    ], columns


@pytest.mark.parametrize("name", FORMULAS)
@given(data=st.data())
# Some formulas hold in a corner only, and all rows of a case must lie in it.
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_formula_gives_the_same_on_columns(name, data):
    entry = FORMULAS[name]
    rows, columns = data.draw(cases(entry))
    try:
        expected = [entry.function(**row) for row in rows]
    except (ZeroDivisionError, OverflowError):
        assume(False)  # outside the formula's domain
    assume(not any(isinstance(value, complex) for value in expected))
    inputs = {key: np.array([row[key] for row in rows]) if key in columns else rows[0][key] for key in entry.parameters}
    with np.errstate(all="ignore"):
        result = entry.function(**inputs)
    if np.ndim(result) == 0:  # the column does not matter to the result
        result = [float(result)] * len(rows)
    assert len(result) == len(rows)
    # Powers differ by a rounding; where nearly equal terms are subtracted it weighs against the terms.
    alike = [key for key, unit in parameter_units(entry).items() if unit == entry.unit]
    for row, value, column in zip(rows, expected, result, strict=True):
        scale = max((abs(row[key]) for key in alike), default=0.0)
        assert float(column) == pytest.approx(float(value), rel=1e-9, abs=1e-12 * scale, nan_ok=True)


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("operation", [ops.maximum, ops.minimum])
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_maximum_and_minimum(operation, pairs):
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    for (x, y), column, left, right in zip(
        pairs, operation(a, b), operation(a, pairs[0][1]), operation(pairs[0][0], b), strict=True
    ):
        assert same(operation(x, y), column)
        assert same(operation(x, pairs[0][1]), left)
        assert same(operation(pairs[0][0], y), right)


@given(rows=st.lists(st.tuples(plain, plain, plain), min_size=1, max_size=8))
def test_where(rows):
    c, a, b = (np.array(column) for column in zip(*rows, strict=True))
    for (z, x, y), by_condition, by_number in zip(rows, ops.where(c > 0.0, a, b), ops.where(c, a, b), strict=True):
        assert ops.where(z > 0.0, x, y) == by_condition
        assert ops.where(z, x, y) == by_number


@given(rows=st.lists(numbers, min_size=1, max_size=8))
def test_ceil(rows):
    for value, column in zip(rows, ops.ceil(np.array(rows)), strict=True):
        assert same(ops.ceil(value), column)
        assert isinstance(ops.ceil(value), float)


@given(rows=st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=8))
def test_log_and_exp(rows):
    logs = ops.log(np.array(rows))
    for value, column, back in zip(rows, logs, ops.exp(logs), strict=True):
        assert ops.log(value) == pytest.approx(column, rel=1e-15, abs=1e-15)
        assert ops.exp(ops.log(value)) == pytest.approx(back, rel=1e-12)


@given(rows=st.lists(st.tuples(plain, plain, plain), min_size=1, max_size=8))
def test_total_and_scaled(rows):
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    with np.errstate(all="ignore"):
        added = total(dict(zip("abc", columns, strict=True)))
    for row, column in zip(rows, added, strict=True):
        assert total(dict(zip("abc", row, strict=True))) == column
    with np.errstate(all="ignore"):
        products = scaled(columns[0], columns[1])
    for (each, times, _), column in zip(rows, products, strict=True):
        assert scaled(each, times) == column


def test_floats_stay_floats_without_numpy():
    """A condition that is a number is chosen by in plain Python, whether or not NumPy has been imported."""
    assert type(ops.where(1.0, 2.0, 3.0)) is float
    assert ops.where(0.0, 2.0, 3.0) == 3.0
