"""`capacity devices`: list, search and show the devices of the catalogue."""

from __future__ import annotations

from capacity.cli.found import entry, show, table
from capacity.cli.options import Command, Option, one_of
from capacity.rendering import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.rendering.style import Style
    from capacity.spec.device import Device

# Column, unit it is shown in; bf16 stands for fp16 and fp8 for int8 where a device has only those.
_COLUMNS = (
    ("device", ""), ("memory", "GiB"), ("bandwidth", "GB/s"), ("bf16", "TFLOP/s"), ("fp8", "TFLOP/s"), ("power", "W"),
    ("price", "1/h"), ("year", ""), ("vendor", ""),
)  # fmt: skip


def _kind(text: str) -> str:
    from capacity.catalogue.devices import KINDS

    return one_of("kind", [kind.lower() for kind in KINDS])(text)


COMMAND = Command(
    "devices",
    usage="[SEARCH ...] [options]",
    description="List the devices of the catalogue, or show one with sources; peaks are dense.\n"
    "Every word of SEARCH must be in the id, name, vendor or architecture.",
    examples=(
        "capacity devices",
        "capacity devices h100",
        "capacity devices --vendor AMD",
        "capacity devices h100-sxm --json",
    ),
    words=("SEARCH", "words to look for; an id shows that device in full"),
    groups=(
        ("which", (
            Option("--kind", metavar="KIND", read=_kind, help="GPU, TPU, ASIC, CPU, Apple or edge"),
            Option("--vendor", metavar="NAME", help="NVIDIA, AMD, Google ..."),
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own devices; may be repeated"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="the devices as JSON, in base units"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Search, and print what was found."""
    from capacity.catalogue.devices import list_devices

    search = " ".join(options["words"])
    folders = tuple(options["catalogue"] or ())
    found = list_devices(search, options["kind"] or "", options["vendor"] or "", folders)
    exact = _named(search, found)
    if exact is not None:
        found = [exact]
    elif not found:
        _nothing(options, folders)
    show("devices", found, options, record=_record, listing=_listing, detail=_detail)


def _named(search: str, found: list[Device]) -> Device | None:
    """The device that is called exactly so, by id or alias; `h100` alone is a search."""
    from capacity.catalogue.entry import normalised

    wanted = normalised(search)
    return next((device for device in found if wanted and wanted in (device.id, normalised(device.name))), None)


def _nothing(options: dict[str, Any], folders: tuple[str, ...]) -> None:
    """Say that nothing was found, with the nearest names when a name was searched."""
    from capacity.errors import InputError, UnknownNameError

    if options["kind"] or options["vendor"]:
        asked = " ".join(filter(None, (*options["words"], options["kind"], options["vendor"])))
        raise InputError(f"no device of the catalogue is {asked!r:.80}: `capacity devices` lists them")
    from capacity.catalogue.entry import aliases, ids

    known = [*ids("devices", folders), *aliases("devices", folders)]
    raise UnknownNameError("device", " ".join(options["words"]), known, "`capacity devices` lists them")


def _listing(found: Sequence[Device], chosen: Style) -> list[str]:
    rows = []
    for device in found:
        peak = device.peak_dense_flop_per_s
        cells = (
            device.id,
            words.scaled(device.memory_bytes, "GiB"),
            words.scaled(device.memory_bytes_per_s, "GB/s"),
            words.scaled(peak.get("bf16", peak.get("fp16")), "TFLOP/s"),
            words.scaled(peak.get("fp8", peak.get("int8")), "TFLOP/s"),
            words.scaled(device.tdp_w, "W"),
            words.value(device.usd_per_hour, "USD/h").removesuffix("/h"),
            str(device.year),
            device.vendor,
        )
        rows.append(cells)
    said = f"{len(rows)} devices, peaks dense; `capacity devices ID` shows one with its sources"
    return table(_COLUMNS, rows, said, chosen)


def _detail(device: Device, chosen: Style) -> list[str]:
    """Everything known of one device; each number with its source."""
    rows: list[tuple[str, Any, str]] = [
        ("vendor", device.vendor, ""), ("kind", f"{device.kind}, {device.segment}", ""),
        ("architecture", device.architecture, ""), ("year", str(device.year), ""),
    ]  # fmt: skip
    rows += [(f"peak {dtype}, dense", value, "FLOP/s") for dtype, value in device.peak_dense_flop_per_s.items()]
    rows += [
        ("memory", device.memory_bytes, "byte"), ("memory bandwidth", device.memory_bytes_per_s, "byte/s"),
        ("last-level cache", device.l2_bytes, "byte"), ("multiprocessors", device.multiprocessors, "1"),
        ("clock", device.clock_hz, "Hz"), ("TDP", device.tdp_w, "W"), ("idle power", device.idle_w, "W"),
        ("price", device.usd_per_hour, "USD/h"), ("embodied carbon", device.embodied_g, "g"),
        ("devices in a node", str(device.devices_per_node), ""),
    ]  # fmt: skip
    for tier, link in (("link", device.link), ("network", device.network)):
        if link is not None:
            rows += [
                (tier, link.name, ""),
                (f"{tier} bandwidth", link.bytes_per_s, "byte/s"),
                (f"{tier} latency", link.latency_s, "s"),
            ]
    if device.memory_type:
        rows.insert(4 + len(device.peak_dense_flop_per_s) + 1, ("memory type", device.memory_type, ""))
    rows.append(("also called", ", ".join(device.aliases), ""))
    lines = entry(device.name, device.id, [(*row, "") for row in rows], device.notes, chosen)
    if device.origin != "catalogue":
        lines.append(f"  from {chosen.text(device.origin)}")
    return lines


def _record(device: Device) -> dict[str, Any]:
    """The device's fields, and the source of each number that has one."""
    from capacity.record import asdict

    record: dict[str, Any] = asdict(device)
    record["sources"] = {name: source for name, value in _numbers(device) if (source := getattr(value, "source", ""))}
    return record


def _numbers(device: Device) -> list[tuple[str, object]]:
    from capacity.record import fields

    plain = [(name, value) for name in fields(device) if isinstance(value := getattr(device, name), float)]
    peaks = [(f"peak_dense_flop_per_s.{dtype}", value) for dtype, value in device.peak_dense_flop_per_s.items()]
    links = [
        (f"{tier}.{name}", value)
        for tier, link in (("link", device.link), ("network", device.network))
        if link is not None
        for name, value in (("bytes_per_s", link.bytes_per_s), ("latency_s", link.latency_s))
    ]
    return [*plain, *peaks, *links]
