"""What is written can be read again; what could be read in two ways is not read at all."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from capacity import quantities
from capacity.errors import QuantityError

UNITS = (*quantities.known_units(), "token", "h", "kWh")
RATES = (
    "byte/s",
    "FLOP/s",
    "USD/h",
    "USD/kWh",
    "g/kWh",
    "token/s",
    "1/s",
    "FLOP/token",
    "J/token",
    "USD/token",
    "FLOP/byte",
)

finite = st.floats(min_value=1e-12, max_value=1e26)
decimals = st.decimals(min_value="0.001", max_value="9999999", places=3).map(lambda d: format(d.normalize(), "f"))


@pytest.mark.parametrize("unit", UNITS)
def test_every_spelling_is_read_exactly(unit):
    """Each prefix of each unit, alone and with a space: the nearest float to the exact product."""
    spellings = quantities.spellings(unit)
    assert spellings
    for word, (a, b) in spellings.items():
        for number in ("1", "7", "2.5", "0.1", "1e3", "123456789.123"):
            expected = float(Fraction(number) * Fraction(a, b))
            assert quantities.parse(f"{number}{word}", unit) == expected, word
            assert quantities.parse(f" {number} {word} ", unit) == expected, word


@given(number=decimals, data=st.data())
def test_any_number_with_any_spelling(number, data):
    unit = data.draw(st.sampled_from(UNITS))
    word, (a, b) = data.draw(st.sampled_from(sorted(quantities.spellings(unit).items())))
    assert quantities.parse(number + word, unit) == float(Fraction(number) * Fraction(a, b))


@given(value=finite, unit=st.sampled_from(UNITS + RATES), binary=st.booleans(), negative=st.booleans())
def test_exact_text_round_trips(value, unit, binary, negative):
    assume(not (negative and unit.startswith("USD")))  # money owed is written by nobody here
    value = -value if negative else value
    assert quantities.parse(quantities.format_exact(value, unit, binary=binary), unit) == value


@given(number=st.integers(1, 9999), unit=st.sampled_from(UNITS), data=st.data())
def test_exact_text_round_trips_on_every_prefix(number, unit, data):
    _, (a, b) = data.draw(st.sampled_from(sorted(quantities.spellings(unit).items())))
    value = float(number * Fraction(a, b))
    assert quantities.parse(quantities.format_exact(value, unit), unit) == value


@given(value=finite, unit=st.sampled_from(UNITS + RATES), digits=st.integers(2, 6), binary=st.booleans())
def test_compact_text_is_right_to_its_digits(value, unit, digits, binary):
    text = quantities.format(value, unit, digits, binary=binary)
    half = 0.5 * 10.0 ** (1 - digits)
    assert quantities.parse(text, unit) == pytest.approx(value, rel=half * 1.000001)


@given(value=st.floats(min_value=1.0, max_value=1e18), digits=st.integers(2, 6))
def test_decimal_and_binary_are_never_mixed(value, digits):
    decimal, binary = (quantities.format(value, "byte", digits, binary=flag) for flag in (False, True))
    assert "i" not in decimal
    assert "i" in binary or value < 1024


@pytest.mark.parametrize("power", range(1, 7))
def test_gb_is_not_gib(power):
    prefix = " kMGTPE"[power]
    iec = prefix.upper() + "i"
    assert quantities.parse(f"1{prefix}B", "byte") == 1000.0**power
    assert quantities.parse(f"1{iec}B", "byte") == 1024.0**power
    assert quantities.parse(f"1{prefix}bit", "byte") == 1000.0**power / 8


@given(text=st.text(max_size=80), unit=st.sampled_from(UNITS + RATES))
def test_any_text_is_read_or_refused_in_one_line(text, unit):
    try:
        value = quantities.parse(text, unit)
    except QuantityError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 250
    else:
        assert isinstance(value, float)
        assert abs(value) < float("inf")


near_misses = st.text(alphabet="0123456789.eE+-_, kKMGTPBbiFLOPsSmhdW/%$naf٣²７µ", min_size=1, max_size=12)


@given(text=near_misses, unit=st.sampled_from(UNITS + RATES))
@settings(max_examples=1000)
def test_near_misses_are_read_or_refused(text, unit):
    try:
        value = quantities.parse(text, unit)
    except QuantityError:
        return
    assert text.isascii() or "µ" in text
    assert "," not in text
    assert abs(value) < float("inf")


@given(low=finite, mid=finite, high=finite, unit=st.sampled_from(UNITS + RATES))
def test_an_interval_names_all_three(low, mid, high, unit):
    low, mid, high = sorted((low, mid, high))
    assume(low < high)
    text = quantities.format_interval(low, mid, high, unit)
    middle, _, ends = text.partition(" (")
    assert middle == quantities.format(mid, unit, 2)
    assert ends.endswith(")")
    assert len(ends.split(" – ")) == 2
