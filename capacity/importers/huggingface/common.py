"""What encoders, older decoders and vision towers share: which head a class has, and blocks that are not causal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import InputError, UnsupportedArchitectureError
from capacity.importers import parts
from capacity.record import replace
from capacity.spec.model import REPLICATED, Block, Linear

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capacity.importers.huggingface.config import Config
    from capacity.spec.model import Attention, ModelSpec


def task(config: Config, known: Iterable[str], default: str) -> str:
    """Which of the known class endings the config's class has ("ForMaskedLM", "Model"); another class is refused."""
    names = config.data.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        return default
    # The longest ending wins: LMHeadModel is not a bare Model.
    for ending in sorted(known, key=len, reverse=True):
        if names[0].endswith(ending) and not (ending == "Model" and "Head" in names[0]):
            return ending
    raise UnsupportedArchitectureError(
        f"{config.where}: the head of class {names[0][:60]!r} is not known; known for its model_type are classes "
        f"that end in {', '.join(sorted(known))}"
    )


def labels(config: Config) -> int:
    """Number of classes a classifier tells apart."""
    names = config.data.get("id2label")
    if isinstance(names, dict) and names:
        return len(names)
    number: int = config.count("num_labels", 2)
    return number


def divide(config: Config, hidden: int, heads: int) -> int:
    """Width of one head where heads share the hidden size."""
    if hidden % heads:
        raise InputError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads")
    return hidden // heads


def side(config: Config, name: str, default: Any) -> tuple[int, int]:
    """Height and width given as one number or as two."""
    value = config.data.get(name)
    if isinstance(value, (list, tuple)):
        if len(value) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value):
            raise InputError(f"{config.where}: {name} is {str(value)[:60]}; it must be one or two whole numbers")
        return value[0], value[1]
    size = config.count(name, default)
    return size, size


def seeing_all(layer: Attention) -> Attention:
    """Attention of an encoder: every token sees every other, and nothing is kept for later."""
    return replace(layer, causal=False, cache_elements=0.0)


def norm(hidden: float, weights: float, stack: str) -> Block:
    """Norm weights (or other vectors) of a stack outside its layers."""
    return Block(1, hidden, (), stack, vector_params=weights)


def pooled(hidden: float, stack: str, *linears: tuple[str, float, float], bias: bool = True) -> Block:
    """Linear maps applied to one position of each sequence or image: poolers and classifiers."""
    maps = tuple(Linear(name, inputs, outputs, bias, REPLICATED, "head") for name, inputs, outputs in linears)
    return Block(1, hidden, (), stack, extra=maps, positions="one")


def layers_apart(model: ModelSpec) -> ModelSpec:
    """The same model with blocks that hold no sublayer told apart from its layers."""
    layers = tuple(block for block in model.blocks if block.sublayers)
    others = tuple(block for block in model.blocks if not block.sublayers)
    return replace(model, blocks=layers, outside=(*model.outside, *others))


def with_head(spec: ModelSpec, config: Config, kind: str) -> ModelSpec:
    """A decoder as its class ends it: with logits, without a head, or with a classifier on every token."""
    if kind.endswith("ForSequenceClassification"):
        return replace(spec, head=(Linear("score", spec.hidden, labels(config), False, REPLICATED, "head"),))
    return replace(spec, head=()) if kind == "Model" else spec


DECODER_TASKS = ("ForCausalLM", "LMHeadModel", "Model", "ForSequenceClassification")

__all__ = [
    "DECODER_TASKS",
    "divide",
    "labels",
    "layers_apart",
    "norm",
    "parts",
    "pooled",
    "seeing_all",
    "side",
    "task",
    "with_head",
]
