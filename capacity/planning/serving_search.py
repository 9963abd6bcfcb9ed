"""Ways to serve, searched: every legal replica under every load that keeps a promise, with and without prompt workers."""

from __future__ import annotations

from math import inf
from time import perf_counter

from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.case import read_case
from capacity.estimators.replica import load_replica
from capacity.estimators.replica_memory import room_of
from capacity.estimators.service import PERCENTILE, TPOT_S, TTFT_S, Promise, point
from capacity.estimators.serving_account import account_of
from capacity.estimators.serving_case import PERSONAL, read_service
from capacity.formula import total
from capacity.formulas import money, schedule
from capacity.planning.space import divisors
from capacity.record import Record, replace
from capacity.spec.model import Attention
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.service import Point
    from capacity.estimators.serving_case import Service
    from capacity.spec.workload import Workload

# Tokens of prompts that a step may read, beside the engine's own.
CHUNKS = (2048.0, 8192.0, 32768.0)
# Requests in flight on a replica, at most.
MOST_RUNNING = 4096.0
# Decoding layouts that are tried with pools of their own for prompts: the best that read their own.
POOLED = 6
# Tensor parallelism and pipelines of replicas, and devices of one, at most.
_MOST_TP, _MOST_STAGES, _MOST_REPLICA = 64.0, 8.0, 512.0


class Site(Record):
    """One variant of a question: its case, how it is served, and the devices there are (None: as many as the rate takes)."""

    case: Case
    workload: Workload
    service: Service
    devices: float | None
    rate: float | None
    promise: Promise
    most_bytes: float
    running: float | None
    options: dict[str, Any]


class Row(Record):
    """One way to serve under one load: a replica (and its prompt workers), how many of them, and what they reach."""

    site: Site
    point: Point
    service: Service
    plan: Plan
    replicas: float
    values: dict[str, float]


class Found(Record):
    """All rows that keep the promise, and how many layouts there were."""

    rows: tuple[Row, ...]
    legal: int
    fit: int
    kept: int
    least: tuple[float, Plan | None, Site | None]
    quickest: tuple[float, float]
    seconds: float


def read_site(request: dict[str, Any], most_bytes: float | None) -> Site:
    """A variant, checked."""
    request = dict(request)
    rate_given = request.get("request_rate") is not None
    asked = {name: request[name] for name in ("ttft_slo", "tpot_slo", "percentile") if name in request}
    if not rate_given:
        # An estimate wants a rate with a promise; a plan can hold one on the devices there are.
        for name in (*asked, "night"):
            request.pop(name, None)
    case = read_case({**request, "mode": "serve"})
    if not feeding.generates(case.model):
        raise InputError(
            f"{case.model.name} writes no text: its batches are priced by `capacity estimate --mode serve`"
        )
    workload, service = read_service(case)
    whole = replace(case, request=case.request | asked)
    promise = Promise(
        rate=whole.number("request_rate", "1/s", 0.0, 1e9, above=True) or 0.0,
        ttft_s=whole.number("ttft_slo", "s", 0.0, 1e5, above=True) or (TTFT_S if rate_given else inf),
        tpot_s=whole.number("tpot_slo", "s", 0.0, 1e3, above=True) or (TPOT_S if rate_given else inf),
        percentile=whole.number("percentile", "1", 0.5, 0.9999) or PERCENTILE,
        night=1.0,
    )
    devices = case.devices
    if devices is None and not rate_given:
        devices = float(case.cluster.devices_per_node)
    running = case.number("concurrency", "1", 1.0, 1e6, whole=True)
    if running is None and not asked and not rate_given and case.cluster.device.segment in PERSONAL:
        running = 1.0  # one person's machine, and nothing is promised to others
    usable = service.usable_bytes(case.cluster.device)
    return Site(
        case, workload, service, devices, promise.rate or None, promise,
        usable if most_bytes is None else min(usable, most_bytes), running,
        {name: request[name] for name in ("precision", "kv_precision", "engine") if name in request},
    )  # fmt: skip


def replicas_of(site: Site) -> Iterator[Plan]:
    """Legal replicas: tensor, pipeline and expert parallelism and attention groups, as the devices allow."""
    case, model = site.case, site.case.model
    node = float(case.cluster.devices_per_node)
    experts = layout.expert_count(model)
    most = min(site.devices or (8.0 if experts else 2.0) * node, _MOST_REPLICA)
    fixed = {name: case.number(name, "1", 1.0, 4096.0, whole=True) for name in ("tp", "pp", "ep", "dp", "attention_dp")}
    latent = any(isinstance(one, Attention) and one.latent for b in feeding.layers(model) for one in b.sublayers)
    for tp in _allowed(fixed["tp"], [2.0**power for power in range(7) if 2.0**power <= min(most, _MOST_TP)]):
        if not layout.divides_heads(model, tp):
            continue
        for pp in _allowed(fixed["pp"], [2.0**power for power in range(4) if tp * 2.0**power <= most]):
            if pp > min(feeding.layer_count(model), _MOST_STAGES):
                continue
            # Groups that attend to requests of their own share experts; without experts they are replicas.
            groups = [2.0**power for power in range(10) if tp * pp * 2.0**power <= most] if experts or latent else [1.0]
            for group in _allowed(fixed["attention_dp"], groups):
                devices = tp * pp * group
                if site.devices is not None and site.devices % devices:
                    continue
                if fixed["dp"] is not None and site.devices is not None and fixed["dp"] * devices != site.devices:
                    continue
                degrees = [one for one in divisors(tp * group) if experts % one == 0.0] if experts else [1.0]
                ends = list(dict.fromkeys((1.0, degrees[-1])))
                for ep in _allowed(fixed["ep"], ends):
                    if tp * group % ep == 0.0:
                        yield Plan(tp=tp, pp=pp, ep=ep, attention_dp=group)


def _allowed(given: float | None, otherwise: list[float]) -> list[float]:
    return otherwise if given is None else [given]


def search(site: Site) -> Found:
    """Every legal replica of a site under every load that keeps its promise."""
    started = perf_counter()
    rows: list[Row] = []
    legal = fit = kept = 0
    least: tuple[float, Plan | None, Site | None] = (inf, None, None)
    quickest = (inf, inf)
    chunks = _chunks(site)
    best_of: dict[Plan, float] = {}
    pooled = site.case.request.get("prefill_workers")
    for plan in replicas_of(site):
        legal += len(chunks)
        parts, room = room_of(site.case, site.case.model, site.workload, plan, site.case.cluster, site.service)
        held = total(parts) + site.service.engine.runtime_bytes + room.request_bytes
        if held < least[0]:
            least = (float(held), plan, site)
        if not room.holds or held > site.most_bytes:
            continue
        fit += len(chunks)
        for service in chunks:
            found, quick = _loads(site, service, plan)
            quickest = min(quickest, quick)
            kept += bool(found)
            rows += found
            if found:
                best_of[plan] = max(best_of.get(plan, 0.0), *(one.values["tokens_per_s_per_device"] for one in found))
    if pooled is None and (site.devices is None or site.devices > 1.0):
        for plan in sorted(best_of, key=lambda one: -best_of[one])[:POOLED]:
            for pool in _pools(site):
                found, count = _with_pool(site, plan, pool)
                legal, fit, kept = legal + count, fit + count, kept + bool(found)
                rows += found
    return Found(tuple(rows), legal, fit, kept, least, quickest, perf_counter() - started)


def _chunks(site: Site) -> list[Service]:
    engine, prompt = site.service.engine, site.workload.prompt_len
    if "chunk_tokens" in site.case.request:
        return [site.service]
    # A chunk beyond all prompts that meet in a step is the same as the next smaller one.
    sizes = {engine.chunk_tokens, *(size for size in CHUNKS if size <= max(16.0 * prompt, engine.chunk_tokens))}
    return [replace(site.service, engine=replace(engine, chunk_tokens=size)) for size in sorted(sizes)]


def _pools(site: Site) -> list[Plan]:
    """Layouts of a worker that only reads prompts: those that hold the model, the experts dealt over all its ranks or cut."""
    found = []
    for plan in replicas_of(replace(site, devices=None)):
        room = room_of(site.case, site.case.model, site.workload, plan, site.case.cluster, site.service)[1]
        if plan.pp == 1.0 and plan.devices <= (site.devices or inf) / 2.0 and room.holds:
            found.append(plan)
    return found


def _with_pool(site: Site, plan: Plan, pool: Plan) -> tuple[list[Row], int]:
    """A decoding replica with ever more prompt workers, while that pays."""
    rows: list[Row] = []
    best, count, workers = 0.0, 0, 1.0
    while site.devices is None or plan.devices + workers * pool.devices <= site.devices:
        count += 1
        service = replace(site.service, prefill_workers=workers, prefill_plan=pool)
        found, _ = _loads(site, service, plan)
        reached = max((one.values["tokens_per_s_per_device"] for one in found), default=0.0)
        rows += found
        if (found and reached <= best) or workers >= 16.0:
            break
        best, workers = max(best, reached), workers + 1.0
    return rows, count


def _loads(site: Site, service: Service, plan: Plan) -> tuple[list[Row], tuple[float, float]]:
    """One replica under the loads that keep the promise: powers of two, then the most; and the quickest it is at all."""
    alone = load_replica(site.case, site.case.model, site.workload, site.case.cluster, service, plan)
    percentile = site.promise.percentile

    def at(running: float) -> Point:
        return point(site.case, site.workload, service, alone, running, percentile)

    if site.running is not None:
        only = at(site.running)
        return _kept(site, service, plan, [only]), (only.ttft_high_s, only.tpot_high_s)
    first = at(plan.attention_dp)
    quick = (first.ttft_high_s, first.tpot_high_s)
    points: list[Point] = []
    least, most, tried = plan.attention_dp, inf, first
    while tried.keeps(site.promise):
        points.append(tried)
        least = tried.load.running
        if least * 2.0 > MOST_RUNNING:
            break
        tried, most = at(least * 2.0), least * 2.0
    while points and most < inf and most - least > max(least * 0.03, plan.attention_dp):
        middle = (least + most) / 2.0 // plan.attention_dp * plan.attention_dp
        tried = at(middle)
        if tried.keeps(site.promise):
            points.append(tried)
            least = middle
        else:
            most = middle
    return _kept(site, service, plan, points), quick


def _kept(site: Site, service: Service, plan: Plan, points: list[Point]) -> list[Row]:
    found = []
    for one in points:
        if one.keeps(site.promise):
            row = _row(site, service, plan, one)
            if row is not None:
                found.append(row)
    return found


def _row(site: Site, service: Service, plan: Plan, one: Point) -> Row | None:
    """What so many replicas under this load reach; None where there are too few devices."""
    unit = plan.devices + service.prefill_workers * service.prefill_plan.devices
    work, cluster = site.workload, site.case.cluster
    replicas = site.devices // unit if site.devices is not None else 1.0
    paid = site.devices if site.devices is not None else unit
    rate = replicas * one.rate
    if site.rate is not None:
        needed = float(schedule.replicas_needed(site.rate, one.rate))
        if site.devices is not None and needed > replicas:
            return None
        replicas, rate = needed, site.rate
        paid = replicas * unit
    if not replicas:
        return None
    tokens = float(rate * work.output_len)
    account = account_of(site.case, one.load, alone=True)({})
    held = total(one.load.memory) + service.engine.runtime_bytes
    values = {
        "devices": float(paid),
        "ttft_s": float(one.ttft_high_s),
        "tpot_s": float(one.tpot_high_s),
        "request_time_s": float(schedule.request_time_s(one.ttft_s, one.tpot_s, work.output_len)),
        "tokens_per_s": tokens,
        "tokens_per_s_per_device": tokens / float(paid),
        "concurrency": float(one.load.running),
        "memory_per_device_bytes": float(held),
        "energy_per_token_j": float(account["energy_per_token"].mid),
        "carbon_per_million_tokens_g": float(account["carbon_per_million_tokens"].mid),
        "power_w": float(account["power"].mid * replicas),
    }
    if cluster.usd_per_device_hour is not None:
        second = cluster.usd_per_device_hour / 3600.0
        values["cost_per_million_tokens_usd"] = float(money.usd_per_token(second, paid, tokens) * 1e6)
        values["cost_per_hour_usd"] = float(cluster.usd_per_device_hour * paid)
    return Row(site, one, service, plan, float(replicas), values)
