"""What a request says of the platform under a run: storage, data, failures, protection, with what it leaves open assumed."""

from __future__ import annotations

from capacity.catalogue.own import THIS_MACHINE
from capacity.errors import CapacityError, InputError
from capacity.estimators.assumptions import number, one_of
from capacity.estimators.dataset import read_dataset
from capacity.estimators.protection import DEFAULT_HOST, protected_cluster, read_protection
from capacity.estimators.upkeep import SNAPSHOTS, SYNC, Upkeep
from capacity.record import replace
from capacity.spec.platform import Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.assumptions import Assumptions
    from capacity.estimators.case import Case
    from capacity.spec.device import Cluster
    from capacity.spec.platform import Host
    from capacity.spec.workload import Workload

DEFAULT_FAILURES = "llama-3-405b"
REPAIR_S = 86400.0
RETAINED = 10.0
# Where no storage is named: what a node's share of a shared file system gives.
NODE_BYTES_PER_S = 2e9
NEVER_S = 1e30


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
