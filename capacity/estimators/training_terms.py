"""What a training step has to do, in seconds at the pace of the kernel laws, before any software is known.

`training_time` makes a step of these terms and a software stack. Every term is a float, or a column of many runs.
"""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.pricing import label, peak_flop_per_s
from capacity.estimators.sharding import shard_training
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_weights import OPTIMIZER_STATE_BYTES
from capacity.formula import scaled, sourced, total
from capacity.formulas import collectives, flops, memory, schedule, traffic
from capacity.record import Record, replace
from capacity.spec.model import Attention, Experts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.network import Network
    from capacity.estimators.pricing import Pricer
    from capacity.estimators.training_weights import Weights
    from capacity.spec.model import Block, ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# A fused attention backward pass recomputes the scores: 5 products for the forward pass's 2.
ATTENTION_BACKWARD = 2.5 * 1.15
# Element-wise work of the backward pass against the forward pass's, in bytes.
ELEMENTWISE_BACKWARD = 1.9
# Kernels of a block that are neither products nor attention, in one pass.
SMALL_KERNELS = 25.0
# Attention that writes its scores out: bytes an element of scores for scaling, mask, softmax and dropout, each way.
SCORE_BYTES_FORWARD, SCORE_BYTES_BACKWARD = 7.0, 12.0
# Batched products whose inner side is no multiple of 8 leave the tensor cores' fast path.
UNALIGNED_SHARE = 0.12
# Formats whose operands are cast from 16 bits.
NARROW = ("fp8", "fp4", "int8")
# Rows a grouped product is padded by for each expert: half a tile.
EXPERT_PADDING = 64.0
# Bytes moved to cast an operand of a narrow product: read in 16 bits, written narrow, and transposed for the backward pass.
CAST_BYTES = 4.0
# Bytes a logit for an fp32 loss: copies, softmax, gradient.
LOSS_BYTES = 20.0
# A device's share of its host: PCIe (or better) each way, memory of a socket; what a host's Adam moves for a weight.
HOST_LINK_BYTES_PER_S, HOST_MEMORY_BYTES_PER_S, HOST_OPTIMIZER_BYTES = 2.5e10, 2e10, 28.0
# By how much schedules that fill gaps with weights' gradients cut the bubble of 1F1B: forward and both halves of the
# backward pass take alike, and one of the three fills it.
BUBBLE_CUT = {"zero-bubble": 3.0, "dualpipe": 3.0}
# Experts with biases leave the fused path: biases are added, values clamped and gated in passes of their own (GPT-OSS).
UNFUSED_EXPERTS = 3.0
# Kinds of kernels, each with a pace of its own.
KINDS = ("gemm", "expert", "cast", "attention", "scores", "elementwise")
# Starting a point-to-point transfer: two communication kernels and their synchronisation.
HOP_S = 1.5e-5


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
    blocks = _blocks(table, workload, plan, pricer, fused=fused)
    chosen = tuple(op for op in table if plan.rebuilt and rebuilds(op, plan))
    again = _blocks(chosen, workload, plan, pricer, fused=fused)
    blocks |= {f"rebuilt_{kind}": again[f"{kind}_forward"] for kind in KINDS}
    traffic = _traffic(model, workload, plan, network)
    share = 1.0 / plan.pp
    layers = feeding.layers(model)
    count = sum(block.count for block in layers)
    local = local_of(weights, plan, model.hidden)
    return Terms(
        **{name: scaled(value, share) for name, value in (blocks | traffic).items()},
        layers=count / plan.pp,
        expert_layers=sum(block.count for block in layers if _experts(block)) / plan.pp,
        **_head(table, workload, plan, network, pricer),
        hop=_hop(model, workload, plan, network),
        **_data(local, workload, plan, network, pricer, micro_batches),
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


def _experts(block: Block) -> Experts | None:
    return next((layer for layer in block.sublayers if isinstance(layer, Experts)), None)


def _blocks(table: tuple[Op, ...], workload: Workload, plan: Plan, pricer: Pricer, *, fused: bool) -> dict[str, float]:
    """Work of all blocks by kind, forward and backward."""
    frozen = workload.mode == "lora"
    narrow, packed = pricer.dtype in NARROW, pricer.group_bytes("")
    width = workload.precision.activation_bits / 8.0
    forward: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    backward: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    launches: dict[str, float] = {}
    biased = any(op.part == "expert" and op.kind == "gemm" and op.weight_elements > op.n * op.k for op in table)
    for whole in table:
        if whole.part in ("embedding", "head") or not ops.anywhere(whole.m != 0.0):
            continue
        op = shard_training(whole, plan)
        count = whole.count
        if op.kind == "gemm":
            # An expert alone on its device is a product like any other.
            routed = op.copies != 1.0
            rows = ops.where(routed, op.m + EXPERT_PADDING * op.copies, op.m)
            one_way = scaled(pricer.gemm_s(op, rows, op.n, op.k), count)
            inputs = pricer.gemm_s(op, rows, op.k, op.n)
            grads = {"inputs": inputs}
            if not frozen:
                deep = ops.where(routed, rows / op.copies, rows)
                grads["weights"] = pricer.gemm_s(op, op.k * op.copies, op.n, deep)
            back = scaled(total(grads), count)
            for kind, here in (("gemm", op.copies == 1.0), ("expert", routed)):
                if ops.anywhere(here):
                    name = label(op, forward[kind])
                    forward[kind][name] = ops.where(here, one_way, 0.0)
                    backward[kind][name] = ops.where(here, back, 0.0)
            if packed < width:
                # A quantised base: packed weights are read, unpacked ones written and read, in each pass.
                unpack = pricer.memory_s(op.copies * op.n * op.k * (packed + 2.0 * width), 1.0)
                forward["cast"][name] = scaled(unpack, count)
                backward["cast"][name] = scaled(unpack, count)
            elif narrow and op.group not in pricer.wide:
                cast = pricer.memory_s(op.m * op.k * CAST_BYTES, 0.0)
                forward["cast"][name] = scaled(cast, count)
                backward["cast"][name] = scaled(pricer.memory_s(op.m * op.n * CAST_BYTES, 0.0), count)
        elif op.kind == "attention" and not fused and ops.anywhere(op.key_size == op.value_size):
            _unfused(op, count, pricer, forward, backward)
        elif op.kind in ("attention", "scan"):
            name = label(op, forward["attention"])
            each = pricer.attention_s(op) if op.kind == "attention" else pricer.scan_s(op)
            forward["attention"][name] = scaled(each, count)
            backward["attention"][name] = scaled(each, count * ATTENTION_BACKWARD)
        elif op.kind in ("elementwise", "conv"):
            name = label(op, forward["elementwise"])
            effort = UNFUSED_EXPERTS if biased and op.part == "expert" else 1.0
            each = pricer.memory_s(op.elements * width, 0.0, effort)
            forward["elementwise"][name] = scaled(each, count)
            backward["elementwise"][name] = scaled(each, count * ELEMENTWISE_BACKWARD)
            launches[name] = scaled(pricer.memory_s(0.0, SMALL_KERNELS / 3.0), count)
    return (
        {f"{kind}_forward": total(terms) for kind, terms in forward.items()}
        | {f"{kind}_backward": total(terms) for kind, terms in backward.items()}
        | {"launches": total(launches)}
    )


def _unfused(
    op: Op, count: float, pricer: Pricer, forward: dict[str, dict[str, float]], backward: dict[str, dict[str, float]]
) -> None:
    """Attention as two batched products and passes over the scores between them; a causal mask saves nothing."""
    matrices = op.sequences * op.heads
    rows = matrices * op.queries
    batched = replace(op, copies=matrices, group="")
    each = total(
        {
            "scores": pricer.gemm_s(batched, rows, op.keys, op.key_size),
            "values": pricer.gemm_s(batched, rows, op.value_size, op.keys),
        }
    )
    if ops.anywhere(op.key_size % 8.0 != 0.0):
        each = ops.where(op.key_size % 8.0 != 0.0, scaled(each, 1.0 / UNALIGNED_SHARE), each)
    name = label(op, forward["gemm"])
    forward["gemm"][name] = scaled(each, count)
    backward["gemm"][name] = scaled(each, 2.0 * count)
    elements = rows * op.keys
    forward["scores"][name] = scaled(pricer.memory_s(elements * SCORE_BYTES_FORWARD, 4.0), count)
    backward["scores"][name] = scaled(pricer.memory_s(elements * SCORE_BYTES_BACKWARD, 4.0), count)


def _traffic(model: ModelSpec, workload: Workload, plan: Plan, network: Network) -> dict[str, float]:
    """Traffic of all blocks for one micro-batch: tensor-, expert- and context-parallel."""
    tokens = plan.micro_batch * workload.seq_len / plan.cp
    width = workload.precision.activation_bits / 8.0
    etp = plan.expert_tp
    narrow = workload.precision.compute in NARROW
    tensor: dict[str, float] = {}
    regather: dict[str, float] = {}
    routing: dict[str, float] = {}
    context: dict[str, float] = {}
    for index, block in enumerate(feeding.layers(model)):
        message = tokens * block.hidden * width
        name = f"blocks {index}"
        if ops.anywhere(plan.tp > 1.0):
            # With sequence parallelism each is a gathering and a scattering reduction.
            each = (
                network.ring_s(message, plan.tp, 1.0, 2.0)
                if plan.sequence_parallel
                else network.all_reduce_s(message, plan.tp, 1.0)
            )
            whole = ops.where(etp == 1.0, 0.0, 1.0)
            reductions = sum(whole if isinstance(layer, Experts) else 1.0 for layer in block.sublayers)
            tensor[name] = scaled(each, block.count * reductions)
            if plan.sequence_parallel:
                regather[name] = scaled(network.ring_s(message, plan.tp, 1.0, 1.0), block.count * reductions)
        experts = _experts(block)
        if experts is not None and ops.anywhere(plan.ep > 1.0):
            each = network.routing_s(message / plan.tp, experts.active, plan.ep, etp, experts.reach)
            # Out and back, in both passes; tokens that are multiplied in 8 bits travel to the experts so.
            routing[name] = scaled(each, block.count * (3.5 if narrow else 4.0))
        if ops.anywhere(plan.cp > 1.0):
            for layer in block.sublayers:
                if isinstance(layer, Attention):
                    context[f"{name} {len(context)}"] = scaled(
                        _exchange(layer, tokens, width, plan, network), block.count
                    )
    return {"tensor": total(tensor), "regather": total(regather), "routing": total(routing), "context": total(context)}


def _exchange(layer: Attention, tokens: float, width: float, plan: Plan, network: Network) -> float:
    """Keys and values of the other context-parallel ranks, or heads for tokens (Ulysses), of one layer and pass."""
    heads = ops.maximum(layer.kv_heads / plan.tp, 1.0)
    keys = tokens * heads * (layer.key_size + layer.value_size) * width
    if plan.cp_kind == "ulysses":
        own = layer.heads / plan.tp * (layer.key_size + layer.value_size) * tokens * width
        return network.all_to_all_s(keys + own, plan.cp, plan.tp)
    return network.ring_s(keys * plan.cp, plan.cp, plan.tp, 1.0)


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


def _hop(model: ModelSpec, workload: Workload, plan: Plan, network: Network) -> float:
    """Handing activations to the next stage and gradients back, for one micro-batch."""
    if not ops.anywhere(plan.pp > 1.0):
        return 0.0
    tokens = plan.micro_batch * workload.seq_len / plan.cp
    message = tokens * model.hidden * workload.precision.activation_bits / 8.0 / plan.tp
    far = plan.devices > network.devices_per_node
    bandwidth = ops.where(far, network.inter_bytes_per_s, network.intra_bytes_per_s)
    latency = ops.where(far, network.inter_latency_s, network.intra_latency_s) + HOP_S
    hop = scaled(collectives.point_to_point_time_s(message, bandwidth, latency), 2.0 * plan.interleave)
    return ops.where(plan.pp > 1.0, hop, 0.0)


def streamed_s(model: ModelSpec, local: Local, workload: Workload, plan: Plan, network: Network) -> float:
    """Moving parameters or saved activations between host, or its drives, and device for one micro-batch."""
    if not plan.offload:
        return 0.0
    moved = 0.0
    if "parameters" in plan.offload:
        # Once for each pass; ZeRO-3 brings a shard each and gathers the rest.
        moved += 2.0 * ops.where(plan.zero >= 3, local.sharded, local.all) * workload.precision.weight_bits / 8.0
    if "activations" in plan.offload:
        saved, _ = block_activations(model, workload, plan)
        moved += 2.0 * saved / plan.pp
    pace = HOST_LINK_BYTES_PER_S
    if plan.offload_to == "nvme":
        pace = ops.minimum(pace, sourced(network.nvme_bytes_per_s, "a device's share of its node's drives"))
    return traffic.loading_time_s(moved, pace)


class Local(Record):
    """Parameters of one device before ZeRO: dense and routed; what ZeRO leaves of them; the smaller side of a matrix."""

    dense: float
    experts: float
    sharded: float
    width: float

    @property
    def all(self) -> float:
        """Dense and routed."""
        return self.dense + self.experts


def local_of(weights: Weights, plan: Plan, width: float) -> Local:
    """Parameters of one device of a layout; width: of the model's stream."""
    etp = plan.expert_tp
    dense = (weights.dense / plan.tp + weights.vectors + (weights.embedding + weights.head) / plan.tp) / plan.pp
    experts = weights.experts / (etp * plan.ep * plan.pp)
    # Experts are dealt over ep already: only the ranks that hold the same ones share their states.
    copies = ops.maximum(plan.shards * plan.tp / (plan.ep * etp), 1.0)
    return Local(dense=dense, experts=experts, sharded=dense / plan.shards + experts / copies, width=width)


def _update_bytes(workload: Workload) -> float:
    """Traffic of an optimizer's update for each weight: states and master copy read and written, gradient, new weight."""
    return 2.0 * (4.0 + OPTIMIZER_STATE_BYTES[workload.optimizer]) + 4.0 + 2.0


def _data(
    local: Local, workload: Workload, plan: Plan, network: Network, pricer: Pricer, micro_batches: float
) -> dict[str, float]:
    """Gathering sharded weights, reducing and accumulating gradients, updating weights, here or on the host."""
    trained = 0.0 if workload.mode == "lora" else 1.0
    width = workload.precision.weight_bits / 8.0
    gathered = memory.weight_bytes(sourced(local.all, "weights of one device before ZeRO"), width)
    gradients = memory.gradient_bytes(sourced(local.dense, "dense weights of one device"), 2.0)
    etp = plan.expert_tp
    found = {"gather": 0.0, "gathers": 0.0, "reduce": 0.0, "offloaded": 0.0}
    sharded = (plan.zero >= 3) & (plan.ranks > 1.0)
    whole = (plan.zero < 3) & (plan.ranks > 1.0)
    if ops.anywhere(sharded):
        found["gather"] = ops.where(sharded, network.ring_s(gathered, plan.shards, plan.tp, 1.0), 0.0)
        # A pipeline gathers its stage once a step and reduces its gradients once (torchtitan's default).
        once = 1.0 / micro_batches
        found["gathers"] = ops.where(plan.pp > 1.0, (1.0 + trained) * once, 3.0 if trained else 2.0)
        if ops.anywhere(plan.replicas > 1.0):
            across = network.all_reduce_s(gradients / plan.shards, plan.replicas, plan.tp * plan.shards)
            found["reduce"] = ops.where(sharded, across, 0.0)
    if trained and ops.anywhere(whole):
        copies = ops.maximum(plan.ranks * plan.tp / (plan.ep * etp), 1.0)
        routed = memory.gradient_bytes(sourced(local.experts, "expert weights of one device"), 2.0)
        # Sharded states take their part of the sum and give their part of the weights: two passes of a ring.
        reduced = total(
            {
                name: ops.where(
                    plan.zero >= 1,
                    network.ring_s(message, ranks, stride, 2.0),
                    network.all_reduce_s(message, ranks, stride),
                )
                for name, message, ranks, stride in (
                    ("dense", gradients, plan.ranks, plan.tp),
                    ("experts", routed, copies, plan.ep * etp),
                )
            }
        )
        found["reduce"] = ops.where(whole, reduced, found["reduce"])
    kept = ops.where(plan.zero >= 2, local.sharded, local.all)
    updated = trained * ops.where(plan.zero >= 1, local.sharded, local.all)
    found["accumulated"] = pricer.memory_s(trained * kept, 0.0)
    moves = _update_bytes(workload) / _update_bytes(replace(workload, optimizer="adamw"))
    found["updated"] = pricer.memory_s(0.0 if "optimizer" in plan.offload else updated * moves, 0.0)
    found["orthogonalised"] = 0.0
    if workload.optimizer in ("muon", "shampoo"):
        peak, _ = peak_flop_per_s(pricer.device, "bf16")
        share = pricer.profile.gemm_shares("bf16").share_of_peak
        found["orthogonalised"] = flops.newton_schulz_flop(updated, local.width) / (peak * share)
    if "optimizer" in plan.offload:
        # Gradients go down and new weights come up; the host reads and writes states, gradients and weights.
        swapped = 0.0
        if plan.offload_to == "nvme":
            states = OPTIMIZER_STATE_BYTES[workload.optimizer] + 4.0
            swapped = traffic.swapped_bytes(updated, states, 4.0, width if "parameters" in plan.offload else 0.0)
        found["offloaded"] = schedule.host_update_time_s(
            updated * 2.0 * 2.0,
            HOST_LINK_BYTES_PER_S,
            updated * HOST_OPTIMIZER_BYTES,
            HOST_MEMORY_BYTES_PER_S,
            swapped,
            sourced(network.nvme_bytes_per_s, "a device's share of its node's drives"),
        )
    return found
