"""Engines, checkpoints and kernels of a step."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.errors import InputError, UnknownNameError
from capacity.estimators.answer import estimate
from capacity.estimators.case import read_case
from capacity.estimators.checkpoint import checkpoint_formats
from capacity.estimators.formats import FORMATS
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.replica import machine_of
from capacity.estimators.rigs import rig
from capacity.estimators.serving_case import read_service
from capacity.estimators.work import collectives, kernels, small_kernels
from capacity.formulas import schedule, traffic
from capacity.laws.engine import engine_names, load_engine
from capacity.laws.step import kernel_time_s
from capacity.spec.plan import Plan


def middle(**request):
    section = estimate(mode="serve", **request).sections["serve"]
    return {name: quantity.mid for name, quantity in section.quantities.items()}


@pytest.mark.parametrize("name", engine_names())
@pytest.mark.parametrize("kind", ["GPU", "CPU", "Apple", "edge"])
def test_every_engine_has_parameters_on_every_kind_it_names(name, kind):
    engine = load_engine(name, kind)
    assert 0.0 < engine.memory_share <= 1.0
    assert engine.step_s >= 0.0
    assert all(0.0 < share <= 1.6 for share in engine.law.bandwidth.known.values())
    # A phone's cores multiply int8 four times as fast as fp32, which is the peak that is known of them.
    assert all(0.0 < share <= 4.0 for share in engine.law.peak.known.values())
    assert engine.law.bandwidth["gemm.no-such-format"] == engine.law.bandwidth["gemm"]


def test_engines_are_known_by_their_usual_names():
    assert load_engine("trtllm") is load_engine("TensorRT_LLM") or load_engine("trtllm").id == "tensorrt-llm"
    assert load_engine("Ollama", "CPU").id == "llama.cpp"
    with pytest.raises(UnknownNameError):
        load_engine("vlm")


class TestCheckpoint:
    def test_nvfp4_mixtures_keep_attention_wide(self):
        formats = checkpoint_formats(load_model("deepseek-r1"), "nvfp4")
        assert formats["attention"] == ("bf16", 2.0)
        assert formats[""] == ("fp4", 4.5 / 8.0)
        assert checkpoint_formats(load_model("llama-3.1-70b"), "nvfp4").get("attention") is None

    def test_mxfp4_keeps_all_but_experts_wide(self):
        formats = checkpoint_formats(load_model("gpt-oss-120b"), "mxfp4")
        assert formats["expert"][0] == "fp4"
        assert formats["attention"][1] == 2.0

    def test_a_published_checkpoint_keeps_its_publishers_choice(self):
        formats = checkpoint_formats(load_model("kimi-k2.5"), "int4")
        assert formats["shared_expert"] == ("bf16", 2.0)
        assert formats["expert"] == ("int4", 4.5 / 8.0)

    def test_fp8_of_mixtures_is_scaled_by_blocks(self):
        assert checkpoint_formats(load_model("deepseek-r1"), "fp8")["expert"][0] == "fp8_block"
        assert checkpoint_formats(load_model("qwen3-32b"), "fp8")[""][0] == "fp8"

    def test_stated_bits_win(self):
        assert checkpoint_formats(load_model("llama-2-7b"), "int4", 2.5)[""] == ("int4", 2.5 / 8.0)

    @pytest.mark.parametrize("word", [word for word in FORMATS if word != "tf32"])
    def test_every_format_can_be_served(self, word):
        assert middle(model="llama-3.2-1b", device="h100-sxm", precision=word, concurrency=1)["tpot"] > 0.0


class TestKernels:
    def setup_method(self):
        case = read_case({"model": "llama-3.1-8b", "mode": "serve", "devices": 1})
        _, service = read_service(case)
        self.machine = machine_of(case.cluster, service)
        self.model = case.model

    def made(self, **tokens):
        return kernels(lower(self.model, Tokens(logits=1.0, **tokens)), tokens["sequences"], Plan(), self.machine)

    def test_maps_of_one_input_are_one_launch(self):
        """Four products a layer (queries with keys and values, output, gate with up, down), and the head."""
        launched = sum(one.launches for one in self.made(sequences=1.0, past=100.0) if one.part == "weights")
        assert launched == 32 * 4 + 1

    def test_weights_are_read_once_at_the_datasheets_rate(self):
        read = sum(one.memory_s for one in self.made(sequences=1.0, past=100.0) if one.part == "weights")
        assert read == pytest.approx((8.03e9 - 128256 * 4096) * 2 / 3.35e12, rel=0.01)

    def test_a_cache_is_read_once_a_step(self):
        cache = sum(one.memory_s for one in self.made(sequences=8.0, past=999.0) if "cache" in one.bandwidth)
        assert cache == pytest.approx(8 * 1000 * 131072 / 3.35e12, rel=1e-6)

    def test_one_device_exchanges_nothing(self):
        assert collectives(self.model, 8.0, Plan(), self.machine) == []
        two = collectives(self.model, 8.0, Plan(tp=2.0), self.machine)
        assert sum(one.launches for one in two if one.launch == "all_reduce") == 64

    def test_small_kernels_are_a_layers(self):
        assert {one.launch: one.launches for one in small_kernels(self.model)} == {"layer": 32}
        assert {one.launch for one in small_kernels(load_model("qwen3-32b"))} == {"layer", "qk_norm"}


def test_a_kernel_takes_the_slower_of_bytes_and_work():
    assert kernel_time_s(1.0, 0.1, 0.0, 0.0, 0.0, 0.5, 0.5, 64.0, 0.0) == 2.0
    assert kernel_time_s(0.1, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 64.0, 0.0) == 2.0
    # Two rows a matrix are padded by 8 + 2, many by 64 at most.
    assert kernel_time_s(0.0, 1.0, 1.0, 2.0, 0.0, 1.0, 1.0, 64.0, 0.0) == 11.0
    assert kernel_time_s(0.0, 1.0, 1.0, 500.0, 0.0, 1.0, 1.0, 64.0, 0.0) == 65.0
    assert kernel_time_s(0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 64.0, 3.0) == 6.0


def test_the_fullest_rank_has_more_than_the_mean():
    assert traffic.busiest_rank(100.0, 8.0) == pytest.approx(100.0 + (200.0 * 2.0794) ** 0.5, rel=1e-3)
    assert traffic.busiest_rank(100.0, 1.0) == 100.0


class TestFeatures:
    def test_attention_data_parallelism_keeps_caches_apart(self):
        common = {"model": "deepseek-v3", "device": "h200-sxm", "devices": 8, "precision": "fp8", "concurrency": 64}
        cut = middle(tp=8, **common)
        apart = middle(tp=1, attention_dp=8, ep=8, **common)
        assert apart["most_concurrent"] * 8 > 4 * cut["most_concurrent"]

    def test_drafts_that_are_accepted_are_faster_and_others_slower(self):
        common = {"model": "llama-3.1-70b", "devices": 4, "tp": 4, "concurrency": 1}
        plain = middle(**common)["tpot"]
        assert middle(draft_tokens=3, acceptance=0.8, **common)["tpot"] < 0.6 * plain
        assert middle(draft_tokens=3, acceptance=0.0, **common)["tpot"] >= plain
        with pytest.raises(InputError, match="--draft-tokens"):
            middle(acceptance=0.5, **common)

    def test_a_prefix_that_is_cached_is_not_read_again(self):
        common = {"model": "llama-3.1-8b", "prompt_len": 8000, "concurrency": 16}
        assert middle(prefix_hit=0.9, **common)["ttft"] < 0.5 * middle(**common)["ttft"]
        assert middle(prefix_hit=0.9, **common)["tpot"] < middle(**common)["tpot"]

    def test_pools_of_their_own_keep_prompts_out_of_steps(self):
        common = {"model": "llama-3.1-70b", "precision": "fp8", "prompt_len": 4000, "concurrency": 64, "tp": 4, "dp": 1}
        together = middle(devices=4, **common)
        apart = middle(devices=4, prefill_workers=1, prefill_tp=4, **common)
        assert apart["tpot"] < together["tpot"]
        assert apart["cost_per_hour"] == pytest.approx(2.0 * together["cost_per_hour"])
        few = middle(devices=4, prefill_workers=1, prefill_tp=1, **common)
        assert few["ttft"] > apart["ttft"]
        with pytest.raises(InputError, match="--prefill-workers"):
            middle(devices=4, prefill_tp=4, **common)

    @pytest.mark.parametrize("rate", [5.0, 50.0])
    def test_a_promise_gives_replicas_that_keep_it(self, rate):
        found = middle(
            model="llama-3.1-70b", precision="fp8", devices=4, tp=4, request_rate=rate, ttft_slo=2.0, tpot_slo=0.05
        )
        assert found["ttft_at_percentile"] <= 2.0
        assert found["tpot_at_percentile"] <= 0.05
        assert (found["replicas"] - 1) * found["requests_per_s_per_replica"] < rate
        assert found["replicas"] * found["requests_per_s_per_replica"] >= rate
        assert found["replicas_with_spare"] == found["replicas"] + 1
        assert found["service_devices"] == 4 * found["replicas_with_spare"]
        # 1024 in and 256 out cost what the devices cost.
        spent = (
            (found["cost_per_million_input_tokens"] * 1024 + found["cost_per_million_output_tokens"] * 256)
            * rate
            * 3600
            / 1e6
        )
        assert spent == pytest.approx(found["replicas"] * 4 * found["cost_per_hour"] / 4, rel=1e-6)
        assert found["device_hours_per_day_scaled"] <= found["device_hours_per_day"]

    def test_a_promise_nobody_can_keep_is_refused_in_one_line(self):
        with pytest.raises(InputError, match="cannot be kept") as refused:
            middle(model="llama-3.1-70b", devices=4, tp=4, request_rate=1.0, tpot_slo=0.001)
        assert "\n" not in str(refused.value)
        with pytest.raises(InputError, match="--request-rate"):
            middle(model="llama-3.1-8b", ttft_slo=1.0)

    def test_a_stricter_promise_takes_more(self):
        common = {"model": "llama-3.1-70b", "precision": "fp8", "devices": 4, "tp": 4, "request_rate": 40.0}
        loose, strict = (middle(tpot_slo=slo, **common) for slo in (0.1, 0.025))
        assert strict["requests_per_s_per_replica"] < loose["requests_per_s_per_replica"]
        assert strict["cost_per_million_output_tokens"] > loose["cost_per_million_output_tokens"]


def test_a_percentile_waits_longer_than_the_mean():
    assert schedule.tail_wait_s(1.0, 2.0, 0.05) == pytest.approx(1.0 + 2.0 * 2.9957, rel=1e-4)
    typical = schedule.time_per_output_token_s(0.01, 0.1, 100.0, 17.0)
    assert schedule.tail_token_s(0.01, 0.1, 100.0, 17.0, 0.5) == pytest.approx(typical)
    # 16 prompts on average, 16 + 1.645 x 4 at the 95th percentile.
    assert schedule.tail_token_s(0.01, 0.1, 100.0, 17.0, 0.95) == pytest.approx(
        0.01 + (16 + 1.645 * 4) * 0.001, rel=0.005
    )


def test_a_pipeline_works_on_chunks_of_one_prompt_in_turn():
    assert schedule.pipelined_share(1.0, 4.0) == 1.0
    assert schedule.pipelined_share(8.0, 4.0, 1.0) == pytest.approx(11.0 / 32.0)
    assert schedule.pipelined_share(8.0, 4.0) > 11.0 / 32.0


def test_one_processor_reads_what_it_can_reach():
    cluster, _ = rig("raspberry-pi-5")
    pace = middle(model="llama-2-7b", device="raspberry-pi-5", precision="q4_0", prompt_len=16, output_len=128)["tpot"]
    assert pace > 3.9e9 / cluster.device.memory_bytes_per_s


def test_a_service_admits_no_more_than_was_asked_for():
    request = {"model": "llama-3.1-8b", "mode": "serve", "device": "h100-sxm", "request_rate": 20.0}
    free, held = (estimate(**request, **more).sections["serve"].quantities for more in ({}, {"concurrency": 24}))
    assert held["concurrency_per_replica"].mid == 24.0 < free["concurrency_per_replica"].mid
    assert held["tpot_at_percentile"].mid < free["tpot_at_percentile"].mid
    assert held["replicas"].mid > free["replicas"].mid
