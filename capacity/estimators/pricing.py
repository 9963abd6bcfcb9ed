"""A device prices one row of the op table through a kernel law."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.formula import sourced
from capacity.formulas import flops, traffic
from capacity.laws import attention, gemm, memory_bound
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.laws.profile import Profile
    from capacity.spec.device import Device
    from capacity.spec.op import Op

# What a datasheet may call the rate of a product in a given format, best first.
_RATES = {
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
    "tf32": ("tf32", "fp32"),
    "fp32": ("fp32",),
    "fp8": ("fp8", "int8", "bf16", "fp16", "fp32"),
    "int8": ("int8", "fp8", "bf16", "fp16", "fp32"),
    "fp4": ("fp4", "fp8", "int8", "bf16", "fp16", "fp32"),
    # Weight-only formats are unpacked and multiplied in 16 bits.
    "int4": ("bf16", "fp16", "fp32"),
}


def peak_flop_per_s(device: Device, dtype: str) -> tuple[float, str]:
    """The dense peak for products in `dtype` and the datasheet format it was taken from."""
    for name in _RATES.get(dtype, (dtype,)):
        rate = device.peak_dense_flop_per_s.get(name)
        if rate is not None:
            return rate, name
    known = ", ".join(device.peak_dense_flop_per_s) or "none"
    raise InputError(f"{device.name} states no dense peak for {dtype} (known: {known}); choose another --precision")


def label(op: Op, terms: Mapping[str, float]) -> str:
    """The op's name, numbered where a block before has an op of that name: no term may replace another's."""
    return op.name if op.name not in terms else f"{op.name} ({len(terms) + 1})"


class Pricer(Record):
    """Prices ops on one device for one compute format.

    dtype: format of the products' weights; bytes_per_activation and bytes_per_kv: stored widths.
    bytes_per_weight: by precision group, "" the default. sustained: share of the benchmarked rate that
    holds in a long run (power and clocks), 1 for short ones. wide: precision groups that are computed in
    `wide_dtype` whatever the rest runs in. replay: share of a kernel's launch that is left when a step is
    replayed from a graph.
    """

    device: Device
    profile: Profile
    dtype: str
    bytes_per_weight: dict[str, float]
    bytes_per_activation: float = 2.0
    bytes_per_kv: float = 2.0
    sustained: float = 1.0
    attention_share: float = 1.0
    wide: frozenset[str] = frozenset()
    wide_dtype: str = "bf16"
    replay: float = 1.0

    def group_bytes(self, group: str) -> float:
        """Stored width of a weight of this precision group, in bytes."""
        return self.bytes_per_weight.get(group, self.bytes_per_weight[""])

    def group_dtype(self, group: str) -> str:
        """Format the products of this group run in: a group kept wide runs in 16 bits."""
        return self.wide_dtype if group in self.wide else self.dtype

    def gemm_s(self, op: Op, m: float, n: float, k: float, touched: float | None = None) -> float:
        """Time of one product of m x k by k x n; `touched`: matrices read where not all resident ones are."""
        dtype = self.group_dtype(op.group)
        peak, _ = peak_flop_per_s(self.device, dtype)
        shares = self.profile.gemm_shares(dtype)
        matrices = op.copies if touched is None else touched
        moved = traffic.gemm_bytes(m, n, k, matrices, self.group_bytes(op.group), self.bytes_per_activation)
        return gemm.gemm_time_s(
            sourced(m, f"rows of {op.name}"),
            sourced(n, f"outputs of {op.name}"),
            sourced(k, f"inputs of {op.name}"),
            matrices,
            moved,
            peak,
            self.device.memory_bytes_per_s,
            shares.share_of_peak * self.sustained,
            shares.share_of_bandwidth,
            self.profile.depth_half,
            self.profile.wave_weight,
            self.device.multiprocessors or 100.0,
            shares.launch_s * self.replay,
            self.profile.least_rows,
        )

    def attention_s(self, op: Op) -> float:
        """Time of one attention core over the keys a query may see."""
        dtype = "bf16" if self.dtype not in ("fp32", "tf32", "fp16") else self.dtype
        peak, _ = peak_flop_per_s(self.device, dtype)
        seen = flops.mean_visible_keys(op.queries, op.keys, op.window, float(op.causal))
        seen = ops.minimum(seen, op.selected)
        work = flops.visible_attention_flop(
            op.sequences, op.queries, seen / op.stride, op.heads, op.key_size, op.value_size
        )
        span = ops.minimum(ops.minimum(op.keys, op.window), ops.maximum(op.selected, op.queries))
        cache = op.sequences * span * self._cache_width(op) * self.bytes_per_kv
        queries = op.sequences * op.queries * op.heads * (op.key_size + op.value_size) * self.bytes_per_activation
        return attention.attention_time_s(
            work,
            cache + queries,
            op.queries,
            peak,
            self.device.memory_bytes_per_s,
            self.profile.prefill_share_of_peak * self.sustained * self.attention_share,
            self.profile.decode_share_of_bandwidth,
            ops.where(op.queries > 1.0, self.profile.queries_half, 0.0),
            self.profile.attention_launch_s * self.replay,
        )

    @staticmethod
    def _cache_width(op: Op) -> float:
        return ops.where(op.cache_elements > 0.0, op.cache_elements, op.kv_heads * (op.key_size + op.value_size))

    def memory_s(self, moved_bytes: float, launches: float, effort: float = 1.0) -> float:
        """Time of element-wise work; `effort` scales bytes for kernels that are not fused."""
        return memory_bound.memory_bound_time_s(
            moved_bytes * effort,
            self.device.memory_bytes_per_s,
            self.profile.elementwise_share_of_bandwidth,
            launches,
            self.profile.elementwise_launch_s,
        )

    def scan_s(self, op: Op) -> float:
        """Time of a recurrence: its chunked products at the attention rate, its state and inputs through memory."""
        width = op.heads * (op.key_size + op.value_size * 2.0)
        state = op.sequences * op.heads * op.key_size * op.value_size * 4.0 * 2.0
        chunks = ops.maximum(op.queries / ops.maximum(op.chunk, 1.0), 1.0)
        work = op.sequences * op.queries * op.heads * op.key_size * op.value_size * 4.0
        work += (
            op.sequences
            * op.queries
            * op.heads
            * ops.minimum(op.chunk, op.queries)
            * (op.key_size + op.value_size)
            * 2.0
        )
        moved = op.sequences * op.queries * width * self.bytes_per_activation + state * ops.minimum(chunks, 2.0)
        peak, _ = peak_flop_per_s(self.device, "bf16")
        return attention.attention_time_s(
            work,
            moved,
            op.queries,
            peak,
            self.device.memory_bytes_per_s,
            self.profile.prefill_share_of_peak * self.sustained * 0.5,
            self.profile.decode_share_of_bandwidth * 0.75,
            0.0,
            self.profile.attention_launch_s * self.replay * ops.where(op.queries == 1.0, 1.0, 3.0),
        )


def processor(device: Device) -> str:
    """The kind of processor that computes: of phones and small boards the CPU."""
    bare = device.kind == "edge" and (device.segment == "phone" or device.architecture in _WITHOUT_GPU)
    return "CPU" if bare else device.kind


# Architectures of small boards whose engines run on the processor cores.
_WITHOUT_GPU = ("arm", "adreno", "riscv")
