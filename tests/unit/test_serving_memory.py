"""Memory of serving: weights, caches and states against published sizes."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.errors import InputError
from capacity.estimators.answer import estimate
from capacity.estimators.case import read_case
from capacity.estimators.replica_memory import footprint
from capacity.formulas.traffic import experts_touched
from capacity.laws.engine import load_engine
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload

LOAD = Workload(mode="serve", prompt_len=1024.0, output_len=256.0, concurrency=16.0, precision=Precision(kv_bits=16.0))


# What vLLM sets aside of a device (its default for --gpu-memory-utilization is 0.9), and takes of that for graphs.
SHARE, GRAPHS = load_engine("vllm").memory_share, load_engine("vllm").runtime_bytes


def served(**request):
    return estimate(mode="serve", **request).sections["serve"]


def held(model, workload=LOAD, formats=None, **plan):
    return footprint(load_model(model), workload, Plan(**plan), formats or {"": ("bf16", 2.0)})


@pytest.mark.parametrize(
    ("model", "bytes_per_token"),
    [
        ("llama-2-7b", 524_288),  # 2 x 32 layers x 32 heads x 128 x 2 bytes
        ("llama-3.1-8b", 131_072),  # 8 KV heads
        ("llama-3.1-70b", 327_680),
        ("llama-3.1-405b", 516_096),
        ("qwen2.5-7b", 57_344),  # 28 layers, 4 KV heads
        ("gpt-3-175b", 4_718_592),
        ("deepseek-v3", 70_272),  # 61 x (512 + 64) x 2: one latent for all heads (DeepSeek 2024)
        ("deepseek-v2", 69_120),  # 60 x 576 x 2
        ("falcon-7b", 8_192),  # multi-query: 32 x 2 x 64 x 2
    ],
)
def test_cache_of_a_token(model, bytes_per_token):
    assert held(model).token_bytes == pytest.approx(bytes_per_token, rel=1e-12)


def test_narrow_caches_take_what_their_bits_say():
    for precision, part in (("fp8", 0.5), ("int4", 4.25 / 16.0)):
        found = served(model="llama-3.1-8b", kv_precision=precision).quantities["kv_bytes_per_token"]
        assert found.mid == pytest.approx(131_072 * part)


@pytest.mark.parametrize(("prompt", "output"), [(64, 32), (1024, 256), (30000, 2000)])
def test_a_window_bounds_the_cache(prompt, output):
    """gpt-oss-20b: 12 of 24 layers see 128 tokens; 8 KV heads of 64."""
    context = prompt + output
    layer = 2 * 8 * 64 * 2
    workload = Workload(mode="serve", prompt_len=float(prompt), output_len=float(output))
    expected = 12 * layer * (context + min(context, 128))
    assert held("gpt-oss-20b", workload).token_bytes * context == pytest.approx(expected, rel=1e-12)


def test_an_encoder_decoder_keeps_prompts_once_and_answers_once():
    """T5-large: 24 decoder layers of 16 x 64; cross-attention keeps the prompt, self-attention the answer."""
    each = 24 * 2 * 1024 * 2
    workload = Workload(mode="serve", prompt_len=384.0, output_len=128.0)
    assert held("t5-large", workload).token_bytes * 512 == pytest.approx(each * (384 + 128), rel=1e-12)


def test_whisper_keeps_1500_frames_of_sound():
    model = load_model("whisper-large-v3")
    workload = Workload(mode="serve", prompt_len=16.0, output_len=84.0)
    each = 32 * 2 * 1280 * 2
    assert footprint(model, workload, Plan(), {"": ("bf16", 2.0)}).token_bytes * 100 == pytest.approx(
        each * (100 + 1500)
    )


def test_a_recurrence_keeps_a_state_whatever_the_context():
    short, long = (held("falcon-mamba-7b", Workload(mode="serve", prompt_len=length)) for length in (128.0, 131072.0))
    assert short.token_bytes == long.token_bytes == 0.0
    assert (
        short.state_bytes == long.state_bytes == pytest.approx(64 * 8192 * 16 * 4)
    )  # layers, inner width, state, fp32


@pytest.mark.parametrize(
    ("precision", "bits"), [("bf16", 16), ("fp8", 8), ("int8", 8), ("int4", 4.25), ("nvfp4", 4.5), ("mxfp4", 4.25)]
)
def test_quantised_weights_take_the_stated_bits(precision, bits):
    """Embedding and head (2 x 32000 x 4096) and norms stay at 16 bits, as checkpoints keep them."""
    wide = 2 * 32000 * 4096 + (2 * 32 + 1) * 4096
    expected = (6_738_415_616 - wide) * bits / 8 + wide * 2
    assert served(model="llama-2-7b", precision=precision).breakdowns["memory"]["weights"] == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize("model", ["llama-3.1-70b", "mixtral-8x7b", "qwen2.5-72b"])
@pytest.mark.parametrize("tp", [2.0, 4.0, 8.0])
def test_tensor_parallelism_cuts_weights_and_cache(model, tp):
    whole, cut = held(model), held(model, tp=tp)
    assert cut.token_bytes == pytest.approx(whole.token_bytes / tp, rel=1e-12)
    assert whole.parts["weights"] / tp <= cut.parts["weights"] < whole.parts["weights"] / tp * 1.01
    assert cut.parts["activations"] == pytest.approx(whole.parts["activations"] / tp)


def test_few_key_heads_are_copied_and_a_latent_is_never_cut():
    assert held("qwen2.5-7b", tp=4.0).token_bytes == pytest.approx(57_344 / 4)
    assert held("falcon-7b").token_bytes == held("deepseek-v3").token_bytes * 8_192 / 70_272
    assert held("llama-3.1-8b", tp=16.0).token_bytes == pytest.approx(131_072 / 8)
    assert held("deepseek-v3", tp=8.0).token_bytes == pytest.approx(70_272)


@pytest.mark.parametrize("pp", [2.0, 4.0])
def test_a_pipeline_cuts_layers_and_caches(pp):
    whole, cut = held("llama-3.1-70b"), held("llama-3.1-70b", pp=pp)
    assert cut.token_bytes == pytest.approx(whole.token_bytes / pp)
    tables = 2 * 2 * 128256 * 8192  # embedding and head may sit on one stage
    assert cut.parts["weights"] == pytest.approx((whole.parts["weights"] - tables) / pp + tables)


@pytest.mark.parametrize("ep", [2.0, 4.0, 8.0])
def test_dealing_experts_over_tensor_ranks_neither_loses_nor_copies_any(ep):
    cut, dealt = held("deepseek-v3", tp=8.0), held("deepseek-v3", tp=8.0, ep=ep)
    assert dealt.parts["weights"] == pytest.approx(cut.parts["weights"], rel=1e-12)
    assert dealt.token_bytes == cut.token_bytes


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"model": "llama-3.1-8b", "ep": 8}, "no experts"),
        ({"model": "deepseek-v3", "tp": 8, "ep": 7}, "does not divide the 256 experts"),
        ({"model": "deepseek-v3", "tp": 4, "ep": 8}, "must divide tp=4"),
        ({"model": "llama-3.1-8b", "tp": 3}, "does not divide the 32 attention heads"),
        ({"model": "llama-3.1-8b", "pp": 64}, "64 pipeline stages are more than the 32 layers"),
        ({"model": "llama-3.1-8b", "devices": 8, "tp": 2, "dp": 3}, "8 devices"),
    ],
)
def test_layouts_that_cannot_exist_are_refused(request_, word):
    with pytest.raises(InputError, match=word) as refused:
        served(**request_)
    assert "\n" not in str(refused.value)


class TestFit:
    def test_parts_are_within_what_the_engine_takes(self):
        for model in ("llama-3.1-8b", "llama-3.1-70b", "deepseek-v3", "gemma-3-27b", "bert-large"):
            section = served(model=model, concurrency=100000)
            assert section.fits
            used = sum(section.breakdowns["memory"].values())
            assert used <= SHARE * section.quantities["device_memory"].mid * (1 + 1e-9)

    def test_what_does_not_fit_is_an_answer_with_the_shortfall(self):
        section = served(model="llama-3.1-70b", device="h100-sxm", devices=1)
        assert section.fits is False
        assert section.binding == "memory"
        need = section.quantities["memory_per_device"].mid
        short = (need + GRAPHS - SHARE * section.quantities["device_memory"].mid) / 2**30
        assert f"{short:.3g} GiB too much; 2 devices hold it" in section.verdict
        assert section.quantities["fewest_devices"].mid == 2.0

    def test_devices_given_are_used_to_hold_it(self):
        """671 GB of FP8 weights leave no room on 8 x 80 GB; two nodes make one replica, not two that do not fit."""
        assert not served(model="deepseek-v3", precision="fp8", devices=8).fits
        both = served(model="deepseek-v3", precision="fp8", devices=16)
        assert both.fits
        assert "tp 8, pp 2" in both.setting

    @pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"])
    def test_the_fewest_devices_hold_it_and_half_of_them_do_not(self, model):
        fewest = int(served(model=model).quantities["fewest_devices"].mid)
        assert served(model=model, devices=fewest).fits
        if fewest > 1:
            assert not served(model=model, devices=fewest // 2).fits

    def test_requests_beyond_memory_wait(self):
        section = served(model="llama-3.1-8b", device="rtx-4090", precision="bf16", concurrency=500)
        most = section.quantities["most_concurrent"].mid
        assert section.quantities["running"].mid == pytest.approx(most)
        assert most < 500
        assert any("the others wait" in warning for warning in section.warnings)
        fewer = served(model="llama-3.1-8b", device="rtx-4090", precision="bf16", concurrency=int(most))
        assert section.quantities["ttft"].mid > 10 * fewer.quantities["ttft"].mid

    def test_a_single_request_may_be_as_long_as_memory_and_the_model_allow(self):
        small = served(model="llama-3.1-8b", device="rtx-4090", precision="bf16")
        assert small.quantities["longest_context"].mid < 131072
        assert served(model="llama-3.1-8b").quantities["longest_context"].mid == 131072


@pytest.mark.parametrize("tokens", [1.0, 3.0, 64.0, 1e6])
def test_experts_touched_lie_between_active_and_all(tokens):
    touched = experts_touched(256.0, 8.0, tokens)
    assert 8.0 - 1e-9 <= touched <= 256.0
    assert touched <= 8.0 * tokens + 1e-9
    if tokens == 1e6:
        assert touched == pytest.approx(256.0)


def test_the_case_keeps_what_the_user_said():
    case = read_case({"model": "llama-3.1-8b", "mode": "serve", "price": 2.0})
    (price,) = [one for one in case.assumptions.all() if one.name == "price"]
    assert (price.tag, price.value) == ("user", 2.0)


@pytest.mark.parametrize(
    ("device", "share"), [("apple-m1", 2 / 3), ("apple-m2-ultra", 3 / 4), ("apple-a17-pro", 1 / 2), ("h100-sxm", 1.0)]
)
def test_an_operating_system_keeps_its_part_of_shared_memory(device, share):
    from capacity.catalogue.devices import load_device

    found = load_device(device)
    assert found.open_bytes == pytest.approx(share * found.memory_bytes)


def test_a_phone_of_8_gb_does_not_hold_what_a_card_of_8_gb_holds():
    request = {"model": "llama-2-7b", "mode": "serve", "devices": 1, "precision": "int4", "engine": "llama.cpp"}
    phone, card = (estimate(**request, device=device).sections["serve"] for device in ("apple-a17-pro", "rtx-4060"))
    assert card.fits
    assert not phone.fits
    assert "4.00 GiB open to a program" in phone.verdict
