"""What a row measured of a step, from whichever column it has."""

from __future__ import annotations

from capacity.estimators import feeding
from capacity.estimators.lowering import lower, model_flop
from capacity.estimators.pricing import peak_flop_per_s
from capacity.validation.tables import positive, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.validation.training_rows import Setup


def measured(row: dict[str, Any], setup: Setup) -> tuple[float | None, str]:
    """Seconds a step from whichever column a row has, the most direct first."""
    tokens = setup.workload.global_batch * setup.workload.seq_len
    devices = setup.plan.devices
    step = positive(row, "step_time_s")
    if step is not None:
        return step, "step_time_s"
    rate = positive(row, "tokens_per_s_per_device")
    if rate is not None:
        return tokens / rate / devices, "tokens_per_s_per_device"
    device = setup.cluster.device
    peak, _ = peak_flop_per_s(device, setup.workload.precision.compute)
    work, hardware = _step_flop(row, setup)
    flops = positive(row, "model_tflops_per_device")
    if flops is not None:
        return work / (flops * 1e12 * devices), "model_tflops_per_device"
    share = positive(row, "mfu_pct")
    if share is not None:
        return work / (share / 100.0 * peak * devices), "mfu_pct"
    share = positive(row, "hfu_pct")
    if share is not None:
        return hardware / (share / 100.0 * peak * devices), "hfu_pct"
    seen, hours, days = positive(row, "tokens_total"), positive(row, "device_hours"), positive(row, "total_days")
    if seen is not None and hours is not None:
        return hours * 3600.0 / devices * tokens / seen, "device_hours"
    if seen is not None and days is not None:
        return days * 86400.0 * tokens / seen, "total_days"
    return None, ""


def _step_flop(row: dict[str, Any], setup: Setup) -> tuple[float, float]:
    """Model and hardware FLOPs of a step by the usual formulas: attention as the full square unless said to be causal."""
    table = lower(setup.model, feeding.feed(setup.model, 1.0, setup.workload.seq_len))
    head = model_flop(tuple(op for op in table if op.part == "head"))
    core = model_flop(tuple(op for op in table if op.kind == "attention"))
    whole = model_flop(table)
    notes = word(row, "notes").lower()
    if "causal" in notes and "non-causal" not in notes:
        whole -= core / 2.0
    blocks = whole - head
    batch = setup.workload.global_batch
    passes = 2.0 if setup.workload.mode == "lora" else 3.0
    again = 1.0 if setup.plan.recompute == "full" else 0.0
    return batch * passes * whole, batch * ((passes + again) * blocks + passes * head)
