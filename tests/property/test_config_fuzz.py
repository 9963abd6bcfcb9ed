"""Whatever a config.json holds, reading it ends in a model or in one line that says what is wrong; nothing else, soon."""

from __future__ import annotations

import json
import math
import random
import time
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from capacity.errors import CapacityError
from capacity.estimators.lowering import Tokens, forward_flop, lower, parameter_count
from capacity.importers import read_config
from capacity.importers.huggingface import MODULES, from_config
from capacity.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

# Fields of many families at once; each reads those it knows.
FIELDS: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50, "max_position_embeddings": 512,
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": True, "layer_types": ["full_attention"] * 6,
    "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2, "sliding_window_pattern": 2,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "moe_k": 2, "moe_topk": 2, "moe_intermediate_size": 24, "moe_layers": [1, 3],
    "shared_expert_intermediate_size": 40, "shared_intermediate_size": 40, "intermediate_size_mlp": 64,
    "interleave_moe_layer_step": 2, "first_k_dense_replace": 1, "decoder_sparse_step": 2, "mlp_only_layers": [0],
    "moe_layer_freq": [0, 1, 1, 1, 1, 1], "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1,
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 12,
    "index_n_heads": 4, "index_head_dim": 8, "index_topk": 4, "index_topk_pattern": "FSFSFS",
    "no_rope_layers": [1, 1, 1, 0, 1, 1], "rope_parameters": {"partial_rotary_factor": 0.5},
    "num_nextn_predict_layers": 1, "hybrid_override_pattern": "M*E-ME", "layers_block_type": ["mamba"] * 6,
    "n_embd": 64, "n_layer": 6, "n_head": 8, "n_inner": 96, "n_positions": 512, "d_model": 64, "num_layers": 6,
    "num_heads": 8, "d_ff": 96, "d_kv": 8, "ffn_dim": 96, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
    "state_size": 8, "conv_kernel": 4, "time_step_rank": 4, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1,
    "image_size": 32, "patch_size": 8, "num_channels": 3, "block_configs": [{"attention": {"n_heads_in_group": 4}}],
    "quantization_config": {
        "quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "layers.0*"],
        "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 16, "type": "float"}, "targets": ["Linear"]}},
        "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4"}},
    },
}  # fmt: skip

DEEP: Any = 1
for _ in range(40):
    DEEP = {"deeper": [DEEP]}

HOSTILE: tuple[Any, ...] = (
    ["AnyForCausalLM"], ["BertForMaskedLM"],
    None, True, False, 0, -1, 1, 2, 7, 3.5, -0.0, 1e308, float("nan"), float("inf"), 10**9, 10**10, 10**400, 2**63, "",
    "8", "x" * 5000, "\x00\ud800", [], [[]], [None] * 6, ["full_attention"] * 5, [1] * 20_000, [10**9] * 6, {},
    {"a": {"b": 1}}, {"model_type": "llama"}, DEEP, ["(a+)+$" + "a" * 60], {"type": 3}, ["sliding_attention"] * 6,
    {"quant_method": ["fp8"]}, {"quant_method": "gptq", "bits": "4", "group_size": -1}, [True] * 6, "MEMEM*" * 10_000,
)  # fmt: skip


# Of the nested language model, where it is not the wrapper's type and "_text".
NESTED = {
    "kimi_k25": "deepseek_v3",
    "kimi_k3": "kimi_linear",
    "mistral3": "mistral",
    "minimax_m3": "minimax_m3_vl_text",
}
# Fields whose usual form is refused by some types.
UNFIT = {"minimax_m2": ["shared_intermediate_size"], "nemotron-nas": ["block_configs"]}


def base(kind: str) -> dict[str, Any]:
    """A config most types can be read from."""
    nested = NESTED.get(kind, f"{kind}_text")
    fields = {key: deepcopy(value) for key, value in FIELDS.items() if key not in UNFIT.get(kind, ())}
    return {
        "model_type": kind,
        **fields,
        "text_config": deepcopy(fields) | {"model_type": nested},
        "vision_config": deepcopy(FIELDS),
    }


def mutate(config: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The config with one to five fields deleted, replaced, scaled or moved, here or in a nested config."""
    for _ in range(chance.randint(1, 5)):
        target = config
        nested = [key for key, value in config.items() if isinstance(value, dict)]
        if nested and chance.random() < 0.3:
            target = config[chance.choice(nested)]
        if not target:
            continue
        key = chance.choice(list(target))
        action = chance.randrange(5)
        if action == 0:
            del target[key]
        elif action == 1:
            value = target[key]
            scalable = isinstance(value, int) and not isinstance(value, bool)
            target[key] = value * chance.choice((-1, 0, 3, 10**6)) if scalable else deepcopy(chance.choice(HOSTILE))
        elif action == 2:
            target[key] = deepcopy(target[chance.choice(list(target))])
        else:
            target[key] = deepcopy(chance.choice(HOSTILE))
    return config


def check(data: dict[str, Any]) -> bool:
    """A model whose counts are finite and positive (True), or a refusal in one line (False)."""
    try:
        model = from_config(data, source="fuzz")
    except CapacityError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 600
        return False
    assert isinstance(model, ModelSpec)
    table = lower(model, Tokens(sequences=1.0, queries=8.0))
    assert 0.0 < parameter_count(table) < math.inf
    assert 0.0 <= forward_flop(table) < math.inf
    assert all(0.0 < bits <= 64.0 for bits in (model.weight_bits or {}).values())
    return True


@pytest.mark.parametrize("kind", sorted(MODULES))
def test_mutated_configs_end_in_a_model_or_one_line(kind: str) -> None:
    chance = random.Random(kind)
    slowest = 0.0
    for _ in range(60):
        data = mutate(base(kind), chance)
        start = time.perf_counter()
        check(json.loads(json.dumps(data)))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 5.0


def test_most_configs_can_be_read_before_they_are_mutated() -> None:
    read = sum(check(base(kind)) for kind in MODULES)
    assert read >= 0.9 * len(MODULES)


def test_a_billion_layers_are_refused_at_once() -> None:
    start = time.perf_counter()
    for kind in MODULES:
        given = {key: 10**9 if key.startswith(("num_", "n_")) else value for key, value in FIELDS.items()}
        assert not check({"model_type": kind, **given}) or kind
    assert time.perf_counter() - start < 20.0


def test_files_cut_short_or_garbled_are_refused(tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = json.dumps(base("llama")).encode()
    file = tmp_path / "config.json"
    for _ in range(500):
        text = bytearray(whole[: chance.randrange(len(whole))])
        for _ in range(chance.randrange(4)):
            if text:
                text[chance.randrange(len(text))] = chance.randrange(256)
        file.write_bytes(bytes(text))
        with pytest.raises(CapacityError):
            read_config(file)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b'"llama"', b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b"1" * 10_000]
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(CapacityError):
        read_config(file)
