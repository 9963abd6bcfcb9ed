"""A plan cuts the op table: what one device does of each op."""

from __future__ import annotations

from capacity import ops
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan


def shard(op: Op, tp: float, ep: float = 1.0, *, sequence_parallel: bool = True) -> Op:
    """One device's share of an op under tensor and expert parallelism.

    Column-parallel maps keep n / tp outputs, row-parallel ones k / tp inputs, attention heads / tp (a KV head is
    copied rather than cut), experts are dealt out over ep; a latent KV cache stays whole on every device.
    """
    if not ops.anywhere((tp != 1.0) | (ep != 1.0)):
        return op
    if op.kind == "elementwise":
        cut = 1.0 if op.part in ("norm", "extra") and not sequence_parallel else tp
        return replace(op, elements=op.elements / cut)
    changes: dict[str, float] = {}
    if ops.anywhere(op.copies != 1.0):
        # Every rank receives as many rows as it sends when routing is even, so m stays.
        changes["copies"] = op.copies / ep
    if op.shard == "column":
        changes |= {"n": op.n / tp, "weight_elements": op.weight_elements / tp, "elements": op.elements / tp}
    elif op.shard == "row":
        changes |= {"k": op.k / tp, "weight_elements": op.weight_elements / tp}
    elif op.shard == "heads":
        kv_heads = ops.maximum(op.kv_heads / tp, 1.0)
        cut = 1.0 if op.latent or not ops.anywhere(op.kv_heads) else op.kv_heads / kv_heads
        changes |= {
            "heads": op.heads / tp,
            "kv_heads": op.kv_heads if op.latent else kv_heads,
            "cache_elements": op.cache_elements / cut,
            "groups": ops.maximum(op.groups / tp, 1.0),
        }
    return replace(op, **changes) if changes else op


def shard_training(op: Op, plan: Plan) -> Op:
    """One device's share of an op of a training layout.

    Context parallelism cuts tokens: rows of products, and of attention the sequences' queries (causal work is dealt
    evenly). Of experts that tensor parallelism cuts less than the rest (etp < tp), a device gets fewer rows of
    wider products: the same work.
    """
    etp = plan.expert_tp
    routed = ops.anywhere(op.copies != 1.0)
    cut = shard(op, etp if routed else plan.tp, plan.ep, sequence_parallel=plan.sequence_parallel)
    if routed and ops.anywhere(etp != plan.tp):
        cut = replace(cut, m=cut.m * etp / plan.tp)
    if not ops.anywhere(plan.cp != 1.0):
        return cut
    return replace(cut, m=cut.m / plan.cp, elements=cut.elements / plan.cp, sequences=cut.sequences / plan.cp)


def shard_replica(op: Op, plan: Plan) -> Op:
    """One device's share of an op in a replica that serves.

    Serving engines deal whole experts over all ranks of a stage; what these exceed ep by cuts each expert. Norms and
    residuals are not cut.
    """
    if ops.anywhere(op.copies != 1.0):
        return shard(op, plan.tp * plan.attention_dp / plan.ep, plan.ep)
    return shard(op, plan.tp, plan.ep, sequence_parallel=False)
