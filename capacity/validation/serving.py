"""Loaded servers: time per output token and to the first, against measured runs.

Columns: those of InferenceX and AIConfigurator's silicon samples (docs/accuracy-serving.md). Each row is asked as a user
would ask it; what a row does not say is inferred, and "assumed" says what.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from capacity.catalogue.clusters import default_cluster
from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.checkpoint import has_experts
from capacity.estimators.composed import stretched
from capacity.estimators.layout import divides_heads, expert_count
from capacity.estimators.serving import serving_quantities
from capacity.spec.model import Attention
from capacity.validation import scoring
from capacity.validation.naming import device_named, model_named
from capacity.validation.tables import number, read_runs, size, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = ("model", "device", "engine", "mode", "input_len", "output_len", "measured_tpot_ms", "measured_ttft_ms")
VIEWS = {
    "clean": ("mode", "clean"),
    "mode": ("mode",),
    "model": ("mode", "clean", "model"),
    "device": ("mode", "clean", "device"),
    "engine": ("mode", "clean", "engine"),
}
# Lengths of these runs are drawn evenly between 0.8 and 1 of the label.
MEAN_LENGTH = 0.9
# Tensor parallelism beyond this is a label of devices, not of how attention is cut.
MOST_TP = 16.0
# Attention groups from which on nobody cuts experts.
WIDE_GROUPS = 8.0
# A latent cache over so many devices with so many requests each is not copied to all of them: attention is data parallel.
WIDE_TP, WIDE_BATCH = 16.0, 8.0
# Requests of a rank that decodes, where a run does not say.
USUAL_BATCH = 16.0
# Up to so many requests in flight published runs have several small workers that decode, above it one large one.
SMALL_LOAD = 256.0
# Published launch scripts of TensorRT-LLM for dense models hold prompts of 1,024 + 1,024 tokens on fewer devices than these
# (batch_wait_timeout_iters).
WAITING_TP, HELD_STEPS = 8.0, 20.0
METRICS = {"tpot_ms": "tpot", "ttft_ms": "ttft"}


def validate(path: str | None) -> dict[str, Any]:
    """Score a table of serving runs; see `capacity.validation.validate`."""
    table = read_runs(path, "serving", COLUMNS)
    rows = predict(table)
    found: list[dict[str, Any]] = []
    for metric in METRICS:
        part = rows[rows["metric"] == metric]
        found.append({"by": {}, **scoring.score(part, metric), "spearman": ordering(part)})
        for keys in VIEWS.values():
            for group in scoring.groups(part, metric, (keys,)):
                same = part
                for name, value in group["by"].items():
                    same = same[same[name].isna() if value is None or value != value else same[name] == value]
                found.append(group | {"spearman": ordering(same)})
        stated = part[part["pools"]]
        found.append({"by": {"mode": "disagg", "pools": "stated"}, **scoring.score(stated, metric)})
    token = rows[rows["metric"] == "tpot_ms"]
    return scoring.document(
        "serving", rows, scoring.score(token, "tpot_ms") | {"spearman": ordering(token)}, found,
        unit="ms", views=VIEWS, baselines={"baseline_mdape": "roofline"},
    )  # fmt: skip


def predict(table: pd.DataFrame) -> pd.DataFrame:
    """Two rows (metrics) for each run: measured, low, mid, high, baseline in ms, and why where it was not priced."""
    found: list[dict[str, Any]] = []
    for index, row in enumerate(table.to_dict("records")):
        common = {
            "id": row.get("id", f"serving-{index}"),
            "model": row["model"],
            "device": row["device"],
            "engine": row["engine"],
            "mode": row["mode"],
            "clean": _flag(row.get("clean")),
            "deployment": _deployment(row),
            "pools": word(row, "mode").lower() == "disagg" and number(row, "decode_batch_size") is not None,
        }
        try:
            quantities, baseline, assumed = price(row)
            why = ""
        except CapacityError as error:
            quantities, baseline, assumed, why = {}, {}, "", str(error)
        for metric, name in METRICS.items():
            measured = number(row, f"measured_{metric}")
            if measured is None or measured <= 0.0:
                continue
            low, mid, high = quantities.get(name, (np.nan, np.nan, np.nan))
            found.append(
                common
                | {"metric": metric, "measured": measured, "low": low, "mid": mid, "high": high}
                | {"baseline": baseline.get(name, np.nan), "assumed": assumed, "why": why or _doubt(row)}
            )
    return pd.DataFrame(found)


def price(row: dict[str, Any]) -> tuple[dict[str, tuple[float, float, float]], dict[str, float], str]:
    """Low, mid and high of each quantity in ms, a roofline's answer, and what was assumed."""
    request, assumed = request_of(row)
    case = read_case(request)
    load, quantities = serving_quantities(case)
    found, doubt = {}, _open(row)
    for name in METRICS.values():
        quantity = quantities[name]
        answer = (quantity.low * 1e3, quantity.mid * 1e3, quantity.high * 1e3)
        found[name] = stretched(answer, f"{name}_{doubt}") if doubt else answer
    return found, baseline_of(load), "; ".join(assumed)


def baseline_of(load: Any) -> dict[str, float]:
    """A roofline on the datasheet: active weights and caches at full bandwidth; prompts at full peak."""
    from capacity.estimators.lowering import Tokens, active_parameter_count, lower

    device, plan, work = load.cluster.device, load.plan, load.workload
    ranks = plan.tp * plan.attention_dp * plan.pp
    held = load.memory["weights"] + load.memory["KV cache"]
    active = active_parameter_count(lower(load.model, Tokens()))
    peak = max(device.peak_dense_flop_per_s.get(name, 0.0) for name in ("bf16", "fp16", "fp32"))
    return {
        "tpot": held / device.memory_bytes_per_s * 1e3,
        "ttft": 2.0 * active * work.prompt_len / (peak * ranks) * 1e3,
    }


def request_of(row: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The question of `capacity estimate` that a row answers, and what had to be assumed to ask it."""
    assumed: list[str] = []
    model, device = model_named(str(row["model"])), device_named(str(row["device"]))
    precision = _precision(row, model, assumed)
    prefix = "decode_" if word(row, "mode").lower() == "disagg" else ""
    tp, groups, ep, pp, batch = _widths(row, model, prefix, assumed)
    engine = word(row, "engine").lower()
    sweep = number(row, "attention_dp_size") is None and not prefix
    length = 1.0 if sweep else MEAN_LENGTH
    request: dict[str, Any] = {
        "model": model,
        "device": device.id,
        "mode": "serve",
        "engine": engine,
        "precision": precision,
        "prompt_len": max(round((number(row, "input_len") or 1024.0) * length), 1),
        "output_len": max(round((number(row, "output_len") or 256.0) * length), 2),
        "concurrency": max(round(batch * groups), 1),
        "tp": tp,
        "pp": pp,
        "ep": ep,
        "dp": 1.0,
        "attention_dp": groups,
        "length_spread": 0.0 if sweep else 0.2,
        "sampling": "greedy",
    }
    if engine == "sglang" and not sweep and "fp4" in device.peak_dense_flop_per_s:
        request["receive_steps"] = 10.0 if batch * groups < 16.0 else 30.0
        assumed.append(
            f"new requests received every {request['receive_steps']:g} steps, as published launch scripts set it here"
        )
    lengths = {number(row, "input_len"), number(row, "output_len")}
    if (
        engine == "trtllm"
        and not sweep
        and not prefix
        and not has_experts(model)
        and lengths == {1024.0}
        and tp < WAITING_TP
    ):
        request["hold_steps"] = HELD_STEPS
        assumed.append(
            f"prompts held for {HELD_STEPS:g} steps to be read together, as the published launch script sets it here"
        )
    if prefix:
        request |= _pool(row, model, assumed)
    if _flag(row.get("mtp_suspect")):
        request |= {"draft_tokens": 1.0, "acceptance": 0.8}
        assumed.append("one drafted token a step (the row is flagged so)")
    ranks, per_node = tp * pp * groups, max(default_cluster(device).devices_per_node, 1)
    while request["dp"] > 1.0 and ranks * request["dp"] > per_node and ranks * request["dp"] % per_node:
        # A catalogue's nodes are whole; the load of each replica stays the same.
        request["dp"] -= 1.0
    whole = ranks * request["dp"]
    nodes = whole > per_node and whole % per_node
    return request | ({"nodes": -(-whole // per_node)} if nodes else {"devices": whole}), assumed


def _pool(row: dict[str, Any], model: Any, assumed: list[str]) -> dict[str, Any]:
    """The prefill workers of a disaggregated run, and how many replicas decode."""
    tp, groups, ep, _, _ = _widths(row, model, "prefill_", assumed)
    workers, decoders = size(row, "prefill_num_workers"), size(row, "decode_num_workers")
    if number(row, "decode_batch_size") is None:
        workers, decoders = _usual_pools(_named_load(row))
        load = "the load its name states" if _named_load(row) else f"{USUAL_BATCH:g} requests a rank"
        assumed.append(f"pools are not stated: {workers:g} for prompts and {decoders:g} that decode, {load}")
    return {
        "prefill_workers": workers,
        "prefill_tp": tp,
        "prefill_attention_dp": groups,
        "prefill_ep": ep,
        "dp": decoders,
    }


_NAMED_LOAD = re.compile(r"_c(\d+)(?=_|$)")


def _named_load(row: dict[str, Any]) -> float | None:
    """Requests in flight where a run's name says how many ("..._c512_...")."""
    found = _NAMED_LOAD.search(str(row.get("id", "")))
    return max(float(found[1]), 1.0) if found else None


def _usual_pools(load: float | None) -> tuple[float, float]:
    """Workers that read prompts and workers that decode, as most of 154 published runs that state theirs have them."""
    if load is None:
        return 1.0, 1.0
    return (1.0, min(load, 4.0)) if load <= SMALL_LOAD else (2.0, 1.0)


def _precision(row: dict[str, Any], model: Any, assumed: list[str]) -> str:
    given = word(row, "precision").lower()
    modes = " ".join((word(row, "gemm_quant_mode").lower(), word(row, "moe_quant_mode").lower()))
    if not given:
        for name in ("nvfp4", "mxfp4", "int4", "fp8", "int8", "fp4"):
            if name in modes or name in word(row, "model").lower():
                given = name
                break
        else:
            given = model.weight_format or "bf16"
        assumed.append(f"weights in {given}")
    if given in ("fp4", "nvfp4", "mxfp4"):
        return "mxfp4" if "mxfp4" in modes or model.weight_format == "mxfp4" else "nvfp4"
    return {"int4_wo": "int4", "bfloat16": "bf16", "fp8_block": "fp8", "w4a16": "int4"}.get(given, given)


def _widths(
    row: dict[str, Any], model: Any, prefix: str, assumed: list[str]
) -> tuple[float, float, float, float, float]:
    """Attention tp, attention dp, ep, pp and the batch of one attention rank."""
    tp, groups = size(row, f"{prefix}tp_size"), size(row, f"{prefix}attention_dp_size")
    moe_tp, ep = size(row, f"{prefix}moe_tp_size"), size(row, f"{prefix}moe_ep_size")
    stated = number(row, "decode_batch_size" if prefix else "batch_size")
    named = _named_load(row) if prefix else None
    batch = stated or (max(named / groups / _usual_pools(named)[1], 1.0) if named else USUAL_BATCH if prefix else 1.0)
    ranks = tp * groups
    if moe_tp == ep > 1.0 and ranks == moe_tp * ep:
        # Both widths of the experts repeat the number of devices, and their product went into the other one.
        batch *= groups / (ep if groups > 1.0 else 1.0)
        tp, groups = (1.0, ep) if groups > tp else (ep, 1.0)
        assumed.append(f"{ep:g} devices, which both expert widths repeat")
    elif tp == groups > 1.0 and ep == ranks:
        batch *= groups
        groups, ep = 1.0, tp
        assumed.append(f"{tp:g} devices, which both attention widths repeat")
    if groups == moe_tp > 1.0 and tp == ep == 1.0 and prefix == "prefill_":
        # Runs that state how experts are dealt for such workers read as fast as those that state it not.
        ep = groups
        assumed.append("experts of prefill workers dealt over their devices")
    elif groups == moe_tp > 1.0 and tp == ep == 1.0 and groups < WIDE_GROUPS:
        # Few devices that cut experts but not attention: the label counts devices.
        tp, groups, batch = groups, 1.0, batch * groups
        assumed.append(f"attention over {tp:g} devices, as its experts are")
    if not divides_heads(model, tp) or tp > MOST_TP:
        whole = next((one for one in (8.0, 4.0, 2.0, 1.0) if tp % one == 0.0 and divides_heads(model, one)), 1.0)
        groups, batch = groups * tp / whole, max(batch * whole / tp, 1.0)
        ep, tp = (groups * whole if has_experts(model) else 1.0), whole
        assumed.append(f"attention in {groups:g} groups of {tp:g} devices")
    if tp >= WIDE_TP and ep == ranks and batch >= WIDE_BATCH * tp and _keeps_latents(model):
        groups, tp, batch = groups * tp, 1.0, batch / tp
        assumed.append(f"attention in {groups:g} groups, since each device would hold the latent cache of all")
    experts = expert_count(model)
    if groups >= WIDE_GROUPS and ep == 1.0 and has_experts(model):
        ep = tp * groups
        assumed.append("experts dealt over all devices, as such wide groups are always run")
    ep = min(ep, tp * groups, experts or ep)  # a wider one divides neither
    while ep > 1.0 and (tp * groups % ep or experts % ep):
        ep -= 1.0
    return tp, groups, max(ep, 1.0), size(row, f"{prefix}pp_size"), batch


def _keeps_latents(model: Any) -> bool:
    return any(isinstance(one, Attention) and one.latent for block in model.blocks for one in block.sublayers)


def _flag(value: Any) -> bool | None:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    text = str(value).strip().lower()
    return True if text == "true" else False if text == "false" else None


def _open(row: dict[str, Any]) -> str:
    """What a row leaves open beside the law, by the name of its residuals; empty where it states all."""
    if word(row, "mode").lower() == "disagg":
        return "unstated_pools" if number(row, "decode_batch_size") is None else ""
    doubtful = _flag(row.get("clean")) is False or _flag(row.get("bad_width")) or _flag(row.get("mtp_suspect"))
    return "doubtful" if doubtful else ""


def _doubt(row: dict[str, Any]) -> str:
    if _flag(row.get("bad_width")):
        return "its widths contradict each other"
    if _flag(row.get("mtp_suspect")):
        return "suspected of speculative decoding"
    return ""


def _deployment(row: dict[str, Any]) -> str:
    """Rows that differ by load only share a deployment."""
    names = (
        "model", "device", "engine", "precision", "mode", "tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size",
        "prefill_tp_size", "prefill_num_workers", "decode_tp_size", "decode_num_workers", "decode_moe_ep_size",
        "decode_attention_dp_size",
    )  # fmt: skip
    return "|".join(str(row.get(name, "")) for name in names)


def ordering(rows: pd.DataFrame, least: int = 5) -> float | None:
    """Median over deployments of the rank correlation of predicted and measured; None where none has `least` runs."""
    found = []
    for _, part in rows[rows["mid"].notna()].groupby("deployment"):
        if len(part) >= least:
            ranks = part[["measured", "mid"]].rank()
            value = ranks["measured"].corr(ranks["mid"])
            if value == value:
                found.append(value)
    return float(np.median(found)) if found else None
