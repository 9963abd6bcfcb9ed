"""Bits per weight of quantised checkpoints, by precision group."""

from __future__ import annotations

from typing import Any

import pytest

from capacity.importers import read_config
from capacity.importers.huggingface import from_config

DENSE = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip
MIXED = {
    "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 50, "moe_intermediate_size": 24,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 16,
    "q_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
NVFP4 = {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}


def bits(base: dict[str, Any], quantisation: dict[str, Any], **more: Any) -> dict[str, float]:
    model = from_config({**base, "quantization_config": quantisation, **more}, source="test")
    assert model.weight_bits is not None
    return model.weight_bits


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8.0 + 32.0 / 128**2),
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8.0),
        ({"quant_method": "modelopt", "config_groups": {"g": NVFP4}}, 4.5),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4.0 + 20.0 / 128),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, 3.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 4.0 + 20.0 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": False}, 4.0 + 16.0 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "g": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}
                },
            },
            4.5,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}}},
            },
            8.0,
        ),
    ],
)
def test_formats_count_their_scales(quantisation: dict[str, Any], expected: float) -> None:
    found = bits(DENSE, quantisation | {"ignore": ["lm_head"]})
    assert found["attention"] == pytest.approx(expected, abs=1e-6)
    assert found["ffn"] == pytest.approx(expected, abs=1e-6)
    assert found["head"] == 16.0
    assert found[""] == 16.0


def test_whole_groups_are_left_alone_as_the_config_says() -> None:
    names = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"]
    found = bits(MIXED, {"quant_method": "compressed-tensors", "config_groups": {"g": NVFP4}, "ignore": names})
    assert found == {
        "": 16.0, "head": 16.0, "attention": 16.0, "ffn": 16.0, "router": 16.0, "expert": 4.5, "shared_expert": 16.0,
    }  # fmt: skip


def test_layers_left_alone_count_by_their_share() -> None:
    found = bits(DENSE, {"quant_algo": "NVFP4", "exclude_modules": ["model.layers.1.self_attn*", "model.layers.3*"]})
    assert found["attention"] == pytest.approx((2 * 4.5 + 2 * 16.0) / 4)
    assert found["ffn"] == pytest.approx((3 * 4.5 + 16.0) / 4)
    assert found["head"] == 4.5


def test_a_dense_first_layer_left_alone_leaves_the_experts_quantised() -> None:
    found = bits(MIXED, {"quant_algo": "NVFP4", "ignore": ["model.layers.0*", "model.layers.4*"]})
    assert found["ffn"] == 16.0
    assert found["expert"] == 4.5
    assert found["attention"] == pytest.approx((3 * 4.5 + 16.0) / 4)


def test_named_projections_count_by_their_weights() -> None:
    layers = {f"model.layers.{layer}.mlp.down_proj": {"quant_algo": "FP8"} for layer in range(4)}
    found = bits(DENSE, {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers})
    assert found["ffn"] == pytest.approx((2 * 16.0 + 8.0) / 3)
    assert found["attention"] == 16.0
    assert found["head"] == 16.0


def test_experts_may_have_a_format_of_their_own() -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert bits(MIXED, fp8, expert_dtype="fp4")["expert"] == 4.25
    found = bits(MIXED, fp8 | {"moe_quant_algo": "NVFP4", "ignore": ["*.attn.*"]})
    assert found["expert"] == 4.5
    assert found["attention"] == pytest.approx(8.002, abs=1e-3)


def test_an_unknown_method_is_noted_and_not_guessed() -> None:
    model = from_config({**DENSE, "quantization_config": {"quant_method": "hocus"}}, source="test")
    assert model.weight_bits is None
    assert any("hocus" in note for note in model.notes)


def test_what_is_not_quantised_has_no_bits_of_its_own() -> None:
    assert from_config(DENSE, source="test").weight_bits is None


def test_a_file_beside_the_config_may_hold_the_quantisation(tmp_path: Any) -> None:
    import json

    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    model = read_config(tmp_path)
    assert model.weight_bits is not None
    assert model.weight_bits["ffn"] == 4.5
    assert model.weight_bits["head"] == 16.0


@pytest.mark.parametrize(("layers", "experts", "gib"), [(36, 128, 60.8), (24, 32, 12.8)])
def test_gpt_oss_checkpoints_have_the_published_size(layers: int, experts: int, gib: float) -> None:
    """Checkpoint sizes of the gpt-oss model card (OpenAI, August 2025, table 1)."""
    from capacity.estimators.lowering import Tokens, lower

    fields = {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": layers,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088,
        "num_local_experts": experts, "num_experts_per_tok": 4,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
        },
    }  # fmt: skip
    model = from_config(fields, source="test")
    width = model.weight_bits
    assert width is not None
    stored = sum(
        op.count * op.copies * op.weight_elements * width.get(op.group, width[""]) for op in lower(model, Tokens())
    )
    assert stored / 8.0 / 2**30 == pytest.approx(gib, rel=0.01)
