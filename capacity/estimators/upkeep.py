"""What keeps a run going: the storage under it, how often it fails, what a checkpoint costs and how long it takes to be back."""

from __future__ import annotations

from capacity.catalogue.own import THIS_MACHINE
from capacity.errors import CapacityError, InputError
from capacity.estimators.assumptions import number, one_of
from capacity.estimators.dataset import read_dataset
from capacity.estimators.protection import AT_REST, DEFAULT_HOST, protected_cluster, read_protection
from capacity.formula import scaled, sourced, total
from capacity.formulas import reliability, schedule, storage
from capacity.record import Record, replace
from capacity.spec.platform import Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.assumptions import Assumptions
    from capacity.estimators.case import Case
    from capacity.estimators.dataset import Part
    from capacity.estimators.protection import Protection
    from capacity.spec.device import Cluster
    from capacity.spec.platform import Failures, Host
    from capacity.spec.workload import Workload

SYNC, ASYNC = SNAPSHOTS = ("sync", "async")
DEFAULT_FAILURES = "llama-3-405b"
# A share of a device's bus, as it is reached by copies from pinned memory.
HOST_COPY_BYTES_PER_S = 2.5e10
# Until a hang is noticed; until another node has its place: by hand and scheduler, or a spare that waits.
DETECTION_S, REPLACING_S, SPARE_S = 120.0, 780.0, 180.0
REPAIR_S = 86400.0
RETAINED = 10.0
# Of the write pace that snapshots written in the background may take.
BACKGROUND_SHARE = 0.5
# Of the time between failures that the steps one of them undoes may take before it pays to save more often.
REWORK_SHARE = 0.01
# Room for logs and what comes: a file system slows down when it fills up.
FILLED_SHARE = 0.8
# Where no storage is named: what a node's share of a shared file system gives.
NODE_BYTES_PER_S = 2e9
NEVER_S = 1e30


class Saving(Record):
    """A checkpoint on a cluster: standing still for it, writing it, how often, and what failures cost."""

    stall_s: float
    snapshot_s: float
    write_s: float
    interval_s: float
    failure_s: float
    back_s: float
    goodput: float
    units: float
    read_bytes_per_s: float
    write_bytes_per_s: float


class Upkeep(Record):
    """The platform under a run, as asked for. interval_s: between checkpoints, None for the one that loses least."""

    storage: Storage
    units: float | None
    dataset: tuple[Part, ...]
    host: Host
    protection: Protection | None
    failures: Failures | None
    device_interval_s: float
    snapshot: str
    interval_s: float | None
    retained: float
    milestone_s: float
    spares: float | None
    repair_s: float
    cores_per_device: float | None = None

    def redundant(self, kept: float) -> float:
        """Bytes on disks for bytes kept."""
        one = self.storage
        return storage.redundant_bytes(kept, one.copies, one.data_parts, one.parity_parts)

    def dataset_kept(self) -> float:
        """Bytes of the data set, as collected and as prepared where that differs."""
        parts = {}
        for part in self.dataset:
            if part.feed != "raw":
                parts[f"{part.kind.id}, prepared"] = part.prepared
            parts[f"{part.kind.id}, collected"] = part.collected
        return total(parts)

    def units_for(self, cluster: Cluster, kept: float) -> float:
        """Units of the storage: as given, as one node or device has them, or as many as hold what is kept."""
        one = self.storage
        if self.units is not None:
            return sourced(self.units, one.units, "given", "user")
        if not one.shared:
            own = cluster.devices if one.kind == "drive" else cluster.nodes
            return sourced(float(own), one.units, "as many as the cluster has", "default")
        if one.capacity_bytes is None:
            count = (one.most_read_bytes_per_s or one.read_bytes_per_s) / one.read_bytes_per_s
            return sourced(max(count, 1.0), one.units, "as many as give the most", "default")
        return storage.units_needed(self.redundant(kept) / FILLED_SHARE, one.capacity_bytes)

    def paces(self, cluster: Cluster, units: float) -> tuple[float, float]:
        """Bytes a second read and written by all nodes together."""
        one = self.storage
        clients = sourced(float(cluster.nodes), "nodes")

        def pace(each: float, most: float | None) -> float:
            unlimited = each * units
            return storage.delivered_bytes_per_s(
                each, units, most if most is not None else unlimited,
                one.client_bytes_per_s if one.client_bytes_per_s is not None else unlimited, clients,
            )  # fmt: skip

        return pace(one.read_bytes_per_s, one.most_read_bytes_per_s), pace(
            one.write_bytes_per_s, one.most_write_bytes_per_s
        )

    def rates(self, cluster: Cluster, devices: float) -> dict[str, float]:
        """Interruptions a second of a job on so many devices, by component."""
        nodes = devices / cluster.devices_per_node
        if self.failures is None:
            each = reliability.component_failures_per_s(
                sourced(1.0, "interruption", "given", "user"), sourced(1.0, "device"),
                sourced(self.device_interval_s, "between interruptions of a device", "given", "user"), devices,
            )  # fmt: skip
            return {"devices": each}
        units = {"device": devices, "node": nodes, "job": 1.0}
        return {
            one.name: reliability.component_failures_per_s(
                one.failures, one.observed, self.failures.observed_s, units[one.per]
            )
            for one in self.failures.components
        }

    def hardware_share(self, rates: dict[str, float]) -> float:
        """Share of interruptions after which a node goes for repair."""
        if self.failures is None:
            return sourced(0.75, "share of hardware", "Llama 3 report, table 5", "default")
        hard = sum(float(rates[one.name]) for one in self.failures.components if one.hardware)
        return sourced(hard / sum(map(float, rates.values())), "share of hardware", self.failures.name, "catalogue")

    def protect_bytes_per_s(self, cluster: Cluster) -> float | None:
        """Pace at which all nodes digest and encipher what they save; None where nothing is."""
        if self.protection is None or not self.protection.has(AT_REST):
            return None
        return self.protection.saving_bytes_per_s * self.protection.cores * float(cluster.nodes)

    def copy_bytes_per_s(self) -> float:
        """From a device to its host."""
        if self.protection is not None and self.protection.bounce_bytes_per_s is not None:
            return self.protection.bounce_bytes_per_s
        return sourced(HOST_COPY_BYTES_PER_S, "copies to the host", "PCIe, pinned memory", "default")

    def saving(
        self, cluster: Cluster, checkpoint: float, devices: float, *, pace: float = 1.0, wear: float = 1.0
    ) -> Saving:
        """What checkpoints and failures cost a job. pace, wear: factors on what storage gives and on how often jobs fail."""
        units = self.units_for(
            cluster, total({"data set": self.dataset_kept(), "checkpoints": checkpoint * self.retained})
        )
        read, write = (scaled(each, pace) for each in self.paces(cluster, units))
        write_s = storage.save_time_s(checkpoint, write, self.protect_bytes_per_s(cluster) or write)
        snapshot_s = storage.snapshot_time_s(checkpoint / devices, self.copy_bytes_per_s())
        failure_s = reliability.job_failure_interval_s(scaled(total(self.rates(cluster, devices)), wear))
        behind = self.snapshot == ASYNC
        stall = snapshot_s if behind else write_s
        interval = self.interval_s
        if interval is None:
            interval = schedule.best_checkpoint_interval_s(stall, failure_s)
            if behind:
                # Standing still so briefly, it would pay to save at every turn; once is enough where little is at stake.
                interval = max(
                    interval, write_s / BACKGROUND_SHARE, sourced(2.0 * REWORK_SHARE, "steps at stake") * failure_s
                )
        else:
            interval = sourced(interval, "checkpoint interval", "given", "user")
        spare = self.spares is not None and self.spares > 0.0
        back_s = reliability.recovery_time_s(
            sourced(DETECTION_S, "until it is noticed", "assumed", "default"),
            sourced(SPARE_S if spare else REPLACING_S, "until a node has its place", "assumed", "default"),
            checkpoint,
            read,
            write_s if behind else 0.0,
        )
        good = schedule.goodput(stall, interval, failure_s, back_s)
        return Saving(stall, snapshot_s, write_s, interval, failure_s, back_s, good, units, read, write)


def protect(cluster: Cluster, request: dict[str, Any], folders: tuple[str, ...], assumptions: Assumptions) -> Cluster:
    """The cluster as protection leaves it: links between nodes give what is asked of ciphers."""
    from capacity.catalogue import load_host

    host = load_host(_own(request, "host", "hosts", folders) or DEFAULT_HOST, folders)
    return protected_cluster(cluster, read_protection(request, assumptions, cluster, host))


def _own(request: dict[str, Any], option: str, section: str, folders: tuple[str, ...]) -> str | None:
    """What was asked for; where that is nothing and the device is this machine, what was measured here."""
    if option in request or request.get("device") != THIS_MACHINE:
        found: str | None = request.get(option)
        return found
    from capacity.catalogue.entry import find

    return THIS_MACHINE if find(section, THIS_MACHINE, folders) else None


def host_of(case: Case) -> Host:
    """Whose cores work on data and ciphers."""
    from capacity.catalogue import load_host

    host = load_host(_own(case.request, "host", "hosts", case.folders) or DEFAULT_HOST, case.folders)
    tag = "user" if "host" in case.request else "default"
    case.assumptions.note("host core", host.name, "", tag, "paces of ciphers and of data")
    return host


def storage_of(case: Case) -> Storage:
    """The storage that was named, or a node's share of one nobody named; with its redundancy."""
    from capacity.catalogue import load_storage

    note = case.assumptions.note
    named = _own(case.request, "storage", "storage", case.folders)
    if named is not None:
        under = load_storage(named, case.folders)
        note("storage", under.name, "", "user", under.notes)
    else:
        pace = case.cluster.storage_bytes_per_s or NODE_BYTES_PER_S * case.cluster.nodes
        under = Storage("unnamed", "storage of 2 GB/s a node", "parallel file system", "system", pace, pace)
        note("storage", under.name, "", "default", "name one with --storage")
    redundancy = case.request.get("redundancy")
    if redundancy is not None:
        copies, data, parity = _redundancy(str(redundancy))
        under = replace(under, copies=copies, data_parts=data, parity_parts=parity)
    note("redundancy", _said(under), "", "user" if redundancy is not None else "catalogue")
    return under


def read_upkeep(case: Case, workload: Workload) -> Upkeep:
    """What a request says of storage, failures and protection, with what it leaves open assumed and noted."""
    from capacity.catalogue import load_failures

    request, take, note = case.request, case.assumptions.take, case.assumptions.note
    folders = case.folders
    if "kv_keep" in request:
        raise InputError("--kv-keep is of a service: give it with --mode serve")
    host, under = host_of(case), storage_of(case)
    snapshot = one_of("--snapshot", request.get("snapshot"), SNAPSHOTS) or SYNC
    note("checkpoints", snapshot, "", "user" if "snapshot" in request else "default", "async: written behind training")
    failures, device_interval_s = None, 0.0
    given = str(request.get("failures", DEFAULT_FAILURES))
    if given[:1].isdigit():
        device_interval_s = number("--failures", given, "s", 1.0, 1e12) or 0.0
        note("between interruptions of a device", device_interval_s, "s", "user")
    else:
        try:
            failures = load_failures(given, folders)
        except CapacityError as error:
            raise InputError(
                f"{error}; or give a device's mean time between failures, as in --failures 50000h"
            ) from None
        note(
            "failures as counted on",
            failures.name,
            "",
            "user" if "failures" in request else "default",
            "rates by component add",
        )
    retained = take("checkpoints retained", case.number("retention", "1", 1.0, 1e6), RETAINED, "1", "the last ones")
    milestone = case.number("milestone", "s", 1.0, 1e9)
    if milestone is not None:
        note("checkpoint kept for good each", milestone, "s", "user")
    spares = case.number("spares", "1", 0.0, 1e6, whole=True)
    if spares is not None:
        note("spare nodes", spares, "1", "user")
    repair = take("repair of a node", case.number("repair_time", "s", 1.0, 1e8), REPAIR_S, "s", "a day")
    protection = read_protection(request, case.assumptions, case.cluster, host) if "encrypt" in request else None
    return Upkeep(
        under, case.number("storage_units", "1", 1.0, 1e9), read_dataset(case, workload), host, protection,
        failures, device_interval_s, snapshot, case.number("checkpoint_interval", "s", 1.0, 1e8), retained,
        milestone or NEVER_S, spares, repair, case.number("cores_per_device", "1", 0.1, 1e4),
    )  # fmt: skip


def _redundancy(text: str) -> tuple[float, float, float]:
    """`3x` is three copies, `8+3` an erasure code, `none` neither."""
    word = text.strip().lower()
    if word == "none":
        return 1.0, 1.0, 0.0
    data, plus, parity = word.partition("+")
    try:
        code = (1.0, float(int(data)), float(int(parity))) if plus else None
        found = code or (float(int(word.removesuffix("x"))), 1.0, 0.0)
    except ValueError:
        found = (0.0, 0.0, 0.0)
    if not (1.0 <= found[0] <= 20.0 and 1.0 <= found[1] <= 200.0 and 0.0 <= found[2] <= 100.0):
        raise InputError(f"--redundancy is {text[:40]!r}: give copies as 3x, an erasure code as 8+3, or none")
    return found


def _said(one: Storage) -> str:
    if one.parity_parts:
        return f"{one.data_parts:g} + {one.parity_parts:g}"
    return f"{one.copies:g} copies" if one.copies > 1.0 else "the system's own"
