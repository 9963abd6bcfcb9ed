"""Quantities as people write them and like to read them."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from capacity import quantities
from capacity.errors import QuantityError


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("7e9", "1", 7e9), ("7B", "1", 7e9), ("7_000_000_000", "1", 7e9), ("70M", "1", 70e6), ("1.5T", "1", 1.5e12),
        ("15T tokens", "1", 15e12), ("7b", "1", 7e9), ("80GB", "byte", 80e9), ("80GiB", "byte", 80 * 2**30),
        ("400Gb/s", "byte/s", 50e9), ("400Gbps", "byte/s", 50e9), ("400GB/s", "byte/s", 400e9),
        ("989TFLOP/s", "FLOP/s", 989e12), ("989TFLOPS", "FLOP/s", 989e12), ("1979TOPS", "FLOP/s", 1979e12),
        ("1e21FLOP", "FLOP", 1e21), ("3d", "s", 259200.0), ("12h", "s", 43200.0), ("90min", "s", 5400.0),
        ("5ms", "s", 0.005), ("2.5MWh", "J", 9e9), ("700W", "W", 700.0), ("90%", "fraction", 0.9),
        ("$2.50", "USD", 2.5), ("2.5USD", "USD", 2.5), ("$1.2M", "USD", 1.2e6), ("0.4kg", "g", 400.0),
        ("450g/kWh", "g/kWh", 450.0), ("0.45kgCO2e/kWh", "g/kWh", 450.0), ("2USD/h", "USD/h", 2.0),
        ("$2.50/h", "USD/h", 2.5), ("$2.50", "USD/h", 2.5), ("$0.10/kWh", "USD/kWh", 0.1),
        ("$0.42/Mtoken", "USD/token", 4.2e-7), ("90min", "h", 1.5), ("5K token/s", "token/s", 5000.0), ("80", "byte", 80.0),
    ],
)  # fmt: skip
def test_reads(text, unit, value):
    assert quantities.parse(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("80GB", "1", "is bytes, not a count"),
        ("7B", "byte", "bytes or billions"),
        ("80G", "byte", "GB or GiB"),
        ("80K", "byte", "KB or KiB"),
        ("80Gb", "byte", "in bits"),
        ("80gb", "byte", "GB or Gbit"),
        ("400gb/s", "byte/s", "GB or Gbit"),
        ("400GB", "byte/s", "not a rate"),
        ("400GB/s", "byte", "is a rate"),
        ("989TFLOPS", "FLOP", "an amount or a rate"),
        ("989TFLOPs", "FLOP/s", "an amount or a rate"),
        ("989tFLOP/s", "FLOP/s", "did you mean TFLOP"),
        ("5m", "s", "minutes, months or milliseconds"),
        ("5kwh", "J", "did you mean kWh"),
        ("7G", "1", "write B for"),
        ("5%", "1", "is a fraction"),
        ("2B", "USD", "not US dollars"),
        ("$5", "byte", "is US dollars"),
        ("€5", "USD", "not a quantity"),
        ("1,000", "1", "comma"),
        ("1,5", "s", "comma"),
        ("0x10", "1", "not a count"),
        ("1h30min", "s", "not a time"),
        ("nan", "1", "not a quantity"),
        ("-inf", "s", "not a quantity"),
        ("", "1", "not a quantity"),
        ("1e400", "1", "too large"),
        ("1e9999999999", "1", "too large"),
        ("1e-400", "1", "too small"),
        ("٣", "1", "not a quantity"),
        ("7²", "1", "not a count"),
        ("1__0", "1", "not a count"),
        ("1 000", "1", "not a count"),
        ("9" * 65, "1", "65 characters"),
    ],
)
def test_refuses_what_is_ambiguous_or_wrong(text, unit, says):
    with pytest.raises(QuantityError, match=says):
        quantities.parse(text, unit)


def test_positive_and_name():
    assert quantities.parse("-5", "1") == -5.0
    for text in ("0", "-5"):
        with pytest.raises(QuantityError, match=rf"^--params: '{text}' is not positive"):
            quantities.parse(text, "1", name="--params", positive=True)


def test_argparse_shows_the_message(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=quantities.argument("byte", positive=True))
    assert parser.parse_args(["--memory", "80GiB"]).memory == 80 * 2**30
    with pytest.raises(SystemExit):
        parser.parse_args(["--memory", "80G"])
    assert "argument --memory: '80G' may mean GB or GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (7e9, "1", "7.00B"), (4096, "1", "4096"), (15e12, "token", "15.0T token"), (0.25, "1", "0.250"),
        (85899345920, "byte", "85.9 GB"), (999.6e6, "byte", "1.00 GB"), (0, "byte", "0 byte"), (276480.0, "s", "3.20 d"),
        (0.041, "s", "41.0 ms"), (5400.0, "s", "90.0 min"), (4e9, "s", "127 y"), (5.88e21, "FLOP", "5.88 ZFLOP"),
        (5.88e28, "FLOP", "5.88e28 FLOP"), (989e12, "FLOP/s", "989 TFLOP/s"), (3.35e12, "byte/s", "3.35 TB/s"),
        (9e9, "J", "2.50 MWh"), (0.35, "J/token", "350 mJ/token"), (1.2e6, "USD", "$1.20M"), (2.5, "USD/h", "$2.50/h"),
        (4.2e-7, "USD/token", "$0.420/Mtoken"), (1.2e6, "g", "1.20 t"), (450, "g/kWh", "450 g/kWh"),
        (0.413, "fraction", "41.3 %"), (1500, "W", "1.50 kW"), (72.0, "h", "3.00 d"), (float("inf"), "s", "inf s"), (-5e9, "byte", "-5.00 GB"),
    ],
)  # fmt: skip
def test_prints(value, unit, text):
    assert quantities.format(value, unit) == text


def test_prints_binary_when_asked():
    assert quantities.format(80 * 2**30, "byte", binary=True) == "80.0 GiB"
    assert quantities.format_exact(80 * 2**30, "byte") == "80GiB"
    assert quantities.format_exact(80e9, "byte") == "80GB"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((16 * 86400, 21 * 86400, 28 * 86400, "s"), "21 d (16 – 28)"),
        ((0.9e6, 1.2e6, 1.6e6, "USD"), "$1.2M ($0.90M – $1.6M)"),
        ((6e9, 7e9, 8e9, "1"), "7.0B (6.0B – 8.0B)"),
        ((1.5, 2.0, 3.0, "USD/h"), "$2.00/h ($1.50 – $3.00)"),
        ((1.0, 2000.0, 3e8, "byte"), "2.0 kB (1 byte – 300 MB)"),
        ((5.0, 5.0, 5.0, "s"), "5.0 s"),
    ],
)
def test_prints_intervals(arguments, text):
    assert quantities.format_interval(*arguments) == text


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("weight_bytes", "byte"), ("bytes_per_element", "byte"), ("peak_flop_per_s", "FLOP/s"), ("bytes_per_s", "byte/s"),
        ("usd_per_kwh", "USD/kWh"), ("usd_per_device_hour", "USD/h"), ("g_per_kwh", "g/kWh"), ("latency_s", "s"),
        ("s", "1"), ("h", "1"), ("hidden", "1"), ("heads", "1"), ("flop_per_mac", "FLOP"), ("flop_per_byte", "FLOP/byte"),
        ("tokens_per_s", "1/s"), ("weight_bits", "bit"), ("clock_hz", "Hz"), ("tdp_w", "W"), ("energy_j", "J"),
        ("overlap_fraction", "fraction"),
    ],
)  # fmt: skip
def test_names_carry_units(name, unit):
    assert quantities.unit_in_name(name) == unit


def test_import_is_light():
    code = "import sys; before = set(sys.modules); import capacity.quantities; print(*(set(sys.modules) - before))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert "capacity.quantities" in run.stdout.split()
    assert {"decimal", "fractions", "argparse", "json", "inspect"}.isdisjoint(run.stdout.split())
