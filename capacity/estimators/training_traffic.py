"""What a layout sends and moves beside its products: over links inside and between nodes, to the host, and to update weights."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_blocks import NARROW
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
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# A device's share of its host: PCIe (or better) each way, memory of a socket; what a host's Adam moves for a weight.
HOST_LINK_BYTES_PER_S, HOST_MEMORY_BYTES_PER_S, HOST_OPTIMIZER_BYTES = 2.5e10, 2e10, 28.0
# Starting a point-to-point transfer: two communication kernels and their synchronisation.
HOP_S = 1.5e-5


def experts_of(block: Block) -> Experts | None:
    """The mixture of experts of a block, where it has one."""
    return next((layer for layer in block.sublayers if isinstance(layer, Experts)), None)


def block_traffic(model: ModelSpec, workload: Workload, plan: Plan, network: Network) -> dict[str, float]:
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
        experts = experts_of(block)
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


def hop_s(model: ModelSpec, workload: Workload, plan: Plan, network: Network) -> float:
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


def data_parallel(
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
