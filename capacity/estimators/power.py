"""Power, money and carbon of a cluster at work: the same for training and serving."""

from __future__ import annotations

from capacity.estimators.intervals import Value
from capacity.formula import scaled, sourced
from capacity.formulas import energy, money

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.device import Cluster

# Shares of the power limit, idle and where activity tends to, fitted with what bytes and products cost on 221 published runs
# that state power and speed (A100, H100, B200), at the activity of the measured speed: 8 % median error, each generation
# left out 7 to 9 %.
IDLE_SHARE = 0.19
BUSY_SHARE = 1.1
# A byte that comes over a board, not over a package, costs more joules (O'Connor et al. 2017: 3.9 pJ a bit of HBM2, 14 of GDDR5;
# with what it costs on the chip about twice as many).
OFF_PACKAGE = 2.0
# Of the limit, on average over training runs.
TRAINING_SHARE = 0.92
# Where no power limit is published.
DEFAULT_TDP_W = 300.0
JOULES_PER_KWH = 3.6e6


def training_share(limit_share: float = 1.0) -> float:
    """Share of the power limit that training draws on average; of a lowered limit more of it is used."""
    return TRAINING_SHARE + (1.0 - TRAINING_SHARE) * (1.0 - limit_share) * 0.5


def device_power_of(cluster: Cluster, compute: float, memory: float, factor: float = 1.0) -> float:
    """Power of one device at a share of its peak and of its bandwidth."""
    device = cluster.device
    tdp = device.tdp_w if device.tdp_w is not None else DEFAULT_TDP_W
    return energy.device_power_w(
        tdp,
        sourced(IDLE_SHARE * factor, "idle share", "published power measurements", "default"),
        sourced(BUSY_SHARE * factor, "busy share", "published power measurements", "default"),
        compute,
        max(device.peak_dense_flop_per_s.get(name, 0.0) for name in ("bf16", "fp16", "fp32")),
        scaled(device.memory_bytes_per_s, memory * (1.0 if "HBM" in device.memory_type else OFF_PACKAGE)),
    )


def power_of(cluster: Cluster, compute_utilisation: float, memory_utilisation: float, factor: float = 1.0) -> float:
    """Power the cluster draws from the grid."""
    each = device_power_of(cluster, compute_utilisation, memory_utilisation, factor)
    return energy.site_power_w(
        each, sourced(cluster.devices * 1.0, "devices"), cluster.host_w, cluster.nodes * 1.0, cluster.pue
    )


def emissions(cluster: Cluster, used_j: float) -> float:
    """Operational carbon of the energy used, in grams."""
    return energy.operational_carbon_g(used_j, cluster.grid_g_per_kwh / JOULES_PER_KWH)


def prices(cluster: Cluster, devices: float, duration_s: float, factor: float = 1.0) -> dict[str, Value]:
    """Rent of the devices, where a price is known."""
    if cluster.usd_per_device_hour is None:
        return {}
    rate = sourced(cluster.usd_per_device_hour / 3600.0 * factor, "price per device-second")
    return {"cost": Value(money.rental_usd(rate, devices, duration_s), "USD", "rent of the devices")}
