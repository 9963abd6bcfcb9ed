"""Scaling laws: how much data a model deserves."""

from capacity.formula import formula


@formula(unit="1", symbol="D^*", cite="hoffmann2022")
def compute_optimal_tokens(params: float, tokens_per_param: float = 20.0) -> float:
    """Training tokens that make a model of this size compute-optimal: about 20 a parameter.

    Valid for: dense decoders from 0.07 to 16 billion parameters; the replication of besiroglu2024 finds
    an interval of about 15 to 30. Models that will serve much traffic are trained far longer.
    """
    return params * tokens_per_param


@formula(unit="1", symbol="L", cite="hoffmann2022, besiroglu2024")
def expected_loss(
    params: float,
    tokens: float,
    irreducible: float = 1.8172,
    params_scale: float = 482.01,
    params_exponent: float = 0.3478,
    tokens_scale: float = 2085.43,
    tokens_exponent: float = 0.3658,
) -> float:
    """Loss in nats per token after training (parametric fit, as replicated in 2024).

    1. L = E + A / N^alpha + B / D^beta.
    Valid for: the data mix and tokeniser of that study; other corpora shift E.
    """
    too_small: float = params_scale / params**params_exponent
    too_short: float = tokens_scale / tokens**tokens_exponent
    return irreducible + too_small + too_short
