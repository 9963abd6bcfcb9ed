"""Questions asked backwards: the largest model, the most tokens, the fewest devices, the longest context that a question holds for."""

from __future__ import annotations

from time import perf_counter

from capacity.errors import CapacityError, InputError
from capacity.estimators.assumptions import number, one_of
from capacity.planning.question import LIMITS, MODES, SOLVED, plain
from capacity.planning.scaling import DEFAULT_LAW, for_budget, for_loss, load_law
from capacity.record import Record
from capacity.spec.solution import Solution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from capacity.planning.bisection import Trials
    from capacity.planning.scaling import Law, Optimum
    from capacity.spec.choice import Option
    from capacity.spec.estimate import Estimate

UNITS = {"params": "1", "tokens": "1", "budget": "USD", "days": "s"}


class Asked(Record):
    """A question to solve: the request of an estimate, limits in base units, and what a scaling law is asked for."""

    what: str
    request: dict[str, Any]
    limits: dict[str, float]
    law: Law
    flop_budget: float | None
    target_loss: float | None
    served_tokens: float

    @property
    def serves(self) -> bool:
        """Whether it is about serving."""
        return self.request.get("mode") == "serve"


class Answer(Record):
    """What a solver found."""

    value: float | None
    verdict: str
    trials: Trials | None = None
    beyond: float | None = None
    option: Option | None = None
    estimate: Estimate | None = None
    facts: dict[str, float] = {}
    warnings: tuple[str, ...] = ()


def solve(what: str, **request: Any) -> Solution:
    """The value of one input for which the rest of the question holds.

    what: "params" (the largest model within budget and deadline, or the best for flop_budget or target_loss), "tokens" (the most,
    or those that reach target_loss), "devices" (the fewest within deadline and budget, or for request_rate and promises),
    "seq-len" (the longest that fits), "concurrency" (the most within promises), "budget" (the least within the deadline),
    "days" (the fewest within the budget), "global-batch" (the smallest that keeps the pace, or the deadline). The request is
    that of `capacity.plan`, with flop_budget (FLOP), target_loss (nats a token), served_tokens and law beside it.
    Returns a Solution; that nothing holds is an answer. Raises CapacityError, in one line, for input that makes no sense.
    """
    try:
        import numpy  # noqa: F401, ICN001 - asked for only whether it is there
    except ImportError:
        raise CapacityError("planning needs NumPy: pip install 'model-capacity[sweep]'") from None
    started = perf_counter()
    asked = _read(what, request)
    found = _solver(asked)
    beyond = None if found.beyond is None or found.trials is None else found.trials.at(found.beyond)
    asks_law = asked.flop_budget is not None or asked.target_loss is not None
    law = {"name": asked.law.name, "title": asked.law.title, "source": asked.law.source, "valid": asked.law.valid}
    return Solution(
        request={key: plain(value) for key, value in request.items() if value is not None},
        solve=asked.what,
        limits=asked.limits,
        value=found.value,
        unit=UNITS.get(asked.what, "1"),
        verdict=found.verdict,
        beyond=beyond,
        option=found.option,
        estimate=found.estimate,
        facts=found.facts,
        trials=found.trials.all() if found.trials is not None else (),
        seconds=perf_counter() - started,
        law=law if asks_law else None,
        warnings=found.warnings,
    )


def _read(what: str, request: dict[str, Any]) -> Asked:
    word = one_of("--solve", what.replace("_", "-"), SOLVED)
    assert word is not None
    rest = {name: value for name, value in request.items() if value is not None}
    one_of("--mode", rest.get("mode"), MODES)
    limits: dict[str, float] = {}
    for name, unit in LIMITS.items():
        value = number("--" + name.replace("_", "-"), rest.pop(name, None), unit, 0.0, 1e30, above=True)
        if value is not None:
            limits[name] = value
    rest.pop("objective", None)
    law = load_law(str(rest.pop("law", DEFAULT_LAW)))
    flop = number("--flop-budget", rest.pop("flop_budget", None), "FLOP", 1e12, 1e32)
    loss = number("--target-loss", rest.pop("target_loss", None), "1", 0.0, 20.0, above=True)
    served = number("--served-tokens", rest.pop("served_tokens", None), "1", 0.0, 1e20)
    if flop is not None and loss is not None:
        raise InputError("--flop-budget and --target-loss given: a budget gives a loss and a loss a budget; give one")
    if (flop is not None or loss is not None) and word not in ("params", "tokens"):
        raise InputError(f"--flop-budget and --target-loss ask a scaling law: --solve params or tokens, not {word}")
    if served is not None and flop is None and loss is None:
        raise InputError("--served-tokens is counted by scaling laws: add --flop-budget or --target-loss")
    if loss is not None and law.form != "loss":
        raise InputError(f"--law {law.name} says how a budget is dealt, not what loss it reaches; take {DEFAULT_LAW}")
    return Asked(word, rest, limits, law, flop, loss, served or 0.0)


def _solver(asked: Asked) -> Answer:
    if asked.what in ("params", "tokens") and (asked.flop_budget is not None or asked.target_loss is not None):
        return _by_law(asked)
    if asked.serves:
        from capacity.planning.serving_backwards import SOLVERS as SERVING

        return _among(SERVING, asked, "to serve")(asked)
    from capacity.planning.training_backwards import SOLVERS as TRAINING

    return _among(TRAINING, asked, "to train")(asked)


def _among(solvers: Mapping[str, Callable[[Asked], Answer]], asked: Asked, purpose: str) -> Callable[[Asked], Answer]:
    if asked.what not in solvers:
        raise InputError(f"--solve {asked.what} has no meaning {purpose}: known are {', '.join(solvers)}")
    return solvers[asked.what]


def _by_law(asked: Asked) -> Answer:
    """Parameters and tokens from a scaling law, priced on devices where the question names some."""
    law = asked.law
    given = asked.request.get("params") or asked.request.get("model") or asked.request.get("config")
    if asked.what == "tokens":
        if given is None:
            raise InputError("--solve tokens is about one model: give --params, --model or --config")
        return _tokens(asked)
    if given is not None:
        raise InputError("--solve params looks for the model: leave --params, --model and --config out")
    found = (
        for_budget(law, asked.flop_budget, asked.served_tokens)
        if asked.flop_budget is not None
        else for_loss(law, asked.target_loss or 0.0, asked.served_tokens)
    )
    if found is None:
        return Answer(
            None,
            f"INFEASIBLE: no model of {law.title} reaches {asked.target_loss:g} nats a token: its floor is "
            f"{law.constants['E']:g}, the noise in the text itself",
        )
    return _priced(asked, found.params, found.tokens, found)


def _tokens(asked: Asked) -> Answer:
    from capacity.estimators.case import read_case
    from capacity.estimators.training_account import active_params
    from capacity.quantities import format

    params = float(active_params(read_case({**asked.request, "mode": "train"}).model))
    if asked.flop_budget is not None:
        tokens = (asked.flop_budget - 2.0 * params * asked.served_tokens) / (6.0 * params)
        if tokens <= 0.0:
            return Answer(None, "INFEASIBLE: serving alone takes more work than the budget has")
    else:
        loss = asked.target_loss or 0.0
        tokens = asked.law.tokens(params, loss)
        if tokens == float("inf"):
            return Answer(
                None,
                f"INFEASIBLE: no number of tokens brings {format(params, '1')} parameters to {loss:g} nats a token by {asked.law.title}: "
                f"{asked.law.least_loss(params):.4g} is the least; take a larger model",
            )
    return _priced(asked, params, float(tokens), None)


def _priced(asked: Asked, params: float, tokens: float, found: Optimum | None) -> Answer:
    """A model and its tokens in words, with the run on the devices that were named."""
    from capacity.quantities import format

    law = asked.law
    loss = law.loss(params, tokens) if law.form == "loss" else None
    facts = {
        "params": params,
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "training_flop": 6.0 * params * tokens,
    }
    if asked.served_tokens:
        facts |= {
            "served_tokens": asked.served_tokens,
            "lifetime_flop": facts["training_flop"] + 2.0 * params * asked.served_tokens,
        }
    if loss is not None:
        facts["loss"] = loss
    said = f"{format(params, '1')} parameters on {format(tokens, '1')} tokens, {tokens / params:.3g} each"
    if loss is not None:
        said += f": {loss:.4g} nats a token"
    said += f", {format(facts['training_flop'], 'FLOP')} to train"
    if asked.served_tokens:
        said += f" and {format(2.0 * params * asked.served_tokens, 'FLOP')} to serve {format(asked.served_tokens, '1')} tokens"
    option = estimate = None
    if found is None or any(name in asked.request for name in ("device", "devices", "nodes", "cluster")):
        from capacity.planning.training_backwards import run_of

        model = {"params": params} if found is not None else {}
        option, estimate = run_of(asked.request | model | {"tokens": tokens}, asked.limits)
        facts |= option.values if option is not None else {}
    value = params if asked.what == "params" else tokens
    return Answer(value, said, option=option, estimate=estimate, facts=facts)
