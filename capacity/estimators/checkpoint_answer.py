"""What a checkpoint holds, and whether a device does: read from its headers, no weight loaded."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions
from capacity.estimators.case_cluster import read_cluster
from capacity.estimators.intervals import Value, with_intervals
from capacity.estimators.service import STORAGE_BYTES_PER_S
from capacity.formula import sourced
from capacity.formulas import traffic
from capacity.spec.estimate import Estimate, Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.importers.graphs.checkpoint import Checkpoint

KEYS = ("checkpoint", "device", "devices", "nodes", "cluster", "price", "pue", "grid", "catalogue")


def checkpoint_estimate(request: dict[str, Any]) -> Estimate:
    """The answer for a checkpoint: section "checkpoint". Raises CapacityError."""
    from capacity.importers.graphs.checkpoint import read_checkpoint

    request = {key: value for key, value in request.items() if value is not None and value is not False}
    for key in request:
        if key not in KEYS:
            raise InputError(f"--{key.replace('_', '-')} says nothing of a checkpoint; with --checkpoint leave it out")
    found = read_checkpoint(request["checkpoint"])
    assumptions = Assumptions()
    cluster, profile, devices = read_cluster(request, tuple(request.get("catalogue", ())), assumptions)
    count = float(devices or 1.0)
    rate = cluster.storage_bytes_per_s or STORAGE_BYTES_PER_S
    assumptions.note("storage of a node", float(rate), "byte/s", "default", "a local drive, read at once")
    parts = {name: size / count for name, (_, _, size) in found.by_dtype().items()}
    memory = {f"weights {name}": size for name, size in parts.items()} | {"framework": profile.context_bytes}
    held, most = sum(memory.values()), float(cluster.device.memory_bytes)
    seconds = traffic.loading_time_s(sourced(found.bytes, "bytes of all tensors"), sourced(rate, "storage of a node"))

    def account(_: Mapping[str, float]) -> dict[str, Value]:
        return {
            "tensors": Value(float(len(found.tensors)), "1", "in all files"),
            "weight_elements": Value(found.parameters, "1", "numbers in all tensors"),
            "weight_bytes": Value(found.bytes, "byte", "exact, by the headers"),
            "file_bytes": Value(found.file_bytes, "byte", f"{len(found.files)} files, headers included"),
            "loading_time": Value(seconds, "s", "from storage"),
            "device_memory": Value(most, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(held, "byte", "weights as stored, cut evenly, beside the framework"),
        }

    quantities, _ = with_intervals(account, ())
    fits = held <= most
    left = abs(most - held) / 2**30
    section = Section(
        title="Checkpoint",
        verdict=f"{'fits' if fits else 'does not fit'}: {held / 2**30:.4g} GiB of {most / 2**30:.3g} GiB per device, {left:.3g} GiB {'left' if fits else 'too much'}",
        fits=fits, binding="memory", setting=f"{count:g} x {cluster.device.name}; {_said(found)}",
        quantities=quantities, breakdowns={"memory": memory},
    )  # fmt: skip
    facts = {
        "name": found.path.rstrip("/").rpartition("/")[2], "architecture": found.format, "parameters": found.parameters, "source": found.path,
        "formats": {name: {"tensors": count, "elements": elements, "bytes": size} for name, (count, elements, size) in found.by_dtype().items()},
        "tensors": {one.name: {"dtype": one.dtype, "shape": list(one.shape), "bytes": one.bytes} for one in found.tensors},
        "inferred": [], "notes": [],
    }  # fmt: skip
    asked = {key: value if isinstance(value, (str, int, float)) else str(value) for key, value in request.items()}
    return Estimate(request=asked, model=facts, sections={"checkpoint": section}, assumptions=assumptions.all())


def checkpoint_values(request: dict[str, Any]) -> dict[str, float]:
    """Every quantity by its full name."""
    return {
        f"checkpoint.{name}": one.mid
        for name, one in checkpoint_estimate(request).sections["checkpoint"].quantities.items()
    }


def _said(found: Checkpoint) -> str:
    return ", ".join(f"{elements:,.0f} {name}" for name, (_, elements, _) in list(found.by_dtype().items())[:4])
