"""The importer builds what transformers builds: equal parameters and equal forward FLOPs, to the last one.

Each family is tried small but in real proportions (grouped heads, a vocabulary that is no power of two), from the full
dictionary of its config and from only the fields a config.json must have, so that defaults are the class's own.
"""

from __future__ import annotations

from typing import Any

import pytest
from exactness import AutoConfig, predicted, published
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.mistral4.modeling_mistral4 import Mistral4ForCausalLM

from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.importers.huggingface import MODULES, from_config

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
NARROW = {"moe_intermediate_size": 24}
ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    **NARROW,
}
LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "num_key_value_heads": 8,
}
INDEXER = {"index_n_heads": 4, "index_head_dim": 8, "index_topk": 4}

# (model type, changes to SIZES, options of `published`)
Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: list[Case] = [
    ("afmoe", {**EXPERTS, **NARROW, "num_shared_experts": 1, "head_dim": 16, "num_hidden_layers": 5}, {}),
    ("apertus", {}, {}),
    ("aria_text", {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}, {}),
    ("arcee", {"attention_bias": True, "mlp_bias": True}, {}),
    ("cohere", {}, {}),
    ("cohere", {"use_qk_norm": True}, {}),
    ("cohere2", {"num_hidden_layers": 5}, {}),
    ("cwm", {"num_hidden_layers": 5}, {}),
    ("deepseek_v2", {**ROUTED, **LATENT}, {}),
    ("deepseek_v2", {**ROUTED, **LATENT, "q_lora_rank": None}, {}),
    ("deepseek_v3", {**ROUTED, **LATENT}, {}),
    ("deepseek_v32", {**ROUTED, **LATENT, **INDEXER}, {}),
    ("dots1", ROUTED, {}),
    ("ernie4_5", {}, {}),
    ("ernie4_5", {"use_bias": True, "tie_word_embeddings": False}, {}),
    ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2, **NARROW}, {}),
    ("exaone4", {"num_hidden_layers": 5}, {}),
    ("exaone_moe", {**EXPERTS, **NARROW, "num_shared_experts": 2}, {}),
    ("flex_olmo", EXPERTS, {}),
    ("gemma", {}, {}),
    ("gemma2", {}, {"attention": "eager"}),
    ("gemma3_text", {"num_hidden_layers": 7}, {}),
    ("glm", {}, {}),
    ("glm4", {}, {}),
    ("glm4_moe", ROUTED, {}),
    ("glm4_moe", {**ROUTED, "use_qk_norm": True, "head_dim": 16, "attention_bias": True}, {}),
    ("glm4_moe_lite", {key: value for key, value in ROUTED.items() if key != "first_k_dense_replace"} | LATENT, {}),
    ("glm_moe_dsa", {**ROUTED, **LATENT, **INDEXER}, {}),
    ("glm_moe_dsa", {**ROUTED, **LATENT, **INDEXER, "index_topk_freq": 2}, {}),
    ("gpt_oss", {**LOCAL, "num_hidden_layers": 4}, {"attention": "eager"}),
    ("granite", {"attention_bias": True, "mlp_bias": True}, {}),
    ("granite_swa", {"num_hidden_layers": 5}, {"attention": "eager"}),
    ("granitemoe", LOCAL, {}),
    ("granitemoe_swa", {**LOCAL, "shared_intermediate_size": 40}, {"attention": "eager"}),
    ("granitemoeshared", {**LOCAL, "shared_intermediate_size": 40}, {}),
    ("helium", {"head_dim": 8}, {}),
    ("hunyuan_v1_dense", {"head_dim": 16}, {}),
    ("hunyuan_v1_moe", {"num_experts": 4, "moe_topk": 2, "head_dim": 16}, {}),
    ("hy_v3", {**EXPERTS, **NARROW, "num_shared_experts": 1, "head_dim": 16}, {}),
    ("hyperclovax", {}, {}),
    ("hyperclovax", {"use_post_norm": False}, {}),
    ("internlm3", {"head_dim": 8}, {}),
    ("iquestcoder", {"head_dim": 16}, {}),
    ("jais2", {}, {}),
    ("llama", {}, {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 16}, {}),
    # The published class multiplies every token by every expert, so all are made active here.
    (
        "llama4_text",
        {"num_local_experts": 4, "num_experts_per_tok": 4, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2},
        {"experts": None},
    ),
    ("mellum", {**EXPERTS, **NARROW, "head_dim": 16}, {}),
    ("minicpm3", LATENT, {}),
    ("ministral", {"head_dim": 16}, {}),
    ("ministral3", {}, {}),
    ("mistral", {}, {}),
    ("mistral4", {**ROUTED, **LATENT}, {"build": Mistral4ForCausalLM}),
    ("mixtral", LOCAL, {}),
    ("nanochat", {}, {}),
    ("nemotron", {"attention_bias": True}, {}),
    ("olmo", {}, {}),
    ("olmo2", {}, {}),
    ("olmo3", {"num_hidden_layers": 5}, {}),
    ("olmoe", EXPERTS, {}),
    ("phi3", {}, {}),
    ("phimoe", {**LOCAL, "attention_bias": True, "lm_head_bias": True}, {}),
    ("qwen2", {}, {}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True}, {}),
    ("qwen2_moe", {"shared_expert_intermediate_size": 40, "mlp_only_layers": [1], **EXPERTS, **NARROW}, {}),
    ("qwen3", {"head_dim": 16}, {}),
    ("qwen3_moe", {"decoder_sparse_step": 2, **EXPERTS, **NARROW}, {}),
    ("seed_oss", {"attention_out_bias": True}, {}),
    ("smollm3", {}, {}),
    ("solar_open", {"head_dim": 16, **ROUTED}, {}),
    ("stablelm", {}, {}),
    ("stablelm", {"qk_layernorm": True, "use_qkv_bias": True}, {}),
    ("starcoder2", {}, {}),
    ("starcoder2", {"use_bias": False}, {}),
    ("youtu", LATENT, {}),
    ("vaultgemma", {}, {"attention": "eager"}),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{kind}" for number, (kind, _, _) in enumerate(CASES)])
def test_small_models_are_exact(case: Case) -> None:
    kind, changes, options = case
    fields = SIZES | changes
    config = AutoConfig.for_model(kind, **fields)
    expected = published(config, 2, 9, **options)
    tokens = Tokens(sequences=2, queries=9)
    assert predicted(config.to_dict(), tokens) == expected
    assert predicted({"model_type": kind, **fields}, tokens) == expected


# As their publishers wrote them (defaults of the class left out).
FULL: dict[str, tuple[dict[str, Any], float]] = {
    "llama-3.1-405b": (
        {
            "model_type": "llama", "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
            "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256,
        },
        405.85e9,
    ),
    "deepseek-v3": (
        {
            "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
            "moe_intermediate_size": 2048, "num_attention_heads": 128, "num_key_value_heads": 128,
            "vocab_size": 129280, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
            "first_k_dense_replace": 3, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64, "v_head_dim": 128, "n_group": 8, "topk_group": 4,
        },
        671.03e9,
    ),
    "mixtral-8x7b": (
        {
            "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        46.70e9,
    ),
    "qwen3-235b-a22b": (
        {
            "model_type": "qwen3_moe", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 94,
            "moe_intermediate_size": 1536, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128,
            "vocab_size": 151936, "num_experts": 128, "num_experts_per_tok": 8,
        },
        235.09e9,
    ),
    "gemma-2-27b": (
        {
            "model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46,
            "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 256000,
        },
        27.23e9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_full_size_models_are_exact_and_as_published(name: str) -> None:
    fields, billions = FULL[name]
    config = AutoConfig.for_model(**fields)
    attention = "eager" if fields["model_type"] == "gemma2" else "sdpa"
    count = predicted(fields, Tokens(sequences=1, queries=128))
    assert count == published(config, 1, 128, attention=attention)
    assert count.parameters == pytest.approx(billions, rel=2e-4)


def test_dbrx_has_the_published_parameters() -> None:
    """Its class cannot run on meta (it asks which experts were chosen), so its parameters alone are compared."""
    import torch

    fields = {
        "d_model": 64,
        "n_heads": 8,
        "n_layers": 3,
        "vocab_size": 50,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
    }
    config = AutoConfig.for_model("dbrx", **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = sum(p.numel() for p in model.parameters())
    for given in (config.to_dict(), {"model_type": "dbrx", **fields}):
        assert predicted(given, Tokens()).parameters == expected


WRAPPED = {
    "gemma3": ("gemma3_text", {}),
    "kimi_k25": ("deepseek_v3", {**ROUTED, **LATENT}),
    "llama4": ("llama4_text", {**LOCAL, "intermediate_size_mlp": 64}),
    "mistral3": ("mistral", {}),
    "qwen3_vl": ("qwen3_vl_text", {"head_dim": 16}),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", {**EXPERTS, **NARROW, "head_dim": 16}),
}
SEEING = ("vision", "visual", "multi_modal", "mm_projector")


@pytest.mark.parametrize("kind", WRAPPED)
def test_language_models_inside_wrappers_are_exact(kind: str) -> None:
    import torch

    nested, changes = WRAPPED[kind]
    text = {"model_type": nested, **SIZES, **changes}
    config = AutoConfig.for_model(kind, text_config=text)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    expected = sum(p.numel() for name, p in model.named_parameters() if not any(word in name for word in SEEING))
    for given in (config.to_dict(), {"model_type": kind, "text_config": text}):
        spec = from_config(given, source="contract")
        table = [op for op in lower(spec, Tokens()) if op.stack != "vision"]
        assert parameter_count(tuple(table)) == expected


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cohere2", {}),
        ("cwm", {}),
        ("exaone4", {}),
        ("gemma2", {}),
        ("gemma3_text", {"sliding_window": 1024}),
        ("gpt_oss", LOCAL),
        ("olmo3", {}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 5}),
        ("qwen2", {}),
        ("llama4_text", LOCAL),
    ],
)
def test_windows_are_the_published_ones(kind: str, changes: dict[str, Any]) -> None:
    fields = SIZES | {"num_hidden_layers": 13} | changes
    config = AutoConfig.for_model(kind, **fields)
    local = sum(layer in {"sliding_attention", "chunked_attention"} for layer in config.layer_types)
    width = config.attention_chunk_size if kind == "llama4_text" else config.sliding_window
    spec = from_config({"model_type": kind, **fields}, source="contract")
    seen = [(block.count, block.sublayers[0].window) for block in spec.blocks]
    assert sum(count for count, window in seen if window == width) == local
    assert sum(count for count, window in seen if window == float("inf")) == 13 - local


def test_forty_configurations_of_claimed_families_are_compared() -> None:
    assert len(CASES) >= 40
    assert {kind for kind, _, _ in CASES} <= set(MODULES)


def test_layers_for_multi_token_prediction_are_extra() -> None:
    """The model card of DeepSeek-V3 gives 671B for the model and 11.5B for the prediction module, shared tables apart."""
    fields = FULL["deepseek-v3"][0] | {"num_nextn_predict_layers": 1}
    spec = from_config(fields, source="contract")
    main = parameter_count(lower(spec, Tokens()))
    more = parameter_count(lower(spec, Tokens(), mtp=True)) - main
    assert main == pytest.approx(671.03e9, rel=1e-4)
    assert more == pytest.approx(11.6e9, rel=0.01)
