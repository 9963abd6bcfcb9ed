"""Training steps on two processes: replicated (DDP) and sharded (FSDP2), started by torchrun."""

from __future__ import annotations

from capacity.measurement.case import FULL, Kernel
from capacity.measurement.ranks import Ranks, work_of_ranks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.measurement.case import Machine, Work


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    gpt = {"family": "gpt", "layers": 4, "width": 256, "vocabulary": 4096, "length": 128, "batch": 2}
    mlp = {"family": "mlp", "widths": [1024, 2048, 2048, 10], "batch": 128}
    for shape in (gpt, mlp):
        for way in ("alone", "ddp", "fsdp"):
            yield {**shape, "dtype": "fp32", "optimizer": "adamw-fused", "way": way, "ranks": machine.processes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    return work_of_ranks(
        Ranks("capacity.measurement.workloads.distributed", "rank_work", dict(parameters), parameters["ranks"], machine)
    )


def rank_work(parameters: Mapping[str, Any], device: str) -> Any:
    """One rank's step; "alone" is the same step without communication, on the same busy cores."""
    import resource

    import torch

    from capacity.measurement.workloads.models import network
    from capacity.measurement.workloads.training import optimizer_of

    module, (inputs, targets), loss_of = network(parameters, device)
    run: Any = module
    if parameters["way"] == "ddp":
        run = torch.nn.parallel.DistributedDataParallel(module)
    elif parameters["way"] == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device, (parameters["ranks"],))
        for block in getattr(module, "blocks", ()):
            fully_shard(block, mesh=mesh)
        run = fully_shard(module, mesh=mesh)
    optimizer = optimizer_of(parameters["optimizer"], run.parameters())
    held: dict[str, Any] = {}

    def forward() -> None:
        held["loss"] = loss_of(run(inputs), targets)

    def backward() -> None:
        held.pop("loss").backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def facts() -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"rank_peak_memory_bytes": int(torch.cuda.max_memory_allocated()) if device == "cuda" else peak}

    return (("forward", forward), ("backward", backward), ("optimizer", update)), facts


FAMILIES = (
    Kernel(
        "distributed",
        "training steps on two processes",
        _cases,
        _build,
        kind="training",
        processes=2,
        time_s=150.0,
        effort=3.0,
    ),
)
