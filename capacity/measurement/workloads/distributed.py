"""Training steps on two processes: replicated (DDP) and sharded (FSDP2), started by torchrun."""

from __future__ import annotations

from capacity.measurement import opaque
from capacity.measurement.case import FULL, Kernel, Work
from capacity.measurement.ranks import Ranks, work_of_ranks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from capacity.measurement.case import Machine


# DistributedDataParallel sums gradients in buckets, in the order backward makes them: a small one first.
FIRST_BUCKET_BYTES, BUCKET_BYTES = 2**20, 25 * 2**20


def _cases(profile: str, machine: Machine) -> Iterable[dict[str, Any]]:
    if profile != FULL:
        return
    gpt = {"family": "gpt", "layers": 4, "width": 256, "vocabulary": 4096, "length": 128, "batch": 2}
    mlp = {"family": "mlp", "widths": [1024, 2048, 2048, 10], "batch": 128}
    for shape in (gpt, mlp):
        for way in ("alone", "ddp", "fsdp"):
            yield {**shape, "dtype": "fp32", "optimizer": "adamw-fused", "way": way, "ranks": machine.processes}


def _build(parameters: Mapping[str, Any], machine: Machine) -> Work:
    if opaque.tracing():
        return _lowered(parameters)
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


def _lowered(parameters: Mapping[str, Any]) -> Work:
    """One rank's step as the calls it makes, with its collectives and the copies into and out of their buffers."""
    import torch

    from capacity.measurement.workloads.models import network
    from capacity.measurement.workloads.training import optimizer_of

    module, (inputs, targets), loss_of = network(parameters, "cpu")
    way, ranks = parameters["way"], parameters["ranks"]
    weights = list(module.parameters())
    parts = [list(block.parameters()) for block in getattr(module, "blocks", ())] if way == "fsdp" else []
    inside = {id(weight) for part in parts for weight in part}
    parts.append([weight for weight in weights if id(weight) not in inside])
    shards = [torch.nn.Parameter(torch.empty(-(-weight.numel() // ranks))) for weight in weights]
    optimizer = optimizer_of(parameters["optimizer"], shards if way == "fsdp" else weights)
    held: dict[str, Any] = {}

    def gather() -> None:
        for part in parts:
            flat = torch.empty(sum(weight.numel() for weight in part))
            opaque.collective("all-gather", flat.numel() * 4.0)
            for weight, piece in zip(part, flat.split([weight.numel() for weight in part]), strict=True):
                weight.data.view(-1).copy_(piece)

    def reduced(group: Sequence[Any], name: str) -> None:
        flat = torch.empty(sum(weight.numel() for weight in group))
        pieces = flat.split([weight.numel() for weight in group])
        for weight, piece in zip(group, pieces, strict=True):
            piece.copy_(weight.grad.view(-1))
        flat.div_(ranks)
        opaque.collective(name, flat.numel() * 4.0)
        if name == "all-reduce":
            for weight, piece in zip(group, pieces, strict=True):
                weight.grad.view(-1).copy_(piece)

    def forward() -> None:
        if way == "fsdp":
            gather()
        held["loss"] = loss_of(module(inputs), targets)

    def backward() -> None:
        if way == "fsdp":
            gather()
        held.pop("loss").backward()
        if way == "ddp":
            for group in _buckets(weights):
                reduced(group, "all-reduce")
        elif way == "fsdp":
            for part in parts:
                reduced(part, "reduce-scatter")
            for shard in shards:
                shard.grad = torch.empty_like(shard)

    def update() -> None:
        optimizer.step()
        for weight in weights:
            weight.grad = None
        optimizer.zero_grad(set_to_none=True)

    return Work(phases=(("forward", forward), ("backward", backward), ("optimizer", update)))


def _buckets(weights: Sequence[Any]) -> list[list[Any]]:
    """Weights whose gradients are summed together."""
    groups: list[list[Any]] = [[]]
    size, most = 0, FIRST_BUCKET_BYTES
    for weight in reversed(weights):
        groups[-1].append(weight)
        size += weight.numel() * 4
        if size >= most:
            groups.append([])
            size, most = 0, BUCKET_BYTES
    return [group for group in groups if group]


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
