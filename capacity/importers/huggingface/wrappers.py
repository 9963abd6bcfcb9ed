"""Models that see: a language model under `text_config`, fed by a tower that is not counted here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import NO_VISION, architecture
from capacity.record import replace

if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec


def language_model(config: Config, name: str, *, kind: str, tied: bool = False) -> ModelSpec:
    """The language model of a config that nests it.

    kind: its model type where the nested config names none. tied: whether head and embedding share a table where
    neither config says so; the outer one decides.
    """
    from capacity.importers.huggingface import build

    text = config.sub("text_config")
    inherited = {
        "model_type": text.data.get("model_type") or kind,
        "tie_word_embeddings": config.flag("tie_word_embeddings", text.flag("tie_word_embeddings", tied)),
    }
    model = build(Config(text.data | inherited, text.where), name)
    return replace(model, architecture=architecture(config), source=config.where, notes=(*model.notes, NO_VISION))


ADAPTERS = {
    "gemma3": partial(language_model, kind="gemma3_text", tied=True),
    "kimi_k25": partial(language_model, kind="deepseek_v3", tied=True),
    "llama4": partial(language_model, kind="llama4_text"),
    "mistral3": partial(language_model, kind="mistral", tied=True),
    "qwen3_vl": partial(language_model, kind="qwen3_vl_text"),
    "qwen3_vl_moe": partial(language_model, kind="qwen3_vl_moe_text"),
}
