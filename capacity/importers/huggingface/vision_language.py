"""Models that see: a tower and a projector in front of a language model, whose adapter builds the text part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from capacity.errors import InputError
from capacity.importers.huggingface import towers
from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.towers import Tower, merger
from capacity.importers.huggingface.wrappers import language_model
from capacity.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from capacity.spec.model import Block, ModelSpec

# Nested configs leave out what equals their class's defaults; the language models met here in published configs.
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
DEFAULTS: dict[str, dict[str, int]] = {
    "gemma": {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "gemma3_text": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
    },
    "llama": LLAMA,
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
}

# Towers of configs that give none, where they are not the defaults of the tower's own class.
VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "llava": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    "mistral3": {"patch_size": 14, "image_size": 1540},
    "paligemma": {
        "hidden_size": 1152,
        "intermediate_size": 4096,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
NO_CONFIG = "vision tower: no vision_config, so as its class has it by default"
QWEN2 = ("qwen2_vl_text", "qwen2_5_vl_text")


def _seeing(
    config: Config,
    name: str,
    *,
    kind: str,
    see: Callable[[Config, int], Tower],
    tied: bool = False,
) -> ModelSpec:
    """A language model of a default kind and what `see` puts before it, given the config and the text's width."""
    outer = dict(config.data)
    if not config.has("text_config"):
        # Older configs of Qwen's keep the language model's fields beside the tower's.
        outer["text_config"] = {
            key: value for key, value in outer.items() if key not in ("model_type", "vision_config")
        }
    text = Config(outer, config.where).sub("text_config").data
    nested = text.get("model_type") or kind
    given = DEFAULTS.get(nested, {}) if isinstance(nested, str) else {}
    stated = {key: value for key, value in text.items() if value is not None}
    # Qwen2's language model has a name of its own inside these models.
    outer["text_config"] = given | stated | {"model_type": "qwen2" if nested in QWEN2 else nested}
    model = language_model(Config(outer, config.where), name, kind=kind, tied=tied)
    if not config.has("vision_config"):
        outer["vision_config"] = VISION_DEFAULTS.get(config.text("model_type"), {})
        model = replace(model, notes=(*model.notes, NO_CONFIG))
    return towers.before(see(Config(outer, config.where), int(model.hidden)), model)


def _with(tower: Tower, *projectors: Block) -> Tower:
    return replace(tower, blocks=(*tower.blocks, *projectors))


def _qwen(config: Config, _width: int, *, version: str) -> Tower:
    return towers.qwen(config.sub("vision_config"), version=version)


def _llava(config: Config, width: int) -> Tower:
    """Two maps on the features of one layer or of several side by side; the class token is left out by default."""
    tower = towers.tower_of(config.sub("vision_config"), "clip_vision_model")
    layers = config.data.get("vision_feature_layer")
    features = tower.width * (len(layers) if isinstance(layers, (list, tuple)) else 1)
    whole = config.text("vision_feature_select_strategy", "default") == "full"
    bias = config.flag("multimodal_projector_bias", True)
    return _with(
        tower, merger(tower.width, (features, width, width), bias=bias, positions="all" if whole else "patches")
    )


def _gemma3(config: Config, width: int) -> Tower:
    """Patches are averaged down to a fixed number of tokens, normed and projected."""
    tower = towers.tower_of(config.sub("vision_config"), "siglip_vision_model")
    tokens = config.count("mm_tokens_per_image", 256)
    rate = tokens / tower.convs[0].positions
    return _with(tower, merger(tower.width, (tower.width, width), rate=rate, bias=False, norms=tower.width))


def _paligemma(config: Config, _width: int) -> Tower:
    tower = towers.tower_of(config.sub("vision_config"), "siglip_vision_model")
    return _with(tower, merger(tower.width, (tower.width, config.count("projection_dim", 2048))))


def _llama4(config: Config, width: int) -> Tower:
    tower = towers.llama4(config.sub("vision_config"))
    rate = tower.blocks[-1].rate
    return _with(tower, merger(tower.width, (tower.width, width), rate=rate, bias=False))


def _mistral3(config: Config, width: int) -> Tower:
    """Patches are normed, merged by a map of their own, and projected."""
    tower = towers.tower_of(config.sub("vision_config"), "pixtral")
    cells = config.count("spatial_merge_size", 2) ** 2
    layers = config.data.get("vision_feature_layer")
    features = tower.width * (len(layers) if isinstance(layers, (list, tuple)) else 1)
    bias = config.flag("multimodal_projector_bias", False)
    merge = merger(tower.width, (cells * features, tower.width), rate=1 / cells, bias=False, norms=tower.width)
    project = merger(width, (features, width, width), rate=1 / cells, bias=bias)
    return _with(tower, merge, project)


def _internvl(config: Config, width: int) -> Tower:
    tower = towers.internvl(config.sub("vision_config"))
    ratio = config.number("downsample_ratio", 0.5)
    if not 0 < ratio <= 1:
        raise InputError(f"{config.where}: downsample_ratio is {ratio}; it must be above 0 and at most 1")
    merged = round(tower.width / ratio**2)
    return _with(tower, merger(tower.width, (merged, width, width), rate=ratio**2, norms=2 * merged))


def _kimi(config: Config, width: int) -> Tower:
    vision = config.sub("vision_config")
    tower = towers.moonvit(vision)
    cells = 1
    for length in vision.items("merge_kernel_size", [2, 2]):
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise InputError(f"{vision.where}: merge_kernel_size holds {str(length)[:40]}, not a whole number")
        cells *= length
    merged = cells * tower.width
    normed = config.count("projection_hidden_size", tower.width)
    return _with(tower, merger(tower.width, (merged, merged, width), rate=1 / cells, norms=2 * normed))


ADAPTERS = {
    "gemma3": partial(_seeing, kind="gemma3_text", see=_gemma3, tied=True),
    "internvl": partial(_seeing, kind="qwen2", see=_internvl, tied=True),
    "kimi_k25": partial(_seeing, kind="deepseek_v3", see=_kimi, tied=True),
    "llama4": partial(_seeing, kind="llama4_text", see=_llama4),
    "llava": partial(_seeing, kind="llama", see=_llava),
    "mistral3": partial(_seeing, kind="mistral", see=_mistral3, tied=True),
    "paligemma": partial(_seeing, kind="gemma", see=_paligemma, tied=True),
    "qwen2_5_vl": partial(_seeing, kind="qwen2", see=partial(_qwen, version="2.5")),
    "qwen2_vl": partial(_seeing, kind="qwen2", see=partial(_qwen, version="2")),
    "qwen3_vl": partial(_seeing, kind="qwen3_vl_text", see=partial(_qwen, version="3")),
    "qwen3_vl_moe": partial(_seeing, kind="qwen3_vl_moe_text", see=partial(_qwen, version="3")),
}
