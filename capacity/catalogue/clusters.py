"""Clusters: nodes as vendors and clouds sell them, and a sensible one for any device."""

from __future__ import annotations

from capacity.catalogue.devices import load_device
from capacity.catalogue.entry import Entry, aliases, find, ids, read_entry
from capacity.catalogue.grids import assumed, load_defaults, load_grid, segment_table, world_grid
from capacity.errors import InputError, UnknownNameError
from capacity.formula import Sourced
from capacity.spec.device import Cluster, Device, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_NODES = 10_000_000
_LATENCY_S = 5e-6  # one message between nodes over InfiniBand or RoCE
_ETHERNET_LATENCY_S = 2e-5  # and through the kernel's TCP
_SOCKET_BYTES_PER_S = 5e10  # between two sockets of a board: three or four UPI or xGMI links


def load_cluster(
    name: str, nodes: int = 1, *, devices: int | None = None, grid: str = "", folders: Iterable[str] = ()
) -> Cluster:
    """Read one node shape, found by id or alias, and take `nodes` of it.

    devices: how many devices in all, instead of nodes. grid: whose electricity, as for load_grid.
    Raises UnknownNameError with the nearest names, FileFormatError for a faulty file, InputError for a
    number of nodes or devices that cannot be.
    """
    folders = tuple(folders)
    found = find("clusters", name, folders)
    if found is None:
        known = [*ids("clusters", folders), *aliases("clusters", folders)]
        raise UnknownNameError("cluster", name, known, "`capacity devices --clusters` lists them")
    entry = read_entry(*found)
    key = entry.text("id")
    if not found[0].endswith((f"/{key}.toml", f"\\{key}.toml")):
        raise entry.error(f"id is {key!r}, which is not the file's name: name the file {key[:60]}.toml")
    device = load_device(entry.text("device"), folders)
    full = int(entry.required("devices_per_node", "count"))
    assumptions: dict[str, str] = {}
    defaults = load_defaults(folders)
    segment = segment_table(defaults, device.segment)
    host = entry.number("host_power", "power", f"host power of {key}")
    if host is None:
        host = _host_w(device, full, segment, assumptions)
    pue = entry.number("pue", "ratio", f"PUE of {key}")
    if pue is None:
        pue = _pue(segment, assumptions)
    price = entry.number("price", "price", f"price of a node of {key}")
    inter = _node_link(entry, key, full)
    max_nodes = entry.number("max_nodes", "count")
    title = entry.text("name")
    entry.text("notes", "")
    entry.finish()
    per_node, count = _shape(key, full, nodes, devices)
    if max_nodes is not None and count > max_nodes:
        raise InputError(
            f"{count} nodes of {key}: one fabric joins {max_nodes:g} at most; give fewer, or another cluster"
        )
    return Cluster(
        id=key,
        name=title,
        device=device,
        devices_per_node=per_node,
        nodes=count,
        inter=inter,
        host_w=host,
        pue=pue,
        grid_g_per_kwh=_grid(grid, defaults, folders, assumptions),
        usd_per_device_hour=None if price is None else _divided(price, full, f"price of a device of {key}"),
        origin=entry.origin,
        assumptions=assumptions,
        max_nodes=max_nodes,
    )


def default_cluster(
    device: Device, nodes: int = 1, *, devices: int | None = None, grid: str = "", folders: Iterable[str] = ()
) -> Cluster:
    """Build a cluster for any device from its datasheet; every value no datasheet gives is listed in `assumptions`.

    nodes: full nodes as the vendor builds them; devices: how many devices in all, instead of nodes.
    """
    from capacity.record import replace

    folders = tuple(folders)
    assumptions: dict[str, str] = {}
    defaults = load_defaults(folders)
    segment = segment_table(defaults, device.segment)
    full = device.devices_per_node
    if devices is not None and full == 1 and device.link is not None:
        # Cards that are sold one by one share a chassis as soon as there are several.
        chassis = segment.required("devices_per_node", "count", "devices a node")
        full = int(chassis)
        assumptions["devices_per_node"] = chassis.source
    per_node, count = _shape(device.id, full, nodes, devices)
    if device.link is None and per_node > 1:
        source = "assumed: three or four links between the sockets of a board"
        device = replace(
            device,
            link=Link(
                "between sockets",
                Sourced(_SOCKET_BYTES_PER_S, "socket link", source, "default"),
                Sourced(1e-6, "socket latency", source, "default"),
            ),
        )
        assumptions["link"] = source
    inter = device.network
    if inter is None:
        share = segment.required("node_bandwidth", "bandwidth", "network bandwidth of a node")
        inter = Link(
            "Ethernet",
            Sourced(share / per_node, f"network bandwidth a {device.id}", share.source, "default"),
            Sourced(_ETHERNET_LATENCY_S, "network latency", "assumed; no datasheet gives one", "default"),
        )
        assumptions["inter"] = share.source
    return Cluster(
        id=f"{device.id}-x{per_node}",
        name=f"{per_node} x {device.name} a node" if per_node > 1 else device.name,
        device=device,
        devices_per_node=per_node,
        nodes=count,
        inter=inter,
        host_w=_host_w(device, per_node, segment, assumptions),
        pue=_pue(segment, assumptions),
        grid_g_per_kwh=_grid(grid, defaults, folders, assumptions),
        origin=device.origin,
        assumptions=assumptions,
    )


def list_clusters(search: str = "", folders: Iterable[str] = ()) -> list[Cluster]:
    """List the node shapes, one node each, whose id, name or device holds every word of `search`."""
    folders = tuple(folders)
    words = search.lower().split()
    listed = [load_cluster(key, folders=folders) for key in ids("clusters", folders)]
    return [
        cluster
        for cluster in listed
        if all(word in f"{cluster.id} {cluster.name} {cluster.device.id}".lower() for word in words)
    ]


def _shape(owner: str, full: int, nodes: int, devices: int | None) -> tuple[int, int]:
    """Return devices a node and nodes; fewer devices than a full node holds make one smaller node."""
    if devices is None:
        if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= _MOST_NODES:
            raise InputError(f"{nodes!r} nodes of {owner}: give a whole number from 1 to {_MOST_NODES}")
        return full, nodes
    if isinstance(devices, bool) or not isinstance(devices, int) or not 1 <= devices <= _MOST_NODES:
        raise InputError(f"{devices!r} devices of {owner}: give a whole number from 1 to {_MOST_NODES}")
    count = -(-devices // full)
    if devices % count:
        lower, upper = devices // full * full, count * full
        raise InputError(
            f"{devices} devices of {owner} do not fill equal nodes of at most {full}: give {lower} or {upper}"
        )
    return devices // count, count


def _node_link(entry: Entry, key: str, full: int) -> Link | None:
    """Return a device's share of its node's adapters."""
    table = entry.table("network")
    if table is None:
        return None
    bandwidth = table.required("node_bandwidth", "bandwidth", f"network bandwidth of a node of {key}")
    latency = table.number("latency", "latency", f"network latency of {key}")
    if latency is None:
        latency = Sourced(_LATENCY_S, f"network latency of {key}", "assumed; no datasheet gives one", "default")
    link = Link(table.text("name"), _divided(bandwidth, full, f"network bandwidth a device of {key}"), latency)
    table.finish()
    return link


def _host_w(device: Device, per_node: int, segment: Entry, assumptions: dict[str, str]) -> Sourced:
    """Return power of a node beside its devices: a fixed part and a share of the devices' TDP."""
    fixed = segment.required("host_power", "power", "host power")
    share = segment.required("host_share", "share", "host power as a share of TDP")
    assumptions["host_w"] = fixed.source
    return Sourced(fixed + share * per_node * (device.tdp_w or 0.0), "host power of a node", fixed.source, "default")


def _pue(segment: Entry, assumptions: dict[str, str]) -> Sourced:
    pue = assumed(segment.required("pue", "ratio", "PUE"))
    assumptions["pue"] = pue.source
    return pue


def _grid(name: str, defaults: Entry, folders: tuple[str, ...], assumptions: dict[str, str]) -> Sourced:
    if name:
        return load_grid(name, folders)
    grid = world_grid(defaults)
    assumptions["grid_g_per_kwh"] = grid.source
    return grid


def _divided(value: Sourced, count: int, label: str) -> Sourced:
    return Sourced(value / count, label, value.source, value.tag)
