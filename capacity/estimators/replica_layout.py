"""How a replica is laid out where the user does not say: the fewest devices that hold it."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding, layout
from capacity.estimators.refusal import refuse
from capacity.estimators.replica_memory import room_of
from capacity.record import replace
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.estimators.case import Case
    from capacity.estimators.serving_case import Service
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload


def replica_plan(case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, service: Service) -> Plan:
    """The user's layout, or the fewest devices (a power of two) that hold weights and the asked-for requests."""
    tp, pp, ep, dp, groups = (
        case.number(name, "1", 1.0, 4096.0, whole=True) for name in ("tp", "pp", "ep", "dp", "attention_dp")
    )
    groups = 1.0 if groups is None else groups
    # Beside training, devices and experts are dealt for that.
    alone = case.modes == ("serve",)
    devices = case.devices if alone else None
    ep = ep if alone and ep is not None else 1.0
    if tp is None and pp is None and devices is None:
        fewest, _ = fewest_replica(case, model, workload, cluster, service)
        tp = ops.maximum(ops.maximum(fewest.tp, ep) // groups, 1.0)
        pp = fewest.pp
    elif tp is None and devices is not None:
        room = devices / ((1.0 if pp is None else pp) * (1.0 if dp is None else dp) * groups)
        tp = _most_tp(model, cluster, room)
        if pp is None:
            pp = _stages(case, model, workload, cluster, service, tp, room)
    elif tp is None:
        tp = ep
    pp = 1.0 if pp is None else pp
    replicas = dp
    if replicas is None:
        replicas = 1.0 if devices is None else ops.maximum(devices // (tp * pp * groups), 1.0)
    plan = Plan(dp=replicas, tp=tp, pp=pp, ep=ep, attention_dp=groups)
    layout.check(model, replace(plan, ep=1.0), plan.devices)
    layout.check_experts(model, plan)
    refuse(
        plan.tp * plan.attention_dp % plan.ep != 0.0,
        lambda row: (
            f"ep={row(ep):g} must divide tp={row(tp):g} x attention_dp={row(groups):g}: a replica deals its experts "
            "over these ranks"
        ),
    )
    if devices is not None:
        refuse(
            plan.devices != devices,
            lambda row: (
                f"{row(devices):g} devices do not split into replicas of tp {row(tp):g} x pp {row(pp):g}"
                f"{f' x attention_dp {row(groups):g}' if row(groups) > 1.0 else ''}; use a multiple of "
                f"{row(tp) * row(pp) * row(groups):g} or give --tp and --pp"
            ),
        )
    node = cluster.devices_per_node
    refuse(
        (plan.tp > 1.0) & (plan.tp > ops.maximum(node, 1) * 8),
        lambda row: f"tensor parallelism {row(tp):g} spans more than 8 nodes of {row(node):g}; use --pp",
    )
    return plan


def _most_tp(model: ModelSpec, cluster: Cluster, room: float | None = None) -> float:
    """The most tensor parallelism inside a node, a power of two that cuts whole heads (and divides the room there is)."""
    most = cluster.devices_per_node * 1.0
    if room is not None:
        most = ops.minimum(room, most)
    tp, degree, more = 1.0, 2.0, True
    while True:
        more = more & (degree <= most) & layout.divides_heads(model, degree)
        if room is not None:
            more = more & (room % degree == 0.0)
        if not ops.anywhere(more):
            return tp
        tp = ops.where(more, degree, tp)
        degree *= 2.0


def fewest_replica(
    case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, service: Service
) -> tuple[Plan, bool]:
    """The smallest replica that holds the weights and one request, inside a node first, then over a pipeline.

    Where none does, the most tensor parallelism of a node. Returns the plan and whether it holds them.
    """
    tp, pp = _most_tp(model, cluster), 1.0
    held: bool = False
    for plan, legal in _replicas(model, cluster):
        here = legal & (held == False)  # noqa: E712 - a column has no `not`
        if not ops.anywhere(here):
            continue
        here = here & room_of(case, model, workload, plan, cluster, service)[1].holds
        tp, pp, held = ops.where(here, plan.tp, tp), ops.where(here, plan.pp, pp), held | here
        if ops.everywhere(held):
            break
    return Plan(tp=tp, pp=pp), held


def _stages(
    case: Case,
    model: ModelSpec,
    workload: Workload,
    cluster: Cluster,
    service: Service,
    tp: float,
    devices: float,
) -> float:
    """Fewest pipeline stages, a power of two, that hold the weights and one request on these devices; else 1."""
    most = ops.minimum(devices / tp, feeding.layer_count(model))
    found = stages = 1.0
    more: bool = True
    while ops.anywhere(more := more & (stages <= most) & (devices % (tp * stages) == 0.0)):
        holds = room_of(case, model, workload, Plan(tp=tp, pp=stages), cluster, service)[1].holds
        found = ops.where(more & holds, stages, found)
        more = more & (holds == False)  # noqa: E712 - a column has no `not`
        stages *= 2.0
    return found


def _replicas(model: ModelSpec, cluster: Cluster) -> Iterator[tuple[Plan, bool]]:
    """Replicas to try, the smallest first, and where each is legal."""
    tp = 1.0
    while ops.anywhere(tp <= cluster.devices_per_node):
        yield Plan(tp=tp), (tp <= cluster.devices_per_node) & layout.divides_heads(model, tp)
        tp *= 2.0
    tp, pp = _most_tp(model, cluster), 2.0
    most = ops.minimum(64.0, feeding.layer_count(model))
    while ops.anywhere(pp <= most):
        yield Plan(tp=tp, pp=pp), pp <= most
        pp *= 2.0
