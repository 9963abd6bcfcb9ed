"""How a replica is laid out where the user does not say: the fewest devices that hold it."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators import feeding, layout
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
    fixed = {name: case.number(name, "1", 1.0, 4096.0, whole=True) for name in ("tp", "pp", "ep", "dp")}
    tp, pp, ep, dp = (fixed[name] for name in ("tp", "pp", "ep", "dp"))
    groups = case.number("attention_dp", "1", 1.0, 4096.0, whole=True) or 1.0
    # Beside training, devices and experts are dealt for that.
    alone = case.modes == ("serve",)
    devices = case.devices if alone else None
    ep = (ep if alone else None) or 1.0
    if tp is None and pp is None and devices is None:
        fewest = fewest_replica(case, model, workload, cluster, service)
        tp = max(fewest.tp if fewest else _most_tp(model, cluster), ep)
        pp = fewest.pp if fewest else 1.0
        if groups > 1.0:
            tp = max(tp // groups, 1.0)
    elif tp is None:
        if devices is not None:
            room = devices / ((pp or 1.0) * (dp or 1.0) * groups)
            tp = _most_tp(model, cluster, room)
            if pp is None:
                pp = _stages(case, model, workload, cluster, service, tp, room)
        else:
            tp = ep
    tp, pp = tp or 1.0, pp or 1.0
    replicas = dp or (max(devices // (tp * pp * groups), 1.0) if devices is not None else 1.0)
    plan = Plan(dp=replicas, tp=tp, pp=pp, ep=ep, attention_dp=groups)
    layout.check(model, replace(plan, ep=1.0), plan.devices)
    layout.check_experts(model, plan)
    if plan.tp * plan.attention_dp % plan.ep:
        raise InputError(
            f"ep={plan.ep:g} must divide tp={plan.tp:g} x attention_dp={plan.attention_dp:g}: a replica deals its experts "
            "over these ranks"
        )
    if devices is not None and plan.devices != devices:
        raise InputError(
            f"{devices:g} devices do not split into replicas of tp {tp:g} x pp {pp:g}"
            f"{f' x attention_dp {groups:g}' if groups > 1.0 else ''}; use a multiple of {tp * pp * groups:g} or give --tp and --pp"
        )
    if plan.tp > 1.0 and plan.tp > max(cluster.devices_per_node, 1) * 8:
        raise InputError(
            f"tensor parallelism {plan.tp:g} spans more than 8 nodes of {cluster.devices_per_node}; use --pp"
        )
    return plan


def _most_tp(model: ModelSpec, cluster: Cluster, room: float | None = None) -> float:
    most = float(cluster.devices_per_node) if room is None else min(room, float(cluster.devices_per_node))
    tp = 1.0
    while tp * 2.0 <= most and layout.divides_heads(model, tp * 2.0) and (room is None or room % (tp * 2.0) == 0.0):
        tp *= 2.0
    return tp


def fewest_replica(case: Case, model: ModelSpec, workload: Workload, cluster: Cluster, service: Service) -> Plan | None:
    """The smallest replica that holds the weights and one request, inside a node first, then over a pipeline."""
    for plan in _replicas(model, cluster):
        if room_of(case, model, workload, plan, cluster, service)[1].holds:
            return plan
    return None


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
    pp, most = 1.0, min(devices / tp, feeding.layer_count(model))
    while pp <= most and devices % (tp * pp) == 0.0:
        if room_of(case, model, workload, Plan(tp=tp, pp=pp), cluster, service)[1].holds:
            return pp
        pp *= 2.0
    return 1.0


def _replicas(model: ModelSpec, cluster: Cluster) -> Iterator[Plan]:
    tp = 1.0
    while tp <= cluster.devices_per_node:
        if layout.divides_heads(model, tp):
            yield Plan(tp=tp)
        tp *= 2.0
    tp, pp = _most_tp(model, cluster), 2.0
    while pp <= min(64.0, feeding.layer_count(model)):
        yield Plan(tp=tp, pp=pp)
        pp *= 2.0
