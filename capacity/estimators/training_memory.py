"""What one device must hold to train, by part, on the pipeline stage that needs most."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_habits import habits_of
from capacity.estimators.training_weights import (
    OPTIMIZER_STATE_BYTES,
    held_share,
    local_elements,
    lora_elements,
    weights_of,
)
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.training_habits import Habits
    from capacity.estimators.training_weights import Weights
    from capacity.spec.model import ModelSpec
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# What collectives' communicators take of the driver's memory.
COMMUNICATOR_BYTES = 0.6e9


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
