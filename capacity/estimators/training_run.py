"""One training run: what is trained, on how many devices, in which layout, with its parts priced."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.assumptions import one_of
from capacity.estimators.case_cluster import whole
from capacity.estimators.formats import training_precision
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count
from capacity.estimators.pricing import Pricer, peak_flop_per_s
from capacity.estimators.refusal import refuse
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_beside import read_beside
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_time import Network, evaluation_time, forward_time, step_time
from capacity.estimators.training_weights import OPTIMIZER_STATE_BYTES, weights_of
from capacity.formula import scaled, sourced, total
from capacity.formulas import flops, scaling, schedule
from capacity.record import Record, replace
from capacity.spec.plan import CP_KINDS, OFFLOAD_TARGETS, OFFLOADED, REBUILT, RECOMPUTATION, SCHEDULES
from capacity.spec.workload import Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.rollout import Generation
    from capacity.estimators.stacks import Stack
    from capacity.estimators.training_weights import Weights
    from capacity.estimators.upkeep import Upkeep
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan

# A run longer than this is given more nodes, when the user did not say how many.
PATIENCE_S = 30.0 * 86400.0
# First guess of utilisation, only to choose a number of nodes.
ROUGH_UTILISATION = 0.4
# Any device of a job stops it: 419 interruptions of 16,384 devices in 54 days (Llama 3 report, table 5).
DEVICE_FAILURE_INTERVAL_S = 16384.0 * 54.0 * 86400.0 / 419.0
RESTART_S = 900.0
STORAGE_BYTES_PER_S_PER_NODE = 2e9


class Run(Record):
    """One model trained one way on one cluster, with its parts priced.

    rounds: micro-batches a step. evaluation_s: of one evaluation, sequence_s: what a sequence adds to a step; both 0 where
    the workload has no use for them. offloaded_bytes: what a device keeps on its host. generation: how answers are written
    that are learnt from, where any are.
    """

    model: ModelSpec
    table: tuple[Op, ...]
    weights: Weights
    workload: Workload
    plan: Plan
    cluster: Cluster
    fits: bool
    memory: dict[str, float]
    time: dict[str, float]
    rounds: float
    evaluation_s: float = 0.0
    sequence_s: float = 0.0
    offloaded_bytes: float = 0.0
    generation: Generation | None = None

    @property
    def devices(self) -> float:
        """All devices, those that only write answers included."""
        alone: float = self.workload.rollout.devices if self.workload.rollout else 0.0
        return self.plan.devices + alone


def read_workload(case: Case) -> tuple[Workload, float]:
    """The training workload and the number of devices, both with their assumptions noted."""
    note, take = case.assumptions.note, case.assumptions.take
    mode = next((mode for mode in case.modes if mode != "serve"), "train")
    word, precision = training_precision(case)
    note(
        "training precision",
        word,
        "",
        "user" if "precision" in case.request else "default",
        "mixed precision: fp32 gradients and master weights",
    )
    if not case.on_platform:
        source = "Llama 3 report: 419 of 16,384 devices in 54 days, any cause; --failures for others"
        note("between interruptions of a device", DEVICE_FAILURE_INTERVAL_S, "s", "default", source)
        note("until an interrupted run is back", RESTART_S, "s", "default", "noticed, replaced, loaded")
    optimizer = one_of("--optimizer", case.request.get("optimizer"), tuple(OPTIMIZER_STATE_BYTES)) or "adamw"
    note("optimizer", optimizer, "", "user" if "optimizer" in case.request else "default")
    table = lower(case.model, Tokens())
    params = parameter_count(table)
    active = active_parameter_count(table)
    if mode == "rlhf":
        from capacity.estimators.rollout import read_loop

        amounts = read_loop(case)
    else:
        amounts = _amounts(case, mode, active)
    rank = (
        take("LoRA rank", case.number("lora_rank", "1", 1.0, 4096.0, whole=True), 16.0, "1", "usual")
        if mode == "lora"
        else 16.0
    )
    workload = Workload(
        stack=load_stack(case.request.get("stack") or "tuned").name,
        guides=(*_teacher(case), *amounts.pop("guides", ())),
        mode=mode,
        optimizer=optimizer,
        precision=precision,
        lora_rank=rank,
        **amounts,
        **read_beside(case, amounts["tokens"], amounts["seq_len"], amounts["global_batch"]),
    )
    devices = case.devices
    if devices is None and all(name in case.request for name in ("dp", "tp", "pp")):
        devices = _ranks(case)
        note("devices", devices, "1", "user", "dp x tp x pp")
    elif devices is None:
        devices = _default_devices(case, workload, params, active)
        # A layout that was given in part may need more devices, or another multiple.
        devices = ops.maximum(ops.ceil(devices / _ranks(case)), 1.0) * _ranks(case)
        note("devices", devices, "1", "default", "whole nodes that hold it and finish within about 30 days")
    else:
        note("devices", devices, "1", "user")
    return workload, devices


def _amounts(case: Case, mode: str, active: float) -> dict[str, float]:
    """Tokens a sequence and in all, and sequences a step, as fields of a workload."""
    take, longest = case.assumptions.take, feeding.longest(case.model)
    seq_len = take(
        "sequence length",
        case.number("seq_len", "1", 1.0, 1e8, whole=True),
        ops.minimum(4096.0, ops.where(longest > 0.0, longest, 4096.0)),
        "1",
        "usual for pre-training",
    )
    tokens = case.number("tokens", "1", 1.0, 1e17)
    optimal = scaling.compute_optimal_tokens(sourced(active, "active parameters"))
    tokens = (
        take("training tokens", tokens, optimal, "1", "compute-optimal, 20 per parameter (hoffmann2022)")
        if mode == "train"
        else take("training tokens", tokens, 1e8, "1", "a usual fine-tuning set")
    )
    batch = take(
        "global batch",
        case.number("batch", "1", 1.0, 1e8, whole=True),
        _default_batch(mode, active, seq_len, tokens),
        "1",
        "grows with the square root of the model, as published runs do",
    )
    return {"seq_len": seq_len, "tokens": tokens, "global_batch": batch}


def _teacher(case: Case) -> tuple[tuple[str, ModelSpec], ...]:
    """The model whose logits are learnt from, run beside the student."""
    name = case.request.get("teacher")
    if name is None:
        return ()
    from capacity.catalogue import load_model

    teacher = load_model(name, tuple(case.request.get("catalogue", ()))) if isinstance(name, str) else name
    case.assumptions.note("teacher", teacher.name, "", "user", teacher.source)
    return (("teacher", teacher),)


def _default_batch(mode: str, active: float, seq_len: float, tokens: float) -> float:
    """Sequences a step: 2 million tokens at 7 billion parameters, with the root of size; a power of two."""
    wanted = 2e6 * (active / 7e9) ** 0.5 if mode == "train" else 2.5e5
    wanted = ops.minimum(ops.maximum(wanted, 1.25e5), ops.minimum(1.6e7, ops.maximum(tokens / 100.0, seq_len)))
    batch = 1.0
    while ops.anywhere(room := batch * 2.0 * seq_len <= wanted * 1.2):
        batch = ops.where(room, batch * 2.0, batch)
    return batch


def _default_devices(case: Case, workload: Workload, params: float, active: float) -> float:
    """A power of two of nodes: enough for the states and for a run of about a month."""
    device = case.cluster.device
    per_node = float(case.cluster.devices_per_node)
    peak, _ = peak_flop_per_s(device, workload.precision.compute)
    work = flops.rule_of_thumb_training_flop(active, workload.tokens)
    by_time = work / (peak * ROUGH_UTILISATION * PATIENCE_S)
    states = params * (18.0 if workload.mode != "lora" else 2.2)
    by_memory = states / (layout.USABLE_SHARE * device.open_bytes) * 1.15
    wanted = ops.maximum(by_time, by_memory)
    nodes = 1.0
    while ops.anywhere(short := (nodes * per_node < wanted) & (nodes * per_node < 131072.0)):
        nodes = ops.where(short, nodes * 2.0, nodes)
    # More devices than sequences in a batch have nothing to do.
    while ops.anywhere(idle := (nodes > 1.0) & (nodes * per_node > workload.global_batch * per_node * 8.0)):
        nodes = ops.where(idle, nodes / 2.0, nodes)
    alone = (wanted <= 1.0) & (workload.mode != "train")
    return ops.where(alone, 1.0, nodes * per_node)


def given_plan(case: Case, devices: float) -> dict[str, Any]:
    """The parts of a layout that the user fixed, checked, as fields of a Plan."""
    given: dict[str, Any] = {}
    for name in ("dp", "tp", "pp", "cp", "ep", "etp", "replicas", "micro_batch", "interleave"):
        value = case.number(name, "1", 1.0, 1e6, whole=True)
        if value is not None:
            given[name] = value
    zero = case.number("zero", "1", 0.0, 3.0, whole=True)
    if zero is not None:
        given["zero"] = zero
    given |= _recomputation(case.request.get("recompute"))
    for name, choices in (("schedule", SCHEDULES), ("cp_kind", CP_KINDS)):
        word = one_of(f"--{name.replace('_', '-')}", case.request.get(name), choices)
        if word is not None:
            given[name] = word
    share = case.number("recompute_share", "1", 0.0, 1.0)
    if share is not None:
        given["recompute_share"] = share
    offload = str(case.request.get("offload") or "")
    if offload == "none":
        given["offload"] = ()
    elif offload:
        given["offload"] = tuple(one_of("--offload", word.strip(), OFFLOADED) or "" for word in offload.split(","))
    target = one_of("--offload-to", case.request.get("offload_to"), OFFLOAD_TARGETS)
    if target is not None:
        if not given.get("offload"):
            raise InputError(f"--offload-to {target} says where, not what: add --offload optimizer, or other parts")
        given["offload_to"] = target
    layout.check_heads(case.model, given.get("tp", 1.0))
    refuse(
        devices % _ranks(case) != 0.0,
        lambda row: (
            " x ".join(f"{name} {row(given[name]):g}" for name in _CUTS if name in given)
            + f" does not divide {row(devices):g} devices; change --devices or the layout"
        ),
    )
    return given


def _recomputation(word: str | None) -> dict[str, Any]:
    """A policy of recomputation, or the parts of a block that are rebuilt, as a plan has them."""
    if word is None:
        return {}
    named = tuple(part.strip() for part in str(word).split(","))
    if named[0] in REBUILT:
        return {"recompute": "selective", "rebuilt": tuple(one_of("--recompute", one, REBUILT) or "" for one in named)}
    return {"recompute": one_of("--recompute", str(word), (*RECOMPUTATION, *REBUILT))}


_CUTS = ("dp", "tp", "pp", "cp")


def _ranks(case: Case) -> float:
    """Devices that the layout's given degrees take together."""
    product = 1.0
    for name in _CUTS:
        degree = case.number(name, "1", 1.0, 1e6, whole=True)
        product = product if degree is None else product * degree
    return product


class Machine(Record):
    """What a layout is priced on: the cluster that so many devices are, its network, its kernels, its software."""

    cluster: Cluster
    stack: Stack
    pricer: Pricer
    network: Network


def machine_of(case: Case, cluster: Cluster, workload: Workload, devices: float) -> Machine:
    """So many devices of a cluster, to train this workload."""
    per_node = ops.minimum(cluster.devices_per_node, ops.floor(devices))
    nodes = ops.maximum(ops.floor(devices / per_node), 1.0)
    cluster = replace(cluster, devices_per_node=whole(per_node), nodes=whole(nodes))
    compute = workload.precision.compute
    pricer = Pricer(
        cluster.device,
        case.profile,
        compute,
        {"": workload.precision.weight_bits / 8.0},
        workload.precision.activation_bits / 8.0,
        wide=frozenset({"head", "router"} if compute in ("fp8", "fp4") else ()),
    )
    stack = load_stack(case.request.get("stack") or "tuned", cluster.device, compute)
    return Machine(cluster, stack, pricer, Network.of(cluster, case.profile))


def price_run(
    case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, devices: float, plan: Plan | None = None
) -> Run:
    """Lower, shard, price, schedule. devices: all there are, some of which may only write answers."""
    loop = workload.rollout
    asked, updates, all_devices = workload, 1.0, devices
    if loop:
        updates, devices = loop.updates, devices - loop.devices
        workload = replace(workload, global_batch=sourced(workload.global_batch / updates, "sequences an update"))
        refuse(
            devices < 1.0,
            lambda _: "--rollout-devices leaves no device to train on; lower it or raise --devices",
        )
    machine = machine_of(case, cluster, workload, devices)
    context = case.profile.context_bytes
    weights = weights_of(lower(model, Tokens()))
    pace = case.site_factor * updates

    def rounds_of(plan: Plan) -> float:
        return schedule.micro_batches(
            workload.global_batch, sourced(plan.dp, "data parallel"), sourced(plan.micro_batch, "micro-batch")
        )

    def step_of(plan: Plan, rounds: float) -> dict[str, float]:
        parts = _step(model, weights, workload, plan, machine, rounds, again=updates > 1.0)
        return parts if pace == 1.0 else {name: scaled(part, pace) for name, part in parts.items()}

    priced: list[tuple[Plan, dict[str, float]]] = []

    def price(plan: Plan) -> dict[str, float]:
        known = [parts for one, parts in priced if one is plan]
        if not known:
            known.append(step_of(plan, rounds_of(plan)))
            priced.append((plan, known[0]))
        return known[0]

    fitting = True
    if plan is None:
        given = given_plan(case, devices)
        plan, fitting = layout.choose_training_plan(
            model, weights, workload, machine.cluster, given, context, devices, price
        )
        layout.check(model, plan, devices)
    rounds = rounds_of(plan)
    held = training_memory(model, weights, workload, plan, rounds, context)
    parts = price(plan)
    run = Run(
        model,
        lower(model, feeding.learn(model, plan.micro_batch, workload.seq_len)),
        weights,
        asked,
        plan,
        machine.cluster,
        fitting,
        held,
        parts,
        rounds,
    )
    changes: dict[str, Any] = {}
    if plan.offload:
        there, here = (
            training_memory(model, weights, workload, one, rounds, context, stage="first")
            for one in (plan, replace(plan, offload=()))
        )
        moved = {name: here[name] - there[name] for name in ("weights", "optimizer", "activations")}
        changes["offloaded_bytes"] = total(moved)
    if ops.anywhere(workload.eval_tokens):
        evaluated = evaluation_time(model, workload, plan, machine.network, machine.pricer, machine.stack)
        changes["evaluation_s"] = scaled(evaluated, case.site_factor)
    if ops.anywhere(workload.ramp_tokens):
        twice = total(step_of(plan, 2.0 * rounds))
        changes["sequence_s"] = schedule.sequence_time_s(twice, total(parts), rounds * plan.dp * plan.micro_batch)
    if loop:
        from capacity.estimators.rollout import with_answers

        return with_answers(case, run, machine, all_devices)
    return replace(run, **changes) if changes else run


def _step(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    plan: Plan,
    machine: Machine,
    rounds: float,
    *,
    again: bool = False,
) -> dict[str, float]:
    """Parts of one update, with what goes forward or is trained beside. again: answers are learnt from more than once."""
    network, pricer, stack = machine.network, machine.pricer, machine.stack

    def forward(guide: ModelSpec) -> float:
        cut = plan if layout.expert_count(guide) else replace(plan, ep=1.0, etp=None)
        return scaled(forward_time(guide, workload, cut, network, pricer, stack), rounds)

    def trained(one: ModelSpec, own: Weights) -> dict[str, float]:
        table = lower(one, feeding.learn(one, plan.micro_batch, workload.seq_len))
        return step_time(one, table, own, workload, plan, network, pricer, stack, rounds)

    parts = trained(model, weights)
    parts |= {name: forward(guide) for name, guide in workload.guides}
    if workload.critic is not None:
        critic = trained(workload.critic, weights_of(lower(workload.critic, Tokens())))
        parts["critic"] = total({"values": forward(workload.critic), **critic})
    if again:
        # Later updates weigh answers by what the model thought of them first.
        parts["first probabilities"] = forward(model)
    return parts


def goodput_of(
    cluster: Cluster, checkpoint: float, devices: float, upkeep: Upkeep | None = None
) -> tuple[float, float]:
    """Share of wall time that moves a run forward, and the checkpoint interval that makes it so.

    upkeep: the platform that was asked for; without one checkpoints stop training and any device may stop the job.
    """
    if upkeep is not None:
        saved = upkeep.saving(cluster, checkpoint, devices)
        return saved.goodput, saved.interval_s
    storage = cluster.storage_bytes_per_s or STORAGE_BYTES_PER_S_PER_NODE * cluster.nodes
    failures = schedule.failure_interval_s(DEVICE_FAILURE_INTERVAL_S, devices)
    saving = checkpoint / storage
    interval = schedule.best_checkpoint_interval_s(saving, failures)
    return schedule.goodput(saving, interval, failures, RESTART_S), interval
