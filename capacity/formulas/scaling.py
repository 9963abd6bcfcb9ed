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


@formula(unit="1", symbol="N^*", cite="hoffmann2022, besiroglu2024")
def compute_optimal_params(
    training_flop: float,
    params_scale: float = 482.01,
    params_exponent: float = 0.3478,
    tokens_scale: float = 2085.43,
    tokens_exponent: float = 0.3658,
    flop_per_param_token: float = 6.0,
) -> float:
    """Parameters of the model that a training budget brings to the lowest loss; the tokens are what the budget leaves.

    1. C = 6 N D, and L = E + A / N^alpha + B / D^beta is least where alpha A / N^alpha = beta B / D^beta.
    2. So N = (alpha A / (beta B))^(1 / (alpha + beta)) (C / 6)^(beta / (alpha + beta)).
    Ignores: attention's own work, and what serving the model will cost.
    """
    together = params_exponent + tokens_exponent
    balance = (params_exponent * params_scale / (tokens_exponent * tokens_scale)) ** (1.0 / together)
    param_tokens = training_flop / flop_per_param_token
    optimum: float = balance * param_tokens ** (tokens_exponent / together)
    return optimum


@formula(unit="1", symbol="D_L", cite="hoffmann2022, besiroglu2024")
def tokens_for_loss(
    params: float,
    loss: float,
    irreducible: float = 1.8172,
    params_scale: float = 482.01,
    params_exponent: float = 0.3478,
    tokens_scale: float = 2085.43,
    tokens_exponent: float = 0.3658,
) -> float:
    """Training tokens that bring a model to a loss, in nats a token.

    1. The law of `expected_loss`, solved for its tokens: D = (B / (L - E - A / N^alpha))^(1 / beta).
    Valid for: losses above E + A / N^alpha, which no number of tokens gets below.
    """
    left = loss - irreducible - params_scale / params**params_exponent
    tokens: float = (tokens_scale / left) ** (1.0 / tokens_exponent)
    return tokens


@formula(unit="FLOP", symbol="C_{life}", cite="sardana2024")
def lifetime_flop(
    params: float,
    tokens: float,
    served_tokens: float,
    training_flop_per_param_token: float = 6.0,
    serving_flop_per_param_token: float = 2.0,
) -> float:
    """Work of a model over its life: trained once, then read and written by its users.

    1. 6 N D to train, 2 N for each token that is served, prompts and answers alike.
    Ignores: attention's own work, and that serving reaches a smaller share of the peak.
    """
    served = params * served_tokens * serving_flop_per_param_token
    return params * tokens * training_flop_per_param_token + served
