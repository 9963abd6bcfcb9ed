"""The training half of an answer."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import layout
from capacity.estimators.composed import composed_interval, step_interval
from capacity.estimators.intervals import Uncertain, with_intervals
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_account import account, work_by_part
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.training_verdict import (
    alternatives,
    binding,
    describe_plan,
    title,
    verdict,
    warnings,
    written_by,
)
from capacity.spec.estimate import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.training_run import Run
    from capacity.spec.estimate import Quantity
    from capacity.spec.workload import Workload


def training_section(case: Case, *, alone: bool = False) -> tuple[Section, dict[str, dict[str, float]]]:
    """The verdict, quantities and breakdowns of training, and what makes their intervals."""
    workload, devices = read_workload(case)
    run, told = priced(case, workload, devices, alone=alone)
    quantities, sensitivities = with_ranges(case, workload, devices, run, told)
    section = Section(
        title=title(workload),
        verdict=verdict(run, quantities),
        fits=run.fits,
        binding=binding(run),
        setting=describe_plan(run.plan, run.cluster) + written_by(run),
        quantities=quantities,
        breakdowns={
            "memory": {name: float(value) for name, value in run.memory.items()},
            "time": {name: float(value) for name, value in run.time.items()},
            "work": work_by_part(run),
        },
        alternatives=() if alone else alternatives(case, run, quantities),
        warnings=warnings(case, run),
    )
    return section, sensitivities


def with_ranges(
    case: Case, workload: Workload, devices: float, run: Run, told: Account
) -> tuple[dict[str, Quantity], dict[str, dict[str, float]]]:
    """Quantities of a priced run with their intervals, and what makes these; for columns of runs too."""
    variants = tuple(
        account(case, price_run(case, shape, workload, case.cluster, devices, plan=run.plan))({})
        for shape in case.shapes
    )
    return with_intervals(told, _uncertain(case), variants)


def training_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    workload, devices = read_workload(case)
    return run_values(*priced(case, workload, devices))


def run_values(run: Run, told: Account) -> dict[str, float]:
    """Every quantity's mid value, and the parts of memory and time, of a priced run or of columns of runs."""
    values = {name: value.mid for name, value in told({}).items()}
    return values | {f"memory.{k}": v for k, v in run.memory.items()} | {f"time.{k}": v for k, v in run.time.items()}


def priced(case: Case, workload: Workload, devices: float, *, alone: bool = False) -> tuple[Run, Account]:
    """The run and its account; both are kept where the platform under them is asked about."""
    if not case.on_platform:
        run = price_run(case, case.model, workload, case.cluster, devices)
        return run, account(case, run, alone=alone)
    from capacity.estimators.upkeep_case import read_upkeep

    case.kept["upkeep"] = read_upkeep(case, workload)
    run = price_run(case, case.model, workload, case.cluster, devices)
    told = account(case, run, alone=alone)
    case.kept["train"] = run, told({})
    return run, told


def _uncertain(case: Case) -> tuple[Uncertain, ...]:
    routed = ops.anywhere(layout.expert_count(case.model) > 0.0)
    stack = load_stack(case.request.get("stack") or "tuned")
    uncertain = [
        step_interval(stack, case.cluster.device, case.profile, routed=routed, anchors=case.site[1]),
        composed_interval("memory", "training_memory", case.profile),
        composed_interval("power", "power", case.profile),
    ]
    if "rlhf" in case.modes:
        uncertain.append(composed_interval("generation", "tpot", case.profile))
    if case.cluster.usd_per_device_hour is not None and "price" not in case.request:
        uncertain.append(Uncertain("price", 0.6, 1.5, "list prices of providers differ"))
    return tuple(uncertain)
