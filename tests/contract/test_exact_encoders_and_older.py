"""Older decoders, encoders, encoder-decoders and vision models: parameters and FLOPs equal what transformers builds.

The class a config names is built on the meta device and run there under torch's FlopCounterMode (attention counted
as the full square of queries and keys; element-wise work not counted).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from exactness import meta_masks
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from capacity.estimators.lowering import Tokens, forward_flop, lower, parameter_count
from capacity.importers.huggingface import from_config

if TYPE_CHECKING:
    from collections.abc import Callable

SEQUENCES, LENGTH, ENCODED = 2, 24, 40


def named(kind: str, architecture: str, **changes: Any) -> Any:
    """A config of a model type that names the class it is for."""
    config = AutoConfig.for_model(kind, **changes)
    config.architectures = [architecture]
    return config


def counted(config: Any, inputs: dict[str, Any], device: str = "meta") -> tuple[int, int]:
    """Parameters and forward FLOPs of the class a config names, built without weights.

    Few classes read values of their inputs, which meta tensors do not have: those run on the CPU.
    """
    config._attn_implementation = "eager"  # a fused kernel on the CPU would be counted as nothing
    counter = FlopCounterMode(display=False)
    with torch.device(device):
        model = getattr(transformers, config.architectures[0])(config).eval()
        given = {name: make() for name, make in inputs.items()}
        try:
            with meta_masks() if device == "meta" else contextlib.nullcontext(), torch.no_grad(), counter:
                model(**given)
        except (RuntimeError, NotImplementedError) as error:
            if device != "meta" or "meta" not in str(error):
                raise
            return counted(config, inputs, "cpu")
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops()


def told(config: Any, tokens: Tokens) -> tuple[float, float]:
    """The same from the importer and the op table."""
    table = lower(from_config(config.to_dict(), source="contract"), tokens)
    return parameter_count(table), forward_flop(table)


def ids(length: int = LENGTH) -> Callable[[], torch.Tensor]:
    return lambda: torch.ones(SEQUENCES, length, dtype=torch.long)


SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "vocab_size": 384}
GPT = {"n_embd": 96, "n_layer": 3, "n_head": 6, "n_positions": 64, "vocab_size": 384}

DECODERS = [
    ("gpt2", "GPT2LMHeadModel", GPT),
    ("gpt2", "GPT2LMHeadModel", GPT | {"n_inner": 200, "tie_word_embeddings": False}),
    ("gpt2", "GPT2Model", GPT),
    ("gpt2", "GPT2ForSequenceClassification", GPT | {"num_labels": 5, "pad_token_id": 0}),
    ("openai-gpt", "OpenAIGPTLMHeadModel", GPT),
    ("gpt_bigcode", "GPTBigCodeForCausalLM", GPT),
    ("gpt_bigcode", "GPTBigCodeForCausalLM", GPT | {"multi_query": False}),
    (
        "gpt_neo",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 96,
            "num_layers": 4,
            "num_heads": 6,
            "attention_types": [[["global", "local"], 2]],
            "vocab_size": 384,
            "window_size": 8,
            "max_position_embeddings": 64,
        },
    ),
    ("gptj", "GPTJForCausalLM", GPT | {"rotary_dim": 8}),
    ("codegen", "CodeGenForCausalLM", GPT | {"n_head": 4, "rotary_dim": 8}),
    ("gpt_neox", "GPTNeoXForCausalLM", SMALL | {"intermediate_size": 384}),
    ("gpt_neox", "GPTNeoXForCausalLM", SMALL | {"intermediate_size": 384, "attention_bias": False}),
    ("opt", "OPTForCausalLM", SMALL | {"ffn_dim": 384, "word_embed_proj_dim": 96}),
    ("opt", "OPTForCausalLM", SMALL | {"ffn_dim": 384, "word_embed_proj_dim": 48, "do_layer_norm_before": False}),
    (
        "opt",
        "OPTForCausalLM",
        SMALL
        | {"ffn_dim": 384, "word_embed_proj_dim": 96, "enable_bias": False, "layer_norm_elementwise_affine": False},
    ),
    ("bloom", "BloomForCausalLM", {"hidden_size": 96, "n_layer": 3, "n_head": 6, "vocab_size": 384}),
    ("falcon", "FalconForCausalLM", SMALL),
    ("falcon", "FalconForCausalLM", SMALL | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    (
        "falcon",
        "FalconForCausalLM",
        SMALL | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    (
        "falcon",
        "FalconForCausalLM",
        SMALL | {"multi_query": False, "parallel_attn": False, "bias": True, "alibi": True},
    ),
    ("mpt", "MptForCausalLM", {"d_model": 96, "n_layers": 3, "n_heads": 6, "vocab_size": 384, "max_seq_len": 64}),
    ("phi", "PhiForCausalLM", SMALL | {"intermediate_size": 384}),
    ("phi", "PhiForCausalLM", SMALL | {"intermediate_size": 384, "num_key_value_heads": 2, "qk_layernorm": True}),
    ("persimmon", "PersimmonForCausalLM", SMALL | {"intermediate_size": 384}),
    ("persimmon", "PersimmonForCausalLM", SMALL | {"intermediate_size": 384, "qk_layernorm": False}),
    (
        "xglm",
        "XGLMForCausalLM",
        {"d_model": 96, "num_layers": 3, "attention_heads": 6, "ffn_dim": 384, "vocab_size": 384},
    ),
    ("biogpt", "BioGptForCausalLM", SMALL | {"intermediate_size": 384}),
    ("ctrl", "CTRLLMHeadModel", GPT | {"dff": 200}),
]


def label(case: tuple[Any, ...]) -> str:
    return "-".join([case[0], case[1], *(str(key) for key in case[2] if key not in SMALL and key not in GPT)])


@pytest.mark.parametrize("case", DECODERS, ids=label)
def test_older_decoder_is_exact(case):
    kind, architecture, changes = case
    config = named(kind, architecture, **changes)
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, {"input_ids": ids()})
