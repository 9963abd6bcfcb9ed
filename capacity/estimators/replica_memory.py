"""What the devices of a replica hold, and the room they have for requests."""

from __future__ import annotations

from math import inf

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.checkpoint import format_of
from capacity.estimators.lowering import active_parameter_count, lower
from capacity.estimators.sharding import shard_replica
from capacity.estimators.work import takes_adapter
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory, schedule
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.estimators.serving_case import Service
    from capacity.estimators.serving_offload import Offload
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# Tokens of one step's activations that must fit beside weights and cache.
ACTIVATION_TOKENS = 8192.0
# A recurrence keeps its state in fp32.
STATE_BYTES = 4.0
# Buffers of the collectives of a replica on several devices.
COMMUNICATOR_BYTES = 0.5e9


class Footprint(Record):
    """What one device holds of a replica, whatever the device: bytes of weights and activations by part.

    token_bytes: KV cache of one request per token, averaged over its context; state_bytes: of a recurrence. expert_bytes: of
    routed experts among the weights; adapter_elements: of a low-rank adapter of rank 1.
    """

    parts: dict[str, float]
    token_bytes: float
    state_bytes: float
    workload: Workload
    formats: dict[str, tuple[str, float]]
    expert_bytes: float = 0.0
    adapter_elements: float = 0.0


class Room(Record):
    """What one device has for requests: bytes left beside the fixed parts, and what one request of a context takes.

    token_bytes: KV cache per token, averaged over the context (a window keeps less); state_bytes: of a recurrence. Where a host
    keeps a part: offload; weight_bytes: of the whole replica's share of a device, host_bytes: of these on the host;
    host_token_bytes: of cache there; host_flop_per_token: of products with what it keeps.
    """

    left_bytes: float
    token_bytes: float
    state_bytes: float
    context: float
    offload: Offload | None = None
    weight_bytes: float = 0.0
    host_bytes: float = 0.0
    host_token_bytes: float = 0.0
    host_flop_per_token: float = 0.0

    @property
    def request_bytes(self) -> float:
        """Bytes of one whole request."""
        return self.token_bytes * self.context + self.state_bytes

    @property
    def requests(self) -> float:
        """Requests that fit: any number where a request keeps nothing."""
        if not ops.anywhere(self.request_bytes):
            return inf
        return schedule.held_requests(self.left_bytes, self.request_bytes)

    @property
    def holds(self) -> bool:
        """Whether one request fits at all."""
        return (self.left_bytes > 0.0) & (self.requests >= 1.0)


def room_of(
    case: Case, model: ModelSpec, workload: Workload, plan: Plan, cluster: Cluster, service: Service
) -> tuple[dict[str, float], Room]:
    """Fixed memory parts of a device, and what it has left for requests."""
    # Each device compared with, and each quantity that looks at other layouts, asks for the same few.
    sizes = (plan.tp, plan.pp, plan.ep, plan.attention_dp)
    if any(map(ops.is_column, sizes)):
        held = footprint(model, workload, plan, service.formats)
    else:
        key = (id(model), *sizes)
        known = case.footprints.get(key)
        if known is None or known.workload is not workload or known.formats is not service.formats:
            known = case.footprints[key] = footprint(model, workload, plan, service.formats)
        held = known
    parts = dict(held.parts)
    groups = ops.where(plan.tp * plan.pp * plan.attention_dp > 1.0, COMMUNICATOR_BYTES, 0.0)
    parts["runtime"] = sourced(case.profile.context_bytes + groups, "runtime context")
    if service.engine.weight_copies > 1.0 and service.formats[""][1] < 2.0:
        parts["repacked weights"] = scaled(parts["weights"], service.engine.weight_copies - 1.0)
    if ops.anywhere(service.adapters):
        parts["adapters"] = scaled(held.adapter_elements * 2.0 * service.adapter_rank, service.adapters)
    context = workload.prompt_len + workload.output_len * service.engine.reserved
    if service.offload is not None:
        return _with_host(model, workload, plan, cluster, service, held, parts, context)
    left = service.room_for(cluster.device, sum(parts.values()))
    return parts, Room(left, held.token_bytes, held.state_bytes, context)


def _with_host(
    model: ModelSpec,
    workload: Workload,
    plan: Plan,
    cluster: Cluster,
    service: Service,
    held: Footprint,
    parts: dict[str, float],
    context: float,
) -> tuple[dict[str, float], Room]:
    """The same where a host keeps a part of it."""
    kept = service.offload
    assert kept is not None
    whole, token = parts["weights"], held.token_bytes
    if kept.cache:
        held = replace(held, token_bytes=0.0)
    moved = held.expert_bytes if kept.experts else 0.0
    if kept.weights is None:
        # As little as lets the rest, and the requests asked for, fit.
        room = service.room_for(cluster.device, 0.0)
        asked = (held.token_bytes * context + held.state_bytes) * workload.concurrency / plan.attention_dp
        moved = ops.minimum(ops.maximum(sum(parts.values()) + asked - room, moved), whole)
    else:
        moved = ops.maximum(moved, whole * kept.weights)
    parts["weights"] = whole - moved
    left = service.room_for(cluster.device, sum(parts.values()))
    table = step_table(model, 1.0, workload.prompt_len, workload.output_len)
    routed = sum(op.count * op.active * op.weight_elements for op in table if ops.anywhere(op.copies != 1.0))
    active = routed if kept.experts else active_parameter_count(table) * moved / whole
    flop = 2.0 * active / (plan.tp * plan.pp)
    return parts, Room(
        left, held.token_bytes, held.state_bytes, context, kept, whole, moved, token if kept.cache else 0.0, flop
    )


def footprint(model: ModelSpec, workload: Workload, plan: Plan, formats: dict[str, tuple[str, float]]) -> Footprint:
    """What one device holds of a replica laid out by `plan`."""
    context = workload.prompt_len + workload.output_len
    table = step_table(model, 1.0, workload.prompt_len, workload.output_len)
    kv_width = workload.precision.kv_bits / 8.0
    weights: dict[str, float] = {}
    cache = state = adapter = 0.0
    for whole in table:
        op = shard_replica(whole, plan)
        stages = 1.0 if whole.kind == "embedding" or whole.part == "head" else plan.pp
        _, width = format_of(formats, op) if op.kind in ("gemm", "embedding", "conv") else ("", 2.0)
        elements = whole.count * op.copies * op.weight_elements
        weights[whole.part] = weights.get(whole.part, 0.0) + memory.weight_bytes(elements, width, stages)
        if takes_adapter(op):
            adapter = adapter + whole.count * (op.n + op.k) / stages
        if op.kind == "attention":
            held = memory.cached_tokens(1.0, op.keys, op.window)
            cache = cache + whole.count * held * op.cache_elements / plan.pp * kv_width
        elif op.kind == "scan":
            state = state + whole.count * op.heads * op.key_size * op.value_size * STATE_BYTES / plan.pp
    parts = {"weights": total(weights)}
    widths = [op.n for op in table if op.kind == "gemm" and op.part != "head"]
    widest = widths[0] if widths else model.hidden
    for width in widths:
        widest = ops.maximum(widest, width)
    batch_tokens = ops.minimum(ACTIVATION_TOKENS, workload.prompt_len * workload.concurrency)
    parts["activations"] = memory.ffn_activation_bytes(batch_tokens, widest, 2.0, plan.tp, 2.0)
    return Footprint(parts, cache / context, state, workload, formats, weights.get("expert", 0.0), adapter)


def step_table(model: ModelSpec, sequences: float, prompt: float, written: float) -> tuple[Op, ...]:
    """Ops of the decode step after `written` tokens; of a whole pass for models that do not generate."""
    if not feeding.generates(model):
        return lower(model, feeding.feed(model, sequences, prompt))
    return lower(model, feeding.next_token(sequences, prompt, written, apart=feeding.reads_apart(model)))
