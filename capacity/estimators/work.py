"""What one device does in one forward pass of a replica, kernel by kernel, in seconds at the datasheet's rates.

Nothing here is fitted: a step law (laws/step.py) says which share of these rates is reached and what a launch costs.
"""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.checkpoint import format_of
from capacity.estimators.pricing import peak_flop_per_s, processor
from capacity.estimators.sharding import shard_replica
from capacity.formulas import flops, traffic
from capacity.record import Record
from capacity.spec.model import Attention, Experts, Recurrent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec
    from capacity.spec.op import Op
    from capacity.spec.plan import Plan

# A recurrence keeps its state in fp32, and a step reads and writes it.
STATE_BYTES, STATE_PASSES = 4.0, 2.0
SCORE_BYTES = 4.0
# What crosses a slot where devices have no link of their own: PCIe 4.0 x16, one direction, as it is reached.
SLOT_BYTES_PER_S = 25e9
SLOTS = 8
# Rows from which on a product unpacks its weights first, where an engine does.
UNPACKED_ROWS = 64.0
# Rows up to which weights of 16 bits are multiplied on the vector units, one by one, rather than in tiles.
VECTOR_ROWS = 8.0


class Kernel:
    """One kernel and how often it runs: seconds at datasheet rates, and the names of its parameters."""

    __slots__ = (
        "bandwidth",
        "launch",
        "launches",
        "memory_s",
        "name",
        "part",
        "peak",
        "rows",
        "tile_s",
        "unpack",
        "unpack_s",
        "work_s",
    )

    def __init__(
        self,
        part: str,
        name: str,
        *,
        memory_s: float = 0.0,
        bandwidth: str = "gemm",
        work_s: float = 0.0,
        peak: str = "gemm",
        tile_s: float = 0.0,
        rows: float = 0.0,
        unpack_s: float = 0.0,
        unpack: str = "",
        launches: float = 0.0,
        launch: str = "",
    ) -> None:
        self.part = part
        self.name = name
        self.memory_s = memory_s
        self.bandwidth = bandwidth
        self.work_s = work_s
        self.peak = peak
        self.tile_s = tile_s
        self.rows = rows
        self.unpack_s = unpack_s
        self.unpack = unpack
        self.launches = launches
        self.launch = launch


class Machine(Record):
    """A replica's devices and the formats they compute in.

    formats: by precision group ("" any other) the format's name and stored bytes of a weight; kv_format and kv_bytes:
    of the cache. reach and pace: shares of the
    memory bandwidth and of the peak that this architecture reaches where those whose kernels were measured reach all. half_accumulate: which products add up in 16
    bits ("all", those of "narrow" weights); warp_products: in the instructions that older tensor cores had too; vector_products: on the vector units, however many rows; unpacks: narrow weights
    are written out in 16 bits for many rows; wide_copies: for more rows than VECTOR_ROWS a copy in 16 bits is read. score_rows: queries whose scores are kept in memory at a time, 0 where kernels are fused; expands: keys and
    values are copied for every query head; loops: experts run one after the other, those without a token too. core_bytes_per_s: what one
    processor core reads at most. adapters: low-rank adapters of adapter_rank that requests choose among. known: peaks asked for
    so far, a table of this machine's own.
    """

    cluster: Cluster
    formats: dict[str, tuple[str, float]]
    kv_format: str
    kv_bytes: float
    reach: float = 1.0
    pace: float = 1.0
    half_accumulate: str = ""
    warp_products: bool = False
    vector_products: bool = False
    unpacks: bool = False
    wide_copies: bool = False
    score_rows: float = 0.0
    expands: bool = False
    loops: bool = False
    core_bytes_per_s: float | None = None
    adapters: float = 0.0
    adapter_rank: float = 0.0
    known: dict[str, float] = {}

    @property
    def memory_bytes_per_s(self) -> float:
        """Bandwidth of one device, less what its processor cannot reach."""
        device = self.cluster.device
        whole = device.memory_bytes_per_s * self.reach
        if self.core_bytes_per_s is None or device.multiprocessors is None:
            return whole
        return min(whole, device.multiprocessors * self.core_bytes_per_s)

    @property
    def generation(self) -> str:
        """Of the tensor cores: kernels written for an earlier one reach another share of their rates."""
        return self.cluster.device.architecture.partition("-")[0]

    def format(self, op: Op) -> tuple[str, float]:
        """Name and stored bytes of an op's weights."""
        return format_of(self.formats, op)

    def peak(self, format: str) -> float:
        """Dense peak of products with weights of a format."""
        known = self.known.get(format)
        if known is None:
            known = self.known[format] = self._peak(format)
        return known

    def _peak(self, format: str) -> float:
        if format == "vector":
            return self.vector_flop_per_s
        dtype = _COMPUTED.get(format, format)
        if processor(self.cluster.device) == "CPU":
            return self._cores(dtype)
        if dtype in ("fp8", "fp4") and "fp8" not in self.cluster.device.peak_dense_flop_per_s:
            dtype = "bf16"  # narrow floats without tensor cores for them are unpacked
        return peak_flop_per_s(self.cluster.device, dtype)[0] * self._pace(dtype) * self.pace

    def _cores(self, dtype: str) -> float:
        """Peak of products on processor cores.

        Matrix units multiply what is narrow as bf16. Without them a block of narrow weights takes as many vector instructions
        (dot products, its scale, unpacking) as its product in fp32; 16-bit floats are twice as many to a vector on ARM.
        """
        device, peaks = self.cluster.device, self.cluster.device.peak_dense_flop_per_s
        vector = self.vector_flop_per_s
        if device.architecture in _WITH_ACCELERATORS:
            return vector * _CORES_SHARE
        if peaks.get("bf16", 0.0) > _MATRIX_UNITS * vector:
            return peaks["bf16"] * _MATRIX_PACE
        return 2.0 * vector if dtype in ("bf16", "fp16") and device.architecture in _HALF_VECTORS else vector

    def _pace(self, dtype: str) -> float:
        """What an engine's kind of products makes of the datasheet's peak."""
        device, pace = self.cluster.device, 1.0
        halves = {"all": ("bf16", "fp16", "int4"), "narrow": ("int4",)}.get(self.half_accumulate, ())
        if dtype in halves and device.vendor == "NVIDIA" and device.segment == "consumer":
            # GeForce cards add up in 16 bits at twice the rate that the catalogue states, for 32 bits.
            pace = 2.0
        if self.warp_products and device.segment == "data-centre":
            pace *= _WARP_PACE.get(device.architecture, 1.0)
        return pace

    @property
    def vector_flop_per_s(self) -> float:
        """Peak of the vector units, which unpack weights."""
        peaks = self.cluster.device.peak_dense_flop_per_s
        return peaks.get("fp32") or min(peaks.values())

    def link(self, ranks: float) -> float:
        """Bytes a second of one device in a group of `ranks`."""
        device, cluster = self.cluster.device, self.cluster
        inside = device.link.bytes_per_s if device.link else SLOT_BYTES_PER_S
        # Cards of a workstation stand in one box, up to as many as its slots.
        box = SLOTS if device.segment in ("consumer", "workstation") else 1
        if cluster.inter is None:
            return inside
        near = ranks <= ops.maximum(cluster.devices_per_node, box)
        return ops.where(near, inside, min(cluster.inter.bytes_per_s, inside))


# Phones, whose datasheet peaks are of the GPU and the neural processor: what the processor cores have of the former.
_WITH_ACCELERATORS, _CORES_SHARE = ("adreno",), 0.12
# Processors with matrix units state a bf16 peak so many times that of their vectors; of it engines get this share of what
# they get of a vector peak (published AMX runs: 16 of 100 TFLOP/s).
_MATRIX_UNITS, _MATRIX_PACE = 8.0, 0.25
# Vectors of 16-bit floats since ARMv8.2.
_HALF_VECTORS = ("apple-cpu", "arm")
# Share of the peak that warp-wide products reach at most, where later cores have wider ones (published microbenchmarks).
_WARP_PACE = {"hopper": 0.62, "blackwell": 0.5, "blackwell-ultra": 0.5}
# Generations whose kernels decode latent attention in 8 bits (FlashInfer and TensorRT-LLM documentation).
_NARROW_LATENT = ("blackwell",)
# What products with weights of a format are computed in, where it is not the format itself.
_COMPUTED = {"fp8_block": "fp8"} | dict.fromkeys(("gguf", "gguf_k", "gguf_iq", "int8wo", "fp8wo", "int4wo"), "int4")


def kernels(table: tuple[Op, ...], tokens: float, plan: Plan, machine: Machine) -> list[Kernel]:
    """The kernels of one pass over `tokens` tokens of each attention rank; collectives and small kernels apart."""
    found: list[Kernel] = []
    fused: tuple[object, ...] = ()
    routed: tuple[object, ...] = ()
    for whole in table:
        if whole.kind == "embedding" or ops.everywhere(whole.m == 0.0):
            continue
        op = shard_replica(whole, plan)
        if op.kind == "gemm" and ops.everywhere(whole.copies == 1.0):
            # Maps of the same input are one kernel in every engine: queries, keys and values; gate and up.
            key = (whole.stack, whole.part, whole.shard, whole.k, whole.m, whole.count)
            alone = whole.shard == "row" or not (fused and all(map(_alike, key, fused)))
            fused = key
            found.append(_product(op, machine, 1.0 if alone else 0.0))
            if ops.anywhere(machine.adapters) and takes_adapter(op):
                found.append(_adapter(op, machine, 2.0 if alone else 0.0))
            if machine.unpacks and ops.anywhere(op.m >= UNPACKED_ROWS):
                found += _unpacked(op, machine)
        elif op.kind == "gemm":
            first = not (routed and all(map(_alike, (whole.stack, whole.count), routed)))
            routed = (whole.stack, whole.count)
            found.append(_expert(op, whole, tokens * plan.attention_dp, plan, machine, 1.0 if first else 0.0))
        elif op.kind == "attention":
            found.append(_attention(op, machine))
            if ops.anywhere(machine.score_rows) and not ops.everywhere(op.queries == 1.0):
                found.append(_scores(op, machine))
        elif op.kind == "scan":
            found.append(_scan(op, machine))
        elif op.kind == "conv" and op.part != "recurrent":
            found.append(_product(op, machine, 1.0))
        else:
            found.append(_elementwise(op, whole, plan, machine))
        if op.part != "expert":
            routed = ()
    return found


def _alike(one: object, other: object) -> bool:
    """Whether two values are the same, of columns in every row."""
    return one is other or ops.everywhere(one == other)


def _product(op: Op, machine: Machine, launches: float) -> Kernel:
    format, width = machine.format(op)
    vectors = machine.vector_products and width < 2.0
    kind = "vector" if vectors else format
    peak = machine.peak(kind)
    weights = op.n * op.k
    unpack = op.count * weights / machine.vector_flop_per_s
    read = width
    if machine.wide_copies and width < 2.0:
        read = ops.where(op.m > VECTOR_ROWS, 2.0, width)
    return Kernel(
        "weights",
        op.name,
        memory_s=op.count * weights * read / machine.memory_bytes_per_s,
        bandwidth=f"gemm.{format}",
        work_s=op.count * flops.gemm_flop(op.m, op.n, op.k) / peak,
        peak=f"gemm.{kind}",
        unpack_s=unpack if width < 2.0 else ops.where(op.m <= VECTOR_ROWS, unpack, 0.0),
        unpack=format,
        launches=op.count * launches,
        launch=f"gemm.{format}",
    )


def takes_adapter(op: Op) -> bool:
    """Whether a map has an adapter where a model has any: those of attention and of dense feed-forward layers."""
    return op.kind == "gemm" and ops.everywhere(op.copies == 1.0) and op.part not in ("head", "router", "expert")


def _adapter(op: Op, machine: Machine, launches: float) -> Kernel:
    """Two grouped products of low rank beside a map: each token through the adapter of its request."""
    elements = machine.adapter_rank * (op.n + op.k)
    some = machine.adapters > 1.0
    used = ops.where(some, traffic.experts_touched(machine.adapters, 1.0, op.m), 1.0) if ops.anywhere(some) else 1.0
    return Kernel(
        "adapters",
        f"{op.name}, adapters",
        memory_s=op.count * used * elements * 2.0 / machine.memory_bytes_per_s,
        bandwidth="gemm.bf16",
        work_s=op.count * 2.0 * op.m * elements / machine.peak("bf16"),
        peak="expert.bf16",
        launches=op.count * launches,
        launch="gemm.bf16",
    )


def _unpacked(op: Op, machine: Machine) -> list[Kernel]:
    """Writing a narrow matrix out in 16 bits, and reading it again."""
    format, width = machine.format(op)
    if width >= 2.0 or not format.startswith("gguf"):
        return []
    moved = ops.where(op.m >= UNPACKED_ROWS, op.count * op.n * op.k * 2.0 * 2.0, 0.0)
    name = f"{op.name}, unpacked"
    return [Kernel("activations", name, memory_s=moved / machine.memory_bytes_per_s, bandwidth="elementwise")]


def _expert(op: Op, whole: Op, tokens: float, plan: Plan, machine: Machine, launches: float) -> Kernel:
    format, width = machine.format(op)
    peak, own = machine.peak(format), f"expert.{format}.{machine.generation}"
    held = whole.copies / plan.ep
    hit = traffic.experts_touched(whole.copies, whole.active, tokens) / plan.ep
    pairs = tokens * whole.active / plan.ep
    if ops.anywhere(plan.ep > 1.0):
        # All ranks wait for the fullest.
        hit = ops.minimum(traffic.busiest_rank(hit, plan.ep), held)
        pairs = ops.minimum(traffic.busiest_rank(pairs, plan.ep), tokens * whole.active)
    each = flops.gemm_flop(1.0, op.n, op.k) / peak
    weights = hit * op.n * op.k
    unpack = op.count * weights / machine.vector_flop_per_s
    return Kernel(
        "experts",
        op.name,
        memory_s=op.count * weights * width / machine.memory_bytes_per_s,
        bandwidth=own,
        work_s=op.count * pairs * each,
        peak=own,
        tile_s=op.count * hit * each,
        rows=pairs / hit,
        unpack_s=unpack if width < 2.0 else ops.where(pairs / hit <= VECTOR_ROWS, unpack, 0.0),
        unpack=format,
        launches=op.count * launches * (held if machine.loops else 1.0),
        launch=f"expert.{format}",
    )


def _attention(op: Op, machine: Machine) -> Kernel:
    seen = ops.minimum(flops.mean_visible_keys(op.queries, op.keys, op.window, float(op.causal)), op.selected)
    decode = ops.everywhere(op.queries == 1.0)
    if not decode and ops.anywhere(op.queries == 1.0):
        raise ValueError("rows of one token are another kernel's, and no column with rows of more")
    key, value = op.key_size, op.value_size
    if decode and op.latent and ops.anywhere(op.value_size):
        # Decode works on the latent itself: keys and values are as wide as what is cached.
        key = value = op.cache_elements
    # A latent cache of 8 bits is multiplied as it is where tensor cores came with kernels for that.
    narrow = decode and op.latent and machine.kv_format == "fp8" and machine.generation in _NARROW_LATENT
    peak = machine.peak("fp8" if narrow else "bf16")
    work = flops.visible_attention_flop(op.sequences, op.queries, seen / op.stride, op.heads, key, value)
    span = ops.minimum(ops.minimum(op.keys, op.window), ops.maximum(op.selected, op.queries))
    width = op.cache_elements if ops.anywhere(op.cache_elements) else op.kv_heads * (op.key_size + op.value_size)
    copies = op.heads / op.kv_heads if machine.expands and not op.latent else 1.0
    moved = op.sequences * span * width * machine.kv_bytes * copies
    kind = "latent" if op.latent else machine.kv_format
    return Kernel(
        "attention and KV cache",
        op.name,
        memory_s=op.count * moved / machine.memory_bytes_per_s,
        bandwidth=f"cache.{kind}",
        work_s=op.count * work / peak,
        peak="attention.decode" if decode else "attention.prefill",
        launches=op.count,
        launch="attention",
    )


def _scores(op: Op, machine: Machine) -> Kernel:
    """Scores of attention that is not fused, in fp32, once through memory: of each query with the keys up to the end of its chunk."""
    seen = flops.mean_visible_keys(op.queries, op.keys, op.window, float(op.causal))
    seen = ops.minimum(seen + ops.minimum(machine.score_rows, op.queries) / 2.0, op.keys)
    moved = op.count * op.sequences * op.queries * seen * op.heads * SCORE_BYTES
    name = f"{op.name}, scores"
    return Kernel("attention and KV cache", name, memory_s=moved / machine.memory_bytes_per_s, bandwidth="scores")


def _scan(op: Op, machine: Machine) -> Kernel:
    state = op.sequences * op.heads * op.key_size * op.value_size * STATE_BYTES * STATE_PASSES
    seen = op.sequences * op.queries * op.heads
    work = seen * op.key_size * op.value_size * 4.0
    work = work + seen * ops.minimum(op.chunk, op.queries) * (op.key_size + op.value_size) * 2.0
    passed = seen * (op.key_size + op.value_size * 2.0) * 2.0
    chunks = ops.maximum(op.queries / ops.maximum(op.chunk, 1.0), 1.0)
    return Kernel(
        "recurrent state",
        op.name,
        memory_s=op.count * (state * ops.minimum(chunks, 2.0) + passed) / machine.memory_bytes_per_s,
        bandwidth="state",
        work_s=op.count * work / machine.peak("bf16"),
        peak="scan",
        launches=op.count,
        launch="recurrent",
    )


def _elementwise(op: Op, whole: Op, plan: Plan, machine: Machine) -> Kernel:
    elements, bandwidth = op.elements, "elementwise"
    if op.part == "expert":
        # Every rank gathers and scatters the tokens of its own experts, whole rows of them; what is inside an expert is cut.
        rows = whole.m * plan.attention_dp * whole.active / plan.ep
        inner = (whole.elements - whole.m * whole.active * whole.k * 4.0) / plan.tp
        elements, bandwidth = rows * whole.k * 2.0 + inner, "routing"
    elif op.part in ("norm", "extra"):
        elements = whole.elements
    moved = op.count * elements * 2.0
    return Kernel("activations", op.name, memory_s=moved / machine.memory_bytes_per_s, bandwidth=bandwidth)


def small_kernels(model: ModelSpec) -> list[Kernel]:
    """Norms, rotary embedding, residuals, routing: launches a layer has whatever its widths."""
    counts = {"layer": 0.0, "qk_norm": 0.0, "recurrent": 0.0}
    for block in feeding.layers(model):
        counts["layer"] += block.count
        for layer in block.sublayers:
            if isinstance(layer, Attention) and layer.qk_norm:
                counts["qk_norm"] += block.count
    return [
        Kernel("small kernels", name.replace("_", " "), launches=count, launch=name)
        for name, count in counts.items()
        if ops.anywhere(count)
    ]


def collectives(model: ModelSpec, tokens: float, plan: Plan, machine: Machine) -> list[Kernel]:
    """All-reduces of tensor parallelism, and tokens sent to experts and back where attention is data parallel."""
    ranks = plan.tp * plan.attention_dp
    if ops.everywhere(ranks == 1.0):
        return []
    reduced = experts = copies = 0.0
    for block in feeding.layers(model):
        for layer in block.sublayers:
            if isinstance(layer, Experts):
                # A rank that several of a token's experts lie on receives it once; where experts are cut all ranks do.
                once = traffic.experts_touched(plan.ep, 1.0, layer.active)
                experts = experts + block.count
                copies = copies + block.count * ops.where(plan.ep > 1.0, once, ranks)
            else:
                reduced = reduced + block.count
            if isinstance(layer, Attention) and _norms_all(layer):
                reduced = reduced + block.count
    apart = plan.attention_dp > 1.0
    reduced = ops.where(plan.tp > 1.0, reduced + ops.where(apart, 0.0, experts), 0.0)
    routed = ops.where(apart, copies, 0.0)
    found = []
    row = tokens * model.hidden * 2.0
    if ops.anywhere(reduced):
        moved = reduced * row * 2.0 * (plan.tp - 1.0) / plan.tp / machine.link(plan.tp)
        found.append(
            _exchange("tensor-parallel traffic", f"all-reduce over {_told(plan.tp)}", moved, reduced, "all_reduce")
        )
        found += _wait("tensor-parallel traffic", reduced, plan.tp, machine)
    if ops.anywhere(routed):
        layers = sum(
            block.count for block in feeding.layers(model) if any(isinstance(one, Experts) for one in block.sublayers)
        )
        # Out in 8 bits, back in 16; a token's copies leave it but for the share that stays.
        sent = routed * tokens * model.hidden * 3.0 * (ranks - 1.0) / ranks / machine.link(ranks)
        both = ops.where(apart, 2.0 * layers, 0.0)
        found.append(_exchange("expert traffic", f"dispatch and combine over {_told(ranks)}", sent, both, "all_to_all"))
    return found


def _exchange(part: str, name: str, wire_s: float, count: float, launch: str) -> Kernel:
    return Kernel(part, name, memory_s=wire_s, bandwidth="link", launches=count, launch=launch)


def _wait(part: str, count: float, ranks: float, machine: Machine) -> list[Kernel]:
    """Hearing the other ranks of a node one after the other, and those of other nodes."""
    # Devices in slots hear of each other through the host.
    link = machine.cluster.device.link
    way = ".slot" if link is None or link.name.startswith("PCIe") else ""
    inside = ops.minimum(ranks, ops.maximum(machine.cluster.devices_per_node, 1.0))
    heard = f"all_reduce_rank{way}"
    found = [Kernel(part, f"hearing {_told(inside)} ranks", launches=count * inside, launch=heard)]
    if ops.anywhere(ranks > inside):
        beyond = ops.where(ranks > inside, count, 0.0)
        found.append(Kernel(part, "hearing other nodes", launches=beyond, launch="all_reduce_node"))
    return found


def _told(ranks: float) -> str:
    return "all" if ops.is_column(ranks) else f"{ranks:g}"


def _norms_all(layer: Attention) -> bool:
    """Whether queries and keys are normed over all heads together, which takes an all-reduce of its own."""
    return layer.qk_norm and ops.everywhere(layer.vector_params >= layer.heads * layer.key_size)


def recurrent_layers(model: ModelSpec) -> float:
    """Layers that keep a state."""
    return sum(
        block.count for block in feeding.layers(model) if any(isinstance(one, Recurrent) for one in block.sublayers)
    )
