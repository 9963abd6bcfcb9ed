"""What a block saves between its forward and its backward pass."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.training_habits import HABITS
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory
from capacity.spec.model import Attention, Experts, FeedForward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.training_habits import Habits
    from capacity.spec.model import Block, ModelSpec
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# What policies of selective recomputation drop unless the plan names the parts: scores, and what is cheap to rebuild.
_SELECTIVE = ("attention", "norms", "activations", "latent")
# Bytes an element of scores where attention writes them out: softmax input, output and mask of dropout.
SCORE_BYTES = 5.0


def block_activations(
    model: ModelSpec,
    workload: Workload,
    plan: Plan,
    recompute: str = "",
    *,
    habits: Habits = HABITS["megatron-core"],
    fused: bool = True,
) -> tuple[float, float]:
    """Bytes saved for the backward pass of one micro-batch over all blocks, and the largest working block.

    Under full recomputation only the input of each block is saved and one block at a time is rebuilt.
    """
    policy = recompute or plan.recompute
    tokens = plan.micro_batch * workload.seq_len / plan.cp
    width = workload.precision.activation_bits / 8.0
    stream_shards = plan.tp if plan.sequence_parallel else 1.0
    # Tokens that are multiplied in 8 bits arrive at their experts, and are kept, so.
    packed = 0.5 if workload.precision.compute in ("fp8", "fp4") else 1.0
    kept_width = workload.precision.saved_bits / 8.0
    widths = (width, kept_width or width, kept_width or width * packed)
    rebuilt = frozenset((plan.rebuilt or _SELECTIVE) if policy == "selective" else ())
    saved: dict[str, float] = {}
    working = 0.0
    for index, block in enumerate(feeding.layers(model)):
        each = _block(block, tokens, widths, plan, stream_shards, rebuilt, habits)
        if not fused and "attention" not in rebuilt:
            each = each + _scores(block, plan.micro_batch * workload.seq_len**2 / plan.cp, plan.tp)
        if policy == "full":
            input_ = memory.stream_activation_bytes(tokens, block.hidden, width, stream_shards, 1.0)
            whole = ops.everywhere(plan.recompute_share == 1.0)
            kept = input_ if whole else _mixed(input_, each, plan.recompute_share)
            working = ops.maximum(working, each)
        elif policy == "selective" and habits.selective is not None and not plan.rebuilt:
            kept = _block(block, tokens, (width,) * 3, plan, stream_shards, frozenset(), habits) * habits.selective
        else:
            kept = each
        saved[f"{block.stack} blocks {index}"] = scaled(kept, sourced(block.count, "layers"))
    return total(saved), working


def _mixed(rebuilt: float, whole: float, share: float) -> float:
    """Saved of a block on average, where only a share of them is rebuilt."""
    return total({"rebuilt": scaled(rebuilt, share), "kept": scaled(whole, 1.0 - share)})


def _scores(block: Block, pairs: float, tp: float) -> float:
    """Scores that attention writes out, of one layer."""
    heads = sum(layer.heads for layer in block.sublayers if isinstance(layer, Attention))
    return pairs * heads * SCORE_BYTES / tp


def _block(
    block: Block,
    tokens: float,
    widths: tuple[float, float, float],
    plan: Plan,
    stream_shards: float,
    rebuilt: frozenset[str],
    habits: Habits,
) -> float:
    """Bytes saved of one layer; widths: of an activation, of one kept as input of a product, of one that arrives at an expert."""
    width, kept, arriving = widths
    copies = 1.0 if "norms" in rebuilt else habits.norm_tensors
    masks = 0.5 if habits.dropout else 0.0  # a byte, in activation widths of two
    # The product of the activation function, and an expert's output with it.
    dropped = 1.0 if "activations" in rebuilt else 0.0
    parts: dict[str, float] = {}
    for index, layer in enumerate(block.sublayers):
        parts[f"stream {index}"] = memory.stream_activation_bytes(
            tokens, block.hidden, width, stream_shards, copies + masks
        )
        if isinstance(layer, FeedForward):
            tensors = 0.0 if "ffn" in rebuilt else (habits.gated_tensors if layer.gated else 2.0) - dropped
            inner = memory.ffn_activation_bytes(tokens, layer.width, tensors, plan.tp, kept)
        elif isinstance(layer, Experts):
            whole = 0.0 if "experts" in rebuilt else 1.0
            tensors = whole * ((habits.gated_tensors if layer.gated else 2.0) - dropped)
            routed = layer.width * layer.active + layer.shared_width
            inner = total(
                {
                    "inner": memory.ffn_activation_bytes(tokens, routed, tensors, plan.tp, kept),
                    "dispatched": memory.ffn_activation_bytes(
                        tokens, block.hidden * layer.active, whole * (2.0 - dropped), plan.tp, arriving
                    ),
                }
            )
        elif isinstance(layer, Attention):
            inner = memory.attention_activation_bytes(
                tokens,
                # Latent attention rebuilds heads from what it was projected down to (deepseek2024).
                sum(linear.out_features for linear in layer.projections if linear.shard not in ("column", "row"))
                if layer.latent and "latent" in rebuilt
                else layer.heads * layer.key_size + layer.kv_heads * (layer.key_size + layer.value_size),
                layer.heads * layer.value_size,
                layer.heads,
                plan.tp,
                width,
            )
        else:
            inner = memory.attention_activation_bytes(
                tokens,
                sum(linear.out_features for linear in layer.projections),
                layer.heads * layer.value_size,
                layer.heads,
                plan.tp,
                width,
            )
        parts[f"{type(layer).__name__.lower()} {index}"] = inner
    return total(parts)
