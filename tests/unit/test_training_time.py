"""Time of training: parts add up, schedules follow their formulas, published runs lie near."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.estimators.answer import estimate
from capacity.estimators.case import read_case
from capacity.estimators.training_run import goodput_of, price_run, read_workload
from capacity.formulas import collectives, schedule
from capacity.record import replace
from capacity.spec.plan import Plan

DATA_PARALLEL = ("sharded weights traffic", "gradient reduction", "gradient accumulation", "optimizer", "stragglers")


def run(plan=None, spec=None, name=None, **request):
    """A priced run; `spec` replaces the model that was asked for."""
    if name:
        request["model"] = name
    case = read_case({"mode": "train", **request})
    workload, devices = read_workload(case)
    return price_run(case, spec or case.model, workload, case.cluster, devices if plan is None else plan.devices, plan)


def step(priced):
    return sum(priced.time.values())


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "llama-2-7b"},
        {"model": "gpt-3-175b", "devices": 1024, "tp": 8, "pp": 8},
        {"model": "deepseek-v3", "devices": 2048, "pp": 16, "ep": 64, "tp": 1, "batch": 15360, "precision": "fp8"},
        {"model": "mixtral-8x7b", "zero": 3, "recompute": "selective"},
        {"model": "falcon-mamba-7b"},
        {"model": "vit-b-16"},
        {"params": 7e10, "mode": "lora"},
    ],
)
def test_parts_add_up_to_the_step(request_):
    answer = estimate(**{"mode": "train", **request_})
    (section,) = answer.sections.values()
    assert sum(section.breakdowns["time"].values()) == pytest.approx(section.quantities["step_time"].mid, rel=1e-12)
    assert all(seconds > 0.0 for seconds in section.breakdowns["time"].values())
    steps, found = section.quantities["steps"].mid, section.quantities
    assert found["run_time"].mid > steps * found["step_time"].mid
    assert found["energy"].mid == pytest.approx(found["power"].mid * found["run_time"].mid, rel=1e-9)
    assert steps * found["tokens_per_s"].mid * found["step_time"].mid == pytest.approx(found["tokens"].mid, rel=0.02)


class TestPipeline:
    @pytest.mark.parametrize(("m", "p", "v"), [(8, 4, 1), (64, 8, 1), (64, 8, 4), (1, 16, 1), (12, 1, 1)])
    def test_the_bubble_is_p_minus_1_over_m(self, m, p, v):
        """Narayanan 2021: the time of the bubble over the ideal time is (p - 1) / m, divided by the chunks v."""
        ideal = m * 0.25
        together = schedule.pipeline_time_s(m, 0.25, 0.25, p, v)
        assert (together - ideal) / ideal == pytest.approx((p - 1) / m / v)
        assert schedule.bubble_fraction(m, p, v) == pytest.approx((together - ideal) / together)

    @pytest.mark.parametrize(("pp", "batch"), [(2.0, 32), (8.0, 64), (8.0, 256)])
    def test_a_run_pays_it(self, pp, batch):
        priced = run(Plan(pp=pp, recompute="full"), params=7e9, batch=batch)
        work = sum(v for k, v in priced.time.items() if k not in (*DATA_PARALLEL, "pipeline bubble"))
        share = priced.time["pipeline bubble"] / work
        # The slowest stage, with the head, works a little longer than the mean one that fills the pipeline.
        assert 0.75 * (pp - 1) / batch < share <= (pp - 1) / batch

    def test_chunks_shrink_it(self):
        bubbles = [
            run(Plan(pp=4.0, recompute="full", interleave=v), params=7e9, batch=32).time["pipeline bubble"]
            for v in (1.0, 2.0, 4.0)
        ]
        assert bubbles[0] > bubbles[1] > bubbles[2]


class TestScaling:
    def test_twice_the_layers_take_twice_the_time(self):
        once = load_model("llama-2-7b")
        twice = replace(once, blocks=tuple(replace(block, count=2.0 * block.count) for block in once.blocks))
        plan = Plan(dp=8.0, zero=1)
        short, long = run(plan, once, "llama-2-7b", batch=64), run(plan, twice, "llama-2-7b", batch=64)
        for part in ("GEMM", "attention"):
            assert long.time[part] == pytest.approx(2.0 * short.time[part], rel=1e-12)
        # The norm after the last layer is not doubled.
        assert long.time["element-wise"] == pytest.approx(2.0 * short.time["element-wise"], rel=1e-2)
        assert 1.8 < step(long) / step(short) < 2.05

    def test_every_kind_of_block_counts(self):
        """A model of two kinds of blocks costs what two of one kind do, each for its layers."""
        gemma = load_model("gemma-3-12b")
        assert len(gemma.blocks) > 1
        plan = Plan(dp=8.0, zero=1)
        whole = run(plan, gemma, "gemma-3-12b", batch=64).time["GEMM"]
        kinds = [
            run(plan, replace(gemma, blocks=(block,)), "gemma-3-12b", batch=64).time["GEMM"]
            for block in gemma.blocks
            if block.stack == "decoder"
        ]
        assert len(kinds) > 1
        assert whole == pytest.approx(sum(kinds), rel=1e-9)

    def test_twice_the_replicas_do_twice_the_batch_in_about_the_same_time(self):
        small = run(Plan(dp=8.0, zero=1), params=7e9, batch=64)
        large = run(Plan(dp=64.0, zero=1), params=7e9, batch=512)
        assert large.time["GEMM"] == pytest.approx(small.time["GEMM"], rel=1e-12)
        assert 1.0 <= step(large) / step(small) < 1.15

    def test_tensor_parallelism_cuts_products_by_no_more_than_its_degree(self):
        parts = {tp: run(Plan(tp=tp, recompute="full"), params=7e9, batch=8).time for tp in (1.0, 2.0, 4.0, 8.0)}
        for tp in (2.0, 4.0, 8.0):
            assert parts[1.0]["GEMM"] / tp <= parts[tp]["GEMM"] < parts[1.0]["GEMM"]
            assert parts[tp]["tensor-parallel traffic"] > 0.0
        assert "tensor-parallel traffic" not in parts[1.0]

    def test_one_device_sends_nothing(self):
        alone = run(Plan(), params=1e9, batch=8)
        assert not {"gradient reduction", "tensor-parallel traffic", "expert routing", "stage hand-over"} & set(
            alone.time
        )
        section = estimate(params=1e9, mode="train", devices=1, batch=8).sections["train"]
        assert section.quantities["network_traffic_per_step"].mid == 0.0

    def test_recomputation_runs_the_blocks_forward_again(self):
        """A third to a quarter of forward and backward together, and nothing else changes."""
        none, full = (run(Plan(dp=8.0, zero=1, recompute=r), params=7e9, batch=64).time for r in ("none", "full"))
        work = none["GEMM"] + none["attention"] + none["element-wise"]
        assert 0.25 * work < full["recomputation"] < 0.37 * work
        assert "recomputation" not in none
        for part in ("GEMM", "attention", "head and loss", "optimizer"):
            assert full[part] == none[part]

    @pytest.mark.parametrize("recompute", ["none", "selective", "full"])
    def test_a_step_is_never_faster_than_its_work_at_the_dense_peak(self, recompute):
        for model in ("llama-2-7b", "gemma-3-12b", "mixtral-8x7b", "gpt-oss-20b", "qwen3-30b-a3b"):
            quantities = estimate(model=model, mode="train", recompute=recompute).sections["train"].quantities
            assert 0.0 < quantities["mfu"].mid <= quantities["hfu"].mid < 0.86


def model_name_for(spec):
    return spec.name


class TestCollectives:
    def test_a_ring_all_reduce_sends_nearly_twice_the_message(self):
        """Patarasuk 2009: 2 (n - 1) / n of the message."""
        assert collectives.ring_time_s(8e9, 8.0, 2.0, 100e9, 0.0) == pytest.approx(2 * 7 / 8 * 8e9 / 100e9)
        assert collectives.ring_time_s(8e9, 8.0, 1.0, 100e9, 1e-6, 5e-6) == pytest.approx(0.07 + 7e-6 + 5e-6)

    def test_alone_nothing_moves(self):
        assert collectives.ring_time_s(8e9, 1.0, 2.0, 100e9, 1e-5, 1e-5) == 0.0
        assert collectives.all_to_all_time_s(8e9, 1.0, 100e9, 1e-5, 1e-5) == 0.0

    def test_a_group_beyond_its_node_goes_at_the_pace_of_its_adapters(self):
        assert collectives.group_bytes_per_s(8.0, 8.0, 450e9, 50e9) == 450e9
        assert collectives.group_bytes_per_s(16.0, 8.0, 450e9, 50e9) == 400e9
        assert collectives.group_bytes_per_s(16.0, 1.0, 450e9, 50e9) == 50e9
        assert collectives.group_bytes_per_s(16.0, 8.0, 50e9, 50e9) == 50e9

    @pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("communication", [0.0, 0.01, 1.0, 50.0])
    def test_overlap_hides_at_most_the_compute(self, overlap, communication):
        exposed = schedule.exposed_time_s(1.0, communication, overlap)
        assert exposed <= communication + 1e-12
        assert exposed >= max(communication * (1.0 - overlap), communication - 1.0) - 1e-12


class TestFailures:
    def test_young_and_daly(self):
        """Young 1974: sqrt(2 C M); at that interval saving and losing cost the same."""
        interval = schedule.best_checkpoint_interval_s(60.0, 3.0 * 3600.0)
        assert interval == pytest.approx((2 * 60 * 10800) ** 0.5)
        assert 60.0 / interval == pytest.approx(interval / 2.0 / 10800.0)
        best = schedule.goodput(60.0, interval, 10800.0, 0.0)
        for other in (0.7, 1.4):
            assert schedule.goodput(60.0, other * interval, 10800.0, 0.0) < best

    def test_llama_3_trained_more_than_nine_tenths_of_the_time(self):
        """Dubey 2024: 466 interruptions in 54 days of 16,384 GPUs, effective training time above 90 %."""
        priced = run(model="llama-3.1-405b", devices=16384, tp=8, pp=16, batch=2048, seq_len=8192)
        kept, interval = goodput_of(priced.cluster, 405e9 * 14.0, 16384.0)
        assert 0.9 < kept < 0.99
        assert 60.0 < interval < 3600.0


# Runs that were published with their layout: request, tokens per second and device, source.
PUBLISHED = {
    "Llama 2 7B, 8 H100, FP8": (
        {"model": "llama-2-7b", "devices": 8, "dp": 8, "tp": 1, "pp": 1, "zero": 1, "batch": 128, "seq_len": 4096}
        | {"precision": "fp8", "micro_batch": 1},
        16934.0,  # NVIDIA NeMo 24.07 performance summary, DGX H100
    ),
    "Llama 3 8B, 8 H100, FP8": (
        {"model": "llama-3-8b", "devices": 8, "dp": 8, "tp": 1, "pp": 1, "zero": 1, "batch": 128, "seq_len": 8192}
        | {"precision": "fp8", "micro_batch": 1},
        12273.0,  # NVIDIA NeMo 24.07 performance summary, DGX H100
    ),
    "Llama 2 70B, 64 H100, FP8": (
        {"model": "llama-2-70b", "devices": 64, "tp": 4, "pp": 4, "batch": 128, "seq_len": 4096}
        | {"precision": "fp8", "micro_batch": 1, "interleave": 20, "zero": 1},
        1728.0,  # NVIDIA NeMo 24.07 performance summary, DGX H100
    ),
    "Llama 3 8B, 64 A100, FSDP": (
        {"model": "llama-3-8b", "device": "a100-sxm-80gb", "devices": 64, "dp": 64, "zero": 3, "micro_batch": 1}
        | {"batch": 64, "seq_len": 8192, "recompute": "selective", "stack": "eager"},
        2904.0,  # torchtitan docs/performance.md, 2024-08
    ),
    "GPT-3 175B, 64 A100, full recomputation": (
        {"model": "gpt-3-175b", "device": "a100-sxm-80gb", "devices": 64, "tp": 8, "pp": 8, "interleave": 3}
        | {"batch": 64, "seq_len": 2048, "micro_batch": 1, "recompute": "full", "zero": 0, "stack": "eager"},
        64 * 2048 / 18.13 / 64,  # Korthikanti 2022, table 5
    ),
    "GPT-3 175B, 1024 A100": (
        {"model": "gpt-3-175b", "device": "a100-sxm-80gb", "devices": 1024, "tp": 8, "pp": 16, "batch": 1536}
        | {"seq_len": 2048, "micro_batch": 1, "recompute": "full", "zero": 0, "stack": "eager"},
        140e12
        / (96 * 96 * 12288**2 * (1 + 2048 / (6 * 12288) + 51200 / (16 * 96 * 12288))),  # Narayanan 2021, 140 TFLOP/s
    ),
    "Llama 3.1 405B, 8192 H100": (
        {"model": "llama-3.1-405b", "devices": 8192, "tp": 8, "pp": 16, "batch": 2048, "seq_len": 8192, "zero": 1},
        430e12 / (6 * 405e9 + 6 * 126 * 16384 * 8192),  # Dubey 2024, table 4: 430 TFLOP/s, causal attention counted
    ),
    "Llama 3.1 405B, 16384 H100": (
        {"model": "llama-3.1-405b", "devices": 16384, "tp": 8, "pp": 16, "batch": 2048, "seq_len": 8192, "zero": 1},
        400e12 / (6 * 405e9 + 6 * 126 * 16384 * 8192),  # Dubey 2024, table 4: 400 TFLOP/s
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_runs_lie_within_forty_percent_and_in_the_interval(name):
    asked, measured = PUBLISHED[name]
    section = estimate(mode="train", **asked).sections["train"]
    pace = section.quantities["tokens_per_s_per_device"]
    assert measured / 1.4 < pace.mid < measured * 1.4, f"{pace.mid / measured:.2f} of what was measured"
    assert pace.low <= measured <= pace.high


class TestDeepSeekV3:
    """DeepSeek 2024, table 1: 2.664 million H800 hours for 14.8 trillion tokens; pp 16, ep 64, FP8, 2,048 devices.

    Sections 3.2 and 3.3: DualPipe, no tensor parallelism, ZeRO-1; norms and latent attention's heads rebuilt; inputs of
    products and of the activation function kept in FP8; moments in bf16; a batch that rises from 3,072 over 469 billion tokens.
    """

    measured = 2.664e6

    @pytest.fixture(scope="class")
    @classmethod
    def section(cls):
        asked = {"device": "h800-sxm", "devices": 2048, "tp": 1, "pp": 16, "ep": 64, "batch": 15360, "seq_len": 4096}
        asked |= {
            "precision": "fp8",
            "tokens": 14.8e12,
            "schedule": "dualpipe",
            "zero": 1,
            "micro_batch": 1,
            "mtp": True,
        }
        asked |= {"recompute": "norms,latent,activations", "optimizer": "adamw-bf16", "saved_precision": "fp8"}
        asked |= {"ramp_from": 3072, "ramp_tokens": 469e9}
        return estimate(model="deepseek-v3", mode="train", **asked).sections["train"]

    def test_within_fifteen_percent(self, section):
        assert section.quantities["device_hours"].mid == pytest.approx(self.measured, rel=0.15)

    def test_within_the_interval(self, section):
        hours = section.quantities["device_hours"]
        assert hours.low < self.measured < hours.high

    def test_it_fits(self, section):
        assert section.fits
        assert 60e9 < section.quantities["memory_per_device"].mid < 80 * 2**30

    def test_trips_to_experts_hide(self, section):
        plain = estimate(
            model="deepseek-v3", mode="train", device="h800-sxm", devices=2048, tp=1, pp=16, ep=64, batch=15360,
            precision="fp8", zero=1, micro_batch=1,
        ).sections["train"]  # fmt: skip
        routing = [one.breakdowns["time"]["expert routing"] for one in (section, plain)]
        assert routing[0] < 0.7 * routing[1]


def test_both_stacks_of_a_model_are_trained():
    whole = load_model("t5-large")
    halves = [
        replace(whole, blocks=tuple(block for block in whole.blocks if block.stack == stack))
        for stack in ("encoder", "decoder")
    ]
    plan = Plan(dp=8.0)
    times = [run(plan, spec, "t5-large", batch=8, seq_len=512).time["GEMM"] for spec in (whole, *halves)]
    assert times[0] == pytest.approx(times[1] + times[2], rel=1e-9)
    assert 0.0 < times[1] < times[2]  # the decoder also attends to the encoder
