"""Where a model can be put: devices of a class that hold it, compressed as far as need be, and meet latency, power, energy, price.

A question says how one model is priced on one place; the search over places, their counts and methods is the same for all.
"""

from __future__ import annotations

import math

from capacity.errors import CapacityError, InputError
from capacity.estimators import deployment_network, feeding
from capacity.estimators.assumptions import number, one_of
from capacity.estimators.case import read_case
from capacity.estimators.compression import compression_methods, worst_loss
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.estimators.power import device_power_of
from capacity.estimators.replica import load_replica
from capacity.estimators.serving_account import account_of
from capacity.estimators.serving_case import read_service
from capacity.formulas import schedule
from capacity.quantities import format
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from capacity.estimators.assumptions import Assumptions
    from capacity.spec.device import Cluster, Device

# Which devices each target means; a cloud's are its priced instances.
EDGE = ("embedded", "phone", "laptop")
SERVER = ("data-centre", "workstation", "consumer")
TARGETS: dict[str, tuple[str, ...]] = {
    "edge": EDGE, "server": SERVER, "cloud": (), **{one: (one,) for one in (*EDGE, *SERVER)},
}  # fmt: skip
# What people carry and wire in is ranked by energy, what is paid for by money.
BY_ENERGY = ("edge", *EDGE)
# Compression tried on each, the least published loss first: what engines for people's own machines run, and servers'.
LADDERS = {
    "edge": ("none", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs", "q3_k_m", "q2_k"),
    "server": ("none", "fp8", "int8", "int4-awq", "int4-awq-kv-int8", "nvfp4"),
}
LIMITS = ("latency_limit", "ttft_limit", "tpot_limit", "power_limit", "energy_limit", "price_limit", "loss_limit")
# Loss of perplexity that published methods may show at most, where nothing is said.
MOST_LOSS = 0.10
# Weights may take this much of a device before a closer look is worth its time.
WORTH_PRICING = 1.0


# Formats that a device multiplies in; others are unpacked first, which every device can.
_ARITHMETIC = ("fp8", "int8", "fp4")


class Limits(Record):
    """What must be met: seconds of a whole request, to its first and of each next token, watts and USD an hour of all devices.

    energy: joules of a token, request, image or sample; None for no limit.
    """

    latency: float | None
    ttft: float | None
    tpot: float | None
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

    short: bytes that its devices lack together. over: the largest of what it takes over what is allowed.
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
    over: float = 1.0


class Question(Record):
    """One model to be put somewhere: what is counted of it (token, request, image, sample), and how it is priced on a place.

    weights: how many, for a look before pricing. ladder: methods to compress it by, with what each asks of the estimate and
    its published loss. price: (place, devices, method, what it asks, loss) to what it costs there.
    """

    item: str
    weights: float
    ladder: list[tuple[str, dict[str, Any], float]]
    price: Callable[[Place, int, str, dict[str, Any], float], Candidate]
    facts: dict[str, Any]
    assumptions: Assumptions
    folders: tuple[str, ...]
    together: float


def deploy(**request: Any) -> tuple[Question, str, list[Candidate], Limits]:
    """Every place of a target with the best it can do, those that meet all limits first, ranked.

    request: as for `capacity.estimate`, without devices; `target` and the limits. Ranking: by energy on the edge, else by
    money for a million tokens, then by latency; what lacks something by how far it is off. Raises CapacityError in one line for
    what makes no sense.
    """
    for name in ("device", "devices", "nodes", "cluster", "tp", "pp", "dp", "precision", "weight_bits", "kv_precision"):
        if name in request:
            raise InputError(f"--{name.replace('_', '-')} is what --mode deploy looks for; leave it out")
    target = one_of("--target", request.pop("target", None), tuple(TARGETS)) or "server"
    asked = {name: request.pop(name, None) for name in LIMITS}
    limits = Limits(
        number("--latency-limit", asked["latency_limit"], "s", 0.0, 1e6, above=True),
        number("--ttft-limit", asked["ttft_limit"], "s", 0.0, 1e6, above=True),
        number("--tpot-limit", asked["tpot_limit"], "s", 0.0, 1e6, above=True),
        number("--power-limit", asked["power_limit"], "W", 0.0, 1e8, above=True),
        number("--energy-limit", asked["energy_limit"], "J", 0.0, 1e9, above=True),
        number("--price-limit", asked["price_limit"], "USD/h", 0.0, 1e6, above=True),
        MOST_LOSS
        if asked["loss_limit"] is None
        else number("--loss-limit", asked["loss_limit"], "1", 0.0, 10.0) or 0.0,
    )
    if target in BY_ENERGY:
        request.setdefault("concurrency", 1)
    request.pop("mode", None)
    if request.get("module") is not None or request.get("onnx") is not None:
        request.pop("concurrency", None)
        question = deployment_network.question(request, limits)
    else:
        question = _question(request, target, limits)
    if question.item != "token":
        for name in ("ttft_limit", "tpot_limit"):
            if asked[name] is not None:
                raise InputError(f"--{name.replace('_', '-')} is of models that generate; give --latency-limit")
    found = [_best(place, question) for place in _places(target, question.folders)]
    return question, target, sorted(found, key=lambda one: _rank(one, target)), limits


def _question(request: dict[str, Any], target: str, limits: Limits) -> Question:
    """A language, vision or embedding model that the catalogue's importers know, served."""
    from capacity.estimators.answer import model_facts

    case = read_case(request | {"mode": "serve"})
    plain = {key: value for key, value in request.items() if key not in ("params", "config", "model")}
    plain |= {"model": case.model, "mode": "serve"}

    def price(place: Place, count: int, method: str, asked: dict[str, Any], loss: float) -> Candidate:
        return _priced(
            place, count, method, plain | place.request | asked | {"devices": count, "tp": count}, limits, loss
        )

    item = "token" if feeding.generates(case.model) else "image" if feeding.sees_only(case.model) else "request"
    together = float(case.request.get("concurrency", 16))
    weights = float(parameter_count(lower(case.model, Tokens())))
    return Question(
        item, weights, _ladder(target, limits), price, model_facts(case), case.assumptions, case.folders, together
    )


def _rank(one: Candidate, target: str) -> tuple[Any, ...]:
    far = float("inf")
    cost = one.usd_per_million if one.usd_per_million is not None else far
    energy = one.energy if one.energy is not None else far
    first, second = (energy, cost) if target in BY_ENERGY else (cost, energy)
    latency = one.latency if one.latency is not None else far
    return (bool(one.lacks), not one.holds, len(one.lacks), one.over, first, second, latency, one.short)


def _ladder(target: str, limits: Limits) -> list[tuple[str, dict[str, Any], float]]:
    """Methods with what they ask of the estimate, and their published loss."""
    methods, known = compression_methods()
    found = []
    for name in LADDERS["edge" if target in BY_ENERGY else "server"]:
        loss = worst_loss(methods[name], known)
        if loss is not None and loss <= limits.loss:
            asked = {
                key: methods[name][key] for key in ("precision", "weight_bits", "kv_precision") if key in methods[name]
            }
            found.append((name, asked, loss))
    return found


def _places(target: str, folders: tuple[str, ...]) -> Iterator[Place]:
    from capacity.catalogue import list_clusters, list_devices

    if target == "cloud":
        for cluster in list_clusters(folders=folders):
            if cluster.usd_per_device_hour is not None:
                price = cluster.usd_per_device_hour * cluster.devices_per_node
                yield Place(
                    cluster.id, cluster.device, {"cluster": cluster.id}, _counts(cluster.devices_per_node), price, True
                )
        return
    for device in list_devices(folders=folders):
        if device.segment in TARGETS[target]:
            counts = _counts(device.devices_per_node) if device.link is not None else (1,)
            yield Place(device.id, device, {"device": device.id}, counts, device.usd_per_hour, False)


def _counts(most: int) -> tuple[int, ...]:
    """Numbers of devices to try: powers of two to a node's own."""
    return tuple(count for count in (1, 2, 4, 8, 16) if count <= most)


def _best(place: Place, question: Question) -> Candidate:
    """The fewest devices, then the least loss, that meet everything; else what comes nearest."""
    from capacity.estimators.formats import FORMATS

    nearest: Candidate | None = None
    for count in place.counts:
        for name, asked, loss in question.ladder:
            bits, format = FORMATS[asked["precision"]] if "precision" in asked else (8.0, "")
            if format in _ARITHMETIC and format not in place.device.peak_dense_flop_per_s:
                continue  # it has no such arithmetic
            bits = asked.get("weight_bits") or bits
            least, room = question.weights * bits / 8.0 / count, place.device.open_bytes
            if least > WORTH_PRICING * room:
                one = Candidate(
                    place.id, count, name, (_short(least - room),), least, usd_per_hour=price_of(place, count), loss=loss,
                    short=(least - room) * count, over=least / room,
                )  # fmt: skip
            else:
                try:
                    one = question.price(place, count, name, asked, loss)
                except CapacityError:
                    continue  # a format that the device cannot run, or heads that so many devices do not divide
            if not one.lacks:
                return one
            if nearest is None or _distance(one) < _distance(nearest):
                nearest = one
    if nearest is None:
        return Candidate(place.id, 1, "-", ("arithmetic for it",), 0.0, over=float("inf"))
    return nearest


def _distance(one: Candidate) -> tuple[Any, ...]:
    """How far from what is asked: what does not hold the model furthest, then by how much is lacking."""
    return (
        not one.holds,
        len(one.lacks),
        one.over,
        one.latency if one.holds and one.latency is not None else one.memory * one.devices,
    )


def _short(missing: float) -> str:
    return f"{format(missing, 'byte', binary=True)} of memory"


def price_of(place: Place, count: int) -> float | None:
    """What is paid an hour: for the devices, or for the whole instance they are part of."""
    if place.usd_per_hour is None:
        return None
    return place.usd_per_hour if place.whole else place.usd_per_hour * count


def _priced(place: Place, count: int, method: str, request: dict[str, Any], limits: Limits, loss: float) -> Candidate:
    case = read_case(request)
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    values = {name: float(value.mid) for name, value in account_of(case, load, alone=True)({}).items()}
    timed: dict[str, float] = {}
    if feeding.generates(case.model):
        timed = {"ttft": values["ttft"], "tpot": values["tpot"]}
        latency = float(schedule.request_time_s(values["ttft"], values["tpot"], workload.output_len))
        energy, rate = values["energy_per_token"], values["tokens_per_s"]
    else:
        latency = values.get("latency", values.get("ttft", 0.0))
        energy = values.get("energy_per_request", values.get("energy_per_image", 0.0))
        rate = values.get("requests_per_s", values.get("images_per_s", 0.0))
    timed["latency"] = latency
    return candidate(
        place, count, method, limits, loss, cluster=case.cluster, held=values["memory_per_device"], fits=bool(load.fits),
        timed=timed, energy=energy, rate=rate,
    )  # fmt: skip


def candidate(
    place: Place, count: int, method: str, limits: Limits, loss: float, *, cluster: Cluster, held: float, fits: bool,
    timed: dict[str, float], energy: float, rate: float,
) -> Candidate:  # fmt: skip
    """A priced model held against the limits. timed: seconds by what they are; energy, rate: of what is counted."""
    power, price, room = _power(cluster, count), price_of(place, count), place.device.open_bytes
    lacks, over = [], [1.0]
    if not fits:
        lacks.append(_short(held - room) if held > room else "room for a request")
        over.append(held / room)
    taken = [(name, value, getattr(limits, name)) for name, value in timed.items()]
    for said, value, limit in (*taken, ("power", power, limits.power), ("energy", energy, limits.energy)):
        if limit is not None and value > limit:
            lacks.append(f"{said.upper() if said in ('ttft', 'tpot') else said} {_times(value, limit)}")
            over.append(value / limit)
    if limits.price is not None:
        if price is None:
            lacks.append("a known price")
        elif price > limits.price:
            lacks.append(f"price {_times(price, limits.price)}")
            over.append(price / limits.price)
    # An instance is paid as a whole, and holds as many replicas as it has devices for.
    copies = max(cluster.devices_per_node // count, 1) if place.whole else 1
    million = None if price is None or not rate else price / 3600.0 / (rate * copies) * 1e6
    return Candidate(
        place.id, count, method, tuple(lacks), held, timed["latency"], rate, energy, power, price, million, loss, fits,
        max(held - room, 0.0) * count, max(over),
    )  # fmt: skip


def _times(value: float, limit: float) -> str:
    """How many times a limit, rounded up: what is over it never reads as 1."""
    ratio = value / limit
    return f"{math.ceil(ratio * 10.0) / 10.0:.1f}x" if ratio < 100.0 else f"{ratio:.2g}x"


def _power(cluster: Cluster, count: int) -> float:
    """Watts of the devices at work, as their limit has it."""
    return float(
        cluster.device.tdp_w * count if cluster.device.tdp_w is not None else device_power_of(cluster, 0.5, 0.8) * count
    )
