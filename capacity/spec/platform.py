"""What stands beside the devices: storage, the work a core of a host does, how often components fail."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.record import Record


class Storage(Record):
    """A storage system, as its datasheet or its operator gives it; what is unknown is None.

    kind: drive, node drives, file server, object store, parallel file system, distributed file system or page cache.
    unit: what is bought one by one. Rates and capacity are of one unit; most_read, most_write of the whole, however many
    units. client_bytes_per_s: what one node can take. copies, data_parts, parity_parts: how it keeps bytes from loss, where
    capacity is of raw disks; 1, 1, 0 where capacity is of what is usable. shared: whether every node sees it.
    usd_per_byte_month: for a byte that is kept.
    """

    id: str
    name: str
    kind: str
    unit: str
    read_bytes_per_s: float
    write_bytes_per_s: float
    capacity_bytes: float | None = None
    most_read_bytes_per_s: float | None = None
    most_write_bytes_per_s: float | None = None
    client_bytes_per_s: float | None = None
    read_operations_per_s: float | None = None
    latency_s: float | None = None
    usd_per_byte_month: float | None = None
    copies: float = 1.0
    data_parts: float = 1.0
    parity_parts: float = 0.0
    shared: bool = True
    notes: str = ""
    origin: str = "catalogue"

    @property
    def units(self) -> str:
        """What several of them are called."""
        if self.unit.endswith("B"):
            return self.unit
        return f"{self.unit}es" if self.unit.endswith("x") else f"{self.unit}s"


class CoreWork(Record):
    """What one core of a host does of one kind of work: so much a call, so much a byte, and a byte of fresh memory."""

    name: str
    call_s: float
    bytes_per_s: float
    fresh_bytes_per_s: float | None = None


class Host(Record):
    """Work of one core, measured by `capacity bench`: ciphers, hashes, signatures, preparation of data, by name."""

    id: str
    name: str
    works: dict[str, CoreWork]
    origin: str = "catalogue"

    def work(self, name: str) -> CoreWork:
        """One kind of work; raises InputError where this host was not measured with it."""
        found = self.works.get(name)
        if found is None:
            raise InputError(
                f"{self.name} was not measured with {name}: run `capacity bench storage security preparation` and "
                "`capacity calibrate platform`, or name another host"
            )
        return found


class Enclave(Record):
    """A confidential device: what a copy into or out of it takes, how many an engine makes a step, and the pace left inside.

    bounce_bytes_per_s: of the buffer that processors encipher. crossing_s: to set a copy up. inside_share, links_share: pace left to
    work in a device and to links between those of a node.
    """

    generation: str
    bounce_bytes_per_s: float
    crossing_s: float
    crossings: float
    inside_share: float
    links_share: float


class Component(Record):
    """What stopped jobs: how often, on how many of it, and whether a node had to go for repair."""

    name: str
    failures: float
    observed: float
    per: str
    hardware: bool


class Failures(Record):
    """Interruptions counted on one cluster over observed_s."""

    id: str
    name: str
    observed_s: float
    components: tuple[Component, ...]


class DataKind(Record):
    """One kind of training data, a sample of it: bytes as collected, as fed, decoded; what filtering keeps of it.

    sample: what is counted (a token, a picture, a second). document_bytes: of one item as deduplication sees it, None where none does.
    works: stages of its preparation on every byte collected; feeding: what a loader does to each fed sample when it is not prepared.
    """

    id: str
    name: str
    sample: str
    raw_bytes: float
    fed_bytes: float
    decoded_bytes: float
    kept_share: float
    document_bytes: float | None
    stages: tuple[str, ...]
    feeding: tuple[str, ...]
