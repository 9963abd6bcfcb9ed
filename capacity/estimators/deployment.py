"""Where a model can be put: devices of a class that hold it, compressed as far as need be, and meet latency, power, energy, price."""

from __future__ import annotations

import math

from capacity.errors import CapacityError, InputError
from capacity.estimators import feeding
from capacity.estimators.assumptions import number, one_of
from capacity.estimators.case import read_case
from capacity.estimators.compression import compression_methods, worst_loss
from capacity.estimators.intervals import Value
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.estimators.power import device_power_of
from capacity.estimators.replica import load_replica
from capacity.estimators.serving_account import account_of
from capacity.estimators.serving_case import read_service
from capacity.formulas import schedule
from capacity.quantities import format
from capacity.record import Record
from capacity.spec.estimate import Assumption, Estimate, Quantity, Section
from capacity.spec.workload import DEPLOY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.spec.device import Cluster, Device

# Which devices each target means; a cloud's are its priced instances.
TARGETS: dict[str, tuple[str, ...]] = {
    "edge": ("embedded", "phone", "laptop"),
    "server": ("data-centre", "workstation", "consumer"),
    "cloud": (),
}
# Compression tried on each, the least published loss first: what engines for people's own machines run, and servers'.
LADDERS = {
    "edge": ("none", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs", "q3_k_m", "q2_k"),
    "server": ("none", "fp8", "int8", "int4-awq", "int4-awq-kv-int8", "nvfp4"),
}
LIMITS = ("latency_limit", "power_limit", "energy_limit", "price_limit", "loss_limit")
# Loss of perplexity that published methods may show at most, where nothing is said.
MOST_LOSS = 0.10
# Weights may take this much of a device before a closer look is worth its time.
WORTH_PRICING = 1.0


# Formats that a device multiplies in; others are unpacked first, which every device can.
_ARITHMETIC = ("fp8", "int8", "fp4")


class Limits(Record):
    """What must be met: seconds of a whole request, watts and USD an hour of all devices, joules a token; None for no limit."""

    latency: float | None
    power: float | None
    energy: float | None
    price: float | None
    loss: float


class Place(Record):
    """Devices of one kind, or an instance of a cloud, as they would be asked for."""

    id: str
    device: Device
    request: dict[str, Any]
    counts: tuple[int, ...]
    usd_per_hour: float | None
    whole: bool


class Candidate(Record):
    """A model on a place: compressed by a method over so many devices. lacks: what is missing, each in words; none where all is met.

    short: bytes that its devices lack together.
    """

    place: str
    devices: int
    method: str
    lacks: tuple[str, ...]
    memory: float
    latency: float | None = None
    tokens_per_s: float | None = None
    energy: float | None = None
    power: float | None = None
    usd_per_hour: float | None = None
    usd_per_million: float | None = None
    loss: float = 0.0
    holds: bool = False
    short: float = 0.0


def deploy(**request: Any) -> tuple[Case, str, list[Candidate], Limits]:
    """Every place of a target with the best it can do, those that meet all limits first, ranked.

    request: as for `capacity.estimate`, without devices; `target` and the limits. Ranking: by energy on the edge, else by
    money for a million tokens, then by latency. Raises CapacityError in one line for what makes no sense.
    """
    for name in ("device", "devices", "nodes", "cluster", "tp", "pp", "dp", "precision", "weight_bits", "kv_precision"):
        if name in request:
            raise InputError(f"--{name.replace('_', '-')} is what --mode deploy looks for; leave it out")
    target = one_of("--target", request.pop("target", None), tuple(TARGETS)) or "server"
    asked = {name: request.pop(name, None) for name in LIMITS}
    limits = Limits(
        number("--latency-limit", asked["latency_limit"], "s", 0.0, 1e6, above=True),
        number("--power-limit", asked["power_limit"], "W", 0.0, 1e8, above=True),
        number("--energy-limit", asked["energy_limit"], "J", 0.0, 1e9, above=True),
        number("--price-limit", asked["price_limit"], "USD/h", 0.0, 1e6, above=True),
        MOST_LOSS
        if asked["loss_limit"] is None
        else number("--loss-limit", asked["loss_limit"], "1", 0.0, 10.0) or 0.0,
    )
    if target == "edge":
        request.setdefault("concurrency", 1)
    request.pop("mode", None)
    case = read_case(request | {"mode": "serve"})
    plain = {key: value for key, value in request.items() if key not in ("params", "config", "model")}
    ladder = _ladder(target, limits)
    weights = parameter_count(lower(case.model, Tokens()))
    found = [
        _best(place, plain | {"model": case.model, "mode": "serve"}, ladder, limits, float(weights))
        for place in _places(target, case)
    ]
    return case, target, sorted(found, key=lambda one: _rank(one, target)), limits


def _rank(one: Candidate, target: str) -> tuple[Any, ...]:
    far = float("inf")
    cost = one.usd_per_million if one.usd_per_million is not None else far
    energy = one.energy if one.energy is not None else far
    first, second = (energy, cost) if target == "edge" else (cost, energy)
    return (
        bool(one.lacks),
        not one.holds,
        len(one.lacks),
        first,
        second,
        one.latency if one.latency is not None else far,
        one.short,
    )


def _ladder(target: str, limits: Limits) -> list[tuple[str, dict[str, Any], float]]:
    """Methods with what they ask of the estimate, and their published loss."""
    methods, known = compression_methods()
    found = []
    for name in LADDERS["edge" if target == "edge" else "server"]:
        loss = worst_loss(methods[name], known)
        if loss is not None and loss <= limits.loss:
            asked = {
                key: methods[name][key] for key in ("precision", "weight_bits", "kv_precision") if key in methods[name]
            }
            found.append((name, asked, loss))
    return found


def _places(target: str, case: Case) -> Iterator[Place]:
    from capacity.catalogue import list_clusters, list_devices

    if target == "cloud":
        for cluster in list_clusters(folders=case.folders):
            if cluster.usd_per_device_hour is not None:
                price = cluster.usd_per_device_hour * cluster.devices_per_node
                yield Place(
                    cluster.id, cluster.device, {"cluster": cluster.id}, _counts(cluster.devices_per_node), price, True
                )
        return
    for device in list_devices(folders=case.folders):
        if device.segment in TARGETS[target]:
            counts = _counts(device.devices_per_node) if device.link is not None else (1,)
            yield Place(device.id, device, {"device": device.id}, counts, device.usd_per_hour, False)


def _counts(most: int) -> tuple[int, ...]:
    """Numbers of devices to try: powers of two to a node's own."""
    return tuple(count for count in (1, 2, 4, 8, 16) if count <= most)


def _best(
    place: Place,
    request: dict[str, Any],
    ladder: list[tuple[str, dict[str, Any], float]],
    limits: Limits,
    weights: float,
) -> Candidate:
    """The fewest devices, then the least loss, that meet everything; else what comes nearest."""
    from capacity.estimators.formats import FORMATS

    nearest: Candidate | None = None
    for count in place.counts:
        for name, asked, loss in ladder:
            bits, format = FORMATS[asked["precision"]]
            if format in _ARITHMETIC and format not in place.device.peak_dense_flop_per_s:
                continue  # it has no such arithmetic
            bits = asked.get("weight_bits") or bits
            least, room = weights * bits / 8.0 / count, place.device.open_bytes
            if least > WORTH_PRICING * room:
                one = Candidate(
                    place.id,
                    count,
                    name,
                    (_short(least - room),),
                    least,
                    usd_per_hour=_price(place, count),
                    loss=loss,
                    short=(least - room) * count,
                )
            else:
                try:
                    one = _priced(
                        place,
                        count,
                        name,
                        request | place.request | asked | {"devices": count, "tp": count},
                        limits,
                        loss,
                    )
                except CapacityError:
                    continue  # a format that the device cannot run, or heads that so many devices do not divide
            if not one.lacks:
                return one
            if nearest is None or _distance(one) < _distance(nearest):
                nearest = one
    if nearest is None:
        return Candidate(place.id, 1, "-", ("no arithmetic for it",), 0.0)
    return nearest


def _distance(one: Candidate) -> tuple[Any, ...]:
    """How far from what is asked: what does not hold the model furthest, then by how much is lacking."""
    return (
        not one.holds,
        len(one.lacks),
        one.latency if one.holds and one.latency is not None else one.memory * one.devices,
    )


def _short(missing: float) -> str:
    return f"{format(missing, 'byte', binary=True)} of memory"


def _price(place: Place, count: int) -> float | None:
    """What is paid an hour: for the devices, or for the whole instance they are part of."""
    if place.usd_per_hour is None:
        return None
    return place.usd_per_hour if place.whole else place.usd_per_hour * count


def _priced(place: Place, count: int, method: str, request: dict[str, Any], limits: Limits, loss: float) -> Candidate:
    case = read_case(request)
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    values = {name: float(value.mid) for name, value in account_of(case, load, alone=True)({}).items()}
    if feeding.generates(case.model):
        latency = float(schedule.request_time_s(values["ttft"], values["tpot"], workload.output_len))
        energy, rate = values["energy_per_token"], values["tokens_per_s"]
    else:
        latency = values.get("latency", values.get("ttft", 0.0))
        energy = values.get("energy_per_request", values.get("energy_per_image", 0.0))
        rate = values.get("requests_per_s", values.get("images_per_s", 0.0))
    power = _power(case.cluster, count)
    price = _price(place, count)
    held = values["memory_per_device"]
    lacks = []
    if not load.fits:
        lacks.append(
            _short(max(held - place.device.open_bytes, 0.0)) if held > place.device.open_bytes else "room for a request"
        )
    for said, value, limit in (
        ("latency", latency, limits.latency),
        ("power", power, limits.power),
        ("energy", energy, limits.energy),
    ):
        if limit is not None and value > limit:
            lacks.append(f"{said} {_times(value, limit)}")
    if limits.price is not None:
        if price is None:
            lacks.append("a known price")
        elif price > limits.price:
            lacks.append(f"price {_times(price, limits.price)}")
    # An instance is paid as a whole, and holds as many replicas as it has devices for.
    copies = max(case.cluster.devices_per_node // count, 1) if place.whole else 1
    million = None if price is None or not rate else price / 3600.0 / (rate * copies) * 1e6
    return Candidate(
        place.id,
        count,
        method,
        tuple(lacks),
        held,
        latency,
        rate,
        energy,
        power,
        price,
        million,
        loss,
        load.fits,
        max(held - place.device.open_bytes, 0.0) * count,
    )


def _times(value: float, limit: float) -> str:
    """How many times a limit, rounded up: what is over it never reads as 1."""
    ratio = value / limit
    return f"{math.ceil(ratio * 10.0) / 10.0:.1f}x" if ratio < 100.0 else f"{ratio:.2g}x"


def _power(cluster: Cluster, count: int) -> float:
    """Watts of the devices at work, as their limit has it."""
    return float(
        cluster.device.tdp_w * count if cluster.device.tdp_w is not None else device_power_of(cluster, 0.5, 0.8) * count
    )


def deployment(**request: Any) -> Estimate:
    """`deploy` as an answer with one section; its rows are the places, ranked."""
    from capacity.estimators.answer import model_facts

    said = {key: str(value) if not isinstance(value, (int, float, str)) else value for key, value in request.items()}
    case, target, found, limits = deploy(**request)
    met = [one for one in found if not one.lacks]
    best = met[0] if met else found[0]
    values = {
        "candidates": Value(float(len(found)), "1", f"{target} places in the catalogue"),
        "reaching": Value(float(len(met)), "1", "hold it and meet all that is asked"),
        "memory_per_device": Value(best.memory, "byte", f"on {best.place}"),
    }
    for name, value, unit, note in (
        ("request_latency", best.latency, "s", "from arrival to the last token"),
        ("tokens_per_s", best.tokens_per_s, "1/s", "of all requests in flight"),
        ("energy_per_token", best.energy, "J", "hosts and PUE included"),
        ("power_limit", best.power, "W", "of its devices, as their vendor limits it"),
        ("price_per_hour", best.usd_per_hour, "USD/h", "list price"),
        ("cost_per_million_tokens", best.usd_per_million, "USD", "fully loaded"),
    ):
        if value is not None:
            values[name] = Value(value, unit, note)
    section = Section(
        title="Deployment",
        verdict=_verdict(best, met, found, target),
        fits=bool(met),
        binding=_commonest(found),
        setting=_setting(case, target, limits),
        quantities={
            name: Quantity(name, one.mid, one.mid, one.mid, one.unit, one.note) for name, one in values.items()
        },
        breakdowns={},
        alternatives=tuple(_row(one, priced=any(other.usd_per_hour for other in found)) for one in found),
    )
    assumptions = (
        *(
            one
            for one in case.assumptions.all()
            if not one.name.startswith(("device", "serving precision", "price", "host power"))
        ),
        Assumption(
            "published loss at most",
            limits.loss,
            "fraction",
            "user" if "loss_limit" in request else "default",
            "of perplexity, the worst published",
        ),
    )
    return Estimate(said, model_facts(case), {DEPLOY: section}, assumptions)


def _verdict(best: Candidate, met: list[Candidate], found: list[Candidate], target: str) -> str:
    count = f"{len(met)} of {len(found)} {target} places hold it and meet what is asked"
    on = f"{best.devices} x {best.place}" if best.devices > 1 else best.place
    how = "uncompressed" if best.method == "none" else best.method
    if met:
        return f"{count}; first: {on}, {how}"
    return f"{count}; nearest: {on}, {how}, which lacks {' and '.join(best.lacks)}"


def _commonest(found: list[Candidate]) -> str:
    """What most places lack first."""
    counts: dict[str, int] = {}
    for one in found:
        for lack in one.lacks[:1]:
            word = "memory" if "memory" in lack or "room" in lack else lack.split()[0]
            counts[word] = counts.get(word, 0) + 1
    return max(counts, key=lambda word: counts[word]) if counts else "none"


def _setting(case: Case, target: str, limits: Limits) -> str:
    said = [
        f"{word} {format(value, unit)}"
        for word, value, unit in (
            ("latency", limits.latency, "s"), ("power", limits.power, "W"), ("energy", limits.energy, "J"), ("price", limits.price, "USD/h"),
        )
        if value is not None
    ]  # fmt: skip
    asked = f"at most {', '.join(said)}" if said else "no limits"
    count = case.request.get("concurrency", 16)
    said_of_requests = f"{count:g} requests at once" if count > 1 else "one request at a time"
    return f"{target}; {asked}; {said_of_requests}"


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
