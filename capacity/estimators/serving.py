"""The serving half of an answer: one replica under a steady load, and what a token costs."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.composed import composed_interval
from capacity.estimators.intervals import Uncertain, with_intervals
from capacity.estimators.pricing import processor
from capacity.estimators.replica import load_replica
from capacity.estimators.rigs import rivals
from capacity.estimators.serving_account import account_of
from capacity.estimators.serving_case import read_service
from capacity.laws.engine import load_engine, on_device
from capacity.record import replace
from capacity.spec.estimate import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.replica import Load
    from capacity.estimators.serving_case import Service
    from capacity.spec.device import Cluster
    from capacity.spec.estimate import Quantity


def serving_section(case: Case, *, alone: bool = False) -> tuple[Section, dict[str, dict[str, float]]]:
    """The verdict, quantities and breakdowns of serving, and what makes their intervals."""
    load, quantities, sensitivities = served(case)
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
        alternatives=() if alone else _alternatives(case, load),
        warnings=_warnings(case, load),
    )
    return section, sensitivities


def served(case: Case, *, intervals: bool = True) -> tuple[Load, dict[str, Quantity], dict[str, dict[str, float]]]:
    """The replica, every quantity with its interval, and what makes these; of a case of columns, columns."""
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    shapes, uncertain = (case.shapes, _uncertain(case, service)) if intervals else ((), ())
    variants = tuple(
        account_of(case, load_replica(case, shape, workload, case.cluster, service, plan=load.plan))({})
        for shape in shapes
    )
    quantities, sensitivities = with_intervals(_told(case, load), uncertain, variants)
    if any(name in case.request for name in ("request_rate", "ttft_slo", "tpot_slo", "percentile", "night")):
        from capacity.estimators.service import service_values

        found, _ = with_intervals(lambda _: service_values(case, workload, service, load), ())
        quantities |= found
    return load, quantities, sensitivities


def serving_quantities(case: Case) -> tuple[Load, dict[str, Quantity]]:
    """The replica and every quantity with its interval, without what is shown beside them."""
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    quantities, _ = with_intervals(account_of(case, load, alone=True), _uncertain(case, service))
    return load, quantities


def serving_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    workload, service = read_service(case)
    return load_values(case, load_replica(case, case.model, workload, case.cluster, service))


def load_values(case: Case, load: Load) -> dict[str, float]:
    """Every quantity's mid value, and the parts of memory and time, of a priced load."""
    values = {name: value.mid for name, value in _told(case, load)({}).items()}
    return values | {f"memory.{k}": v for k, v in load.memory.items()} | {f"time.{k}": v for k, v in load.step.items()}


def _told(case: Case, load: Load) -> Account:
    """The account of a load; it is kept where the platform under it is asked about."""
    account = account_of(case, load)
    if case.on_platform:
        case.kept["serve"] = load, account({})
    return account


def _uncertain(case: Case, service: Service) -> tuple[Uncertain, ...]:
    served = service.engine.law_name == "served"
    alone = "cores" if processor(case.cluster.device) == "CPU" else "single"
    token, first = ("tpot_pools", "ttft_pools") if service.pooled else ("tpot", "ttft")
    uncertain = [
        composed_interval("step time", token if served else f"{alone}_token", case.profile),
        composed_interval("prompt time", "prompt" if served else f"{alone}_prompt", case.profile),
        composed_interval("memory", "serving_memory", case.profile),
        composed_interval("power", "serving_power", case.profile),
    ]
    if served:
        uncertain.append(composed_interval("waiting", first, case.profile))
    if case.cluster.usd_per_device_hour is not None and "price" not in case.request:
        uncertain.append(Uncertain("price", 0.6, 1.5, "list prices of providers differ"))
    return tuple(uncertain)


def _binding(load: Load) -> str:
    if not load.fits:
        return "memory"
    # Products bind where they keep the device busier than their bytes do.
    matrices = "compute" if load.busy.compute_s > load.busy.memory_s else "memory bandwidth"
    places = {
        "weights": matrices,
        "experts": matrices,
        "attention and KV cache": "memory bandwidth",
        "activations": "memory bandwidth",
        "recurrent state": "memory bandwidth",
        "small kernels": "launch latency",
        "engine": "launch latency",
        "launches": "launch latency",
        "adapters": "memory bandwidth",
        "host": "the host's memory",
        "host cache": "the host's memory",
        "host link": "the link to the host",
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
        workers = load.service.prefill_workers
        cuts.append(
            f"beside {workers:g} prefill worker{'s' if workers > 1.0 else ''} of {pool.devices:g} device{'s' if pool.devices > 1.0 else ''}"
        )
    if feeding.generates(load.model):
        asked = f"{work.concurrency:g} requests of {work.prompt_len:g} + {work.output_len:g} tokens"
    elif feeding.sees_only(load.model):
        asked = f"batches of {work.concurrency:g} images"
    else:
        asked = f"batches of {work.concurrency:g} x {work.prompt_len:g} tokens"
    return f"{plan.devices:g} x {load.cluster.device.name}; {', '.join([*cuts, load.service.word, load.service.engine.name, asked])}"


def _verdict(load: Load, quantities: Mapping[str, Any]) -> str:
    from capacity.quantities import format

    device = load.cluster.device
    engine = load.service.engine
    need = format(quantities["memory_per_device"].mid, "byte", binary=True)
    amount = f"{need} of {format(device.memory_bytes, 'byte', binary=True)}"
    if device.open_bytes < device.memory_bytes:
        amount += f" ({format(device.open_bytes, 'byte', binary=True)} open to a program)"
    if not load.fits:
        short = max(sum(load.memory.values()) + engine.runtime_bytes - load.service.usable_bytes(device), 0.0)
        fewest = quantities.get("fewest_devices")
        hint = (
            f"; {fewest.mid:g} devices hold it"
            if fewest is not None and fewest.mid > load.plan.tp * load.plan.pp
            else "; quantise it or take a larger device"
            if fewest is None
            else ""
        )
        return f"DOES NOT FIT: needs {amount} per device, {format(short, 'byte', binary=True)} too much{hint}"
    if "tpot" in quantities and load.workload.output_len == 1.0:
        first, rate = quantities["ttft"].mid, quantities["prefill_tokens_per_s"].mid
        pace = f"the first token after {format(first, 's')}, {format(rate, '1')} tokens of prompt a second"
    elif "tpot" in quantities:
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
    # Where no layout was asked for, this replica is the smallest of its device already.
    asked = len(free) < len(case.request) or case.devices is not None
    rows: list[dict[str, Any]] = []
    for cluster, profile in rivals(case.cluster, case.profile, tuple(case.request.get("catalogue", ()))):
        priced = replace(cluster, usd_per_device_hour=cluster.usd_per_device_hour or cluster.device.usd_per_hour)
        other_case = replace(case, request=free, profile=profile, cluster=priced, devices=None)
        try:
            other = (
                load
                if cluster is case.cluster and not asked
                else load_replica(other_case, load.model, load.workload, priced, _on(load, cluster))
            )
        except InputError:
            continue
        answers = account_of(other_case, other, alone=True)({})
        row: dict[str, Any] = {
            "device": cluster.device.id,
            "devices": float(other.plan.devices),
            "fits": other.fits,
        }
        row |= {key: float(answers[name].mid) for name, key in _COMPARED.items() if name in answers}
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: (not row["fits"], row.get("tpot_s", row.get("latency_s", 0.0)))))


def _on(load: Load, cluster: Cluster) -> Service:
    """The same service on another device: its engine as it runs on that kind of processor."""
    kind, engine = processor(cluster.device), load.service.engine
    if kind != processor(load.cluster.device):
        engine = load_engine(engine.id, kind)
    return replace(load.service, engine=on_device(engine, cluster.device))


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
