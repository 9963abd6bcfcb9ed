"""What a block saves between its forward and its backward pass."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.training_habits import HABITS
from capacity.estimators.training_weights import adapted
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory
from capacity.record import Record
from capacity.spec.model import Attention, Experts, FeedForward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.training_habits import Habits
    from capacity.spec.model import Block, Linear, ModelSpec
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# What policies of selective recomputation drop unless the plan names the parts: scores, and what is cheap to rebuild.
_SELECTIVE = ("attention", "norms", "activations", "latent")
# Bytes an element of scores where attention writes them out: softmax input, output and mask of dropout.
SCORE_BYTES = 5.0


class Inputs(Record):
    """Which inputs of products are saved for the gradients of weights.

    trained: every weight learns. quantised: frozen products of quantised weights keep theirs all the same, as
    bitsandbytes does. A frozen product in 16 bits keeps none, beside an adapter its own dropped copy with a mask of a
    byte, or the input itself where nothing is dropped.
    """

    workload: Workload
    trained: bool
    quantised: bool

    @classmethod
    def of(cls, workload: Workload) -> Inputs:
        """Of a workload: LoRA freezes all but adapters."""
        frozen = workload.mode == "lora"
        precision = workload.precision
        return cls(workload, not frozen, frozen and precision.weight_bits < min(precision.activation_bits, 16.0))

    def shared(self, products: tuple[Linear, ...]) -> float:
        """Copies kept of an input that these products share: 1 or none."""
        if self.trained or self.quantised:
            return 1.0
        return float(not self.workload.lora_dropout and any(adapted(one, self.workload) for one in products))

    def adapters(self, products: tuple[Linear, ...], tensor_parallel: float) -> float:
        """Elements a token that adapters keep: of their narrow products, and of dropped copies with a mask of a byte."""
        if self.trained:
            return 0.0
        copy = 1.5 if self.workload.lora_dropout else 0.0
        return sum(
            self.workload.lora_rank + copy * one.in_features / (tensor_parallel if one.shard == "row" else 1.0)
            for one in products
            if adapted(one, self.workload)
        )


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
    inputs = Inputs.of(workload)
    saved: dict[str, float] = {}
    working = 0.0
    for index, block in enumerate(feeding.layers(model)):
        each = _block(block, tokens, widths, plan, stream_shards, rebuilt, habits, inputs)
        if not fused and "attention" not in rebuilt:
            each = each + _scores(block, plan.micro_batch * workload.seq_len**2 / plan.cp, plan.tp)
        if policy == "full":
            input_ = memory.stream_activation_bytes(tokens, block.hidden, width, stream_shards, 1.0)
            whole = ops.everywhere(plan.recompute_share == 1.0)
            kept = input_ if whole else _mixed(input_, each, plan.recompute_share)
            working = ops.maximum(working, each)
        elif policy == "selective" and habits.selective is not None and not plan.rebuilt:
            unbuilt = _block(block, tokens, (width,) * 3, plan, stream_shards, frozenset(), habits, inputs)
            kept = unbuilt * habits.selective
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
    inputs: Inputs,
) -> float:
    """Bytes saved of one layer; widths: of an activation, of one kept as input of a product, of one that arrives at an expert."""
    width, kept, arriving = widths
    masks = 0.5 if habits.dropout else 0.0  # a byte, in activation widths of two
    # The product of the activation function, and an expert's output with it.
    dropped = 1.0 if "activations" in rebuilt else 0.0
    gated = any(isinstance(layer, FeedForward | Experts) and layer.gated for layer in block.sublayers)
    parts: dict[str, float] = {}
    for index, layer in enumerate(block.sublayers):
        first = tuple(one for one in layer.projections if one.shard != "row")
        last = tuple(one for one in layer.projections if one.shard == "row")
        copies = _norm_copies(habits, inputs, gated=gated) + (0.0 if inputs.trained else inputs.shared(first))
        copies = ops.minimum(copies, 1.0) if "norms" in rebuilt else copies
        parts[f"stream {index}"] = memory.stream_activation_bytes(
            tokens, block.hidden, width, stream_shards, copies + masks
        )
        adapters = 0.0 if isinstance(layer, Experts) else inputs.adapters(layer.projections, plan.tp)
        if ops.anywhere(adapters):
            parts[f"adapters {index}"] = memory.stream_activation_bytes(tokens, adapters, width, 1.0, 1.0)
        if isinstance(layer, FeedForward):
            tensors = (habits.gated_tensors if layer.gated else 2.0) - 1.0
            tensors = 0.0 if "ffn" in rebuilt else tensors + (0.0 if dropped else inputs.shared(last))
            inner = memory.ffn_activation_bytes(tokens, layer.width, tensors, plan.tp, kept)
        elif isinstance(layer, Experts):
            whole = 0.0 if "experts" in rebuilt else 1.0
            # Routed experts have no adapters.
            input_ = float(inputs.trained or inputs.quantised)
            product = 0.0 if dropped else input_
            tensors = whole * ((habits.gated_tensors if layer.gated else 2.0) - 1.0 + product)
            routed = layer.width * layer.active + layer.shared_width
            inner = total(
                {
                    "inner": memory.ffn_activation_bytes(tokens, routed, tensors, plan.tp, kept),
                    "dispatched": memory.ffn_activation_bytes(
                        tokens, block.hidden * layer.active, whole * (1.0 + input_ - dropped), plan.tp, arriving
                    ),
                }
            )
        elif isinstance(layer, Attention):
            queries_keys = layer.key_size * (layer.heads + layer.kv_heads)
            projected = queries_keys + layer.kv_heads * layer.value_size
            if layer.latent:
                # Heads are rebuilt from what they were projected down to, which its norm keeps (deepseek2024).
                latents = sum(one.out_features for one in layer.projections if one.shard == "replicated")
                projected = 0.0 if "latent" in rebuilt else projected
                parts[f"latents {index}"] = memory.stream_activation_bytes(
                    tokens, latents, width, stream_shards, copies
                )
            inner = memory.attention_activation_bytes(
                tokens, projected, layer.heads * layer.value_size, layer.heads, plan.tp, width
            )
            if layer.qk_norm and not layer.latent:
                # What norms of heads save, apart from their outputs, which attention does.
                apart = copies - 1.0 if inputs.trained else habits.frozen_norm_tensors
                parts[f"norms of heads {index}"] = memory.stream_activation_bytes(
                    tokens, queries_keys, width, plan.tp, apart
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


def _norm_copies(habits: Habits, inputs: Inputs, *, gated: bool) -> float:
    """Copies of the stream that a norm saves, its output too where its weight is trained.

    gated: where networks are, norms are of the root mean square, which eager code works out in fp32; those with a mean are
    one kernel everywhere, which saves its input.
    """
    if inputs.trained:
        return habits.norm_tensors if gated else min(habits.norm_tensors, 2.0)
    return habits.frozen_norm_tensors if gated else 1.0
