"""What a question runs on: its devices, in how many nodes, with price, power overhead, grid and drives."""

from __future__ import annotations

from capacity import ops
from capacity.catalogue.own import THIS_MACHINE
from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions, number
from capacity.estimators.network import NVME_BYTES_PER_S_PER_DEVICE
from capacity.estimators.refusal import refuse
from capacity.estimators.rigs import rig
from capacity.laws.profile import load_profile
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster

DEFAULT_DEVICE = "h100-sxm"


def read_cluster(
    request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions
) -> tuple[Cluster, Profile, float | None]:
    """The cluster, its devices' profile, and the number of devices where the user gave one."""
    devices = number("--devices", request.get("devices"), "1", 1.0, 1e6, whole=True)
    nodes = number("--nodes", request.get("nodes"), "1", 1.0, 1e6, whole=True)
    if "cluster" in request:
        if "device" in request:
            raise InputError("--cluster already names its device; leave --device out")
        from capacity.catalogue import load_cluster

        count = 1.0 if nodes is None else nodes
        cluster = load_cluster(request["cluster"], nodes=1 if ops.is_column(count) else int(count), folders=folders)
        cluster = replace(cluster, nodes=whole(count))
        profile = load_profile(cluster.device)
        assumptions.note("cluster", cluster.name, "", "user")
    else:
        name = request.get("device", DEFAULT_DEVICE)
        if name == THIS_MACHINE and devices is None and nodes is None:
            devices = 1.0  # there is one of it
        cluster, profile = rig(name, folders)
        cluster = replace(cluster, nodes=whole(1.0 if nodes is None else nodes))
        tag = "user" if "device" in request else "default"
        assumptions.note(
            "device", cluster.device.name, "", tag, "" if tag == "user" else "the most rented training GPU"
        )
    if devices is not None:
        per_node = cluster.devices_per_node
        if nodes is not None:
            refuse(
                devices != nodes * per_node,
                lambda row: (
                    f"--devices {row(devices):g} and --nodes {row(nodes):g} contradict: a node has {per_node} devices; "
                    "give one"
                ),
            )
        # Part of a node answers for that part of its host.
        part = devices < per_node
        refuse(
            (devices >= per_node) & (devices % per_node != 0.0),
            lambda row: (
                f"--devices {row(devices):g} is not a whole number of nodes of {per_node} {cluster.device.name}; "
                f"use {row(devices) // per_node * per_node:g} or {(row(devices) // per_node + 1) * per_node:g}"
            ),
        )
        cluster = replace(
            cluster,
            devices_per_node=whole(ops.where(part, devices, per_node)),
            nodes=whole(ops.where(part, 1.0, ops.floor(devices / per_node))),
            host_w=ops.where(part, cluster.host_w * devices / per_node, cluster.host_w),
        )
    elif nodes is not None:
        devices = nodes * cluster.devices_per_node
    return _priced(cluster, request, folders, assumptions), profile, devices


def whole(value: float) -> int:
    """A whole number for a screen, or a column of such."""
    return value if ops.is_column(value) else int(value)  # type: ignore[return-value]


def _priced(cluster: Cluster, request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions) -> Cluster:
    stated = {
        "devices_per_node": ("devices a node", cluster.devices_per_node, "1"),
        "link": ("link inside a node", cluster.device.link.bytes_per_s if cluster.device.link else 0.0, "byte/s"),
        "inter": ("network of a device", cluster.inter.bytes_per_s if cluster.inter else 0.0, "byte/s"),
        "host_w": ("host power of a node", cluster.host_w, "W"),
    }
    for name, source in cluster.assumptions.items():
        if name in stated:
            assumptions.note(*stated[name], "default", source)
    usual = cluster.assumptions.get("pue", "as the cluster's entry states")
    pue = assumptions.take("PUE", number("--pue", request.get("pue"), "1", 1.0, 5.0), float(cluster.pue), "1", usual)
    price = number("--price", request.get("price"), "USD/h", 0.0, 1e5)
    known = cluster.usd_per_device_hour if cluster.usd_per_device_hour is not None else cluster.device.usd_per_hour
    if price is not None:
        assumptions.note("price", price, "USD/h", "user")
        known = price
    elif known is not None:
        assumptions.note("price", float(known), "USD/h", "catalogue", getattr(known, "source", "list price"))
    else:
        assumptions.note("price", "unknown: give --price to get money", "", "default")
    grid = _grid(cluster, request, folders, assumptions)
    drives = _drives(cluster, request, assumptions)
    return replace(cluster, pue=pue, usd_per_device_hour=known, grid_g_per_kwh=grid, nvme_bytes_per_s=drives)


def _drives(cluster: Cluster, request: dict[str, Any], assumptions: Assumptions) -> float | None:
    """Bandwidth of a node's drives, where something is offloaded to them."""
    given = number("--nvme-bandwidth", request.get("nvme_bandwidth"), "byte/s", 1e6, 1e13)
    if request.get("offload_to") == "nvme":
        usual = cluster.nvme_bytes_per_s or NVME_BYTES_PER_S_PER_DEVICE * cluster.devices_per_node
        return assumptions.take("drives of a node", given, usual, "byte/s", "a PCIe 4.0 drive a device (samsung2020)")
    if given is not None:
        raise InputError("--nvme-bandwidth is of drives, and nothing is offloaded to them: add --offload-to nvme")
    return cluster.nvme_bytes_per_s


def _grid(cluster: Cluster, request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions) -> float:
    given = request.get("grid")
    if given is None:
        value = cluster.grid_g_per_kwh
        assumptions.note("grid carbon", float(value), "g/kWh", "default", getattr(value, "source", ""))
        return value
    if ops.is_column(given) or isinstance(given, (int, float)) or str(given)[:1].isdigit():
        return assumptions.take("grid carbon", number("--grid", given, "g/kWh", 0.0, 3000.0), 0.0, "g/kWh", "")
    from capacity.catalogue import load_grid

    value = load_grid(str(given), folders)
    assumptions.note("grid carbon", float(value), "g/kWh", "user", value.source)
    return value
