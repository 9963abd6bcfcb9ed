"""What a run does beside full steps: evaluation and a rising batch, against steps counted one by one."""

from __future__ import annotations

import pytest

from capacity.errors import InputError
from capacity.estimators.answer import derive, estimate
from capacity.formulas import schedule

RUN = {"model": "llama-3.1-8b", "mode": "train", "devices": 64, "batch": 512, "tokens": 1e11}


def section(**request):
    return estimate(**{**RUN, **request}).sections["train"]


def mids(**request):
    return {name: value.mid for name, value in section(**request).quantities.items()}


def ramp(sequences, first, batch, step_of):
    """Steps and seconds of a ramp, each step as large as the sequences seen so far make it."""
    seen = steps = seconds = 0.0
    while seen < sequences:
        size = first + (batch - first) * seen / sequences
        steps, seconds, seen = steps + 1.0, seconds + step_of(size), seen + size
    return steps, seconds


@pytest.mark.parametrize(("first", "batch", "least"), [(8.0, 512.0, 1.0), (8.0, 512.0, 64.0), (400.0, 512.0, 512.0)])
def test_a_ramp_is_its_steps_one_by_one(first, batch, least):
    steps, seconds = ramp(2e5, first, batch, lambda size: 0.2 + 0.01 * max(size, least))
    assert schedule.ramp_steps(2e5, first, batch) == pytest.approx(steps, rel=0.01)
    closed = schedule.ramp_time_s(2e5, first, batch, least, 0.2 + 0.01 * batch, 0.01)
    assert closed == pytest.approx(seconds, rel=0.01)


def test_a_ramp_that_hardly_rises_is_full_steps():
    assert schedule.ramp_steps(5.12e5, 511.99, 512.0) == 1001.0
    assert schedule.ramp_time_s(5.12e5, 511.99, 512.0, 64.0, 3.0, 0.005) == pytest.approx(3000.0, rel=1e-4)


def test_without_either_a_run_is_its_steps():
    found = mids()
    assert not {"evaluations", "evaluation_time", "ramp_steps", "ramp_time"} & set(found)
    assert found["run_time"] == pytest.approx(found["steps"] * found["step_time"] / found["goodput"], rel=1e-12)


class TestEvaluation:
    def test_one_every_so_many_steps_and_one_at_the_end(self):
        assert schedule.evaluations(10_000.0, 1000.0) == 10.0
        assert schedule.evaluations(10_001.0, 1000.0) == 11.0
        plain, found = mids(), mids(eval_interval=500, eval_tokens=2e7)
        assert found["evaluations"] == -(-plain["steps"] // 500)

    def test_a_token_is_evaluated_in_about_a_third_of_the_time_it_is_trained_in(self):
        plain, found = mids(), mids(eval_interval=500, eval_tokens=1e9)
        evaluated = 1e9 * found["evaluations"] / found["evaluation_time"]
        assert 2.5 < evaluated / plain["tokens_per_s"] < 4.0

    def test_it_costs_time_energy_money_and_goodput(self):
        plain, found = mids(), mids(eval_interval=500, eval_tokens=1e9)
        longer = found["run_time"] / plain["run_time"]
        assert found["run_time"] - plain["run_time"] == pytest.approx(found["evaluation_time"], rel=0.02)
        assert found["cost"] / plain["cost"] == pytest.approx(longer)
        assert found["carbon"] / plain["carbon"] == pytest.approx(longer, rel=0.05)
        assert found["goodput"] * longer == pytest.approx(plain["goodput"])
        for name in ("steps", "step_time", "mfu", "checkpoint", "memory_per_device"):
            assert found[name] == plain[name]

    def test_half_of_it_is_assumed(self):
        assert mids(eval_interval=1000) == mids(eval_tokens=100 * 512 * 4096)


class TestRamp:
    def test_smaller_steps_are_more_steps_and_idle_devices(self):
        plain, found = mids(), mids(ramp_tokens=1e10, ramp_from=8)
        assert found["steps"] > plain["steps"]
        full = found["steps"] - found["ramp_steps"]
        assert full == pytest.approx(0.9 * plain["steps"], abs=1.0)
        assert found["ramp_time"] > 0.1 * plain["steps"] * plain["step_time"]
        assert found["run_time"] > plain["run_time"]
        assert found["goodput"] < plain["goodput"]
        # Devices that idle draw less.
        assert found["power"] < plain["power"]
        assert found["energy"] == pytest.approx(found["power"] * found["run_time"])

    def test_it_is_the_runs_at_each_batch_added_up(self):
        """The step time of every batch on the way, each priced as a run of its own in the same layout."""
        layout = {"tp": 1, "pp": 1, "zero": 1, "micro_batch": 1, "recompute": "full", "devices": 16}
        found = mids(**layout, ramp_tokens=1e10, ramp_from=64)
        steps = {size: mids(**layout, batch=size)["step_time"] for size in range(64, 513, 64)}
        _, seconds = ramp(1e10 / 4096, 64.0, 512.0, lambda size: steps[round(size / 64) * 64])
        assert found["ramp_time"] == pytest.approx(seconds, rel=0.01)

    def test_what_is_not_given_is_assumed_and_said(self):
        answer = estimate(**RUN, ramp_tokens=1e9)
        (said,) = [one for one in answer.assumptions if one.name == "batch ramp from"]
        assert said.tag == "default"
        assert said.value == 8.0

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"ramp_from": 512}, "--ramp-from 512 is not below the batch of 512"),
            ({"ramp_tokens": 2e11}, "--ramp-tokens 2e\\+11 is more than the 1e\\+11 tokens"),
            ({"eval_interval": 0}, "--eval-interval"),
            ({"eval_tokens": 0}, "--eval-tokens"),
        ],
    )
    def test_what_cannot_be_is_said(self, request_, said):
        with pytest.raises(InputError, match=said):
            estimate(**RUN, **request_)


def test_a_runs_time_is_explained_to_its_parts():
    value = derive("train.run_time", **RUN, eval_interval=500, ramp_tokens=1e10)
    assert value.call.formula.name == "run_time_s"
    parts = value.call.inputs["beside_s"].call.inputs["each"].call.inputs["terms"]
    assert set(parts) == {"batch ramp", "evaluation"}
    assert parts["batch ramp"].call.formula.name == "ramp_time_s"
