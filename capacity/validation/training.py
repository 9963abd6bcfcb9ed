"""Training steps held against published runs: any table with the columns of docs/accuracy-training.md."""

from __future__ import annotations

import numpy as np
import pandas as pd

from capacity.errors import CapacityError, InputError
from capacity.estimators import feeding
from capacity.estimators.composed import site_factor, step_interval
from capacity.estimators.lowering import lower, model_flop
from capacity.estimators.network import Network
from capacity.estimators.pricing import Pricer, peak_flop_per_s
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_terms import price_terms
from capacity.estimators.training_time import assemble
from capacity.estimators.training_weights import weights_of
from capacity.record import replace
from capacity.validation import scoring
from capacity.validation.sweeps import sweeps
from capacity.validation.tables import publisher, read_runs, word
from capacity.validation.training_rows import Setup, read_setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.training_terms import Terms

METRIC = "step_time_s"
ROUTED = ("moe", "mla", "hybrid")
NEEDED = ("id", "model", "device")
# The usual guess of a spreadsheet: model FLOPs at this share of the dense 16-bit peak.
TRIVIAL_UTILISATION = 0.4
VIEWS = {
    "source": ("source",),
    "device": ("device",),
    "stack": ("stack",),
    "kind": ("kind",),
    "tier": ("tier",),
    "precision": ("precision",),
    "recent": ("tier", "recent"),
    "all": ("tier", "kind", "stack"),
}


def terms_of(setup: Setup) -> Terms:
    """The priced terms of a run."""
    workload, plan = setup.workload, setup.plan
    precision = workload.precision
    pricer = Pricer(
        setup.cluster.device,
        setup.profile,
        precision.compute,
        {"": precision.weight_bits / 8.0},
        precision.activation_bits / 8.0,
        wide=frozenset({"head", "router"} if precision.compute in ("fp8", "fp4", "int8") else ()),
    )
    table = lower(setup.model, feeding.learn(setup.model, plan.micro_batch, workload.seq_len))
    weights = weights_of(lower(setup.model, feeding.feed(setup.model, 1.0, 1.0)))
    fused = setup.attention != "standard"
    return price_terms(
        setup.model,
        table,
        weights,
        workload,
        plan,
        Network.of(setup.cluster, setup.profile),
        pricer,
        setup.rounds,
        fused=fused,
    )


def step_of(setup: Setup) -> dict[str, float]:
    """Parts of a step of a run, in seconds."""
    stack = load_stack(setup.stack, setup.cluster.device, setup.workload.precision.compute)
    if setup.attention == "flash-3":
        # Kernels written for the architecture, as tuned stacks have them.
        stack = replace(stack, attention=max(stack.attention, load_stack("tuned", setup.cluster.device).attention))
    return assemble(terms_of(setup), stack, setup.profile.host_layer_s)


def question_of(setup: Setup) -> str:
    """What a run does, whatever its layout: runs of one question can be compared."""
    work = setup.workload
    return (
        f"{setup.model.name} on {setup.plan.devices:g} {setup.cluster.device.id}, {work.global_batch:g} x {work.seq_len:g}, "
        f"{work.precision.compute} {work.mode}"
    )


def layout_of(setup: Setup) -> str:
    """How it is laid out."""
    plan = setup.plan
    return (
        f"dp {plan.dp:g} tp {plan.tp:g} pp {plan.pp:g} cp {plan.cp:g} ep {plan.ep:g} v {plan.interleave:g} zero {plan.zero} "
        f"mb {plan.micro_batch:g} {plan.recompute}"
    )


def trivial_step_s(setup: Setup) -> float:
    """6 N + 12 L h s FLOPs a token at a fixed share of peak: what a spreadsheet says."""
    table = lower(setup.model, feeding.feed(setup.model, 1.0, setup.workload.seq_len))
    work = 3.0 * model_flop(table) * setup.workload.global_batch
    dtype = setup.workload.precision.compute
    peak, _ = peak_flop_per_s(setup.cluster.device, dtype if dtype in ("fp32", "tf32") else "bf16")
    return work / (TRIVIAL_UTILISATION * peak * setup.plan.devices)


def predict(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each row of a table, with why where it could not be priced or is far off."""
    found = [_predict(row) for row in table.to_dict("records")]
    return pd.DataFrame(found)


def _predict(row: dict[str, Any]) -> dict[str, Any]:
    identifier = word(row, "id") or "?"
    result: dict[str, Any] = {
        "id": identifier, "source": publisher(identifier), "device": word(row, "device"), "stack": "", "kind": "", "tier": word(row, "tier"),
        "precision": "", "recent": "", "measured": np.nan, "low": np.nan, "mid": np.nan, "high": np.nan, "baseline": np.nan,
        "question": "", "layout": "", "given": "", "assumptions": "", "binding": "", "why": "",
    }  # fmt: skip
    try:
        setup = read_setup(row)
        parts = step_of(setup)
    except CapacityError as error:
        result["why"] = str(error)
        return result
    except (ArithmeticError, ValueError, TypeError, KeyError) as error:
        result["why"] = f"cannot be read: {type(error).__name__} ({str(error)[:60]})"
        return result
    result |= {
        "stack": setup.stack,
        "kind": setup.kind,
        "precision": setup.workload.precision.compute,
        "given": setup.given,
        "assumptions": "; ".join(setup.inferred),
        "question": question_of(setup),
        "layout": layout_of(setup),
        "recent": str(load_stack(setup.stack).generation == "tuned"),
    }
    if setup.measured_s is None:
        result["why"] = "nothing was measured: no step time, rate, FLOP/s or utilisation"
        return result
    span = step_interval(load_stack(setup.stack), setup.cluster.device, setup.profile, routed=setup.kind in ROUTED)
    mid = sum(parts.values())
    largest = max((name for name in parts if name != "GEMM"), key=lambda name: parts[name])
    binding = f"{largest} {parts[largest] / mid:.0%}"
    return result | {
        "measured": setup.measured_s,
        "mid": mid,
        "low": mid * span.low,
        "high": mid * span.high,
        "baseline": trivial_step_s(setup),
        "binding": binding,
        "why": _reason(setup, setup.measured_s, mid / setup.measured_s, binding),
    }


MOST_ANCHORS = 3


def site(path: str) -> tuple[float, float]:
    """How much longer the measured runs of a table take than predicted, and how many they are; see `--anchor`."""
    table = read_runs(path, "training", NEEDED)
    if not 0 < len(table) <= MOST_ANCHORS:
        raise InputError(f"{path}: {len(table)} runs; --anchor takes 1 to {MOST_ANCHORS} measured runs of the site")
    logs: list[float] = []
    for row in table.to_dict("records"):
        setup = read_setup(row)
        if setup.measured_s is None:
            raise InputError(f"{path}: run {setup.id} states no step time or rate; give step_time_s")
        logs.append(float(np.log(setup.measured_s / sum(step_of(setup).values()))))
    stack = load_stack(setup.stack)
    return site_factor(logs, stack, setup.cluster.device, routed=setup.kind in ROUTED), float(len(logs))


def _reason(setup: Setup, measured_s: float, ratio: float, binding: str) -> str:
    """Why a prediction is far off, most likely: what was inferred, what the run is, or the part that weighs most."""
    if 0.8 <= ratio <= 1.25:
        return ""
    if setup.given in ("device_hours", "total_days"):
        return "a whole run, with restarts and evaluation"
    if setup.inferred:
        return "inferred: " + "; ".join(setup.inferred)
    if trivial_step_s(setup) / measured_s < 0.1:
        return "under 4 % utilisation: waiting for launches, data or other devices"
    return f"{binding} of the step" + (", experts" if setup.kind in ("moe", "mla") else "")


def validate(data: str | None) -> dict[str, Any]:
    """Score every run of a table, or of the project's own; see `capacity.validation.validate`."""
    rows = predict(read_runs(data, "training", NEEDED))
    return scoring.document(
        "training", rows, scoring.score(rows, METRIC), scoring.groups(rows, METRIC, VIEWS.values()),
        unit="s", views=VIEWS, baselines={"baseline_mdape": "40 % MFU"}, sweeps=sweeps(rows, ("source", "question")),
    )  # fmt: skip
