"""What one device must hold to train, by part, on the pipeline stage that needs most."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.training_activations import Inputs, block_activations
from capacity.estimators.training_habits import habits_of
from capacity.estimators.training_weights import (
    OPTIMIZER_STATE_BYTES,
    held_expert_share,
    held_share,
    leading_layers,
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

# What the buffers of one communicator of collectives take, of a device's context: both grow with the device.
COMMUNICATOR_SHARE = 0.4


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
    elif leading_layers(model) and ops.everywhere(plan.pp > 2.0):
        # Layers with experts are heavier, and a stage between the ends may hold nothing else.
        stages = (*stages, ("middle",))
    habits = habits_of(stack or workload.stack)
    activations = activations or block_activations(model, workload, plan, habits=habits, fused=fused_attention)
    parts = [
        _stage(model, weights, workload, plan, micro_batches, context_bytes, one, habits, activations) for one in stages
    ]
    fullest = parts[0]
    for other in parts[1:]:
        fuller = sum(fullest.values()) >= sum(other.values())
        fullest = {name: ops.where(fuller, fullest[name], other[name]) for name in fullest}
    return fullest


def as_seen(parts: dict[str, float], ruler: str) -> float:
    """What a ruler shows of the parts: "allocated" tensors, what the allocator has "reserved", or all the "driver" sees."""
    hidden = {"allocated": ("allocator", "framework"), "reserved": ("framework",)}.get(ruler, ())
    return sum(value for name, value in parts.items() if name not in hidden)


def _placed(model: ModelSpec, weights: Weights, plan: Plan, stages: tuple[str, ...]) -> tuple[float, float, float]:
    """Dense and expert parameters of the stages of one device, and the mean share of the layers that one of them holds."""
    shares = [held_share(model, plan, stage) for stage in stages]
    placed = [
        local_elements(weights, plan, stage, share, held_expert_share(model, plan, stage, share))
        for stage, share in zip(stages, shares, strict=True)
    ]
    dense, experts = (sum(side) for side in zip(*placed, strict=True))
    return dense, experts, sum(shares) / len(shares)


def _states(
    model: ModelSpec, weights: Weights, workload: Workload, plan: Plan, stages: tuple[str, ...], habits: Habits
) -> dict[str, float]:
    """Weights, gradients, optimizer states of the stages of one device, and what the update takes beside them."""
    precision = workload.precision
    dense, experts, _ = _placed(model, weights, plan, stages)
    width = precision.weight_bits / 8.0
    wide = precision.activation_bits / 8.0
    # Bytes of a trained weight that is no part of the base, of its gradient, of its states.
    own, gradient = wide, _gradient_bytes(workload, habits)
    state = OPTIMIZER_STATE_BYTES[workload.optimizer] * (0.5 if workload.short_states else 1.0)
    trained, trained_experts, adapters, relearnt = dense, experts, 0.0, 0.0
    if workload.mode == "lora":
        trained = adapters = lora_elements(model, workload, plan)
        trained_experts = 0.0
        if habits.adapter_bytes is not None:
            own = gradient = habits.adapter_bytes
        if workload.trains_embedding:
            relearnt = (weights.embedding + weights.head) / plan.tp
    if precision.master_bits / 8.0 > (own if workload.mode == "lora" else min(width, wide)):
        state += precision.master_bits / 8.0
    ranks = plan.shards
    expert_ranks = ops.maximum(ranks * plan.tp / (plan.ep * plan.expert_tp), 1.0)
    tables = 0.0
    if width < 2.0:
        bare = replace(weights, embedding=0.0, head=0.0)
        tables = dense - _placed(model, bare, plan, stages)[0]
    # What ZeRO shards of weights, gradients and states, over the ranks of all weights and of one expert.
    held, grad, optim = (ops.where(plan.zero >= least, ranks, 1.0) for least in (3, 2, 1))
    held_experts, grad_experts, optim_experts = (
        ops.where(plan.zero >= least, expert_ranks, 1.0) for least in (3, 2, 1)
    )

    def updated(bytes_per_state: float) -> dict[str, float]:
        return {
            "dense": memory.optimizer_bytes(trained, bytes_per_state, optim),
            "experts": memory.optimizer_bytes(trained_experts, bytes_per_state, optim_experts),
        }

    kept = {
        "dense": memory.weight_bytes(dense - tables, width, held),
        # Quantised bases keep token table and head whole.
        "tables": memory.weight_bytes(tables, ops.maximum(width, habits.table_bytes), held),
        "experts": memory.weight_bytes(experts, width, held_experts),
        "adapters": memory.weight_bytes(adapters, own, held),
    }
    gradients = {
        "dense": memory.gradient_bytes(trained, gradient, grad),
        "experts": memory.gradient_bytes(trained_experts, gradient, grad_experts),
    }
    states = updated(state)
    # Torch updates many tensors at once, with a temporary as large as a moment; sharded optimizers are fused.
    alone = ops.where(
        (plan.zero >= 1) & (ranks > 1.0), 0.0, habits.update_bytes * (0.5 if workload.short_states else 1.0)
    )
    temporary = alone + (habits.fp16_update_bytes if precision.compute == "fp16" else 0.0)
    update = updated(temporary)
    if ops.anywhere(relearnt):
        # Beside the frozen tables stand their trained copies, in the same format, and so do their moments.
        kept["trained tables"] = memory.weight_bytes(relearnt, wide, held)
        gradients["tables"] = memory.gradient_bytes(relearnt, wide, grad)
        moments = OPTIMIZER_STATE_BYTES[workload.optimizer] * wide / 4.0
        states["tables"] = memory.optimizer_bytes(relearnt, moments, optim)
        update["tables"] = memory.optimizer_bytes(relearnt, alone * wide / 4.0, optim)
    if workload.mode == "lora" and habits.mixed_units and ops.anywhere(plan.zero >= 3):
        # A unit of FSDP that holds one trained weight makes gradients of all, whole as long as they add up.
        units = memory.gradient_bytes(dense + experts, gradient)
        gradients["frozen"] = ops.where(plan.zero >= 3, units, 0.0)
    # Two stages on a device are on another one too, which keeps the other half of their states.
    here = 0.0 if "optimizer" in plan.offload else 1.0 / len(stages)
    return {
        "weights": total(kept),
        "gradients": total(gradients),
        "optimizer": scaled(total(states), here),
        "update": scaled(total(update), here) if ops.anywhere(temporary) else 0.0,
    }


def _gradient_bytes(workload: Workload, habits: Habits) -> float:
    """Bytes of a gradient from its first micro-batch to the step."""
    if workload.short_states:
        return 2.0
    asked = workload.precision.gradient_bits / 8.0 if habits.gradient_bytes is None else habits.gradient_bytes
    return asked + (habits.bf16_gradient_bytes if workload.precision.compute == "bf16" else 0.0)


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
    update = parts.pop("update")
    dense, experts, share = _placed(model, weights, plan, stages)
    ranks = plan.shards
    index = {"first": 0.0, "middle": 1.0, "last": plan.pp - 1.0}[stages[0]]
    in_flight = memory.micro_batches_in_flight(plan.pp, index, micro_batches, plan.interleave)
    if plan.schedule == "gpipe":
        in_flight = micro_batches
    if plan.schedule == "dualpipe":
        # A micro-batch more in flight than stages, over both directions (deepseek2024).
        in_flight = ops.minimum(plan.pp + 1.0, micro_batches)
    saved, working = activations
    if "parameters" in plan.offload:
        parts["weights"] = scaled(parts["weights"], 0.0)
    passing = {
        "activations": scaled(saved, in_flight * share * (0.0 if "activations" in plan.offload else 1.0)),
        # Logits and the block being recomputed are never alive at once.
        "working set": ops.maximum(_logits(model, workload, plan, stages, habits), working)
        + _unpacked(model, workload, plan),
    }
    if ops.anywhere(plan.zero >= 3):
        piped = plan.pp > 1.0
        gathered = _gathered(model, weights, workload, plan, habits)
        if ops.anywhere(piped):
            # Stages of a pipeline stay gathered, and add their gradients up whole, from the first micro-batch to the last.
            whole = memory.weight_bytes(dense + experts, workload.precision.activation_bits / 8.0)
            if workload.mode != "lora":
                whole = whole + memory.gradient_bytes(dense + experts, 4.0)
            gathered = ops.where(piped, whole, gathered)
        passing["gathered weights"] = ops.where(plan.zero >= 3, gathered, 0.0)
    if habits.stage_outputs and ops.anywhere(plan.pp > 1.0):
        # DeepSpeed's pipeline keeps what each micro-batch in flight has handed over.
        passing["stage outputs"] = ops.where(
            plan.pp > 1.0,
            memory.stream_activation_bytes(
                plan.micro_batch * workload.seq_len / plan.cp,
                model.hidden,
                workload.precision.activation_bits / 8.0,
                1.0,
                in_flight,
            ),
            0.0,
        )
    parts |= _fuller(parts.pop("gradients"), passing, update, habits.contiguous | (micro_batches > 1.0))
    if habits.buffer_bytes and ops.anywhere(ranks > 1.0):
        parts["buffers"] = ops.where(ranks > 1.0, habits.buffer_bytes, 0.0)
    if habits.bucket_elements and ops.anywhere(ranks > 1.0):
        parts["buffers"] = ops.where(ranks > 1.0, 4.0 * ops.minimum(habits.bucket_elements, dense + experts), 0.0)
    for name, guide in workload.guides:
        frozen = sum(weights_of(lower(guide, Tokens())).__dict__.values())
        parts[name] = memory.weight_bytes(frozen / (plan.tp * plan.pp), 2.0, ops.where(plan.zero >= 3, ranks, 1.0))
    if workload.critic is not None:
        own = weights_of(lower(workload.critic, Tokens()))
        parts["critic"] = total(_states(workload.critic, own, workload, plan, stages, habits))
    parts["allocator"] = memory.runtime_bytes(0.0, sum(parts.values()), habits.allocator)
    groups = sum(ops.where(degree > 1.0, 1.0, 0.0) for degree in (plan.dp, plan.tp, plan.pp))
    communicators = (
        COMMUNICATOR_SHARE * context_bytes * ops.where(plan.devices > 1.0, 1.0 + habits.communicators * groups, 0.0)
    )
    parts["framework"] = sourced(context_bytes, "framework context") + communicators
    return parts


def _fuller(gradients: float, passing: dict[str, float], update: float, early: bool) -> dict[str, float]:
    """Parts of the fuller of two instants: between the passes, when all is saved and logits are made, or at the update.

    early: gradients are there between the passes already, of micro-batches before or as buffers that are filled.
    """
    before = ops.where(early, gradients, 0.0)
    if not ops.anywhere(update) and ops.everywhere(early):
        return {"gradients": gradients, **passing}
    first = sum(passing.values()) + before >= gradients + update
    found = {name: ops.where(first, value, 0.0) for name, value in passing.items()}
    return {"gradients": ops.where(first, before, gradients), "update": ops.where(first, 0.0, update), **found}


def _unpacked(model: ModelSpec, workload: Workload, plan: Plan) -> float:
    """Bytes of the largest frozen matrix in 16 bits: what a kernel that multiplies quantised weights unpacks."""
    if not Inputs.of(workload).quantised:
        return 0.0
    largest = 0.0
    for block in model.blocks:
        for layer in block.sublayers:
            for one in layer.projections:
                largest = ops.maximum(largest, one.in_features * one.out_features / plan.tp)
    return memory.weight_bytes(largest, workload.precision.activation_bits / 8.0)


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
