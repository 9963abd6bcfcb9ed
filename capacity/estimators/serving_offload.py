"""Weights, experts or caches of a server that its host keeps: what a step and a prompt wait for.

Engines that hand layers over (llama.cpp) let the host's cores compute what the host keeps; others stream it through the
link while the device computes.
"""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.assumptions import one_of
from capacity.estimators.replica_memory import step_table
from capacity.formula import scaled, sourced, total
from capacity.formulas import schedule, traffic
from capacity.laws.engine import load_engine
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.estimators.replica_memory import Room
    from capacity.laws.engine import Engine
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload

# What of a server the host can keep.
KEPT = ("weights", "experts", "cache")
# One direction of a device's link to its host, as it is reached: PCIe 4.0 x16; 3.0 in what came before 2020.
LINK_BYTES_PER_S, OLD_LINK_BYTES_PER_S, OLD_YEAR = 2.5e10, 1.2e10, 2020
# Memory of a host: two sockets of eight channels DDR5-4800; two channels of DDR5-5600 under a desk.
HOST_BYTES_PER_S, DESK_BYTES_PER_S = 6.1e11, 9e10
# Products in fp32 vectors of such hosts: 64 and 8 cores.
HOST_FLOP_PER_S, DESK_FLOP_PER_S = 9e12, 1.2e12
# A drive of today, where the catalogue knows none of the node.
DRIVE_BYTES_PER_S = 5e9
# A layer handed to the cores of a socket or two, and back (as published runs of experts beside a card show it).
HOST_LAYER_S = 7.3e-4
_DESK = ("consumer", "workstation", "laptop", "embedded", "phone")


class Offload(Record):
    """What the host keeps and how fast it is reached.

    weights: share of them, None for the least that makes the rest fit; experts, cache: whether these are kept there.
    computes: whether the host's cores compute what it keeps. link, memory, flop: rates of a device's link, of the host's memory
    (or drives) and of its products.
    """

    weights: float | None
    experts: bool
    cache: bool
    computes: bool
    link_bytes_per_s: float
    memory_bytes_per_s: float
    flop_per_s: float


def read_offload(case: Case, engine: Engine) -> Offload | None:
    """What the user wants the host to keep; None where nothing."""
    given = case.request.get("offload")
    if given in (None, "none") or case.modes != ("serve",):
        if "host_share" in case.request or "host_bandwidth" in case.request:
            raise InputError(
                "--host-share and --host-bandwidth are of --mode serve with --offload: say what the host keeps"
            )
        return None
    kept = tuple(one_of("--offload", word.strip(), KEPT) for word in str(given).split(","))
    desk = case.cluster.device.segment in _DESK
    take = case.assumptions.take
    memory = take(
        "memory of the host",
        case.number("host_bandwidth", "byte/s", 1e8, 1e14),
        DESK_BYTES_PER_S if desk else HOST_BYTES_PER_S,
        "byte/s",
        "two channels of DDR5-5600" if desk else "two sockets of eight channels DDR5-4800",
    )
    link = OLD_LINK_BYTES_PER_S if (case.cluster.device.year or OLD_YEAR) < OLD_YEAR else LINK_BYTES_PER_S
    if one_of("--offload-to", case.request.get("offload_to"), ("cpu", "nvme")) == "nvme":
        known = case.cluster.nvme_bytes_per_s
        drives = DRIVE_BYTES_PER_S if known is None else known
        link, memory = ops.minimum(link, drives), ops.minimum(memory, drives)
    share = case.number("host_share", "1", 0.0, 1.0)
    if share is not None and "weights" not in kept:
        raise InputError("--host-share is of weights, which the host does not keep: add --offload weights")
    return Offload(
        (share if "weights" in kept else 0.0),
        "experts" in kept,
        "cache" in kept,
        engine.splits_layers or "experts" in kept,
        link,
        memory,
        DESK_FLOP_PER_S if desk else HOST_FLOP_PER_S,
    )


def with_host(
    model: ModelSpec,
    workload: Workload,
    cluster: Cluster,
    room: Room,
    each: float,
    chunks: float,
    step: dict[str, float],
    prompt: dict[str, float],
    devices: float,
) -> tuple[dict[str, float], dict[str, float]]:
    """A step and a prompt of a replica whose host keeps what `room` says."""
    kept = room.offload
    assert kept is not None
    step, prompt = dict(step), dict(prompt)
    beside = ops.minimum(devices, cluster.devices_per_node * 1.0)
    memory = sourced(kept.memory_bytes_per_s / beside, "a device's share of the host's memory")
    link = sourced(kept.link_bytes_per_s, "link to the host")
    some = room.host_bytes > 0.0
    if ops.anywhere(some):
        share = room.host_bytes / room.weight_bytes
        if kept.computes:
            cores = load_engine("llama.cpp", "CPU").law
            read, layers = (
                scaled(room.host_bytes, _read_share(model, workload, each, experts=kept.experts)),
                feeding.layer_count(model),
            )
            if kept.experts:
                step.pop("experts", None)
                prompt.pop("experts", None)
            else:
                step = {part: scaled(value, 1.0 - share) for part, value in step.items()}
                layers = layers * share
            handed = sourced(HOST_LAYER_S, "handing a layer to the host's cores and back")
            mine = schedule.host_layers_s(read, memory, cores.bandwidth["gemm"], layers, handed)
            step["host"] = ops.where(some, mine, 0.0)
            mine = schedule.host_prompt_s(
                room.host_bytes, link, chunks, room.host_flop_per_token * workload.prompt_len,
                kept.flop_per_s / beside, cores.peak["gemm"],
            )  # fmt: skip
            prompt["host"] = ops.where(some, mine, 0.0)
        else:
            step["host link"] = schedule.link_wait_s(total(step), room.host_bytes, link)
            prompt["host link"] = scaled(schedule.link_wait_s(total(prompt) / chunks, room.host_bytes, link), chunks)
    if kept.cache:
        step.pop("attention and KV cache", None)
        held = each * (workload.prompt_len + 0.5 * workload.output_len) * room.host_token_bytes
        cores = load_engine("llama.cpp", "CPU").law
        step["host cache"] = schedule.host_layers_s(held, memory, cores.bandwidth["cache"], 0.0, 0.0)
    return step, prompt


def _read_share(model: ModelSpec, workload: Workload, tokens: float, *, experts: bool) -> float:
    """Share of what the host keeps that a step of `tokens` tokens reads: experts nobody chose are left."""
    read = held = 0.0
    for op in step_table(model, tokens, workload.prompt_len, workload.output_len):
        routed = ops.anywhere(op.copies != 1.0)
        if op.kind == "embedding" or (experts and not routed):
            continue
        weights = op.count * op.copies * op.weight_elements
        held = held + weights
        read = read + weights * (traffic.experts_touched(op.copies, op.active, tokens) / op.copies if routed else 1.0)
    return read / held if ops.anywhere(held) else 1.0
