"""What binds first under a run: every resource with what is needed of it, in words, and what fixes it."""

from __future__ import annotations

import math

from capacity.estimators.platform_account import CORES_PER_DEVICE
from capacity.estimators.protection import MOST_MESSAGES
from capacity.estimators.upkeep import ASYNC, BACKGROUND_SHARE
from capacity.formulas import storage
from capacity.quantities import format
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.estimators.training_run import Run
    from capacity.estimators.upkeep import Saving, Upkeep
    from capacity.spec.estimate import Quantity
    from capacity.spec.platform import Storage

# Of a run's time that checkpoints or protected links may take before they are said to bind; from where one is near.
STALLED_SHARE, NEAR_SHARE = 0.05, 0.5
# A file system is to be no fuller.
FULL_SHARE = 0.9


class Need(Record):
    """A resource: what is needed of it over what is given, in words, and what to do where that is too much."""

    name: str
    share: float
    said: str
    remedy: str
    near: float = NEAR_SHARE


def needs_of(run: Run, upkeep: Upkeep, saving: Saving, found: Mapping[str, float]) -> list[Need]:
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


def verdict_of(first: Need, quantities: Mapping[str, Quantity]) -> str:
    """One line: what is kept, what is lost, what binds and what fixes it."""
    stored, lost = quantities["stored"], 1.0 - quantities["kept_time"].mid
    text = f"{format(stored.mid, 'byte')} on disks; checkpoints and failures take {lost:.1%} of the time; "
    if first.share > 1.0:
        return text + f"bound by {first.name}, {first.said}: {first.remedy}"
    if first.share > first.near:
        return text + f"first to bind: {first.name}, {first.said}: {first.remedy}"
    return text + f"nothing binds; nearest {first.name}, {first.said}"


def warnings_of(upkeep: Upkeep, needs: list[Need], quantities: Mapping[str, Quantity]) -> tuple[str, ...]:
    """A line for everything else that is near its limit, and for what a plan forgets."""
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
