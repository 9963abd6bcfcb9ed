"""What keeps a run going: the storage under it, how often it fails, what a checkpoint costs and how long it takes to be back."""

from __future__ import annotations

from capacity.estimators.protection import AT_REST
from capacity.formula import scaled, sourced, total
from capacity.formulas import reliability, schedule, storage
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.dataset import Part
    from capacity.estimators.protection import Protection
    from capacity.spec.device import Cluster
    from capacity.spec.platform import Failures, Host, Storage

SYNC, ASYNC = SNAPSHOTS = ("sync", "async")
# A share of a device's bus, as it is reached by copies from pinned memory.
HOST_COPY_BYTES_PER_S = 2.5e10
# Until a hang is noticed; until another node has its place: by hand and scheduler, or a spare that waits.
DETECTION_S, REPLACING_S, SPARE_S = 120.0, 780.0, 180.0
# Of the write pace that snapshots written in the background may take.
BACKGROUND_SHARE = 0.5
# Of the time between failures that the steps one of them undoes may take before it pays to save more often.
REWORK_SHARE = 0.01
# Room for logs and what comes: a file system slows down when it fills up.
FILLED_SHARE = 0.8


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
