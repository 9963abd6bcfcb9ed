"""Hugging Face configs: one adapter a model type, in one module a group of families.

An adapter takes a `Config` and a name and returns a `ModelSpec` that builds the same parameters and
matrix products as the transformers class does. Only the module that serves a config is imported.
"""

from __future__ import annotations

from importlib import import_module

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers.huggingface.config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from capacity.spec.model import ModelSpec

# model_type -> module of this package whose ADAPTERS table serves it.
MODULES: dict[str, str] = {
    "afmoe": "experts",
    "albert": "encoders",
    "apertus": "dense",
    "arcee": "dense",
    "aria_text": "experts",
    "bamba": "recurrent",
    "bart": "encoder_decoders",
    "bert": "encoders",
    "biogpt": "older",
    "blenderbot": "encoder_decoders",
    "blenderbot-small": "encoder_decoders",
    "bloom": "older",
    "camembert": "encoders",
    "clip_vision_model": "vision",
    "codegen": "older",
    "cohere": "dense",
    "cohere2": "dense",
    "ctrl": "older",
    "cwm": "dense",
    "dbrx": "experts",
    "deberta-v2": "encoders",
    "deepseek_ref": "sparse",
    "deepseek_v2": "latent",
    "deepseek_v3": "latent",
    "deepseek_v32": "latent",
    "deepseek_v4": "sparse",
    "deit": "vision",
    "dinov2": "vision",
    "dinov2_with_registers": "vision",
    "distilbert": "encoders",
    "dots1": "experts",
    "electra": "encoders",
    "ernie4_5": "dense",
    "ernie4_5_moe": "experts",
    "exaone4": "dense",
    "exaone_moe": "experts",
    "falcon": "older",
    "falcon_h1": "recurrent",
    "falcon_mamba": "recurrent",
    "flex_olmo": "experts",
    "gemma": "dense",
    "gemma2": "dense",
    "gemma3": "vision_language",
    "gemma3_text": "dense",
    "gemma3n": "gemma",
    "gemma3n_text": "gemma",
    "gemma4": "gemma",
    "gemma4_text": "gemma",
    "glm": "dense",
    "glm4": "dense",
    "glm4_moe": "experts",
    "glm4_moe_lite": "latent",
    "glm_moe_dsa": "latent",
    "gpt2": "older",
    "gpt_bigcode": "older",
    "gpt_neo": "older",
    "gpt_neox": "older",
    "gpt_oss": "experts",
    "gptj": "older",
    "granite": "dense",
    "granite_swa": "dense",
    "granitemoe": "experts",
    "granitemoe_swa": "experts",
    "granitemoehybrid": "recurrent",
    "granitemoeshared": "experts",
    "helium": "dense",
    "hunyuan_v1_dense": "dense",
    "hunyuan_v1_moe": "experts",
    "hy_v3": "experts",
    "hyperclovax": "dense",
    "internlm3": "dense",
    "internvl": "vision_language",
    "iquestcoder": "dense",
    "jais2": "dense",
    "jamba": "recurrent",
    "kimi_k2": "latent",
    "kimi_k25": "vision_language",
    "kimi_k3": "delta",
    "kimi_linear": "delta",
    "lfm2": "recurrent",
    "lfm2_moe": "recurrent",
    "llama": "dense",
    "llama4": "vision_language",
    "llama4_text": "experts",
    "llava": "vision_language",
    "m2m_100": "encoder_decoders",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "marian": "encoder_decoders",
    "mbart": "encoder_decoders",
    "mellum": "experts",
    "mimo": "dense",
    "mimo_v2_flash": "sparse",
    "minicpm3": "latent",
    "minimax": "sparse",
    "minimax_m2": "sparse",
    "minimax_m3": "sparse",
    "minimax_m3_vl": "sparse",
    "minimax_m3_vl_text": "sparse",
    "ministral": "dense",
    "ministral3": "dense",
    "mistral": "dense",
    "mistral3": "vision_language",
    "mistral4": "latent",
    "mixtral": "experts",
    "modernbert": "encoders",
    "mpt": "older",
    "mt5": "encoder_decoders",
    "nanochat": "dense",
    "nemotron": "dense",
    "nemotron-nas": "nemotron",
    "nemotron_h": "nemotron",
    "olmo": "dense",
    "olmo2": "dense",
    "olmo3": "dense",
    "olmoe": "experts",
    "openai-gpt": "older",
    "opt": "older",
    "paligemma": "vision_language",
    "pegasus": "encoder_decoders",
    "persimmon": "older",
    "phi": "older",
    "phi3": "dense",
    "phimoe": "experts",
    "plbart": "encoder_decoders",
    "qwen2": "dense",
    "qwen2_5_vl": "vision_language",
    "qwen2_moe": "experts",
    "qwen2_vl": "vision_language",
    "qwen3": "dense",
    "qwen3_5": "delta",
    "qwen3_5_moe": "delta",
    "qwen3_5_moe_text": "delta",
    "qwen3_5_text": "delta",
    "qwen3_moe": "experts",
    "qwen3_next": "delta",
    "qwen3_vl": "vision_language",
    "qwen3_vl_moe": "vision_language",
    "qwen3_vl_moe_text": "experts",
    "qwen3_vl_text": "dense",
    "recurrent_gemma": "recurrent",
    "roberta": "encoders",
    "rwkv": "recurrent",
    "seed_oss": "dense",
    "siglip_vision_model": "vision",
    "smollm3": "dense",
    "solar_open": "experts",
    "stablelm": "dense",
    "starcoder2": "dense",
    "step3p5": "sparse",
    "step3p7": "sparse",
    "swin": "vision",
    "t5": "encoder_decoders",
    "umt5": "encoder_decoders",
    "vaultgemma": "dense",
    "vit": "vision",
    "whisper": "encoder_decoders",
    "xglm": "older",
    "xlm-roberta": "encoders",
    "youtu": "latent",
    "zamba2": "recurrent",
    "olmo_hybrid": "delta",
}


def from_config(data: dict[str, Any], *, source: str, name: str = "") -> ModelSpec:
    """The model a config describes; an unknown `model_type` is refused, never guessed."""
    config = Config(data, source)
    model = build(config, name)
    if any(key in data for key in ("quantization_config", "compression_config", "text_config")):
        from capacity.importers.huggingface.quantisation import weight_bits, weight_format
        from capacity.record import replace

        bits, notes = weight_bits(config, model)
        model = replace(model, weight_bits=bits, weight_format=weight_format(config), notes=(*model.notes, *notes))
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
