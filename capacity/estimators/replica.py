"""One replica that serves: its layout, what its memory holds, how long its steps take."""

from __future__ import annotations

from math import inf

from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.lowering import lower
from capacity.estimators.serving_time import Prompt, decode_step, one_pass, prefill, prompt_work
from capacity.estimators.sharding import shard_replica
from capacity.estimators.work import Machine
from capacity.formula import scaled, sourced, total
from capacity.formulas import collectives, memory, schedule
from capacity.laws.engine import fitted_engines
from capacity.record import Record, replace
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.estimators.case import Case
    from capacity.laws.engine import Engine
    from capacity.spec.device import Cluster, Device
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.workload import Workload

# Machines of one person, where models are run for one user and in 4 bits.
PERSONAL = ("consumer", "laptop", "embedded", "phone")
# Tokens of one step's activations that must fit beside weights and cache.
ACTIVATION_TOKENS = 8192.0
# A recurrence keeps its state in fp32.
STATE_BYTES = 4.0
# Two pools agree on where a cache goes before it moves.
HAND_OVER_S = 5e-3
# Buffers of the collectives of a replica on several devices.
COMMUNICATOR_BYTES = 0.5e9


class Service(Record):
    """How requests are served, whatever the device: engine, formats and what a load looks like.

    word: the weight format's name; formats: by precision group; kv_format, kv_bytes: of the cache. spread: lengths lie
    between 1 - spread and 1 of the longest; variation: deviation of an answer's length over its mean. burst: share of
    requests that arrive together at the start, and of those that still do a round later. prefix_hit: share of prompt
    tokens whose keys are cached already. drafted: tokens proposed for each checked one; accepted: of these
    on average. receive_steps: decode steps after which the engine looks for new requests. sampled: tokens
    are drawn, not the likeliest taken.
    prefill_workers: replicas that only read prompts, laid out by prefill_plan, and hand the cache over (0: none).
    """

    engine: Engine
    word: str
    formats: dict[str, tuple[str, float]]
    kv_format: str
    kv_bytes: float
    spread: float = 0.2
    variation: float = 0.0
    burst: float = 0.14
    prefix_hit: float = 0.0
    drafted: float = 0.0
    accepted: float = 0.0
    receive_steps: float = 1.0
    sampled: bool = True
    prefill_workers: float = 0.0
    prefill_plan: Plan = Plan()

    @property
    def widths(self) -> dict[str, float]:
        """Stored bytes of a weight by precision group."""
        return {group: width for group, (_, width) in self.formats.items()}

    def room_for(self, memory_bytes: float, parts: float) -> float:
        """Bytes of one device that are left for requests beside its fixed parts."""
        left = self.engine.memory_share * memory_bytes - parts - self.engine.runtime_bytes
        return max(left * self.engine.free_share, 0.0)


class Footprint(Record):
    """What one device holds of a replica, whatever the device: bytes of weights and activations by part.

    token_bytes: KV cache of one request per token, averaged over its context; state_bytes: of a recurrence.
    """

    parts: dict[str, float]
    token_bytes: float
    state_bytes: float
    workload: Workload
    formats: dict[str, tuple[str, float]]


class Room(Record):
    """What one device has for requests: bytes left beside the fixed parts, and what one request of a context takes.

    token_bytes: KV cache per token, averaged over the context (a window keeps less); state_bytes: of a recurrence.
    """

    left_bytes: float
    token_bytes: float
    state_bytes: float
    context: float

    @property
    def request_bytes(self) -> float:
        """Bytes of one whole request."""
        return self.token_bytes * self.context + self.state_bytes

    @property
    def requests(self) -> float:
        """Requests that fit: any number where a request keeps nothing."""
        return schedule.held_requests(self.left_bytes, self.request_bytes) if self.request_bytes else inf

    @property
    def holds(self) -> bool:
        """Whether one request fits at all."""
        return self.left_bytes > 0.0 and self.requests >= 1.0


class Load(Record):
    """One replica at a steady load: memory parts, times by part, and what follows.

    step: of one decode step; work: what one prompt adds to the steps it is read in; prompt: reading one with nothing
    else to do. running: requests in flight together on the replica; decoding: of these in a step of one attention rank.
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
    running: float
    room: Room
    hand_over_s: float = 0.0
    decoding: float = 0.0

    @property
    def each(self) -> float:
        """Requests that run on one attention rank."""
        return self.running / self.plan.attention_dp


def _plan(case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, service: Service) -> Plan:
    """The user's layout, or the fewest devices (a power of two) that hold weights and the asked-for requests."""
    fixed = {name: case.number(name, "1", 1.0, 4096.0, whole=True) for name in ("tp", "pp", "ep", "dp")}
    tp, pp, ep, dp = (fixed[name] for name in ("tp", "pp", "ep", "dp"))
    groups = case.number("attention_dp", "1", 1.0, 4096.0, whole=True) or 1.0
    # Beside training, devices and experts are dealt for that.
    alone = case.modes == ("serve",)
    devices = case.devices if alone else None
    ep = (ep if alone else None) or 1.0
    if tp is None and pp is None and devices is None:
        fewest = fewest_replica(case, model, workload, cluster, service)
        tp = max(fewest.tp if fewest else _most_tp(model, cluster), ep)
        pp = fewest.pp if fewest else 1.0
        if groups > 1.0:
            tp = max(tp // groups, 1.0)
    elif tp is None:
        if devices is not None:
            room = devices / ((pp or 1.0) * (dp or 1.0) * groups)
            tp = _most_tp(model, cluster, room)
            if pp is None:
                pp = _stages(case, model, workload, cluster, service, tp, room)
        else:
            tp = ep
    tp, pp = tp or 1.0, pp or 1.0
    replicas = dp or (max(devices // (tp * pp * groups), 1.0) if devices is not None else 1.0)
    plan = Plan(dp=replicas, tp=tp, pp=pp, ep=ep, attention_dp=groups)
    layout.check(model, replace(plan, ep=1.0), plan.devices)
    layout.check_experts(model, plan)
    if plan.tp * plan.attention_dp % plan.ep:
        raise InputError(
            f"ep={plan.ep:g} must divide tp={plan.tp:g} x attention_dp={plan.attention_dp:g}: a replica deals its experts "
            "over these ranks"
        )
    if devices is not None and plan.devices != devices:
        raise InputError(
            f"{devices:g} devices do not split into replicas of tp {tp:g} x pp {pp:g}"
            f"{f' x attention_dp {groups:g}' if groups > 1.0 else ''}; use a multiple of {tp * pp * groups:g} or give --tp and --pp"
        )
    if plan.tp > 1.0 and plan.tp > max(cluster.devices_per_node, 1) * 8:
        raise InputError(
            f"tensor parallelism {plan.tp:g} spans more than 8 nodes of {cluster.devices_per_node}; use --pp"
        )
    return plan


def _most_tp(model: ModelSpec, cluster: Cluster, room: float | None = None) -> float:
    most = float(cluster.devices_per_node) if room is None else min(room, float(cluster.devices_per_node))
    tp = 1.0
    while tp * 2.0 <= most and layout.divides_heads(model, tp * 2.0) and (room is None or room % (tp * 2.0) == 0.0):
        tp *= 2.0
    return tp


def fewest_replica(case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, service: Service) -> Plan | None:
    """The smallest replica that holds the weights and one request, inside a node first, then over a pipeline."""
    for plan in _replicas(model, cluster):
        if room_of(case, model, workload, plan, cluster, service)[1].holds:
            return plan
    return None


def _stages(
    case: Case,
    model: ModelSpec,
    workload: Workload,
    cluster: Cluster,
    service: Service,
    tp: float,
    devices: float,
) -> float:
    """Fewest pipeline stages, a power of two, that hold the weights and one request on these devices; else 1."""
    pp, most = 1.0, min(devices / tp, feeding.layer_count(model))
    while pp <= most and devices % (tp * pp) == 0.0:
        if room_of(case, model, workload, Plan(tp=tp, pp=pp), cluster, service)[1].holds:
            return pp
        pp *= 2.0
    return 1.0


def _replicas(model: ModelSpec, cluster: Cluster) -> Iterator[Plan]:
    tp = 1.0
    while tp <= cluster.devices_per_node:
        if layout.divides_heads(model, tp):
            yield Plan(tp=tp)
        tp *= 2.0
    tp, pp = _most_tp(model, cluster), 2.0
    while pp <= min(64.0, feeding.layer_count(model)):
        yield Plan(tp=tp, pp=pp)
        pp *= 2.0


def room_of(
    case: Case, model: ModelSpec, workload: Workload, plan: Plan, cluster: Cluster, service: Service
) -> tuple[dict[str, float], Room]:
    """Fixed memory parts of a device, and what it has left for requests."""
    # Each device compared with, and each quantity that looks at other layouts, asks for the same few.
    key = (id(model), plan.tp, plan.pp, plan.ep, plan.attention_dp)
    held = case.footprints.get(key)
    if held is None or held.workload is not workload or held.formats is not service.formats:
        held = case.footprints[key] = footprint(model, workload, plan, service.formats)
    parts = dict(held.parts)
    groups = COMMUNICATOR_BYTES if plan.tp * plan.pp * plan.attention_dp > 1.0 else 0.0
    parts["runtime"] = sourced(case.profile.context_bytes + groups, "runtime context")
    if service.engine.weight_copies > 1.0 and service.formats[""][1] < 2.0:
        parts["repacked weights"] = scaled(parts["weights"], service.engine.weight_copies - 1.0)
    left = service.room_for(cluster.device.memory_bytes, sum(parts.values()))
    context = workload.prompt_len + workload.output_len * service.engine.reserved
    return parts, Room(left, held.token_bytes, held.state_bytes, context)


def footprint(model: ModelSpec, workload: Workload, plan: Plan, formats: dict[str, tuple[str, float]]) -> Footprint:
    """What one device holds of a replica laid out by `plan`."""
    context = workload.prompt_len + workload.output_len
    table = step_table(model, 1.0, workload.prompt_len, workload.output_len)
    kv_width = workload.precision.kv_bits / 8.0
    weights: dict[str, float] = {}
    cache = state = 0.0
    for whole in table:
        op = shard_replica(whole, plan)
        stages = 1.0 if whole.kind == "embedding" or whole.part == "head" else plan.pp
        _, width = formats.get(op.group, formats[""]) if op.kind in ("gemm", "embedding", "conv") else ("", 2.0)
        elements = whole.count * op.copies * op.weight_elements
        weights[whole.part] = weights.get(whole.part, 0.0) + memory.weight_bytes(elements, width, stages)
        if op.kind == "attention":
            held = memory.cached_tokens(1.0, op.keys, op.window)
            cache += whole.count * held * op.cache_elements / plan.pp * kv_width
        elif op.kind == "scan":
            state += whole.count * op.heads * op.key_size * op.value_size * STATE_BYTES / plan.pp
    parts = {"weights": total(weights)}
    widest = max((op.n for op in table if op.kind == "gemm" and op.part != "head"), default=model.hidden)
    batch_tokens = min(ACTIVATION_TOKENS, workload.prompt_len * workload.concurrency)
    parts["activations"] = memory.ffn_activation_bytes(batch_tokens, widest, 2.0, plan.tp, 2.0)
    return Footprint(parts, cache / context, state, workload, formats)


def step_table(model: ModelSpec, sequences: float, prompt: float, written: float) -> tuple[Op, ...]:
    """Ops of the decode step after `written` tokens; of a whole pass for models that do not generate."""
    if not feeding.generates(model):
        return lower(model, feeding.feed(model, sequences, prompt))
    return lower(model, feeding.next_token(sequences, prompt, written, apart=feeding.reads_apart(model)))


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
        engine.unpacks,
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
    plan = plan or _plan(case, model, workload, cluster, service)
    engine = service.engine
    per_node = min(cluster.devices_per_node, int(plan.devices))
    # A replica on part of a node answers for that part of the host.
    host = cluster.host_w * per_node / cluster.devices_per_node
    machine = machine_of(cluster, service)
    cluster = replace(cluster, devices_per_node=per_node, nodes=max(int(-(-plan.devices // per_node)), 1), host_w=host)
    parts, room = room_of(case, model, workload, plan, cluster, service)
    fits = room.holds
    ranks = plan.attention_dp
    running = schedule.running_sequences(workload.concurrency, room.requests * ranks) if fits else workload.concurrency
    running = max(running, ranks)
    parts["KV cache"] = memory.kv_cache_bytes(running / ranks * room.context, room.token_bytes, 1.0)
    if room.state_bytes:
        parts["recurrent state"] = scaled(room.state_bytes, running / ranks)
    if feeding.generates(model):
        each = decoding = running / ranks
        written = schedule.mean_written(workload.output_len, service.variation)
        known = workload.prompt_len * service.prefix_hit
        fresh = max(workload.prompt_len - known, 1.0)
        step = decode_step(
            model,
            plan,
            machine,
            engine,
            each,
            workload.prompt_len,
            written,
            service.drafted,
            service.sampled,
        )
        read = Prompt(
            model, plan, machine, fresh, known, engine.chunk_tokens, max(each / plan.pp, 1.0), workload.output_len
        )
        work = prompt_work(model, read, engine)
        prompt = prefill(model, engine, read)
        if service.prefill_workers:
            pool = service.prefill_plan
            read = Prompt(model, pool, machine, fresh, known, engine.chunk_tokens, 1.0, workload.output_len)
            prompt = prefill(model, engine, read)
            work = {"apart": 0.0}
            step, decoding = _handed_step(model, plan, machine, workload, service, each, step, total(prompt))
        if plan.pp > 1.0:
            # Chunks of one prompt follow each other through the stages.
            passed = schedule.pipelined_share(read.tokens / read.chunk_tokens, plan.pp)
            prompt = {name: scaled(value, passed) for name, value in prompt.items()}
    else:
        decoding = running
        prompt = step = work = one_pass(model, plan, machine, engine, running, workload.prompt_len)
    hand_over = 0.0
    if service.prefill_workers and feeding.generates(model):
        # A rank sends what its peers of the other pool hold of the prompt's keys and values.
        moved = workload.prompt_len * room.token_bytes + room.state_bytes
        hand_over = collectives.point_to_point_time_s(moved, machine.link(plan.devices + 1e9), HAND_OVER_S)
    return Load(
        model, workload, plan, cluster, service, parts, fits, step, work, prompt, running, room, hand_over, decoding
    )


def _handed_step(
    model: ModelSpec,
    plan: Plan,
    machine: Machine,
    workload: Workload,
    service: Service,
    each: float,
    step: dict[str, float],
    prompt: float,
) -> tuple[dict[str, float], float]:
    """The decode step where others read the prompts, and its batch: those that are being read, or wait, are not in it."""
    servers = service.prefill_workers * service.prefill_plan.attention_dp
    requests = each * plan.attention_dp * plan.dp
    decoding_each = each
    for _ in range(_SETTLING):
        decoding = total(step) * workload.output_len / (1.0 + service.accepted)
        away = prompt + schedule.pool_wait_s(prompt, servers, requests, decoding)
        found = max(each * decoding / (decoding + away), 1.0)
        # Half of the way at a time: a shorter step sends requests back sooner.
        decoding_each = (decoding_each * found) ** 0.5
        step = decode_step(
            model,
            plan,
            machine,
            service.engine,
            decoding_each,
            workload.prompt_len,
            schedule.mean_written(workload.output_len, service.variation),
            service.drafted,
            service.sampled,
        )
    return step, decoding_each


# Rounds after which the batch of a pool that decodes has settled.
_SETTLING = 5


def first_token_s(load: Load, step: float, work: float, prompt: float, decoding: float) -> float:
    """Time to first token of one request among those running, before any wait for KV cache.

    decoding: seconds a request spends on its answer, stalls by prompts left out.
    """
    engine, tokens = load.service.engine, load.workload.prompt_len
    front = sourced(engine.front_end_s, "front end of the server", engine.source, "measured")
    front = total({"front end": front, "tokens": scaled(engine.front_end_token_s, tokens)})
    each = load.each
    looks = scaled(step, 0.5 * load.service.receive_steps)
    if engine.prefill_first and not load.service.spread:
        waiting = schedule.lock_step_wait_s(work, each)
    else:
        waiting = schedule.prompt_queue_wait_s(work, decoding, each)
        waiting = waiting if load.service.spread else schedule.group_wait_s(work, each, waiting)
    burst = schedule.burst_wait_s(work, max(load.workload.concurrency / load.plan.attention_dp, each))
    return schedule.time_to_first_token_s(prompt, looks, waiting, burst, load.service.burst, front)


def handed_token_s(load: Load, prompt: float, decoding: float) -> float:
    """Time to first token where a pool of its own reads the prompts, before any wait for KV cache."""
    engine, service = load.service.engine, load.service
    front = sourced(engine.front_end_s, "front end of the server", engine.source, "measured")
    front = total(
        {
            "front end": front,
            "tokens": scaled(engine.front_end_token_s, load.workload.prompt_len),
            "hand-over of the cache": load.hand_over_s,
        }
    )
    # Each group of a worker's ranks reads a prompt of its own.
    servers = service.prefill_workers * service.prefill_plan.attention_dp
    requests = scaled(load.running, load.plan.dp)
    waiting = schedule.pool_wait_s(prompt, servers, requests, decoding)
    burst = scaled(schedule.burst_wait_s(prompt, requests), 1.0 / servers)
    return schedule.time_to_first_token_s(prompt, 0.0, waiting, burst, service.burst, front)


def reached(device: Device, what: str) -> float:
    """Share of the datasheet's memory bandwidth ("reach") or peak ("pace") this device gives, relative to measured ones."""
    table = fitted_engines().get(what, {})
    return float(table.get(device.id, table.get(device.architecture, 1.0)))
