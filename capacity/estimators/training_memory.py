"""What one device must hold to train, by part, on the pipeline stage that needs most."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.lowering import Tokens, lower
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory, schedule
from capacity.record import Record, replace
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
    "adamw-bf16": 4.0,
    "adamw-8bit": 2.0,
    "adafactor": 0.02,
    "muon": 4.0,
    "shampoo": 24.0,  # moments, and two preconditioners of a square matrix with their roots
    "lion": 4.0,
}
# What collectives' communicators take of the driver's memory.
COMMUNICATOR_BYTES = 0.6e9


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
        elif ops.anywhere(op.copies != 1.0):
            place = "experts"
        else:
            place = "dense" if op.shard in ("column", "row") else "vectors"
        sums[place] += elements
    return Weights(**sums)


def held_share(model: ModelSpec, plan: Plan, stage: str) -> float:
    """Share of the model's layers on the "first", a "middle" or the "last" stage: whole layers, fewest on the last."""
    layers = feeding.layer_count(model)
    fullest = schedule.fullest_stage_layers(layers, plan.pp, plan.interleave)
    if stage != "last":
        return fullest / layers
    return ops.maximum(fullest - schedule.spare_layers(layers, plan.pp, plan.interleave), 0.0) / layers


def local_elements(weights: Weights, plan: Plan, stage: str, share: float | None = None) -> tuple[float, float]:
    """Dense and expert parameters of one device on the "first", a "middle" or the "last" stage, before ZeRO.

    share: of the layers that the stage holds (None: all stages hold as many).
    """
    etp = plan.expert_tp
    share = 1.0 / plan.pp if share is None else share
    dense = (weights.dense / plan.tp + weights.vectors) * share
    experts = weights.experts / (etp * plan.ep) * share
    alone = plan.pp == 1.0
    dense = dense + ops.where(alone | (stage == "first"), weights.embedding, 0.0) / plan.tp
    # A tied head is a copy of the embedding where the two sit on different stages.
    head = ops.where(weights.head > 0.0, weights.head, ops.where(alone, 0.0, weights.embedding))
    return dense + ops.where(alone | (stage == "last"), head, 0.0) / plan.tp, experts


class Habits(Record):
    """What a stack keeps in memory beyond the least: fitted on published peaks (docs/accuracy-training.md).

    logit_bytes: of one logit from its product to its gradient. gradient_bytes: of a gradient kept until the step (None: as
    the workload's precision says). gated_tensors: inner tensors a gated network saves; norm_tensors: copies of the stream
    one norm saves, in activation widths. buffer_bytes: live buckets of collectives. gathered_layers: of sharded weights.
    dropout: whether masks of a byte are saved. allocator: what the caching allocator keeps beside live tensors, as a share of
    them. bf16_gradient_bytes: further copy of a gradient where bf16 ones are added up in fp32. selective: share of a block that selective recomputation keeps (None: all but norm outputs and one inner tensor).
    """

    logit_bytes: float = 6.6
    gradient_bytes: float | None = None
    gated_tensors: float = 3.0
    norm_tensors: float = 2.0
    buffer_bytes: float = 0.0
    gathered_layers: float = 2.0
    dropout: bool = False
    allocator: float = 0.05
    selective: float | None = None
    bf16_gradient_bytes: float = 0.0


# Megatron's fused loss over a cut vocabulary keeps 2 + 4 bytes a logit and masks. Eager losses copy logits to fp32, shift and
# differentiate them; eager gated networks save the activation's output besides gate, up and their product. DeepSpeed
# keeps buckets of half a billion elements, ZeRO-3 a billion live parameters. PyTorch's selective checkpointing keeps
# every second product and attention. Nanotron adds gradients up in fp32 beside those of 16 bits. InternEvo's optimizer holds, at its
# step, gradients of 16 bits, their flat copy, one in fp32 and the two temporaries of an update that is not fused.
HABITS = {
    "megatron-core": Habits(),
    "megatron-lm": Habits(dropout=True, allocator=0.08),
    "megatron-deepspeed": Habits(dropout=True, allocator=0.08, buffer_bytes=2.5e9, bf16_gradient_bytes=2.0),
    "fsdp": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0),
    "torchtitan": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, selective=0.25),
    "deepspeed": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, buffer_bytes=5e9),
    "hugging-face": Habits(
        logit_bytes=14.0, gradient_bytes=4.0, gated_tensors=4.0, norm_tensors=3.0, buffer_bytes=2e9, allocator=0.08
    ),
    "nanotron": Habits(logit_bytes=16.0, gradient_bytes=6.0, gated_tensors=4.0, norm_tensors=3.0),
    "internevo": Habits(logit_bytes=14.0, gradient_bytes=14.0, gated_tensors=4.0),
    "litgpt": Habits(logit_bytes=4.0, gradient_bytes=2.0, gated_tensors=4.0, norm_tensors=3.0),
    "jax": Habits(logit_bytes=8.0, gradient_bytes=2.0),
}
# What policies of selective recomputation drop unless the plan names the parts: scores, and what is cheap to rebuild.
_SELECTIVE = ("attention", "norms", "activations", "latent")
# Bytes an element of scores where attention writes them out: softmax input, output and mask of dropout.
SCORE_BYTES = 5.0


def training_memory(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    plan: Plan,
    micro_batches: float,
    context_bytes: float,
    *,
    stack: str = "",
    fused_attention: bool = True,
    stage: str = "",
    activations: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Bytes by part on the fullest device: weights, gradients, optimizer, activations, logits, allocator, framework.

    stack: whose habits; fused_attention: whether scores are never written out; stage: "first" or "last" of the pipeline
    where that one is asked for; activations: as `block_activations` gives them, where they are known already.
    """
    stages: tuple[tuple[str, ...], ...] = (("first",), ("last",))
    if stage:
        stages = ((stage,),)
    elif plan.schedule == "dualpipe":
        # A device has two stages, as far from either end of the pipeline (deepseek2024).
        stages = (("first", "last"), ("middle", "middle"))
    elif ops.everywhere(plan.pp == 1.0):
        stages = (("first",),)
    habits = habits_of(stack or workload.stack)
    activations = activations or block_activations(model, workload, plan, habits=habits, fused=fused_attention)
    parts = [
        _stage(model, weights, workload, plan, micro_batches, context_bytes, one, habits, activations) for one in stages
    ]
    if len(parts) == 1:
        return parts[0]
    first, last = parts
    fuller = sum(first.values()) >= sum(last.values())
    return {name: ops.where(fuller, first[name], last[name]) for name in first}


def habits_of(stack: str) -> Habits:
    """What a stack keeps in memory; one that nobody measured is as thrifty as Megatron."""
    return HABITS.get(stack, HABITS["megatron-core"])


def as_seen(parts: dict[str, float], ruler: str) -> float:
    """What a ruler shows of the parts: "allocated" tensors, what the allocator has "reserved", or all the "driver" sees."""
    hidden = {"allocated": ("allocator", "framework"), "reserved": ("framework",)}.get(ruler, ())
    return sum(value for name, value in parts.items() if name not in hidden)


def _shares(model: ModelSpec, plan: Plan, stages: tuple[str, ...]) -> list[float]:
    return [held_share(model, plan, stage) for stage in stages]


def _states(
    model: ModelSpec, weights: Weights, workload: Workload, plan: Plan, stages: tuple[str, ...], habits: Habits
) -> dict[str, float]:
    """Weights, gradients and optimizer states of the stages of one device."""
    precision = workload.precision
    shares = _shares(model, plan, stages)
    placed = [local_elements(weights, plan, *pair) for pair in zip(stages, shares, strict=True)]
    dense, experts = (sum(side) for side in zip(*placed, strict=True))
    trained_dense, trained_experts, adapters = dense, experts, 0.0
    if workload.mode == "lora":
        trained_dense = adapters = lora_elements(model, workload, plan)
        trained_experts = 0.0
        if workload.trains_embedding:
            trained_dense = trained_dense + weights.embedding + weights.head
    state_bytes = OPTIMIZER_STATE_BYTES[workload.optimizer] * (0.5 if workload.short_states else 1.0)
    if precision.master_bits > min(precision.weight_bits, precision.activation_bits):
        state_bytes += precision.master_bits / 8.0
    ranks, etp = plan.shards, plan.expert_tp
    expert_ranks = ops.maximum(ranks * plan.tp / (plan.ep * etp), 1.0)
    width = precision.weight_bits / 8.0
    gradient_bytes = precision.gradient_bits / 8.0 if habits.gradient_bytes is None else habits.gradient_bytes
    if precision.compute == "bf16":
        gradient_bytes = gradient_bytes + habits.bf16_gradient_bytes
    gradient_bytes = 2.0 if workload.short_states else gradient_bytes
    tables = 0.0
    if width < 2.0:
        bare = replace(weights, embedding=0.0, head=0.0)
        tables = dense - sum(local_elements(bare, plan, *pair)[0] for pair in zip(stages, shares, strict=True))
    offload = "optimizer" in plan.offload
    # What ZeRO shards of weights, gradients and states, over the ranks of all weights and of one expert.
    held, grad, optim = (ops.where(plan.zero >= least, ranks, 1.0) for least in (3, 2, 1))
    held_experts, grad_experts, optim_experts = (
        ops.where(plan.zero >= least, expert_ranks, 1.0) for least in (3, 2, 1)
    )
    return {
        "weights": total(
            {
                "dense": memory.weight_bytes(dense - tables, width, held),
                # Quantised bases keep token table and head in 16 bits.
                "tables": memory.weight_bytes(tables, max(width, precision.activation_bits / 8.0), held),
                "experts": memory.weight_bytes(experts, width, held_experts),
                "adapters": memory.weight_bytes(adapters, precision.activation_bits / 8.0, held),
            }
        ),
        "gradients": total(
            {
                "dense": memory.gradient_bytes(trained_dense, gradient_bytes, grad),
                "experts": memory.gradient_bytes(trained_experts, gradient_bytes, grad_experts),
            }
        ),
        "optimizer": scaled(
            total(
                {
                    "dense": memory.optimizer_bytes(trained_dense, state_bytes, optim),
                    "experts": memory.optimizer_bytes(trained_experts, state_bytes, optim_experts),
                }
            ),
            # Two stages on a device are on another one too, which keeps the other half of their states.
            0.0 if offload else 1.0 / len(stages),
        ),
    }


def _stage(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    plan: Plan,
    micro_batches: float,
    context_bytes: float,
    stages: tuple[str, ...],
    habits: Habits,
    activations: tuple[float, float],
) -> dict[str, float]:
    parts = _states(model, weights, workload, plan, stages, habits)
    shares = _shares(model, plan, stages)
    ranks = plan.shards
    in_flight = memory.micro_batches_in_flight(
        plan.pp, plan.pp - 1.0 if stages == ("last",) else 0.0, micro_batches, plan.interleave
    )
    if plan.schedule == "gpipe":
        in_flight = micro_batches
    if plan.schedule == "dualpipe":
        # A micro-batch more in flight than stages, over both directions (deepseek2024).
        in_flight = ops.minimum(plan.pp + 1.0, micro_batches)
    saved, working = activations
    share = sum(shares) / len(shares)
    parts["activations"] = scaled(saved, in_flight * share * (0.0 if "activations" in plan.offload else 1.0))
    if "parameters" in plan.offload:
        parts["weights"] = scaled(parts["weights"], 0.0)
    # Logits and the block being recomputed are never alive at once.
    parts["working set"] = ops.maximum(_logits(model, workload, plan, stages, habits), working)
    if ops.anywhere(plan.zero >= 3):
        piped = plan.pp > 1.0
        gathered = _gathered(model, weights, workload, plan, habits)
        if ops.anywhere(piped):
            # Stages of a pipeline stay gathered, and add their gradients up whole, from the first micro-batch to the last.
            stage = sum(sum(local_elements(weights, plan, *pair)) for pair in zip(stages, shares, strict=True))
            whole = memory.weight_bytes(stage, workload.precision.activation_bits / 8.0)
            if workload.mode != "lora":
                whole = whole + memory.gradient_bytes(stage, 4.0)
            gathered = ops.where(piped, whole, gathered)
        parts["gathered weights"] = ops.where(plan.zero >= 3, gathered, 0.0)
    if habits.buffer_bytes and ops.anywhere(ranks > 1.0):
        parts["buffers"] = ops.where(ranks > 1.0, habits.buffer_bytes, 0.0)
    for name, guide in workload.guides:
        frozen = sum(weights_of(lower(guide, Tokens())).__dict__.values())
        parts[name] = memory.weight_bytes(frozen / (plan.tp * plan.pp), 2.0, ops.where(plan.zero >= 3, ranks, 1.0))
    if workload.critic is not None:
        own = weights_of(lower(workload.critic, Tokens()))
        parts["critic"] = total(_states(workload.critic, own, workload, plan, stages, habits))
    parts["allocator"] = memory.runtime_bytes(0.0, sum(parts.values()), habits.allocator)
    communicators = ops.where(plan.devices > 1.0, COMMUNICATOR_BYTES if context_bytes else 0.0, 0.0)
    parts["framework"] = sourced(context_bytes, "framework context") + communicators
    return parts


def _gathered(model: ModelSpec, weights: Weights, workload: Workload, plan: Plan, habits: Habits) -> float:
    """Bytes of sharded weights that are whole at a time: a few layers and the token table."""
    layers = feeding.layer_count(model)
    gathered = weights.dense / plan.tp + weights.vectors + weights.experts / (plan.expert_tp * plan.ep)
    whole = habits.gathered_layers * gathered / layers + weights.embedding / plan.tp
    return memory.weight_bytes(whole, workload.precision.activation_bits / 8.0)


def _logits(model: ModelSpec, workload: Workload, plan: Plan, stages: tuple[str, ...], habits: Habits) -> float:
    """Bytes of logits of one micro-batch, on the stage that has the head."""
    alone = plan.pp == 1.0
    if "last" not in stages and not ops.anywhere(alone):
        return 0.0
    tokens = plan.micro_batch * workload.seq_len / plan.cp
    each = 0.0 if workload.fused_loss else habits.logit_bytes
    logits = memory.logit_bytes(tokens, sourced(model.vocab_size, "vocabulary"), plan.tp, each)
    return logits if "last" in stages else ops.where(alone, logits, 0.0)


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
