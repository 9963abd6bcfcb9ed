"""A published training run, as a row of a table: what is given is used, what is missing is inferred and said."""

from __future__ import annotations

import re
from math import inf

from capacity.catalogue import load_device
from capacity.catalogue.clusters import default_cluster
from capacity.errors import InputError, UnknownNameError
from capacity.estimators import feeding
from capacity.estimators.layout import attention_heads, usual_chunks
from capacity.estimators.lowering import lower, model_flop
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.stacks import load_stack
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_weights import weights_of
from capacity.laws.profile import load_profile
from capacity.record import Record, replace
from capacity.spec.model import Attention, Experts, Recurrent
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload
from capacity.validation.row_models import model_of
from capacity.validation.tables import number, positive, publisher, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster, Device
    from capacity.spec.model import ModelSpec

# What a source, family or note says of the software, most telling first: pattern, name of the stack.
_STACKS = (
    (r"maxtext|paxml|\bpax\b|jax|t5x|levanter|easylm|\btpu|neuron", "jax"),
    (r"llm\.c|llmc", "llm.c"),
    (r"torchtitan|ttitan|olmo-core|olmocore|fms-fsdp", "torchtitan"),
    (r"llm-foundry|llmf|mosaic|\bmpt\b", "fsdp"),
    (r"optimum|habana|gaudi", "habana"),
    (r"deepseek-ai|hai-llm|meta-llama", "megatron-core"),
    (r"nanotron", "nanotron"),
    (r"internevo|internlm/", "internevo"),
    (r"litgpt", "litgpt"),
    (r"nemo|bridge|dgxc|mlperf|mlcommons|simumax|megatron-core|mcore|primus|te 2\.", "megatron-core"),
    (r"megatron-deepspeed|bigscience|bloom|vtrain", "megatron-deepspeed"),
    (
        r"ms-swift|swift|llama-factory|litgpt|qwenlm|transformers|hugging ?face|peft|trl|deeplearningexamples",
        "hugging-face",
    ),
    (r"deepspeed|colossal", "deepspeed"),
    (r"megatron|mt-nlg", "megatron-lm"),
    (r"fsdp|internevo|nanotron|flash-attn", "fsdp"),
)
_DTYPES = (
    (r"nvfp4|fp4", "fp4"),
    (r"rowwise", "bf16"),  # row-wise scales made FP8 no faster than 16 bits in the tables that publish both
    (r"fp8", "fp8"),
    (r"aqt|int8", "int8"),
    (r"tf32", "tf32"),
    (r"^fp32", "fp32"),
    (r"fp16|half|float16", "fp16"),
    (r"bf16|bfloat16", "bf16"),
)
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


_rigs: dict[str, tuple[Cluster, Profile]] = {}


def rig_of(name: str) -> tuple[Cluster, Profile]:
    """A node of the device a row names, and its profile; raises UnknownNameError where it is in no catalogue."""
    if name not in _rigs:
        device = _device(name)
        _rigs[name] = (default_cluster(device), load_profile(device))
    return _rigs[name]


def _device(name: str) -> Device:
    """The device a cell means: `H100-96GB-HBM2e-500W` is an H100 with 96 GB and a limit of 500 W."""
    plain = re.sub(r"\(.*?\)", "", name).strip()
    words = plain.split("-")
    core = "neuroncore" in words[-1].lower()
    first: UnknownNameError | None = None
    for last in range(len(words), 0, -1):
        for spelling in dict.fromkeys(("-".join(words[:last]), "-".join(words[:last]).rstrip("xX"))):
            try:
                device = load_device(spelling)
            except UnknownNameError as error:
                first = first or error
                continue
            rest = " ".join(words[last:])
            watts = re.search(r"(\d+)\s?W\b", rest)
            if watts:
                device = replace(device, tdp_w=float(watts[1]))
            return _half(device) if core else device
    assert first is not None
    raise first


def _half(device: Device) -> Device:
    """One of the two cores of a chip, where a table counts cores."""
    peaks = {dtype: peak / 2.0 for dtype, peak in device.peak_dense_flop_per_s.items()}
    return replace(
        device,
        peak_dense_flop_per_s=peaks,
        memory_bytes=device.memory_bytes / 2.0,
        memory_bytes_per_s=device.memory_bytes_per_s / 2.0,
        devices_per_node=device.devices_per_node * 2,
    )


def stack_of(row: dict[str, Any]) -> str:
    """The training software a row's family, source and notes speak of."""
    for text in (f"{word(row, 'family')} {word(row, 'source')}".lower(), word(row, "notes").lower()):
        for pattern, name in _STACKS:
            if re.search(pattern, text):
                years = [int(year) for year in re.findall(r"20[12]\d", text)]
                recent = name == "megatron-lm" and years and min(years) >= 2024
                release = _release(text) if name == "megatron-core" else 0.0
                if release >= NEWEST:
                    return "megatron-core-26.06"
                if 25.0 <= release < 26.0:
                    return "megatron-core-25.11"
                return "megatron-core" if recent else name
    return "fsdp"


# From this release on Megatron's mixtures of experts run half as long: fused permutation and routing, whole steps as graphs.
NEWEST = 26.06


def _release(text: str) -> float:
    """Year and month of a container a source speaks of: 26.06."""
    found = re.search(r"\(?\b(2[3-9])\.(0[1-9]|1[0-2])\b", text)
    return float(f"{found[1]}.{found[2]}") if found else 0.0


def dtype_of(row: dict[str, Any], device: Device) -> tuple[str, bool]:
    """Format of the products, and whether it was given."""
    text = word(row, "dtype").lower()
    for pattern, name in _DTYPES:
        if re.search(pattern, text):
            return name, True
    return ("bf16" if "bf16" in device.peak_dense_flop_per_s else "fp16"), False


def kind_of(model: ModelSpec) -> str:
    """What kind of model it is, in a word."""
    layers = [layer for block in feeding.layers(model) for layer in block.sublayers]
    stacks = {block.stack for block in feeding.layers(model)}
    if any(isinstance(layer, Recurrent) for layer in layers):
        return "hybrid"
    if any(isinstance(layer, Attention) and layer.latent for layer in layers):
        return "mla"
    if any(isinstance(layer, Experts) for layer in layers):
        return "moe"
    if {"encoder", "decoder"} <= stacks:
        return "encoder-decoder"
    return "dense" if "decoder" in stacks else "encoder" if "encoder" in stacks else "vision"


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
    cluster = _wired(row, cluster)
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
    policies = ("none", "selective") if load_stack(stack).generation == "tuned" else ("none", "selective", "full")
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
    measured, given = _measured(row, setup)
    return replace(setup, measured_s=measured, given=given)


_ADAPTERS = re.compile(r"(\d+)\s?x\s?(?:(\d+)\s?Gb|OmniPath)", re.IGNORECASE)
_NODE = re.compile(r"(\d+)\s?Gbps/node", re.IGNORECASE)
_INSIDE = re.compile(r"intra\s?(\d+)\s?GB/s", re.IGNORECASE)
_OMNI_PATH_GBPS = 100.0


def _wired(row: dict[str, Any], cluster: Cluster) -> Cluster:
    """The cluster with the network its notes state: `4x100Gb RoCE/node`, `800 Gbps/node`, `intra 150 GB/s`."""
    notes = word(row, "notes")
    adapters, node, inside = _ADAPTERS.search(notes), _NODE.search(notes), _INSIDE.search(notes)
    gbps = float(node[1]) if node else float(adapters[1]) * float(adapters[2] or _OMNI_PATH_GBPS) if adapters else 0.0
    full = max(cluster.device.devices_per_node, 1)
    if gbps and cluster.inter is not None:
        cluster = replace(cluster, inter=replace(cluster.inter, bytes_per_s=gbps * 1e9 / 8.0 / full))
    if inside and cluster.device.link is not None:
        link = replace(cluster.device.link, bytes_per_s=float(inside[1]) * 1e9)
        cluster = replace(cluster, device=replace(cluster.device, link=link))
    return cluster


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


def _measured(row: dict[str, Any], setup: Setup) -> tuple[float | None, str]:
    """Seconds a step from whichever column a row has, the most direct first."""
    tokens = setup.workload.global_batch * setup.workload.seq_len
    devices = setup.plan.devices
    step = positive(row, "step_time_s")
    if step is not None:
        return step, "step_time_s"
    rate = positive(row, "tokens_per_s_per_device")
    if rate is not None:
        return tokens / rate / devices, "tokens_per_s_per_device"
    device = setup.cluster.device
    peak, _ = peak_flop_per_s(device, setup.workload.precision.compute)
    work, hardware = _step_flop(row, setup)
    flops = positive(row, "model_tflops_per_device")
    if flops is not None:
        return work / (flops * 1e12 * devices), "model_tflops_per_device"
    share = positive(row, "mfu_pct")
    if share is not None:
        return work / (share / 100.0 * peak * devices), "mfu_pct"
    share = positive(row, "hfu_pct")
    if share is not None:
        return hardware / (share / 100.0 * peak * devices), "hfu_pct"
    seen, hours, days = positive(row, "tokens_total"), positive(row, "device_hours"), positive(row, "total_days")
    if seen is not None and hours is not None:
        return hours * 3600.0 / devices * tokens / seen, "device_hours"
    if seen is not None and days is not None:
        return days * 86400.0 * tokens / seen, "total_days"
    return None, ""


def _step_flop(row: dict[str, Any], setup: Setup) -> tuple[float, float]:
    """Model and hardware FLOPs of a step by the usual formulas: attention as the full square unless said to be causal."""
    table = lower(setup.model, feeding.feed(setup.model, 1.0, setup.workload.seq_len))
    head = model_flop(tuple(op for op in table if op.part == "head"))
    core = model_flop(tuple(op for op in table if op.kind == "attention"))
    whole = model_flop(table)
    notes = word(row, "notes").lower()
    if "causal" in notes and "non-causal" not in notes:
        whole -= core / 2.0
    blocks = whole - head
    batch = setup.workload.global_batch
    passes = 2.0 if setup.workload.mode == "lora" else 3.0
    again = 1.0 if setup.plan.recompute == "full" else 0.0
    return batch * passes * whole, batch * ((passes + again) * blocks + passes * head)
