"""Bytes that move: through memory, over the network, to storage."""

from capacity import ops
from capacity.formula import formula


@formula(unit="FLOP/byte", symbol="I")
def arithmetic_intensity(work_flop: float, moved_bytes: float) -> float:
    """Work per byte moved through device memory."""
    return work_flop / moved_bytes


@formula(unit="FLOP/byte", symbol="I_ridge", cite="williams2009")
def ridge_point(peak_flop_per_s: float, memory_bytes_per_s: float) -> float:
    """Intensity at which a device is as much bound by compute as by bandwidth."""
    return peak_flop_per_s / memory_bytes_per_s


@formula(unit="byte", symbol="Q_gemm")
def gemm_bytes(
    m: float, n: float, k: float, matrices: float, bytes_per_weight: float, bytes_per_activation: float
) -> float:
    """Memory traffic of a product (or of `matrices` products of m rows in all): weights once, activations once each way."""
    return matrices * n * k * bytes_per_weight + m * (n + k) * bytes_per_activation


@formula(unit="1", symbol="E_hit")
def experts_touched(experts: float, active: float, tokens: float) -> float:
    """Experts at least one of `tokens` tokens is sent to, when routing is even.

    1. A token leaves an expert alone with probability 1 - active / experts.
    Ignores: skew of real routing, which touches fewer.
    """
    untouched: float = (1.0 - active / experts) ** tokens
    return experts * (1.0 - untouched)


@formula(unit="1", symbol="n_max", cite="raab1998")
def busiest_rank(mean: float, ranks: float) -> float:
    """What the fullest of `ranks` gets when independent things fall on them evenly, `mean` on each.

    1. Counts scatter by sqrt(mean); of that many draws the largest lies sqrt(2 ln ranks) of this above the mean.
    Valid for: a mean above ln(ranks). Ignores: skew of real routing, which adds to it, and balancing, which takes from it.
    """
    above: float = (2.0 * mean * ops.log(ops.maximum(ranks, 1.0))) ** 0.5
    return mean + above


@formula(unit="byte", symbol="Q_ckpt")
def checkpoint_bytes(
    weight_elements: float, trained_elements: float, bytes_per_weight: float, bytes_per_state: float
) -> float:
    """A checkpoint that training can resume from: weights, master copy and optimizer states, no gradients."""
    return weight_elements * bytes_per_weight + trained_elements * bytes_per_state


@formula(unit="byte", symbol="Q_data")
def dataset_bytes(tokens: float, bytes_per_token: float) -> float:
    """Tokenised training data: 2 bytes a token while the vocabulary is below 65,536, else 4."""
    return tokens * bytes_per_token


@formula(unit="s", symbol="t_load")
def loading_time_s(loaded_bytes: float, bytes_per_s: float) -> float:
    """Time to bring weights from storage to the devices of a node."""
    return loaded_bytes / bytes_per_s


@formula(unit="byte", symbol="Q_swap", cite="rajbhandari2021")
def swapped_bytes(
    elements: float, bytes_per_state: float, bytes_per_gradient: float, bytes_per_weight: float = 0.0
) -> float:
    """What an update of weights moves between a host and its drives, where optimizer states live there.

    1. States and master weights are read and written back.
    2. Gradients are written while the backward pass gives them, and read for the update.
    3. Weights that live there too are written once; their reading is a matter of the passes.
    """
    return elements * (2.0 * bytes_per_state + 2.0 * bytes_per_gradient + bytes_per_weight)


@formula(unit="byte/s", symbol="B_data")
def feed_bytes_per_s(tokens_per_s: float, bytes_per_token: float) -> float:
    """Rate at which storage must feed the data loader."""
    return tokens_per_s * bytes_per_token
