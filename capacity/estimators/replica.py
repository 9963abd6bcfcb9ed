"""One replica that serves: its layout, what its memory holds, how long its steps take."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.case_cluster import whole
from capacity.estimators.replica_layout import replica_plan
from capacity.estimators.replica_memory import room_of
from capacity.estimators.serving_time import (
    Busy,
    Prompt,
    busy_of,
    decode_kernels,
    decode_step,
    mixed_work,
    one_pass,
    pass_kernels,
    prefill,
    shared_work,
)
from capacity.estimators.work import Kernel, Machine
from capacity.formula import scaled, total
from capacity.formulas import collectives, memory, schedule
from capacity.laws.engine import fitted_engines
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.estimators.replica_memory import Room
    from capacity.estimators.serving_case import Service
    from capacity.spec.device import Cluster, Device
    from capacity.spec.model import ModelSpec
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# Two pools agree on where a cache goes before it moves: of messages over their network.
HAND_OVER_S = 5e-3


class Load(Record):
    """One replica at a steady load: memory parts, times by part, and what follows.

    step: of one decode step; work: what one prompt adds to the steps it is read in; prompt: reading one with nothing
    else to do. busy: how busy a step keeps a device, with its share of prompts. running: requests in flight together on the replica; decoding: of these in a step of one attention rank.
    shared: what one prompt takes of a pool of its own where others are read with it.
    """

    model: ModelSpec
    workload: Workload
    plan: Plan
    cluster: Cluster
    service: Service
    memory: dict[str, float]
    fits: bool
    step: dict[str, float]
    work: dict[str, float]
    prompt: dict[str, float]
    busy: Busy
    running: float
    room: Room
    hand_over_s: float = 0.0
    decoding: float = 0.0
    shared: dict[str, float] = {}

    @property
    def each(self) -> float:
        """Requests that run on one attention rank."""
        return self.running / self.plan.attention_dp


def machine_of(cluster: Cluster, service: Service) -> Machine:
    """The devices of a replica with the formats it serves in."""
    device = cluster.device
    engine = service.engine
    return Machine(
        cluster,
        service.formats,
        service.kv_format,
        service.kv_bytes,
        reached(device, "reach"),
        reached(device, "pace"),
        engine.half_accumulate,
        engine.warp_products,
        engine.vector_products,
        engine.unpacks,
        engine.wide_copies,
        engine.chunk_tokens if engine.scores else 0.0,
        engine.expands,
        engine.loops,
        engine.law.core_bytes_per_s,
        service.adapters,
        service.adapter_rank,
        {},
    )


def load_replica(
    case: Case,
    model: ModelSpec,
    workload: Workload,
    cluster: Cluster,
    service: Service,
    plan: Plan | None = None,
) -> Load:
    """A replica at a steady load: the user's layout or the smallest, its memory and its times."""
    plan = plan or replica_plan(case, model, workload, cluster, service)
    engine = service.engine
    per_node = ops.minimum(cluster.devices_per_node, whole(plan.devices))
    # A replica on part of a node answers for that part of the host.
    host = cluster.host_w * per_node / cluster.devices_per_node
    machine = machine_of(cluster, service)
    nodes = whole(ops.maximum(ops.ceil(plan.devices / per_node), 1.0))
    cluster = replace(cluster, devices_per_node=whole(per_node), nodes=nodes, host_w=host)
    parts, room = room_of(case, model, workload, plan, cluster, service)
    fits = room.holds
    ranks = plan.attention_dp
    held = schedule.running_sequences(workload.concurrency, room.requests * ranks)
    running = ops.maximum(ops.where(fits, held, workload.concurrency), ranks)
    parts["KV cache"] = memory.kv_cache_bytes(running / ranks * room.context, room.token_bytes, 1.0)
    if ops.anywhere(room.state_bytes):
        parts["recurrent state"] = scaled(room.state_bytes, running / ranks)
    shared: dict[str, float] = {}
    if feeding.generates(model):
        each = decoding = running / ranks
        known = workload.prompt_len * service.prefix_hit
        fresh = ops.maximum(workload.prompt_len - known, 1.0)
        if service.pooled:
            read = Prompt(model, service.prefill_plan, machine, fresh, known, engine.chunk_tokens)
            prompt = prefill(read, engine)
            shared = shared_work(read, service.prefill_plan, machine, engine)
            work = {"apart": 0.0}
            step, decoding, busy = _handed_step(
                model, plan, machine, workload, service, each, total(prompt), total(shared)
            )
        else:
            found = decode_kernels(
                model, plan, machine, each, workload.prompt_len, written_of(workload, service), service.drafted
            )
            step = decode_step(found, engine, each, sampled=service.sampled)
            read = Prompt(model, plan, machine, fresh, known, engine.chunk_tokens)
            prompt = prefill(read, engine)
            work = mixed_work(read, plan, machine, engine, found, each, workload.output_len, service.drafted)
            # While a request writes, the prompts of those that take the others' places are read.
            others = (each - 1.0) * (1.0 + service.accepted) / workload.output_len
            busy = busy_of(found, machine, engine.law).with_share(
                busy_of([*read.chunk, *read.core], machine, engine.law), others * read.chunks
            )
        if room.offload is not None and not service.pooled:
            from capacity.estimators.serving_offload import with_host

            step, prompt = with_host(model, workload, cluster, room, each, read.chunks, step, prompt, plan.tp * plan.pp)
        if ops.anywhere(plan.pp > 1.0) and not service.pooled:
            # Chunks of one prompt follow each other through the stages.
            passed = schedule.pipelined_share(read.chunks, plan.pp)
            prompt = {name: scaled(value, passed) for name, value in prompt.items()}
    else:
        decoding = running
        found = pass_kernels(model, plan, machine, running, workload.prompt_len)
        prompt = step = work = one_pass(found, engine)
        busy = busy_of(found, machine, engine.law)
    hand_over = 0.0
    if service.pooled and feeding.generates(model):
        # A rank sends what its peers of the other pool hold of the prompt's keys and values.
        moved = workload.prompt_len * room.token_bytes + room.state_bytes
        hand_over = collectives.point_to_point_time_s(moved, machine.link(plan.devices + 1e9), HAND_OVER_S)
    return Load(
        model,
        workload,
        plan,
        cluster,
        service,
        parts,
        fits,
        step,
        work,
        prompt,
        busy,
        running,
        room,
        hand_over,
        decoding,
        shared,
    )


def written_of(workload: Workload, service: Service) -> float:
    """Tokens that a request found in flight has written, on average."""
    return schedule.mean_written(workload.output_len, service.variation)


def _handed_step(
    model: ModelSpec,
    plan: Plan,
    machine: Machine,
    workload: Workload,
    service: Service,
    each: float,
    prompt: float,
    shared: float,
) -> tuple[dict[str, float], float, Busy]:
    """The decode step where others read the prompts, and its batch: those that are being read, or wait, are not in it."""
    workers, groups = service.prefill_workers, service.prefill_plan.attention_dp
    requests = each * plan.attention_dp * plan.dp
    written = written_of(workload, service)

    def kernels_of(running: float) -> list[Kernel]:
        return decode_kernels(model, plan, machine, running, workload.prompt_len, written, service.drafted)

    def step_of(running: float) -> dict[str, float]:
        return decode_step(kernels_of(running), service.engine, running, sampled=service.sampled)

    decoding_each, step = each, step_of(each)
    for _ in range(_SETTLING):
        decoding = total(step) * workload.output_len / (1.0 + service.accepted)
        away = prompt + schedule.pool_wait_s(prompt, shared, workers, groups, requests, decoding)
        found = ops.maximum(each * decoding / (decoding + away), 1.0)
        # Half of the way at a time: a shorter step sends requests back sooner.
        decoding_each = (decoding_each * found) ** 0.5
        step = step_of(decoding_each)
    return step, decoding_each, busy_of(kernels_of(decoding_each), machine, service.engine.law)


# Rounds after which the batch of a pool that decodes has settled.
_SETTLING = 5


def reached(device: Device, what: str) -> float:
    """Share of the datasheet's memory bandwidth ("reach") or peak ("pace") this device gives, relative to measured ones."""
    table = fitted_engines().get(what, {})
    return float(table.get(device.id, table.get(device.architecture, 1.0)))
