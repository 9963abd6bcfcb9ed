"""Inference on one machine: decode and prefill speed and peak memory, against measured runs.

Each row is asked as a user would ask it: model, device, engine, format, lengths, requests. What a row does not say is
inferred, and "assumed" says what.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.composed import stretched
from capacity.estimators.serving import serving_quantities
from capacity.validation import scoring
from capacity.validation.inference_rows import SCORED, engine_of, host_of, kind_of, load_of, measured_of, request_of
from capacity.validation.naming import device_named
from capacity.validation.serving import baseline_of
from capacity.validation.tables import number, read_runs, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ("model", "device", "engine", "metric", "value")
VIEWS = {
    "load": ("load",),
    "engine": ("load", "class"),
    "kind": ("load", "kind"),
    "device": ("load", "device"),
    "model": ("load", "model"),
}


def validate(path: str | None) -> dict[str, Any]:
    """Score a table of inference runs; see `capacity.validation.validate`."""
    rows = predict(read_runs(path, "inference", COLUMNS))
    found: list[dict[str, Any]] = []
    for metric in sorted(rows["metric"].unique()):
        part = rows[rows["metric"] == metric]
        found += scoring.by_metric(part, metric, VIEWS.values())
        gpus = part[part["kind"].isin(("GPU", "Apple")) & ~part["class"].isin(("pytorch", "transformers"))]
        if len(gpus):
            found += [
                group | {"by": group["by"] | {"engines": "GPU engines"}}
                for group in scoring.groups(gpus, metric, (("load",),))
            ]
    single = rows[(rows["metric"] == "decode_tps") & (rows["load"] == "single")]
    return scoring.document(
        "inference", rows, scoring.score(single, "decode_tps"), found,
        unit="", views=VIEWS, baselines={"baseline_mdape": "roofline"},
    )  # fmt: skip


def predict(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, and one more where it states its memory: measured, low, mid, high, and why not priced."""
    found: list[dict[str, Any]] = []
    for index, row in enumerate(table.to_dict("records")):
        found += _predicted(row, str(row.get("id", f"inference-{index}")))
    return pd.DataFrame(found)


def _predicted(row: dict[str, Any], key: str) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"id": key, "model": row["model"], "device": row["device"], "engine": row["engine"]}
    common |= {"load": load_of(row), "class": "", "kind": ""}
    answers: dict[str, tuple[float, float, float]] = {}
    baseline: dict[str, float] = {}
    assumed: list[str] = []
    why = ""
    try:
        device = device_named(host_of(row).get("beside", str(row["device"])))
        common |= {"kind": kind_of(device), "class": engine_of(row, device)}
        request, assumed = request_of(row)
        load, quantities = serving_quantities(read_case(request))
        if not load.fits:
            # Measured, so it did fit: at a smaller margin than the engine's, or with the system's help.
            assumed.append("fits, since it was measured")
        answers, baseline = _answers(row, request, quantities, baseline_of(load))
        answers["peak_memory_bytes"] = _memory(
            load, quantities["memory_per_device"], common["class"] if common["kind"] != "CPU" else ""
        )
        baseline["peak_memory_bytes"] = load.memory["weights"] * load.plan.devices
    except CapacityError as error:
        why = str(error)
    asked = SCORED.get(word(row, "metric").lower())
    found = []
    stated = {asked: measured_of(row)} if asked else {}
    held = number(row, "memory_gib")
    if held is not None:
        stated["peak_memory_bytes"] = held * 2.0**30
    for metric, measured in stated.items():
        if measured is None or measured <= 0.0:
            continue
        low, mid, high = answers.get(metric, (np.nan, np.nan, np.nan))
        found.append(
            common
            | {"metric": metric, "measured": measured, "low": low, "mid": mid, "high": high}
            | {"baseline": baseline.get(metric, np.nan), "assumed": "; ".join(assumed), "why": why}
        )
    return found


def _answers(
    row: dict[str, Any], request: dict[str, Any], quantities: dict[str, Any], roofline: dict[str, float]
) -> tuple[dict[str, tuple[float, float, float]], dict[str, float]]:
    """What is scored, with its interval, and a roofline's answer."""
    token, prefill = quantities["tpot"], quantities["prefill_tokens_per_s"]
    running = quantities["running"].mid
    prompt, output = float(request["prompt_len"]), float(request["output_len"])
    offline = load_of(row) == "batched"
    busy = quantities["tokens_per_s"] if offline else token
    answers = {
        "decode_tps": (busy.low, busy.mid, busy.high)
        if offline
        else (running / token.high, running / token.mid, running / token.low),
        "prefill_tps": (prefill.low, prefill.mid, prefill.high),
    }
    if offline:
        answers = {name: stretched(answer, "offline") for name, answer in answers.items()}
    whole = {end: getattr(quantities["request_time"], end) for end in ("low", "mid", "high")}
    answers["latency_ms"] = (whole["low"] * 1e3, whole["mid"] * 1e3, whole["high"] * 1e3)
    rate = quantities["requests_per_s"]
    # Rates of whole requests are of saturated devices, or of an engine with all it does beside.
    answers["requests_per_s"] = stretched((rate.low, rate.mid, rate.high), "offline")
    tokens = prompt + output
    low, mid, high = answers["requests_per_s"]
    answers["total_tps"] = (low * tokens, mid * tokens, high * tokens)
    step = roofline["tpot"] * 1e-3
    base = {
        "decode_tps": running / step,
        "prefill_tps": prompt / (roofline["ttft"] * 1e-3),
        "requests_per_s": running / (step * output),
        "total_tps": running / (step * output) * tokens,
        "latency_ms": step * output * 1e3,
    }
    return answers, base


# Engines whose peak is their framework's own count: what the driver keeps for itself is not in it.
_COUNTED_BY_FRAMEWORK = ("pytorch", "transformers", "autoawq", "autoawq-gemv", "mlx", "vllm")


def _memory(load: Any, stated: Any, engine: str) -> tuple[float, float, float]:
    """Peak memory of all devices as the row's engine counts it, with its interval."""
    held = sum(load.memory.values())
    if engine in _COUNTED_BY_FRAMEWORK:
        held -= load.memory["runtime"]
    held *= load.plan.tp * load.plan.pp
    return held * stated.low / stated.mid, held, held * stated.high / stated.mid
