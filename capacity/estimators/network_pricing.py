"""One pass of any network on a device: its ops through the laws, the host beside them, the optimizer and the other devices."""

from __future__ import annotations

from capacity.estimators.power import DEFAULT_TDP_W
from capacity.estimators.pricing import peak_flop_per_s
from capacity.formulas import collectives
from capacity.laws.memory_bound import memory_bound_time_s
from capacity.laws.network import network_step_s, pass_time_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.laws.network import Machine, NetworkLaw
    from capacity.spec.device import Device

# An update reads an fp32 weight and its gradient, and writes the weight; states are read and written beside.
UPDATE_BYTES = 12.0
# Under autocast a weight is read in fp32 and written in 16 bits once a pass, and its gradient the other way.
CAST_BYTES = 6.0
# Share of a gradient's exchange that is not hidden behind the backward pass.
EXPOSED = 0.35


def machine_numbers(device: Device, dtype: str) -> dict[str, float]:
    """The numbers of a `Machine` that a datasheet gives, for work in this format."""
    wide = dtype in ("fp32", "tf32")
    # Convolutions in fp32 run on tensor cores where there are any (TF32); products do not unless asked to.
    peak, _ = peak_flop_per_s(device, "tf32" if dtype == "fp32" and device.kind == "GPU" else dtype)
    product, _ = peak_flop_per_s(device, dtype)
    vector = device.peak_dense_flop_per_s.get("fp32", peak / 8.0)
    return {
        "peak_flop_per_s": float(peak), "product_flop_per_s": float(product), "vector_flop_per_s": float(vector),
        "memory_bytes_per_s": float(device.memory_bytes_per_s), "multiprocessors": float(device.multiprocessors or 100.0),
        "tdp_w": float(device.tdp_w or DEFAULT_TDP_W),
        "bytes": 4.0 if wide else 2.0,
    }  # fmt: skip


def pass_seconds(
    law: NetworkLaw,
    machine: Machine,
    forward_s: float,
    backward_s: float,
    forward_calls: float,
    backward_calls: float,
    parameters: float,
    tensors: float,
    state_bytes: float,
    training: float,
    devices: float = 1.0,
    link_bytes_per_s: float = 50e9,
) -> float:
    """Seconds of a step from the device's seconds of its passes; everything may be columns."""
    number = law.number
    eager = 1.0 - machine.compiled * (1.0 - number["compiled_launches"])
    slow = 1.0 + machine.mixed * number["mixed_host"]
    forward = pass_time_s(forward_s, forward_calls, number["host_s"] * eager * slow)
    backward = training * pass_time_s(backward_s, backward_calls, number["host_backward_s"] * eager)
    share = law.share("pointwise")
    casts = memory_bound_time_s(
        parameters * CAST_BYTES * machine.mixed * (1.0 + training),
        machine.memory_bytes_per_s,
        share,
        tensors * machine.mixed * (1.0 + training),
        number["launch_s"],
    )
    update = training * memory_bound_time_s(
        parameters * (UPDATE_BYTES + 2.0 * state_bytes),
        machine.memory_bytes_per_s,
        share,
        tensors,
        number["host_tensor_s"],
    )
    exchange = (
        training * EXPOSED * collectives.ring_time_s(parameters * 4.0, devices, 2.0, link_bytes_per_s, 5e-6, 2e-5)
    )
    return network_step_s(forward, backward, casts, update, exchange, number["fixed_s"])
