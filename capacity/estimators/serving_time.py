"""How long a decode step and a prompt take on one replica, part by part."""

from __future__ import annotations

from capacity.estimators import feeding
from capacity.estimators.lowering import lower
from capacity.estimators.pricing import label
from capacity.estimators.sharding import shard_replica
from capacity.formula import scaled, sourced, total
from capacity.formulas import collectives, traffic
from capacity.record import replace
from capacity.spec.model import Attention, Experts, Recurrent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.pricing import Pricer
    from capacity.estimators.training_time import Network
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan

# Kernel times measured one by one include a gap that graph replay closes.
GRAPH_REPLAY = 0.85
# Host cost per layer of a step that is not replayed from a graph (prefill).
EAGER_LAYER_S = 6e-5
# Small kernels of a decode layer beside norms and rotary embedding, in multiples of the layer's own:
# routing and permuting for experts; gates, convolution and state for a recurrence; norms of queries and keys.
EXPERT_KERNELS, RECURRENT_KERNELS, QK_NORM_KERNELS = 2.0, 1.5, 0.75
# What a server's front end takes before a prompt reaches the scheduler: fixed, and per token of the prompt.
FRONT_END_S, FRONT_END_PER_TOKEN_S = 0.05, 3.1e-6
# Longest stretch of prompt one step works on.
PREFILL_CHUNK = 8192.0


def decode_step(
    model: ModelSpec, plan: Plan, network: Network, pricer: Pricer, running: float, prompt_len: float, written: float
) -> dict[str, float]:
    """Seconds of one step that gives each of `running` sequences, `written` tokens into its answer, the next token."""
    tokens = feeding.next_token(running, prompt_len, written, apart=feeding.reads_apart(model))
    pricer = replace(pricer, replay=GRAPH_REPLAY)
    parts = _forward(model, lower(model, tokens), plan, network, pricer, running)
    profile = pricer.profile
    parts["small kernels"] = scaled(profile.decode_layer_s, _small_kernels(model) * GRAPH_REPLAY)
    parts["engine"] = total(
        {
            "step": profile.decode_step_s,
            "sequences": scaled(profile.decode_sequence_s, sourced(running, "running sequences")),
        }
    )
    return parts


def prefill(
    model: ModelSpec, plan: Plan, network: Network, pricer: Pricer, sequences: float, prompt_len: float
) -> dict[str, float]:
    """Seconds to read prompts (or pictures) together, in chunks where they are long."""
    chunks = max(sequences * prompt_len / PREFILL_CHUNK, 1.0)
    whole = lower(model, feeding.prompt(model, sequences, prompt_len))
    parts = _forward(model, whole, plan, network, pricer, sequences * prompt_len)
    parts["launches"] = scaled(
        EAGER_LAYER_S if pricer.device.kind in ("GPU", "TPU", "ASIC") else pricer.profile.decode_layer_s,
        feeding.layer_count(model) * chunks,
    )
    parts["engine"] = scaled(pricer.profile.decode_step_s, chunks)
    return parts


def _small_kernels(model: ModelSpec) -> float:
    """Layers, each weighted by its small kernels."""
    count = 0.0
    for block in feeding.layers(model):
        weight = 1.0
        for layer in block.sublayers:
            if isinstance(layer, Experts):
                weight += EXPERT_KERNELS
            elif isinstance(layer, Recurrent):
                weight += RECURRENT_KERNELS
            elif isinstance(layer, Attention) and layer.qk_norm:
                weight += QK_NORM_KERNELS
        count += block.count * weight
    return count


def _forward(
    model: ModelSpec, table: tuple[Op, ...], plan: Plan, network: Network, pricer: Pricer, tokens: float
) -> dict[str, float]:
    groups: dict[str, dict[str, float]] = {}
    for whole in table:
        if whole.kind == "embedding" or whole.m == 0.0:
            continue
        op = shard_replica(whole, plan)
        name, each = _price(op, pricer, whole, tokens, plan)
        terms = groups.setdefault(name, {})
        terms[label(op, terms)] = scaled(each, whole.count)
    parts = {name: total(terms) for name, terms in groups.items()}
    if plan.tp > 1.0:
        parts["tensor-parallel traffic"] = _all_reduces(model, plan, network, pricer, tokens)
    if plan.pp > 1.0:
        message = tokens * model.hidden * pricer.bytes_per_activation
        hop = collectives.point_to_point_time_s(message, network.inter_bytes_per_s, network.inter_latency_s)
        parts["stage hand-over"] = scaled(hop, plan.pp - 1.0)
    return parts


def _price(op: Op, pricer: Pricer, whole: Op, tokens: float, plan: Plan) -> tuple[str, float]:
    """The part of the breakdown an op belongs to, and its time."""
    if op.kind == "gemm":
        touched = None
        if whole.copies != 1.0:
            hit = traffic.experts_touched(whole.copies, whole.active, tokens)
            touched = hit / plan.ep
            op = replace(op, m=op.m / plan.ep)
        return ("experts" if touched else "weights"), pricer.gemm_s(op, op.m, op.n, op.k, touched)
    if op.kind == "attention":
        if op.latent and op.queries == 1.0 and op.value_size:
            # Decode works on the latent itself: keys and values are as wide as what is cached.
            op = replace(op, key_size=op.cache_elements, value_size=op.cache_elements)
        return "attention and KV cache", pricer.attention_s(op)
    if op.kind == "scan":
        return "recurrent state", pricer.scan_s(op)
    return "activations", pricer.memory_s(op.elements * pricer.bytes_per_activation, 0.0)


def _all_reduces(model: ModelSpec, plan: Plan, network: Network, pricer: Pricer, tokens: float) -> float:
    message = tokens * model.hidden * pricer.bytes_per_activation
    if plan.tp <= network.devices_per_node and message < 8e6:
        each = collectives.one_shot_all_reduce_time_s(message, plan.tp, network.intra_bytes_per_s)
    else:
        each = network.ring_s(message, plan.tp, 1.0, 2.0)
    count = sum(block.count * len(block.sublayers) for block in feeding.layers(model))
    return scaled(each, sourced(count, "sublayers"))
