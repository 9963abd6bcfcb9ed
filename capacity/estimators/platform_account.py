"""What the platform under a run takes and gives: its quantities, for given factors on what is uncertain."""

from __future__ import annotations

from capacity.estimators.dataset import AROUND, stages
from capacity.estimators.intervals import Value
from capacity.estimators.protection import AT_REST, CHUNK_BYTES, IN_TRANSIT, SOFTWARE
from capacity.formula import scaled, sourced, total
from capacity.formulas import money, reliability, security, storage, traffic
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.training_run import Run
    from capacity.estimators.upkeep import Saving, Upkeep
    from capacity.spec.device import Cluster

# Metrics every second and text, of one device.
LOG_BYTES_PER_S = 200.0
# Sound and film are read in clips of so many seconds.
CLIP_S = 10.0
# A machine of the cluster that prepares data.
PREPARE_CORES, MACHINE_CORES, MACHINE_BYTES_PER_S, SKEW = 4096.0, 64.0, 3.125e9, 1.3
# Cores of a host for one device: two processors of 48 to 56 for eight.
CORES_PER_DEVICE = 12.0
MONTH_S = 30.4375 * 86400.0


def platform_account(case: Case, run: Run, values: Mapping[str, Value], upkeep: Upkeep) -> Account:
    """Quantities of the platform under a run. values: those of the run itself; upkeep: what was asked for."""
    cluster, devices = run.cluster, run.plan.devices
    checkpoint = values["checkpoint"].mid
    take = case.assumptions.take
    log_rate = take("log of a device", None, LOG_BYTES_PER_S, "byte/s", "metrics each second, and text")
    cores = take(
        "cores that prepare data", case.number("prepare_cores", "1", 1.0, 1e7), PREPARE_CORES, "1", "64 machines of 64"
    )
    skew = take("skew of partitions", case.number("skew", "1", 1.0, 100.0), SKEW, "1", "the fullest over the mean")
    host_cores = take("host cores a device", upkeep.cores_per_device, CORES_PER_DEVICE, "1", "96 to 112 for eight devices")  # fmt: skip
    moving = sourced(MACHINE_BYTES_PER_S, "network of a preparing machine", "25 GbE", "default") * (
        cores / MACHINE_CORES
    )
    plain = _unprotected_step(case, run)
    # A sequence of tokens, a clip of sound or film, one picture.
    read_together = {"token": run.workload.seq_len, "second": CLIP_S}
    staged = stages(upkeep.dataset, upkeep.host)

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        pace, wear, core = (factor.get(name, 1.0) for name in ("storage pace", "failure rate", "host pace"))
        step = factor.get("step time", 1.0)
        saving = upkeep.saving(cluster, checkpoint, devices, pace=pace, wear=wear)
        run_s = scaled(values["run_time"].mid, step)
        rate = scaled(values["tokens_per_s"].mid, 1.0 / step)
        steps_s = run.workload.tokens / rate
        collected = total({part.kind.id: part.collected for part in upkeep.dataset})
        prepared = total({part.kind.id: part.prepared for part in upkeep.dataset})
        held = storage.retained_bytes(checkpoint, upkeep.retained, run_s, saving.interval_s, upkeep.milestone_s)
        logs = storage.log_bytes(devices, log_rate, run_s)
        kept = total({"data set": upkeep.dataset_kept(), "checkpoints": held, "logs": logs})
        feed = total({part.kind.id: part.samples * part.epochs * part.fed_each / steps_s for part in upkeep.dataset})
        reads = total(
            {
                part.kind.id: storage.reads_per_s(
                    part.samples * part.epochs * part.fed_each / steps_s,
                    part.fed_each * read_together.get(part.kind.sample, 1.0),
                )
                for part in upkeep.dataset
            }
        )
        loaders = total(
            {
                part.kind.id: storage.loader_cores(
                    part.samples * part.epochs / steps_s / devices, scaled(part.load_s(upkeep.host), 1.0 / core)
                )
                for part in upkeep.dataset
            }
        )
        framework = factor.get("framework", 1.0)
        core_s = scaled(
            total({name: scaled(each, framework if name == AROUND else 1.0) for name, each in staged.items()}),
            1.0 / core,
        )
        shuffled = total({part.kind.id: part.shuffled for part in upkeep.dataset})
        failures = scaled(total(upkeep.rates(cluster, devices)), wear)
        away = reliability.nodes_in_repair(
            failures, upkeep.hardware_share(upkeep.rates(cluster, devices)), upkeep.repair_s
        )
        found = {
            "dataset_collected": Value(collected, "byte", "before filtering"),
            "dataset_prepared": Value(prepared, "byte", "what training reads, once"),
            "checkpoints_held": Value(held, "byte", f"the last {upkeep.retained:g}, and those kept for good"),
            "logs": Value(logs, "byte", "of the run"),
            "stored": Value(upkeep.redundant(kept), "byte", "on disks, with redundancy"),
            "storage_units": Value(saving.units, "1", upkeep.storage.units),
            "storage_read": Value(saving.read_bytes_per_s, "byte/s", "given to all nodes"),
            "storage_write": Value(saving.write_bytes_per_s, "byte/s", "given to all nodes"),
            "feed": Value(feed, "byte/s", "read while training"),
            "random_reads": Value(reads, "1/s", "one a sequence, clip or picture"),
            "loader_cores_per_device": Value(loaders, "1", f"of about {float(host_cores):g} that a device has"),
            "save_time": Value(saving.write_s, "s", "of a checkpoint, to storage"),
            "save_stall": Value(saving.stall_s, "s", "training stands still for each"),
            "snapshot_time": Value(saving.snapshot_s, "s", "to copy a device's share to its host"),
            "save_interval": Value(saving.interval_s, "s", "from one checkpoint to the next"),
            "saves": Value(run_s / saving.interval_s, "1", "checkpoints written"),
            "written_per_day": Value(checkpoint * 86400.0 / saving.interval_s, "byte", "of checkpoints"),
            "load_time": Value(
                traffic.loading_time_s(checkpoint, saving.read_bytes_per_s), "s", "of a checkpoint, each part read once"
            ),
            "preparation": Value(storage.core_hour_count(core_s), "1", "core hours"),
            "preparation_time": Value(
                storage.preparation_time_s(core_s, cores, skew, shuffled, upkeep.redundant(prepared), moving),
                "s",
                f"on {float(cores):g} cores",
            ),
            "shuffled": Value(shuffled, "byte", "between machines that prepare"),
            "failure_interval": Value(reliability.job_failure_interval_s(failures), "s", "of the whole job"),
            "interruptions": Value(failures * run_s, "1", "over the run"),
            "recovery_time": Value(saving.back_s, "s", "from an interruption to a new step"),
            "kept_time": Value(saving.goodput, "fraction", "left by checkpoints and failures"),
            "spares_needed": Value(
                reliability.spares_needed(away),
                "1",
                "nodes, enough for 99 % of the time",
            ),
        }
        found |= _money(upkeep, cluster, kept, run_s)
        if upkeep.protection is not None:
            found |= _protected(
                run,
                upkeep,
                saving,
                checkpoint,
                feed,
                prepared,
                plain,
                scaled(values["step_time"].mid, step),
                values["network_traffic_per_step"].mid,
            )
        return found

    return quantities


def _money(upkeep: Upkeep, cluster: Cluster, kept: float, run_s: float) -> dict[str, Value]:
    """Rent of storage and of spares, where their prices are known."""
    found = {}
    price = upkeep.storage.usd_per_byte_month
    if price is not None:
        found["storage_cost"] = Value(
            storage.storage_usd(kept, price, run_s, sourced(MONTH_S, "a month")),
            "USD",
            "for the run, as full as at its end",
        )
    if upkeep.spares and cluster.usd_per_device_hour is not None:
        rate = sourced(cluster.usd_per_device_hour / 3600.0, "price per device-second")
        idle = sourced(upkeep.spares * cluster.devices_per_node, "devices of spare nodes")
        found["spares_cost"] = Value(money.rental_usd(rate, idle, run_s), "USD", "of nodes that wait")
    return found


def _protected(
    run: Run,
    upkeep: Upkeep,
    saving: Saving,
    checkpoint: float,
    feed: float,
    prepared: float,
    plain: float | None,
    step: float,
    moved: float,
) -> dict[str, Value]:
    """What protection takes: cores, time, keys."""
    protection, cluster = upkeep.protection, run.cluster
    assert protection is not None
    found: dict[str, Value] = {}
    busy: dict[str, float] = {}
    core = protection.core_bytes_per_s
    if protection.has(AT_REST):
        whole = protection.saving_bytes_per_s * protection.cores * float(cluster.nodes)
        files = run.plan.devices
        found["save_protection_time"] = Value(
            storage.snapshot_time_s(checkpoint, whole), "s", "to digest and encipher a checkpoint, beside its writing"
        )
        found["signing_time"] = Value(
            scaled(protection.signature.call_s, files / (protection.cores * float(cluster.nodes))),
            "s",
            "of the digests of all files of a checkpoint",
        )
        found["dataset_protection"] = Value(
            storage.core_hour_count(storage.preparation_core_s(prepared, protection.saving_bytes_per_s)),
            "1",
            "core hours, once",
        )
        busy["checkpoints"] = security.protecting_cores(checkpoint / saving.interval_s, protection.saving_bytes_per_s)
        busy["feed"] = security.protecting_cores(feed, core)
        scopes = {
            "run": (1.0, upkeep.retained * checkpoint),
            "checkpoint": (upkeep.retained, checkpoint),
            "file": (upkeep.retained * files, checkpoint / files),
        }
        keys, each = scopes[protection.keys]
        found["data_keys"] = Value(keys, "1", f"one a {protection.keys}, for what is retained")
        found["messages_per_key"] = Value(
            security.messages_per_key(each, sourced(CHUNK_BYTES, "piece of a file", "assumed", "default")),
            "1",
            "at most 2^32 with random nonces",
        )
    if plain is not None:
        if cluster.inter is not None:
            found["protected_link"] = Value(cluster.inter.bytes_per_s, "byte/s", "payload a device sends between nodes")
        found["step_slowdown"] = Value(
            security.slowdown_share(step, plain), "fraction", "of a step, by protected links"
        )
        if protection.has(IN_TRANSIT):
            if protection.transit == SOFTWARE:
                sent = sourced(moved, "bytes a device sends a step") * run.plan.devices
                busy["links"] = security.protecting_cores(2.0 * sent / step, core)
            if not protection.has(AT_REST):
                busy["storage traffic"] = security.protecting_cores(feed + checkpoint / saving.interval_s, core)
    if busy:
        found["cipher_cores"] = Value(total(busy), "1", "busy on average, of all nodes")
    return found


def _unprotected_step(case: Case, run: Run) -> float | None:
    """A step of the same layout over plain links; None where links are plain."""
    plain = case.kept.get("plain cluster")
    if plain is None or (plain.inter is run.cluster.inter and plain.device is run.cluster.device):
        return None
    from capacity.estimators.training_run import price_run

    other = price_run(replace(case, cluster=plain), run.model, run.workload, plain, run.plan.devices, plan=run.plan)
    return total(other.time)
