"""What transformers builds and torch counts, beside what the importer and the lowering say.

The published class is built on the meta device (no memory, no weights) and run there under torch's
FlopCounterMode. Conventions: attention is counted as the full square of queries and keys, each token's
routed experts are counted once, element-wise work is not counted.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, masking_utils

from capacity.estimators.lowering import Tokens, forward_flop, lower, parameter_count
from capacity.importers.huggingface import from_config


@dataclass(frozen=True)
class Count:
    """Parameters and forward FLOPs."""

    parameters: float
    forward_flop: float


@contextmanager
def meta_masks():
    """Masks are built from values where nothing is traced; on meta there are none."""
    real = masking_utils.is_tracing
    masking_utils.is_tracing = lambda _=None: True
    try:
        yield
    finally:
        masking_utils.is_tracing = real


def published(
    config: Any,
    sequences: int = 2,
    queries: int = 8,
    *,
    auto: Any = AutoModelForCausalLM,
    attention: str = "sdpa",
    experts: str | None = "batched_mm",
    build: Any = None,
    inputs: dict[str, torch.Tensor] | None = None,
) -> Count:
    """What transformers and torch say of a config.

    auto: the Auto class to build with; build: instead, a callable that returns the module.
    attention, experts: the implementations that run on meta ("sdpa" or "eager"; "batched_mm", or None where
    the class has its own). inputs: the forward's arguments (default: input_ids alone).
    """
    config._attn_implementation = attention
    options: dict[str, Any] = {"attn_implementation": attention}
    if experts is not None:
        config._experts_implementation = experts
        options["experts_implementation"] = experts
    with torch.device("meta"):
        model = (auto.from_config(config, **options) if build is None else build(config)).eval()
        if inputs is None:
            inputs = {"input_ids": torch.zeros(sequences, queries, dtype=torch.long)}
        counter = FlopCounterMode(display=False)
        with meta_masks(), torch.no_grad(), counter:
            model(**inputs, use_cache=False)
    return Count(sum(p.numel() for p in model.parameters()), counter.get_total_flops())


def predicted(config: dict[str, Any], tokens: Tokens) -> Count:
    """What the importer and the lowering say of a config's dictionary."""
    table = lower(from_config(config, source="contract"), tokens)
    return Count(parameter_count(table), forward_flop(table))


def assert_exact(config: Any, sequences: int = 2, queries: int = 8, *, tokens: Tokens | None = None, **options: Any):
    """Both counts are equal, to the last parameter and the last FLOP."""
    given = config.to_dict()
    expected = published(config, sequences, queries, **options)
    assert predicted(given, tokens or Tokens(sequences=sequences, queries=queries)) == expected


def small(kind: str, **changes: Any) -> Any:
    """A config of a model type with the given fields."""
    return AutoConfig.for_model(kind, **changes)
