"""Where a model can be put, as an answer: the place that comes first, all others ranked, and what keeps them."""

from __future__ import annotations

from capacity.estimators.deployment import deploy
from capacity.estimators.intervals import Value
from capacity.quantities import format
from capacity.spec.estimate import Assumption, Estimate, Quantity, Section
from capacity.spec.workload import DEPLOY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.deployment import Candidate, Limits, Question

# Said of one device only, where many are looked through.
_OF_ONE = ("device", "serving precision", "price", "host power")


def deployment(**request: Any) -> Estimate:
    """`deploy` as an answer with one section; its rows are the places, ranked."""
    said = {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in request.items()}
    question, target, found, limits = deploy(**request)
    met = [one for one in found if not one.lacks]
    best = found[0]
    item = question.item
    values = {
        "candidates": Value(float(len(found)), "1", f"{target} places in the catalogue"),
        "reaching": Value(float(len(met)), "1", "hold it and meet all that is asked"),
        "memory_per_device": Value(best.memory, "byte", f"on {best.place}"),
    }
    for name, value, unit, note in (
        ("request_latency", best.latency, "s", "from arrival to the last of it"),
        (f"{item}s_per_s", best.tokens_per_s, "1/s", "of all in flight"),
        (*_energy(best.energy, item), "J", "hosts and PUE included"),
        ("power_limit", best.power, "W", "of its devices, as their vendor limits it"),
        ("price_per_hour", best.usd_per_hour, "USD/h", "list price"),
        (f"cost_per_million_{item}s", best.usd_per_million, "USD", "fully loaded"),
    ):
        if value is not None:
            values[name] = Value(value, unit, note)
    section = Section(
        title="Deployment",
        verdict=_verdict(best, met, found, target),
        fits=bool(met),
        binding=next(iter(_kept_by(found)), "none"),
        setting=_setting(question, target, limits),
        quantities={
            name: Quantity(name, one.mid, one.mid, one.mid, one.unit, one.note) for name, one in values.items()
        },
        breakdowns={"kept_by": {name: float(count) for name, count in _kept_by(found).items()}},
        alternatives=tuple(_row(one, priced=any(other.usd_per_hour for other in found)) for one in found),
    )
    assumptions = [one for one in question.assumptions.all() if not one.name.startswith(_OF_ONE)]
    if item != "sample":
        tag = "user" if "loss_limit" in request else "default"
        assumptions.append(
            Assumption("published loss at most", limits.loss, "fraction", tag, "of perplexity, the worst published")
        )
    return Estimate(said, question.facts, {DEPLOY: section}, tuple(assumptions))


def _energy(each: float | None, item: str) -> tuple[str, float | None]:
    """Energy under the name it has elsewhere: of a token, a request, an image, a million samples."""
    if item == "sample":
        return "energy_per_million_samples", None if each is None else each * 1e6
    return f"energy_per_{item}", each


def _verdict(best: Candidate, met: list[Candidate], found: list[Candidate], target: str) -> str:
    count = f"{len(met)} of {len(found)} {target} places hold it and meet what is asked"
    on = f"{best.devices} x {best.place}" if best.devices > 1 else best.place
    how = "uncompressed" if best.method == "none" else best.method
    kept = ", ".join(f"{name} {number}" for name, number in _kept_by(found).items())
    others = f"; what keeps the others: {kept}" if kept else ""
    if met:
        return f"{count}; first: {on}, {how}{others}"
    return f"{count}; nearest: {on}, {how}, which lacks {' and '.join(best.lacks)}{others}"


def _kept_by(found: list[Candidate]) -> dict[str, int]:
    """How many places lack what, the commonest first; a place may lack several."""
    counts: dict[str, int] = {}
    for one in found:
        for lack in one.lacks:
            word = "memory" if "memory" in lack or "room" in lack else lack.removeprefix("a known ").split()[0]
            counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _setting(question: Question, target: str, limits: Limits) -> str:
    said = [
        f"{word} {format(value, unit)}"
        for word, value, unit in (
            ("latency", limits.latency, "s"), ("TTFT", limits.ttft, "s"), ("TPOT", limits.tpot, "s"), ("power", limits.power, "W"),
            ("energy", limits.energy, "J"), ("price", limits.price, "USD/h"),
        )
        if value is not None
    ]  # fmt: skip
    asked = f"at most {', '.join(said)}" if said else "no limits"
    if question.item == "sample":
        return f"{target}; {asked}; a batch of {question.together:g}"
    together = f"{question.together:g} requests at once" if question.together > 1 else "one request at a time"
    return f"{target}; {asked}; {together}"


def _row(one: Candidate, *, priced: bool) -> dict[str, Any]:
    row = {
        "place": one.place,
        "n": float(one.devices),
        "method": one.method,
        "memory_per_device_bytes": one.memory,
        "latency_s": one.latency,
        "energy_j": one.energy,
        "price_usd": one.usd_per_hour,
        "lacks": ", ".join(one.lacks) or "nothing",
    }
    return row if priced else {key: value for key, value in row.items() if key != "price_usd"}
