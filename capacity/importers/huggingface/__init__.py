"""Hugging Face configs: one adapter a model type, in one module a group of families.

An adapter takes a `Config` and a name and returns a `ModelSpec` that builds the same parameters and
matrix products as the transformers class does. Only the module that serves a config is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers.huggingface.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.spec.model import ModelSpec

# model_type -> module of this package whose ADAPTERS table serves it.
MODULES: dict[str, str] = {
    "gemma3": "vision_language",
    "kimi_k25": "vision_language",
    "llama4": "vision_language",
    "mistral3": "vision_language",
    "qwen3_vl": "vision_language",
    "qwen3_vl_moe": "vision_language",
    "apertus": "dense",
    "deepseek_v2": "latent",
    "deepseek_v3": "latent",
    "deepseek_v32": "latent",
    "glm4_moe_lite": "latent",
    "glm_moe_dsa": "latent",
    "kimi_k2": "latent",
    "arcee": "dense",
    "cohere": "dense",
    "cohere2": "dense",
    "ernie4_5": "dense",
    "exaone4": "dense",
    "gemma": "dense",
    "gemma2": "dense",
    "gemma3_text": "dense",
    "glm": "dense",
    "glm4": "dense",
    "granite": "dense",
    "helium": "dense",
    "hunyuan_v1_dense": "dense",
    "llama": "dense",
    "minicpm3": "latent",
    "mistral4": "latent",
    "exaone_moe": "experts",
    "afmoe": "experts",
    "vaultgemma": "dense",
    "nanochat": "dense",
    "jais2": "dense",
    "iquestcoder": "dense",
    "hyperclovax": "dense",
    "cwm": "dense",
    "mimo": "dense",
    "ministral3": "dense",
    "mistral": "dense",
    "nemotron": "dense",
    "olmo": "dense",
    "olmo2": "dense",
    "olmo3": "dense",
    "phi3": "dense",
    "qwen2": "dense",
    "qwen3": "dense",
    "qwen3_vl_text": "dense",
    "seed_oss": "dense",
    "smollm3": "dense",
    "stablelm": "dense",
    "starcoder2": "dense",
    "dots1": "experts",
    "ernie4_5_moe": "experts",
    "flex_olmo": "experts",
    "glm4_moe": "experts",
    "gpt_oss": "experts",
    "granitemoe": "experts",
    "granitemoeshared": "experts",
    "hunyuan_v1_moe": "experts",
    "llama4_text": "experts",
    "mixtral": "experts",
    "olmoe": "experts",
    "phimoe": "experts",
    "qwen2_moe": "experts",
    "qwen3_moe": "experts",
    "qwen3_vl_moe_text": "experts",
    "solar_open": "experts",
    "biogpt": "older",
    "bloom": "older",
    "codegen": "older",
    "ctrl": "older",
    "falcon": "older",
    "gpt2": "older",
    "gpt_bigcode": "older",
    "gpt_neo": "older",
    "gpt_neox": "older",
    "gptj": "older",
    "mpt": "older",
    "openai-gpt": "older",
    "opt": "older",
    "persimmon": "older",
    "phi": "older",
    "xglm": "older",
    "kimi_k3": "delta",
    "kimi_linear": "delta",
    "qwen3_5": "delta",
    "qwen3_5_moe": "delta",
    "qwen3_5_moe_text": "delta",
    "qwen3_5_text": "delta",
    "qwen3_next": "delta",
    "nemotron-nas": "nemotron",
    "nemotron_h": "nemotron",
    "albert": "encoders",
    "bert": "encoders",
    "camembert": "encoders",
    "deberta-v2": "encoders",
    "distilbert": "encoders",
    "electra": "encoders",
    "modernbert": "encoders",
    "roberta": "encoders",
    "xlm-roberta": "encoders",
    "deepseek_ref": "sparse",
    "deepseek_v4": "sparse",
    "mimo_v2_flash": "sparse",
    "minimax": "sparse",
    "minimax_m2": "sparse",
    "minimax_m3": "sparse",
    "minimax_m3_vl": "sparse",
    "minimax_m3_vl_text": "sparse",
    "step3p5": "sparse",
    "step3p7": "sparse",
    "gemma3n": "gemma",
    "gemma3n_text": "gemma",
    "gemma4": "gemma",
    "gemma4_text": "gemma",
    "bart": "encoder_decoders",
    "blenderbot": "encoder_decoders",
    "blenderbot-small": "encoder_decoders",
    "m2m_100": "encoder_decoders",
    "marian": "encoder_decoders",
    "mbart": "encoder_decoders",
    "pegasus": "encoder_decoders",
    "plbart": "encoder_decoders",
    "t5": "encoder_decoders",
    "mt5": "encoder_decoders",
    "umt5": "encoder_decoders",
    "whisper": "encoder_decoders",
    "bamba": "recurrent",
    "falcon_h1": "recurrent",
    "falcon_mamba": "recurrent",
    "granitemoehybrid": "recurrent",
    "jamba": "recurrent",
    "lfm2": "recurrent",
    "lfm2_moe": "recurrent",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "recurrent_gemma": "recurrent",
    "rwkv": "recurrent",
    "zamba2": "recurrent",
    "clip_vision_model": "vision",
    "deit": "vision",
    "dinov2": "vision",
    "dinov2_with_registers": "vision",
    "siglip_vision_model": "vision",
    "swin": "vision",
    "vit": "vision",
    "internvl": "vision_language",
    "llava": "vision_language",
    "paligemma": "vision_language",
    "qwen2_vl": "vision_language",
    "qwen2_5_vl": "vision_language",
}


def from_config(data: dict[str, Any], *, source: str, name: str = "") -> ModelSpec:
    """The model a config describes; an unknown `model_type` is refused, never guessed."""
    config = Config(data, source)
    model = build(config, name)
    if any(key in data for key in ("quantization_config", "compression_config", "text_config")):
        from capacity.importers.huggingface.quantisation import weight_bits
        from capacity.record import replace

        bits, notes = weight_bits(config, model)
        model = replace(model, weight_bits=bits, notes=(*model.notes, *notes))
    return model


def build(config: Config, name: str) -> ModelSpec:
    """The model of a config or of the part of one that has a `model_type` of its own."""
    kind = config.text("model_type", "")
    if not kind:
        raise InputError(f"{config.where}: model_type is missing; is this a Hugging Face config.json?")
    module = MODULES.get(kind)
    if module is None:
        from difflib import get_close_matches

        shown = kind[:60]
        near = get_close_matches(shown, MODULES, n=3, cutoff=0.6)
        hint = f"; the nearest known are {', '.join(near)}" if near else ""
        raise UnsupportedArchitectureError(
            f"{config.where}: model_type {shown!r} is not an architecture this version knows{hint}"
        )
    adapters: dict[str, Callable[[Config, str], ModelSpec]]
    adapters = import_module(f"capacity.importers.huggingface.{module}").ADAPTERS
    return adapters[kind](config, name or kind)
