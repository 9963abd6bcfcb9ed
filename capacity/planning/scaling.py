"""How large a model a budget deserves: published scaling laws, with the cost of serving counted in where it is known."""

from __future__ import annotations

import os
from math import exp, log

from capacity.errors import UnknownNameError
from capacity.formulas import scaling
from capacity.record import Record
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_LAW = "besiroglu2024"
_FILE = os.path.join(os.path.dirname(__file__), "data", "scaling_laws.toml")
# Sizes that are searched.
LEAST_PARAMS, MOST_PARAMS = 1e6, 1e14
_GOLDEN = (5.0**0.5 - 1.0) / 2.0


class Law(Record):
    """A scaling law as published. form: "loss" (E, A, B, alpha, beta) or "optimum" (scale, exponent)."""

    name: str
    title: str
    form: str
    valid: str
    source: str
    constants: dict[str, float]

    def loss(self, params: float, tokens: float) -> float:
        """Nats a token after training."""
        return scaling.expected_loss(params, tokens, **self._named())

    def least_loss(self, params: float) -> float:
        """What no number of tokens brings a model of this size below."""
        return self.constants["E"] + float(self.constants["A"] / params ** self.constants["alpha"])

    def tokens(self, params: float, loss: float) -> float:
        """Tokens that bring a model to a loss; infinite where none do."""
        if loss <= self.least_loss(params):
            return float("inf")
        return scaling.tokens_for_loss(params, loss, **self._named())

    def optimum(self, budget_flop: float) -> tuple[float, float]:
        """Parameters and tokens of least loss for a training budget."""
        if self.form == "optimum":
            tokens = self.constants["scale"] * budget_flop ** self.constants["exponent"]
            return budget_flop / (6.0 * tokens), tokens
        named = self._named()
        del named["irreducible"]
        params = scaling.compute_optimal_params(budget_flop, **named)
        return params, budget_flop / (6.0 * params)

    def _named(self) -> dict[str, float]:
        names = {
            "irreducible": "E", "params_scale": "A", "params_exponent": "alpha", "tokens_scale": "B", "tokens_exponent": "beta",
        }  # fmt: skip
        return {name: self.constants[letter] for name, letter in names.items()}


class Optimum(Record):
    """A model that is best for its budget or its loss: parameters, tokens, loss (None: the law says none), lifetime work."""

    law: Law
    params: float
    tokens: float
    loss: float | None
    work_flop: float


def law_names() -> tuple[str, ...]:
    """Names of all scaling laws."""
    return tuple(read_toml(_FILE))


def load_law(name: str = DEFAULT_LAW) -> Law:
    """A scaling law by name. Raises UnknownNameError."""
    table = read_toml(_FILE).get(name)
    if table is None:
        raise UnknownNameError("scaling law", name, law_names(), f"known are {', '.join(law_names())}")
    words = {word: table[word] for word in ("title", "form", "valid", "source")}
    return Law(name=name, constants={k: v for k, v in table.items() if isinstance(v, float)}, **words)


def for_budget(law: Law, budget_flop: float, served_tokens: float = 0.0) -> Optimum:
    """The model of least loss for all the work a budget pays: training, and serving so many tokens (sardana2024)."""
    if not served_tokens or law.form == "optimum":
        params, tokens = law.optimum(budget_flop)
    else:

        def left(params: float) -> float:
            return (budget_flop - 2.0 * params * served_tokens) / (6.0 * params)

        most = min(MOST_PARAMS, budget_flop / (2.0 * served_tokens) * (1.0 - 1e-9))
        params = _least(lambda params: law.loss(params, max(left(params), 1.0)), LEAST_PARAMS, most)
        tokens = left(params)
    loss = law.loss(params, tokens) if law.form == "loss" else None
    return Optimum(law, params, tokens, loss, scaling.lifetime_flop(params, tokens, served_tokens))


def for_loss(law: Law, loss: float, served_tokens: float = 0.0) -> Optimum | None:
    """The model that reaches a loss with least work over its life; None where no model does."""
    if law.form != "loss" or loss <= law.constants["E"]:
        return None
    params = _least(
        lambda params: scaling.lifetime_flop(params, law.tokens(params, loss), served_tokens), LEAST_PARAMS, MOST_PARAMS
    )
    tokens = law.tokens(params, loss)
    if tokens == float("inf"):
        return None
    return Optimum(law, params, tokens, loss, scaling.lifetime_flop(params, tokens, served_tokens))


def _least(of: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one valley is least between two positive numbers: golden section on the logarithm.

    Infinite values count as the wall of the lower end: models too small to reach a loss.
    """
    a, b = log(low), log(high)
    while b - a > 1e-9:
        c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        left, right = of(exp(c)), of(exp(d))
        if left == float("inf") or left > right:
            a = c
        else:
            b = d
    return exp((a + b) / 2.0)
