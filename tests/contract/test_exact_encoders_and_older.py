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
            if device != "meta" or "meta" not in str(error).lower():
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


BERT = SMALL | {"intermediate_size": 384, "max_position_embeddings": 64}
DISTILBERT = {"dim": 96, "n_layers": 3, "n_heads": 6, "hidden_dim": 384, "vocab_size": 384}
NARROW = BERT | {"embedding_size": 32}
DEBERTA_V3 = BERT | {
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "max_relative_positions": -1,
}
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")

ENCODERS = [
    *(("bert", f"Bert{head}", BERT) for head in (*HEADS, "ForPreTraining", "ForNextSentencePrediction")),
    ("bert", "BertForMaskedLM", BERT | {"tie_word_embeddings": False}),
    ("roberta", "RobertaForMaskedLM", BERT | {"tie_word_embeddings": False}),
    ("distilbert", "DistilBertForMaskedLM", DISTILBERT | {"tie_word_embeddings": False}),
    ("electra", "ElectraForMaskedLM", NARROW | {"tie_word_embeddings": False}),
    ("albert", "AlbertForMaskedLM", NARROW | {"tie_word_embeddings": False}),
    ("modernbert", "ModernBertForMaskedLM", BERT | {"tie_word_embeddings": False, "pad_token_id": 0}),
    ("deberta-v2", "DebertaV2ForMaskedLM", DEBERTA_V3 | {"tie_word_embeddings": False}),
    *(("roberta", f"Roberta{head}", BERT | {"type_vocab_size": 1}) for head in HEADS),
    ("camembert", "CamembertForMaskedLM", BERT),
    ("xlm-roberta", "XLMRobertaForMaskedLM", BERT),
    ("xlm-roberta", "XLMRobertaForSequenceClassification", BERT),
    *(("distilbert", f"DistilBert{head}", DISTILBERT) for head in HEADS),
    *(("electra", f"Electra{head}", NARROW) for head in (*HEADS, "ForPreTraining")),
    *(("albert", f"Albert{head}", NARROW) for head in HEADS),
    ("albert", "AlbertForMaskedLM", NARROW | {"num_hidden_groups": 3, "inner_group_num": 2}),
    ("albert", "AlbertForMaskedLM", NARROW | {"embedding_size": 96, "num_hidden_layers": 4, "num_hidden_groups": 2}),
    *(("modernbert", f"ModernBert{head}", BERT | {"local_attention": 8, "pad_token_id": 0}) for head in HEADS),
    (
        "modernbert",
        "ModernBertForMaskedLM",
        BERT
        | {
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
            "decoder_bias": False,
            "num_hidden_layers": 5,
            "pad_token_id": 0,
        },
    ),
    *(("deberta-v2", f"DebertaV2{head}", DEBERTA_V3) for head in HEADS),
    ("deberta-v2", "DebertaV2ForMaskedLM", BERT),
    (
        "deberta-v2",
        "DebertaV2ForMaskedLM",
        DEBERTA_V3 | {"share_att_key": False, "conv_kernel_size": 3, "type_vocab_size": 2, "embedding_size": 32},
    ),
]


@pytest.mark.parametrize("case", ENCODERS, ids=label)
def test_encoder_is_exact(case):
    kind, architecture, changes = case
    # A question's answer has a start and an end.
    config = named(kind, architecture, num_labels=2 if "Question" in architecture else 5, **changes)
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, {"input_ids": ids()})


BART = {
    "d_model": 96,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 384,
    "decoder_ffn_dim": 200,
    "vocab_size": 384,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
T5 = {
    "d_model": 96,
    "d_kv": 24,
    "d_ff": 256,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 6,
    "vocab_size": 384,
}
WHISPER = BART | {"max_source_positions": 50, "max_target_positions": 40}

ENCODER_DECODERS = [
    ("bart", "BartForConditionalGeneration", BART),
    ("bart", "BartForConditionalGeneration", BART | {"tie_word_embeddings": False}),
    ("m2m_100", "M2M100ForConditionalGeneration", BART | {"tie_word_embeddings": False}),
    ("marian", "MarianMTModel", BART | {"decoder_vocab_size": 384, "tie_word_embeddings": False}),
    ("bart", "BartModel", BART),
    ("mbart", "MBartForConditionalGeneration", BART),
    ("pegasus", "PegasusForConditionalGeneration", BART),
    ("marian", "MarianMTModel", BART | {"decoder_vocab_size": 384}),
    ("m2m_100", "M2M100ForConditionalGeneration", BART),
    ("blenderbot", "BlenderbotForConditionalGeneration", BART),
    ("blenderbot-small", "BlenderbotSmallForConditionalGeneration", BART),
    ("plbart", "PLBartForConditionalGeneration", BART),
    ("t5", "T5ForConditionalGeneration", T5),
    ("t5", "T5Model", T5 | {"feed_forward_proj": "gated-gelu"}),
    ("mt5", "MT5ForConditionalGeneration", T5),
    ("umt5", "UMT5ForConditionalGeneration", T5),
]


@pytest.mark.parametrize("case", ENCODER_DECODERS, ids=label)
def test_encoder_decoder_is_exact(case):
    kind, architecture, changes = case
    config = named(kind, architecture, **changes)
    inputs = {"input_ids": ids(ENCODED), "decoder_input_ids": ids()}
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH, encoder=ENCODED)) == counted(config, inputs)


def test_encoder_alone_is_exact():
    config = named("t5", "T5EncoderModel", **T5)
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, {"input_ids": ids()})


def test_classifier_on_both_sides_is_exact():
    config = named("bart", "BartForSequenceClassification", num_labels=3, eos_token_id=1, **BART)
    inputs = {"input_ids": lambda: torch.tensor([[0] * (LENGTH - 1) + [1]] * SEQUENCES)}
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, inputs)


@pytest.mark.parametrize("architecture", ["WhisperForConditionalGeneration", "WhisperModel"])
def test_whisper_is_exact(architecture):
    config = named("whisper", architecture, **WHISPER)
    inputs = {"input_features": lambda: torch.zeros(SEQUENCES, 80, 100), "decoder_input_ids": ids()}
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, inputs)
