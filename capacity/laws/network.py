"""Kernels of any network: convolutions, recurrent layers, embedding bags and what only moves memory.

A product or convolution is an implicit GEMM on tiles; depthwise convolutions multiply on the vector units and are mostly
bound by memory; a recurrent layer runs step after step. Parameters are shares and times by category ("conv", "conv weight
gradient", "batch norm backward"), one table a kind of processor, in `fitted/networks.toml`.
"""

from __future__ import annotations

import os

from capacity import ops
from capacity.formula import formula
from capacity.laws.memory_bound import memory_bound_time_s
from capacity.record import Record
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.device import Device
    from capacity.spec.op import Op

FILE = os.path.join(os.path.dirname(__file__), "fitted", "networks.toml")
# Elements of the output tile one multiprocessor works on.
TILE_ELEMENTS = 128.0 * 128.0
# Depth beyond which a product's inner loop is split over multiprocessors.
SPLIT_DEPTH = 2048.0
# Queries and keys a fused attention kernel takes at once.
ATTENTION_TILE = 64.0


@formula(unit="s", symbol="t_tile")
def tiled_time_s(
    m: float,
    n: float,
    k: float,
    groups: float,
    moved_bytes: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_peak: float,
    share_of_bandwidth: float,
    depth_half: float,
    wave_weight: float,
    tile_columns: float,
    multiprocessors: float,
    launch_s: float,
    flop_per_mac: float = 2.0,
    sharpness: float = 3.0,
) -> float:
    """Time of a product, or of a convolution as an implicit GEMM.

    1. Of m x n results, n in `groups` blocks, each sums k products. Blocks are padded to tile_columns columns.
    2. Compute: at share_of_peak of the dense peak, slower where the inner loop is short (1 + depth_half / k) and
       where there are few tiles for the multiprocessors; a loop deeper than SPLIT_DEPTH is split over them.
    3. Memory: moved_bytes at share_of_bandwidth. The slower of both, as a smooth maximum, after a launch.
    """
    columns = ops.ceil(n / groups / tile_columns) * tile_columns * groups
    tiles = m * columns / TILE_ELEMENTS * ops.maximum(k / SPLIT_DEPTH, 1.0)
    work = m * columns * k * flop_per_mac
    compute = (
        work
        / (peak_flop_per_s * share_of_peak)
        * (1.0 + depth_half / k)
        * (1.0 + wave_weight * multiprocessors / tiles)
    )
    memory = moved_bytes / (memory_bytes_per_s * share_of_bandwidth)
    slower: float = (compute**sharpness + memory**sharpness) ** (1.0 / sharpness)
    return launch_s + slower


@formula(unit="FLOP/s", symbol="F_p")
def sustained_flop_per_s(peak_flop_per_s: float, tdp_w: float, j_per_flop: float, sharpness: float = 3.0) -> float:
    """The dense peak as far as the power limit lets a long product run at it.

    1. All units at the peak would draw peak x j_per_flop: beyond the limit clocks go down.
    """
    drawn = peak_flop_per_s * j_per_flop / tdp_w
    slower: float = (1.0 + drawn**sharpness) ** (1.0 / sharpness)
    return peak_flop_per_s / slower


@formula(unit="s", symbol="t_dw")
def depthwise_time_s(
    m: float,
    n: float,
    k: float,
    moved_bytes: float,
    vector_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_vector_peak: float,
    share_of_bandwidth: float,
    slower: float,
    launch_s: float,
    flop_per_mac: float = 2.0,
) -> float:
    """Time of a depthwise convolution: no sum over channels, so the vector units multiply.

    1. Memory and arithmetic in sum: each output is made by one thread that waits for its inputs; `slower` times that
       where images lie channels first.
    """
    arithmetic = m * n * k * flop_per_mac / (vector_flop_per_s * share_of_vector_peak)
    return launch_s + slower * (moved_bytes / (memory_bytes_per_s * share_of_bandwidth) + arithmetic)


@formula(unit="s", symbol="t_rnn")
def recurrent_time_s(
    m: float,
    n: float,
    k: float,
    steps: float,
    moved_bytes: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_peak: float,
    share_of_bandwidth: float,
    step_s: float,
    passes: float,
    launch_s: float,
    flop_per_mac: float = 2.0,
) -> float:
    """Time of a recurrent layer: products of all steps at a share of the peak, traffic, and a wait for each step.

    1. A step cannot begin before the one before has ended: steps x step_s.
    2. Products of m steps of all sequences, n gates' columns, k inputs and states; two passes backward.
    """
    compute = m * n * k * flop_per_mac / (peak_flop_per_s * share_of_peak)
    return launch_s + passes * (steps * step_s + compute + moved_bytes / (memory_bytes_per_s * share_of_bandwidth))


@formula(unit="s", symbol="t_sdpa")
def fused_attention_time_s(
    sequences: float,
    queries: float,
    keys: float,
    heads: float,
    key_size: float,
    value_size: float,
    moved_bytes: float,
    peak_flop_per_s: float,
    memory_bytes_per_s: float,
    share_of_peak: float,
    share_of_bandwidth: float,
    size_half: float,
    passes: float,
    score_bytes: float,
    score_bytes_per_s: float,
    launch_s: float,
    flop_per_mac: float = 2.0,
) -> float:
    """Time of attention: in one kernel that never writes the scores, or apart.

    1. Queries and keys are padded to tiles. Exponentials take as long as size_half columns of a head. `passes` times that backward.
    2. Apart: score_bytes of scores are written and read, 0 where the kernel is one.
    """
    rows = ops.ceil(queries / ATTENTION_TILE) * ATTENTION_TILE
    seen = ops.ceil(keys / ATTENTION_TILE) * ATTENTION_TILE
    work = sequences * heads * rows * seen * (key_size + value_size + size_half) * flop_per_mac
    one = work / (peak_flop_per_s * share_of_peak) + moved_bytes / (memory_bytes_per_s * share_of_bandwidth)
    return launch_s + passes * one + score_bytes / score_bytes_per_s


@formula(unit="s", symbol="t_pass")
def pass_time_s(device_s: float, calls: float, call_s: float, sharpness: float = 4.0) -> float:
    """Time of a pass: the device's kernels, or the host that launches them one by one, whichever takes longer."""
    host = calls * call_s
    slower: float = (device_s**sharpness + host**sharpness) ** (1.0 / sharpness)
    return slower


@formula(unit="s", symbol="t_step")
def network_step_s(
    forward_s: float, backward_s: float, casts_s: float, optimizer_s: float, exchange_s: float, fixed_s: float
) -> float:
    """Time of a step of a network on one batch.

    1. Forward, and to train backward, weights cast for autocast, the optimizer, and what shows of exchanging gradients.
    2. What a step costs whatever it does: the loop, and waiting for its result.
    """
    return forward_s + backward_s + casts_s + optimizer_s + exchange_s + fixed_s


class NetworkLaw(Record):
    """Fitted parameters of one kind of processor, by category or name; `source` says on what, `interval` how well.

    peak: share of the dense (of depthwise: vector) peak; bandwidth: share of the memory's; number: all others.
    interval: for "infer" and "train" the 90 % range of measured over predicted time of networks left out.
    """

    peak: dict[str, float]
    bandwidth: dict[str, float]
    number: dict[str, float]
    interval: dict[str, tuple[float, float]]
    source: str

    def share(self, name: str) -> float:
        """The share of the memory's bandwidth of a category, or of what it is a case of."""
        known = self.bandwidth.get(name)
        return self.bandwidth[name.removesuffix(" backward")] if known is None else known


class Machine(Record):
    """A device as one pass of a network finds it. All numbers may be columns.

    bytes: width of an activation. last, compiled, fused, mixed: 1 where images lie channels last, element-wise ops are fused
    by a compiler, attention is one kernel, and weights are cast from fp32 at each use (autocast).
    """

    peak_flop_per_s: float
    product_flop_per_s: float
    vector_flop_per_s: float
    memory_bytes_per_s: float
    multiprocessors: float
    tdp_w: float
    bytes: float = 2.0
    last: float = 0.0
    compiled: float = 0.0
    fused: float = 1.0
    mixed: float = 0.0


def category(op: Op) -> str:
    """Whose parameters an op takes; branches on its structure alone."""
    back = " backward" if op.phase == "backward" else ""
    if op.kind == "conv":
        gradient = f" {op.form}" if op.form.endswith("gradient") else ""
        grouped = op.groups > 1.0
        depthwise = grouped and (op.k == op.taps or (op.k == 1.0 and op.n == op.groups * op.taps))
        return ("depthwise" if depthwise else "grouped" if grouped else "conv") + gradient
    if op.kind == "gemm":
        return "product"
    if op.kind in ("attention", "recurrent"):
        return op.kind + back
    if op.kind == "embedding":
        return op.form + back
    return op.form + (back if op.form in ("batch norm", "layer norm", "pool", "softmax", "resample", "gather") else "")


# What a compiler folds into its neighbours.
_FOLDED = ("pointwise", "batch norm", "layer norm", "softmax", "reduce", "copy", "gather", "pool")


def op_time_s(op: Op, name: str, law: NetworkLaw, machine: Machine) -> float:
    """Seconds of one application of an op of category `name` on the device, its launch included."""
    number = law.number
    launch = number["launch_s"] * (1.0 - machine.compiled * (1.0 - number["compiled_launches"]))
    moved = op.elements * machine.bytes
    bandwidth = machine.memory_bytes_per_s
    share = law.share(name)
    backward = op.phase == "backward"
    peak = sustained_flop_per_s(machine.peak_flop_per_s, machine.tdp_w, number["j_per_flop"])
    product_peak = sustained_flop_per_s(machine.product_flop_per_s, machine.tdp_w, number["j_per_flop"])
    if op.kind == "conv" and name.startswith("depthwise"):
        slower = 1.0 + (1.0 - machine.last) * number["first_depthwise"]
        return depthwise_time_s(
            op.m, op.n, op.k, moved, machine.vector_flop_per_s, bandwidth, law.peak[name], share, slower, launch
        )
    if op.kind == "conv":
        # Tensor cores read channels last: images that lie the other way are turned round.
        moved = moved * (1.0 + (1.0 - machine.last) * number["first_passes"]) + op.n * op.k * machine.bytes
        return tiled_time_s(
            op.m, op.n, op.k, op.groups, moved, peak, bandwidth, law.peak[name], share, number["depth_half"],
            number["wave_weight"], number["tile_columns"], machine.multiprocessors, launch,
        )  # fmt: skip
    if op.kind == "gemm":
        return tiled_time_s(
            op.m, op.n, op.k, 1.0, moved, product_peak, bandwidth, law.peak[name], share,
            number["product_depth_half"], number["wave_weight"], number["tile_columns"], machine.multiprocessors, launch,
        )  # fmt: skip
    if op.kind == "attention":
        scores = op.sequences * op.heads * op.queries * op.keys * machine.bytes
        scores = scores * (1.0 - machine.fused) * number["score_passes"] * (2.0 if backward else 1.0)
        return fused_attention_time_s(
            op.sequences, op.queries, op.keys, op.heads, op.key_size, op.value_size, moved, product_peak, bandwidth,
            law.peak["attention"], share, number["size_half"], number["attention_backward"] if backward else 1.0, scores,
            bandwidth * law.share("softmax"), launch * (1.0 + 4.0 * (1.0 - machine.fused)),
        )  # fmt: skip
    if op.kind == "recurrent":
        return recurrent_time_s(
            op.m, op.n, op.k, op.queries, moved, product_peak, bandwidth, law.peak["recurrent"], share,
            number["step_s"], 2.0 if backward else 1.0, launch,
        )  # fmt: skip
    left = 1.0 - machine.compiled * (1.0 - number["compiled_traffic"]) if op.form in _FOLDED else 1.0
    # Under autocast norms of rows and softmax run in fp32 and are cast back.
    wider = 1.0 + machine.mixed * number["mixed_norm"] if op.form in ("layer norm", "softmax") else 1.0
    return memory_bound_time_s(moved * left * wider, bandwidth, share, left, launch)


def load_network_law(device: Device) -> NetworkLaw:
    """The law of a device's kind of processor."""
    tables = read_toml(FILE)
    kind = "cpu" if device.kind == "CPU" or device.id.endswith("-cpu") else "gpu"
    row = tables[kind]
    return NetworkLaw(
        peak=row["peak"],
        bandwidth=row["bandwidth"],
        number=row["number"],
        interval={name: (ends[0], ends[1]) for name, ends in row["interval"].items()},
        source=f"{row['source']} ({row['date']})",
    )
