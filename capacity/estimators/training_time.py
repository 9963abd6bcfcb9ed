"""How long one training step takes, part by part: the terms of the work under a software stack."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.lowering import lower
from capacity.estimators.network import Network
from capacity.estimators.training_blocks import KINDS
from capacity.estimators.training_terms import price_terms
from capacity.estimators.training_weights import weights_of
from capacity.formula import scaled, sourced, total
from capacity.formulas import schedule
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.pricing import Pricer
    from capacity.estimators.stacks import Stack
    from capacity.estimators.training_terms import Terms
    from capacity.estimators.training_weights import Weights
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

__all__ = ["Network", "assemble", "evaluation_time", "forward_time", "step_time"]

# Share of the last stage's head that no other stage's work hides.
HEAD_IMBALANCE = 0.75
STEP_OVERHEAD_S = 2e-3
# Launching the collectives of a full node of tensor parallelism takes the host this much longer.
TENSOR_LAUNCHES = 0.3


def step_time(
    model: ModelSpec,
    table: tuple[Op, ...],
    weights: Weights,
    workload: Workload,
    plan: Plan,
    network: Network,
    pricer: Pricer,
    stack: Stack,
    micro_batches: float,
) -> dict[str, float]:
    """Seconds of one optimizer step by part; the parts add up to the step.

    table: forward ops of one micro-batch of the whole model.
    """
    terms = price_terms(
        model, table, weights, workload, plan, network, pricer,
        sourced(micro_batches, "micro-batches"), fused=stack.fused_attention > 0.0,
    )  # fmt: skip
    parts = assemble(terms, stack, pricer.profile.host_layer_s)
    # Differences of equal times leave dust where nothing is exposed.
    least = 1e-13 * sum(parts.values())
    return {name: ops.where(value > least, value, 0.0) for name, value in parts.items() if ops.anywhere(value > least)}


def forward_time(
    model: ModelSpec, workload: Workload, plan: Plan, network: Network, pricer: Pricer, stack: Stack
) -> float:
    """Seconds of a forward pass of a model over one micro-batch, on the mean stage."""
    table = lower(model, feeding.learn(model, plan.micro_batch, workload.seq_len))
    plan = replace(plan, recompute="none")
    terms = price_terms(model, table, weights_of(table), workload, plan, network, pricer, 1.0)
    pace = sourced(stack.sustained, "sustained share of the kernels' pace", stack.source)
    blocks = _parts(terms, stack, pace, "{}_forward", scaled(terms.launches, stack.launches))
    # A forward pass is one of the head's three products, one of four trips to experts, and hides its own gathering.
    blocks["tensor-parallel traffic"] = scaled(terms.tensor, stack.exposed_forward)
    blocks["expert routing"] = scaled(terms.routing, 0.5 * (1.0 - stack.routing_overlap))
    blocks["head"] = scaled(terms.head, 1.0 / (3.0 * pace * plan.pp))
    together = total(blocks)
    return total(
        {
            "work": together,
            "sharded weights traffic": schedule.exposed_time_s(together, terms.gather, stack.overlap),
        }
    )


def evaluation_time(
    model: ModelSpec, workload: Workload, plan: Plan, network: Network, pricer: Pricer, stack: Stack
) -> float:
    """Seconds of one evaluation: its tokens forward through the pipeline, dealt as those of a step."""
    sequences = ops.ceil(workload.eval_tokens / workload.seq_len)
    rounds = schedule.micro_batches(sequences, plan.dp, plan.micro_batch)
    each = forward_time(model, workload, plan, network, pricer, stack)
    return schedule.pipeline_time_s(rounds, each, each, sourced(plan.pp, "pipeline stages"), plan.interleave)


def assemble(terms: Terms, stack: Stack, host_layer_s: float) -> dict[str, float]:
    """A step of priced work under a stack; columns of runs are assembled as one run is."""
    pace = sourced(stack.sustained, "sustained share of the kernels' pace", stack.source)
    blocks = _block_parts(terms, stack, pace, host_layer_s)
    head = total(
        {
            "products": scaled(terms.head, 1.0 / pace),
            "loss": terms.loss,
            "traffic": scaled(terms.head_tensor, stack.exposed_backward),
        }
    )
    hop = scaled(terms.hop, stack.exposed_hops)
    # The fullest stage has whole layers; the last one has room for the head where it has fewer. Where it shares its device
    # with the first stage, half of the micro-batches meet the head there.
    work = total(blocks)
    room = scaled(work, terms.spare / terms.layers)
    late = scaled(ops.maximum(head - room, 0.0), 1.0 / (1.0 + terms.paired))
    slow_head = scaled(late, HEAD_IMBALANCE + (1.0 - HEAD_IMBALANCE) / terms.stages)
    mean = total(blocks | {"head": scaled(head, 1.0 / terms.stages), "hops": hop})
    uneven = scaled(work, terms.fullest - 1.0)
    slowest = total(blocks | {"uneven": uneven, "head": slow_head, "hops": hop})
    rounds = terms.micro_batches
    step = schedule.pipeline_time_s(rounds, slowest, mean, sourced(terms.stages, "pipeline stages"), terms.chunks)
    parts = {name: scaled(value, rounds) for name, value in blocks.items()}
    parts["uneven stages"] = scaled(uneven, rounds)
    parts["head and loss"] = scaled(slow_head, rounds)
    parts["stage hand-over"] = scaled(hop, rounds)
    # The bubble is made of mean stages, the rest of slowest ones: let the parts add up exactly.
    parts["pipeline bubble"] = step - sum(parts.values())
    parts |= _data_parallel(terms, stack, slowest)
    so_far = sum(parts.values())
    # Replicas wait for the slowest of them once a step; those of one node share its clock, its cooling and its host.
    apart = ops.maximum(ops.minimum(terms.data_parallel, terms.nodes), 1.0)
    parts["stragglers"] = scaled(so_far, stack.straggler * ops.log(apart) / ops.log(2.0))
    return parts


def _parts(terms: Terms, stack: Stack, pace: float, which: str, launches: float) -> dict[str, float]:
    """Work of a stage's blocks on one micro-batch by kind; which: "{}_forward", "{}_backward" or "rebuilt_{}" of the terms."""
    work = {kind: getattr(terms, which.format(kind)) for kind in KINDS}
    return {
        "GEMM": scaled(work["gemm"], 1.0 / pace),
        "expert products": scaled(work["expert"], stack.grouped / pace),
        "casts": scaled(work["cast"], stack.cast),
        "attention": total(
            {"fused": scaled(work["attention"], 1.0 / (pace * stack.attention)), "scores": work["scores"]}
        ),
        "element-wise": total({"traffic": scaled(work["elementwise"], stack.elementwise), "launches": launches}),
    }


def _block_parts(terms: Terms, stack: Stack, pace: float, host_layer_s: float) -> dict[str, float]:
    """Forward, backward and recomputation of a stage's blocks for one micro-batch, by part."""
    launches = scaled(terms.launches, stack.launches)
    forward = _parts(terms, stack, pace, "{}_forward", launches)
    backward = _parts(terms, stack, pace, "{}_backward", launches)
    parts = {name: total({"forward": forward[name], "backward": backward[name]}) for name in forward}
    tensor = scaled(terms.tensor, stack.exposed_forward)
    parts["expert routing"] = _routing(terms, stack, total(parts))
    parts["context-parallel traffic"] = schedule.exposed_time_s(
        ops.maximum(parts["attention"], 1e-9), scaled(terms.context, 3.0), stack.overlap
    )
    parts["tensor-parallel traffic"] = total(
        {
            "forward": tensor,
            "backward": scaled(terms.tensor, stack.exposed_backward),
            "inputs again": scaled(terms.regather, stack.exposed_backward),
        }
    )
    # Full: the whole forward pass once more. Selective: the attention core, and what the stack's policy adds.
    whole = total(forward | {"traffic": tensor, "routing": scaled(parts["expert routing"], 0.5)})
    chosen = total({"attention": forward["attention"], "policy": scaled(total(forward), stack.selective)})
    named = total(_parts(terms, stack, pace, "rebuilt_{}", 0.0))
    parts["recomputation"] = scaled(whole, terms.full) + scaled(chosen, terms.selective) + named
    device = total(parts)
    passes = 3.0 + terms.full
    layers = terms.layers + terms.expert_layers * stack.expert_launches
    busy = 1.0 + TENSOR_LAUNCHES * (terms.tensor_parallel - 1.0) / 7.0
    host = scaled(host_layer_s, layers * passes * busy * stack.host)
    parts["waiting for launches"] = schedule.launch_wait_s(device, host)
    return parts


def _routing(terms: Terms, stack: Stack, work_s: float) -> float:
    """Trips to experts that work does not hide.

    Micro-batches that cross (DualPipe) hide each other's, and what is hidden takes multiprocessors from products.
    """
    hidden = scaled(terms.routing, stack.overlap)
    crossing = schedule.exposed_time_s(ops.maximum(work_s, 1e-9), terms.routing, stack.overlap)
    crossing = crossing + scaled(hidden, stack.contention)
    return ops.where(terms.paired > 0.0, crossing, scaled(terms.routing, 1.0 - stack.routing_overlap))


def _data_parallel(terms: Terms, stack: Stack, micro_batch_s: float) -> dict[str, float]:
    """Gathering sharded weights, accumulating and reducing gradients, the optimizer's update."""
    rounds = terms.micro_batches
    traffic = scaled(terms.gather, terms.gathers)
    exposed = schedule.exposed_time_s(micro_batch_s, traffic, stack.overlap)
    # Traffic that is hidden takes multiprocessors, bandwidth and power from the products it hides behind.
    slowed = scaled(traffic - exposed, stack.contention)
    # Reduction starts during the last backward pass; half of that pass can hide it.
    reduced = schedule.exposed_time_s(0.5 * micro_batch_s, terms.reduce, stack.reduce_overlap)
    again = ops.where(rounds > 1.0, rounds, 0.0)
    return {
        "sharded weights traffic": scaled(exposed + slowed, rounds),
        "host traffic": scaled(schedule.exposed_time_s(micro_batch_s, terms.streamed, stack.overlap), rounds),
        "optimizer on the host": terms.offloaded,
        "gradient reduction": reduced,
        "gradient accumulation": scaled(terms.accumulated, stack.accumulation_bytes * again),
        "optimizer": total(
            {
                "update": scaled(terms.updated, stack.optimizer_bytes),
                "products": terms.orthogonalised,
                "overhead": sourced(STEP_OVERHEAD_S, "step overhead"),
            }
        ),
    }
