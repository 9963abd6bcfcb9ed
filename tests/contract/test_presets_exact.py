"""Presets count what the published class of transformers holds, built from the same facts on the meta device.

Two presets of each model type, the smallest and the largest; models without a class there are named below.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from capacity.catalogue.models import ModelPreset, list_models, load_model
from capacity.estimators.lowering import Tokens, lower, parameter_count

# The publisher's own names of classes and model types that transformers has under another.
CLASSES = {"PhiMoEForCausalLM": "PhimoeForCausalLM"}
TYPES = {"kimi_k2": "deepseek_v3"}
WITHOUT_A_CLASS = {"kimi_k25", "mimo", "minimax_m3", "step3p7"}
# Parts of a multimodal model beside its language model; of some models the importer reads the latter alone.
SEEING = ("vision", "visual", "multi_modal", "mm_projector")


def extremes() -> list[ModelPreset]:
    kinds: dict[str, list[ModelPreset]] = {}
    for preset in list_models():
        kinds.setdefault(preset.config["model_type"], []).append(preset)
    chosen = []
    for kind, presets in kinds.items():
        presets.sort(key=lambda preset: preset.published_params or 0.0)
        chosen += [] if kind in WITHOUT_A_CLASS else presets[:1] + presets[1:][-1:]
    return chosen


def built(data: dict[str, Any], *, language_only: bool) -> float:
    facts = {key: value for key, value in data.items() if key != "quantization_config"}
    if "text_config" in facts:
        facts["text_config"] = {k: v for k, v in facts["text_config"].items() if k != "quantization_config"}
    kind = facts.pop("model_type")
    architecture = facts["architectures"][0]
    config = transformers.CONFIG_MAPPING[TYPES.get(kind, kind)](**facts)
    with torch.device("meta"):
        model = getattr(transformers, CLASSES.get(architecture, architecture))(config)
    parts = model.named_parameters()
    return sum(p.numel() for name, p in parts if not (language_only and any(word in name for word in SEEING)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("preset", extremes(), ids=lambda preset: preset.id)
def test_preset_has_the_parameters_of_the_published_class(preset: ModelPreset):
    model = load_model(preset.id)
    language_only = "text_config" in preset.config and not any(block.stack == "vision" for block in model.blocks)
    assert parameter_count(lower(model, Tokens())) == built(preset.config, language_only=language_only)
