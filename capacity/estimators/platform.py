"""The platform half of an answer: storage, feeding, preparation, protection and reliability, and what binds first."""

from __future__ import annotations

from capacity.estimators import layout
from capacity.estimators.composed import step_interval
from capacity.estimators.dataset import stages
from capacity.estimators.intervals import Uncertain, with_intervals
from capacity.estimators.platform_account import MONTH_S, platform_account
from capacity.estimators.platform_needs import needs_of, verdict_of, warnings_of
from capacity.estimators.stacks import load_stack
from capacity.formula import total
from capacity.record import replace
from capacity.spec.estimate import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Value
    from capacity.estimators.platform_needs import Need
    from capacity.estimators.training_run import Run
    from capacity.estimators.upkeep import Saving, Upkeep
    from capacity.spec.estimate import Quantity

# What file systems deliver of their datasheets; how far rates of failure and of preparation scatter between sites.
_UNCERTAIN = (
    Uncertain("storage pace", 0.5, 1.0, "shared file systems deliver half to all of their datasheet"),
    Uncertain("failure rate", 0.5, 2.0, "sites differ: Meta's clusters by 2.8 times"),
    Uncertain("host pace", 0.6, 1.4, "processors and libraries differ"),
    Uncertain("framework", 0.4, 2.2, "published text pipelines differ by as much for the same bytes"),
)
# Storage an answer is compared with.
_RIVALS = ("ddn-ai400x2", "fsx-lustre-1000", "aws-s3", "dgx-h100-nvme", "nfs-server", "hdfs-node")


def platform_section(case: Case) -> tuple[Section, dict[str, dict[str, float]]]:
    """The platform under the training run that this case has priced already."""
    (run, values), upkeep = case.kept["train"], case.kept["upkeep"]
    account = platform_account(case, run, values, upkeep)
    stack = load_stack(case.request.get("stack") or "tuned")
    routed = layout.expert_count(case.model) > 0.0
    step = step_interval(stack, case.cluster.device, case.profile, routed=routed, anchors=case.site[1])
    quantities, sensitivities = with_intervals(account, (step, *_UNCERTAIN))
    saving = upkeep.saving(run.cluster, values["checkpoint"].mid, run.plan.devices)
    needs = needs_of(run, upkeep, saving, {name: value.mid for name, value in account({}).items()})
    first = needs[0]
    return (
        Section(
            title="Platform",
            verdict=verdict_of(first, quantities),
            fits=first.share <= 1.0,
            binding=first.name if first.share > first.near else "none",
            setting=_setting(run, upkeep, saving),
            quantities=quantities,
            breakdowns=_breakdowns(run, upkeep, quantities, needs),
            alternatives=_alternatives(case, run, values, upkeep),
            warnings=warnings_of(upkeep, needs, quantities),
        ),
        sensitivities,
    )


def platform_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    (run, values), upkeep = case.kept["train"], case.kept["upkeep"]
    return {name: value.mid for name, value in platform_account(case, run, values, upkeep)({}).items()}


def _setting(run: Run, upkeep: Upkeep, saving: Saving) -> str:
    one = upkeep.storage
    count = float(saving.units)
    said = one.name if one.id == "unnamed" else f"{count:,.0f} x {one.name}" if count > 1.0 else one.name
    protected = (
        "" if upkeep.protection is None else f"; {', '.join(upkeep.protection.parts)}: {upkeep.protection.cipher.name}"
    )
    nodes = f"{run.cluster.nodes} node{'s' if run.cluster.nodes > 1 else ''}"
    return f"{said} under {nodes}; {upkeep.snapshot} checkpoints{protected}"


def _breakdowns(
    run: Run, upkeep: Upkeep, quantities: Mapping[str, Quantity], needs: list[Need]
) -> dict[str, dict[str, float]]:
    kept = {}
    for part in upkeep.dataset:
        kept[f"{part.kind.id} collected"] = float(upkeep.redundant(part.collected))
        if part.feed != "raw":
            kept[f"{part.kind.id} prepared"] = float(upkeep.redundant(part.prepared))
    kept["checkpoints"] = float(upkeep.redundant(quantities["checkpoints_held"].mid))
    kept["logs"] = float(upkeep.redundant(quantities["logs"].mid))
    run_s = quantities["interruptions"].mid * quantities["failure_interval"].mid
    rates = upkeep.rates(run.cluster, run.plan.devices)
    return {
        "storage": kept,
        "preparation": {name: float(seconds) for name, seconds in stages(upkeep.dataset, upkeep.host).items()},
        "interruptions": {name: float(rate) * run_s for name, rate in sorted(rates.items(), key=lambda item: -item[1])},
        "pressure": {need.name: need.share for need in needs},
    }


def _alternatives(case: Case, run: Run, values: Mapping[str, Value], upkeep: Upkeep) -> tuple[dict[str, Any], ...]:
    """The same run on other storage, each as large as it must be."""
    from capacity.catalogue import load_storage

    checkpoint, run_s = values["checkpoint"].mid, values["run_time"].mid
    rows = []
    for name in dict.fromkeys((upkeep.storage.id, *_RIVALS)):
        own = name == upkeep.storage.id
        other = upkeep if own else replace(upkeep, storage=load_storage(name, case.folders), units=None)
        saving = other.saving(run.cluster, checkpoint, run.plan.devices)
        price = other.storage.usd_per_byte_month
        kept = float(total({"data set": other.dataset_kept(), "checkpoints": checkpoint * other.retained}))
        rows.append(
            {
                "storage": name,
                "units": float(saving.units),
                "read_bytes_per_s": float(saving.read_bytes_per_s),
                "save_s": float(saving.write_s),
                "stall_s": float(saving.stall_s),
                "goodput": f"{float(saving.goodput):.1%}",
                "cost_usd": None if price is None else kept * price * float(run_s) / MONTH_S,
            }
        )
    return tuple(sorted(rows, key=lambda row: (row["storage"] != upkeep.storage.id, row["save_s"])))
