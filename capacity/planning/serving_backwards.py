"""Serving asked backwards: over all replicas and loads that keep a promise."""

from __future__ import annotations

from math import inf

from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.answer import answer
from capacity.estimators.case import read_case
from capacity.estimators.replica_memory import room_of
from capacity.estimators.service import point
from capacity.planning.backwards import Answer
from capacity.planning.bisection import Trials, largest
from capacity.planning.serving import hopeless, option_of
from capacity.planning.serving_search import MOST_RUNNING, read_site, replicas_of, search
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.planning.backwards import Asked
    from capacity.planning.serving_search import Row
    from capacity.spec.estimate import Estimate


def _rows(asked: Asked, request: dict[str, Any]) -> tuple[list[Row], str]:
    """Rows within the limits, and what binds where there are none."""
    site = read_site(request, asked.limits.get("max_memory"))
    found = search(site)
    priced = all("cost_per_hour_usd" in row.values for row in found.rows)
    if "budget" in asked.limits and not priced:
        raise InputError("--budget needs a price of a device: give --price")
    kept = [
        row
        for row in found.rows
        if row.values.get("cost_per_hour_usd", 0.0) <= asked.limits.get("budget", inf)
        and row.values["power_w"] <= asked.limits.get("power_cap", inf)
    ]
    return kept, "" if kept else hopeless([site], [found], found.rows, asked.limits)


def _estimate(row: Row) -> Estimate:
    request = row.site.case.request
    if row.site.rate is None:
        request = {name: value for name, value in request.items() if name not in ("ttft_slo", "tpot_slo", "percentile")}
    return answer(read_case({**request, **option_of(row).options}), alone=True)


def devices(asked: Asked) -> Answer:
    """The fewest devices that serve a rate of requests within its promise."""
    if "request_rate" not in asked.request:
        raise InputError("--solve devices to serve wants a load: give --request-rate, and --ttft-slo or --tpot-slo")
    request = {name: value for name, value in asked.request.items() if name not in ("devices", "nodes")}
    rows, why = _rows(asked, request)
    if not rows:
        return Answer(None, why)
    best = min(rows, key=lambda row: (row.values["devices"], row.values["tpot_s"]))
    option = option_of(best)
    fewer = best.values["devices"] - best.values["devices"] / best.replicas
    said = f"{best.values['devices']:g} devices: {option.setting.split('; ', 1)[1]}"
    if fewer > 0.0:
        said += f"; one replica fewer finishes {(best.replicas - 1.0) * best.point.rate:.3g} requests a second"
    return Answer(best.values["devices"], said, option=option, estimate=_estimate(best), facts=dict(best.values))


def budget(asked: Asked) -> Answer:
    """The least money an hour that serves a rate of requests within its promise."""
    found = devices(asked)
    if found.value is None:
        return found
    if "cost_per_hour_usd" not in found.facts:
        raise InputError("--solve budget needs a price of a device: give --price")
    return replace(found, value=found.facts["cost_per_hour_usd"])


def concurrency(asked: Asked) -> Answer:
    """The most requests in flight that keep the promise on the devices there are, to one on each replica."""
    request = {name: value for name, value in asked.request.items() if name != "concurrency"}
    rows, why = _rows(asked, request)
    if not rows:
        return Answer(None, why)
    best = max(rows, key=lambda row: row.values["concurrency"] * row.replicas)
    site = best.site

    def holds(running: float) -> tuple[bool, str]:
        from capacity.quantities import format

        one = point(site.case, site.workload, best.service, best.point.load, running, site.promise.percentile)
        said = f"first token within {format(one.ttft_high_s, 's')}, next within {format(one.tpot_high_s, 's')}"
        full = one.load.running < running
        return one.keeps(site.promise), "memory is full" if full else said

    trials = Trials(holds)
    each, beyond = largest(trials, best.values["concurrency"], MOST_RUNNING * 16.0, whole=True)
    each = each or best.values["concurrency"]
    best = replace(best, values=best.values | {"concurrency": each})
    option = option_of(best)
    total = each * best.replicas
    why = "" if beyond is None else f"; {beyond:g} each: {trials.at(beyond).why}"
    said = f"{total:g} requests in flight, {each:g} on each of {best.replicas:g}: {trials.at(each).why}{why}"
    return Answer(total, said, trials, beyond, option, _estimate(best), dict(best.values))


def seq_len(asked: Asked) -> Answer:
    """The longest context (prompt and answer) of the requests in flight that memory holds, by replica of any layout."""
    request = {name: value for name, value in asked.request.items() if name not in ("prompt_len", "seq_len")}
    site = read_site(request, asked.limits.get("max_memory"))
    running = site.running or 1.0
    written = site.workload.output_len
    built = feeding.longest(site.case.model)
    held: dict[float, Any] = {}

    def holds(length: float) -> tuple[bool, str]:
        workload = replace(site.workload, prompt_len=length - written, concurrency=running)
        most = 0.0
        for plan in replicas_of(site):
            room = room_of(site.case, site.case.model, workload, plan, site.case.cluster, site.service)[1]
            fits = room.requests * plan.attention_dp if room.holds else 0.0
            if fits > most:
                most, held[length] = fits, plan
        return most >= running, f"{most // 1.0:.0f} of them fit"

    trials = Trials(holds)
    length, beyond = largest(trials, written + 1.0, built or 2.0**27, whole=True)
    if length is None:
        return Answer(None, f"INFEASIBLE: one token of prompt already: {trials.at(written + 1.0).why}", trials, beyond)
    why = f"; {beyond:,.0f}: {trials.at(beyond).why}" if beyond is not None else "; the model was built for no more"
    said = f"contexts of {length:,.0f} tokens fit, {running:g} at a time{why}"
    plan = held[length]
    options = {
        "mode": "serve", "devices": None, "nodes": None, "prompt_len": length - written, "output_len": written,
        "concurrency": running, "dp": 1, "tp": int(plan.tp), "pp": int(plan.pp),
    }  # fmt: skip
    options |= {name: int(getattr(plan, name)) for name in ("ep", "attention_dp") if getattr(plan, name) > 1.0}
    asked_of = {name: value for name, value in site.case.request.items() if name != "prompt_len"}
    return Answer(length, said, trials, beyond, None, answer(read_case({**asked_of, **options}), alone=True))


SOLVERS = {"devices": devices, "concurrency": concurrency, "seq-len": seq_len, "budget": budget}
