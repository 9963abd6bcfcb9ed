"""Work and traffic of linear attention and state-space layers.

A layer keeps, per sequence and head, a state of key_size x value_size numbers. Written chunk by chunk
(training, prefill) most of the work is matrix products; step by step (decode) it is element-wise work on
the state, bound by reading and writing it. The `*_scan_flop` formulas count the matrix products of the
chunked PyTorch form in transformers 5.23, which is what torch's FlopCounterMode counts on the meta device.
"""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.formula import formula

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FLOP_PER_MAC = 2.0


@formula(unit="1", symbol="n_c")
def chunks(queries: float, chunk: float) -> float:
    """Chunks a sequence is padded to: the last one is filled up."""
    return ops.ceil(queries / chunk)


@formula(unit="FLOP", symbol="F_gdn", cite="yang2024")
def gated_delta_scan_flop(
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    chunk: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Matrix products of the chunked gated delta rule.

    Per sequence, head and chunk of C tokens, with keys of K and values of V numbers:
    1. Keys with keys and queries with keys inside the chunk: 2 products, C x C x K each.
    2. The triangular system of the C updates is solved, which torch does not count.
    3. Decayed keys and queries with the state left by the chunk before: 2 products, C x K x V each.
    4. Inside the chunk, scores with corrected values: C x C x V.
    5. Keys with corrected values, added to the state: K x C x V.
    Counts: padding of the last chunk. Ignores: the triangular solves (C x C x (K + V) / 2 MAC), decays, norms.
    """
    macs = chunk * chunk * (2.0 * key_size + value_size) + 3.0 * chunk * key_size * value_size
    return sequences * heads * chunks(queries, chunk) * macs * flop_per_mac


@formula(unit="FLOP", symbol="F_kda", cite="kimilinear2025")
def kda_scan_flop(
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    chunk: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Matrix products of chunked Kimi delta attention: the gated delta rule with a decay for each key channel.

    Per sequence, head and chunk of C tokens:
    1. The chunk's inverted system with keys and with values: C x C x K and C x C x V.
    2. Decayed keys and queries with the old state: 2 products, C x K x V each.
    3. Scores with corrected values: C x C x V. 4. Keys with corrected values: K x C x V.
    Counts: padding of the last chunk. Ignores: the scores themselves (2 x C x C x K MAC), which the reference
    forms element-wise because each channel decays apart.
    """
    macs = chunk * chunk * (key_size + 2.0 * value_size) + 3.0 * chunk * key_size * value_size
    return sequences * heads * chunks(queries, chunk) * macs * flop_per_mac


@formula(unit="FLOP", symbol="F_ssd", cite="dao2024")
def mamba2_scan_flop(
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    chunk: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Matrix products of Mamba-2's chunk scan (state-space duality); key_size is the state size, value_size the head's.

    Per sequence and head, with n chunks of C tokens:
    1. C with B inside each chunk: n x C x C x K. 2. These scores with the inputs: n x C x C x V.
    3. The state each chunk adds: n x K x C x V.
    4. States at chunk borders from all chunks before, one square product: (n + 1) x (n + 1) x K x V.
    5. C with the state each chunk starts from: n x C x K x V.
    Counts: padding of the last chunk; B and C repeated for each head of a group. Ignores: decays, the skip D.
    """
    n = chunks(queries, chunk)
    macs = n * (chunk * chunk * (key_size + value_size) + 2.0 * chunk * key_size * value_size)
    return sequences * heads * (macs + (n + 1.0) * (n + 1.0) * key_size * value_size) * flop_per_mac


@formula(unit="FLOP", symbol="F_light", cite="qin2024")
def lightning_scan_flop(
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    chunk: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Matrix products of lightning attention: linear attention with a fixed decay a head.

    Per sequence, head and chunk of c tokens (C, the last one only what is left, r):
    1. Scores and their values: c x c x K and c x c x V.
    2. Queries with the old state and keys with values: c x K x V each.
    3. Summed over chunks, c x c gives n x C x C + r x r and c gives the sequence's length.
    Ignores: decays. Valid for: whole numbers of queries.
    """
    full = ops.ceil((queries + 1.0) / chunk) - 1.0
    rest = queries - full * chunk
    macs = (full * chunk * chunk + rest * rest) * (key_size + value_size) + 2.0 * queries * key_size * value_size
    return sequences * heads * macs * flop_per_mac


@formula(unit="FLOP", symbol="F_ssm", cite="gu2023")
def mamba_scan_flop(
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Matrix products of Mamba's selective scan, step by step; heads are channels, key_size the state size, value_size 1.

    1. Each step reads each channel's state with C: key_size products.
    Ignores: the state's update, which the reference forms element-wise (see STEP_FLOP for all of a step).
    """
    return sequences * queries * heads * key_size * value_size * flop_per_mac


@formula(unit="FLOP", symbol="F_conv^{pad}")
def short_convolution_flop(
    sequences: float, queries: float, channels: float, kernel: float, flop_per_mac: float = FLOP_PER_MAC
) -> float:
    """Work of the short causal convolution as torch counts it: padded on both sides, the surplus cut off after.

    1. Each channel of each of queries + kernel - 1 outputs sums kernel products.
    """
    return sequences * (queries + kernel - 1.0) * channels * kernel * flop_per_mac


@formula(unit="byte", symbol="M_state")
def state_bytes(sequences: float, heads: float, key_size: float, value_size: float, bytes_per_element: float) -> float:
    """Memory of the recurrent states of one layer; they do not grow with the context.

    Valid for: bytes_per_element 4 in most runtimes, whatever the weights' precision.
    """
    return sequences * heads * key_size * value_size * bytes_per_element


@formula(unit="byte", symbol="M_conv")
def convolution_state_bytes(sequences: float, channels: float, kernel: float, bytes_per_element: float) -> float:
    """Memory of one layer's convolution states: the last kernel - 1 inputs of each channel."""
    return sequences * channels * (kernel - 1.0) * bytes_per_element


@formula(unit="byte", symbol="Q_state")
def step_state_traffic_bytes(
    sequences: float,
    heads: float,
    key_size: float,
    value_size: float,
    channels: float,
    kernel: float,
    bytes_per_state_element: float,
    bytes_per_activation: float,
) -> float:
    """Bytes a fused kernel moves for the states of one layer in one decode step.

    1. The recurrent state is read and written once. 2. So is the convolution's.
    Ignores: the step's own queries, keys and values (key_size and value_size numbers a head, against
    key_size x value_size of state).
    """
    state = state_bytes(sequences, heads, key_size, value_size, bytes_per_state_element)
    window = convolution_state_bytes(sequences, channels, kernel, bytes_per_activation)
    return 2.0 * (state + window)


@formula(unit="FLOP", symbol="F_step")
def step_flop(
    sequences: float, heads: float, key_size: float, value_size: float, flop_per_state_element: float
) -> float:
    """Work of one decode step of one layer in the recurrent form; see STEP_FLOP for the last factor."""
    return sequences * heads * key_size * value_size * flop_per_state_element


# FLOP per state element and step, by recurrence.
# Decay 1, add the outer product of key and value 2, read with the query 2: the plain gated forms.
# The delta rule first reads the state with the key: 2 more.
STEP_FLOP = {
    "mamba": 5.0,
    "mamba2": 5.0,
    "lightning": 5.0,
    "rg_lru": 3.0,
    "rwkv": 5.0,
    "gated_delta": 7.0,
    "kda": 7.0,
}

# Recurrences whose reference form is element-wise throughout: torch counts nothing.
_ELEMENTWISE = ("rg_lru", "rwkv")

_SCANS: dict[str, Callable[..., float]] = {
    "lightning": lightning_scan_flop,
    "gated_delta": gated_delta_scan_flop,
    "kda": kda_scan_flop,
    "mamba2": mamba2_scan_flop,
}


def counted_scan_flop(
    form: str,
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    groups: float,
    chunk: float,
) -> float:
    """FLOPs of a recurrence: the matrix products of its reference form, or for a single token all work of one step."""
    del groups  # every reference form repeats a group's keys for each of its heads first
    if form not in STEP_FLOP:
        raise InputError(f"no FLOP count for recurrence {form!r}; known are {', '.join(STEP_FLOP)}")
    step = step_flop(sequences, heads, key_size, value_size, STEP_FLOP[form])
    if form in _ELEMENTWISE:
        many = 0.0
    elif form == "mamba":
        many = mamba_scan_flop(sequences, queries, heads, key_size, value_size)
    else:
        many = _SCANS[form](sequences, queries, heads, key_size, value_size, chunk)
    flop: float = ops.where(queries > 1.0, many, step)
    return flop
