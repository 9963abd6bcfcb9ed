"""What is said of a priced training run: whether it fits, what binds it, how it is laid out, what other devices would do."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.assumptions import Assumptions
from capacity.estimators.rigs import rivals
from capacity.estimators.training_account import PLACES
from capacity.estimators.training_run import goodput_of, price_run
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.training_run import Run
    from capacity.spec.device import Cluster
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload


def title(workload: Workload) -> str:
    """What is done, in words."""
    return {
        "train": "Training",
        "finetune": "Fine-tuning",
        "lora": "LoRA fine-tuning",
        "rlhf": "Reinforcement learning",
    }[workload.mode]


def binding(run: Run) -> str:
    """What most of the step is spent on, in one word."""
    if not run.fits:
        return "memory"
    kinds = {
        "compute": 0.0,
        "memory bandwidth": 0.0,
        "network": 0.0,
        "launch latency": 0.0,
        "pipeline bubble": 0.0,
        "offloading": 0.0,
        "writing answers": 0.0,
    }
    places = {
        "GEMM": "compute",
        "attention": "compute",
        "recomputation": "compute",
        "head and loss": "compute",
        "element-wise": "memory bandwidth",
        "optimizer": "memory bandwidth",
        "expert products": "compute",
        "first probabilities": "compute",
        "critic": "compute",
        "reward": "compute",
        "reference": "compute",
        "teacher": "compute",
        "casts": "memory bandwidth",
        "gradient accumulation": "memory bandwidth",
        "waiting for launches": "launch latency",
        "pipeline bubble": "pipeline bubble",
        "uneven stages": "pipeline bubble",
        "stragglers": "network",
        "host traffic": "offloading",
        "optimizer on the host": "offloading",
        "generation": "writing answers",
        "waiting for answers": "writing answers",
    }
    for name, seconds in run.time.items():
        kinds[places.get(name, "network")] += seconds
    return max(kinds, key=lambda kind: kinds[kind])


def describe_plan(plan: Plan, cluster: Cluster) -> str:
    """The layout in one line."""
    sizes = (
        ("dp", plan.dp), ("tp", plan.tp), ("pp", plan.pp), ("cp", plan.cp), ("ep", plan.ep), ("etp", plan.etp or 1.0),
        ("replicas", plan.replicas), ("chunks", plan.interleave),
    )  # fmt: skip
    cuts = [f"{name} {size:g}" for name, size in sizes if size > 1.0]
    sharding = f"ZeRO-{plan.zero}" if plan.zero else "no sharding"
    node = "node" if cluster.nodes == 1 else "nodes"
    return (
        f"{plan.devices:g} x {cluster.device.name} ({cluster.nodes} {node}); {', '.join([*cuts, sharding])}, "
        f"micro-batch {plan.micro_batch:g}"
        + (f", {_rebuilt(plan)} recomputation" if plan.recompute != "none" else "")
        + (f", {plan.schedule} schedule" if plan.schedule != "1f1b" else "")
        + (f", {' and '.join(plan.offload)} on {PLACES[plan.offload_to]}" if plan.offload else "")
    )


def written_by(run: Run) -> str:
    """Who writes the answers that are learnt from."""
    if run.generation is None:
        return ""
    writers = run.generation.plan
    where = "devices of their own" if run.devices > run.plan.devices else "the same devices"
    aside = ", states on the host meanwhile" if run.generation.aside else ""
    return f"; answers by {writers.dp:g} replicas of {writers.tp * writers.pp:g} on {where}{aside}"


def _rebuilt(plan: Plan) -> str:
    return (
        f"{', '.join(plan.rebuilt[:-1])} and {plan.rebuilt[-1]}".removeprefix(" and ")
        if plan.rebuilt
        else plan.recompute
    )


def verdict(run: Run, quantities: Mapping[str, Any]) -> str:
    """Whether it fits, how long it takes, what it costs and what binds it, in a line."""
    from capacity.quantities import format

    capacity = run.cluster.device.memory_bytes
    need = quantities["memory_per_device"]
    amount = f"{format(need.mid, 'byte', binary=True)} of {format(capacity, 'byte', binary=True)}"
    if run.generation is not None and not run.generation.held:
        return (
            f"DOES NOT FIT: no answer has room beside training, {amount} per device; give --rollout-tp or more devices"
        )
    if not run.fits:
        short = format(max(need.mid - layout.USABLE_SHARE * run.cluster.device.open_bytes, 0.0), "byte", binary=True)
        fewest = quantities.get("fewest_devices")
        hint = f"; {fewest.mid:g} devices hold it" if fewest is not None and fewest.mid > run.plan.devices else ""
        return f"DOES NOT FIT: needs {amount} per device, {short} too much{hint}"
    time = quantities["run_time"]
    text = f"fits: {amount} per device; {format(time.mid, 's')}"
    cost = quantities.get("cost")
    if cost is not None:
        text += f", {format(cost.mid, 'USD')}"
    return text + f"; bound by {binding(run)}"


def alternatives(case: Case, run: Run, quantities: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The same run on as many of other devices, best time first."""
    rows: list[dict[str, Any]] = []
    free = {
        key: value
        for key, value in case.request.items()
        if key not in ("tp", "pp", "dp", "ep", "zero", "micro_batch", "recompute", "interleave")
    }
    checkpoint = float(quantities["checkpoint"].mid)
    # Evaluation and a batch ramp take the same share everywhere.
    upkeep = case.kept.get("upkeep")
    own, _ = goodput_of(run.cluster, checkpoint, run.devices, upkeep)
    beside_share = float(quantities["goodput"].mid / own)
    for rival, profile in rivals(case.cluster, case.profile, tuple(case.request.get("catalogue", ()))):
        cluster = rival
        if "encrypt" in case.request and rival is not case.cluster:
            from capacity.estimators.upkeep_case import protect

            try:
                cluster = protect(rival, case.request, case.folders, Assumptions())
            except InputError:  # a device without a confidential mode
                continue
        other, device = run, cluster.device
        if device.id != run.cluster.device.id:
            try:
                other = price_run(
                    replace(case, request=free, profile=profile, cluster=cluster),
                    run.model,
                    run.workload,
                    cluster,
                    run.devices,
                )
            except InputError:
                continue
        kept, _ = goodput_of(other.cluster, checkpoint, run.devices, upkeep)
        rate = run.workload.global_batch * run.workload.seq_len / sum(other.time.values()) * kept * beside_share
        rows.append(
            {
                "device": device.id,
                "fits": other.fits,
                "memory_per_device_bytes": float(sum(other.memory.values())),
                "run_time_s": float(run.workload.tokens / rate),
                "cost_usd": float(run.workload.tokens / rate / 3600.0 * run.devices * device.usd_per_hour)
                if device.usd_per_hour is not None
                else None,
                "layout": f"tp {other.plan.tp:g} pp {other.plan.pp:g} ZeRO-{other.plan.zero} {other.plan.recompute}",
            }
        )
    return tuple(sorted(rows, key=lambda row: (not row["fits"], row["run_time_s"])))


def warnings(case: Case, run: Run) -> tuple[str, ...]:
    """What the asker should know of a run before believing it."""
    found = []
    if run.workload.global_batch < run.plan.dp * run.plan.micro_batch:
        found.append("the global batch is smaller than the data-parallel group: some devices idle")
    if case.profile.basis != "measured":
        found.append(f"kernel efficiencies of {run.cluster.device.name} are carried from other architectures")
    longest = feeding.longest(case.model)
    if longest and run.workload.seq_len > longest:
        found.append(f"sequence length {run.workload.seq_len:g} exceeds the model's {longest:g} positions")
    return tuple(found)
