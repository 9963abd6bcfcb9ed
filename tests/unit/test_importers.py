"""A config that is wrong gets one line: what, its value, where it came from."""

from __future__ import annotations

from typing import Any

import pytest

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.importers.huggingface import from_config
from capacity.spec.model import Block

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50,
}  # fmt: skip
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [
        (LLAMA, {"hidden_size": None}, "hidden_size is missing"),
        (LLAMA, {"hidden_size": -64}, "hidden_size is -64; it must be a whole number"),
        (LLAMA, {"hidden_size": 64.5}, "hidden_size is 64.5"),
        (LLAMA, {"vocab_size": "50"}, "vocab_size is '50'"),
        (LLAMA, {"num_key_value_heads": 3}, "num_attention_heads 8 is not a multiple of num_key_value_heads 3"),
        (LLAMA, {"num_hidden_layers": 10**6}, "1000000 layers"),
        (LLAMA, {"num_attention_heads": 128, "num_key_value_heads": 128}, "hidden_size 64 is less than"),
        (LLAMA, {"layer_types": ["full_attention"]}, "layer_types must hold a word for each of 4 layers; it has 1"),
        (LLAMA, {"attention_bias": "yes"}, "attention_bias is 'yes'; it must be true or false"),
        (MIXTRAL, {"num_experts_per_tok": 5}, "5 experts per token, but there are 4"),
        (LLAMA, {"model_type": None}, "model_type is missing"),
    ],
)
def test_mistakes_are_named(base: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        from_config(base | changes, source="some/config.json")
    assert says in str(caught.value)
    assert str(caught.value).startswith("some/config.json")


def test_an_architecture_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"'llamma' is not an architecture .* llama"):
        from_config(LLAMA | {"model_type": "llamma"}, source="test")


def test_equal_layers_become_one_block() -> None:
    built: list[str] = []

    def build(kind: str) -> Block:
        built.append(kind)
        return Block(1, 64, ())

    blocks = parts.stack("LLLGLLLG", build)
    assert [block.count for block in blocks] == [6, 2]
    assert built == ["L", "G"]


def test_the_key_value_cache_holds_keys_and_values_of_all_groups_or_one_latent() -> None:
    assert parts.attention(4096, 32, 8, 128).cache_elements == 2 * 8 * 128
    # DeepSeek-V3 keeps 512 latent numbers and one rotary key of 64 per token and layer (DeepSeek-V2 paper, table 1).
    latent = parts.latent_attention(7168, 128, q_rank=1536, kv_rank=512, nope_size=128, rope_size=64, value_size=128)
    assert latent.cache_elements == 576
    assert latent.latent


def test_a_window_that_is_null_is_off_and_one_that_is_absent_is_the_familys() -> None:
    absent = from_config(LLAMA | {"model_type": "mistral"}, source="test")
    null = from_config(LLAMA | {"model_type": "mistral", "sliding_window": None}, source="test")
    assert absent.blocks[0].sublayers[0].window == 4096
    assert null.blocks[0].sublayers[0].window == float("inf")
