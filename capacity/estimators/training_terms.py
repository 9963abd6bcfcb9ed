"""What a training step has to do, in seconds at the pace of the kernel laws, before any software is known.

`training_time` makes a step of these terms and a software stack. Every term is a float, or a column of many runs.
"""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.pricing import label
from capacity.estimators.sharding import shard_training
from capacity.estimators.training_blocks import KINDS, block_work
from capacity.estimators.training_traffic import block_traffic, data_parallel, experts_of, hop_s, local_of, streamed_s
from capacity.formula import scaled, total
from capacity.formulas import schedule
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.network import Network
    from capacity.estimators.pricing import Pricer
    from capacity.estimators.training_weights import Weights
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# Bytes a logit for an fp32 loss: copies, softmax, gradient.
LOSS_BYTES = 20.0
# By how much schedules that fill gaps with weights' gradients cut the bubble of 1F1B: forward and both halves of the
# backward pass take alike, and one of the three fills it.
BUBBLE_CUT = {"zero-bubble": 3.0, "dualpipe": 3.0}


class Terms(Record):
    """Seconds of one micro-batch on the mean stage, and of one step; flags and counts are plain numbers.

    gemm_*, expert_*, cast_*, attention_*, scores_*, elementwise_*: forward and backward work at kernel pace; launches:
    of small kernels in one pass. tensor: tensor-parallel traffic of one pass; regather: of inputs gathered once more;
    routing: all four trips of tokens to experts; context: keys and values of other ranks, forward. layers,
    expert_layers: on the stage. head, loss, head_tensor: of the whole head. hop: to the next stage and back.
    streamed: to and from the host for a micro-batch, offloaded: the host's update. gather: one gathering of sharded
    weights, of a micro-batch, gathers: how many. reduce: gradients, once a step. accumulated, updated:
    seconds to move one byte for each local weight; orthogonalised: an optimizer's own products. rebuilt_*: forward work of
    the parts that the plan names to rebuild. fullest: layers of the fullest stage over the mean stage's; spare: layers the
    last stage holds fewer than that. paired: whether first and last stages share a device and micro-batches of both
    directions hide each other's trips to experts (DualPipe).
    """

    gemm_forward: float
    gemm_backward: float
    expert_forward: float
    expert_backward: float
    cast_forward: float
    cast_backward: float
    attention_forward: float
    attention_backward: float
    scores_forward: float
    scores_backward: float
    elementwise_forward: float
    elementwise_backward: float
    launches: float
    tensor: float
    regather: float
    routing: float
    context: float
    layers: float
    expert_layers: float
    head: float
    loss: float
    head_tensor: float
    hop: float
    gather: float
    gathers: float
    reduce: float
    accumulated: float
    updated: float
    orthogonalised: float
    micro_batches: float
    stages: float
    chunks: float
    tensor_parallel: float
    data_parallel: float
    nodes: float
    full: float
    selective: float
    streamed: float
    offloaded: float
    rebuilt_gemm: float
    rebuilt_expert: float
    rebuilt_cast: float
    rebuilt_attention: float
    rebuilt_scores: float
    rebuilt_elementwise: float
    fullest: float
    spare: float
    paired: float


def price_terms(
    model: ModelSpec,
    table: tuple[Op, ...],
    weights: Weights,
    workload: Workload,
    plan: Plan,
    network: Network,
    pricer: Pricer,
    micro_batches: float,
    *,
    fused: bool = True,
) -> Terms:
    """The terms of one step. table: forward ops of one micro-batch of the whole model; fused: attention keeps no scores."""
    blocks = block_work(table, workload, plan, pricer, fused=fused)
    chosen = tuple(op for op in table if plan.rebuilt and rebuilds(op, plan))
    again = block_work(chosen, workload, plan, pricer, fused=fused)
    blocks |= {f"rebuilt_{kind}": again[f"{kind}_forward"] for kind in KINDS}
    traffic = block_traffic(model, workload, plan, network)
    share = 1.0 / plan.pp
    layers = feeding.layers(model)
    count = sum(block.count for block in layers)
    local = local_of(weights, plan, model.hidden)
    return Terms(
        **{name: scaled(value, share) for name, value in (blocks | traffic).items()},
        layers=count / plan.pp,
        expert_layers=sum(block.count for block in layers if experts_of(block)) / plan.pp,
        **_head(table, workload, plan, network, pricer),
        hop=hop_s(model, workload, plan, network),
        **data_parallel(local, workload, plan, network, pricer, micro_batches),
        micro_batches=micro_batches,
        stages=plan.pp,
        chunks=plan.interleave * BUBBLE_CUT.get(plan.schedule, 1.0),
        tensor_parallel=plan.tp,
        data_parallel=plan.ranks,
        nodes=ops.maximum(plan.devices / network.devices_per_node, 1.0),
        streamed=streamed_s(model, local, workload, plan, network),
        full=plan.recompute_share if plan.recompute == "full" else 0.0,
        selective=float(plan.recompute == "selective" and not plan.rebuilt),
        fullest=schedule.fullest_stage_layers(count, plan.pp, plan.interleave) * plan.pp / count,
        spare=schedule.spare_layers(count, plan.pp, plan.interleave),
        paired=float(plan.schedule == "dualpipe"),
    )


def rebuilds(op: Op, plan: Plan) -> bool:
    """Whether an op of the forward pass is computed once more in the backward pass; the head never is."""
    if op.part in ("head", "embedding") or plan.recompute == "none":
        return False
    if plan.recompute == "full":
        return True
    return bool(_parts(op) & set(plan.rebuilt or ("attention",)))


def _parts(op: Op) -> set[str]:
    """The parts of a block, as `Plan.rebuilt` names them, that an op belongs to."""
    found = {
        "attention": op.kind == "attention",
        "norms": op.part == "norm",
        "activations": op.kind == "elementwise" and op.part in ("ffn", "expert"),
        "latent": op.kind == "gemm" and op.name.endswith((".q_b_proj", ".kv_b_proj")),
        "ffn": op.part == "ffn",
        "experts": op.part in ("expert", "shared_expert"),
    }
    return {name for name, holds in found.items() if holds}


def _head(table: tuple[Op, ...], workload: Workload, plan: Plan, network: Network, pricer: Pricer) -> dict[str, float]:
    """The output head: three products, the loss over its logits, and its tensor-parallel traffic."""
    products: dict[str, float] = {}
    losses: dict[str, float] = {}
    reduced: dict[str, float] = {}
    width = workload.precision.activation_bits / 8.0
    for whole in table:
        if whole.part != "head":
            continue
        op = shard_training(whole, plan)
        name = label(op, products)
        terms = {"forward": pricer.gemm_s(op, op.m, op.n, op.k), "inputs": pricer.gemm_s(op, op.m, op.k, op.n)}
        if workload.mode != "lora":
            terms["weights"] = pricer.gemm_s(op, op.k, op.n, op.m)
        products[name] = total(terms)
        losses[name] = pricer.memory_s(op.m * op.n * LOSS_BYTES, 10.0)
        if ops.anywhere(plan.tp > 1.0):
            reduced[name] = scaled(network.ring_s(op.m * op.k * width, plan.tp, 1.0, 2.0), 1.5)
    return {"head": total(products), "loss": total(losses), "head_tensor": total(reduced)}
