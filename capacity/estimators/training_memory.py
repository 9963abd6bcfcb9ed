"""What one device must hold to train, by part, on the pipeline stage that needs most."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory
from capacity.record import Record
from capacity.spec.model import Attention, Experts, FeedForward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import Block, ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# Bytes of optimizer state per trained weight, beside the master copy.
OPTIMIZER_STATE_BYTES = {
    "sgd": 0.0,
    "momentum": 4.0,
    "adamw": 8.0,
    "adamw-8bit": 2.0,
    "adafactor": 0.02,
    "muon": 4.0,
    "lion": 4.0,
}
# Allocator slack and buffers that come and go, as a share of activations and gradients.
FRAGMENTATION = 0.04


class Weights(Record):
    """Parameters by where they live, before any sharding: blocks (dense and routed), tables, head."""

    dense: float
    experts: float
    embedding: float
    head: float
    vectors: float

    @property
    def all(self) -> float:
        """Every parameter."""
        return self.dense + self.experts + self.embedding + self.head + self.vectors


def weights_of(table: tuple[Op, ...]) -> Weights:
    """Sort the parameters of an op table."""
    sums = dict.fromkeys(("dense", "experts", "embedding", "head", "vectors"), 0.0)
    for op in table:
        elements = op.count * op.copies * op.weight_elements
        if op.kind == "embedding":
            place = "embedding"
        elif op.part == "head":
            place = "head"
        elif op.copies != 1.0:
            place = "experts"
        else:
            place = "dense" if op.shard in ("column", "row") else "vectors"
        sums[place] += elements
    return Weights(**sums)


def local_elements(weights: Weights, plan: Plan, stage: str) -> tuple[float, float]:
    """Dense and expert parameters of one device on the "first" or "last" stage, before ZeRO."""
    dense = (weights.dense / plan.tp + weights.vectors) / plan.pp
    experts = weights.experts / (plan.tp * plan.ep * plan.pp)
    if stage == "first" or plan.pp == 1.0:
        dense = dense + weights.embedding / plan.tp
    if stage == "last" or plan.pp == 1.0:
        # A tied head is a copy of the embedding where the two sit on different stages.
        dense = dense + (weights.head or (weights.embedding if plan.pp > 1.0 else 0.0)) / plan.tp
    return dense, experts


def training_memory(
    model: ModelSpec, weights: Weights, workload: Workload, plan: Plan, micro_batches: float, context_bytes: float
) -> dict[str, float]:
    """Bytes by part on the fullest device: weights, gradients, optimizer, activations, logits, runtime."""
    stages = ("first",) if plan.pp == 1.0 else ("first", "last")
    parts = [_stage(model, weights, workload, plan, micro_batches, context_bytes, stage) for stage in stages]
    return max(parts, key=lambda part: sum(part.values()))


def _stage(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    plan: Plan,
    micro_batches: float,
    context_bytes: float,
    stage: str,
) -> dict[str, float]:
    precision = workload.precision
    dense, experts = local_elements(weights, plan, stage)
    trained_dense, trained_experts, adapters = dense, experts, 0.0
    if workload.mode == "lora":
        trained_dense = adapters = lora_elements(model, workload, plan)
        trained_experts = 0.0
    state_bytes = OPTIMIZER_STATE_BYTES[workload.optimizer]
    if precision.master_bits > precision.weight_bits:
        state_bytes += precision.master_bits / 8.0
    expert_dp = plan.dp / plan.ep
    width = precision.weight_bits / 8.0
    held, grad, optim = plan.zero >= 3, plan.zero >= 2, plan.zero >= 1
    parts = {
        "weights": total(
            {
                "dense": memory.weight_bytes(dense, width, plan.dp if held else 1.0),
                "experts": memory.weight_bytes(experts, width, expert_dp if held else 1.0),
                "adapters": memory.weight_bytes(adapters, precision.activation_bits / 8.0, plan.dp if held else 1.0),
            }
        ),
        "gradients": total(
            {
                "dense": memory.gradient_bytes(trained_dense, precision.gradient_bits / 8.0, plan.dp if grad else 1.0),
                "experts": memory.gradient_bytes(
                    trained_experts, precision.gradient_bits / 8.0, expert_dp if grad else 1.0
                ),
            }
        ),
        "optimizer": total(
            {
                "dense": memory.optimizer_bytes(trained_dense, state_bytes, plan.dp if optim else 1.0),
                "experts": memory.optimizer_bytes(trained_experts, state_bytes, expert_dp if optim else 1.0),
            }
        ),
    }
    in_flight = memory.micro_batches_in_flight(
        plan.pp, 0.0 if stage == "first" else plan.pp - 1.0, micro_batches, plan.interleave
    )
    saved, working = block_activations(model, workload, plan)
    parts["activations"] = scaled(saved, in_flight / plan.pp)
    tokens = plan.micro_batch * workload.seq_len
    logits = (
        memory.logit_bytes(tokens, sourced(model.vocab_size, "vocabulary"), plan.tp)
        if stage == "last" or plan.pp == 1.0
        else 0.0
    )
    # Logits and the block being recomputed are never alive at once.
    parts["working set"] = ops.maximum(logits, working)
    if held:
        layers = feeding.layer_count(model)
        parts["gathered weights"] = memory.weight_bytes(
            2.0 * (dense * plan.pp - weights.embedding / plan.tp - weights.head / plan.tp + experts * plan.pp) / layers
            + weights.embedding / plan.tp,
            width,
        )
    dynamic = parts["activations"] + parts["working set"] + parts["gradients"]
    parts["runtime"] = memory.runtime_bytes(context_bytes, dynamic, FRAGMENTATION)
    return parts


def lora_elements(model: ModelSpec, workload: Workload, plan: Plan) -> float:
    """Parameters of low-rank adapters on every linear map of the blocks, on one device."""
    elements = 0.0
    for block in model.blocks:
        for sublayer in block.sublayers:
            if isinstance(sublayer, Experts):
                continue
            for linear in sublayer.projections:
                elements += block.count * workload.lora_rank * (linear.in_features + linear.out_features)
    return elements / (plan.tp * plan.pp)


def block_activations(model: ModelSpec, workload: Workload, plan: Plan, recompute: str = "") -> tuple[float, float]:
    """Bytes saved for the backward pass of one micro-batch over all blocks, and the largest working block.

    Under full recomputation only the input of each block is saved and one block at a time is rebuilt.
    """
    policy = recompute or plan.recompute
    tokens = plan.micro_batch * workload.seq_len
    width = workload.precision.activation_bits / 8.0
    stream_shards = plan.tp if plan.sequence_parallel else 1.0
    saved: dict[str, float] = {}
    working = 0.0
    for index, block in enumerate(feeding.layers(model)):
        each = _block(block, tokens, width, plan, stream_shards, policy)
        if policy == "full":
            kept = memory.stream_activation_bytes(tokens, block.hidden, width, stream_shards, 1.0)
            working = ops.maximum(working, each)
        else:
            kept = each
        saved[f"{block.stack} blocks {index}"] = scaled(kept, sourced(block.count, "layers"))
    return total(saved), working


def _block(block: Block, tokens: float, width: float, plan: Plan, stream_shards: float, policy: str) -> float:
    # Selective recomputation drops what is cheap to rebuild: norm outputs and products of the activation function.
    copies = 1.0 if policy == "selective" else 2.0
    parts: dict[str, float] = {}
    for index, layer in enumerate(block.sublayers):
        parts[f"stream {index}"] = memory.stream_activation_bytes(tokens, block.hidden, width, stream_shards, copies)
        if isinstance(layer, FeedForward):
            tensors = (3.0 if layer.gated else 2.0) - (1.0 if policy == "selective" else 0.0)
            inner = memory.ffn_activation_bytes(tokens, layer.width, tensors, plan.tp, width)
        elif isinstance(layer, Experts):
            tensors = (3.0 if layer.gated else 2.0) - (1.0 if policy == "selective" else 0.0)
            routed = layer.width * layer.active + layer.shared_width
            inner = total(
                {
                    "inner": memory.ffn_activation_bytes(tokens, routed, tensors, plan.tp, width),
                    "dispatched": memory.ffn_activation_bytes(tokens, block.hidden * layer.active, 2.0, 1.0, width),
                }
            )
        elif isinstance(layer, Attention):
            inner = memory.attention_activation_bytes(
                tokens,
                layer.heads * layer.key_size + layer.kv_heads * (layer.key_size + layer.value_size),
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
