"""A sensible parallel layout where the user gave none, and the checks every layout must pass."""

from __future__ import annotations

from math import inf, nan

from capacity import ops
from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.refusal import first, refuse
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_habits import habits_of
from capacity.estimators.training_memory import training_memory
from capacity.record import replace
from capacity.spec.model import Attention
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    from capacity.estimators.refusal import Message
    from capacity.estimators.training_weights import Weights
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload

# A plan that fills memory to the last byte dies of fragmentation.
USABLE_SHARE = 0.94
# Where the search for the fewest devices that hold a run ends.
MOST_DEVICES = 65536.0


def attention_heads(model: ModelSpec) -> tuple[float, ...]:
    """Head counts of the attention layers that tensor parallelism has to divide."""
    heads = [
        layer.heads for block in feeding.layers(model) for layer in block.sublayers if isinstance(layer, Attention)
    ]
    if any(ops.is_column(each) for each in heads):
        return tuple({id(each): each for each in heads}.values())
    return tuple(sorted(set(heads)))


def expert_count(model: ModelSpec) -> float:
    """Routed experts of the layer that has fewest, 0 for a dense model."""
    counts = [
        layer.experts
        for block in model.blocks
        if block.stack == "decoder"
        for layer in block.sublayers
        if hasattr(layer, "experts")
    ]
    return min(counts, default=0.0)


def divides_heads(model: ModelSpec, tp: float) -> bool:
    """Whether tensor parallelism of this degree cuts whole heads."""
    whole: bool = True
    for heads in attention_heads(model):
        whole = whole & (heads % tp == 0.0)
    return whole


def check_heads(model: ModelSpec, tp: float) -> None:
    """Refuse, in one line, a tensor parallelism that would cut a head."""

    def message(row: Callable[[Any], Any]) -> str:
        counts = [row(heads) for heads in attention_heads(model)]
        legal = [str(degree) for degree in (1, 2, 4, 8, 16) if not any(heads % degree for heads in counts)]
        return (
            f"tensor parallelism {row(tp):g} does not divide the {'/'.join(f'{heads:g}' for heads in counts)} attention "
            f"heads of {row(model.name)}; use {', '.join(legal)}"
        )

    refuse(divides_heads(model, tp) == False, message)  # noqa: E712 - a column has no `not`


def check_experts(model: ModelSpec, plan: Plan) -> None:
    """Refuse, in one line, an expert parallelism that would cut an expert."""
    experts, ep = expert_count(model), plan.ep
    refuse(
        (ep != 1.0) & (experts == 0.0),
        lambda row: f"{row(model.name)} has no experts to spread over ep={row(ep):g}; leave --ep out",
    )
    refuse(
        (ep != 1.0) & (experts % ep != 0.0),
        lambda row: f"ep={row(ep):g} does not divide the {row(experts):g} experts of {row(model.name)}",
    )


def check(model: ModelSpec, plan: Plan, devices: float) -> None:
    """Refuse, in one line, a layout that cannot exist."""
    check_heads(model, plan.tp)
    layers = feeding.layer_count(model)
    dp, tp, pp, cp, ep, etp = plan.dp, plan.tp, plan.pp, plan.cp, plan.ep, plan.expert_tp
    refuse(
        pp > layers,
        lambda row: (
            f"{row(pp):g} pipeline stages are more than the {row(layers):g} layers of {row(model.name)}; use fewer"
        ),
    )
    # Embedding and head may be chunks of their own.
    refuse(
        pp * plan.interleave > layers + ops.where(pp > 1.0, 2.0, 0.0),
        lambda row: (
            f"{row(pp):g} stages of {row(plan.interleave):g} chunks are more than the {row(layers):g} layers of "
            f"{row(model.name)}"
        ),
    )
    refuse(
        (pp % 2.0 != 0.0) & (plan.schedule == "dualpipe"),
        lambda row: f"the dualpipe schedule pairs stages, so pp={row(pp):g} must be even",
    )
    check_experts(model, plan)
    spread = plan.ranks * (tp / etp)
    refuse(
        spread % ep != 0.0,
        lambda row: f"ep={row(ep):g} must divide the {row(spread):g} ranks that experts are dealt over",
    )
    refuse(
        tp % etp != 0.0,
        lambda row: f"etp={row(etp):g} must divide tp={row(tp):g}: an expert is cut over some of its ranks",
    )
    refuse(
        plan.ranks % plan.replicas != 0.0,
        lambda row: f"replicas={row(plan.replicas):g} must divide the {row(plan.ranks):g} data-parallel ranks",
    )
    refuse(
        plan.devices != devices,
        lambda row: (
            f"dp {row(dp):g} x tp {row(tp):g} x pp {row(pp):g}{f' x cp {row(cp):g}' if row(cp) > 1.0 else ''} = "
            f"{row(plan.devices):g} devices, but there are {row(devices):g}; give two of them, or a product that matches"
        ),
    )


def usual_chunks(model: ModelSpec, stages: float, micro_batches: float) -> float:
    """Chunks a stage interleaves where nobody says: as few as keep the bubble below a twentieth, of whole layers.

    Interleaving needs micro-batches in whole rounds of the stages, and chunks that leave the fullest stage no fuller;
    published recipes of large models give a chunk two layers or more.
    """
    chunks = 1.0
    layers = feeding.layer_count(model)
    fullest = ops.ceil(layers / stages)
    some = (stages > 1.0) & (micro_batches % stages == 0.0)
    more = 2.0
    while ops.anywhere(some := some & ((stages - 1.0) / chunks > 0.05 * micro_batches) & (2.0 * more <= fullest)):
        chunks = ops.where(some & (ops.ceil(layers / (stages * more)) * more == fullest), more, chunks)
        more += 1.0
    return chunks


def fits(parts: dict[str, float], cluster: Cluster) -> bool:
    """Whether memory parts fit a device with the usual head-room."""
    return sum(parts.values()) <= USABLE_SHARE * cluster.device.open_bytes


# Parts of a step that are work; the rest is waiting for other devices or for launches.
_WORK = (
    "GEMM",
    "expert products",
    "attention",
    "casts",
    "element-wise",
    "head and loss",
    "optimizer",
    "gradient accumulation",
)
# A layout that loses no more than this of its step is taken at once; otherwise others are priced, up to so many.
_GOOD_ENOUGH = 0.2
MOST_PRICED = 120
# A layout replaces the best so far where its step takes clearly less.
CLEARLY = 0.99


def choose_training_plan(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    cluster: Cluster,
    given: dict[str, Any],
    context_bytes: float,
    devices: float,
    price: Callable[[Plan], dict[str, float]],
) -> tuple[Plan, bool]:
    """A fast layout among those that fit, searched from the least cut to the most.

    given: what the user fixed (dp, tp, pp, ep, zero, micro_batch, recompute, interleave); price: a step's parts.
    Returns the plan and whether it fits; where none does, the thriftiest.
    """
    stated = stated_plan(model, workload, given, devices)
    if stated is not None:
        held = training_memory(model, weights, workload, stated, rounds_of(workload, stated), context_bytes)
        return stated, fits(held, cluster)
    best = thriftiest = None
    best_s = least = inf
    priced = 0
    for plan, _ in candidates(model, workload, cluster, given, devices):
        held = training_memory(model, weights, workload, plan, rounds_of(workload, plan), context_bytes)
        if sum(held.values()) < least:
            thriftiest, least = plan, sum(held.values())
        if not fits(held, cluster):
            continue
        wide = widen(model, weights, workload, cluster, plan, given, context_bytes)
        parts = price(wide)
        step = sum(parts.values())
        if step < best_s * CLEARLY:
            best, best_s = wide, step
        priced += 1
        if good_enough(parts, step) or priced == MOST_PRICED:
            break
    if thriftiest is None:
        raise InputError(illegal(model, given, devices)(first))
    return (best, True) if best is not None else (thriftiest, False)


def good_enough(parts: dict[str, Any], step: Any) -> Any:
    """Whether so much of a step is work that no other layout need be priced."""
    return sum(parts.get(name, 0.0) for name in _WORK) >= (1.0 - _GOOD_ENOUGH) * step


def illegal(model: ModelSpec, given: dict[str, Any], devices: float) -> Message:
    """What to say where no layout of what the user fixed is legal."""

    def message(row: Callable[[Any], Any]) -> str:
        numbers = {name: row(value) for name, value in given.items()}
        fixed = ", ".join(f"{name} {value:g}" for name, value in numbers.items() if isinstance(value, float))
        return (
            f"no layout of {row(devices):g} devices with {fixed or 'these settings'} is legal for {row(model.name)}: "
            "dp x tp x pp must equal the devices, and dp may not exceed the batch"
        )

    return message


# Of a layout that are taken over as they are given.
_KEPT = ("etp", "replicas", "schedule", "cp_kind", "offload", "offload_to", "recompute_share", "rebuilt")


def leaves_nothing_open(model: ModelSpec, given: Collection[str]) -> bool:
    """Whether what the user named of a layout makes it the only one."""
    named = {"tp", "pp", "micro_batch", "recompute", "zero"}.issubset(given)
    return named and ("ep" in given or not ops.anywhere(expert_count(model) > 0.0))


def stated_plan(model: ModelSpec, workload: Workload, given: dict[str, Any], devices: float) -> Plan | None:
    """The layout of a user who left nothing open, or of columns of such; None where something is to be chosen.

    Refuses what is not legal.
    """
    if not leaves_nothing_open(model, given):
        return None
    tp, pp, cp, micro_batch = given["tp"], given["pp"], given.get("cp", 1.0), given["micro_batch"]
    dp = devices / (tp * pp * cp)
    refuse(
        (devices % (tp * pp * cp) != 0.0)
        | (given.get("dp", dp) * tp * pp * cp != devices)
        | (dp * micro_batch > ops.maximum(workload.global_batch, 1.0)),
        illegal(model, given, devices),
    )
    chunks = given.get("interleave")
    return Plan(
        dp=dp,
        tp=tp,
        pp=pp,
        ep=given.get("ep", 1.0),
        zero=given["zero"] if ops.is_column(given["zero"]) else int(given["zero"]),
        interleave=usual_chunks(model, pp, _micro_batches(workload, dp, given)) if chunks is None else chunks,
        micro_batch=micro_batch,
        recompute=str(given["recompute"]),
        cp=cp,
        **{name: given[name] for name in _KEPT if name in given},
    )


def _micro_batches(workload: Workload, dp: float, given: dict[str, Any]) -> float:
    return ops.maximum(workload.global_batch / (dp * given.get("micro_batch", 1.0)), 1.0)


def rounds_of(workload: Workload, plan: Plan) -> float:
    """Micro-batches of a step, one at least."""
    return ops.maximum(workload.global_batch / (plan.dp * plan.micro_batch), 1.0)


def candidates(
    model: ModelSpec, workload: Workload, cluster: Cluster, given: dict[str, Any], devices: float
) -> Iterator[tuple[Plan, Any]]:
    """Layouts in order of preference, each with whether it is legal; of columns of cases, with the rows it is legal in."""
    node = cluster.devices_per_node
    layers = feeding.layer_count(model)
    experts = expert_count(model)
    cp, micro_batch = given.get("cp", 1.0), given.get("micro_batch", 1.0)
    kept = {name: given[name] for name in _KEPT if name in given}
    tps = [given["tp"]] if "tp" in given else _powers(node)
    pps = [given["pp"]] if "pp" in given else _powers(64.0)
    grids = [(tp, pp) for tp in tps for pp in pps]
    if len(tps) > 1 and len(pps) > 1:
        # Fewest ways of cutting first; a pipeline only once the node is used up.
        grids.sort(key=lambda grid: (grid[0] * grid[1], grid[1]))
    recomputes = [given["recompute"]] if "recompute" in given else ["none", "selective", "full"]
    eps = [given["ep"]] if "ep" in given else [1.0, 8.0, 32.0, 64.0] if ops.anywhere(experts > 0.0) else [1.0]
    for recompute in recomputes:
        for tp, pp in grids:
            dp = devices / (tp * pp * cp)
            legal = (
                (devices % (tp * pp * cp) == 0.0)
                & (given.get("dp", dp) * tp * pp * cp == devices)
                & (dp * micro_batch <= ops.maximum(workload.global_batch, 1.0))
            )
            if "tp" not in given:
                legal = legal & (tp <= node) & divides_heads(model, tp)
            if "pp" not in given:
                legal = legal & ((pp == 1.0) | (layers / pp >= 2.0))
            if not ops.anywhere(legal):
                continue
            chunks = given.get("interleave")
            if chunks is None:
                chunks = usual_chunks(model, pp, _micro_batches(workload, dp, given))
            for zero in [given["zero"]] if "zero" in given else [1, 3]:
                whole = "zero" in given or zero == 1 or (pp == 1.0) & (dp * cp > 1.0)
                for ep in eps:
                    dealt = "ep" in given or ep == 1.0 or (experts % ep == 0.0) & (dp % ep == 0.0)
                    here = legal & whole & dealt
                    if not ops.anywhere(here):
                        continue
                    plan = Plan(
                        dp=dp,
                        tp=tp,
                        pp=pp,
                        ep=ep,
                        zero=zero if ops.is_column(zero) else int(zero),
                        interleave=chunks,
                        micro_batch=micro_batch,
                        recompute=str(recompute),
                        cp=cp,
                        **kept,
                    )
                    yield plan, here


def _powers(most: float) -> list[float]:
    powers = [1.0]
    while ops.anywhere(powers[-1] * 2.0 <= most):
        powers.append(powers[-1] * 2.0)
    return powers


def widen(
    model: ModelSpec,
    weights: Weights,
    workload: Workload,
    cluster: Cluster,
    plan: Plan,
    given: dict[str, Any],
    context_bytes: float,
) -> Plan:
    """Larger micro-batches while they fit: fewer, larger kernels; up to 16,384 tokens."""
    if "micro_batch" in given:
        return plan
    least = ops.where(plan.pp > 1.0, 4.0 * plan.pp, 1.0)
    wider: Any = True
    while True:
        larger = replace(plan, micro_batch=plan.micro_batch * 2.0)
        rounds = workload.global_batch / (larger.dp * larger.micro_batch)
        enough = (rounds >= least) & (rounds == ops.floor(rounds))
        wider = wider & enough & (larger.micro_batch * workload.seq_len <= 16384.0)
        if not ops.anywhere(wider):
            return plan
        wider = wider & fits(training_memory(model, weights, workload, larger, rounds, context_bytes), cluster)
        plan = replace(plan, micro_batch=ops.where(wider, larger.micro_batch, plan.micro_batch))


def fewest_training_devices(
    model: ModelSpec, weights: Weights, workload: Workload, cluster: Cluster, context_bytes: float
) -> float | None:
    """The smallest power of two of devices on which some layout holds the training states and one micro-batch.

    None, of a column NaN, where none does.
    """
    fewest, devices, tp = inf, 1.0, 1.0
    activations = None
    while devices <= MOST_DEVICES and ops.anywhere(wanted := fewest == inf):
        # As much tensor parallelism as the node and the heads allow holds most.
        if ops.anywhere(more := (devices <= cluster.devices_per_node) & divides_heads(model, devices)):
            tp, activations = ops.where(more, devices, tp), None
        dp = devices / tp
        zero: Any = ops.where(dp > 1.0, 3, 1)
        plan = Plan(dp=dp, tp=tp, zero=zero, recompute="full")
        # Activations of a micro-batch do not know how many others there are.
        activations = activations or block_activations(model, workload, plan, habits=habits_of(workload.stack))
        held = training_memory(model, weights, workload, plan, 1.0, context_bytes, activations=activations)
        fewest = ops.where(wanted & fits(held, cluster), devices, fewest)
        devices *= 2.0
    if ops.is_column(fewest):
        return ops.where(fewest < inf, fewest, nan)
    return fewest if fewest < inf else None
