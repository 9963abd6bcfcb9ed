"""The best training layout: searched, chosen, and weighed against what else there was."""

from __future__ import annotations

import numpy as np

from capacity.errors import InputError
from capacity.estimators.answer import answer
from capacity.estimators.case import read_case
from capacity.estimators.training_run import read_workload
from capacity.estimators.training_verdict import describe_plan
from capacity.planning.front import undominated
from capacity.planning.question import plain
from capacity.planning.training_search import SLOWEST, Survey, limit_of, survey
from capacity.planning.turns import turns_of
from capacity.record import Record, replace
from capacity.spec.choice import Choice, Option, Rival, Space, Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.planning.question import Question
    from capacity.planning.space import Block, Column
    from capacity.spec.plan import Plan

# Which quantity an objective is, and whether more of it is better.
OBJECTIVES = {
    "time": ("run_time_s", False),
    "latency": ("step_time_s", False),
    "cost": ("cost_usd", False),
    "energy": ("energy_j", False),
    "carbon": ("carbon_g", False),
    "throughput-per-device": ("tokens_per_s_per_device", True),
}
LIMITED = {"deadline": "run_time_s", "budget": "cost_usd", "power_cap": "power_w"}
WORDS = {
    "deadline": ("the deadline of", "s", "run"),
    "budget": ("the budget of", "USD", "cost"),
    "power_cap": ("the power cap of", "W", "draw"),
}
# What no other layout of the front may beat all of.
FRONT = ("run_time_s", "cost_usd", "memory_per_device_bytes")
# A plainer layout is told of where it is at most this much worse.
PLAIN_ENOUGH = 0.02
# Equal but for rounding: the one that holds less is taken.
TIE = 1e-9


class Field(Record):
    """All surveys of a question side by side: which survey each row is of, and its columns."""

    surveys: tuple[Survey, ...]
    owner: Column
    columns: dict[str, Column]

    def plan(self, place: int) -> Plan:
        """The layout of a row."""
        found, row = self.at(place)
        return found.plan(row)

    def at(self, place: int) -> tuple[Survey, int]:
        """The survey of a row, and its place there."""
        number = int(self.owner[place])
        return self.surveys[number], place - int(np.searchsorted(self.owner, number))

    def option(self, place: int) -> Option:
        """A row as an option."""
        found, _ = self.at(place)
        values = {name: float(column[place]) for name, column in self.columns.items()}
        return option_of(found, self.plan(place), values)


def choose_training(question: Question) -> Choice:
    """The best training layout of a question."""
    field = _field(question)
    within, rejected = _within(field, question.limits)
    objective = question.objective or "time"
    name, most = OBJECTIVES[objective]
    if len(field.owner) and name not in field.columns:
        raise InputError(f"--objective {objective} needs a price of a device: give --price")
    seconds = sum(found.seconds for found in field.surveys)
    legal = sum(found.legal for found in field.surveys)
    examined = sum(found.examined for found in field.surveys)
    space = Space(legal, examined, sum(found.fit for found in field.surveys), int(within.sum()), seconds, rejected)
    shared: dict[str, Any] = {
        "request": {key: plain(value) for key, value in question.request.items()},
        "mode": _mode(question),
        "objective": objective,
        "limits": question.limits,
        "space": space,
    }
    if not within.any():
        return Choice(
            verdict=_hopeless(field, question.limits), best=None, estimate=None, simplest=None, front=(), runner_up=None,
            turns=(), steady=(), remedies=tuple(_remedies(field, question, None)), **shared,
        )  # fmt: skip
    score = np.where(within, field.columns[name] * (-1.0 if most else 1.0), np.inf)
    best = best_of(score, field.columns["memory_per_device_bytes"])
    option = field.option(best)
    found, _ = field.at(best)
    turns, steady = turns_of(field, best, score, within, limit_of(found.case, question.limits.get("max_memory")))
    if objective == "cost" and "price" not in question.request:
        turns = (*turns, *_dearer(field, best, score))
    return Choice(
        verdict=_verdict(field, best, objective),
        best=option,
        estimate=answer(read_case({**found.case.request, **option.options}), alone=True),
        simplest=_simplest(field, best, score),
        front=_front(field, within),
        runner_up=_runner_up(field, best, score),
        turns=turns,
        steady=steady,
        remedies=tuple(_remedies(field, question, best)),
        tried=_tried(field, score),
        **shared,
    )


def _mode(question: Question) -> str:
    return str(question.request.get("mode", "train"))


def _field(question: Question) -> Field:
    surveys = []
    for request in question.variants:
        case = read_case({**request, "mode": request.get("mode", "train")})
        workload, devices = read_workload(case)
        limit = limit_of(case, question.limits.get("max_memory"))
        # Below a cap on power it may be a slow layout that is best.
        reach = np.inf if "power_cap" in question.limits else SLOWEST
        surveys.append(survey(case, workload, devices, limit, reach=reach))
    # Where nothing fits there are no quantities either.
    names = list(dict.fromkeys(name for found in surveys for name in found.columns))
    names = [name for name in names if all(name in found.columns for found in surveys if len(found))]
    surveys = [
        replace(one, columns=one.columns | {n: np.zeros(0) for n in names}) if not len(one) else one for one in surveys
    ]
    columns = {name: np.concatenate([found.columns[name] for found in surveys]) for name in names}
    columns["devices"] = np.concatenate([np.full(len(found), float(found.devices)) for found in surveys])
    owner = np.concatenate([np.full(len(found), number) for number, found in enumerate(surveys)])
    del columns["block"], columns["row"], columns["step"]
    return Field(tuple(surveys), owner, columns)


def best_of(score: Column, memory: Column) -> int:
    """The place of the least score; of equal ones, that which holds least."""
    least = score.min()
    equal = np.flatnonzero(score <= least + abs(least) * TIE)
    return int(equal[memory[equal].argmin()])


def _within(field: Field, limits: dict[str, float]) -> tuple[Column, dict[str, int]]:
    """Rows that keep all limits, and how many break each."""
    within = np.ones(len(field.owner), dtype=bool)
    rejected = {}
    for limit, name in LIMITED.items():
        if limit in limits and len(field.owner):
            if name not in field.columns:
                raise InputError("--budget needs a price of a device: give --price")
            kept = field.columns[name] <= limits[limit]
            rejected[limit] = int((~kept).sum())
            within &= kept
    return within, rejected


def option_of(found: Survey, plan: Plan, values: dict[str, float]) -> Option:
    """A layout with what an estimate has to be given to price it."""
    cluster = found.prices.machine.cluster
    values = {"devices": float(plan.devices), **values}
    options: dict[str, Any] = {"device": cluster.device.id} if "cluster" not in found.case.request else {}
    return Option(describe_plan(plan, cluster), options | {"devices": int(plan.devices)} | options_of(plan), values)


def options_of(plan: Plan) -> dict[str, Any]:
    """A layout in the words of `capacity estimate`."""
    options: dict[str, Any] = {name: int(getattr(plan, name)) for name in ("tp", "pp", "zero", "micro_batch")}
    options["interleave"] = int(plan.interleave)
    options["recompute"] = ",".join(plan.rebuilt) or plan.recompute
    options |= {name: int(getattr(plan, name)) for name in ("cp", "ep", "replicas") if getattr(plan, name) != 1.0}
    if plan.etp is not None:
        options |= {"ep": int(plan.ep), "etp": int(plan.etp)}
    if plan.cp > 1.0:
        options["cp_kind"] = plan.cp_kind
    if plan.schedule != "1f1b":
        options["schedule"] = plan.schedule
    if plan.recompute == "full" and plan.recompute_share != 1.0:
        options["recompute_share"] = plan.recompute_share
    if plan.offload:
        options |= {"offload": ",".join(plan.offload), "offload_to": plan.offload_to}
    return options


def _verdict(field: Field, best: int, objective: str) -> str:
    from capacity.quantities import format

    name, most = OBJECTIVES[objective]
    value = field.columns[name][best]
    unit = {"run_time_s": "s", "step_time_s": "s", "cost_usd": "USD", "energy_j": "J", "carbon_g": "g"}.get(name, "1/s")
    said = format(float(value), unit)
    what = {"run_time_s": "a run of ", "step_time_s": "a step of ", "tokens_per_s_per_device": "tokens a device, "}
    run = "" if name == "run_time_s" else f", a run of {format(float(field.columns['run_time_s'][best]), 's')}"
    return f"{'most' if most else 'least'} {objective.replace('-per-', ' a ')}: {what.get(name, '')}{said}{run}"


def _hopeless(field: Field, limits: dict[str, float]) -> str:
    """What binds where nothing keeps the limits."""
    from capacity.quantities import format

    if not len(field.owner):
        if not any(found.legal for found in field.surveys):
            found = field.surveys[0]
            return (
                f"NO LEGAL LAYOUT: {found.devices:g} devices cannot be cut so that {found.case.model.name}'s heads and layers "
                f"and a batch of {found.workload.global_batch:g} sequences divide evenly, with what is fixed held"
            )
        found = min(field.surveys, key=lambda one: one.least[0] - limit_of(one.case, limits.get("max_memory")))
        need, room = found.least[0], limit_of(found.case, limits.get("max_memory"))
        return (
            f"DOES NOT FIT: the thriftiest of {found.legal:,} legal layouts needs {format(need, 'byte', binary=True)} of the "
            f"{format(room, 'byte', binary=True)} a device may give; memory binds"
        )
    said = []
    for limit, name in LIMITED.items():
        if limit in limits:
            words, unit, what = WORDS[limit]
            fewest = float(field.columns[name].min())
            if fewest > limits[limit]:
                said.append(f"{words} {format(limits[limit], unit)} binds: the least {what} is {format(fewest, unit)}")
    if not said:
        said = [f"the limits {', '.join(limits)} are each kept by some layout, together by none"]
    return "INFEASIBLE: " + "; ".join(said)


def _front(field: Field, within: Column) -> tuple[Option, ...]:
    """Layouts that no other beats in all of FRONT, the best in the first first."""
    names = [name for name in FRONT if name in field.columns]
    places = np.flatnonzero(within)
    kept = places[undominated([field.columns[name][places] for name in names])]
    return tuple(field.option(int(place)) for place in kept[np.argsort(field.columns[names[0]][kept], kind="stable")])


def _runner_up(field: Field, best: int, score: Column) -> Rival | None:
    """The best layout that cuts the model in another way on the same devices, and why it lost."""
    found, row = field.at(best)
    chosen = found.plan(row)
    start = int(np.searchsorted(field.owner, int(field.owner[best])))
    own = score[start : start + len(found)]
    other = np.zeros(len(own), dtype=bool)
    for block, these, rows in found.by_block(np.arange(len(own))):
        cut, cuts = block.cut[rows], found.prices.cuts
        other[these] = (cuts.tp[cut] != chosen.tp) | (cuts.pp[cut] != chosen.pp) | (cuts.ep[cut] != chosen.ep)
    if not (other & np.isfinite(own)).any():
        return None
    place = start + best_of(np.where(other, own, np.inf), found.columns["memory_per_device_bytes"])
    return Rival(field.option(place), _worse(score, place, best), _terms(field, place, best))


def _worse(score: Column, place: int, best: int) -> float:
    """How much worse a row's objective is, as a fraction."""
    return float(abs(score[place] / score[best] - 1.0))


def _terms(field: Field, place: int, best: int) -> dict[str, float]:
    """By how many seconds each part of a step differs, the largest difference first."""
    ours, theirs = (_parts(field, one) for one in (best, place))
    gaps = {name: theirs.get(name, 0.0) - ours.get(name, 0.0) for name in {**ours, **theirs}}
    return {name: gap for name, gap in sorted(gaps.items(), key=lambda item: -abs(item[1])) if abs(gap) > 1e-6}


def _parts(field: Field, place: int) -> dict[str, float]:
    found, row = field.at(place)
    block = found.blocks[int(found.columns["block"][row])]
    rows = np.array([int(found.columns["row"][row])])
    parts = found.prices.parts(found.prices.terms(block, rows)) | {"models beside": found.prices.guided(block, rows)}
    return {name: float(np.ravel(value)[0]) for name, value in parts.items()}


# List prices of a device at different providers, on the middle one (as in an estimate).
_DEAR = 1.5


def _dearer(field: Field, best: int, score: Column) -> Iterator[Turn]:
    """Another device, where the chosen one's price at the upper end of what providers ask would make that cheaper."""
    device = field.at(best)[0].case.cluster.device
    others = np.array([found.case.cluster.device.id != device.id for found in field.surveys])[field.owner]
    if not (others & np.isfinite(score)).any():
        return
    place = int(np.where(others, score, np.inf).argmin())
    gain = 1.0 - score[place] / (score[best] * _DEAR)
    if gain > 0.0:
        source = "list prices of providers differ"
        yield Turn(f"price of {device.name}", _DEAR, source, field.option(place), float(gain))


def _simplest(field: Field, best: int, score: Column) -> Rival | None:
    """The plainest layout that is nearly as good, where it is plainer than the best."""
    near = np.flatnonzero(score <= score[best] + abs(score[best]) * PLAIN_ENOUGH)
    effort = np.zeros(len(near))
    start = 0
    for number, found in enumerate(field.surveys):
        own = np.flatnonzero(field.owner[near] == number)
        for block, these, rows in found.by_block(near[own] - start):
            effort[own[these]] = _effort(found, block, rows)
        start += len(found)
    order = np.lexsort((score[near], effort))
    plainest = int(near[order[0]])
    if effort[order[0]] >= effort[np.flatnonzero(near == best)[0]]:
        return None
    return Rival(field.option(plainest), _worse(score, plainest, best), _terms(field, plainest, best))


def _effort(found: Survey, block: Block, rows: Any) -> Any:
    """How much there is to set up: what is offloaded, schedules that few stacks have, each further way of cutting."""
    kind, cuts, cut = block.kind, found.prices.cuts, block.cut[rows]
    cutting = [column[cut] > 1.0 for column in (cuts.tp, cuts.pp, cuts.cp, cuts.ep)]
    special = 2.0 * len(kind.offload) + 2.0 * (kind.schedule != "1f1b")
    return special + sum(cutting) + (block.replicas[rows] > 1.0) + 1.0 * (block.share[rows] != 1.0)


def _tried(field: Field, score: Column) -> tuple[Option, ...]:
    """The best of each variant, where there are several; those without any are left out."""
    if len(field.surveys) == 1:
        return ()
    found = []
    for number in range(len(field.surveys)):
        own = np.where(field.owner == number, score, np.inf)
        if np.isfinite(own).any():
            found.append((best_of(own, field.columns["memory_per_device_bytes"]), own.min()))
    return tuple(field.option(place) for place, _ in sorted(found, key=lambda item: item[1]))


def _remedies(field: Field, question: Question, best: int | None) -> Iterator[str]:
    """What would make more of the space fit, or what is missing."""
    from capacity.quantities import format

    for found in field.surveys:
        limit = limit_of(found.case, question.limits.get("max_memory"))
        if not found.fit and found.legal:
            short = format(found.least[0] - limit, "byte", binary=True)
            plan = found.plan_at(found.least[1], found.least[2])
            yield (
                f"{found.devices:g} x {found.case.cluster.device.name}: {short} a device more, or more devices, would hold "
                f"the thriftiest ({describe_plan(plan, found.prices.machine.cluster).split('; ', 1)[1]})"
            )
        elif found.missed is not None and best is not None and found is field.at(best)[0]:
            seconds, held, block, row = found.missed
            step = float(field.columns["step_time_s"][best])
            if seconds < step:
                plan = found.plan_at(block, row)
                yield (
                    f"with {format(held - limit, 'byte', binary=True)} more a device, "
                    f"{describe_plan(plan, found.prices.machine.cluster).split('; ', 1)[1]} would fit: "
                    f"a step of {format(seconds, 's')}, {1.0 - seconds / step:.1%} less"
                )
            else:
                yield (
                    "more memory would not make it faster: no layout that is up to a quarter too large takes less time"
                )
