"""A published training run, as a row of a table: what is given is used, what is missing is inferred and said."""

from __future__ import annotations

import re
from math import inf

from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.layout import attention_heads, usual_chunks
from capacity.estimators.lowering import lower
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_weights import weights_of
from capacity.record import Record, replace
from capacity.spec.model import Experts
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload
from capacity.validation.row_measured import measured
from capacity.validation.row_models import model_of
from capacity.validation.row_words import dtype_of, kind_of, rig_of, stack_of, wired
from capacity.validation.tables import number, positive, publisher, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec

# Where a table states neither batch nor layout, so many tokens are worked on at once.
USUAL_TOKENS = 8192.0


class Setup(Record):
    """A run as the estimator sees it, and what was measured of it.

    measured_s: seconds a step (None where only memory was measured); given: the column it was taken from.
    inferred: what the row does not say. kind: dense, moe, mla, hybrid, encoder, encoder-decoder or vision.
    """

    id: str
    publisher: str
    tier: str
    model: ModelSpec
    workload: Workload
    plan: Plan
    cluster: Cluster
    profile: Profile
    stack: str
    attention: str
    kind: str
    rounds: float
    measured_s: float | None
    given: str
    inferred: tuple[str, ...]


def read_setup(row: dict[str, Any]) -> Setup:
    """The run of a row; raises a CapacityError, in one line, where it cannot be priced."""
    inferred: list[str] = []
    name = word(row, "device")
    if not name:
        raise InputError("the row names no device")
    cluster, profile = rig_of(name)
    model, unsure = model_of(row)
    inferred += unsure
    stack = stack_of(row)
    compute, known = dtype_of(row, cluster.device)
    if not known:
        inferred.append(f"precision {compute}")
    peak_flop_per_s(cluster.device, compute)
    workload = _workload(row, model, compute, inferred)
    cluster, plan, workload = _layout(row, model, workload, cluster, stack, inferred)
    cluster = wired(row, cluster)
    attention = word(row, "attention").lower()
    if attention not in ("flash", "standard"):
        # Megatron without Transformer Engine writes its scores out.
        plain = re.search(r"mcore_(?!te)|uninstall_te", word(row, "source")) is not None
        attention = "standard" if plain or load_stack(stack).name == "megatron-lm" else "flash"
        inferred.append(f"{attention} attention")
    if attention == "flash" and re.search(r"\bFA[34]\b", word(row, "notes")):
        attention = "flash-3"
    rounds = max(-(-workload.global_batch // (plan.dp * plan.micro_batch)), 1.0)
    # Tuned stacks rebuild what is cheap and rarely whole blocks.
    policies: tuple[str, ...] = ("none", "selective")
    if stack == "litgpt" and plan.dp > 1.0:
        policies = ("full",)  # its FSDP strategy wraps every block in a checkpoint
    elif load_stack(stack).generation != "tuned":
        policies = ("none", "selective", "full")
    plan = _recompute(row, model, workload, plan, cluster, profile, rounds, policies, inferred)
    setup = Setup(
        id=word(row, "id") or "?",
        publisher=publisher(word(row, "id") or "?"),
        tier=word(row, "tier"),
        model=model,
        workload=workload,
        plan=plan,
        cluster=cluster,
        profile=profile,
        stack=stack,
        attention=attention,
        kind=kind_of(model),
        rounds=rounds,
        measured_s=None,
        given="",
        inferred=tuple(inferred),
    )
    seconds, given = measured(row, setup)
    return replace(setup, measured_s=seconds, given=given)


def _workload(row: dict[str, Any], model: ModelSpec, compute: str, inferred: list[str]) -> Workload:
    seq_len = positive(row, "seq_len")
    if seq_len is None:
        seq_len = min(2048.0, feeding.longest(model) or 2048.0)
        inferred.append(f"sequence length {seq_len:g}")
    text = f"{word(row, 'model')} {word(row, 'method')} {word(row, 'family')}".lower()
    mode = (
        "lora"
        if "lora" in text or "adapter" in text
        else "finetune"
        if re.search(r"sft|fine-?tun|full", text)
        else "train"
    )
    wide = 32.0 if compute in ("fp32", "tf32") else 16.0
    return Workload(
        mode=mode,
        seq_len=seq_len,
        precision=Precision(wide, wide, 32.0, 32.0, 16.0, compute),
    )


def _layout(
    row: dict[str, Any], model: ModelSpec, workload: Workload, cluster: Cluster, stack: str, inferred: list[str]
) -> tuple[Cluster, Plan, Workload]:
    tp, pp, cp = (positive(row, name) or 1.0 for name in ("tp", "pp", "cp"))
    if positive(row, "tp") is None:
        inferred.append("no tensor or pipeline parallelism")
    devices = positive(row, "n_devices")
    if devices is None:
        devices = (positive(row, "dp") or 8.0) * tp * pp * cp
        inferred.append(f"{devices:g} devices")
    dp = devices / (tp * pp * cp)
    if dp < 1.0:
        raise InputError(f"tp {tp:g} x pp {pp:g} x cp {cp:g} is more than the row's {devices:g} devices")
    if not dp.is_integer():
        dp = positive(row, "dp") or max(dp // 1.0, 1.0)
        devices = dp * tp * pp * cp
        inferred.append("devices as the layout needs them")
    batch, micro = positive(row, "global_batch_seqs"), positive(row, "micro_batch")
    if batch is not None and 1.0 <= batch < dp and dp % batch == 0.0:
        # Fewer sequences than ranks: the rest of the devices works on parts of them.
        spare, dp = dp / batch, batch
        if positive(row, "tp") is None:
            heads = [heads for heads in attention_heads(model) if heads]
            while tp < 8.0 and spare >= 2.0 and all(one % (tp * 2.0) == 0.0 for one in heads):
                tp, spare = tp * 2.0, spare / 2.0
        cp *= spare
        inferred.append(f"tp {tp:g} and cp {cp:g}, as there are {batch:g} sequences")
    zero = number(row, "zero_stage")
    if zero is None:
        whole = stack in ("jax", "torchtitan", "fsdp") and dp > 1.0 and pp == 1.0
        zero = 3.0 if whole else 1.0
        if stack == "hugging-face" and dp > 1.0:
            zero = 3.0 if workload.mode == "finetune" else 2.0
        inferred.append(f"ZeRO-{zero:g}")
    if micro is None:
        micro = _micro_batch(batch / dp if batch else inf, workload.seq_len, pp, whole=stack == "jax" and bool(batch))
        inferred.append(f"micro-batch {micro:g}")
    if batch is None:
        batch = dp * micro * (4.0 * pp if pp > 1.0 else 1.0)
        inferred.append(f"global batch {batch:g}")
    if batch < dp * micro and batch >= dp:
        micro = max(batch // dp, 1.0)
    chunks = positive(row, "virtual_pp") or _chunks_said(row, model, pp)
    if chunks is None:
        tuned = load_stack(stack).generation == "tuned"
        chunks = usual_chunks(model, pp, batch / (dp * micro)) if tuned else 1.0
        if pp > 1.0:
            inferred.append(f"{chunks:g} chunks a stage")
    notes = f"{word(row, 'notes')} {word(row, 'offload')}".lower()
    parallel = word(row, "sequence_parallel").lower()
    plan = Plan(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=_expert_parallel(row, model, dp * tp * cp, inferred, sharded=zero >= 3.0),
        etp=1.0 if load_stack(stack).generation == "tuned" and tp > 1.0 else None,
        zero=int(zero),
        interleave=max(chunks, 1.0),
        micro_batch=micro,
        offload=("optimizer",) if re.search(r"(adamw?|optimi[sz]er)[^.;]*(offload|to cpu)", notes) else (),
        sequence_parallel=parallel == "yes" if parallel else load_stack(stack).name != "megatron-lm",
    )
    return _nodes(cluster, devices), plan, replace(workload, global_batch=batch)


def _chunks_said(row: dict[str, Any], model: ModelSpec, pp: float) -> float | None:
    """Chunks a stage where a note gives the layers of one."""
    said = re.search(r"layers per virtual stage (\d+)", word(row, "notes"))
    return None if said is None else max(feeding.layer_count(model) / pp // float(said[1]), 1.0)


def _micro_batch(each: float, seq_len: float, pp: float, *, whole: bool) -> float:
    """Sequences at once where a table is silent. whole: a stack that works through its share of the batch at once."""
    if whole and pp == 1.0:
        return max(each, 1.0)
    micro = 1.0
    while micro * 2.0 <= each and micro * 2.0 * seq_len <= USUAL_TOKENS and pp == 1.0:
        micro *= 2.0
    return micro


def _nodes(cluster: Cluster, devices: float) -> Cluster:
    """As many nodes as hold the devices."""
    per_node = cluster.devices_per_node
    if devices > per_node and devices % per_node and per_node == 72:
        per_node = 64  # racks of 72 are used by the 64 where a power of two is wanted
    per_node = int(min(per_node, devices))
    return replace(cluster, devices_per_node=per_node, nodes=max(int(-(-devices // per_node)), 1))


def _expert_parallel(
    row: dict[str, Any], model: ModelSpec, ranks: float, inferred: list[str], *, sharded: bool
) -> float:
    routed = [layer.experts for block in model.blocks for layer in block.sublayers if isinstance(layer, Experts)]
    if not routed:
        return 1.0
    given = positive(row, "ep")
    if given is not None or sharded:
        return min(given or 1.0, ranks)
    degree = next((one for one in (8.0, 4.0, 2.0) if min(routed) % one == 0.0 and ranks % one == 0.0), 1.0)
    inferred.append(f"ep {degree:g}")
    return degree


def _recompute(
    row: dict[str, Any],
    model: ModelSpec,
    workload: Workload,
    plan: Plan,
    cluster: Cluster,
    profile: Profile,
    rounds: float,
    policies: tuple[str, ...],
    inferred: list[str],
) -> Plan:
    text = word(row, "recompute").lower()
    if text in ("none", "selective", "full"):
        return replace(plan, recompute=text)
    weights = weights_of(lower(model, feeding.feed(model, 1.0, 1.0)))
    for policy in policies:
        trial = replace(plan, recompute=policy)
        held = training_memory(model, weights, workload, trial, rounds, profile.context_bytes)
        if policy == policies[-1] or sum(held.values()) <= cluster.device.memory_bytes:
            inferred.append(f"{policy} recomputation")
            return trial
    return plan
