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

from capacity.errors import UnsupportedArchitectureError
from capacity.estimators.lowering import Tokens, forward_flop, lower, parameter_count
from capacity.importers.huggingface import from_config
from capacity.importers.huggingface.vision_language import DEFAULTS

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
        cls = getattr(transformers, config.architectures[0])
        # Experts one product each, where the class leaves a choice: what it computes is then what tokens visit.
        text = config.get_text_config()
        routed = hasattr(text, "num_experts") or hasattr(text, "n_routed_experts")
        options = {"experts_implementation": "batched_mm"} if routed else {}
        model = cls._from_config(config, attn_implementation="eager", **options).eval()
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


def cases(table: list[tuple[str, str, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", table, ids=[f"{row[1]}-{index}" for index, row in enumerate(table)])


@cases(DECODERS)
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


@cases(ENCODERS)
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


@cases(ENCODER_DECODERS)
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


VIT = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 384,
    "image_size": 56,
    "patch_size": 14,
}
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
SWIN = {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "image_size": 112, "window_size": 7}

VISION = [
    ("vit", "ViTForImageClassification", VIT),
    ("vit", "ViTModel", VIT | {"pooler_output_size": 50, "qkv_bias": False}),
    ("vit", "ViTForImageClassification", VIT | {"image_size": [42, 56], "patch_size": [14, 7]}),
    ("deit", "DeiTForImageClassification", VIT),
    ("deit", "DeiTForImageClassificationWithTeacher", VIT),
    ("deit", "DeiTModel", VIT),
    ("dinov2", "Dinov2Model", DINO),
    ("dinov2", "Dinov2ForImageClassification", DINO | {"use_swiglu_ffn": True, "use_mask_token": False}),
    ("dinov2_with_registers", "Dinov2WithRegistersModel", DINO),
    ("dinov2_with_registers", "Dinov2WithRegistersForImageClassification", DINO | {"num_register_tokens": 3}),
    ("clip_vision_model", "CLIPVisionModel", VIT),
    ("siglip_vision_model", "SiglipVisionModel", VIT | {"vision_use_head": False}),
    ("siglip_vision_model", "SiglipVisionModel", VIT),
    ("swin", "SwinForImageClassification", SWIN),
    ("swin", "SwinModel", SWIN | {"depths": [1, 3], "num_heads": [2, 3], "use_absolute_embeddings": True}),
    (
        "swin",
        "SwinForImageClassification",
        SWIN | {"image_size": 56, "qkv_bias": False, "depths": [1, 2], "num_heads": [2, 3]},
    ),
]


@cases(VISION)
def test_vision_model_is_exact(case):
    kind, architecture, changes = case
    config = named(kind, architecture, num_labels=5, **changes)
    size = config.image_size if isinstance(config.image_size, list) else [config.image_size] * 2
    inputs = {"pixel_values": lambda: torch.zeros(SEQUENCES, 3, *size)}
    assert told(config, Tokens(sequences=SEQUENCES, queries=0, images=1)) == counted(config, inputs)


TEXT = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 640,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
ROUTED = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
ROTATED = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
QWEN = {"depth": 3, "num_heads": 4, "patch_size": 4, "intermediate_size": 160, "out_hidden_size": 96}
QWEN3 = QWEN | {"hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2]}
TOKENS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
CLIP = {"model_type": "clip_vision_model", **VIT}
SIGLIP = {"model_type": "siglip_vision_model", **VIT, "vision_use_head": False}

# model type, class, outer fields, text fields, vision fields, patches of the image shown (None: as the config says)
SEEING = [
    ("qwen3_vl", "Qwen3VLForConditionalGeneration", TOKENS, TEXT, QWEN3, None),
    ("qwen3_vl", "Qwen3VLForConditionalGeneration", TOKENS | {"tie_word_embeddings": True}, TEXT, QWEN3, 24),
    ("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", TOKENS, TEXT | ROUTED, QWEN3, 24),
    (
        "qwen2_vl",
        "Qwen2VLForConditionalGeneration",
        TOKENS,
        TEXT | ROTATED,
        {"depth": 3, "num_heads": 4, "patch_size": 4, "embed_dim": 64, "hidden_size": 96, "mlp_ratio": 3},
        24,
    ),
    (
        "qwen2_5_vl",
        "Qwen2_5_VLForConditionalGeneration",
        TOKENS,
        TEXT | ROTATED,
        QWEN | {"hidden_size": 64, "window_size": 16, "fullatt_block_indexes": [1]},
        64,
    ),
    ("llava", "LlavaForConditionalGeneration", {}, {"model_type": "llama", **TEXT}, CLIP, None),
    (
        "llava",
        "LlavaForConditionalGeneration",
        {
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": [-2, -1],
            "multimodal_projector_bias": False,
        },
        {"model_type": "mistral", **TEXT},
        CLIP,
        None,
    ),
    ("gemma3", "Gemma3ForConditionalGeneration", {"mm_tokens_per_image": 4}, TEXT, SIGLIP, None),
    (
        "gemma3",
        "Gemma3ForConditionalGeneration",
        {"mm_tokens_per_image": 16},
        TEXT,
        SIGLIP | {"vision_use_head": True},
        None,
    ),
    (
        "paligemma",
        "PaliGemmaForConditionalGeneration",
        {"projection_dim": 96},
        {"model_type": "gemma", **TEXT},
        SIGLIP | {"projection_dim": 96},
        None,
    ),
    (
        "llama4",
        "Llama4ForConditionalGeneration",
        {},
        TEXT
        | {
            "intermediate_size_mlp": 200,
            "num_local_experts": 4,
            "num_experts_per_tok": 4,
            "interleave_moe_layer_step": 2,
        },
        VIT
        | {"intermediate_size": 384, "vision_output_dim": 80, "projector_input_dim": 80, "projector_output_dim": 80},
        None,
    ),
    (
        "mistral3",
        "Mistral3ForConditionalGeneration",
        {"spatial_merge_size": 2},
        {"model_type": "mistral", **TEXT},
        {"model_type": "pixtral", **VIT, "head_dim": 16},
        None,
    ),
    (
        "internvl",
        "InternVLForConditionalGeneration",
        {},
        {"model_type": "qwen2", **TEXT},
        VIT | {"image_size": [56, 56], "patch_size": [14, 14]},
        None,
    ),
    (
        "internvl",
        "InternVLForConditionalGeneration",
        {},
        {"model_type": "qwen2", **TEXT},
        VIT
        | {
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "use_qk_norm": True,
            "norm_type": "rms_norm",
            "attention_bias": True,
        },
        None,
    ),
    (
        "kimi_k25",
        "Kimi_K25ForConditionalGeneration",
        TOKENS | {"projection_hidden_size": 64},
        TEXT
        | {
            "model_type": "deepseek_v3",
            "num_key_value_heads": 6,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 48,
            "first_k_dense_replace": 1,
            "num_nextn_predict_layers": 0,
        },
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 160,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "patch_size": 4,
        },
        24,
    ),
]


def seeing(row: tuple[Any, ...]) -> Any:
    kind, architecture, outer, text, vision, _ = row
    return named(kind, architecture, text_config=dict(text), vision_config=dict(vision), **outer)


def shown(config: Any, patches: int | None) -> tuple[dict[str, torch.Tensor], float]:
    """One image as the class takes it, and its patches."""
    vision = config.vision_config
    if hasattr(vision, "temporal_patch_size") or config.model_type == "kimi_k25":
        rows = 8 if patches in (None, 64) else 4
        across = (patches or 64) // rows
        size = vision.patch_size
        pixels = (rows * across, 3, size, size)
        if hasattr(vision, "temporal_patch_size"):
            pixels = (rows * across, 3 * vision.temporal_patch_size * size * size)
        given = {"pixel_values": torch.zeros(pixels), "image_grid_thw": torch.tensor([[1, rows, across]])}
        return given, float(rows * across)
    height, width = vision.image_size if isinstance(vision.image_size, (list, tuple)) else [vision.image_size] * 2
    given = {"pixel_values": torch.zeros(1, 3, height, width)}
    if config.model_type == "mistral3":
        given["image_sizes"] = torch.tensor([[height, width]])
    return given, None


named_rows = pytest.mark.parametrize("row", SEEING, ids=[f"{row[0]}-{index}" for index, row in enumerate(SEEING)])


@named_rows
def test_language_model_that_sees_is_exact_on_text(row):
    config = seeing(row)
    assert told(config, Tokens(sequences=SEQUENCES, queries=LENGTH)) == counted(config, {"input_ids": ids()})


@named_rows
def test_vision_tower_and_projector_are_exact(row):
    config = seeing(row)
    config._attn_implementation = "eager"
    image, patches = shown(config, row[-1])
    model = getattr(transformers, config.architectures[0])(config).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        seen = (model if hasattr(model, "get_image_features") else model.model).get_image_features(**image)
        if config.model_type == "llama4":  # its features are those before the projector
            model.multi_modal_projector(seen.last_hidden_state)
    table = lower(from_config(config.to_dict(), source="contract"), Tokens(queries=0, images=1, patches=patches))
    assert forward_flop(table) == counter.get_total_flops()


def test_unknown_heads_and_shapes_are_refused():
    refused = [
        named("bert", "BertForMultipleChoice", **BERT),
        named("gpt2", "GPT2DoubleHeadsModel", **GPT),
        named("gpt2", "GPT2LMHeadModel", **GPT, add_cross_attention=True),
        named("vit", "ViTForMaskedImageModeling", **VIT),
        named("swin", "SwinForImageClassification", **SWIN | {"image_size": 96}),
        named("mpt", "MptForCausalLM", attn_config={"attn_type": "multiquery_attention"}),
    ]
    for config in refused:
        with pytest.raises(UnsupportedArchitectureError):
            from_config(config.to_dict(), source="contract")


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2"])
def test_defaults_of_nested_language_models_are_the_published_ones(kind):
    published = AutoConfig.for_model(kind).to_dict()
    assert {key: published[key] for key in DEFAULTS[kind]} == DEFAULTS[kind]


BERT_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}

# Parameters as the papers, model cards or checkpoints of these models give them.
PUBLISHED = [
    ("gpt2", "GPT2LMHeadModel", {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}, 124_439_808),
    ("gpt2", "GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25, "vocab_size": 50257}, 1_557_611_200),
    (
        "bloom",
        "BloomForCausalLM",
        {"hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250880},
        559_214_592,
    ),
    (
        "opt",
        "OPTForCausalLM",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "ffn_dim": 3072,
            "vocab_size": 50272,
            "word_embed_proj_dim": 768,
        },
        125_239_296,
    ),
    (
        "opt",
        "OPTForCausalLM",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "ffn_dim": 4096,
            "vocab_size": 50272,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
        331_196_416,
    ),
    (
        "gpt_neox",
        "GPTNeoXForCausalLM",
        {
            "hidden_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "vocab_size": 50304,
        },
        70_426_624,
    ),
    ("gptj", "GPTJForCausalLM", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "vocab_size": 50400}, 6_050_882_784),
    (
        "falcon",
        "FalconForCausalLM",
        {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024},
        6_921_720_704,
    ),
    (
        "phi",
        "PhiForCausalLM",
        {
            "hidden_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 10240,
            "vocab_size": 51200,
        },
        2_779_683_840,
    ),
    ("bert", "BertModel", BERT_BASE, 109_482_240),
    ("bert", "BertForMaskedLM", BERT_BASE, 109_514_298),
    (
        "roberta",
        "RobertaModel",
        BERT_BASE | {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        124_645_632,
    ),
    (
        "distilbert",
        "DistilBertModel",
        {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "vocab_size": 30522},
        66_362_880,
    ),
    (
        "t5",
        "T5ForConditionalGeneration",
        {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128},
        60_506_624,
    ),
    (
        "bart",
        "BartForConditionalGeneration",
        {
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            "vocab_size": 50265,
        },
        406_291_456,
    ),
    (
        "whisper",
        "WhisperForConditionalGeneration",
        {
            "d_model": 384,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
            "vocab_size": 51865,
        },
        37_760_640,
    ),
    (
        "whisper",
        "WhisperForConditionalGeneration",
        {
            "d_model": 1280,
            "encoder_layers": 32,
            "decoder_layers": 32,
            "encoder_attention_heads": 20,
            "decoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "decoder_ffn_dim": 5120,
            "vocab_size": 51866,
            "num_mel_bins": 128,
        },
        1_543_490_560,
    ),
    (
        "vit",
        "ViTForImageClassification",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "num_labels": 1000,
        },
        86_567_656,
    ),
    ("swin", "SwinForImageClassification", {"num_labels": 1000}, 28_288_354),
]


@pytest.mark.parametrize("row", PUBLISHED, ids=[f"{row[1]}-{row[-1]}" for row in PUBLISHED])
def test_published_parameter_counts(row):
    kind, architecture, fields, parameters = row
    config = named(kind, architecture, **fields)
    with torch.device("meta"):
        built = getattr(transformers, architecture)(config)
    assert sum(p.numel() for p in built.parameters()) == parameters
    for given in (config.to_dict(), {"model_type": kind, "architectures": [architecture], **fields}):
        assert parameter_count(lower(from_config(given, source="contract"), Tokens(images=1))) == parameters


def test_a_t5_checkpoint_with_its_own_head_is_read_as_the_config_says():
    """Version 1.1 checkpoints hold the vocabulary projection apart: flan-t5-base has 247,577,856 parameters."""
    given = {"model_type": "t5", **T5_BASE, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    assert parameter_count(lower(from_config(given, source="contract"), Tokens())) == 247_577_856


@pytest.mark.parametrize("row", SEEING[1:], ids=[f"{row[0]}-{index}" for index, row in enumerate(SEEING[1:])])
def test_a_config_without_a_tower_has_that_of_its_class(row):
    kind, architecture, outer, text, _, _ = row
    config = named(kind, architecture, text_config=dict(text), **outer)
    with torch.device("meta"):
        built = getattr(transformers, architecture)(config)
    given = {"model_type": kind, "architectures": [architecture], "text_config": text, **outer}
    spec = from_config(given, source="contract")
    assert parameter_count(lower(spec, Tokens())) == sum(p.numel() for p in built.parameters())
    assert any("no vision_config" in note for note in spec.notes)


def test_llama_4_scout_has_its_published_parameters():
    """Its checkpoint holds 108,641,793,536 parameters, as the index of its files says."""
    text = {
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 202048,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
    }
    vision = {
        "hidden_size": 1408,
        "num_attention_heads": 16,
        "num_hidden_layers": 34,
        "intermediate_size": 5632,
        "image_size": 336,
        "patch_size": 14,
        "projector_input_dim": 4096,
        "projector_output_dim": 4096,
        "vision_output_dim": 4096,
        "pixel_shuffle_ratio": 0.5,
    }
    given = {"model_type": "llama4", "text_config": text, "vision_config": vision}
    assert parameter_count(lower(from_config(given, source="contract"), Tokens())) == 108_641_793_536
