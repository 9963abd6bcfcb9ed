"""Collectives of torch.distributed among ranks started by torchrun: gloo on processors, NCCL on GPUs."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.ranks import Ranks, work_of_ranks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine

# Sizes that are measured and never fitted on: what the law of a collective is held against.
HELD_KIB = (1024,)
OPS = ("all-reduce", "all-gather", "reduce-scatter", "broadcast", "all-to-all")


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        yield {"op": "all-reduce", "ranks": machine.processes, "KiB": 1024}
        return
    for op in OPS:
        for kibibytes in (4, 64, 1024, 4096, 16384) if op == "all-reduce" else (64, 1024, 4096):
            yield {"op": op, "ranks": machine.processes, "KiB": kibibytes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    if opaque.tracing():
        return Work(run=lambda: opaque.collective(parameters["op"], parameters["KiB"] * 1024.0))
    ranks = Ranks(
        "capacity.measurement.kernels.collective", "rank_work", dict(parameters), parameters["ranks"], machine
    )
    return work_of_ranks(ranks, moved_bytes=parameters["KiB"] * 1024.0)


def rank_work(parameters: Mapping[str, Any], device: str) -> Any:
    """What one rank runs: a call of the collective on its share."""
    import torch
    import torch.distributed as dist

    world = dist.get_world_size()
    elements = int(parameters["KiB"] * 1024 // 4) // world * world
    whole = torch.ones(elements, device=device)
    part = torch.ones(elements // world, device=device)
    target = torch.empty_like(whole)
    calls = {
        "all-reduce": lambda: dist.all_reduce(whole.fill_(1.0)),
        "all-gather": lambda: dist.all_gather_into_tensor(target, part),
        "reduce-scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
        "all-to-all": lambda: dist.all_to_all_single(target, whole),
    }
    return calls[parameters["op"]], {}


FAMILIES = (Kernel("collective", "collectives among ranks of torchrun", _cases, _build, processes=2, time_s=120.0),)
