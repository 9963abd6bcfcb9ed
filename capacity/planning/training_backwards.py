"""Training asked backwards: each question is a bisection, or a walk up a ladder, over whole searches of layouts.

Every value that is compared stands for its best layout of the whole legal space. Searches are kept short by what is known
already: a layout that cannot be as fast as the best so far, or that a limit forbids, is not priced (`survey`'s reach and
ceiling). Bisections start from what layouts that any stack runs reach, which is a value that holds.
"""

from __future__ import annotations

from math import inf

import numpy as np

from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.answer import answer
from capacity.estimators.case import read_case
from capacity.estimators.training_account import account
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.upkeep_case import read_upkeep
from capacity.planning.backwards import Answer
from capacity.planning.bisection import Trials, first, largest
from capacity.planning.training import LIMITED, WORDS, best_of, option_of
from capacity.planning.training_search import FASTEST, SLOWEST, limit_of, survey
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.planning.backwards import Asked
    from capacity.spec.choice import Option
    from capacity.spec.estimate import Estimate
    from capacity.spec.workload import Workload

# Layouts that any stack runs: where a bisection starts.
PLAIN = {"schedule": "1f1b", "offload": (), "recompute_share": 1.0, "cp": 1.0}
# Sizes between which a model is looked for, and by how much two sizes may differ that hold and do not.
LEAST_PARAMS, MOST_PARAMS, PARAMS_WITHIN = 1e7, 2e13, 0.01
# Devices tried, at most; sequences are lengthened by so many tokens.
MOST_DEVICES, LENGTH = 262144.0, 1024.0
NONE_LEGAL = "no legal layout"
# A batch that comes this near to the pace of the fastest is large enough.
PACE = 0.95


class Run(Record):
    """The best layout of a question within its limits, or why there is none."""

    option: Option | None
    why: str


def best_run(
    request: dict[str, Any],
    limits: dict[str, float],
    *,
    plain: bool = False,
    beat: tuple[str, float] | None = None,
) -> Run:
    """The fastest layout that keeps all limits, of the whole space or of those that any stack runs (plain).

    beat: a quantity ("run_time_s" or "cost_usd") and a value; a run that does not come below it, or that breaks a limit, is of
    no use, and by how much it does not is not worked out.
    """
    from capacity.quantities import format

    case = read_case({**request, "mode": request.get("mode", "train")})
    workload, devices = read_workload(case)
    limit = limit_of(case, limits.get("max_memory"))
    # The fastest is also the cheapest. It draws most, though, and what runs beside the steps may hang on the layout.
    reach = inf if "power_cap" in limits else SLOWEST if workload.ramp_tokens or workload.eval_tokens else FASTEST
    ceiling = inf
    if beat is not None:
        ends = [beat] + [(LIMITED[name], limits[name]) for name in ("deadline", "budget") if name in limits]
        ceiling = min(_ceiling(case, workload, devices, name, value) for name, value in ends)
    found = survey(case, workload, devices, limit, PLAIN if plain else None, reach=reach, ceiling_s=ceiling)
    if not found.legal:
        return Run(None, NONE_LEGAL)
    if not len(found):
        if beat is not None and ceiling < inf:
            name, least = beat
            return Run(None, f"not below {format(least, 'USD' if name == 'cost_usd' else 's')} within the limits")
        short = format(found.least[0] - limit, "byte", binary=True) if found.least[0] < inf else ""
        return Run(
            None, f"does not fit: {short} a device too much" if short else "does not fit, nor does its host hold it"
        )
    columns = found.columns
    within = np.ones(len(found), dtype=bool)
    for limit_name, name in LIMITED.items():
        if limit_name not in limits:
            continue
        if name not in columns:
            raise InputError("--budget needs a price of a device: give --price")
        least = float(columns[name].min())
        if least > limits[limit_name]:
            return Run(None, f"{limit_name.replace('_', ' ')} binds: {format(least, WORDS[limit_name][1])} at least")
        within &= columns[name] <= limits[limit_name]
    if not within.any():
        return Run(None, f"the limits {', '.join(limits)} are each kept by some layout, together by none")
    place = best_of(np.where(within, columns["run_time_s"], inf), columns["memory_per_device_bytes"])
    values = {name: float(column[place]) for name, column in columns.items() if name not in ("block", "row", "step")}
    return Run(option_of(found, found.plan(place), values), _told(values, devices))


def _ceiling(case: Case, workload: Workload, devices: float, name: str, least: float) -> float:
    """Seconds above which a step cannot belong to a run that comes below a time or a cost."""
    if workload.ramp_tokens:
        return inf
    seconds = least
    if name == "cost_usd":
        hourly = case.cluster.usd_per_device_hour
        seconds = inf if hourly is None else least / (hourly / 3600.0 * devices)
    # The run's other time, evaluations and interruptions, comes on top of its steps.
    return seconds * workload.global_batch * workload.seq_len / workload.tokens


def _told(values: dict[str, float], devices: float) -> str:
    """Time and money of a run in words."""
    from capacity.quantities import format

    cost = f", {format(values['cost_usd'], 'USD')}" if "cost_usd" in values else ""
    return f"{format(values['run_time_s'], 's')}{cost} on {devices:g} device{'s' if devices > 1.0 else ''}"


def run_of(request: dict[str, Any], limits: dict[str, float]) -> tuple[Option | None, Estimate | None]:
    """The best layout and its estimate."""
    run = best_run(request, limits)
    return run.option, _estimate(request, run.option)


def _estimate(request: dict[str, Any], option: Option | None) -> Estimate | None:
    if option is None:
        return None
    asked = {**request, **option.options, "mode": request.get("mode", "train")}
    return answer(read_case(asked), alone=True)


def _closed(
    asked: Asked, trials: Trials, value: float | None, beyond: float | None, what: str, request: dict[str, Any]
) -> Answer:
    """The answer at a value, with its best layout; or what binds."""
    if value is None:
        last = trials.all()[-1] if beyond is None else trials.at(beyond)
        return Answer(None, f"INFEASIBLE with {what}: {last.why}", trials, beyond)
    run = best_run(request, asked.limits)
    facts = dict(run.option.values) if run.option is not None else {}
    said = run.why if run.option is not None else trials.at(value).why
    return Answer(value, said, trials, beyond, run.option, _estimate(request, run.option), facts)


def _no_model(asked: Asked) -> None:
    if any(name in asked.request for name in ("params", "model", "config")):
        raise InputError("--solve params looks for the model: leave --params, --model and --config out")


def params(asked: Asked) -> Answer:
    """The largest model that is trained within budget and deadline."""
    _no_model(asked)
    request = dict(asked.request)
    if not {"deadline", "budget"} & asked.limits.keys() and "tokens" not in request:
        # Only memory binds: the model need not be trained to the end to be held.
        request["tokens"] = 1e9
    given = "devices" in request or "nodes" in request
    best: Answer | None = None
    for count in [0.0] if given else _rented(asked):
        on = request if given else request | {"devices": count}
        trials = Trials(lambda size, on=on: _holds(on | {"params": size}, asked.limits))  # type: ignore[misc]
        # Another number of devices has to hold the largest model so far; then its own largest, as if it were asked for alone.
        if best is not None and best.value is not None and not trials(best.value):
            continue
        plain = Trials(lambda size, on=on: _holds(on | {"params": size}, asked.limits, plain=True))  # type: ignore[misc]
        start, _ = largest(plain, LEAST_PARAMS, MOST_PARAMS, whole=False, within=PARAMS_WITHIN)
        value, beyond = largest(trials, start or LEAST_PARAMS, MOST_PARAMS, whole=False, within=PARAMS_WITHIN)
        if best is None or (value or 0.0) > (best.value or 0.0):
            best = Answer(value, "", trials, beyond, facts={"devices": count})
    assert best is not None
    assert best.trials is not None
    on = request if given else request | {"devices": best.facts["devices"]}
    return _closed(asked, best.trials, best.value, best.beyond, "even the smallest model", on | {"params": best.value})


def _rented(asked: Asked) -> list[float]:
    """Numbers of devices of the ladder that the budget rents for the whole of the deadline, or nearly.

    One below that number, where the deadline binds, and three above it, where the budget does: which of them trains the
    largest model turns on how its layers and its batch divide.
    """
    if not {"deadline", "budget"} <= asked.limits.keys():
        raise InputError("--solve params wants to know on what: give --devices, or both --deadline and --budget")
    request = {**asked.request, "params": 1e9, "tokens": 1e9}
    price = read_case({**request, "mode": "train"}).cluster.usd_per_device_hour
    if price is None:
        raise InputError("--budget needs a price of a device: give --price")
    rented = asked.limits["budget"] / (price * asked.limits["deadline"] / 3600.0)
    counts = ladder(request, {})
    below = sum(count <= rented for count in counts)
    return counts[max(below - 1, 0) : below + 3]


def _holds(request: dict[str, Any], limits: dict[str, float], *, plain: bool = False) -> tuple[bool, str]:
    run = best_run(request, limits, plain=plain)
    return run.option is not None, run.why


def tokens(asked: Asked) -> Answer:
    """The most tokens within deadline and budget, to a step."""
    if not {"deadline", "budget"} & asked.limits.keys():
        raise InputError("--solve tokens wants an end: give --deadline or --budget, or --target-loss or --flop-budget")
    # The layout that is fastest for one number of tokens is for all; memory and power do not know how many there are.
    memory = {name: value for name, value in asked.limits.items() if name in ("max_memory", "power_cap")}
    run = best_run(asked.request, memory)
    if run.option is None:
        return Answer(None, f"INFEASIBLE: {run.why}")
    case = read_case({**asked.request, **run.option.options, "mode": asked.request.get("mode", "train")})
    workload, devices = read_workload(case)
    if case.on_platform:
        case.kept["upkeep"] = read_upkeep(case, workload)
    priced = price_run(case, case.model, workload, case.cluster, devices)
    each = workload.global_batch * workload.seq_len

    def holds(steps: float) -> tuple[bool, str]:
        from capacity.quantities import format

        told = account(case, replace(priced, workload=replace(workload, tokens=steps * each)), alone=True)({})
        seconds = float(told["run_time"].mid)
        cost = float(told["cost"].mid) if "cost" in told else inf
        held = seconds <= asked.limits.get("deadline", inf) and cost <= asked.limits.get("budget", inf)
        paid = f", {format(cost, 'USD')}" if cost < inf else ""
        return held, f"{format(steps * each, '1')} tokens in {format(seconds, 's')}{paid}"

    if "budget" in asked.limits and case.cluster.usd_per_device_hour is None:
        raise InputError("--budget needs a price of a device: give --price")
    trials = Trials(holds)
    steps, beyond = largest(trials, 1.0, 1e12, whole=True)
    if steps is None:
        return Answer(None, f"INFEASIBLE: one step alone: {trials.at(1.0).why}", trials, beyond)
    option, estimate = run_of(asked.request | {"tokens": steps * each}, memory)
    said = f"{trials.at(steps).why}; {steps:,.0f} steps, and one more does not end in time"
    return Answer(steps * each, said, trials, beyond, option, estimate, {"steps": steps})


def devices(asked: Asked) -> Answer:
    """The fewest devices that hold the model and keep deadline and budget."""
    request = {name: value for name, value in asked.request.items() if name not in ("devices", "nodes")}
    trials = Trials(lambda count: _holds(request | {"devices": count}, asked.limits))
    value, before = first(trials, ladder(request, asked.limits))
    if value is None:
        # The most devices that there is any layout for say best what binds.
        for count in reversed(ladder(request, {})):
            if trials(count) or trials.at(count).why != NONE_LEGAL:
                break
        return Answer(None, f"INFEASIBLE: {_binding(trials)}", trials)
    return _closed(asked, trials, value, before, "any number of devices", request | {"devices": value})


def ladder(request: dict[str, Any], limits: dict[str, float]) -> list[float]:
    """Numbers of devices that layouts divide: powers of two in a node, then nodes times 1, 2, 3, 4, 6, 8, 12 ... of them.

    Those that could not make the deadline at the whole of their peak are left out.
    """
    case = read_case({**request, "mode": request.get("mode", "train")})
    workload, _ = read_workload(case)
    node = float(case.cluster.devices_per_node)
    counts = {1.0} | {2.0**power for power in range(20) if 2.0**power <= node}
    counts |= {node * scale * 2.0**power for scale in (1.0, 3.0) for power in range(18)}
    least = 0.0
    if "deadline" in limits:
        from capacity.estimators.pricing import peak_flop_per_s
        from capacity.estimators.training_account import active_params

        peak, _ = peak_flop_per_s(case.cluster.device, workload.precision.compute)
        products = 4.0 if workload.mode == "lora" else 6.0
        least = products * float(active_params(case.model)) * workload.tokens / (peak * limits["deadline"]) * 0.5
    # The last stands for all beyond, so that there is something to say why it does not hold.
    return sorted(one for one in counts if least <= one <= MOST_DEVICES) or [MOST_DEVICES]


def seq_len(asked: Asked) -> Answer:
    """The longest training sequence that some layout holds, by a thousand tokens at a time."""
    # A deadline is not about length: it would be kept by fewer tokens.
    memory = {name: value for name, value in asked.limits.items() if name == "max_memory"}
    request = {name: value for name, value in asked.request.items() if name != "seq_len"}
    trials = Trials(lambda units: _holds(request | {"seq_len": units * LENGTH}, memory))
    plain = Trials(lambda units: _holds(request | {"seq_len": units * LENGTH}, memory, plain=True))
    start, _ = largest(plain, 1.0, 2.0**20, whole=True)
    units, beyond = largest(trials, start or 1.0, 2.0**20, whole=True)
    if units is None:
        return Answer(None, f"INFEASIBLE: sequences of {LENGTH:g} tokens already: {trials.at(1.0).why}", trials, beyond)
    length = units * LENGTH
    option, estimate = run_of(request | {"seq_len": length}, memory)
    why = "" if beyond is None else f"; {beyond * LENGTH:,.0f}: {trials.at(beyond).why}"
    built = feeding.longest(read_case({**request, "mode": "train"}).model)
    warnings = (f"the model was built for {built:,.0f} positions",) if built and length > built else ()
    return Answer(length, f"sequences of {length:,.0f} tokens fit{why}", trials, beyond, option, estimate, {}, warnings)


def budget(asked: Asked) -> Answer:
    """The least money that trains the model within the deadline."""
    return _over_ladder(asked, "cost_usd", "least money")


def days(asked: Asked) -> Answer:
    """The least time that trains the model within the budget."""
    return _over_ladder(asked, "run_time_s", "least time")


def _over_ladder(asked: Asked, name: str, what: str) -> Answer:
    """The least of a quantity over all numbers of devices that keep the limits; of those named where some are."""
    request = asked.request
    given = "devices" in request or "nodes" in request
    counts = [0.0] if given else ladder(request, asked.limits)
    best: tuple[float, float, Run] | None = None

    def holds(count: float) -> tuple[bool, str]:
        nonlocal best
        on = request | ({} if given else {"devices": count})
        run = best_run(on, asked.limits, beat=None if best is None else (name, best[0]))
        if run.option is None:
            return False, run.why
        if name not in run.option.values:
            raise InputError("--solve budget needs a price of a device: give --price")
        if best is None or run.option.values[name] < best[0]:
            best = run.option.values[name], count, run
        return True, run.why

    trials = Trials(holds)
    # From the end where the best is likely to be: time falls with devices, money rises.
    for count in reversed(counts) if name == "run_time_s" and "budget" not in asked.limits else counts:
        trials(count)
    if best is None:
        return Answer(None, f"INFEASIBLE: {_binding(trials)}", trials)
    value, count, run = best
    on = request | ({} if given else {"devices": count})
    assert run.option is not None
    return Answer(
        value, f"{what}: {run.why}", trials, None, run.option, _estimate(on, run.option), dict(run.option.values)
    )


def _binding(trials: Trials) -> str:
    """What binds over a ladder of devices: a budget on the fewest that hold the model, a deadline on the most."""
    told = sorted(trials.all(), key=lambda trial: trial.value)
    dear = [trial for trial in told if trial.why.startswith("budget")][:1]
    slow = [trial for trial in told if trial.why.startswith("deadline")][-1:]
    return "; ".join(f"{one.why} on {one.value:,.0f} devices" for one in dear + slow or told[-1:])


def global_batch(asked: Asked) -> Answer:
    """The smallest global batch that makes the deadline, or without one comes near the pace of the largest."""
    request = {name: value for name, value in asked.request.items() if name != "batch"}
    sizes = [2.0**power for power in range(17)]
    runs = {size: best_run(request | {"batch": size}, asked.limits) for size in sizes}
    pace = {size: run.option.values["tokens_per_s_per_device"] for size, run in runs.items() if run.option is not None}
    fastest = max(pace.values(), default=0.0)

    def holds(size: float) -> tuple[bool, str]:
        near = size in pace and ("deadline" in asked.limits or pace[size] >= PACE * fastest)
        said = f"{pace[size] / fastest:.0%} of the fastest pace, {runs[size].why}" if size in pace else runs[size].why
        return near, said

    trials = Trials(holds)
    value, before = first(trials, sizes)
    return _closed(asked, trials, value, before, "any batch", request | {"batch": value})


SOLVERS = {
    "params": params,
    "tokens": tokens,
    "devices": devices,
    "seq-len": seq_len,
    "budget": budget,
    "days": days,
    "global-batch": global_batch,
}
