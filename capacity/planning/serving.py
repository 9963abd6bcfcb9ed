"""The best way to serve: searched, chosen, and weighed against what else there was."""

from __future__ import annotations

from math import inf

import numpy as np

from capacity.errors import InputError
from capacity.estimators.answer import answer
from capacity.estimators.case import read_case
from capacity.estimators.composed import composed_interval
from capacity.formula import total
from capacity.planning.front import undominated
from capacity.planning.question import plain
from capacity.planning.serving_search import Found, Row, Site, read_site, search
from capacity.planning.turns import KERNELS, NOTABLE
from capacity.record import Record
from capacity.spec.choice import Choice, Option, Rival, Space, Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from capacity.planning.question import Question
    from capacity.spec.plan import Plan

OBJECTIVES = {
    "time": ("request_time_s", False),
    "latency": ("request_time_s", False),
    "cost": ("cost_per_million_tokens_usd", False),
    "energy": ("energy_per_token_j", False),
    "carbon": ("carbon_per_million_tokens_g", False),
    "throughput-per-device": ("tokens_per_s_per_device", True),
}
LIMITED = {"budget": ("cost_per_hour_usd", "USD/h", "rent"), "power_cap": ("power_w", "W", "draw")}
# Quantities that no other row of the front may beat all of: made small.
FRONT = (("tpot_s", 1.0), ("tokens_per_s_per_device", -1.0), ("ttft_s", 1.0))
# Kernels of a decode step by part, and how far off they are.
_PARTS = {
    "weights": (0.81, 1.18),
    "experts": (0.75, 1.55),
    "attention and KV cache": (0.71, 1.40),
    "collectives": (0.89, 1.18),
}


def choose_serving(question: Question) -> Choice:
    """The best way to serve of a question."""
    if "deadline" in question.limits:
        raise InputError("--deadline is of a training run; to serve give --ttft-slo and --tpot-slo")
    sites = [read_site(request, question.limits.get("max_memory")) for request in question.variants]
    results = [search(site) for site in sites]
    rows = [row for found in results for row in found.rows]
    objective = question.objective or ("cost" if all("cost_per_hour_usd" in row.values for row in rows) else "energy")
    name, most = OBJECTIVES[objective]
    if any(name not in row.values for row in rows):
        raise InputError(f"--objective {objective} needs a price of a device: give --price")
    within, rejected = _within(rows, question.limits)
    sums = {what: sum(getattr(found, what) for found in results) for what in ("legal", "fit")}
    space = Space(
        sums["legal"], sums["legal"], sums["fit"], int(within.sum()), sum(f.seconds for f in results), rejected
    )
    shared: dict[str, Any] = {
        "request": {key: plain(value) for key, value in question.request.items()} | {"mode": "serve"},
        "mode": "serve",
        "objective": objective,
        "limits": question.limits,
        "space": space,
    }
    if not within.any():
        return Choice(
            verdict=hopeless(sites, results, rows, question.limits), best=None, estimate=None, simplest=None, front=(),
            runner_up=None, turns=(), steady=(), remedies=tuple(_remedies(results, rows, within)), **shared,
        )  # fmt: skip
    score = np.where(within, np.array([row.values[name] for row in rows]) * (-1.0 if most else 1.0), inf)
    best = int(score.argmin())
    option = option_of(rows[best])
    turns, steady = _turns(rows, score, best)
    bare = {k: v for k, v in rows[best].site.case.request.items() if k not in ("ttft_slo", "tpot_slo", "percentile")}
    asked = rows[best].site.case.request if rows[best].site.rate is not None else bare
    return Choice(
        verdict=_verdict(rows[best], name, objective, most=most),
        best=option,
        estimate=answer(read_case({**asked, **option.options}), alone=True),
        simplest=_simplest(rows, score, best),
        front=_front(rows, within),
        runner_up=_runner_up(rows, score, best),
        turns=turns,
        steady=steady,
        remedies=tuple(_remedies(results, rows, within)),
        tried=_tried(sites, rows, score),
        warnings=_warnings(rows[best]),
        **shared,
    )


def _within(rows: Sequence[Row], limits: dict[str, float]) -> tuple[Any, dict[str, int]]:
    within = np.ones(len(rows), dtype=bool)
    rejected = {}
    for limit, (name, _, _) in LIMITED.items():
        if limit in limits:
            if any(name not in row.values for row in rows):
                raise InputError("--budget needs a price of a device: give --price")
            kept = np.array([row.values[name] <= limits[limit] for row in rows], dtype=bool)
            rejected[limit] = int((~kept).sum())
            within &= kept
    return within, rejected


def option_of(row: Row) -> Option:
    """A way to serve, in words and as options of an estimate."""
    plan, service, site = row.plan, row.service, row.site
    options: dict[str, Any] = {"mode": "serve"}
    if "cluster" not in site.case.request:
        options["device"] = site.case.cluster.device.id
    # The layout says how many devices there are: prompt workers stand beside it, and the last may be left over.
    options |= {"devices": None, "nodes": None, "dp": int(row.replicas), "tp": int(plan.tp), "pp": int(plan.pp)}
    if plan.attention_dp > 1.0:
        options["attention_dp"] = int(plan.attention_dp)
    if plan.ep > 1.0:
        options["ep"] = int(plan.ep)
    options |= site.options
    options |= {
        "concurrency": int(row.values["concurrency"]),
        "chunk_tokens": int(service.engine.chunk_tokens),
        "burst": 0,
    }
    if service.prefill_workers:
        pool = service.prefill_plan
        options["prefill_workers"] = int(service.prefill_workers * row.replicas)
        options["prefill_tp"] = int(pool.tp)
        if pool.ep > 1.0:
            options["prefill_ep"] = int(pool.ep)
        if pool.attention_dp > 1.0:
            options["prefill_attention_dp"] = int(pool.attention_dp)
    device = site.case.cluster.device.name
    return Option(f"{row.values['devices']:g} x {device}; {_layout(row)}", options, dict(row.values))


def _layout(row: Row) -> str:
    plan, service = row.plan, row.service
    cuts = [f"{row.replicas:g} x ({_cut(plan)})" if row.replicas > 1.0 else _cut(plan)]
    if service.prefill_workers:
        cuts.append(f"{service.prefill_workers * row.replicas:g} x ({_cut(service.prefill_plan)}) for prompts")
    else:
        cuts.append(f"prompts {service.engine.chunk_tokens:g} at a time")
    return ", ".join([*cuts, f"{row.values['concurrency']:g} in flight each", *_words(row)])


def _cut(plan: Plan) -> str:
    sizes = (("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("adp", plan.attention_dp))
    return " ".join(f"{name} {size:g}" for name, size in sizes if size > 1.0 or name == "tp")


def _words(row: Row) -> list[str]:
    named = {"precision": "{}", "kv_precision": "{} cache", "engine": "{}"}
    return [said.format(row.site.options[name]) for name, said in named.items() if name in row.site.options]


def _verdict(row: Row, name: str, objective: str, *, most: bool) -> str:
    from capacity.quantities import format

    value = row.values[name]
    said = {
        "request_time_s": f"{format(value, 's')} a request",
        "cost_per_million_tokens_usd": f"{format(value, 'USD')} a million tokens",
        "energy_per_token_j": f"{format(value, 'J')} a token",
        "carbon_per_million_tokens_g": f"{format(value, 'g')} a million tokens",
        "tokens_per_s_per_device": f"{format(value, '1')} tokens a second and device",
    }[name]
    share = row.site.promise.percentile
    return (
        f"{'most' if most else 'least'} {objective.replace('-per-', ' a ')}: {said}; {format(row.values['tokens_per_s'], '1')} "
        f"tokens/s on {row.values['devices']:g} device{'s' if row.values['devices'] > 1.0 else ''}, {share:.0%} of requests see their first token within "
        f"{format(row.values['ttft_s'], 's')} and each next within {format(row.values['tpot_s'], 's')}"
    )


def hopeless(sites: Sequence[Site], results: Sequence[Found], rows: Sequence[Row], limits: dict[str, float]) -> str:
    """What binds where nothing keeps promise and limits."""
    from capacity.quantities import format

    if not any(found.legal for found in results):
        count = f"{sites[0].devices:g} devices" if sites[0].devices else "no number of devices"
        return f"NO LEGAL LAYOUT: {count} cannot be dealt into replicas that cut whole heads, layers and experts evenly"
    if not any(found.fit for found in results):
        need, plan, _ = min((found.least for found in results), key=lambda one: one[0])
        devices = 0.0 if plan is None else plan.devices
        return (
            f"DOES NOT FIT: the thriftiest replica, of {devices:g} devices, needs {format(need, 'byte', binary=True)} of the "
            f"{format(sites[0].most_bytes, 'byte', binary=True)} a device may give; memory binds"
        )
    promise = sites[0].promise
    said: list[str] = []
    for index, (limit, what) in enumerate(((promise.ttft_s, "first token"), (promise.tpot_s, "next token"))):
        quickest = min(found.quickest[index] for found in results)
        if quickest > limit:
            said.append(
                f"the promise of the {what} within {format(limit, 's')} binds: alone on its replica a request has it within "
                f"{format(quickest, 's')} at best"
            )
    for limit_name, (name, unit, what) in LIMITED.items():
        least = min((row.values[name] for row in rows if name in row.values), default=0.0)
        if limit_name in limits and rows and least > limits[limit_name]:
            said.append(f"the {limit_name.replace('_', ' ')} binds: the least {what} is {format(least, unit)}")
    if not said and sites[0].rate is not None and not rows:
        said.append(f"{sites[0].rate:g} requests a second are more than these devices finish within the promise")
    return "INFEASIBLE: " + ("; ".join(said) or "each promise and limit can be kept, all together cannot")


def _front(rows: Sequence[Row], within: Any) -> tuple[Option, ...]:
    places = [int(place) for place in np.flatnonzero(within)]
    columns = [np.array([rows[place].values[name] for place in places]) * sign for name, sign in FRONT]
    kept = [places[int(one)] for one in undominated(columns)]
    return tuple(option_of(rows[place]) for place in sorted(kept, key=lambda place: rows[place].values["tpot_s"]))


def _same(one: Row, other: Row) -> bool:
    """Whether two rows are laid out alike, whatever their load and chunks."""
    return (one.plan, one.service.prefill_plan, one.service.prefill_workers, one.site) == (
        other.plan,
        other.service.prefill_plan,
        other.service.prefill_workers,
        other.site,
    )


def _rival(rows: Sequence[Row], score: Any, best: int, among: Sequence[int]) -> Rival | None:
    if not among:
        return None
    place = min(among, key=lambda one: score[one])
    worse = float(abs(score[place] / score[best] - 1.0))
    ours, theirs = _spent(rows[best]), _spent(rows[place])
    gaps = {name: theirs.get(name, 0.0) - ours.get(name, 0.0) for name in {**ours, **theirs}}
    return Rival(option_of(rows[place]), worse, dict(sorted(gaps.items(), key=lambda item: -abs(item[1]))))


def _runner_up(rows: Sequence[Row], score: Any, best: int) -> Rival | None:
    others = [int(place) for place in np.flatnonzero(np.isfinite(score))]
    return _rival(rows, score, best, [place for place in others if not _same(rows[place], rows[best])])


def _simplest(rows: Sequence[Row], score: Any, best: int) -> Rival | None:
    """The best without prompt workers, where these win by little."""
    if not rows[best].service.prefill_workers:
        return None
    near = [int(place) for place in np.flatnonzero(score <= score[best] + abs(score[best]) * PLAIN_ENOUGH)]
    return _rival(rows, score, best, [place for place in near if not rows[place].service.prefill_workers])


# Pools of their own for prompts are no matter of course: one kind of replica is told of where it costs no more than this.
PLAIN_ENOUGH = 0.10


def _spent(row: Row) -> dict[str, float]:
    """Seconds of all its devices that a replica spends on an answer's token, by what they do."""
    load, work = row.point.load, row.site.workload
    per_step = 1.0 + row.service.accepted
    each = row.plan.devices / (float(load.running) * per_step)
    spent = {f"decoding: {name}": float(value) * each for name, value in load.step.items()}
    unit = row.values["devices"] / row.replicas
    whole = unit / (row.point.rate * work.output_len)
    # What is no decode step is reading prompts, beside or in workers of their own, and waiting for work.
    return spent | {"prompts and idling": float(whole) - sum(spent.values())}


def _tried(sites: Sequence[Site], rows: Sequence[Row], score: Any) -> tuple[Option, ...]:
    if len(sites) == 1:
        return ()
    owners = {id(site): number for number, site in enumerate(sites)}
    found: dict[int, int] = {}
    for place, row in enumerate(rows):
        number = owners[id(row.site)]
        if np.isfinite(score[place]) and (number not in found or score[place] < score[found[number]]):
            found[number] = place
    return tuple(option_of(rows[place]) for place in sorted(found.values(), key=lambda place: score[place]))


class _Case(Record):
    """An uncertain input at one end: factors on the first and on the next token of each row."""

    name: str
    factor: float
    source: str
    first: Any
    token: Any


def _turns(rows: Sequence[Row], score: Any, best: int) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Inputs at whose ends another row keeps the promise better, or the choice keeps it no longer.

    A step that is slower by a share costs as much more, as long as the load stays.
    """
    promise = rows[best].site.promise
    ttft, tpot = (np.array([row.values[name] for row in rows]) for name in ("ttft_s", "tpot_s"))
    turns: list[Turn] = []
    moved: dict[str, bool] = {}
    for case in _cases(rows):
        held = (ttft * case.first <= promise.ttft_s) & (tpot * case.token <= promise.tpot_s) & np.isfinite(score)
        worse = np.where(held, score * np.where(score > 0.0, case.token, 1.0 / case.token), inf)
        moved.setdefault(case.name, False)
        if not held.any():
            continue
        place = int(worse.argmin())
        if not held[best]:
            if not _same(rows[place], rows[best]):
                loss = float(abs(worse[place] / (score[best] * case.token[best]) - 1.0))
                turns.append(Turn(case.name, case.factor, case.source, option_of(rows[place]), -loss))
                moved[case.name] = True
        elif abs(worse[place] / worse[best] - 1.0) > NOTABLE and not _same(rows[place], rows[best]):
            gain = float(abs(worse[place] / worse[best] - 1.0))
            turns.append(Turn(case.name, case.factor, case.source, option_of(rows[place]), gain))
            moved[case.name] = True
    return tuple(sorted(turns, key=lambda turn: -abs(turn.gain))), tuple(
        name for name, some in moved.items() if not some
    )


def _cases(rows: Sequence[Row]) -> Iterator[_Case]:
    profile = rows[0].site.case.profile
    ones = np.ones(len(rows))
    pooled = any(row.service.prefill_workers for row in rows)
    for name, quantity in (
        ("time of a step", "tpot_pools" if pooled else "tpot"),
        ("waiting for the first token", "ttft"),
    ):
        spread = composed_interval(name, quantity, profile)
        for factor in (spread.low, spread.high):
            step = name == "time of a step"
            yield _Case(name, factor, spread.source, ones if step else ones * factor, ones * factor if step else ones)
    for part, ends in _PARTS.items():
        share = np.array(
            [float(row.point.load.step.get(part, 0.0)) / float(total(row.point.load.step)) for row in rows]
        )
        if share.any():
            for factor in ends:
                yield _Case(f"time of {part}", factor, KERNELS, ones, 1.0 + share * (factor - 1.0))


def _remedies(results: Sequence[Found], rows: Sequence[Row], within: Any) -> Iterator[str]:
    from capacity.quantities import format

    for found in results:
        need, plan, site = found.least
        if not found.fit and plan is not None and site is not None:
            short = format(need - site.most_bytes, "byte", binary=True)
            yield (
                f"{short} a device more, narrower weights (--precision fp8, int4), shorter requests, or more devices a replica "
                f"would hold one of {plan.devices:g} x {site.case.cluster.device.name}"
            )
    wide = all(
        one.site.workload.precision.weight_bits >= 16.0 and not one.site.case.model.weight_format for one in rows
    )
    if rows and within.any() and wide:
        yield "weights and cache stay as published: compare narrower ones with --precision bf16,fp8 and --kv-precision bf16,fp8"


def _warnings(row: Row) -> tuple[str, ...]:
    found = []
    if row.service.widths[""] < 2.0 and not row.site.case.model.weight_format:
        found.append(f"what {row.service.word} weights cost in quality is not weighed: see `capacity compress`")
    promise = row.site.promise
    if promise.ttft_s == promise.tpot_s == inf and row.site.running is None:
        found.append("nothing is promised, so loads grow as long as memory holds them: give --ttft-slo and --tpot-slo")
    return tuple(found)
