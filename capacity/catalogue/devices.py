"""Devices: one TOML file each, named by its id, and opened only when it is asked for."""

from __future__ import annotations

from capacity.catalogue.entry import Entry, aliases, find, ids, read_entry
from capacity.errors import UnknownNameError
from capacity.formula import Sourced
from capacity.spec.device import Device, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4")
KINDS = ("GPU", "TPU", "ASIC", "CPU", "Apple", "edge")
SEGMENTS = ("data-centre", "workstation", "consumer", "laptop", "embedded", "phone")


def load_device(name: str, folders: Iterable[str] = ()) -> Device:
    """Read one device, found by id or alias; `<folder>/devices/<id>.toml` of a user's folder comes first.

    Raises UnknownNameError with the nearest names, FileFormatError for a faulty file.
    """
    folders = tuple(folders)
    found = find("devices", name, folders)
    if found is None:
        known = [*ids("devices", folders), *aliases("devices", folders)]
        raise UnknownNameError("device", name, known, "`capacity devices` lists them")
    return _read_device(*found)


def list_devices(search: str = "", kind: str = "", vendor: str = "", folders: Iterable[str] = ()) -> list[Device]:
    """List the devices whose id, name, vendor or architecture holds every word of `search`, by vendor and id."""
    from capacity.record import replace

    folders = tuple(folders)
    other_names: dict[str, list[str]] = {}
    for alias, key in aliases("devices", folders).items():
        other_names.setdefault(key, []).append(alias)
    words = search.lower().split()
    listed = []
    for key in ids("devices", folders):
        device = load_device(key, folders)
        if (kind and device.kind.lower() != kind.lower()) or (vendor and device.vendor.lower() != vendor.lower()):
            continue
        device = replace(device, aliases=tuple(other_names.get(key, ())))
        text = " ".join((device.id, device.name, device.vendor, device.architecture, *device.aliases)).lower()
        if all(word in text for word in words):
            listed.append(device)
    return sorted(listed, key=lambda device: (device.vendor.lower(), device.id))


def _read_device(path: str, origin: str) -> Device:
    """Turn a file into a record; the first bad value raises FileFormatError."""
    entry = read_entry(path, origin)
    key = entry.text("id")
    if not path.endswith((f"/{key}.toml", f"\\{key}.toml")):
        raise entry.error(f"id is {key!r}, which is not the file's name: name the file {key[:60]}.toml")
    peaks = entry.table("peak")
    if peaks is None:
        raise entry.error("[peak] is missing: give the dense peak of one dtype at least")
    peak = {
        dtype: value
        for dtype in DTYPES
        if (value := peaks.number(dtype, "peak", f"dense {dtype} peak of {key}")) is not None
    }
    peaks.finish()
    if not peak:
        raise entry.error(f"[peak] is empty: give the dense peak of one of {', '.join(DTYPES)}")
    device = Device(
        id=key,
        name=entry.text("name"),
        vendor=entry.text("vendor"),
        kind=entry.choice("kind", KINDS),
        segment=entry.choice("segment", SEGMENTS, "data-centre"),
        architecture=entry.text("architecture"),
        year=int(entry.required("year", "year")),
        peak_dense_flop_per_s=dict(peak),
        memory_bytes=entry.required("memory", "bytes", f"memory of {key}"),
        memory_bytes_per_s=entry.required("memory_bandwidth", "bandwidth", f"memory bandwidth of {key}"),
        memory_type=entry.text("memory_type", ""),
        multiprocessors=entry.number("multiprocessors", "count", f"multiprocessors of {key}"),
        clock_hz=entry.number("clock", "clock", f"boost clock of {key}"),
        l2_bytes=entry.number("cache", "bytes", f"last-level cache of {key}"),
        tdp_w=entry.number("tdp", "power", f"TDP of {key}"),
        idle_w=_idle_w(entry, key),
        usd_per_hour=entry.number("price", "price", f"price of {key}"),
        embodied_g=entry.number("embodied", "carbon", f"embodied carbon of {key}"),
        devices_per_node=int(entry.number("devices_per_node", "count") or 1),
        link=read_link(entry, "link", key, _LINK_LATENCY_S),
        network=read_link(entry, "network", key, _NETWORK_LATENCY_S),
        notes=entry.text("notes", ""),
        origin=origin,
    )
    entry.finish()
    return device


def _idle_w(entry: Entry, key: str) -> Sourced | None:
    """Return power at idle; where nobody published it, the share of its TDP that such devices draw."""
    idle = entry.number("idle", "power", f"idle power of {key}")
    tdp = entry.number("tdp", "power")
    if idle is not None or tdp is None:
        return idle
    kind = entry.text("kind")
    share = _IDLE_SHARE[kind]
    return Sourced(share * tdp, f"idle power of {key}", f"assumed: {share:.0%} of the TDP, as {kind}s draw", "default")


# GPU: 55 W of an A100's 400, 70 W of an H100's 700; TPU: 90 W of a TPU v4's 192; CPU: SPECpower, a fifth to a third.
_IDLE_SHARE = {"GPU": 0.1, "TPU": 0.4, "ASIC": 0.2, "CPU": 0.25, "Apple": 0.05, "edge": 0.2}

# No datasheet gives a latency: what collectives of small messages show on NVLink and on InfiniBand or RoCE.
_LINK_LATENCY_S, _NETWORK_LATENCY_S = 2e-6, 5e-6


def read_link(entry: Entry, key: str, owner: str, latency_s: float) -> Link | None:
    """Read a link, per device and direction; a latency the file does not give is an assumption."""
    table = entry.table(key)
    if table is None:
        return None
    latency = table.number("latency", "latency", f"{key} latency of {owner}")
    if latency is None:
        latency = Sourced(latency_s, f"{key} latency of {owner}", "assumed; no datasheet gives one", "default")
    link = Link(
        name=table.text("name"),
        bytes_per_s=table.required("bandwidth", "bandwidth", f"{key} bandwidth of {owner}"),
        latency_s=latency,
    )
    table.finish()
    return link
