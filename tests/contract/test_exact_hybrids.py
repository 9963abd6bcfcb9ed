"""Hybrid, recurrent and other unusual decoders: parameters and FLOPs equal what transformers builds and torch counts.

Sequences are longer than a chunk and no multiple of it, so padding is counted as the reference code pads.
"""

from __future__ import annotations

import pytest
import torch
from exactness import assert_exact, predicted, small
from torch import nn
from torch.nn.functional import linear
from transformers import AutoModelForImageTextToText
from transformers.models.step3p7.modeling_step3p7 import Step3p7Experts, Step3p7TextModel

from capacity.estimators.lowering import Tokens

QUERIES = 150

DENSE = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
WIDE = DENSE | {"intermediate_size": 304}
DELTA = {
    "head_dim": 48,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}
EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 72,
}
KIMI = {
    "num_key_value_heads": 8,
    "num_hidden_layers": 5,
    "moe_intermediate_size": 40,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 20,
    "linear_head_dim": 16,
    "linear_num_heads": 6,
}
NEMOTRON = {
    "head_dim": 48,
    "mamba_num_heads": 8,
    "mamba_head_dim": 32,
    "ssm_state_size": 16,
    "n_groups": 2,
    "chunk_size": 32,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 72,
}
MINIMAX_M3 = {
    "num_hidden_layers": 4,
    "head_dim": 48,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "dense_intermediate_size": 500,
    "shared_intermediate_size": 44,
    "rotary_dim": 24,
    "index_n_heads": 2,
    "index_head_dim": 20,
    "index_block_size": 16,
    "index_topk_blocks": 2,
    "layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 3,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
}
GEMMA4 = {
    "num_hidden_layers": 6,
    "head_dim": 32,
    "global_head_dim": 48,
    "num_global_key_value_heads": 4,
    "hidden_size_per_layer_input": 24,
    "vocab_size_per_layer_input": 900,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "sliding_window": 32,
}
GEMMA4_EXPERTS = {
    "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True,
    "enable_moe_block": True,
    "num_experts": 6,
    "top_k_experts": 3,
    "moe_intermediate_size": 44,
}
GEMMA3N = {
    "num_hidden_layers": 10,
    "head_dim": 32,
    "vocab_size_per_layer_input": 900,
    "hidden_size_per_layer_input": 24,
    "num_kv_shared_layers": 5,
    "laurel_rank": 20,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    "altup_num_inputs": 3,
}
MIMO = {
    "num_hidden_layers": 4,
    "head_dim": 48,
    "v_head_dim": 32,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 44,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
}
DEEPSEEK_V4 = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "moe_intermediate_size": 44,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "head_dim": 64,
    "q_lora_rank": 40,
    "num_experts_per_tok": 3,
    "n_routed_experts": 6,
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
    "layer_types": ["sliding_attention", *["compressed_sparse_attention", "heavily_compressed_attention"] * 2],
    "o_groups": 4,
    "o_lora_rank": 36,
    "index_n_heads": 4,
    "index_head_dim": 20,
    "index_topk": 6,
    "sliding_window": 16,
    "max_position_embeddings": 512,
}
STEP = {
    "num_hidden_layers": 5,
    "head_dim": 48,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "share_expert_dim": 44,
    "num_sliding_attention_heads": 12,
    "sliding_window": 32,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
}
SCAN = {"mamba_n_heads": 8, "mamba_d_head": 64, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_chunk_size": 32}
JAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_period": 4,
    "attn_layer_offset": 1,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "mamba_dt_rank": 20,
}
ZAMBA2 = {
    "num_key_value_heads": 8,
    "num_hidden_layers": 6,
    "layers_block_type": ["mamba", "hybrid", "hybrid", "mamba", "hybrid", "hybrid"],
    "mamba_d_state": 16,
    "mamba_ngroups": 2,
    "n_mamba_heads": 8,
    "chunk_size": 32,
    "adapter_rank": 20,
    "num_mem_blocks": 2,
}
MAMBA2 = {"num_heads": 8, "head_dim": 64, "state_size": 16, "n_groups": 2, "chunk_size": 32, "num_hidden_layers": 2}
MAMBA = {"state_size": 16, "num_hidden_layers": 2}
SHORT = {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "conv"]}
GRANITE = {
    "num_hidden_layers": 4,
    "layer_types": ["mamba", "attention", "mamba", "mamba"],
    "shared_intermediate_size": 88,
}
LAYERS = ["linear_attention", "moe", "linear_attention", "full_attention", "mlp"]

SDPA = [
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 5}),
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 4, "mlp_only_layers": [1]}),
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 4, "decoder_sparse_step": 2}),
    ("qwen3_5_text", WIDE | DELTA | {"num_hidden_layers": 4}),
    ("qwen3_5_text", WIDE | DELTA | {"num_hidden_layers": 3, "attention_bias": True, "tie_word_embeddings": True}),
    ("qwen3_5_moe_text", DENSE | DELTA | EXPERTS | {"num_hidden_layers": 4}),
    ("olmo_hybrid", WIDE | {"num_hidden_layers": 4}),
    ("olmo_hybrid", WIDE | DELTA | {"num_hidden_layers": 2}),
    ("kimi_linear", WIDE | KIMI),
    ("kimi_linear", WIDE | KIMI | {"q_lora_rank": 28, "layer_types": ["linear_attention", "full_attention"] * 2 + ["linear_attention"]}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS, "moe_latent_size": 64}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS, "use_bias": True, "mlp_bias": True, "attention_bias": True, "use_conv_bias": False}),
    ("minimax_m2", WIDE | {"num_hidden_layers": 3, "head_dim": 48, "num_local_experts": 6, "num_experts_per_tok": 3}),
    ("minimax_m3_vl_text", WIDE | MINIMAX_M3),
    ("minimax", WIDE | {"num_hidden_layers": 4, "head_dim": 48, "num_local_experts": 6, "num_experts_per_tok": 3, "block_size": 32}),
    ("gemma4_text", WIDE | GEMMA4),
    ("gemma4_text", WIDE | GEMMA4 | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}),
    ("gemma4_text", WIDE | GEMMA4 | GEMMA4_EXPERTS),
    ("gemma3n_text", WIDE | GEMMA3N),
    ("falcon_h1", WIDE | SCAN | {"num_hidden_layers": 2, "mamba_d_ssm": 192, "mamba_d_head": 24, "head_dim": 48}),
    ("falcon_h1", WIDE | SCAN | {"num_hidden_layers": 2, "mamba_d_ssm": None, "mamba_rms_norm": True, "projectors_bias": True}),
    ("jamba", WIDE | JAMBA),
    ("jamba", WIDE | JAMBA | {"num_experts": 1, "mamba_proj_bias": True, "mamba_dt_rank": "auto"}),
    ("bamba", WIDE | SCAN | {"num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_proj_bias": True}),
    ("granitemoehybrid", WIDE | SCAN | GRANITE | {"num_local_experts": 6, "num_experts_per_tok": 3}),
    ("granitemoehybrid", WIDE | SCAN | GRANITE | {"num_local_experts": 0, "tie_word_embeddings": True}),
    ("zamba2", WIDE | ZAMBA2),
    ("zamba2", WIDE | ZAMBA2 | {"use_shared_attention_adapter": True, "use_mem_rope": True, "num_mem_blocks": 1}),
    ("lfm2", WIDE | SHORT),
    ("lfm2", WIDE | {"num_hidden_layers": 3, "full_attn_idxs": [1], "block_auto_adjust_ff_dim": False, "conv_bias": True}),
    ("lfm2_moe", WIDE | SHORT | {"num_dense_layers": 1, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 44}),
    ("recurrent_gemma", WIDE | {"num_key_value_heads": 1, "num_hidden_layers": 4, "lru_width": 320, "attention_window_size": 32}),
]  # fmt: skip
EAGER = [
    ("mamba", DENSE | MAMBA),
    ("mamba", DENSE | MAMBA | {"use_bias": True, "use_conv_bias": False, "time_step_rank": 20}),
    ("falcon_mamba", DENSE | MAMBA),
    ("mamba2", DENSE | MAMBA2),
    ("rwkv", {"vocab_size": 1000, "hidden_size": 256, "num_hidden_layers": 3, "context_length": 512}),
    ("mimo_v2_flash", WIDE | MIMO),
    ("deepseek_v4", DEEPSEEK_V4),
    ("deepseek_v4", DEEPSEEK_V4 | {"hc_mult": 2, "n_shared_experts": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "facts"), SDPA, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(SDPA)])
def test_hybrid_is_exact(kind, facts):
    assert_exact(small(kind, **facts), queries=QUERIES)


@pytest.mark.parametrize(("kind", "facts"), EAGER, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(EAGER)])
def test_hybrid_without_fused_attention_is_exact(kind, facts):
    assert_exact(small(kind, **facts), queries=QUERIES, attention="eager")


VISION = {
    "depth": 3,
    "hidden_size": 96,
    "num_heads": 4,
    "intermediate_size": 120,
    "patch_size": 8,
    "out_hidden_size": 256,
    "num_position_embeddings": 64,
}


@pytest.mark.parametrize("kind", ["qwen3_5", "qwen3_5_moe"])
def test_qwen_with_its_tower_has_exact_parameters(kind):
    text = DENSE | DELTA | EXPERTS | {"intermediate_size": 304, "num_hidden_layers": 4}
    config = small(kind, text_config=text, vision_config=VISION)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert predicted(config.to_dict(), Tokens()).parameters == expected


class StepLanguageModel(nn.Module):
    """The language model of Step 3.7, which transformers builds with its vision tower only."""

    def __init__(self, config):
        super().__init__()
        self.model = Step3p7TextModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, **inputs):
        return self.lm_head(self.model(**inputs).last_hidden_state)


def each_token_once(self, hidden_states, top_k_index, top_k_weights):
    """The convention for routed experts; the published loop over the experts that were hit depends on values."""
    total = 0
    for expert in range(top_k_index.shape[-1]):
        gate, up = linear(hidden_states, self.gate_up_proj[expert]).chunk(2, dim=-1)
        total = total + linear(gate * up, self.down_proj[expert])
    return total


@pytest.mark.parametrize("changes", [{}, {"num_sliding_attention_heads": None}, {"moe_layers_enum": "2,3,4"}])
def test_step_is_exact(changes, monkeypatch):
    monkeypatch.setattr(Step3p7Experts, "forward", each_token_once)
    config = small("step3p5", **WIDE | {"pad_token_id": 0} | STEP | changes)
    assert_exact(config, queries=QUERIES, build=StepLanguageModel)
