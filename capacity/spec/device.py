"""A device and a cluster, as their datasheets give them; every number knows its source."""

from __future__ import annotations

from capacity.record import Record

# Where the memory is the operating system's too. Metal lets a program take two thirds, above 36 GB three quarters
# (its recommendedMaxWorkingSetSize, as llama.cpp's logs print it); a phone's system stops an app at about half;
# a small board's system and desktop keep about a gigabyte.
_METAL_SHARE, _METAL_LARGE_SHARE, _METAL_LARGE_BYTES = 2.0 / 3.0, 3.0 / 4.0, 36e9
_PHONE_SHARE = 0.5
_BOARD_SYSTEM_BYTES, _BOARD_SYSTEM_SHARE = 1.0 * 2.0**30, 0.25


class Link(Record):
    """A tier of the network: bandwidth per device and direction, and latency per message."""

    name: str
    bytes_per_s: float
    latency_s: float


class Device(Record):
    """One accelerator, processor or phone; what is unknown is None, never 0.

    peak_dense_flop_per_s: by dtype (fp64 fp32 tf32 bf16 fp16 fp8 fp4 int8 int4), dense, multiply and add as two.
    memory_bytes: what the vendor states, in bytes. link: to its neighbours inside a node.
    kind: GPU, TPU, ASIC, CPU, Apple or edge; segment: data-centre, workstation, consumer, laptop, embedded or phone.
    multiprocessors: what the vendor schedules work on (SM, compute unit, core). l2_bytes: the last-level cache.
    usd_per_hour: a dated on-demand price for one device. idle_w: drawn while nothing runs.
    embodied_g: greenhouse gas of making it, in g CO2 equivalent, where someone published it.
    network: one device's share of the adapters in the vendor's reference node, to other nodes.
    origin: "catalogue" or the user's folder it was read from.
    """

    id: str
    name: str
    vendor: str
    kind: str
    architecture: str
    year: int
    peak_dense_flop_per_s: dict[str, float]
    memory_bytes: float
    memory_bytes_per_s: float
    link: Link | None = None
    devices_per_node: int = 1
    multiprocessors: float | None = None
    clock_hz: float | None = None
    l2_bytes: float | None = None
    tdp_w: float | None = None
    usd_per_hour: float | None = None
    memory_type: str = ""
    notes: str = ""
    origin: str = "catalogue"
    aliases: tuple[str, ...] = ()
    segment: str = "data-centre"
    idle_w: float | None = None
    embodied_g: float | None = None
    network: Link | None = None

    @property
    def open_bytes(self) -> float:
        """What one program may take of the memory: all of it, unless an operating system lives there too."""
        if self.segment == "phone":
            return _PHONE_SHARE * self.memory_bytes
        if self.kind == "Apple":
            large = self.memory_bytes > _METAL_LARGE_BYTES
            return (_METAL_LARGE_SHARE if large else _METAL_SHARE) * self.memory_bytes
        if self.segment == "embedded":
            return self.memory_bytes - min(_BOARD_SYSTEM_BYTES, _BOARD_SYSTEM_SHARE * self.memory_bytes)
        return self.memory_bytes


class Cluster(Record):
    """Nodes of equal devices and the network between them.

    inter: the link of one device to the network between nodes (its share of the node's adapters).
    host_w: power of a node beside its devices (processors, memory, fans, adapters).
    pue: power usage effectiveness; grid_g_per_kwh: carbon intensity of the electricity.
    usd_per_device_hour: what is paid, when given; else the device's own price.
    max_nodes: how many nodes one fabric joins, where it is known.
    nvme_bytes_per_s: of the drives of a node, all together, where it is known.
    assumptions: for each value no datasheet gives, what it was taken from.
    """

    id: str
    name: str
    device: Device
    devices_per_node: int
    nodes: int
    inter: Link | None = None
    host_w: float = 0.0
    pue: float = 1.2
    grid_g_per_kwh: float = 400.0
    usd_per_device_hour: float | None = None
    storage_bytes_per_s: float | None = None
    origin: str = "catalogue"
    assumptions: dict[str, str] = {}
    max_nodes: float | None = None
    nvme_bytes_per_s: float | None = None

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.devices_per_node * self.nodes
