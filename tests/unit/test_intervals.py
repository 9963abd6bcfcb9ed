"""Intervals of whole answers are those that were measured, and each cause moves only what it causes."""

from __future__ import annotations

import os

import pytest

import capacity
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml

COMPOSED = read_toml(os.path.join(FITTED, "composed.toml"))
STEP = read_toml(os.path.join(FITTED, "stacks.toml"))["interval"]


def served(**request):
    return capacity.estimate(model="llama-3.1-8b", mode="serve", device="h100-sxm", **request).sections["serve"]


def test_time_per_token_has_the_measured_interval():
    tpot = served().quantities["tpot"]
    assert tpot.low / tpot.mid == pytest.approx(COMPOSED["tpot"]["low"])
    assert tpot.high / tpot.mid == pytest.approx(COMPOSED["tpot"]["high"])


def test_time_to_first_token_is_at_least_as_uncertain_as_measured():
    ttft = served().quantities["ttft"]
    assert ttft.low / ttft.mid <= COMPOSED["ttft"]["low"]
    assert ttft.high / ttft.mid >= COMPOSED["ttft"]["high"]


def test_waiting_for_the_first_token_slows_no_step():
    shares = capacity.estimate(model="llama-3.1-8b", mode="serve", device="h100-sxm").sensitivities
    assert shares["serve.ttft"]["waiting"] > 0.5
    assert set(shares["serve.tpot"]) == {"step time"}


def test_training_step_has_the_measured_interval():
    step = (
        capacity.estimate(model="llama-3.1-8b", mode="train", device="h100-sxm")
        .sections["train"]
        .quantities["step_time"]
    )
    assert step.low / step.mid == pytest.approx(STEP["tuned"]["low"])
    assert step.high / step.mid == pytest.approx(STEP["tuned"]["high"])


def test_a_device_that_was_never_measured_has_a_wider_interval():
    step = (
        capacity.estimate(model="llama-3.1-8b", mode="train", device="mi300x").sections["train"].quantities["step_time"]
    )
    assert step.low / step.mid < STEP["tuned"]["low"]
    assert step.high / step.mid > STEP["tuned"]["high"]


def test_measured_runs_of_a_site_move_its_steps_and_narrow_them():
    asked = {"model": "llama-3.1-8b", "mode": "train", "device": "h100-sxm", "devices": 64}
    alone = capacity.estimate(**asked).sections["train"].quantities["step_time"]
    helped = capacity.estimate(**asked, site=(1.1, 3.0)).sections["train"].quantities["step_time"]
    assert helped.mid == pytest.approx(1.1 * alone.mid)
    assert alone.low / alone.mid < helped.low / helped.mid < 1.0 < helped.high / helped.mid < alone.high / alone.mid


@pytest.mark.parametrize("kind", ["eager", "tuned", "compiled", "accelerator", "experts"])
def test_intervals_of_a_step_hold_their_middle(kind):
    row = STEP[kind]
    assert 0.0 < row["low"] < 1.0 < row["high"]
    assert row["site"] > 0.0
    assert "left out" in row["source"]


def test_independent_moves_add_in_squares():
    uncertain = (Uncertain("a", 0.5, 2.0, ""), Uncertain("b", 0.5, 2.0, ""))
    found, shares = with_intervals(
        lambda factor: {"x": Value(3.0 * factor.get("a", 1.0) * factor.get("b", 1.0), "s")}, uncertain
    )
    assert found["x"].high == pytest.approx(3.0 * 2.0**2.0**0.5)
    assert found["x"].low == pytest.approx(3.0 / 2.0**2.0**0.5)
    assert shares["x"] == pytest.approx({"a": 0.5, "b": 0.5})


@pytest.mark.parametrize("name", COMPOSED)
def test_every_interval_holds_its_middle_and_says_where_it_is_from(name):
    row = COMPOSED[name]
    assert 0.0 < row["low"] <= 1.0 <= row["high"]
    assert row["source"]
    assert row["date"]
