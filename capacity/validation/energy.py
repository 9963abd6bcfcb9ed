"""Energy of training and inference, against measured runs: joules per token, per request, or of a whole run.

Inference rows are asked as a user would ask them: what notes say of batch, format and engine is read, the rest assumed
("assumed" says what). Neither measured speed nor measured power is used. Training rows are device-hours times a predicted
power.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from capacity.catalogue.clusters import default_cluster
from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.checkpoint import has_experts
from capacity.estimators.composed import composed_interval, stretched
from capacity.estimators.layout import divides_heads, expert_count
from capacity.estimators.power import training_share
from capacity.estimators.serving import serving_quantities
from capacity.laws.profile import load_profile
from capacity.validation import scoring
from capacity.validation.inference_rows import ANSWERS_VARY, engine_of
from capacity.validation.naming import device_named, model_named
from capacity.validation.tables import number, read_runs, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.device import Device

COLUMNS = ("kind", "model", "device", "energy_value", "energy_unit")
VIEWS = {
    "unit": ("kind", "unit"),
    "device": ("kind", "unit", "device"),
    "model": ("kind", "unit", "model"),
    "engine": ("kind", "unit", "class"),
}
# Joules of a unit, and what a row of it is about.
UNITS = {
    "j/output token": (1.0, "token"),
    "j/output token (upper bound)": (1.0, "token at the wall"),
    "j/request": (1.0, "request"),
    "mwh": (3.6e9, "run"),
    "kwh": (3.6e6, "run"),
    "wh/epoch": (3600.0, "run"),
}
# Prompts and answers of the tasks these tables come from, where a row does not say.
PROMPTS = {"gpqa": 300.0, "lm-arena-chat": 250.0, "chat": 120.0, "code": 160.0, "instruct": 100.0}
# What a small board draws beside the card that computes; of other hosts the catalogue says it.
SMALL_HOST_W = 8.0
_SMALL_HOST = re.compile(r"\bpi\b|cm5|radxa|riscv|risc-v|hifive")


def validate(path: str | None) -> dict[str, Any]:
    """Score a table of energies; see `capacity.validation.validate`."""
    rows = predict(read_runs(path, "energy", COLUMNS))
    found: list[dict[str, Any]] = []
    for metric in sorted(rows["metric"].unique()):
        part = rows[rows["metric"] == metric]
        found += scoring.by_metric(part, metric, VIEWS.values())
    tokens = rows[rows["metric"] == "j_per_token"]
    return scoring.document(
        "energy", rows, scoring.score(tokens, "j_per_token"), found,
        unit="", views=VIEWS, baselines={"baseline_mdape": "roofline"},
    )  # fmt: skip


def predict(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each measured energy: measured, low, mid, high in joules, and why not priced."""
    found: list[dict[str, Any]] = []
    for index, row in enumerate(table.to_dict("records")):
        found += _predicted(row, str(row.get("id", f"energy-{index}")))
    return pd.DataFrame(found)


def _predicted(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = number(row, "energy_value")
    joules, about = UNITS.get(word(row, "energy_unit").lower(), (1.0, ""))
    tokens = number(row, "tokens") if about == "request" else 1.0
    measured = (value or 0.0) * joules / max(tokens or 1.0, 1.0)
    if not measured > 0.0:
        return []
    common: dict[str, Any] = {"id": key, "kind": row["kind"], "model": row["model"], "device": row["device"]}
    common |= {"unit": str(row.get("energy_unit")), "class": "", "metric": _METRICS.get(about, "other")}
    low = mid = high = baseline = np.nan
    assumed = why = ""
    try:
        if word(row, "kind").lower() == "training":
            common["metric"] = "j_of_run"
            (low, mid, high), baseline = _training(row)
        elif common["metric"] == "other":
            why = f"energies in {row.get('energy_unit')} are not modelled"
        elif tokens is None:
            why = "the length of the answers is not stated"
        else:
            common["class"] = engine_of(
                {"engine": _engine(row), "device": row["device"]}, device_named(str(row["device"]))
            )
            (low, mid, high), baseline, assumed = _inference(row, at_the_wall=about == "token at the wall")
    except CapacityError as error:
        why = str(error)
    answer = {"measured": measured, "low": low, "mid": mid, "high": high, "baseline": baseline}
    return [common | answer | {"assumed": assumed, "why": why}]


_METRICS = {"token": "j_per_token", "request": "j_per_token", "token at the wall": "j_per_token_at_the_wall"}


def _training(row: dict[str, Any]) -> tuple[tuple[float, float, float], float]:
    """Device-hours at the power that training draws."""
    hours = number(row, "device_hours")
    if hours is None:
        raise CapacityError("device-hours are not stated")
    device = device_named(str(row["device"]))
    if device.tdp_w is None:
        raise CapacityError(f"the power limit of {device.name} is not known")
    limit = _power_limit(row, device)
    pue = number(row, "pue") or 1.0
    energy = hours * 3600.0 * limit * pue
    share = training_share(limit / device.tdp_w)
    spread = composed_interval("power", "run_power", load_profile(device))
    mid = energy * share
    return (mid * spread.low, mid, mid * spread.high), energy


def _power_limit(row: dict[str, Any], device: Device) -> float:
    """The limit a row's notes say was set, or the datasheet's."""
    found = re.search(r"power limit (\d+) W", str(row.get("notes", "")))
    return min(float(found[1]), device.tdp_w or float(found[1])) if found else float(device.tdp_w or 0.0)


def _engine(row: dict[str, Any]) -> str:
    notes = str(row.get("notes", "")).lower()
    for known in ("vllm 0.5.4", "pytorch", "t-mac", "sglang", "tensorrt"):
        if known in notes:
            return {"pytorch": "hf transformers"}.get(known, known)
    if "geerling" in word(row, "source").lower() or "wall" in notes or "llama.cpp" in notes:
        return "llama.cpp"
    return "vllm 0.11.1"


def _inference(row: dict[str, Any], *, at_the_wall: bool) -> tuple[tuple[float, float, float], float, str]:
    """Joules of an output token: low, mid, high; the roofline's time at the power limit; and what was assumed."""
    request = request_of(row)
    device = device_named(str(row["device"]))
    load, quantities = serving_quantities(read_case(request))
    energy = quantities["device_energy_per_token"]
    answer = (energy.low, energy.mid, energy.high)
    if at_the_wall:
        # Watts of the whole machine while it writes, over tokens a second.
        small = _SMALL_HOST.search(word(row, "device").lower())
        host = SMALL_HOST_W if small else float(default_cluster(device).host_w)
        power, token = quantities["device_power"], quantities["tpot"]
        low, mid, high = ((getattr(power, end) + host) * getattr(token, end) for end in ("low", "mid", "high"))
        answer = stretched((low, mid, high), "wall")
    limit = (device.tdp_w or 300.0) * load.plan.devices
    step = (load.memory["weights"] + load.memory["KV cache"]) / device.memory_bytes_per_s
    assumed = f"prompts of {request['prompt_len']}, {request['concurrency']} requests, {request['precision']}"
    return answer, limit * step / load.running, assumed


def request_of(row: dict[str, Any]) -> dict[str, Any]:
    """The question of `capacity estimate` that a row of inference answers."""
    notes = str(row.get("notes", "")).lower()
    model, device = model_named(str(row["model"])), device_named(str(row["device"]))
    engine = engine_of({"engine": _engine(row), "device": row["device"]}, device)
    batch = re.search(r"batch(?: size)? ([\d.]+)", notes)
    running = max(float(batch[1].rstrip(".")), 1.0) if batch else 1.0
    stated = re.search(r"weights (\w+)", notes)
    precision = {"bfloat16": "bf16", "float16": "fp16", "mxfp4": "mxfp4", "fp8": "fp8", "nvfp4": "nvfp4"}.get(
        stated[1] if stated else "", model.weight_format or "bf16"
    )
    if engine.startswith("llama.cpp") or engine == "executorch":
        precision = "q4_k_m"
    elif "bf16" not in device.peak_dense_flop_per_s and precision == "bf16":
        precision = "fp16"
    task = next(
        (length for name, length in PROMPTS.items() if name in notes or name in word(row, "source").lower()), 128.0
    )
    devices = max(number(row, "n_devices") or 1.0, 1.0)
    tp = devices
    while tp > 1.0 and not divides_heads(model, tp):
        tp /= 2.0
    split = engine.startswith("llama.cpp")
    layout = {"tp": tp, "pp": 1.0, "dp": devices // tp}
    if split:
        layout = {"tp": 1.0, "pp": devices, "dp": 1.0}
    elif engine == "vllm" and devices == tp > 1.0 and has_experts(model) and expert_count(model) % devices == 0.0:
        # As this leaderboard serves mixtures: attention cut and experts dealt over the same devices.
        layout = {"tp": devices, "pp": 1.0, "dp": 1.0, "ep": devices}

    return {
        "model": model,
        "device": device.id,
        "mode": "serve",
        "engine": engine,
        "precision": precision,
        "prompt_len": int(task),
        "output_len": max(round(number(row, "tokens") or 128.0), 2),
        "concurrency": max(round(running / layout["dp"]), 1),
        "burst": 0.0,
        "output_variation": ANSWERS_VARY,
        "devices": devices,
        **layout,
        "pue": 1.0,
    }
