"""Floating-point operations, by kind of op. One multiply-add is two FLOP."""

from capacity import ops
from capacity.formula import formula

FLOP_PER_MAC = 2.0


@formula(unit="FLOP", symbol="F_gemm")
def gemm_flop(m: float, n: float, k: float, flop_per_mac: float = FLOP_PER_MAC) -> float:
    """Work of one matrix product.

    1. Each of m x n results sums k products.
    Counts: multiply and add apart. Ignores: bias additions.
    """
    return m * n * k * flop_per_mac


@formula(unit="FLOP", symbol="F_attn", cite="torch.utils.flop_counter, scaled_dot_product_attention")
def attention_flop(
    sequences: float,
    queries: float,
    keys: float,
    heads: float,
    key_size: float,
    value_size: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Work of the attention core as a dense product of all queries with all keys.

    1. Scores: queries x keys products of key_size numbers a head.
    2. Values: queries x keys weights times value_size numbers a head.
    Counts: the full square, causal mask or window not subtracted (the convention of torch's counter
    and of 12 L h s per token). Ignores: softmax.
    """
    return sequences * heads * queries * keys * (key_size + value_size) * flop_per_mac


@formula(unit="1", symbol="K_c")
def compressed_keys(keys: float, stride: float) -> float:
    """Keys stored when every `stride` tokens are folded into one; an unfinished fold stores none.

    Valid for: whole numbers.
    """
    return ops.ceil((keys + 1.0) / stride) - 1.0


@formula(unit="1", symbol="\\bar K")
def mean_visible_keys(queries: float, keys: float, window: float, causal: float) -> float:
    """Keys a query sees on average.

    1. Not causal: every key, or the window.
    2. Causal: query i (of the last `queries` of `keys`) sees past + i keys, at most the window W.
       With p = keys - queries, the mean of min(p + i, W) over i = 1..queries: the first r queries,
       r = clip(W - p, 0, queries), see p + (r + 1) / 2 on average, the others W.
    Valid for: queries >= 1. A chunked window counts as a sliding one.
    """
    past = keys - queries
    reach = ops.minimum(window, keys)
    ramp = ops.minimum(ops.maximum(reach - past, 0.0), queries)
    seen = (ramp * (past + (ramp + 1.0) / 2.0) + (queries - ramp) * reach) / queries
    return ops.where(causal, seen, reach)


@formula(unit="FLOP", symbol="F_attn^{vis}", cite="dao2023")
def visible_attention_flop(
    sequences: float,
    queries: float,
    visible_keys: float,
    heads: float,
    key_size: float,
    value_size: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Work of the attention core on the keys a query may see: what a fused kernel has to do.

    Counts: visible query-key pairs only. Ignores: softmax, padding to tiles.
    """
    return sequences * heads * queries * visible_keys * (key_size + value_size) * flop_per_mac


@formula(unit="FLOP", symbol="F_conv")
def convolution_flop(
    positions: float,
    out_channels: float,
    in_channels: float,
    kernel: float,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Work of a convolution: each output sums in_channels x kernel products."""
    return positions * out_channels * in_channels * kernel * flop_per_mac


@formula(unit="FLOP", symbol="F_6N", cite="kaplan2020")
def rule_of_thumb_training_flop(params: float, tokens: float, flop_per_param_token: float = 6.0) -> float:
    """The rule of thumb 6 N D: 2 N forward and 4 N backward per token.

    Ignores: attention over the sequence, recomputation.
    """
    return params * tokens * flop_per_param_token


@formula(unit="FLOP", symbol="F_{NS}", cite="jordan2024")
def newton_schulz_flop(
    weight_elements: float,
    width: float,
    iterations: float = 5.0,
    products: float = 3.0,
    flop_per_mac: float = FLOP_PER_MAC,
) -> float:
    """Work of orthogonalising the updates of all matrices, as Muon does.

    1. An iteration takes three products; of an m x n matrix (m the smaller side) each is about m for every element.
    Counts: iterations in 16 bits. Ignores: vectors and tables, which take another optimizer.
    """
    return weight_elements * width * iterations * products * flop_per_mac


@formula(unit="FLOP", symbol="F_bwd")
def backward_flop(forward_flop: float, backward_ratio: float = 2.0) -> float:
    """Work of the backward pass: one product for the inputs' and one for the weights' gradient per forward product.

    Valid for: full training; with frozen weights only the inputs' gradient is computed (ratio 1).
    """
    return forward_flop * backward_ratio
