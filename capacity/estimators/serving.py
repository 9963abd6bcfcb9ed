"""The serving half of an answer: one replica under a steady load, and what a token costs."""

from __future__ import annotations

from math import inf

from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.assumptions import one_of
from capacity.estimators.case import FORMATS, default_format, read_format
from capacity.estimators.checkpoint import checkpoint_formats, is_gguf
from capacity.estimators.composed import composed_interval
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, model_flop
from capacity.estimators.power import device_power_of, emissions, power_of
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.replica import (
    PERSONAL,
    Service,
    fewest_replica,
    first_token_s,
    handed_token_s,
    load_replica,
    room_of,
    step_table,
)
from capacity.estimators.rigs import rivals
from capacity.formula import scaled, sourced, total
from capacity.formulas import energy, money, schedule, traffic
from capacity.laws.engine import load_engine
from capacity.record import replace
from capacity.spec.estimate import Section
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.replica import Load
    from capacity.laws.engine import Engine
    from capacity.spec.device import Cluster, Device
    from capacity.spec.estimate import Quantity
    from capacity.spec.op import Op


def serving_section(case: Case) -> tuple[Section, dict[str, dict[str, float]]]:
    """The verdict, quantities and breakdowns of serving, and what makes their intervals."""
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    variants = tuple(
        _account(case, load_replica(case, shape, workload, case.cluster, service, plan=load.plan))({})
        for shape in case.shapes
    )
    quantities, sensitivities = with_intervals(_account(case, load), _uncertain(case, service), variants)
    if any(name in case.request for name in ("request_rate", "ttft_slo", "tpot_slo", "percentile", "night")):
        from capacity.estimators.service import service_values

        found, _ = with_intervals(lambda _: service_values(case, workload, service, load), ())
        quantities |= found
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
        alternatives=_alternatives(case, load),
        warnings=_warnings(case, load),
    )
    return section, sensitivities


def serving_quantities(case: Case) -> tuple[Load, dict[str, Quantity]]:
    """The replica and every quantity with its interval, without what is shown beside them."""
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    quantities, _ = with_intervals(_account(case, load, alone=True), _uncertain(case, service))
    return load, quantities


def serving_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    values = {name: value.mid for name, value in _account(case, load)({}).items()}
    return values | {f"memory.{k}": v for k, v in load.memory.items()} | {f"time.{k}": v for k, v in load.step.items()}


def read_service(case: Case) -> tuple[Workload, Service]:
    """The load, and how it is served."""
    take, note = case.assumptions.take, case.assumptions.note
    generates, longest = feeding.generates(case.model), feeding.longest(case.model) or inf
    usual = min(1024.0, longest * 0.75 // 1.0) if generates else min(512.0, longest)
    prompt = take(
        "prompt length",
        case.number("prompt_len", "1", 1.0, 1e8, whole=True),
        usual,
        "1",
        "a usual chat turn" if generates else "what the model reads at once",
    )
    output = 0.0
    if generates:
        output = take(
            "output length",
            case.number("output_len", "1", 1.0, 1e7, whole=True),
            min(256.0, longest - usual),
            "1",
            "a usual answer",
        )
    personal = case.cluster.device.segment in PERSONAL
    concurrency = take(
        "concurrency",
        case.number("concurrency", "1", 1.0, 1e6, whole=True),
        1.0 if personal else 16.0,
        "1",
        "one user" if personal else "requests in flight per replica",
    )
    word = _weight_format(case, personal)
    engine = load_engine(_engine_name(case, word, personal), processor(case.cluster.device))
    note(
        "engine",
        f"{engine.name} {engine.versions}",
        "",
        "user" if "engine" in case.request else "default",
        engine.source,
    )
    formats = checkpoint_formats(case.model, word, case.number("weight_bits", "1", 1.0, 32.0))
    cache = case.request.get("kv_precision")
    cache, kv_bits, _ = read_format("--kv-precision", cache, _cache_format(case, engine, formats))
    tag = "user" if "kv_precision" in case.request else "default"
    note("KV cache precision", cache, "", tag, "" if tag == "user" else f"{engine.name}'s own")
    service = Service(
        engine=engine,
        word=word,
        formats=formats,
        kv_format={"fp8": "fp8", "int8": "int8", "int4": "int4", "nvfp4": "int4"}.get(cache, "bf16"),
        kv_bytes=kv_bits / 8.0,
        **_habits(case),
    )
    precision = Precision(service.formats[""][1] * 8.0, 16.0, 0.0, 0.0, kv_bits, FORMATS[word][1])
    workload = Workload(
        mode="serve", prompt_len=prompt, output_len=output, concurrency=concurrency, precision=precision
    )
    return workload, service


def _cache_format(case: Case, engine: Engine, formats: dict[str, tuple[str, float]]) -> str:
    """What an engine keeps keys and values in where nothing is said: by the weights' format, or by what the device has."""
    narrow = min(formats.values(), key=lambda one: one[1])[0]
    found = engine.cache_format.get(narrow)
    if found is None and narrow != "bf16" and "fp4" in case.cluster.device.peak_dense_flop_per_s:
        found = engine.cache_format.get("blackwell")
    return found or "bf16"


def processor(device: Device) -> str:
    """The kind of processor that computes: of phones and small boards the CPU."""
    bare = device.kind == "edge" and (device.segment == "phone" or device.architecture in _WITHOUT_GPU)
    return "CPU" if bare else device.kind


# Architectures of small boards whose engines run on the processor cores.
_WITHOUT_GPU = ("arm", "adreno", "riscv")


def _weight_format(case: Case, personal: bool) -> str:
    asked = case.request.get("precision")
    published = case.model.weight_format
    if asked is None and published:
        case.assumptions.note("serving precision", published, "", "model", "the checkpoint's own quantisation")
        return published
    fallback = "int4" if personal and feeding.generates(case.model) else default_format(case.cluster.device)
    word, bits, _ = read_format("--precision", asked, fallback)
    kept = "embeddings, head and router kept at 16 bits" if bits < 16.0 and not is_gguf(word) else ""
    case.assumptions.note("serving precision", word, "", "user" if asked else "default", kept)
    return word


def _engine_name(case: Case, word: str, personal: bool) -> str:
    given = case.request.get("engine")
    if given is not None:
        return str(given)
    alone = personal or case.cluster.device.kind in ("CPU", "Apple", "edge") or is_gguf(word)
    return "llama.cpp" if alone and feeding.generates(case.model) else "vllm"


def _habits(case: Case) -> dict[str, Any]:
    """What a load looks like beside lengths and number, where the user says so."""
    take = case.assumptions.take
    found: dict[str, Any] = {
        "spread": take("length spread", case.number("length_spread", "1", 0.0, 1.0), 0.2, "1", "lengths from 0.8 to 1"),
        "variation": case.number("output_variation", "1", 0.0, 3.0) or 0.0,
        "burst": take(
            "opening burst",
            case.number("burst", "1", 0.0, 1.0),
            0.14,
            "1",
            "one round of ten comes at once and is slow to come apart",
        ),
        "prefix_hit": case.number("prefix_hit", "1", 0.0, 1.0) or 0.0,
        "receive_steps": case.number("receive_steps", "1", 1.0, 1000.0, whole=True) or 1.0,
    }
    found["sampled"] = one_of("--sampling", case.request.get("sampling"), ("sampled", "greedy")) != "greedy"
    workers = case.number("prefill_workers", "1", 1.0, 4096.0, whole=True)
    if workers:
        sizes = {
            name: case.number(f"prefill_{name}", "1", 1.0, 4096.0, whole=True) or 1.0
            for name in ("tp", "ep", "attention_dp")
        }
        pool = Plan(tp=sizes["tp"], ep=sizes["ep"], attention_dp=sizes["attention_dp"])
        layout.check_heads(case.model, pool.tp)
        layout.check_experts(case.model, pool)
        found |= {"prefill_workers": workers, "prefill_plan": pool}
    elif any(f"prefill_{name}" in case.request for name in ("tp", "ep", "attention_dp")):
        raise InputError("a layout of prefill workers is given without --prefill-workers: say how many there are")
    drafted = case.number("draft_tokens", "1", 1.0, 64.0, whole=True)
    if drafted:
        rate = take(
            "acceptance", case.number("acceptance", "1", 0.0, 0.999), 0.7, "1", "of a draft token, a usual rate"
        )
        found |= {"drafted": drafted, "accepted": schedule.tokens_per_step(drafted, rate) - 1.0}
        case.assumptions.note("draft tokens", drafted, "1", "user")
    elif "acceptance" in case.request:
        raise InputError("--acceptance is given without --draft-tokens: say how many tokens are drafted")
    return found


def _account(case: Case, load: Load, *, alone: bool = False) -> Account:
    """From priced parts to quantities, for given factors on what is uncertain. alone: without other layouts beside it."""
    return _generation(case, load, alone) if feeding.generates(load.model) else _one_pass(case, load)


def _generation(case: Case, load: Load, alone: bool) -> Account:
    """A model that writes its answer token by token, in a batch that refills as requests finish."""
    workload, plan, service = load.workload, load.plan, load.service
    written = schedule.mean_written(workload.output_len, service.variation)
    context = workload.prompt_len + written
    table = step_table(load.model, load.running, workload.prompt_len, written)
    step_mid, work_mid, prompt_mid = total(load.step), scaled(total(load.work), 1.0 / plan.pp), total(load.prompt)
    kept = load.each * (context * load.room.token_bytes + load.room.state_bytes * 2.0)
    moved = load.memory["weights"] * _touched(table, load.running) + kept
    shared = _shared(case, load, table, moved, alone)
    whole = room_of(case, load.model, workload, Plan(), load.cluster, service)[1]
    together = service.engine.prefill_first and not service.spread
    per_step = sourced(1.0 + service.accepted, "tokens a step gives")

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        pace = factor.get("step time", 1.0)
        step, work = scaled(step_mid, pace), scaled(work_mid, pace)
        prompt = scaled(prompt_mid, factor.get("prompt time", 1.0))
        length = sourced(workload.output_len, "output length")
        token = schedule.time_per_output_token_s(step, work, length, load.each, 0.5 if together else 1.0, per_step)
        # What is uncertain of it is mostly how long an engine lets a request wait, which slows no step.
        decoding = scaled(step, workload.output_len / per_step)
        if service.prefill_workers:
            reached = handed_token_s(load, prompt, decoding)
        else:
            reached = first_token_s(load, step, work, prompt, decoding)
        first = scaled(reached, factor.get("waiting", 1.0))
        request = schedule.request_time_s(first, token, workload.output_len)
        # Requests beyond those that memory holds wait for a whole one to finish.
        rounds = max(workload.concurrency / load.running - 1.0, 0.0)
        if rounds:
            first = total({"once it is its turn": first, "until memory is free": scaled(request, rounds)})
        rate = schedule.requests_per_s(scaled(load.running, plan.dp), request)
        output_rate = scaled(rate, sourced(workload.output_len, "output length"))
        values = {
            "ttft": Value(first, "s", "time to first token, loaded"),
            "tpot": Value(token, "s", "time per output token, loaded"),
            "request_time": Value(request, "s", "from arrival to last token"),
            "tokens_per_s": Value(output_rate, "1/s", "output tokens, all replicas"),
            "tokens_per_s_per_user": Value(1.0 / token, "1/s", "output tokens each request sees"),
            "requests_per_s": Value(rate, "1/s", "finished requests, all replicas"),
            "prefill_tokens_per_s": Value(workload.prompt_len / prompt, "1/s", "of one prompt alone"),
            "running": Value(load.running, "1", "requests decoded together, each replica"),
            "kv_bytes_per_token": Value(whole.token_bytes, "byte", "averaged over the context, before sharding"),
            "state_bytes_per_request": Value(whole.state_bytes, "byte", "of recurrent layers, before sharding"),
        }
        if load.room.requests < inf:
            values["most_concurrent"] = Value(load.room.requests, "1", "requests of this length that fit, each replica")
        if longest := _longest_context(load):
            values["longest_context"] = Value(longest, "1", "tokens of a single request")
        return values | shared(factor, step, output_rate, "token", "output tokens, prompts included")

    return quantities


def _one_pass(case: Case, load: Load) -> Account:
    """A model that answers in one forward pass: an encoder, a classifier of pictures."""
    workload, plan = load.workload, load.plan
    table = step_table(load.model, load.running, workload.prompt_len, 0.0)
    batch_mid = total(load.prompt)
    item = "image" if feeding.sees_only(load.model) else "request"
    moved = sum(op.count * op.elements * 2.0 for op in table) / plan.tp + load.memory["weights"]
    shared = _shared(case, load, table, moved)

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        batch = scaled(batch_mid, factor.get("step time", 1.0))
        rate = schedule.requests_per_s(scaled(load.running, plan.dp), batch)
        values = {
            "latency": Value(batch, "s", f"one batch of {float(load.running):g}"),
            f"{item}s_per_s": Value(rate, "1/s", "all replicas"),
        }
        if item == "request":
            values["tokens_per_s"] = Value(scaled(rate, workload.prompt_len), "1/s", "tokens read, all replicas")
        return values | shared(factor, batch, rate, item, f"{item}s")

    return quantities


def _touched(table: tuple[Op, ...], tokens: float) -> float:
    """Share of the weights that a step reads: experts nobody chose stay where they are."""
    read = held = 0.0
    for op in table:
        weights = op.count * op.copies * op.weight_elements
        held += weights
        hit = traffic.experts_touched(op.copies, op.active, tokens) / op.copies if op.copies != 1.0 else 1.0
        read += 0.0 if op.kind == "embedding" else weights * hit
    return read / held


def _shared(
    case: Case, load: Load, table: tuple[Op, ...], moved: float, alone: bool = False
) -> Callable[[Mapping[str, float], float, float, str, str], dict[str, Value]]:
    """What every kind of serving states: memory, work, power, money, for one step and a rate of items."""
    plan, cluster = load.plan, load.cluster
    ranks = plan.tp * plan.pp * plan.attention_dp
    pool = load.service.prefill_workers * load.service.prefill_plan.devices
    work = model_flop(table)
    active = active_parameter_count(lower(load.model, Tokens()))
    peak, _ = peak_flop_per_s(cluster.device, FORMATS[load.service.word][1])
    fewest = None if alone else fewest_replica(case, load.model, load.workload, case.cluster, load.service)

    def quantities(factor: Mapping[str, float], step: float, rate: float, item: str, note: str) -> dict[str, Value]:
        share = min(moved / (step * cluster.device.memory_bytes_per_s), 1.0)
        used = min(work / (step * ranks * peak), 1.0)
        # Prefill workers are taken to draw what those that decode do.
        fleet = 1.0 + pool / plan.devices
        watts = scaled(power_of(cluster, used, share, factor.get("power", 1.0)), fleet)
        item_j = energy.energy_j(watts, 1.0 / rate)
        each = scaled(device_power_of(cluster, used, share, factor.get("power", 1.0)), plan.devices + pool)
        values = {
            "device_memory": Value(cluster.device.memory_bytes, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(
                scaled(total(load.memory), factor.get("memory", 1.0)), "byte", "weights, cache, activations, runtime"
            ),
            f"flop_per_{item}": Value(work / load.running, "FLOP", "forward"),
            "active_parameters": Value(active, "1", "a token passes"),
            "arithmetic_intensity": Value(traffic.arithmetic_intensity(work / ranks, moved), "FLOP/byte", "of a step"),
            "ridge_point": Value(
                traffic.ridge_point(peak, cluster.device.memory_bytes_per_s),
                "FLOP/byte",
                "where bandwidth stops binding",
            ),
            "bandwidth_share": Value(share, "fraction", "of memory bandwidth in a step"),
            "power": Value(watts, "W", "drawn from the grid under this load"),
            f"energy_per_{item}": Value(item_j, "J", note),
            "device_power": Value(each, "W", "of the devices alone, all replicas, as their own meters show it"),
            f"device_energy_per_{item}": Value(energy.energy_j(each, 1.0 / rate), "J", "of the devices alone"),
            f"carbon_per_million_{item}s": Value(scaled(emissions(cluster, item_j), 1e6), "g", note),
        }
        if cluster.usd_per_device_hour is not None:
            second = cluster.usd_per_device_hour / 3600.0 * factor.get("price", 1.0)
            values[f"cost_per_million_{item}s"] = Value(
                scaled(money.usd_per_token(second, plan.devices + pool, rate), 1e6), "USD", note
            )
            values["cost_per_hour"] = Value(second * 3600.0 * (plan.devices + pool), "USD", "all replicas")
        if fewest is not None:
            values["fewest_devices"] = Value(fewest.devices, "1", "that hold the weights and one request")
        return values

    return quantities


def _longest_context(load: Load) -> float | None:
    """Tokens of a single request that has the replica to itself, as far as the model was built for; None without any limit."""
    built_for = load.model.max_positions or None
    if not load.room.token_bytes:
        return built_for
    held = max(load.room.left_bytes - load.room.state_bytes, 0.0) / load.room.token_bytes
    return held if built_for is None else min(held, built_for)


def _uncertain(case: Case, service: Service) -> tuple[Uncertain, ...]:
    served = service.engine.law_name == "served"
    token, first = ("tpot_pools", "ttft_pools") if service.prefill_workers else ("tpot", "ttft")
    uncertain = [
        composed_interval("step time", token if served else "single_token", case.profile),
        composed_interval("prompt time", "prompt" if served else "single_prompt", case.profile),
        composed_interval("memory", "serving_memory", case.profile),
        composed_interval("power", "power", case.profile),
    ]
    if served:
        uncertain.append(composed_interval("waiting", first, case.profile))
    if case.cluster.usd_per_device_hour is not None and "price" not in case.request:
        uncertain.append(Uncertain("price", 0.6, 1.5, "list prices of providers differ"))
    return tuple(uncertain)


def _binding(load: Load) -> str:
    if not load.fits:
        return "memory"
    places = {
        "weights": "memory bandwidth",
        "experts": "memory bandwidth",
        "attention and KV cache": "memory bandwidth",
        "activations": "memory bandwidth",
        "recurrent state": "memory bandwidth",
        "small kernels": "launch latency",
        "engine": "launch latency",
        "launches": "launch latency",
    }
    kinds: dict[str, float] = {}
    for name, seconds in load.step.items():
        kind = places.get(name, "network")
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    return max(kinds, key=lambda kind: kinds[kind])


def _setting(load: Load) -> str:
    plan, work = load.plan, load.workload
    sizes = (
        ("replicas", plan.dp),
        ("tp", plan.tp),
        ("attention dp", plan.attention_dp),
        ("pp", plan.pp),
        ("ep", plan.ep),
    )
    cuts = [f"{name} {size:g}" for name, size in sizes if size > 1.0]
    if load.service.prefill_workers:
        pool = load.service.prefill_plan
        cuts.append(f"beside {load.service.prefill_workers:g} prefill workers of {pool.devices:g} devices")
    if feeding.generates(load.model):
        asked = f"{work.concurrency:g} requests of {work.prompt_len:g} + {work.output_len:g} tokens"
    elif feeding.sees_only(load.model):
        asked = f"batches of {work.concurrency:g} images"
    else:
        asked = f"batches of {work.concurrency:g} x {work.prompt_len:g} tokens"
    return f"{plan.devices:g} x {load.cluster.device.name}; {', '.join([*cuts, load.service.word, load.service.engine.name, asked])}"


def _verdict(load: Load, quantities: Mapping[str, Any]) -> str:
    from capacity.quantities import format

    capacity = load.cluster.device.memory_bytes
    engine = load.service.engine
    need = format(quantities["memory_per_device"].mid, "byte", binary=True)
    amount = f"{need} of {format(capacity, 'byte', binary=True)}"
    if not load.fits:
        short = max(sum(load.memory.values()) + engine.runtime_bytes - engine.memory_share * capacity, 0.0)
        fewest = quantities.get("fewest_devices")
        hint = (
            f"; {fewest.mid:g} devices hold it"
            if fewest is not None and fewest.mid > load.plan.tp * load.plan.pp
            else "; quantise it or take a larger device"
            if fewest is None
            else ""
        )
        return f"DOES NOT FIT: needs {amount} per device, {format(short, 'byte', binary=True)} too much{hint}"
    if "tpot" in quantities:
        pace = (
            f"a token every {format(quantities['tpot'].mid, 's')}, "
            f"{format(quantities['tokens_per_s'].mid, '1')} tokens/s"
        )
    else:
        name = next(name for name in quantities if name.endswith("s_per_s"))
        pace = f"{format(quantities[name].mid, '1')} {name.removesuffix('_per_s')}/s"
    return f"fits: {amount}; {pace}; bound by {_binding(load)}"


# What a row of the comparison shows, under the name it has in JSON.
_COMPARED = {
    "memory_per_device": "memory_per_device_bytes",
    "tpot": "tpot_s",
    "latency": "latency_s",
    "tokens_per_s": "tokens_per_s",
    "images_per_s": "images_per_s",
    "cost_per_million_tokens": "cost_per_million_tokens_usd",
    "cost_per_million_requests": "cost_per_million_requests_usd",
    "cost_per_million_images": "cost_per_million_images_usd",
}


def _alternatives(case: Case, load: Load) -> tuple[dict[str, Any], ...]:
    """The same requests on the fewest of other devices."""
    free = {
        key: value
        for key, value in case.request.items()
        if key not in ("tp", "pp", "dp", "ep", "attention_dp", "price")
    }
    rows: list[dict[str, Any]] = []
    for cluster, profile in rivals(case.cluster, case.profile, tuple(case.request.get("catalogue", ()))):
        priced = replace(cluster, usd_per_device_hour=cluster.usd_per_device_hour or cluster.device.usd_per_hour)
        other_case = replace(case, request=free, profile=profile, cluster=priced, devices=None)
        try:
            other = load_replica(other_case, load.model, load.workload, priced, _on(load.service, cluster))
        except InputError:
            continue
        answers = _account(other_case, other)({})
        row: dict[str, Any] = {
            "device": cluster.device.id,
            "devices": float(other.plan.devices),
            "fits": other.fits,
        }
        row |= {key: float(answers[name].mid) for name, key in _COMPARED.items() if name in answers}
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: (not row["fits"], row.get("tpot_s", row.get("latency_s", 0.0)))))


def _on(service: Service, cluster: Cluster) -> Service:
    """The same service on another kind of device."""
    return replace(service, engine=load_engine(service.engine.id, processor(cluster.device)))


def _warnings(case: Case, load: Load) -> tuple[str, ...]:
    warnings = []
    if load.fits and load.running < load.workload.concurrency:
        warnings.append(
            f"the KV cache holds {load.running:.0f} of {load.workload.concurrency:g} requests; the others wait"
        )
    if case.profile.basis != "measured" and load.service.engine.law_name == "served":
        warnings.append(f"kernel efficiencies of {load.cluster.device.name} are carried from other architectures")
    longest = feeding.longest(load.model)
    if longest and load.workload.prompt_len + load.workload.output_len > longest:
        warnings.append(f"requests are longer than the model's {longest:g} positions")
    return tuple(warnings)
