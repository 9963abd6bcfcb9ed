"""What a model is fed: which of its stacks a workload runs, and the tokens of one forward pass."""

from __future__ import annotations

from capacity import ops
from capacity.estimators.lowering import Tokens, lower
from capacity.record import replace
from capacity.spec.model import Attention, Recurrent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import Block, ModelSpec

_TEXT = ("decoder", "encoder")


def sees_only(model: ModelSpec) -> bool:
    """Whether the model looks at pictures and reads no text (ViT)."""
    return not any(block.stack in _TEXT for block in model.blocks)


def layers(model: ModelSpec) -> tuple[Block, ...]:
    """The blocks a token passes; of a vision-language model those of its language model."""
    stacks = ("vision",) if sees_only(model) else _TEXT
    return tuple(block for block in model.blocks if block.stack in stacks)


def layer_count(model: ModelSpec) -> float:
    """Layers a token passes."""
    return sum(block.count for block in layers(model))


def generates(model: ModelSpec) -> bool:
    """Whether the model writes token after token; encoders and vision models answer in one pass."""
    return any(
        block.stack == "decoder" and isinstance(layer, (Attention, Recurrent)) and getattr(layer, "causal", True)
        for block in model.blocks
        for layer in block.sublayers
    )


def longest(model: ModelSpec) -> float:
    """Tokens of the longest sequence the model was built for; patches of a picture; 0 where it has no limit."""
    if sees_only(model):
        return max((op.queries for op in lower(model, Tokens(images=1.0)) if op.kind == "attention"), default=1.0)
    return model.max_positions


def feed(model: ModelSpec, sequences: float, length: float, *, logits: float | None = None) -> Tokens:
    """One forward pass over whole sequences (or pictures)."""
    if sees_only(model):
        return Tokens(sequences=sequences, queries=1.0, images=1.0)
    return Tokens(sequences=sequences, queries=length, encoder=length, logits=logits)


def with_heads_ahead(model: ModelSpec) -> ModelSpec:
    """The model with its multi-token-prediction blocks as layers, each of which passes the head once more (deepseek2024)."""
    ahead = sum(block.count for block in model.blocks if block.stack == "mtp")
    blocks = tuple(replace(block, stack="decoder") if block.stack == "mtp" else block for block in model.blocks)
    again = tuple(replace(linear, tied=True) for linear in model.head) * int(ahead)
    return replace(model, blocks=blocks, head=(*model.head, *again))


# Masked language models guess this share of a sequence's tokens, and only these get logits (15 %, padded up).
MASKED_SHARE = 0.16


def learn(model: ModelSpec, sequences: float, length: float) -> Tokens:
    """One forward pass that is trained on: encoders with a head of words predict the masked ones only."""
    masked = bool(model.head) and not sees_only(model) and not generates(model)
    return feed(model, sequences, length, logits=MASKED_SHARE * length if masked else None)


def reads_apart(model: ModelSpec) -> bool:
    """Whether prompts go through an encoder of text, and the decoder's own keys are only what it wrote (T5)."""
    heard = any(conv.stack == "encoder" for conv in model.convs)
    return not heard and {"encoder", "decoder"} <= {block.stack for block in model.blocks}


def prompt(model: ModelSpec, sequences: float, length: float) -> Tokens:
    """The pass that reads prompts and gives each its first token."""
    if reads_apart(model):
        return Tokens(sequences=sequences, queries=1.0, encoder=length, logits=1.0)
    return feed(model, sequences, length, logits=1.0)


def next_token(sequences: float, prompt: float, written: float, *, apart: bool) -> Tokens:
    """The pass that gives each sequence the token after `written` ones. apart: as `reads_apart`."""
    keys = written if apart else prompt + written
    return Tokens(sequences=sequences, queries=1.0, past=ops.maximum(keys - 1.0, 0.0), encoder=prompt, encoded=True)
