"""From a priced training run to its quantities, for given factors on what is uncertain."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding, layout
from capacity.estimators.intervals import Value
from capacity.estimators.lowering import (
    Tokens,
    active_parameter_count,
    lower,
    model_flop,
)
from capacity.estimators.power import emissions, power_of, prices
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_beside import beside, beside_values
from capacity.estimators.training_run import goodput_of
from capacity.estimators.training_terms import rebuilds
from capacity.estimators.training_weights import OPTIMIZER_STATE_BYTES, lora_elements
from capacity.formula import scaled, sourced, total
from capacity.formulas import energy, flops, memory, scaling, schedule, traffic
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.training_run import Run
    from capacity.estimators.training_weights import Weights
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload


def account(case: Case, run: Run, *, alone: bool = False, fewest: float | None = None) -> Account:
    """From priced parts to quantities, for given factors on what is uncertain.

    alone: without other layouts beside it; fewest: devices that hold it, where that is known already.
    """
    workload, plan, cluster, model = run.workload, run.plan, run.cluster, run.model
    precision = workload.precision
    devices = sourced(run.devices, "devices")
    sequences = plan.micro_batch
    forward = model_flop(run.table)
    trained = 1.0 if workload.mode != "lora" else 0.0
    model_flop_sequence = total(
        {"forward": forward / sequences, "backward": flops.backward_flop(forward / sequences, 1.0 + trained)}
    )
    again = model_flop(tuple(op for op in run.table if rebuilds(op, plan))) / sequences
    recomputed = again * (plan.recompute_share if plan.recompute == "full" else 1.0)
    peak, _ = peak_flop_per_s(cluster.device, precision.compute)
    params = run.weights.all
    # What is trained (adapters, where the weights are frozen) is stored as wide as activations, full precision once.
    width = precision.activation_bits / 8.0
    master = precision.master_bits / 8.0 if precision.master_bits > precision.activation_bits else 0.0
    state_bytes = OPTIMIZER_STATE_BYTES[workload.optimizer] + master
    saved = _saved(run)
    moved = _device_traffic(run, width)
    step_mid = total(run.time)
    memory_mid = total(run.memory)
    network_bytes = _network_bytes(run)
    extra = beside(run, step_mid)
    steps = extra.steps
    token_bytes = ops.where(model.vocab_size <= 65536.0, 2.0, 4.0)
    # Of a model whose own weights are frozen only the adapters are saved.
    saved_params = params if trained else lora_elements(model, workload, Plan())
    checkpoint = traffic.checkpoint_bytes(saved_params, saved_params, width, state_bytes)
    kept, interval = goodput_of(cluster, checkpoint, devices, case.kept.get("upkeep"))
    work_step = scaled(model_flop_sequence, workload.global_batch)
    fewest = case_fewest(case, model, run.weights, workload) if fewest is None and not alone else fewest
    active = active_params(model)
    busy = extra.activity(step_mid, forward / sequences / (model_flop_sequence + recomputed) / workload.tokens)

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        step = _step(run, step_mid, factor)
        aside = scaled(extra.seconds, factor.get("step time", 1.0))
        running = schedule.run_time_s(extra.full, step, kept, aside)
        rate = workload.global_batch * workload.seq_len / step
        mfu = schedule.model_flop_utilisation(work_step, step, devices, peak)
        hardware = work_step + recomputed * workload.global_batch
        hfu = schedule.model_flop_utilisation(hardware, step, devices, peak)
        bandwidth_share = ops.minimum(moved / (step * cluster.device.memory_bytes_per_s), 1.0)
        power = power_of(
            cluster,
            ops.minimum(scaled(hfu, busy), 1.0),
            ops.minimum(bandwidth_share * busy, 1.0),
            factor.get("power", 1.0),
        )
        used = energy.energy_j(power, running)
        # A column of runs has no words of its own.
        told = (
            ""
            if ops.is_column(step)
            else f"{float(steps):,.0f} steps at {float(extra.goodput(step_mid, kept)):.1%} goodput"
        )
        values = {
            "step_time": Value(step, "s", "one optimizer step" if run.generation is None else "one iteration"),
            "run_time": Value(running, "s", told),
            "goodput": Value(
                extra.goodput(step_mid, kept), "fraction", "of the run's time, in full steps at full pace"
            ),
            "tokens_per_s": Value(rate, "1/s", "trained tokens a second, all devices"),
            "tokens_per_s_per_device": Value(rate / devices, "1/s", "trained tokens a second, each device"),
            "mfu": Value(mfu, "fraction", "model FLOPs over dense peak, attention as the full square"),
            "hfu": Value(hfu, "fraction", "with recomputed FLOPs"),
            "flop_per_token": Value(model_flop_sequence / workload.seq_len, "FLOP", "forward and backward"),
            "flop_total": Value(model_flop_sequence / workload.seq_len * workload.tokens, "FLOP", "model FLOPs"),
            "flop_recomputed": Value(recomputed / workload.seq_len * workload.tokens, "FLOP", "recomputation on top"),
            "tokens": Value(workload.tokens, "1", "trained on"),
            "steps": Value(steps, "1", "optimizer steps"),
            "device_memory": Value(cluster.device.memory_bytes, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(
                scaled(memory_mid, factor.get("memory", 1.0)), "byte", "peak on the fullest device"
            ),
            "activations_without_recomputation": Value(saved["none"], "byte", "saved per device"),
            "activations_with_selective_recomputation": Value(saved["selective"], "byte", "saved per device"),
            "activations_with_full_recomputation": Value(saved["full"], "byte", "saved per device"),
            "arithmetic_intensity": Value(
                traffic.arithmetic_intensity(hardware / devices, moved), "FLOP/byte", "of a step, device memory"
            ),
            "ridge_point": Value(
                traffic.ridge_point(peak, cluster.device.memory_bytes_per_s),
                "FLOP/byte",
                "where bandwidth stops binding",
            ),
            "memory_traffic_per_step": Value(moved, "byte", "device memory, each device"),
            "network_traffic_per_step": Value(network_bytes, "byte", "sent by each device"),
            "checkpoint": Value(checkpoint, "byte", "weights, master copy, optimizer states"),
            "checkpoint_interval": Value(interval, "s", "loses least time to failures"),
            "dataset": Value(traffic.dataset_bytes(workload.tokens, token_bytes), "byte", "tokenised"),
            "feed_rate": Value(traffic.feed_bytes_per_s(rate, token_bytes), "byte/s", "from storage to loaders"),
            "power": Value(power, "W", "drawn from the grid while training"),
            "energy": Value(used, "J", "with hosts and PUE"),
            "carbon": Value(emissions(cluster, used), "g", "operational, location-based"),
            "device_hours": Value(running * devices / 3600.0, "1", "devices x hours"),
        }
        values |= _offloaded(run) | beside_values(extra, factor.get("step time", 1.0))
        values |= _answers(run, factor)
        values |= prices(cluster, devices, running, factor.get("price", 1.0))
        if fewest is not None:
            values["fewest_devices"] = Value(fewest, "1", "that hold it at all (ZeRO-3, full recomputation)")
        if workload.mode == "train":
            values["expected_loss"] = Value(
                scaling.expected_loss(active, workload.tokens), "1", "nats per token, chinchilla law"
            )
        return values

    return quantities


def _saved(run: Run) -> dict[str, float]:
    """Activations that a device keeps under each policy of recomputation."""
    plan = run.plan
    share = memory.micro_batches_in_flight(plan.pp, 0.0, run.rounds, plan.interleave) / plan.pp
    return {
        policy: scaled(block_activations(run.model, run.workload, plan, policy)[0], share)
        for policy in ("none", "selective", "full")
    }


def _step(run: Run, step_mid: float, factor: Mapping[str, float]) -> float:
    """A step's time under some factors; kernels that write answers have residuals of their own."""
    written = run.time.get("generation", 0.0)
    if not written:
        return scaled(step_mid, factor.get("step time", 1.0))
    learnt = scaled(step_mid - written, factor.get("step time", 1.0))
    return total({"learning": learnt, "writing": scaled(written, factor.get("generation", 1.0))})


def _answers(run: Run, factor: Mapping[str, float]) -> dict[str, Value]:
    if run.generation is None:
        return {}
    from capacity.estimators.rollout import rollout_values

    return rollout_values(run.generation, run.workload, factor.get("generation", 1.0))


# Where what is offloaded lies.
PLACES = {"cpu": "the host", "nvme": "NVMe drives"}
# Parts of a model whose products are told apart; the attention core is the part of scores and values.
_PARTS = {
    "recurrent": "recurrence",
    "ffn": "feed-forward",
    "expert": "experts",
    "shared_expert": "experts",
    "router": "experts",
}


def work_by_part(run: Run) -> dict[str, float]:
    """FLOPs of a token by part and pass; they add up to model FLOPs and what is rebuilt.

    Attention is counted as the full square (causal masks not subtracted), a window or a sparse selection as such.
    Products go back once for the inputs and, where weights are trained, once for the weights.
    """
    tokens = run.plan.micro_batch * run.workload.seq_len
    trained = run.workload.mode != "lora"
    again = run.plan.recompute_share if run.plan.recompute == "full" else 1.0
    found: dict[str, float] = {}
    for op in run.table:
        each = float(model_flop((op,))) / tokens
        if each == 0.0:
            continue
        core = op.kind in ("attention", "scan")
        part = "attention core" if op.kind == "attention" else _PARTS.get(op.part, op.part)
        passes = {"forward": each, "backward for inputs": each * (2.0 if core and trained else 1.0)}
        if trained and not core:
            passes["backward for weights"] = each
        if rebuilds(op, run.plan):
            passes["rebuilt"] = each * again
        for name, work in passes.items():
            key = f"{part}, {name}"
            found[key] = found.get(key, 0.0) + work
    return found


def active_params(model: ModelSpec) -> float:
    """Parameters a token passes."""
    return active_parameter_count(lower(model, Tokens()))


def case_fewest(case: Case, model: ModelSpec, weights: Weights, workload: Workload) -> float | None:
    """The fewest devices that hold the training states."""
    return layout.fewest_training_devices(model, weights, workload, case.cluster, case.profile.context_bytes)


def _device_traffic(run: Run, width: float) -> float:
    """Bytes through one device's memory in a step: products three times over, element-wise work, optimizer."""
    each = 0.0
    for op in run.table:
        if op.part == "embedding":
            continue
        if op.kind == "gemm":
            each += 3.0 * op.count * traffic.gemm_bytes(op.m, op.n, op.k, op.copies, width, width)
        else:
            each += 2.9 * op.count * op.elements * width
    params = sum(op.count * op.copies * op.weight_elements for op in run.table)
    plan, loop = run.plan, run.workload.rollout
    update = each * run.rounds / (plan.tp * plan.pp * plan.cp) + params / plan.devices * 40.0 * ops.where(
        plan.zero < 1, plan.dp, 1.0
    )
    if loop is None or run.generation is None:
        return update
    return loop.updates * update + (0.0 if loop.devices else run.generation.moved_bytes)


def _network_bytes(run: Run) -> float:
    """Bytes one device sends in a step: tensor-, data- and pipeline-parallel traffic."""
    plan, workload = run.plan, run.workload
    width = workload.precision.activation_bits / 8.0
    message = plan.micro_batch * workload.seq_len / plan.cp * run.model.hidden * width
    reductions = sum(block.count * len(block.sublayers) for block in feeding.layers(run.model))
    tensor = 4.0 * (plan.tp - 1.0) / plan.tp * message * reductions / plan.pp * run.rounds
    local: float = run.weights.all / (plan.tp * plan.pp) * 2.0
    passes = ops.where(plan.zero >= 3, 3.0 * run.rounds, 2.0)
    data = passes * (plan.shards - 1.0) / plan.shards * local * (0.0 if workload.mode == "lora" else 1.0)
    pipeline = ops.where(plan.pp > 1.0, 2.0 * message / plan.tp * run.rounds, 0.0)
    sent: float = tensor + data + pipeline
    return sent


def _offloaded(run: Run) -> dict[str, Value]:
    """What each node must hold beside its devices."""
    if not run.plan.offload:
        return {}
    held = scaled(run.offloaded_bytes, run.cluster.devices_per_node * 1.0)
    return {"offloaded_per_node": Value(held, "byte", f"on {PLACES[run.plan.offload_to]} of a node")}
