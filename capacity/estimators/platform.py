"""The platform half of an answer: storage, feeding, preparation, protection and reliability, and what binds first."""

from __future__ import annotations

import math

from capacity.estimators.composed import step_interval
from capacity.estimators.dataset import stages
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.estimators.protection import AT_REST, CHUNK_BYTES, IN_TRANSIT, MOST_MESSAGES, SOFTWARE
from capacity.estimators.stacks import load_stack
from capacity.estimators.upkeep import ASYNC, BACKGROUND_SHARE
from capacity.formula import scaled, sourced, total
from capacity.formulas import money, reliability, security, storage, traffic
from capacity.quantities import format
from capacity.record import Record, replace
from capacity.spec.estimate import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.training_run import Run
    from capacity.estimators.upkeep import Saving, Upkeep
    from capacity.spec.device import Cluster
    from capacity.spec.estimate import Quantity
    from capacity.spec.platform import Storage

# Metrics every second and text, of one device.
LOG_BYTES_PER_S = 200.0
# Sound and film are read in clips of so many seconds.
CLIP_S = 10.0
# A machine of the cluster that prepares data.
PREPARE_CORES, MACHINE_CORES, MACHINE_BYTES_PER_S, SKEW = 4096.0, 64.0, 3.125e9, 1.3
# Cores of a host for one device: two processors of 48 to 56 for eight.
CORES_PER_DEVICE = 12.0
MONTH_S = 30.4375 * 86400.0
# Of a run's time that checkpoints or protected links may take before they are said to bind; from where one is near.
STALLED_SHARE, NEAR_SHARE = 0.05, 0.5
# A file system is to be no fuller.
FULL_SHARE = 0.9
# What file systems deliver of their datasheets; how far rates of failure and of preparation scatter between sites.
_UNCERTAIN = (
    Uncertain("storage pace", 0.5, 1.0, "shared file systems deliver half to all of their datasheet"),
    Uncertain("failure rate", 0.5, 2.0, "sites differ: Meta's clusters by 2.8 times"),
    Uncertain("host pace", 0.6, 1.4, "processors and libraries differ"),
)


class Need(Record):
    """A resource: what is needed of it over what is given, in words, and what to do where that is too much."""

    name: str
    share: float
    said: str
    remedy: str
    near: float = NEAR_SHARE


def platform_section(case: Case) -> tuple[Section, dict[str, dict[str, float]]]:
    """The platform under the training run that this case has priced already."""
    (run, values), upkeep = case.kept["train"], case.kept["upkeep"]
    account = _account(case, run, values, upkeep)
    stack = load_stack(case.request.get("stack") or "tuned")
    step = step_interval(stack, case.cluster.device, case.profile, routed=False, anchors=case.site[1])
    quantities, sensitivities = with_intervals(account, (step, *_UNCERTAIN))
    saving = upkeep.saving(run.cluster, values["checkpoint"].mid, run.plan.devices)
    needs = _needs(run, upkeep, saving, {name: value.mid for name, value in account({}).items()})
    first = needs[0]
    return (
        Section(
            title="Platform",
            verdict=_verdict(first, quantities),
            fits=first.share <= 1.0,
            binding=first.name if first.share > first.near else "none",
            setting=_setting(run, upkeep, saving),
            quantities=quantities,
            breakdowns=_breakdowns(run, upkeep, quantities, needs),
            alternatives=_alternatives(case, run, values, upkeep),
            warnings=_warnings(upkeep, needs, quantities),
        ),
        sensitivities,
    )


def platform_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    (run, values), upkeep = case.kept["train"], case.kept["upkeep"]
    return {name: value.mid for name, value in _account(case, run, values, upkeep)({}).items()}


def _account(case: Case, run: Run, values: Mapping[str, Value], upkeep: Upkeep) -> Account:
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
        core_s = scaled(total(staged), 1.0 / core)
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
            "preparation": Value(core_s / 3600.0, "1", "core hours"),
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
            storage.preparation_core_s(prepared, protection.saving_bytes_per_s) / 3600.0, "1", "core hours, once"
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
        assert cluster.inter is not None
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
    if plain is None or plain.inter is run.cluster.inter:
        return None
    from capacity.estimators.training_run import price_run

    other = price_run(replace(case, cluster=plain), run.model, run.workload, plain, run.plan.devices, plan=run.plan)
    return total(other.time)


def _needs(run: Run, upkeep: Upkeep, saving: Saving, found: Mapping[str, float]) -> list[Need]:
    """Every resource with what is needed of what is given, the tightest first."""
    one, units, needs = upkeep.storage, float(saving.units), []

    def need(name: str, needed: float, given: float, remedy: str, said: str = "", near: float = NEAR_SHARE) -> None:
        share = float(storage.used_share(needed, given))
        needs.append(Need(name, share, said or f"{share:.0%} of what is there", remedy, near))

    if one.capacity_bytes is not None:
        more = float(storage.units_needed(found["stored"], one.capacity_bytes))
        hold = f"{more:,.0f} {one.units} hold it" if more > units else "one more unit, or fewer checkpoints retained"
        need("capacity", found["stored"], one.capacity_bytes * units, hold, near=FULL_SHARE)
    read, write = saving.read_bytes_per_s, saving.write_bytes_per_s
    need("feed", found["feed"], read, _more(one, "read", float(found["feed"] / read), units))
    if one.read_operations_per_s is not None:
        shards = "pack samples into shards that are read in sequence"
        need("random reads", found["random_reads"], one.read_operations_per_s * units, shards)
    if upkeep.snapshot == ASYNC:
        # What is lost at a failure; and where an interval was given, whether a write ends before the next begins.
        lost = (saving.interval_s / 2.0 + saving.write_s) / saving.failure_s
        late = 0.0 if upkeep.interval_s is None else saving.write_s / BACKGROUND_SHARE / saving.interval_s
        share = max(lost / STALLED_SHARE, late)
        said = f"steps done again after failures take {float(lost):.1%} of the time"
        if late > lost / STALLED_SHARE:
            said = (
                f"writing takes {format(float(saving.write_s), 's')} of every {format(float(saving.interval_s), 's')}"
            )
        need("checkpoint writes", share, 1.0, _more(one, "write", float(share), units), said)
    else:
        stalled = saving.stall_s / saving.interval_s
        remedy = f"--snapshot async stands still for {format(float(saving.snapshot_s), 's')} each, not {format(float(saving.stall_s), 's')}"
        need(
            "checkpoint stalls",
            stalled,
            STALLED_SHARE,
            remedy,
            f"training stands still for {float(stalled):.1%} of the time",
        )
    cores = upkeep.cores_per_device or CORES_PER_DEVICE
    remedy = "prepare the data beforehand (--feed prepared), or decode on the devices"
    need("loader cores", found["loader_cores_per_device"], cores, remedy)
    protect, protection = upkeep.protect_bytes_per_s(run.cluster), upkeep.protection
    if protection is not None and protect is not None:
        wanted = float(write / (protect / protection.cores))
        need("ciphers", write, protect, f"--cipher-cores {wanted:.0f} keep up with storage, or drives that encipher")
    if protection is not None and "step_slowdown" in found:
        remedy = (
            "nothing published avoids the bounce buffer"
            if protection.bounce_bytes_per_s
            else "--transit macsec lets adapters do it"
        )
        slower = found["step_slowdown"]
        need("protected links", slower, STALLED_SHARE, remedy, f"steps are {float(slower):.1%} slower")
    if upkeep.spares is not None:
        wanted = float(found["spares_needed"])
        need(
            "spare nodes",
            wanted,
            max(upkeep.spares, 0.5),
            f"--spares {wanted:.0f} are enough for 99 % of the time",
            near=1.0,
        )
    return sorted(needs, key=lambda one: -one.share / one.near)


def _more(one: Storage, what: str, share: float, units: float) -> str:
    """Advice to get more pace out of a storage system."""
    most = one.most_read_bytes_per_s if what == "read" else one.most_write_bytes_per_s
    if most is not None or one.kind == "page cache":
        return f"{one.name} gives no more: take a parallel file system"
    if not one.shared:
        return "more drives a node"
    return f"--storage-units {max(math.ceil(units * share), units + 1.0):,.0f}"


def _verdict(first: Need, quantities: Mapping[str, Quantity]) -> str:
    stored, lost = quantities["stored"], 1.0 - quantities["kept_time"].mid
    text = f"{format(stored.mid, 'byte')} on disks; checkpoints and failures take {lost:.1%} of the time; "
    if first.share > 1.0:
        return text + f"bound by {first.name}, {first.said}: {first.remedy}"
    if first.share > first.near:
        return text + f"first to bind: {first.name}, {first.said}: {first.remedy}"
    return text + f"nothing binds; nearest {first.name}, {first.said}"


def _setting(run: Run, upkeep: Upkeep, saving: Saving) -> str:
    one = upkeep.storage
    count = float(saving.units)
    said = one.name if one.id == "unnamed" else f"{count:,.0f} x {one.name}" if count > 1.0 else one.name
    protected = (
        "" if upkeep.protection is None else f"; {', '.join(upkeep.protection.parts)}: {upkeep.protection.cipher.name}"
    )
    nodes = f"{run.cluster.nodes} node{'s' if run.cluster.nodes > 1 else ''}"
    return f"{said} under {nodes}; {upkeep.snapshot} checkpoints{protected}"


def _breakdowns(
    run: Run, upkeep: Upkeep, quantities: Mapping[str, Quantity], needs: list[Need]
) -> dict[str, dict[str, float]]:
    kept = {}
    for part in upkeep.dataset:
        kept[f"{part.kind.id} collected"] = float(upkeep.redundant(part.collected))
        if part.feed != "raw":
            kept[f"{part.kind.id} prepared"] = float(upkeep.redundant(part.prepared))
    kept["checkpoints"] = float(upkeep.redundant(quantities["checkpoints_held"].mid))
    kept["logs"] = float(upkeep.redundant(quantities["logs"].mid))
    run_s = quantities["interruptions"].mid * quantities["failure_interval"].mid
    rates = upkeep.rates(run.cluster, run.plan.devices)
    return {
        "storage": kept,
        "preparation": {name: float(seconds) for name, seconds in stages(upkeep.dataset, upkeep.host).items()},
        "interruptions": {name: float(rate) * run_s for name, rate in sorted(rates.items(), key=lambda item: -item[1])},
        "pressure": {need.name: need.share for need in needs},
    }


_RIVALS = ("ddn-ai400x2", "fsx-lustre-1000", "aws-s3", "dgx-h100-nvme", "nfs-server", "hdfs-node")


def _alternatives(case: Case, run: Run, values: Mapping[str, Value], upkeep: Upkeep) -> tuple[dict[str, Any], ...]:
    """The same run on other storage, each as large as it must be."""
    from capacity.catalogue import load_storage

    checkpoint, run_s = values["checkpoint"].mid, values["run_time"].mid
    rows = []
    for name in dict.fromkeys((upkeep.storage.id, *_RIVALS)):
        own = name == upkeep.storage.id
        other = upkeep if own else replace(upkeep, storage=load_storage(name, case.folders), units=None)
        saving = other.saving(run.cluster, checkpoint, run.plan.devices)
        price = other.storage.usd_per_byte_month
        kept = float(total({"data set": other.dataset_kept(), "checkpoints": checkpoint * other.retained}))
        rows.append(
            {
                "storage": name,
                "units": float(saving.units),
                "read_bytes_per_s": float(saving.read_bytes_per_s),
                "save_s": float(saving.write_s),
                "stall_s": float(saving.stall_s),
                "goodput": f"{float(saving.goodput):.1%}",
                "cost_usd": None if price is None else kept * price * float(run_s) / MONTH_S,
            }
        )
    return tuple(sorted(rows, key=lambda row: (row["storage"] != upkeep.storage.id, row["save_s"])))


def _warnings(upkeep: Upkeep, needs: list[Need], quantities: Mapping[str, Quantity]) -> tuple[str, ...]:
    found = [f"{one.name}: {one.said}; {one.remedy}" for one in needs[1:] if one.share > one.near]
    if upkeep.spares is None:
        wanted = quantities["spares_needed"].mid
        found.append(f"no spare nodes: {wanted:.0f} would be enough for 99 % of the time (--spares {wanted:.0f})")
    if not upkeep.storage.shared and upkeep.storage.kind != "page cache":
        found.append("drives of a node are lost with it: copy each checkpoint to another node or to shared storage")
    messages = quantities.get("messages_per_key")
    if messages is not None and messages.mid > MOST_MESSAGES:
        found.append(
            "a key enciphers more than 2^32 pieces, beyond what AES-GCM allows: take --keys checkpoint or file"
        )
    return tuple(found)
