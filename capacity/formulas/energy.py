"""Power, energy, carbon."""

from capacity import ops
from capacity.formula import formula


@formula(unit="W", symbol="P_dev")
def device_power_w(
    tdp_w: float,
    idle_share: float,
    busy_share: float,
    compute_utilisation: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    j_per_byte: float = 2.2e-10,
    compute_weight: float = 2.73,
    usual_flop_per_j: float = 1.41e12,
) -> float:
    """Mean power of a busy device.

    1. Idle draw is idle_share of the power limit.
    2. Moving a byte costs about the same joules in every generation: j_per_byte x memory_bytes_per_s of the limit.
    3. Products (any number of bits counts as 16) cost the less the denser a chip computes: compute_weight x share of peak at
       usual_flop_per_j (H100 SXM), and by the root of the density elsewhere.
    4. Power rises with both, less and less as it nears busy_share, where clocks give way: 1 - exp(-activity). The limit holds.
    Ignores: differences between chips (about 5 %).
    """
    density = (peak_flop_per_s / tdp_w / usual_flop_per_j) ** 0.5
    activity = j_per_byte * memory_bytes_per_s / tdp_w + compute_weight * compute_utilisation * density
    share = idle_share + (busy_share - idle_share) * (1.0 - ops.exp(-activity))
    return tdp_w * ops.minimum(share, 1.0)


@formula(unit="W", symbol="P_site")
def site_power_w(device_w: float, devices: float, host_w: float, nodes: float, pue: float) -> float:
    """Power drawn from the grid: devices, their hosts, and cooling and conversion through PUE."""
    return (device_w * devices + host_w * nodes) * pue


@formula(unit="J", symbol="E")
def energy_j(power_w: float, duration_s: float) -> float:
    """Energy over a time."""
    return power_w * duration_s


@formula(unit="g", symbol="C_op", cite="patterson2021")
def operational_carbon_g(energy_j: float, grid_g_per_j: float) -> float:
    """Carbon of the electricity used."""
    return energy_j * grid_g_per_j


@formula(unit="g", symbol="C_emb", cite="gupta2022")
def embodied_carbon_g(device_g: float, devices: float, duration_s: float, lifetime_s: float) -> float:
    """The share of the carbon of making the devices that the run uses up."""
    return device_g * devices * duration_s / lifetime_s
