"""Work of a model's blocks on one micro-batch, in seconds at the pace of the kernel laws, by kind of kernel."""

from __future__ import annotations

from capacity import ops
from capacity.estimators.pricing import label
from capacity.estimators.sharding import shard_training
from capacity.formula import scaled, total
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.pricing import Pricer
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan
    from capacity.spec.workload import Workload

# A fused attention backward pass recomputes the scores: 5 products for the forward pass's 2.
ATTENTION_BACKWARD = 2.5 * 1.15
# Element-wise work of the backward pass against the forward pass's, in bytes.
ELEMENTWISE_BACKWARD = 1.9
# Kernels of a block that are neither products nor attention, in one pass.
SMALL_KERNELS = 25.0
# Attention that writes its scores out: bytes an element of scores for scaling, mask, softmax and dropout, each way.
SCORE_BYTES_FORWARD, SCORE_BYTES_BACKWARD = 7.0, 12.0
# Batched products whose inner side is no multiple of 8 leave the tensor cores' fast path.
UNALIGNED_SHARE = 0.12
# Formats whose operands are cast from 16 bits.
NARROW = ("fp8", "fp4", "int8")
# Rows a grouped product is padded by for each expert: half a tile.
EXPERT_PADDING = 64.0
# Bytes moved to cast an operand of a narrow product: read in 16 bits, written narrow, and transposed for the backward pass.
CAST_BYTES = 4.0
# Experts with biases leave the fused path: biases are added, values clamped and gated in passes of their own (GPT-OSS).
UNFUSED_EXPERTS = 3.0
# Kinds of kernels, each with a pace of its own.
KINDS = ("gemm", "expert", "cast", "attention", "scores", "elementwise")


def block_work(
    table: tuple[Op, ...], workload: Workload, plan: Plan, pricer: Pricer, *, fused: bool
) -> dict[str, float]:
    """Work of all blocks by kind, forward and backward."""
    frozen = workload.mode == "lora"
    narrow, packed = pricer.dtype in NARROW, pricer.group_bytes("")
    width = workload.precision.activation_bits / 8.0
    forward: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    backward: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    launches: dict[str, float] = {}
    biased = any(op.part == "expert" and op.kind == "gemm" and op.weight_elements > op.n * op.k for op in table)
    for whole in table:
        if whole.part in ("embedding", "head") or not ops.anywhere(whole.m != 0.0):
            continue
        op = shard_training(whole, plan)
        count = whole.count
        if op.kind == "gemm":
            # An expert alone on its device is a product like any other.
            routed = op.copies != 1.0
            rows = ops.where(routed, op.m + EXPERT_PADDING * op.copies, op.m)
            one_way = scaled(pricer.gemm_s(op, rows, op.n, op.k), count)
            inputs = pricer.gemm_s(op, rows, op.k, op.n)
            grads = {"inputs": inputs}
            if not frozen:
                deep = ops.where(routed, rows / op.copies, rows)
                grads["weights"] = pricer.gemm_s(op, op.k * op.copies, op.n, deep)
            back = scaled(total(grads), count)
            for kind, here in (("gemm", op.copies == 1.0), ("expert", routed)):
                if ops.anywhere(here):
                    name = label(op, forward[kind])
                    forward[kind][name] = ops.where(here, one_way, 0.0)
                    backward[kind][name] = ops.where(here, back, 0.0)
            if packed < width:
                # A quantised base: packed weights are read, unpacked ones written and read, in each pass.
                unpack = pricer.memory_s(op.copies * op.n * op.k * (packed + 2.0 * width), 1.0)
                forward["cast"][name] = scaled(unpack, count)
                backward["cast"][name] = scaled(unpack, count)
            elif narrow and op.group not in pricer.wide:
                cast = pricer.memory_s(op.m * op.k * CAST_BYTES, 0.0)
                forward["cast"][name] = scaled(cast, count)
                backward["cast"][name] = scaled(pricer.memory_s(op.m * op.n * CAST_BYTES, 0.0), count)
        elif op.kind == "attention" and not fused and ops.anywhere(op.key_size == op.value_size):
            _unfused(op, count, pricer, forward, backward)
        elif op.kind in ("attention", "scan"):
            name = label(op, forward["attention"])
            each = pricer.attention_s(op) if op.kind == "attention" else pricer.scan_s(op)
            forward["attention"][name] = scaled(each, count)
            backward["attention"][name] = scaled(each, count * ATTENTION_BACKWARD)
        elif op.kind in ("elementwise", "conv"):
            name = label(op, forward["elementwise"])
            effort = UNFUSED_EXPERTS if biased and op.part == "expert" else 1.0
            each = pricer.memory_s(op.elements * width, 0.0, effort)
            forward["elementwise"][name] = scaled(each, count)
            backward["elementwise"][name] = scaled(each, count * ELEMENTWISE_BACKWARD)
            launches[name] = scaled(pricer.memory_s(0.0, SMALL_KERNELS / 3.0), count)
    return (
        {f"{kind}_forward": total(terms) for kind, terms in forward.items()}
        | {f"{kind}_backward": total(terms) for kind, terms in backward.items()}
        | {"launches": total(launches)}
    )


def _unfused(
    op: Op, count: float, pricer: Pricer, forward: dict[str, dict[str, float]], backward: dict[str, dict[str, float]]
) -> None:
    """Attention as two batched products and passes over the scores between them; a causal mask saves nothing."""
    matrices = op.sequences * op.heads
    rows = matrices * op.queries
    batched = replace(op, copies=matrices, group="")
    each = total(
        {
            "scores": pricer.gemm_s(batched, rows, op.keys, op.key_size),
            "values": pricer.gemm_s(batched, rows, op.value_size, op.keys),
        }
    )
    if ops.anywhere(op.key_size % 8.0 != 0.0):
        each = ops.where(op.key_size % 8.0 != 0.0, scaled(each, 1.0 / UNALIGNED_SHARE), each)
    name = label(op, forward["gemm"])
    forward["gemm"][name] = scaled(each, count)
    backward["gemm"][name] = scaled(each, 2.0 * count)
    elements = rows * op.keys
    forward["scores"][name] = scaled(pricer.memory_s(elements * SCORE_BYTES_FORWARD, 4.0), count)
    backward["scores"][name] = scaled(pricer.memory_s(elements * SCORE_BYTES_BACKWARD, 4.0), count)
