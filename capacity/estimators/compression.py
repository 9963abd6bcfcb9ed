"""Compression: what each way to make a model smaller brings on a device, and what published measurements say it costs."""

from __future__ import annotations

import os

from capacity.catalogue.entry import SHIPPED
from capacity.errors import CapacityError, InputError
from capacity.estimators.assumptions import number
from capacity.estimators.case import read_case
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count
from capacity.estimators.serving import serving_quantities
from capacity.record import Record, replace
from capacity.spec.model import COLUMN, REPLICATED, ROW, Attention, FeedForward
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.spec.estimate import Quantity
    from capacity.spec.model import Linear, ModelSpec, Sublayer

# Tokens a student is trained on where nothing is said, and the share of peak such training keeps.
STUDENT_TOKENS, STUDENT_MFU = 1e11, 0.4


class Quality(Record):
    """Published change of a metric: perplexity as a fraction of the baseline, accuracy as a difference; lowest to highest of n."""

    metric: str
    low: float
    mid: float
    high: float
    n: float
    models: str
    source: str
    date: str


class Option(Record):
    """One method on one device.

    quality: published changes, None where nobody measured them. reached: whether all targets are; missed: those that
    are not. quantities are those of serving.
    """

    method: str
    title: str
    kind: str
    fits: bool
    reached: bool
    missed: tuple[str, ...]
    memory: Quantity | None
    tokens_per_s: Quantity | None
    energy: Quantity | None
    cost: Quantity | None
    quality: tuple[Quality, ...] | None
    note: str = ""


class Targets(Record):
    """What must be reached: bytes on a device, tokens a second for each user, joules a token; None for no target."""

    memory: float | None
    tokens_per_s: float | None
    energy: float | None


def compress(**request: Any) -> list[Option]:
    """Every method for a model on a device, those that reach the targets first, the least loss of quality first among them.

    request: as for `capacity.estimate` in mode serve, without precisions; and `memory`, `tokens_per_s`, `energy_per_token` as
    targets, `student` (a smaller model) with `student_tokens`. Raises CapacityError in one line for what makes no sense.
    """
    targets = Targets(
        number("--memory", request.pop("memory", None), "byte", 1e6, 1e15),
        number("--tokens-per-s", request.pop("tokens_per_s", None), "1/s", 0.0, 1e9, above=True),
        number("--energy-per-token", request.pop("energy_per_token", None), "J", 0.0, 1e9, above=True),
    )
    student, tokens = (
        request.pop("student", None),
        number("--student-tokens", request.pop("student_tokens", None), "1", 1e6, 1e16),
    )
    for name in ("precision", "kv_precision", "weight_bits"):
        if name in request:
            raise InputError(f"--{name.replace('_', '-')} is what the methods differ in; leave it out")
    if "tp" not in request:
        # Otherwise the least that holds a method would be taken, which makes no two comparable.
        request.setdefault("devices", 1)
    case = read_case(request | {"mode": "serve"})
    model, table = case.model, _methods()
    found = [
        option
        for name, method in table["methods"].items()
        if (option := _option(request, model, name, method, table["quality"], targets)) is not None
    ]
    if student is not None:
        found.append(_student(request, model, str(student), tokens or STUDENT_TOKENS, targets))
    return sorted(found, key=lambda one: (not one.reached, not one.fits, _loss(one), -_pace(one)))


def compression_methods() -> tuple[dict[str, Any], dict[str, Any]]:
    """Methods by name, and what was published of their quality."""
    table = _methods()
    return table["methods"], table["quality"]


def worst_loss(method: dict[str, Any], known: dict[str, Any]) -> float | None:
    """The worst published loss of a method, as compress ranks it; None where nobody measured it."""
    if "quality" not in method:
        return None
    rows = [_quality(one) for part in method["quality"] for one in known.get(part, ())]
    return sum(row.high if row.metric == "perplexity" else -row.low for row in rows)


def _methods() -> dict[str, Any]:
    return read_toml(os.path.join(SHIPPED, "compression", "methods.toml"))


def _option(
    request: dict[str, Any],
    model: ModelSpec,
    name: str,
    method: dict[str, Any],
    known: dict[str, Any],
    targets: Targets,
) -> Option | None:
    if "layers" in method:
        model = without_layers(model, method["layers"])
    if "rank_share" in method:
        model = low_rank(model, method["rank_share"])
    asked = {key: method[key] for key in ("precision", "weight_bits", "kv_precision") if key in method}
    quality = tuple(_quality(one) for part in method.get("quality", ()) for one in known.get(part, ()))
    try:
        return _priced(
            request | {"model": model} | asked,
            Option(
                name,
                method["title"],
                method["kind"],
                False,
                False,
                (),
                None,
                None,
                None,
                None,
                quality if "quality" in method else None,
                method.get("note", ""),
            ),
            targets,
        )
    except CapacityError:
        # A device without such arithmetic: the method is none for it.
        return None


def _priced(request: dict[str, Any], option: Option, targets: Targets) -> Option:
    request = {key: value for key, value in request.items() if key not in ("params", "config")} | {"mode": "serve"}
    load, quantities = serving_quantities(read_case(request))
    memory, pace = quantities["memory_per_device"], quantities["tokens_per_s_per_user"]
    energy = quantities["energy_per_token"]
    missed = []
    if not load.fits:
        missed.append("does not fit")
    if targets.memory is not None and memory.mid > targets.memory:
        missed.append("memory")
    if targets.tokens_per_s is not None and pace.mid < targets.tokens_per_s:
        missed.append("speed")
    if targets.energy is not None and energy.mid > targets.energy:
        missed.append("energy")
    return replace(
        option,
        fits=load.fits,
        reached=not missed,
        missed=tuple(missed),
        memory=memory,
        tokens_per_s=pace,
        energy=energy,
        cost=quantities.get("cost_per_million_tokens"),
    )


def _student(request: dict[str, Any], teacher: ModelSpec, name: str, tokens: float, targets: Targets) -> Option:
    """A smaller model that learns from this one, and what teaching it costs."""
    from capacity.catalogue import load_model
    from capacity.estimators.rigs import rig

    model = load_model(name)
    own, other = lower(model, Tokens()), lower(teacher, Tokens())
    if parameter_count(own) >= parameter_count(other):
        raise InputError(f"--student {model.name} is no smaller than {teacher.name}")
    # The student is run forward and back (6 FLOP a parameter and token), the teacher forward (2).
    work = tokens * (6.0 * active_parameter_count(own) + 2.0 * active_parameter_count(other))
    cluster, _ = rig("h100-sxm")
    hours = work / (cluster.device.peak_dense_flop_per_s["bf16"] * STUDENT_MFU) / 3600.0
    price = cluster.device.usd_per_hour or 0.0
    note = f"taught on {tokens:.3g} tokens: {hours:,.0f} hours of {cluster.device.name}, ${hours * price:,.0f}"
    option = Option(
        f"student-{model.name}",
        f"{model.name}, taught by this one",
        "distillation",
        False,
        False,
        (),
        None,
        None,
        None,
        None,
        None,
        note,
    )
    return _priced(request | {"model": model, "precision": "bf16"}, option, targets)


def without_layers(model: ModelSpec, kept: float) -> ModelSpec:
    """A model with a share of its layers, evenly of each kind."""
    blocks = tuple(replace(block, count=max(round(block.count * kept), 1.0)) for block in model.blocks)
    return replace(model, name=f"{model.name} with {kept:.0%} of its layers", blocks=blocks)


def low_rank(model: ModelSpec, kept: float) -> ModelSpec:
    """A model whose maps of attention and dense feed-forward layers are products of two thin ones with a share of the weights.

    out x in becomes out x r and r x in, with r (out + in) = kept x out x in: two products for each, one after the other.
    """

    def thin(layer: Sublayer) -> Sublayer:
        if not isinstance(layer, (Attention, FeedForward)):
            return layer
        found: list[Linear] = []
        for linear in layer.projections:
            rank = max(
                round(kept * linear.in_features * linear.out_features / (linear.in_features + linear.out_features)), 1
            )
            # Tensor parallelism cuts the side it cut before; the other factor is whole on every device.
            first = linear.shard if linear.shard == ROW else REPLICATED
            second = linear.shard if linear.shard == COLUMN else REPLICATED
            found += [
                replace(linear, name=f"{linear.name}.down", out_features=float(rank), bias=False, shard=first),
                replace(linear, name=f"{linear.name}.up", in_features=float(rank), shard=second),
            ]
        return replace(layer, projections=tuple(found))

    blocks = tuple(replace(block, sublayers=tuple(thin(layer) for layer in block.sublayers)) for block in model.blocks)
    return replace(model, name=f"{model.name} at {kept:.0%} of its rank", blocks=blocks)


def _quality(row: dict[str, Any]) -> Quality:
    return Quality(**{name: row[name] for name in ("metric", "low", "mid", "high", "n", "models", "source", "date")})


def _loss(option: Option) -> float:
    """How bad quality gets, the worst published; what nobody measured is worse than all that was."""
    if option.quality is None:
        return 1e9
    return sum(one.high if one.metric == "perplexity" else -one.low for one in option.quality)


def _pace(option: Option) -> float:
    return option.tokens_per_s.mid if option.tokens_per_s is not None else 0.0
