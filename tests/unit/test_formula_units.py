"""Every formula's unit is proved: it is run on numbers that carry the units its parameters are named for."""

import pytest
from dimension import Dim, UnitError, units
from formulary import formulas, parameter_units

from capacity import ops
from capacity.formula import registry, scaled, total
from capacity.quantities import unit_in_name

FORMULAS = formulas()


def dims(entry):
    """Distinct values, so that no two inputs can stand in for each other; defaults where there are any."""
    given = entry.defaults
    names = parameter_units(entry)
    return {name: Dim(float(given.get(name, 3.0 + 0.7 * i)), unit) for i, (name, unit) in enumerate(names.items())}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_unit_of_the_result_is_the_declared_one(name):
    entry = FORMULAS[name]
    inputs = dims(entry)
    result = entry.function(**inputs)
    assert isinstance(result, Dim)
    assert result.unit == units(entry.unit), f"{name} gives {result}, declared {entry.unit}"
    # The same body on plain numbers: units change no value.
    plain = entry.function(**{key: value.value for key, value in inputs.items()})
    assert result.value == pytest.approx(plain, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_unit_in_the_name_is_the_unit_of_the_result(name):
    entry = FORMULAS[name]
    named = unit_in_name(name)
    if named not in ("1", "fraction"):
        assert units(named) == units(entry.unit)


@pytest.mark.parametrize("name", FORMULAS)
def test_what_is_known_of_a_formula_is_complete(name):
    entry = FORMULAS[name]
    assert entry.symbol
    assert entry.derivation.strip()
    assert registry()[name] is entry


def test_a_total_keeps_the_unit_of_its_terms():
    assert total({"a": Dim(1.0, "byte"), "b": Dim(2.0, "byte")}).unit == units("byte")
    with pytest.raises(UnitError):
        total({"a": Dim(1.0, "byte"), "b": Dim(2.0, "FLOP")})


@pytest.mark.parametrize("unit", ["byte", "FLOP/s", "USD"])
def test_scaling_keeps_the_unit(unit):
    assert scaled(Dim(3.0, unit), Dim(0.5, "1")).unit == units(unit)


WRONG = {
    "adds unlike units": lambda work, rate: work + rate,
    "adds a bare number": lambda work, rate: work + 1.0,
    "compares unlike units": lambda work, rate: work > rate,
    "chooses the larger of unlike units": lambda work, rate: ops.maximum(work, rate),
    "chooses between unlike units": lambda work, rate: ops.where(work > 0.0, work, rate),
    "rounds a number with a unit": lambda work, rate: ops.ceil(work),
    "raises to a power with a unit": lambda work, rate: 2.0**work,
    "branches on a value": lambda work, rate: 1.0 if work > 0.0 else 0.0,
    "drops the unit": lambda work, rate: float(work),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_the_proof_would_catch_a_wrong_formula(wrong):
    with pytest.raises(UnitError):
        wrong(Dim(2.0, "FLOP"), Dim(3.0, "FLOP/s"))


def test_units_multiply_divide_and_take_roots():
    work, rate = Dim(6.0, "FLOP"), Dim(3.0, "FLOP/s")
    assert (work / rate).unit == units("s")
    assert (work * work).unit == {"FLOP": 2}
    assert ((work**3.0) ** (1.0 / 3.0)).unit == units("FLOP")
    assert (Dim(1.0, "W") * Dim(1.0, "h")).unit == units("kWh")
    assert (0.0 + work).unit == work.unit
