"""FLOPs of training against the closed forms of the papers that count them."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.estimators.answer import estimate
from capacity.estimators.feeding import MASKED_SHARE
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count
from capacity.formulas.flops import mean_visible_keys
from capacity.formulas.scaling import compute_optimal_tokens, expected_loss


def trained(**request):
    return {name: q.mid for name, q in estimate(mode="train", **request).sections["train"].quantities.items()}


@pytest.mark.parametrize(
    ("model", "layers", "hidden", "vocab", "seq_len"),
    [("gpt-3-175b", 96, 12288, 50257, 2048), ("gpt2", 12, 768, 50257, 1024), ("gpt-3-13b", 40, 5140, 50257, 2048)],
)
def test_gpt_work_is_the_closed_form_of_megatron(model, layers, hidden, vocab, seq_len):
    """Narayanan 2021: 96 s l h^2 (1 + s / 6h + V / 16lh) with a second forward pass; 72 and 12 without."""
    if hidden == 5140:
        hidden = load_model(model).hidden  # the paper misprints the width of 13B: 40 heads of 128 are 5120
    s, l, h = seq_len, layers, hidden  # noqa: E741
    once = 72 * l * h**2 * (1 + s / (6 * h) + vocab / (12 * l * h))
    assert trained(model=model, seq_len=seq_len)["flop_per_token"] == pytest.approx(once, rel=1e-12)
    again = trained(model=model, seq_len=seq_len, recompute="full", tokens=1e9)
    twice = 96 * l * h**2 * (1 + s / (6 * h) + vocab / (16 * l * h))
    assert (again["flop_total"] + again["flop_recomputed"]) / 1e9 == pytest.approx(twice, rel=1e-12)


@pytest.mark.parametrize("model", ["llama-2-7b", "llama-3.1-8b", "llama-3.1-405b", "qwen3-8b", "mixtral-8x7b"])
def test_six_flop_a_parameter_and_the_attention_square(model):
    """Chowdhery 2022: 6 N + 12 L H Q T, N without the table that is only looked up."""
    spec = load_model(model)
    table = lower(spec, Tokens())
    (core,) = [op for op in table if op.kind == "attention"]
    multiplied = active_parameter_count(table) - sum(
        op.count * op.weight_elements for op in table if op.kind in ("embedding", "elementwise")
    )
    expected = 6 * multiplied + 12 * core.count * core.heads * core.key_size * 4096
    assert trained(model=model, seq_len=4096)["flop_per_token"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "tokens", "seq_len", "published", "tolerance"),
    [
        ("gpt-3-175b", 300e9, 2048, 3.14e23, 0.04),  # Brown 2020, table D.1
        ("gpt-3-13b", 300e9, 2048, 2.31e22, 0.09),
        ("llama-3.1-405b", 15.6e12, 8192, 3.8e25, 0.1),  # Dubey 2024: 6 N D, the attention square not counted
    ],
)
def test_published_budgets(model, tokens, seq_len, published, tolerance):
    work = trained(model=model, tokens=tokens, seq_len=seq_len)["flop_total"]
    assert 1.0 - 0.02 <= work / published <= 1.0 + tolerance


@pytest.mark.parametrize("model", ["llama-2-7b", "mixtral-8x7b", "gemma-3-12b", "falcon-mamba-7b", "vit-b-16"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_utilisation_is_work_over_what_the_devices_could_do(model, recompute):
    found = trained(model=model, recompute=recompute, devices=16, batch=64)
    seconds = found["tokens"] / found["tokens_per_s"]
    assert found["mfu"] * 989.4e12 * 16 * seconds == pytest.approx(found["flop_total"], rel=2e-3)
    assert found["mfu"] <= found["hfu"] <= 1.0
    if recompute == "none":
        assert found["hfu"] == found["mfu"]
    else:
        assert found["hfu"] / found["mfu"] == pytest.approx(1.0 + found["flop_recomputed"] / found["flop_total"])
        assert found["hfu"] <= found["mfu"] * 4.0 / 3.0 * (1.0 + 1e-12)


@pytest.mark.parametrize("model", ["llama-2-7b", "gpt2", "gemma-3-12b", "deepseek-v3", "bert-large"])
def test_full_recomputation_is_one_forward_pass_of_the_blocks(model):
    """A third of the model's work less the head, which is not run again; windows count as in the pass itself."""
    spec = load_model(model)
    found = trained(model=model, recompute="full", seq_len=512, tokens=1e9)
    # A masked language model gives logits to the masked tokens only.
    positions = MASKED_SHARE if model == "bert-large" else 1.0
    head = 2 * positions * sum(linear.in_features * linear.out_features for linear in spec.head)
    assert found["flop_recomputed"] == pytest.approx(found["flop_total"] / 3 - head * 1e9, rel=1e-9)
    attention = trained(model=model, recompute="selective", seq_len=512, tokens=1e9)["flop_recomputed"]
    assert 0 < attention < found["flop_recomputed"]


def test_frozen_weights_need_no_gradients_of_their_own():
    """LoRA: 2 N forward and 2 N for the gradient of the inputs: 4 of the 6."""
    full = trained(model="llama-2-7b")["flop_per_token"]
    section = estimate(model="llama-2-7b", mode="lora").sections["lora"]
    assert section.quantities["flop_per_token"].mid == pytest.approx(full * 2 / 3, rel=1e-12)


def test_a_window_bounds_the_attention_square():
    """Mistral 7B v0.1 sees 4,096 keys: from there on the work of a token no longer grows."""
    at = {seq_len: trained(model="mistral-7b-v0.1", seq_len=seq_len)["flop_per_token"] for seq_len in (4096, 16384)}
    assert at[4096] == pytest.approx(at[16384], rel=1e-12)
    llama = {seq_len: trained(model="llama-3.1-8b", seq_len=seq_len)["flop_per_token"] for seq_len in (4096, 16384)}
    assert llama[16384] - llama[4096] == pytest.approx(12 * 32 * 4096 * (16384 - 4096), rel=1e-12)


@pytest.mark.parametrize(
    ("queries", "keys", "window", "causal"),
    [
        (8, 8, 1e9, 1),
        (8, 8, 3, 1),
        (1, 9, 1e9, 1),
        (4, 9, 6, 1),
        (4, 9, 2, 1),
        (8, 8, 1e9, 0),
        (5, 5, 5, 1),
        (7, 7, 1, 1),
    ],
)
def test_visible_keys_by_counting(queries, keys, window, causal):
    past = keys - queries
    seen = [min(past + i + 1, window) if causal else min(keys, window) for i in range(queries)]
    assert mean_visible_keys(queries, keys, window, causal) == pytest.approx(sum(seen) / queries)


def test_compute_optimal_training_of_chinchilla():
    """Hoffmann 2022: 70 billion parameters deserve 1.4 trillion tokens; its loss on that corpus was 1.936."""
    assert compute_optimal_tokens(70e9) == 1.4e12
    assert expected_loss(70e9, 1.4e12) == pytest.approx(1.936, abs=0.05)
    assert expected_loss(280e9, 300e9) > expected_loss(70e9, 1.4e12)  # Gopher, with the same compute, is worse


def test_parameters_of_a_bare_number_are_what_was_asked_for():
    for params in (1e6, 1.24e8, 7e9, 4.05e11, 1e13):
        answer = estimate(params=params, mode="train")
        assert answer.model["parameters"] == pytest.approx(params, rel=2.6e-3)
    assert parameter_count(lower(load_model("deepseek-v3"), Tokens())) == pytest.approx(671.03e9, rel=1e-3)


@pytest.mark.parametrize("model", ["llama-2-7b", "mixtral-8x7b", "gemma-3-12b", "deepseek-v3", "falcon-mamba-7b"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_work_by_part_adds_up(model, recompute):
    section = estimate(model=model, mode="train", recompute=recompute, seq_len=2048, tokens=1e9).sections["train"]
    work, found = section.breakdowns["work"], section.quantities
    assert sum(work.values()) == pytest.approx(
        found["flop_per_token"].mid + found["flop_recomputed"].mid / 1e9, rel=1e-9
    )
    rebuilt = sum(value for name, value in work.items() if name.endswith("rebuilt"))
    assert rebuilt == pytest.approx(found["flop_recomputed"].mid / 1e9, rel=1e-9)
