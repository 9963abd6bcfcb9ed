"""Peak memory of training held against published runs: any table with the columns of docs/accuracy-training.md."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from capacity.errors import CapacityError, InputError
from capacity.estimators import feeding
from capacity.estimators.composed import composed_interval
from capacity.estimators.lowering import lower
from capacity.estimators.training_memory import as_seen, training_memory
from capacity.estimators.training_weights import lora_elements, weights_of
from capacity.record import replace
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision
from capacity.validation import scoring
from capacity.validation.tables import positive, publisher, read_runs, word
from capacity.validation.training_rows import read_setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.workload import Workload
    from capacity.validation.training_rows import Setup

METRIC = "peak_memory_bytes"
NEEDED = ("id", "model", "device", "mem_kind")
GIB, GB = 2.0**30, 1e9
# The usual guess of a spreadsheet: 18 bytes a parameter over tp x pp (and ZeRO), and 34 bytes a token and feature of each layer.
TRIVIAL_STATE_BYTES, TRIVIAL_ACTIVATION_BYTES = 18.0, 34.0
# Where a table does not say: as recipes of PEFT, LitGPT and ms-swift have it.
USUAL_RANK, USUAL_DROPOUT = 16.0, 0.05
VIEWS = {
    "source": ("source",),
    "method": ("method",),
    "seen": ("seen",),
    "device": ("device",),
    "stack": ("stack",),
    "kind": ("kind",),
    "tier": ("tier",),
}
_OPTIMIZERS = (
    ("adafactor", "adafactor"),
    ("8bit", "adamw-8bit"),
    ("8-bit", "adamw-8bit"),
    ("paged", "adamw-8bit"),
    ("muon", "muon"),
    ("lion", "lion"),
    ("sgd", "sgd"),
)


def seen_of(row: dict[str, Any]) -> str:
    """What the ruler saw: memory in tensors ("allocated"), kept by the allocator ("reserved") or taken from the driver."""
    text = word(row, "mem_kind").lower()
    if "nvidia-smi" in text or "not stated" in text or "driver" in text:
        return "driver"
    if "reserved" in text and "allocated" not in text:
        return "reserved"
    return "allocated" if "allocated" in text else "reserved"


def measured_bytes(row: dict[str, Any]) -> float:
    """The peak a row states; raises InputError where it has none, or its unit is not known."""
    if re.match(r"\s*(oom|out of memory|>)", word(row, "peak_mem_printed"), re.IGNORECASE):
        raise InputError("it ran out of memory: a bound, not a peak")
    stated = positive(row, "peak_mem_gib")
    if stated is not None:
        return stated * GIB
    printed = re.search(r"\d+(?:\.\d+)?", word(row, "peak_mem_printed"))
    unit = word(row, "unit_printed")
    if printed is None or word(row, "peak_mem_printed").startswith("<"):
        raise InputError("no peak is stated")
    value = float(printed[0])
    if unit.lower().startswith("bytes"):
        return value
    if unit.lower().startswith("mib"):
        return value * 2.0**20
    if "1e9" in unit:
        return value * GB
    shared = re.search(r"SUM over (\d+)", unit)
    # Tools print MiB / 1024 and call it GB.
    return value * GIB / (float(shared[1]) if shared else 1.0)


# What a table means by the adapted maps of a stack's default, else PEFT's own.
_TARGETS = {"litgpt": ("q_proj", "v_proj")}
_NAMED_TARGETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"all[ -]linear|\ball\b|adapter v2|qlora|q-lora", ()),
    (r"c_attn|qkv", ("q_proj", "k_proj", "v_proj")),
)
_TRAINABLE = re.compile(r"trainable(?: parameters)?\s+([\d,.]+)\s?([MK]?)", re.IGNORECASE)


def _workload(row: dict[str, Any], setup: Setup) -> Workload:
    method = f"{word(row, 'method')} {word(row, 'model')}".lower()
    dtype = word(row, "dtype").lower()
    text = f"{method} {word(row, 'optimizer')}".lower()
    optimizer = next((name for mark, name in _OPTIMIZERS if mark in text), "adamw")
    precision = setup.workload.precision
    mode = "lora" if "lora" in method or "adapter" in method else setup.workload.mode
    bits, short = 16.0, False
    if mode == "lora":
        if re.search(r"nf4|int4|q-?lora|4-?bit|fp4", f"{method} {dtype}"):
            bits = 4.127 if "dq" in method or "double" in method else 4.5
        elif re.search(r"int8|8-?bit", f"{method} {dtype}"):
            bits = 8.0
        precision = Precision(
            bits, 16.0, 16.0, 16.0, 16.0, precision.compute if precision.compute != "int8" else "bf16"
        )
        short = "bf16-true" in dtype
    elif "bf16-true" in dtype or "bf16 states" in word(row, "optimizer").lower():
        precision, short = Precision(16.0, 16.0, 16.0, 16.0, 16.0, "bf16"), True
    notes = f"{method} {word(row, 'notes')}".lower()
    workload = replace(
        setup.workload,
        mode=mode,
        optimizer=optimizer,
        precision=precision,
        short_states=short,
        trains_embedding="emb" in word(row, "method").lower(),
        fused_loss="liger" in notes and "no liger" not in notes and "without" not in word(row, "method").lower(),
    )
    return _adapters(row, setup, workload) if mode == "lora" else workload


def _adapters(row: dict[str, Any], setup: Setup, workload: Workload) -> Workload:
    """Which maps have adapters, and of which rank: as a row names them, counts them, or its stack does by itself."""
    method, notes = word(row, "method").lower(), word(row, "notes")
    said = f"{method} {notes}".lower()
    targets = next((names for mark, names in _NAMED_TARGETS if re.search(mark, said)), _TARGETS.get(setup.stack, ()))
    if re.match(r"adapter(?! v2)", method):
        # Prompts that are learnt in front of the keys: no map has a matrix beside it.
        targets = ("none",)
    rank = re.search(r"\br(?:ank)?\s?=?\s?(\d+)\b", said)
    workload = replace(
        workload, lora_targets=targets, lora_dropout=USUAL_DROPOUT, lora_rank=float(rank[1]) if rank else USUAL_RANK
    )
    counted = _TRAINABLE.search(notes)
    one = lora_elements(setup.model, replace(workload, lora_rank=1.0), Plan())
    if counted and one:
        number_ = float(counted[1].replace(",", "").rstrip(".")) * {"M": 1e6, "K": 1e3}.get(counted[2].upper(), 1.0)
        workload = replace(workload, lora_rank=number_ / one)
    return workload


def _predict(row: dict[str, Any], habits: str = "") -> dict[str, Any]:
    identifier = word(row, "id") or "?"
    result: dict[str, Any] = {
        "id": identifier, "source": publisher(identifier), "method": word(row, "method"), "seen": "", "device": word(row, "device"),
        "stack": "", "kind": "", "tier": word(row, "tier"), "measured": np.nan, "low": np.nan, "mid": np.nan, "high": np.nan,
        "baseline": np.nan, "assumptions": "", "largest": "", "why": "",
    }  # fmt: skip
    try:
        measured = measured_bytes(row)
        setup = read_setup(row)
        setup, parts = _held(row, replace(setup, stack=habits) if habits else setup)
    except CapacityError as error:
        result["why"] = str(error)
        return result
    except (ArithmeticError, ValueError, TypeError, KeyError) as error:
        result["why"] = f"cannot be read: {type(error).__name__} ({str(error)[:60]})"
        return result
    seen = seen_of(row)
    mid = as_seen(parts, seen)
    span = composed_interval("memory", "training_memory", setup.profile)
    largest = max(parts, key=lambda name: parts[name])
    return result | {
        "seen": seen,
        "stack": setup.stack,
        "kind": setup.kind,
        "measured": measured,
        "mid": mid,
        "low": mid * span.low,
        "high": mid * span.high,
        "baseline": trivial_bytes(setup),
        "assumptions": "; ".join(setup.inferred),
        "largest": f"{largest} {parts[largest] / mid:.0%}",
        "why": _reason(setup, mid / measured, f"{largest} {parts[largest] / mid:.0%}"),
    }


def _reason(setup: Setup, ratio: float, largest: str) -> str:
    if 0.8 <= ratio <= 1.25:
        return ""
    return "inferred: " + "; ".join(setup.inferred) if setup.inferred else f"{largest} of the peak"


# Whose habits stand in for those of a stack that nothing else is known of.
KIN = {
    "nanotron": "fsdp",
    "internevo": "fsdp",
    "litgpt": "fsdp",
    "torchtitan": "fsdp",
    "hugging-face": "fsdp",
    "deepspeed": "fsdp",
    "fsdp": "torchtitan",
    "megatron-deepspeed": "megatron-core",
    "megatron-lm": "megatron-core",
}


def left_out(data: str | None = None) -> dict[str, dict[str, Any]]:
    """Scores by tier with each publisher left out: where no other one speaks of its stack, habits are those of its kin."""
    table = read_runs(data, "memory", NEEDED)
    known = [_predict(row) for row in table.to_dict("records")]
    speak: dict[str, set[str]] = {}
    for one in known:
        speak.setdefault(one["stack"], set()).add(one["source"])
    alone = [_predict(row, KIN.get(one["stack"], "")) if len(speak[one["stack"]]) < 2 else one
             for row, one in zip(table.to_dict("records"), known, strict=True)]  # fmt: skip
    rows = pd.DataFrame(alone)
    return {f"tier {tier}": scoring.score(rows[rows["tier"] == tier], METRIC) for tier in sorted(set(rows["tier"]))} | {
        "all": scoring.score(rows, METRIC)
    }


def _held(row: dict[str, Any], setup: Setup) -> tuple[Setup, dict[str, float]]:
    """The parts of a run, and what more was inferred: what was measured on a device fitted it."""
    if "swift" in word(row, "source").lower() and setup.workload.mode == "finetune" and setup.plan.dp == 1.0:
        # ms-swift trains what it loaded: a checkpoint in 16 bits, with moments in 16 bits.
        setup = replace(setup, inferred=(*setup.inferred, "states in 16 bits"))
        return setup, parts_of(row, setup, short=True)
    parts = parts_of(row, setup)
    room = setup.cluster.device.memory_bytes
    if sum(parts.values()) > room and setup.plan.dp > 1.0 and positive(row, "zero_stage") is None:
        said = replace(
            setup, plan=replace(setup.plan, zero=3), inferred=(*setup.inferred, "weights spread over all devices")
        )
        setup, parts = said, parts_of(row, said)
    if sum(parts.values()) > room and setup.workload.mode == "finetune":
        setup = replace(setup, inferred=(*setup.inferred, "states in 16 bits"))
        parts = parts_of(row, setup, short=True)
    return setup, parts


def parts_of(row: dict[str, Any], setup: Setup, *, short: bool = False) -> dict[str, float]:
    """Bytes by part on the rank whose memory was printed. short: weights and states are in 16 bits throughout."""
    workload, plan = _workload(row, setup), setup.plan
    if "chunks a stage" in " ".join(setup.inferred):
        plan = replace(plan, interleave=1.0)
    weights = weights_of(lower(setup.model, feeding.feed(setup.model, 1.0, 1.0)))
    if short:
        workload = replace(workload, precision=Precision(16.0, 16.0, 16.0, 16.0, 16.0, "bf16"), short_states=True)
    stage = "last" if "logging rank" in word(row, "mem_kind").lower() and plan.pp > 1.0 else ""
    return training_memory(
        setup.model, weights, workload, plan, setup.rounds, setup.profile.context_bytes,
        stack=setup.stack, fused_attention=setup.attention != "standard", stage=stage,
    )  # fmt: skip


def trivial_bytes(setup: Setup) -> float:
    """States and activations as a spreadsheet counts them."""
    from capacity.estimators.lowering import parameter_count

    plan = setup.plan
    params = parameter_count(lower(setup.model, feeding.feed(setup.model, 1.0, 1.0)))
    states = TRIVIAL_STATE_BYTES if setup.workload.mode != "lora" else 2.0
    shards = plan.tp * plan.pp * (plan.dp if plan.zero >= 3 else 1.0)
    tokens = plan.micro_batch * setup.workload.seq_len / plan.cp
    kept = 2.0 if plan.recompute == "full" else TRIVIAL_ACTIVATION_BYTES / plan.tp
    return params * states / shards + tokens * setup.model.hidden * feeding.layer_count(setup.model) * kept


def validate(data: str | None) -> dict[str, Any]:
    """Score every peak of a table, or of the project's own; see `capacity.validation.validate`."""
    table = read_runs(data, "memory", NEEDED)
    rows = pd.DataFrame([_predict(row) for row in table.to_dict("records")])
    return scoring.document(
        "memory", rows, scoring.score(rows, METRIC), scoring.groups(rows, METRIC, VIEWS.values()),
        unit="byte", views=VIEWS, baselines={"baseline_mdape": "by hand"},
    )  # fmt: skip
