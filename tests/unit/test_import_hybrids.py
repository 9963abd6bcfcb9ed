"""Importers of models that transformers has no class for: counted by hand, and what they refuse."""

from __future__ import annotations

import pytest

from capacity.errors import CapacityError, UnsupportedArchitectureError
from capacity.estimators.lowering import Tokens, forward_flop, lower, parameter_count
from capacity.importers.huggingface import from_config


def parameters(config, *, mtp=False):
    return parameter_count(lower(from_config(config, source="test"), Tokens(), mtp=mtp))


def searched(*blocks):
    return {
        "model_type": "nemotron-nas",
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_hidden_layers": len(blocks),
        "vocab_size": 100,
        "block_configs": [{"attention": attention, "ffn": network} for attention, network in blocks],
    }


def test_searched_layers_keep_only_what_was_not_dropped():
    config = searched(
        ({"n_heads_in_group": 4}, {"ffn_mult": 1.5}),
        ({"no_op": True}, {"ffn_mult": 1.3}),
        ({"no_op": True}, {"no_op": True}),
    )
    attention = 512 * (512 + 2 * 2 * 64) + 512 * 512
    # Two thirds of 1.5 x 512 is 512; of 1.3 x 512 is 443, filled up to 512.
    network = 3 * 512 * 512
    assert parameters(config) == 2 * 100 * 512 + 512 + attention + 2 * network + 3 * 512


@pytest.mark.parametrize(
    "attention",
    [{"replace_with_linear": True}, {"n_heads_in_group": 8, "window_length": 1024}, {"n_heads_in_group": 3}, {}],
)
def test_searched_layers_that_are_not_understood_are_refused(attention):
    with pytest.raises(CapacityError, match=r"block_configs\[0\]"):
        parameters(searched((attention, {"ffn_mult": 1.0})))


KIMI = {
    "model_type": "kimi_linear",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "intermediate_size": 96,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_token": 2,
    "num_shared_experts": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3], "num_heads": 4, "head_dim": 16},
}


def test_kimi_k3_adds_gates_a_latent_stream_and_attention_residuals():
    plain = parameters(KIMI)
    linear = KIMI["linear_attn_config"] | {"use_full_rank_gate": True}
    gated = parameters(KIMI | {"linear_attn_config": linear})
    assert gated - plain == 3 * (64 * 64 - (64 * 16 + 16 * 64))
    assert parameters(KIMI | {"mla_use_output_gate": True}) - plain == 64 * 4 * 12
    # Routed experts read and write 32 features instead of 64; two maps and a norm bring them there and back.
    latent = parameters(KIMI | {"routed_expert_hidden_size": 32, "latent_moe_use_norm": True})
    assert latent - plain == 3 * (-8 * 3 * 24 * 32 + 2 * 64 * 32 + 32)
    # Before each sublayer and once at the end: a norm and a query.
    assert parameters(KIMI | {"attn_res_block_size": 2}) - plain == (4 * 2 + 1) * 2 * 64


def test_wrapped_kimi_is_the_same_language_model():
    wrapped = {"model_type": "kimi_k3", "text_config": KIMI, "vision_config": {}}
    assert parameters(wrapped) == parameters(KIMI)
    assert "vision tower" in from_config(wrapped, source="test").notes[-1]


def test_next_token_layers_are_counted_only_on_request():
    config = {
        "model_type": "qwen3_5_text",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 100,
    }
    extra = parameters(config | {"mtp_num_hidden_layers": 1}, mtp=True) - parameters(
        config | {"mtp_num_hidden_layers": 1}
    )
    attention = 64 * (2 * 64 + 2 * 2 * 16) + 64 * 64 + 2 * 16
    assert extra == attention + 3 * 64 * 96 + 2 * 64 + (2 * 64 * 64 + 3 * 64)
    assert parameters(config) == parameters(config | {"mtp_num_hidden_layers": 1})


def test_a_recurrent_layer_costs_the_same_at_any_context():
    model = from_config(
        KIMI | {"linear_attn_config": KIMI["linear_attn_config"] | {"full_attn_layers": []}}, source="test"
    )
    near, far = (forward_flop(lower(model, Tokens(past=past))) for past in (10.0, 100_000.0))
    assert near == far


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (
            {"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 9, "layers_block_type": ["conv"]},
            "kind 'conv'",
        ),
        (
            KIMI | {"model_type": "minimax_m2", "attn_type_list": [0, 1, 1, 1], "num_key_value_heads": 2},
            "attn_type_list",
        ),
        (
            KIMI | {"model_type": "mimo_v2_flash", "num_key_value_heads": 2, "swa_num_attention_heads": 8},
            "swa_num_attention",
        ),
        (KIMI | {"model_type": "qwen3_5_text", "attn_output_gate": False}, "attn_output_gate"),
    ],
)
def test_what_the_published_class_does_not_have_is_refused(config, match):
    with pytest.raises(UnsupportedArchitectureError, match=match):
        parameters(config)
