"""The serving half of an answer: one replica under a steady load, and what a token costs."""

from __future__ import annotations

from math import inf

from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.case import FORMATS, default_format, read_format
from capacity.estimators.composed import composed_interval
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, model_flop
from capacity.estimators.power import emissions, power_of
from capacity.estimators.pricing import Pricer, peak_flop_per_s
from capacity.estimators.rigs import rivals
from capacity.estimators.serving_time import FRONT_END_PER_TOKEN_S, FRONT_END_S, decode_step, prefill
from capacity.estimators.sharding import shard
from capacity.estimators.training_time import Network
from capacity.formula import scaled, sourced, total
from capacity.formulas import energy, memory, money, schedule, traffic
from capacity.record import Record, replace
from capacity.spec.estimate import Section
from capacity.spec.plan import Plan
from capacity.spec.workload import Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op

# Engines set this share of memory aside for weights, cache and activations.
ENGINE_SHARE = 0.92
# Groups that quantised checkpoints leave at 16 bits.
KEPT_GROUPS = ("embedding", "head", "router")
# Machines of one person, where models are run for one user and in 4 bits.
PERSONAL = ("consumer", "laptop", "embedded", "phone")
# Tokens of one step's activations that must fit beside weights and cache.
ACTIVATION_TOKENS = 8192.0
# A recurrence keeps its state in fp32.
STATE_BYTES = 4.0
# Buffers of the collectives of a replica on several devices.
COMMUNICATOR_BYTES = 0.5e9


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


class Load(Record):
    """One replica at a steady load: memory parts, times by part, and what follows."""

    model: ModelSpec
    workload: Workload
    plan: Plan
    cluster: Cluster
    word: str
    widths: dict[str, float]
    memory: dict[str, float]
    fits: bool
    step: dict[str, float]
    prompt: dict[str, float]
    running: float
    room: Room


def serving_section(case: Case) -> tuple[Section, dict[str, dict[str, float]]]:
    """The verdict, quantities and breakdowns of serving, and what makes their intervals."""
    workload, word, widths = _workload(case)
    load = _load(case, case.model, workload, case.cluster, word, widths)
    variants = tuple(
        _account(case, _load(case, shape, workload, case.cluster, word, widths, plan=load.plan))({})
        for shape in case.shapes
    )
    quantities, sensitivities = with_intervals(_account(case, load), _uncertain(case), variants)
    section = Section(
        title="Serving",
        verdict=_verdict(load, quantities),
        fits=load.fits,
        binding=_binding(load),
        setting=_setting(load),
        quantities=quantities,
        breakdowns={
            "memory": {name: float(value) for name, value in load.memory.items()},
            "time": {name: float(value) for name, value in load.step.items()},
            "prefill time": {name: float(value) for name, value in load.prompt.items()},
        },
        alternatives=_alternatives(case, load, widths),
        warnings=_warnings(case, load),
    )
    return section, sensitivities


def serving_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    workload, word, widths = _workload(case)
    load = _load(case, case.model, workload, case.cluster, word, widths)
    values = {name: value.mid for name, value in _account(case, load)({}).items()}
    return values | {f"memory.{k}": v for k, v in load.memory.items()} | {f"time.{k}": v for k, v in load.step.items()}


def _workload(case: Case) -> tuple[Workload, str, dict[str, float]]:
    """The load, the weight format's name and the stored bytes of a weight by precision group."""
    take, note = case.assumptions.take, case.assumptions.note
    prompt = take("prompt length", case.number("prompt_len", "1", 1.0, 1e8, whole=True), 1024.0, "1", "a usual chat turn")
    output = take("output length", case.number("output_len", "1", 1.0, 1e7, whole=True), 256.0, "1", "a usual answer")
    personal = case.cluster.device.segment in PERSONAL
    concurrency = take("concurrency", case.number("concurrency", "1", 1.0, 1e6, whole=True), 1.0 if personal else 16.0,
                       "1", "one user" if personal else "requests in flight per replica")
    asked = case.request.get("precision")
    checkpoint = case.model.weight_bits
    if asked is None and checkpoint:
        widths = {group: bits / 8.0 for group, bits in checkpoint.items()}
        widths.setdefault("", 2.0)
        narrowest = min(widths.values())
        word = "int4" if narrowest < 0.55 else "nvfp4" if narrowest < 0.8 else "fp8" if narrowest < 1.5 else "bf16"
        note("serving precision", word, "", "model", "the checkpoint's own quantisation")
    else:
        fallback = "int4" if personal and feeding.generates(case.model) else default_format(case.cluster.device)
        word, bits, _ = read_format("--precision", asked, fallback)
        widths = {"": bits / 8.0}
        if bits < 16.0:
            widths |= dict.fromkeys(KEPT_GROUPS, 2.0)
        note("serving precision", word, "", "user" if asked else "default", "embeddings and head kept at 16 bits"
             if bits < 16.0 else "")
    _, kv_bits, _ = read_format("--kv-precision", case.request.get("kv_precision"), "bf16")
    note("KV cache precision", case.request.get("kv_precision", "bf16"), "",
         "user" if "kv_precision" in case.request else "default")
    from capacity.spec.workload import Precision

    precision = Precision(widths[""] * 8.0, 16.0, 0.0, 0.0, kv_bits, FORMATS[word][1])
    return Workload(mode="serve", prompt_len=prompt, output_len=output, concurrency=concurrency,
                    precision=precision), word, widths


def _plan(case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, widths: dict[str, float]) -> Plan:
    """The user's layout, or the fewest devices (a power of two) that hold weights and the asked-for requests."""
    fixed = {name: case.number(name, "1", 1.0, 4096.0, whole=True) for name in ("tp", "pp", "ep", "dp")}
    tp, pp, ep, dp = (fixed[name] for name in ("tp", "pp", "ep", "dp"))
    devices = case.devices if "serve" in case.modes and len(case.modes) == 1 else None
    if tp is None and pp is None and devices is None:
        fewest = _fewest(case, model, workload, cluster, widths)
        tp = fewest.tp if fewest else _most_tp(model, cluster)
        pp = fewest.pp if fewest else 1.0
    elif tp is None:
        if devices is not None:
            room = devices / ((pp or 1.0) * (dp or 1.0))
            tp = _most_tp(model, cluster, room)
        else:
            tp = 1.0
    tp, pp = tp or 1.0, pp or 1.0
    replicas = dp or (max(devices // (tp * pp), 1.0) if devices is not None else 1.0)
    plan = Plan(dp=replicas, tp=tp, pp=pp, ep=ep or 1.0)
    layout.check(model, replace(plan, ep=1.0), plan.devices)
    if devices is not None and plan.devices != devices:
        raise InputError(
            f"{devices:g} devices do not split into replicas of tp {tp:g} x pp {pp:g}; "
            f"use a multiple of {tp * pp:g} or give --tp and --pp"
        )
    if plan.tp > 1.0 and plan.tp > max(cluster.devices_per_node, 1) * 8:
        raise InputError(f"tensor parallelism {plan.tp:g} spans more than 8 nodes of {cluster.devices_per_node}; use --pp")
    return plan


def _most_tp(model: ModelSpec, cluster: Cluster, room: float | None = None) -> float:
    most = float(cluster.devices_per_node) if room is None else min(room, float(cluster.devices_per_node))
    tp = 1.0
    while tp * 2.0 <= most and layout.divides_heads(model, tp * 2.0) and (room is None or room % (tp * 2.0) == 0.0):
        tp *= 2.0
    return tp


def _fewest(
    case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, widths: dict[str, float]
) -> Plan | None:
    """The smallest replica that holds the weights and one request, inside a node first, then over a pipeline."""
    for plan in _replicas(model, cluster):
        room = _room(case, model, workload, plan, cluster, widths)[1]
        if room.left_bytes > 0.0 and room.requests >= 1.0:
            return plan
    return None


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


def _room(
    case: Case, model: ModelSpec, workload: Workload, plan: Plan, cluster: Cluster, widths: dict[str, float]
) -> tuple[dict[str, float], Room]:
    """Fixed memory parts of a device, and what it has left for requests."""
    context = workload.prompt_len + workload.output_len
    table = _step_table(model, 1.0, context)
    kv_width = workload.precision.kv_bits / 8.0
    weights: dict[str, float] = {}
    cache = state = 0.0
    for whole in table:
        op = shard(whole, plan.tp, plan.ep)
        stages = 1.0 if whole.kind == "embedding" or whole.part == "head" else plan.pp
        width = widths.get(op.group or "", widths[""]) if op.kind in ("gemm", "embedding", "conv") else 2.0
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
    groups = COMMUNICATOR_BYTES if plan.tp * plan.pp > 1.0 else 0.0
    parts["runtime"] = sourced(case.profile.context_bytes + groups, "runtime context")
    left = ENGINE_SHARE * cluster.device.memory_bytes - sum(parts.values())
    return parts, Room(max(left, 0.0), cache / context, state, context)


def _step_table(model: ModelSpec, sequences: float, context: float) -> tuple[Op, ...]:
    """Ops of one decode step at a context; of a whole pass for models that do not generate."""
    if not feeding.generates(model):
        return lower(model, feeding.feed(model, sequences, context))
    return lower(model, Tokens(sequences=sequences, queries=1.0, past=context - 1.0, encoder=context, encoded=True))


def _load(
    case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, word: str, widths: dict[str, float],
    plan: Plan | None = None,
) -> Load:
    plan = plan or _plan(case, model, workload, cluster, widths)
    per_node = min(cluster.devices_per_node, int(plan.devices))
    # A replica on part of a node answers for that part of the host.
    host = cluster.host_w * per_node / cluster.devices_per_node
    cluster = replace(
        cluster, devices_per_node=per_node, nodes=max(int(-(-plan.devices // per_node)), 1), host_w=host
    )
    parts, room = _room(case, model, workload, plan, cluster, widths)
    held = room.requests
    fits = room.left_bytes > 0.0 and held >= 1.0
    running = schedule.running_sequences(workload.concurrency, held) if fits else 1.0
    parts["KV cache"] = memory.kv_cache_bytes(running * room.context, room.token_bytes, 1.0)
    if room.state_bytes:
        parts["recurrent state"] = scaled(room.state_bytes, running)
    wide = frozenset(group for group, width in widths.items() if width >= 2.0) if widths[""] < 2.0 else frozenset()
    pricer = Pricer(
        cluster.device, case.profile, FORMATS[word][1], widths, 2.0, workload.precision.kv_bits / 8.0, wide=wide
    )
    network = Network.of(cluster, case.profile)
    if feeding.generates(model):
        step = decode_step(model, plan, network, pricer, running, workload.prompt_len + workload.output_len / 2.0)
        prompt = prefill(model, plan, network, pricer, 1.0, workload.prompt_len)
    else:
        prompt = step = prefill(model, plan, network, pricer, running, workload.prompt_len)
    return Load(model, workload, plan, cluster, word, widths, parts, fits, step, prompt, running, room)


def _account(case: Case, load: Load) -> Any:
    """From priced parts to quantities, for given factors on what is uncertain."""
    workload, cluster, plan = load.workload, load.cluster, load.plan
    table = _step_table(load.model, load.running, workload.prompt_len + workload.output_len / 2.0)
    flop_token = model_flop(table) / load.running
    peak, _ = peak_flop_per_s(cluster.device, FORMATS[load.word][1])
    weights = load.memory["weights"]
    step_mid, prompt_mid = total(load.step), total(load.prompt)
    cache_read = load.running * (workload.prompt_len + workload.output_len / 2.0) * load.room.token_bytes
    cache_read += load.running * load.room.state_bytes * 2.0
    hit = 1.0
    for op in table:
        if op.copies != 1.0:
            hit = traffic.experts_touched(op.copies, op.active, load.running) / op.copies
    active = active_parameter_count(lower(load.model, Tokens()))
    moved = weights * hit + cache_read
    replicas = plan.dp
    whole = _room(case, load.model, workload, Plan(), cluster, load.widths)[1]
    fewest = _fewest(case, load.model, workload, case.cluster, load.widths)

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        step = scaled(step_mid, factor.get("decode time", 1.0))
        prompt = scaled(prompt_mid, factor.get("prefill time", 1.0))
        token = schedule.time_per_output_token_s(
            step, prompt, sourced(workload.output_len, "output length"), load.running
        )
        first = first_token_s(load, step, prompt, token)
        waiting = max(workload.concurrency / load.running - 1.0, 0.0)
        request = schedule.request_time_s(first, token, workload.output_len)
        first = first + waiting * request
        rate = schedule.requests_per_s(scaled(load.running, replicas), request)
        output_rate = rate * workload.output_len
        share = min(moved / (step * cluster.device.memory_bytes_per_s), 1.0)
        used = min(flop_token * load.running / (step * plan.tp * plan.pp * peak), 1.0)
        watts = power_of(cluster, used, share, factor.get("power", 1.0))
        per_token_j = energy.energy_j(watts, 1.0 / output_rate)
        held = scaled(total(load.memory), factor.get("memory", 1.0))
        values = {
            "ttft": Value(first, "s", "time to first token, loaded"),
            "tpot": Value(token, "s", "time per output token, loaded"),
            "request_time": Value(request, "s", "from arrival to last token"),
            "tokens_per_s": Value(output_rate, "1/s", "output tokens, all replicas"),
            "tokens_per_s_per_user": Value(1.0 / token, "1/s", "output tokens each request sees"),
            "requests_per_s": Value(rate, "1/s", "finished requests, all replicas"),
            "prefill_tokens_per_s": Value(workload.prompt_len / prompt, "1/s", "of one prompt alone"),
            "running": Value(load.running, "1", "requests decoded together, each replica"),
            "device_memory": Value(cluster.device.memory_bytes, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(held, "byte", "weights, KV cache, activations, runtime"),
            "kv_bytes_per_token": Value(whole.token_bytes, "byte", "averaged over the context, before sharding"),
            "state_bytes_per_request": Value(whole.state_bytes, "byte", "of recurrent layers, before sharding"),
            "most_concurrent": Value(load.room.requests, "1", "requests of this length that fit, each replica"),
            "longest_context": Value(_longest_context(load), "1", "tokens of a single request"),
            "flop_per_token": Value(flop_token, "FLOP", "one output token at mid-answer"),
            "active_parameters": Value(active, "1", "a token passes"),
            "arithmetic_intensity": Value(
                traffic.arithmetic_intensity(flop_token * load.running / (plan.tp * plan.pp), moved),
                "FLOP/byte", "of a decode step",
            ),
            "ridge_point": Value(
                traffic.ridge_point(peak, cluster.device.memory_bytes_per_s), "FLOP/byte", "where bandwidth stops binding"
            ),
            "bandwidth_share": Value(share, "fraction", "of memory bandwidth in a decode step"),
            "power": Value(watts, "W", "drawn from the grid under this load"),
            "energy_per_token": Value(per_token_j, "J", "an output token, prompts included"),
            "carbon_per_million_tokens": Value(emissions(cluster, per_token_j) * 1e6, "g", "output tokens"),
        }
        if cluster.usd_per_device_hour is not None:
            second = cluster.usd_per_device_hour / 3600.0 * factor.get("price", 1.0)
            values["cost_per_million_tokens"] = Value(
                money.usd_per_token(second, plan.devices, output_rate) * 1e6, "USD", "output tokens, prompts included"
            )
            values["cost_per_hour"] = Value(second * 3600.0 * plan.devices, "USD", "all replicas")
        if fewest is not None:
            values["fewest_devices"] = Value(fewest.devices, "1", "that hold the weights and one request")
        return values

    return quantities


def _longest_context(load: Load) -> float:
    """Tokens of a single request that has the replica to itself, as far as the model was built for."""
    built_for = load.model.max_positions or inf
    if not load.room.token_bytes:
        return built_for
    return min(max(load.room.left_bytes - load.room.state_bytes, 0.0) / load.room.token_bytes, built_for)


def first_token_s(load: Load, step: float, prompt: float, token: float) -> float:
    """Time to first token of one request among those running, before any wait for KV cache."""
    busy = min(load.running * prompt / (token * load.workload.output_len), 0.9)
    front = sourced(FRONT_END_S + FRONT_END_PER_TOKEN_S * load.workload.prompt_len, "server front end")
    return schedule.time_to_first_token_s(prompt, step, busy, front)


def _uncertain(case: Case) -> tuple[Uncertain, ...]:
    uncertain = [
        composed_interval("decode time", "tpot", case.profile),
        composed_interval("prefill time", "ttft", case.profile),
        composed_interval("memory", "serving_memory", case.profile),
        composed_interval("power", "power", case.profile),
    ]
    if case.cluster.usd_per_device_hour is not None and "price" not in case.request:
        uncertain.append(Uncertain("price", 0.6, 1.5, "list prices of providers differ"))
    return tuple(uncertain)


def _binding(load: Load) -> str:
    if not load.fits:
        return "memory"
    places = {
        "weights": "memory bandwidth", "experts": "memory bandwidth", "attention and KV cache": "memory bandwidth",
        "activations": "memory bandwidth", "recurrent state": "memory bandwidth", "small kernels": "launch latency",
        "engine": "launch latency",
    }
    kinds: dict[str, float] = {}
    for name, seconds in load.step.items():
        kind = places.get(name, "network")
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return max(kinds, key=lambda kind: kinds[kind])


def _setting(load: Load) -> str:
    plan = load.plan
    sizes = (("replicas", plan.dp), ("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep))
    cuts = [f"{name} {size:g}" for name, size in sizes if size > 1.0]
    load_ = load.workload
    return (
        f"{plan.devices:g} x {load.cluster.device.name}; {', '.join([*cuts, load.word])}, "
        f"{load_.concurrency:g} requests of {load_.prompt_len:g} + {load_.output_len:g} tokens"
    )


def _verdict(load: Load, quantities: Mapping[str, Any]) -> str:
    from capacity.quantities import format

    capacity = load.cluster.device.memory_bytes
    need = format(quantities["memory_per_device"].mid, "byte", binary=True)
    amount = f"{need} of {format(capacity, 'byte', binary=True)}"
    if not load.fits:
        short = max(sum(load.memory.values()) - ENGINE_SHARE * capacity, 0.0)
        fewest = quantities.get("fewest_devices")
        hint = (
            f"; {fewest.mid:g} devices hold it" if fewest is not None and fewest.mid > load.plan.tp * load.plan.pp
            else "; quantise it or take a larger device" if fewest is None else ""
        )
        return f"DOES NOT FIT: needs {amount} per device, {format(short, 'byte', binary=True)} too much{hint}"
    token, rate = quantities["tpot"], quantities["tokens_per_s"]
    return (
        f"fits: {amount}; a token every {format(token.mid, 's')}, {format(rate.mid, '1')} tokens/s; "
        f"bound by {_binding(load)}"
    )


def _alternatives(case: Case, load: Load, widths: dict[str, float]) -> tuple[dict[str, Any], ...]:
    """The same requests on the fewest of other devices."""
    free = {key: value for key, value in case.request.items() if key not in ("tp", "pp", "dp", "ep")}
    rows: list[dict[str, Any]] = []
    for cluster, profile in rivals(case.cluster, case.profile, tuple(case.request.get("catalogue", ()))):
        device = cluster.device
        try:
            other = _load(replace(case, request=free, profile=profile, cluster=cluster, devices=None), load.model,
                          load.workload, cluster, load.word, widths)
        except InputError:
            continue
        step, prompt = sum(other.step.values()), sum(other.prompt.values())
        token = schedule.time_per_output_token_s(step, prompt, load.workload.output_len, other.running)
        request = schedule.request_time_s(prompt, token, load.workload.output_len)
        rate = other.running * load.workload.output_len / request
        rows.append({
            "device": device.id,
            "devices": float(other.plan.devices),
            "fits": other.fits,
            "memory_per_device_bytes": float(sum(other.memory.values())),
            "tpot_s": float(token),
            "tokens_per_s": float(rate),
            "cost_per_million_tokens_usd": float(
                device.usd_per_hour / 3600.0 * other.plan.devices / rate * 1e6
            ) if device.usd_per_hour is not None else None,
        })
    return tuple(sorted(rows, key=lambda row: (not row["fits"], row["tpot_s"])))


def _warnings(case: Case, load: Load) -> tuple[str, ...]:
    warnings = []
    if load.fits and load.running < load.workload.concurrency:
        warnings.append(
            f"the KV cache holds {load.running:.0f} of {load.workload.concurrency:g} requests; the others wait"
        )
    if case.profile.basis != "measured":
        warnings.append(f"kernel efficiencies of {load.cluster.device.name} are carried from other architectures")
    longest = load.model.max_positions
    if longest and load.workload.prompt_len + load.workload.output_len > longest:
        warnings.append(f"requests are longer than the model's {longest:g} positions")
    return tuple(warnings)
