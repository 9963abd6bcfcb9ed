"""The language model that a multi-modal config nests under `text_config`."""

from __future__ import annotations

from capacity.importers.huggingface.config import Config
from capacity.importers.huggingface.layers import NO_VISION, architecture
from capacity.record import replace

TYPE_CHECKING = False
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
