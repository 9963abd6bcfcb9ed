"""Pace of serving: bounds that physics sets, and how it moves with load."""

from __future__ import annotations

import itertools

import pytest

from capacity.catalogue import load_model
from capacity.estimators.answer import estimate
from capacity.estimators.case import read_case
from capacity.estimators.checkpoint import checkpoint_formats
from capacity.estimators.replica import load_replica, machine_of
from capacity.estimators.serving_case import read_service
from capacity.estimators.work import collectives
from capacity.formulas import schedule
from capacity.laws.step import Parameters


def served(**request):
    return estimate(mode="serve", **request).sections["serve"]


def middle(**request):
    return {name: quantity.mid for name, quantity in served(**request).quantities.items()}


@pytest.mark.parametrize(
    "device", ["h100-sxm", "a100-sxm-80gb", "mi300x", "b200", "tpu-v5p", "rtx-4090", "apple-m4-max-40"]
)
@pytest.mark.parametrize(
    ("model", "precision"),
    [("llama-3.1-8b", "bf16"), ("llama-3.1-8b", "int4"), ("gemma-2-9b", "fp8"), ("gpt2", "bf16")],
)
def test_a_lone_token_takes_at_least_the_reading_of_the_weights(device, model, precision):
    """Every weight but the embedding's other rows passes the memory bus once a token."""
    section = served(model=model, precision=precision, device=device, devices=1, concurrency=1)
    weights, embedding = section.breakdowns["memory"]["weights"], {"llama-3.1-8b": 128256 * 4096 * 2}.get(model, 0)
    bandwidth = {"h100-sxm": 3.35e12, "a100-sxm-80gb": 2.039e12, "mi300x": 5.3e12, "b200": 8e12, "tpu-v5p": 2.765e12}
    bandwidth |= {"rtx-4090": 1.008e12, "apple-m4-max-40": 546e9}
    assert section.quantities["tpot"].mid >= 0.99 * (weights - embedding) / bandwidth[device]
    assert section.quantities["tokens_per_s"].mid <= 1.0 / section.quantities["tpot"].mid


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v2-lite", "gemma-3-12b", "qwen3-30b-a3b"])
def test_a_larger_batch_is_slower_for_each_and_faster_for_all(model):
    found = [middle(model=model, devices=8, tp=8, concurrency=batch) for batch in (1, 4, 16, 64)]
    for fewer, more in itertools.pairwise(found):
        assert more["tpot"] > fewer["tpot"]
        assert more["ttft"] >= fewer["ttft"]
        assert more["tokens_per_s"] > fewer["tokens_per_s"]
        assert more["tokens_per_s"] < 4.0 * fewer["tokens_per_s"]
        assert more["energy_per_token"] < fewer["energy_per_token"]
        assert more["cost_per_million_tokens"] < fewer["cost_per_million_tokens"]


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v2-lite", "gpt-oss-20b"])
def test_a_longer_context_is_slower(model):
    found = [middle(model=model, prompt_len=length, output_len=256) for length in (512, 4096, 32768)]
    for shorter, longer in itertools.pairwise(found):
        assert longer["tpot"] > shorter["tpot"]
        assert longer["ttft"] > shorter["ttft"]
        assert longer["flop_per_token"] > shorter["flop_per_token"]


def test_a_state_does_not_grow_with_the_context():
    found = [
        served(model="falcon-mamba-7b", prompt_len=length, concurrency=1).breakdowns["time"]["recurrent state"]
        for length in (512, 32768)
    ]
    assert found[0] == pytest.approx(found[1])


def test_only_experts_that_are_chosen_are_read():
    """Mixtral 8x7B alone reads 2 of 8 experts: far faster than its 47 billion weights, slower than the 13 of them."""
    pace = served(model="mixtral-8x7b", devices=2, tp=2, concurrency=1)
    seconds = sum(pace.breakdowns["time"][part] for part in ("weights", "experts"))
    assert 12.9e9 * 2 / 2 / 3.35e12 < seconds < 12.9e9 * 2 / 2 / 3.35e12 * 1.7
    crowd = served(model="mixtral-8x7b", devices=2, tp=2, concurrency=32)
    assert crowd.breakdowns["time"]["experts"] > 2.5 * pace.breakdowns["time"]["experts"]


def test_every_kind_of_layer_takes_its_time():
    """gpt-oss-20b alternates windows and full attention: at a long context the full ones dominate, but both are paid."""
    section = served(model="gpt-oss-20b", prompt_len=1024, output_len=256, concurrency=1)
    read = section.breakdowns["memory"]["weights"] * section.quantities["active_parameters"].mid / 20.9e9
    assert sum(section.breakdowns["time"][part] for part in ("weights", "experts")) > 0.9 * read / 3.35e12


@pytest.mark.parametrize("concurrency", [1, 8])
def test_narrow_weights_are_faster_alone(concurrency):
    tokens = [
        middle(model="llama-3.1-70b", devices=4, tp=4, precision=word, concurrency=concurrency)["tpot"]
        for word in ("bf16", "fp8", "int4")
    ]
    assert tokens[0] > max(tokens[1:])
    if concurrency == 1:  # with more to multiply, unpacking 4-bit weights takes back what reading them saves
        assert tokens[1] > tokens[2]


def test_more_devices_make_a_replica_faster_and_replicas_serve_more():
    paces = [middle(model="llama-3.1-70b", devices=tp, tp=tp)["tpot"] for tp in (4, 8)]
    assert paces[1] < paces[0] < 2.0 * paces[1]
    one, two = (middle(model="llama-3.1-70b", devices=devices, tp=4) for devices in (4, 8))
    assert two["tokens_per_s"] == pytest.approx(2.0 * one["tokens_per_s"])
    assert two["tpot"] == pytest.approx(one["tpot"])
    assert two["energy_per_token"] == pytest.approx(one["energy_per_token"], rel=0.02)
    assert two["cost_per_million_tokens"] == pytest.approx(one["cost_per_million_tokens"])


def test_figures_of_one_answer_agree():
    found = middle(model="llama-3.1-8b", concurrency=8, output_len=256, prompt_len=1024, price=3.6)
    assert found["request_time"] == pytest.approx(found["ttft"] + 255 * found["tpot"])
    assert found["requests_per_s"] == pytest.approx(8 / found["request_time"])  # Little's law
    assert found["tokens_per_s"] == pytest.approx(256 * found["requests_per_s"])
    assert found["cost_per_million_tokens"] == pytest.approx(1e-3 / found["tokens_per_s"] * 1e6)
    assert found["energy_per_token"] == pytest.approx(found["power"] / found["tokens_per_s"])
    assert 0.0 < found["bandwidth_share"] <= 1.0
    # 2 N and the attention square of the mean context of 1,152 tokens.
    looked_up = 128256 * 4096
    assert found["flop_per_token"] == pytest.approx(2 * (8.03e9 - looked_up) + 4 * 32 * 4096 * 1152, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "item"),
    [
        ("bert-large", "request"),
        ("modernbert-base", "request"),
        ("vit-b-16", "image"),
        ("clip-vit-l-14-vision", "image"),
    ],
)
def test_models_that_do_not_write_answer_in_one_pass(model, item):
    section = served(model=model, concurrency=32)
    found = section.quantities
    assert not {"tpot", "ttft", "tokens_per_s_per_user"} & set(found)
    assert found[f"{item}s_per_s"].mid == pytest.approx(32 / found["latency"].mid)
    assert section.breakdowns["time"] == section.breakdowns["prefill time"]


def test_an_image_is_the_published_work():
    """ViT-B/16 at 224 pixels: 17.6 GMAC (Dosovitskiy 2021 as counted by its libraries), two FLOP each."""
    assert middle(model="vit-b-16")["flop_per_image"] == pytest.approx(2 * 17.56e9, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_waiting_grows_with_the_load(share):
    """M/D/1: half the service time x rho / (1 - rho), where prompts keep the device busy for rho of the time."""
    running, decoding = 1e6, 1.0
    prompt = share / (1.0 - share) * decoding / running
    assert schedule.prompt_queue_wait_s(prompt, decoding, running) == pytest.approx(
        prompt * 0.5 * share / (1.0 - share)
    )


def test_a_prompt_waits_for_half_of_the_others_at_most():
    assert schedule.prompt_queue_wait_s(1.0, 1e-9, 11.0) == schedule.lock_step_wait_s(1.0, 11.0) == 5.0
    assert schedule.burst_wait_s(1.0, 9.0) == 5.0  # the mean of 1, 2 ... 9


def test_requests_of_one_length_wait_in_groups():
    """Of five that came together two are before the mean one; a queue that is longer counts instead."""
    assert schedule.group_wait_s(1.0, 64.0, 0.5) == 2.0
    assert schedule.group_wait_s(1.0, 64.0, 3.0) == 3.0
    assert schedule.group_wait_s(1.0, 1.0, 0.0) == 0.0


def test_drafts_give_a_geometric_sum():
    assert schedule.tokens_per_step(3.0, 0.5) == 1.0 + 0.5 + 0.25 + 0.125
    assert schedule.tokens_per_step(3.0, 0.0) == 1.0


def test_a_token_waits_for_the_prompts_of_others():
    assert schedule.time_per_output_token_s(0.01, 1.0, 100.0, 1.0) == 0.01
    assert schedule.time_per_output_token_s(0.01, 1.0, 100.0, 11.0) == pytest.approx(0.11)


# Published single-stream decoding with the request behind it: tokens a second, source.
@pytest.mark.parametrize(
    ("request_", "measured"),
    [
        # llama.cpp discussion 4167 (M2 Ultra, 76 cores): LLaMA 7B F16 41 tokens/s, Q8_0 66, Q4_0 94
        ({"model": "llama-7b", "device": "apple-m2-ultra", "precision": "fp16"}, 41.0),
        ({"model": "llama-7b", "device": "apple-m2-ultra", "precision": "int4"}, 94.0),
        # gpt-fast README (A100 80 GB, batch 1): Llama 2 7B 104.9 tokens/s in bf16, 155.6 with int8 weights
        ({"model": "llama-2-7b", "device": "a100-sxm-80gb", "precision": "bf16"}, 104.9),
        # gpt-fast README (A100 80 GB, tp 4 and 8): Llama 2 70B
        ({"model": "llama-2-70b", "device": "a100-sxm-80gb", "precision": "bf16", "devices": 8, "tp": 8}, 62.5),
    ],
)
def test_published_single_streams_lie_within_forty_percent(request_, measured):
    pace = middle(concurrency=1, prompt_len=16, output_len=200, **request_)["tokens_per_s_per_user"]
    assert measured / 1.4 < pace < measured * 1.4, f"{pace / measured:.2f} of what was measured"


def test_a_parameter_without_a_value_takes_the_nearest_name():
    law = Parameters({"expert.int4.hopper": 0.8, "expert.int4": 0.7, "expert": 0.6}, "share of peak", 0.5, "test")
    assert law["expert.int4.hopper"] == 0.8
    assert law["expert.int4.ampere"] == 0.7
    assert law["expert.fp8.hopper"] == 0.6
    assert law["gemm.bf16"] == 0.5


def test_nvfp4_checkpoints_keep_wide_what_their_publishers_kept():
    deepseek = checkpoint_formats(load_model("deepseek-r1"), "nvfp4")
    assert deepseek["attention"] == ("bf16", 2.0)
    assert deepseek["attention.o_proj"] == deepseek[""] == ("fp4", 0.5625)
    kimi = checkpoint_formats(load_model("kimi-k2.5"), "nvfp4")
    assert kimi["shared_expert"] == kimi["ffn"] == kimi["attention"] == ("bf16", 2.0)
    assert "attention.o_proj" not in kimi
    assert kimi.get("expert", kimi[""]) == ("fp4", 0.5625)


def laid_out(device, model="llama-3.1-405b", **layout):
    """The plan and the machine of a replica."""
    ranks = layout.get("tp", 1) * layout.get("attention_dp", 1)
    case = read_case({"model": model, "device": device, "mode": "serve", "devices": ranks, **layout})
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    return load.plan, machine_of(case.cluster, service)


def test_ranks_on_other_nodes_are_heard_later():
    model = load_model("llama-3.1-405b")
    near, far = laid_out("h100-sxm", tp=8), laid_out("h100-sxm", tp=16)
    names = {plan.tp: {one.launch for one in collectives(model, 1.0, plan, machine)} for plan, machine in (near, far)}
    assert "all_reduce_node" not in names[8.0]
    assert "all_reduce_node" in names[16.0]


def test_a_token_goes_once_to_each_rank_its_experts_lie_on():
    plan, machine = laid_out("h200-sxm", model="deepseek-r1", tp=1, attention_dp=8, ep=8)
    sent = [one for one in collectives(load_model("deepseek-r1"), 1.0, plan, machine) if one.part == "expert traffic"]
    copies = 8.0 * (1.0 - (7.0 / 8.0) ** 8.0)  # distinct ranks of 8 experts
    wire = 58.0 * copies * 7168.0 * 3.0 * 7.0 / 8.0 / machine.link(8.0)
    assert sum(one.memory_s for one in sent) == pytest.approx(wire)
