"""Parameters of a model by where they live when it is trained, and what an optimizer keeps of each."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.formulas import schedule
from capacity.record import Record
from capacity.spec.model import Experts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import Linear, ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# Bytes of optimizer state per trained weight, beside the master copy.
OPTIMIZER_STATE_BYTES = {
    "sgd": 0.0,
    "momentum": 4.0,
    "adamw": 8.0,
    "adamw-bf16": 4.0,
    "adamw-8bit": 2.0,
    "adafactor": 0.02,
    "muon": 4.0,
    "shampoo": 24.0,  # moments, and two preconditioners of a square matrix with their roots
    "lion": 4.0,
}


class Weights(Record):
    """Parameters by where they live, before any sharding: blocks (dense and routed), tables, head."""

    dense: float
    experts: float
    embedding: float
    head: float
    vectors: float

    @property
    def all(self) -> float:
        """Every parameter."""
        return self.dense + self.experts + self.embedding + self.head + self.vectors


def weights_of(table: tuple[Op, ...]) -> Weights:
    """Sort the parameters of an op table."""
    sums = dict.fromkeys(("dense", "experts", "embedding", "head", "vectors"), 0.0)
    for op in table:
        elements = op.count * op.copies * op.weight_elements
        if op.kind == "embedding":
            place = "embedding"
        elif op.part == "head":
            place = "head"
        elif ops.anywhere(op.copies != 1.0):
            place = "experts"
        else:
            place = "dense" if op.shard in ("column", "row") else "vectors"
        sums[place] += elements
    return Weights(**sums)


def held_share(model: ModelSpec, plan: Plan, stage: str) -> float:
    """Share of the model's layers on the "first", a "middle" or the "last" stage: whole layers, fewest on the last."""
    layers = feeding.layer_count(model)
    fullest = schedule.fullest_stage_layers(layers, plan.pp, plan.interleave)
    if stage != "last":
        return fullest / layers
    return ops.maximum(fullest - schedule.spare_layers(layers, plan.pp, plan.interleave), 0.0) / layers


def leading_layers(model: ModelSpec) -> float:
    """Layers without routed experts before all those that have them; 0 where they are not apart so."""
    routed = [any(isinstance(layer, Experts) for layer in block.sublayers) for block in feeding.layers(model)]
    if True not in routed or not all(routed[routed.index(True) :]):
        return 0.0
    return sum(block.count for block in feeding.layers(model)[: routed.index(True)])


def held_expert_share(model: ModelSpec, plan: Plan, stage: str, share: float) -> float:
    """Share of the layers with routed experts on a stage that holds `share` of all: the first has those without."""
    layers, leading = feeding.layer_count(model), leading_layers(model)
    if not leading:
        return share
    held = share * layers
    if stage == "first":
        held = held - ops.minimum(leading, held / plan.interleave)
    return ops.where(plan.pp > 1.0, ops.minimum(held / (layers - leading), 1.0), 1.0)


def local_elements(
    weights: Weights, plan: Plan, stage: str, share: float | None = None, expert_share: float | None = None
) -> tuple[float, float]:
    """Dense and expert parameters of one device on the "first", a "middle" or the "last" stage, before ZeRO.

    share, expert_share: of all layers, and of those with experts, that the stage holds (None: all stages hold as many).
    """
    etp = plan.expert_tp
    share = 1.0 / plan.pp if share is None else share
    dense = (weights.dense / plan.tp + weights.vectors) * share
    experts = weights.experts / (etp * plan.ep) * (share if expert_share is None else expert_share)
    alone = plan.pp == 1.0
    dense = dense + ops.where(alone | (stage == "first"), weights.embedding, 0.0) / plan.tp
    # A tied head is a copy of the embedding where the two sit on different stages.
    head = ops.where(weights.head > 0.0, weights.head, ops.where(alone, 0.0, weights.embedding))
    return dense + ops.where(alone | (stage == "last"), head, 0.0) / plan.tp, experts


def adapted(linear: Linear, workload: Workload) -> bool:
    """Whether a linear map of a block has a low-rank adapter beside it."""
    return not workload.lora_targets or linear.name in workload.lora_targets


def lora_elements(model: ModelSpec, workload: Workload, plan: Plan) -> float:
    """Parameters of low-rank adapters on one device; routed experts have none."""
    elements = 0.0
    for block in model.blocks:
        for sublayer in block.sublayers:
            if isinstance(sublayer, Experts):
                continue
            for linear in sublayer.projections:
                if adapted(linear, workload):
                    elements += block.count * workload.lora_rank * (linear.in_features + linear.out_features)
    return elements / (plan.tp * plan.pp)
