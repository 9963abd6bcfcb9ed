"""Hybrid, recurrent and other unusual decoders: parameters and FLOPs equal what transformers builds and torch counts.

Sequences are longer than a chunk and no multiple of it, so padding is counted as the reference code pads.
"""

from __future__ import annotations

import pytest
from exactness import assert_exact, small

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
LAYERS = ["linear_attention", "moe", "linear_attention", "full_attention", "mlp"]

SDPA = [
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 5}),
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 4, "mlp_only_layers": [1]}),
    ("qwen3_next", WIDE | DELTA | EXPERTS | {"num_hidden_layers": 4, "decoder_sparse_step": 2}),
    ("qwen3_5_text", WIDE | DELTA | {"num_hidden_layers": 4}),
    ("qwen3_5_text", WIDE | DELTA | {"num_hidden_layers": 3, "attention_bias": True, "tie_word_embeddings": True}),
    ("qwen3_5_moe_text", DENSE | DELTA | EXPERTS | {"num_hidden_layers": 4}),
    ("kimi_linear", WIDE | KIMI),
    ("kimi_linear", WIDE | KIMI | {"q_lora_rank": 28, "layer_types": ["linear_attention", "full_attention"] * 2 + ["linear_attention"]}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS, "moe_latent_size": 64}),
    ("nemotron_h", WIDE | NEMOTRON | {"layers_block_type": LAYERS, "use_bias": True, "mlp_bias": True, "attention_bias": True, "use_conv_bias": False}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "facts"), SDPA, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(SDPA)])
def test_hybrid_is_exact(kind, facts):
    assert_exact(small(kind, **facts), queries=QUERIES)
