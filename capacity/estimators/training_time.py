"""How long one training step takes, part by part."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.pricing import label
from capacity.estimators.sharding import shard
from capacity.formula import scaled, sourced, total
from capacity.formulas import collectives, memory, schedule, traffic
from capacity.record import Record
from capacity.spec.model import Experts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.pricing import Pricer
    from capacity.estimators.stacks import Stack
    from capacity.estimators.training_memory import Weights
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster
    from capacity.spec.model import Block, ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# A fused attention backward pass recomputes the scores: 5 products for the forward pass's 2.
ATTENTION_BACKWARD = 2.5 * 1.15
# Element-wise work of the backward pass against the forward pass's, in bytes.
ELEMENTWISE_BACKWARD = 1.9
# Kernels of a block that are neither products nor attention, in one pass of an unfused stack.
SMALL_KERNELS = 25.0
# Share of the last stage's head that pipelines by hand hide in the schedule of the other stages.
HEAD_IMBALANCE = 0.75
STEP_OVERHEAD_S = 2e-3


class Network(Record):
    """What a device can send: inside its node and beyond, after the shares that collectives reach."""

    devices_per_node: float
    intra_bytes_per_s: float
    intra_latency_s: float
    inter_bytes_per_s: float
    inter_latency_s: float
    base_latency_s: float

    @classmethod
    def of(cls, cluster: Cluster, profile: Profile) -> Network:
        """The network of a cluster under a profile; a device without links has only its host's adapter."""
        inter = cluster.inter
        intra = cluster.device.link or inter
        if intra is None:
            return cls(float(cluster.devices_per_node), 16e9, 1e-5, 3e9, 2e-5, profile.link_base_latency_s)
        inter = inter or intra
        return cls(
            float(cluster.devices_per_node),
            intra.bytes_per_s * profile.link_share,
            intra.latency_s,
            inter.bytes_per_s * profile.inter_share,
            inter.latency_s,
            profile.link_base_latency_s,
        )

    def pace(self, ranks: float, stride: float) -> tuple[float, float]:
        """Bandwidth and step latency of a group of `ranks` devices, `stride` apart."""
        in_node = ops.maximum(self.devices_per_node / stride, 1.0)
        bandwidth = collectives.group_bytes_per_s(ranks, in_node, self.intra_bytes_per_s, self.inter_bytes_per_s)
        inside = ranks <= in_node
        return bandwidth, self.intra_latency_s if inside else self.inter_latency_s

    def ring_s(self, message_bytes: float, ranks: float, stride: float, passes: float) -> float:
        """A ring collective of a group."""
        bandwidth, latency = self.pace(ranks, stride)
        return collectives.ring_time_s(message_bytes, ranks, passes, bandwidth, latency, self.base_latency_s)

    def routing_s(self, token_bytes: float, active: float, ranks: float, stride: float) -> float:
        """Sending every token to its `active` experts over `ranks` devices, `stride` apart.

        Between nodes a token travels once to each node that holds some of its experts, and is handed on inside.
        """
        in_node = ops.maximum(self.devices_per_node / stride, 1.0)
        if ranks <= in_node:
            return collectives.all_to_all_time_s(
                token_bytes * active, ranks, self.intra_bytes_per_s, self.intra_latency_s, self.base_latency_s
            )
        nodes = ranks / in_node
        visited = traffic.experts_touched(nodes, 1.0, active)
        return collectives.all_to_all_time_s(
            token_bytes * visited, nodes, self.inter_bytes_per_s, self.inter_latency_s, self.base_latency_s
        )


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
    blocks = _block_parts(model, table, workload, plan, network, pricer, stack)
    stage = {name: scaled(value, 1.0 / plan.pp) for name, value in blocks.items()}
    head = _head_s(table, plan, pricer)
    extra_head = scaled(head, 1.0 if plan.pp == 1.0 else HEAD_IMBALANCE + (1.0 - HEAD_IMBALANCE) / plan.pp)
    hop = _hop_s(model, workload, plan, network)
    mean = total(stage | {"head": scaled(head, 1.0 / plan.pp), "hops": hop})
    slowest = total(stage | {"head": extra_head, "hops": hop})
    step = schedule.pipeline_time_s(
        sourced(micro_batches, "micro-batches"), slowest, mean, sourced(plan.pp, "pipeline stages"), plan.interleave
    )
    parts = {name: scaled(value, micro_batches) for name, value in stage.items()}
    parts["head and loss"] = scaled(extra_head, micro_batches)
    if plan.pp > 1.0:
        parts["stage hand-over"] = scaled(hop, micro_batches)
        parts["pipeline bubble"] = scaled(schedule.bubble_fraction(micro_batches, plan.pp, plan.interleave), step)
        # The bubble is made of mean stages, the rest of slowest ones: let the parts add up exactly.
        parts["pipeline bubble"] = step - sum(v for k, v in parts.items() if k != "pipeline bubble")
    parts |= _data_parallel(weights, workload, plan, network, pricer, stack, micro_batches, slowest)
    nodes = ops.maximum(plan.devices / network.devices_per_node, 1.0)
    so_far = sum(parts.values())
    parts["stragglers"] = scaled(so_far, stack.straggler * ops.log(nodes) / ops.log(2.0))
    return {name: value for name, value in parts.items() if value > 0.0}


def _block_parts(
    model: ModelSpec,
    table: tuple[Op, ...],
    workload: Workload,
    plan: Plan,
    network: Network,
    pricer: Pricer,
    stack: Stack,
) -> dict[str, float]:
    """Forward, backward and recomputation of all blocks for one micro-batch, by part."""
    frozen = workload.mode == "lora"
    forward: dict[str, dict[str, float]] = {"GEMM": {}, "attention": {}, "element-wise": {}}
    backward: dict[str, dict[str, float]] = {"GEMM": {}, "attention": {}, "element-wise": {}}
    width = workload.precision.activation_bits / 8.0
    for whole in table:
        if whole.part in ("embedding", "head") or whole.m == 0.0:
            continue
        op = shard(whole, plan.tp, plan.ep, sequence_parallel=plan.sequence_parallel)
        count = whole.count
        if op.kind == "gemm":
            name = label(op, forward["GEMM"])
            forward["GEMM"][name] = scaled(pricer.gemm_s(op, op.m, op.n, op.k), count)
            inputs = pricer.gemm_s(op, op.m, op.k, op.n)
            grads = (
                inputs
                if frozen
                else total({"inputs": inputs, "weights": pricer.gemm_s(op, op.k * op.copies, op.n, op.m / op.copies)})
            )
            backward["GEMM"][name] = scaled(grads, count)
        elif op.kind in ("attention", "scan"):
            name = label(op, forward["attention"])
            each = pricer.attention_s(op) if op.kind == "attention" else pricer.scan_s(op)
            forward["attention"][name] = scaled(each, count)
            backward["attention"][name] = scaled(each, count * ATTENTION_BACKWARD)
        elif op.kind in ("elementwise", "conv"):
            name = label(op, forward["element-wise"])
            launches = SMALL_KERNELS / 3.0 * min(stack.elementwise, 1.0)
            each = pricer.memory_s(op.elements * width, launches, stack.elementwise)
            forward["element-wise"][name] = scaled(each, count)
            backward["element-wise"][name] = scaled(each, count * ELEMENTWISE_BACKWARD)
    forward_parts = {name: total(terms) for name, terms in forward.items()}
    backward_parts = {name: total(terms) for name, terms in backward.items()}
    tp_forward, tp_backward, routing = _block_communication(model, workload, plan, network, stack)
    rebuilt = _recomputed(plan, forward_parts, tp_forward)
    layers = feeding.layer_count(model)
    parts = {name: total({"forward": forward_parts[name], "backward": backward_parts[name]}) for name in forward}
    if routing > 0.0:
        parts["expert routing"] = schedule.exposed_time_s(total(parts), routing, stack.routing_overlap)
    parts["tensor-parallel traffic"] = total({"forward": tp_forward, "backward": tp_backward})
    parts["recomputation"] = rebuilt
    device = total(parts)
    passes = 4.0 if plan.recompute == "full" else 3.0
    host = scaled(pricer.profile.host_layer_s, layers * passes * stack.host)
    parts["waiting for launches"] = schedule.host_bound_time_s(device, host) - device
    return parts


def _recomputed(plan: Plan, forward: dict[str, float], communication: float) -> float:
    if plan.recompute == "full":
        return total(forward | {"tensor-parallel traffic": communication})
    if plan.recompute == "selective":
        return total({"attention": forward["attention"], "element-wise": scaled(forward["element-wise"], 0.5)})
    return 0.0


def _block_communication(
    model: ModelSpec, workload: Workload, plan: Plan, network: Network, stack: Stack
) -> tuple[float, float, float]:
    """Exposed tensor-parallel traffic forward and backward, and expert routing both ways, of all blocks."""
    tokens = plan.micro_batch * workload.seq_len
    width = workload.precision.activation_bits / 8.0
    forward: dict[str, float] = {}
    routing: dict[str, float] = {}
    for index, block in enumerate(feeding.layers(model)):
        message = tokens * block.hidden * width
        if plan.tp > 1.0:
            each = network.ring_s(message, plan.tp, 1.0, 2.0)
            forward[f"blocks {index}"] = scaled(each, block.count * _reductions(block))
        experts = next((layer for layer in block.sublayers if isinstance(layer, Experts)), None)
        if experts is not None and plan.ep > 1.0:
            each = network.routing_s(message / plan.tp, experts.active, plan.ep, plan.tp)
            # Out and back, in both passes.
            routing[f"blocks {index}"] = scaled(each, block.count * 4.0)
    once = total(forward)
    return scaled(once, stack.exposed_forward), scaled(once, stack.exposed_backward), total(routing)


def _reductions(block: Block) -> float:
    """All-reduces of one block in one pass: one after each sublayer."""
    return float(len(block.sublayers))


def _head_s(table: tuple[Op, ...], plan: Plan, pricer: Pricer) -> float:
    terms: dict[str, float] = {}
    for whole in table:
        if whole.part != "head":
            continue
        op = shard(whole, plan.tp)
        logits = pricer.memory_s(op.m * op.n * 20.0, 10.0)
        terms[label(op, terms)] = total(
            {
                "forward": pricer.gemm_s(op, op.m, op.n, op.k),
                "inputs": pricer.gemm_s(op, op.m, op.k, op.n),
                "weights": pricer.gemm_s(op, op.k, op.n, op.m),
                "loss": logits,
            }
        )
    return total(terms)


def _hop_s(model: ModelSpec, workload: Workload, plan: Plan, network: Network) -> float:
    """Handing activations to the next stage and gradients back, for one micro-batch."""
    if plan.pp == 1.0:
        return 0.0
    message = plan.micro_batch * workload.seq_len * model.hidden * workload.precision.activation_bits / 8.0 / plan.tp
    far = plan.tp * 2.0 > network.devices_per_node
    bandwidth = network.inter_bytes_per_s if far else network.intra_bytes_per_s
    latency = network.inter_latency_s + 1.5e-5
    return scaled(collectives.point_to_point_time_s(message, bandwidth, latency), 2.0 * plan.interleave)


def _data_parallel(
    weights: Weights,
    workload: Workload,
    plan: Plan,
    network: Network,
    pricer: Pricer,
    stack: Stack,
    micro_batches: float,
    micro_batch_s: float,
) -> dict[str, float]:
    """Gathering sharded weights, accumulating and reducing gradients, the optimizer's update."""
    trained = 0.0 if workload.mode == "lora" else 1.0
    dense = (weights.dense / plan.tp + weights.vectors + (weights.embedding + weights.head) / plan.tp) / plan.pp
    experts = weights.experts / (plan.tp * plan.ep * plan.pp)
    width = workload.precision.weight_bits / 8.0
    stride = plan.tp * plan.pp
    parts: dict[str, float] = {}
    local = dense + experts
    # Experts are dealt over ep already: only the ranks that hold the same ones share their states.
    shared_out = dense / plan.dp + experts / (plan.dp / plan.ep)
    gathered = memory.weight_bytes(sourced(local, "weights of one device before ZeRO"), width)
    if plan.zero >= 3 and plan.dp > 1.0:
        passes = 3.0 if trained else 2.0
        traffic = scaled(network.ring_s(gathered, plan.dp, stride, 1.0), passes)
        exposed = schedule.exposed_time_s(micro_batch_s, traffic, stack.overlap)
        slowed = scaled(traffic, stack.contention)
        # What is exposed cannot slow a product down as well.
        parts["sharded weights traffic"] = scaled(
            ops.maximum(exposed, ops.minimum(slowed, 0.1 * micro_batch_s)), micro_batches
        )
    elif plan.dp > 1.0 and trained:
        gradients = memory.gradient_bytes(sourced(local, "weights of one device"), 2.0)
        reduce = network.ring_s(gradients, plan.dp, stride, 2.0)
        # Reduction starts during the last backward pass; half of that pass can hide it.
        parts["gradient reduction"] = schedule.exposed_time_s(0.5 * micro_batch_s, reduce, stack.overlap)
    if trained and micro_batches > 1.0:
        each = pricer.memory_s((shared_out if plan.zero >= 2 else local) * stack.accumulation_bytes, 0.0)
        parts["gradient accumulation"] = scaled(each, micro_batches)
    updated = pricer.memory_s(trained * (shared_out if plan.zero >= 1 else local) * stack.optimizer_bytes, 1.0)
    parts["optimizer"] = total({"update": updated, "overhead": sourced(STEP_OVERHEAD_S, "step overhead")})
    return parts
