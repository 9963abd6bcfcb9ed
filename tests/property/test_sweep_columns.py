"""A column of cases gives what each case alone gives: the same quantities, the same refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capacity
from capacity.errors import CapacityError
from capacity.sweeps import serving, training
from capacity.sweeps.columns import answer_columns, estimate_columns

DEGREES = st.sampled_from([1.0, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0])
# What a row says; a layout is given whole, or in part and searched.
LAYOUT = {
    "tp": DEGREES,
    "pp": DEGREES,
    "dp": DEGREES,
    "zero": st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]),
    "micro_batch": st.sampled_from([1.0, 2.0, 5.0]),
    "recompute": st.sampled_from(["none", "selective", "full"]),
}
OTHERS = {
    "cp": st.sampled_from([1.0, 1.0, 2.0]),
    "ep": st.sampled_from([1.0, 2.0, 8.0]),
    "etp": st.sampled_from([1.0, 2.0]),
    "replicas": st.sampled_from([1.0, 2.0]),
    "interleave": st.sampled_from([1.0, 2.0]),
    "recompute_share": st.sampled_from([0.5, 1.0]),
    "schedule": st.sampled_from(["1f1b", "gpipe", "zero-bubble", "dualpipe"]),
    "cp_kind": st.sampled_from(["ring", "ulysses"]),
    "offload": st.sampled_from(["", "optimizer", "optimizer,parameters", "activations"]),
    "batch": st.sampled_from([64.0, 512.0, 1024.0, 960.0]),
    "seq_len": st.integers(100, 200_000).map(float),
    "tokens": st.floats(1e8, 1e13),
    "devices": st.sampled_from([4.0, 8.0, 64.0, 100.0, 512.0]),
    "optimizer": st.sampled_from(["adamw", "muon", "sgd"]),
    "precision": st.sampled_from(["bf16", "fp8", "fp32"]),
    "stack": st.sampled_from(["megatron-core", "deepspeed", "fsdp", "megatron-lm"]),
    "price": st.floats(0.1, 20.0),
    "pue": st.floats(0.9, 2.0),
    "eval_tokens": st.sampled_from([1e6, 1e8]),
    "ramp_tokens": st.sampled_from([1e7, 1e9]),
}
MODELS = (
    {"params": st.floats(2e6, 2e12)},
    {"model": st.sampled_from(["llama-3.1-8b", "llama-3.1-70b", "llama-3.2-1b", "mixtral-8x7b", "deepseek-v3"])},
)
DEVICES = ("h100-sxm", "a100-sxm-80gb", "tpu-v5p", "mi300x")


@st.composite
def requests(draw, *, whole=True):
    """Columns of a few rows, with a layout that is whole or left open in part."""
    rows = draw(st.integers(1, 6))
    kept = sorted(LAYOUT) if whole else draw(st.sets(st.sampled_from(sorted(LAYOUT)), max_size=3))
    what = draw(st.sampled_from(MODELS)) | {name: LAYOUT[name] for name in kept}
    what |= {name: OTHERS[name] for name in draw(st.sets(st.sampled_from(sorted(OTHERS)), max_size=6))}
    request = {name: draw(st.lists(values, min_size=rows, max_size=rows)) for name, values in what.items()}
    request["device"] = [draw(st.sampled_from(DEVICES)) for _ in range(rows)]
    mode = draw(st.sampled_from(["train", "train", "finetune", "lora"]))
    return {"mode": mode} | {name: np.array(values) for name, values in request.items()}


@settings(max_examples=40, deadline=None)
@given(requests())
def test_columns_equal_single_estimates(request):
    answer = equal_to_single_estimates(request)
    assert answer.singly == 0 or not {"ep", "params"} & set(request)  # of experts the degree is searched


@settings(max_examples=10, deadline=None)
@given(requests(whole=False))
def test_searched_layouts_are_those_of_single_estimates(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SEARCHED_ROWS", 0)
        assert equal_to_single_estimates(request).singly == 0


# What a row of a server says: its layout, its load, its habits, its pools, its promises.
SERVED = {
    "tp": DEGREES,
    "pp": st.sampled_from([1.0, 1.0, 2.0, 4.0]),
    "ep": st.sampled_from([1.0, 1.0, 2.0, 8.0]),
    "dp": st.sampled_from([1.0, 2.0, 3.0]),
    "attention_dp": st.sampled_from([1.0, 1.0, 2.0, 8.0]),
    "devices": st.sampled_from([1.0, 4.0, 8.0, 16.0, 100.0]),
    "prompt_len": st.sampled_from([1.0, 2.0, 100.0, 1000.0, 9000.0, 200_000.0, 0.5]),
    "output_len": st.sampled_from([1.0, 2.0, 100.0, 1000.0, 20_000.0]),
    "concurrency": st.sampled_from([1.0, 2.0, 16.0, 200.0, 5000.0]),
    "chunk_tokens": st.sampled_from([64.0, 2048.0, 16384.0]),
    "length_spread": st.sampled_from([0.0, 0.2, 1.0]),
    "output_variation": st.sampled_from([0.0, 1.0]),
    "burst": st.sampled_from([0.0, 0.14, 1.0]),
    "prefix_hit": st.sampled_from([0.0, 0.3, 0.999, 1.0]),
    "receive_steps": st.sampled_from([1.0, 10.0]),
    "hold_steps": st.sampled_from([0.0, 5.0]),
    "draft_tokens": st.sampled_from([1.0, 4.0, 64.0]),
    "adapters": st.sampled_from([1.0, 2.0, 100.0]),
    "weight_bits": st.sampled_from([4.0, 8.0]),
    "price": st.floats(0.1, 20.0),
    "pue": st.floats(0.9, 2.0),
    "offload": st.sampled_from(["weights", "experts", "cache", "experts,cache", "weights,cache"]),
    "offload_to": st.sampled_from(["cpu", "nvme"]),
    "precision": st.sampled_from(["bf16", "fp8", "int4", "q4_k_m"]),
    "kv_precision": st.sampled_from(["bf16", "fp8"]),
    "engine": st.sampled_from(["vllm", "sglang", "trt-llm", "llama.cpp"]),
    "sampling": st.sampled_from(["greedy", "sampled"]),
}
# Options that only go with others.
POOLS = {
    "prefill_workers": st.sampled_from([1.0, 2.0, 8.0]),
    "prefill_tp": st.sampled_from([1.0, 2.0, 8.0]),
    "prefill_ep": st.sampled_from([1.0, 1.0, 2.0]),
    "prefill_attention_dp": st.sampled_from([1.0, 2.0]),
}
PROMISES = {
    "request_rate": st.floats(0.01, 100.0),
    "ttft_slo": st.sampled_from([0.1, 2.0, 30.0]),
    "tpot_slo": st.sampled_from([0.02, 0.2]),
    "percentile": st.sampled_from([0.5, 0.99]),
    "night": st.sampled_from([0.0, 0.5]),
}
TOGETHER = (
    {},
    {},
    POOLS,
    PROMISES,
    {"draft_tokens": SERVED["draft_tokens"], "acceptance": st.sampled_from([0.0, 0.6, 0.99])},
    {"offload": st.sampled_from(["weights", "weights,cache"]), "host_share": st.sampled_from([0.0, 0.5, 1.0, 2.0])},
)
SERVED_MODELS = (
    {"params": st.floats(2e6, 2e12)},
    {"model": st.sampled_from(["llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "deepseek-v3", "gemma-2-9b"])},
    {"model": st.sampled_from(["deepseek-v3.2", "qwen3-next-80b-a3b", "jamba-v0.1", "mamba-2.8b", "gpt-oss-120b"])},
    {"model": st.sampled_from(["bert-base", "t5-base", "vit-b-16", "whisper-large-v3"])},
)


@st.composite
def served(draw):
    """Columns of a few rows of servers."""
    rows = draw(st.integers(3, 6))
    what = draw(st.sampled_from(SERVED_MODELS)) | draw(st.sampled_from(TOGETHER))
    what |= {name: SERVED[name] for name in draw(st.sets(st.sampled_from(sorted(SERVED)), max_size=7))}
    request = {name: draw(st.lists(values, min_size=rows, max_size=rows)) for name, values in what.items()}
    # Words make groups: some examples are of one.
    alike = draw(st.booleans())
    request = {
        name: values[:1] * rows if alike and isinstance(values[0], str) else values for name, values in request.items()
    }
    request["device"] = [draw(st.sampled_from((*DEVICES, "rtx-4090")))] * rows
    return {"mode": "serve"} | {name: np.array(values) for name, values in request.items()}


@settings(max_examples=60, deadline=None)
@given(served(), st.booleans())
def test_columns_of_servers_equal_single_estimates(request, intervals):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "FEWEST_ROWS", 1)
        assert equal_to_single_estimates(request, intervals=intervals).singly == 0


def equal_to_single_estimates(request, *, intervals=False):
    mode = request["mode"]
    answer = answer_columns(request, intervals=intervals)
    for row in range(len(request["device"])):
        alone = {
            name: value if isinstance(value, str) else value[row].item()
            for name, value in request.items()
            if isinstance(value, str) or value[row] != ""
        }
        try:
            section = capacity.estimate(**alone).sections[mode]
        except CapacityError as error:
            assert answer.errors[row] == str(error)
            assert all(math.isnan(column[row]) for column in answer.quantities.values())
            continue
        assert answer.errors[row] is None
        told = {f"{mode}.{name}": quantity.mid for name, quantity in section.quantities.items()}
        for part in ("memory", "time"):
            told |= {f"{mode}.{part}.{name}": value for name, value in section.breakdowns[part].items()}
        told[f"{mode}.fits"] = float(section.fits)
        for name, quantity in section.quantities.items() if intervals else ():
            told |= {f"{mode}.{name}_low": quantity.low, f"{mode}.{name}_high": quantity.high}
        for name, value in told.items():
            assert answer.quantities[name][row] == pytest.approx(value, rel=1e-9), name
        others = {name: column[row] for name, column in answer.quantities.items() if name not in told}
        assert all(value == 0.0 or math.isnan(value) for value in others.values()), others
    return answer


def test_chunks_of_any_size_give_the_same_rows():
    rng = np.random.default_rng(0)
    request = {
        "mode": "train",
        "params": rng.choice([1e9, 7e9, 70e9], 500),
        "seq_len": rng.integers(512, 32768, 500),
        "recompute": "full",
        "micro_batch": 1,
        "zero": rng.integers(0, 4, 500),
        "device": rng.choice(["h100-sxm", "b200"], 500),
        "batch": 1024,
    } | {name: rng.choice([1, 2, 4, 8], 500) for name in ("tp", "pp", "dp")}
    whole, cut = estimate_columns(request), estimate_columns(request, chunk_rows=17)
    assert whole.keys() == cut.keys()
    for name, column in whole.items():
        np.testing.assert_allclose(cut[name], column, rtol=1e-12, err_msg=name)
