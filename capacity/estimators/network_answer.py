"""What any network costs: a graph of ops, traced or read from a file, on a batch, to train and to infer."""

from __future__ import annotations

import sys

from capacity.catalogue.own import THIS_MACHINE, measured_folder
from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions, one_of
from capacity.estimators.case_cluster import read_cluster
from capacity.estimators.composed import CARRIED_WIDENING, composed_interval
from capacity.estimators.formats import default_format, read_format
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.estimators.lowering import counted_flop
from capacity.estimators.network import Network
from capacity.estimators.network_pricing import machine_numbers, pass_seconds
from capacity.estimators.power import emissions, power_of, prices
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.training_weights import OPTIMIZER_STATE_BYTES
from capacity.formula import scaled, sourced, total
from capacity.formulas import energy, schedule
from capacity.laws.network import Machine, category, load_network_law, op_time_s
from capacity.record import Record
from capacity.spec.estimate import Estimate, Section
from capacity.spec.graph import BACKWARD, FORWARD
from capacity.spec.workload import ALL_MODES, INFER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.intervals import Account
    from capacity.estimators.network_local import Here
    from capacity.importers.graphs.module import InputSpec
    from capacity.laws.network import NetworkLaw
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster
    from capacity.spec.graph import Graph

SOURCES = ("module", "onnx")
KEYS = (
    *SOURCES, "input", "example_inputs", "dim", "mode", "device", "devices", "nodes", "cluster", "precision", "optimizer", "price",
    "pue", "grid", "catalogue", "compiled", "channels_last",
)  # fmt: skip
MODES = ("train", INFER)
FORMATS = ("fp32", "tf32", "bf16", "fp16")
# Share of what tensors take that the allocator's blocks lose beside.
ALLOCATOR_SHARE = 0.05
# How ops are told apart on the screen, by kind or form.
_PARTS = {
    "gemm": "products", "conv": "convolutions", "attention": "attention", "recurrent": "recurrent", "embedding": "embedding",
    "batch norm": "norms", "layer norm": "norms", "softmax": "norms", "pool": "pooling", "resample": "resampling",
}  # fmt: skip


class Job(Record):
    """A network on a cluster in one mode; here: its time by the laws of the machine it is asked of, where that was measured."""

    graph: Graph
    mode: str
    cluster: Cluster
    profile: Profile
    law: NetworkLaw
    machine: Machine
    precision: str
    optimizer: str
    devices: float
    here: Here | None = None


def network_estimate(request: dict[str, Any]) -> Estimate:
    """The answer for a network: sections "train" and "infer". Raises CapacityError."""
    jobs, facts, assumptions, warnings = read_jobs(request)
    sections: dict[str, Section] = {}
    sensitivities: dict[str, dict[str, float]] = {}
    for job in jobs:
        section, shares = _section(job)
        sections[job.mode] = section
        sensitivities |= {f"{job.mode}.{name}": share for name, share in shares.items()}
    return Estimate(
        request={key: value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in request.items()},
        model=facts, sections=sections, assumptions=assumptions.all(), warnings=tuple(warnings), sensitivities=sensitivities,
    )  # fmt: skip


def network_values(request: dict[str, Any]) -> dict[str, float]:
    """Every quantity's mid value by its full name, traced when a ledger is open."""
    jobs, *_ = read_jobs(request)
    found: dict[str, float] = {}
    for job in jobs:
        account, parts, memory = account_of(job)
        found |= {f"{job.mode}.{name}": value.mid for name, value in account({}).items()}
        found |= {f"{job.mode}.memory.{k}": v for k, v in memory.items()} | {
            f"{job.mode}.time.{k}": v for k, v in parts.items()
        }
    return found


def read_jobs(request: dict[str, Any]) -> tuple[list[Job], dict[str, Any], Assumptions, list[str]]:
    """The network in each mode that was asked for, checked; facts of it; assumptions and warnings."""
    request = {key: value for key, value in request.items() if value is not None and value is not False}
    for key in request:
        if key not in KEYS:
            raise InputError(f"--{key.replace('_', '-')} is of language models; with --module or --onnx leave it out")
    assumptions, warnings = Assumptions(), []
    mode = one_of("--mode", request.get("mode"), ALL_MODES)
    if mode is not None and mode not in MODES:
        raise InputError(
            f"--mode {mode} is of language models; a network of --module or --onnx takes {' or '.join(MODES)}"
        )
    folders = tuple(request.get("catalogue", ()))
    own = request.get("device") == THIS_MACHINE
    cluster, profile, devices = read_cluster(request, (*folders, measured_folder()) if own else folders, assumptions)
    word, _, _ = read_format("--precision", request.get("precision"), default_format(cluster.device))
    if word not in FORMATS:
        raise InputError(f"--precision {word}: networks are priced in {', '.join(FORMATS)}")
    peak_flop_per_s(cluster.device, word)
    assumptions.note(
        "precision", word, "", "user" if "precision" in request else "default", "autocast to train, stored to infer"
    )
    asked = request.get("optimizer")
    optimizer = one_of("--optimizer", "adamw" if asked == "adam" else asked, tuple(OPTIMIZER_STATE_BYTES)) or "adamw"
    if mode != "infer":
        assumptions.note("optimizer", optimizer, "", "user" if "optimizer" in request else "default")
    compiled, last = bool(request.get("compiled")), bool(request.get("channels_last"))
    assumptions.note(
        "execution", "compiled" if compiled else "eager, a kernel an op", "", "user" if compiled else "default"
    )
    graphs: dict[str, Graph] = {}
    for one in (mode,) if mode else MODES:
        try:
            graphs[one] = read_graph(request, train=one == "train")
        except InputError as error:
            if mode or (one == "infer" and not graphs) or "cannot be traced" not in str(error):
                raise
            warnings.append(str(error))
    if not graphs:
        raise InputError(warnings[0])
    law = load_network_law(cluster.device)
    numbers = machine_numbers(cluster.device, word)
    count = 1.0 if devices is None else devices
    assumptions.note("devices", count, "1", "default" if devices is None else "user", "each with a batch of its own")
    cluster = shrunk(cluster, count)
    here: dict[str, Here] = {}
    if own and "module" in request and count == 1.0:
        here = {one: _here(request, one == "train", word, optimizer, compiled=compiled, last=last) for one in graphs}
        missing = sorted({name for one in here.values() for name in one.missing})
        assumptions.note("laws", "of this machine's own kernels", "", "measured", "`capacity calibrate local`")
        if missing:
            warnings.append(f"not measured here, so taken at its best: {', '.join(missing[:6])}")
    jobs = [
        Job(
            graph, one, cluster, profile, law,
            Machine(**numbers, last=float(last), compiled=float(compiled), mixed=float(one == "train" and word in ("bf16", "fp16"))),
            word, optimizer, count, here.get(one),
        )
        for one, graph in graphs.items()
    ]  # fmt: skip
    graph = next(iter(graphs.values()))
    unknown = _unknown(graph)
    if unknown:
        warnings.append(unknown)
    assumptions.note("batch", graph.batch, "1", "user", "the first dimension of the first input")
    return jobs, facts_of(graph), assumptions, warnings


def facts_of(graph: Graph) -> dict[str, Any]:
    """What a network is, for the head of an answer."""
    return {
        "name": graph.name, "architecture": "network", "parameters": graph.parameters, "trained": graph.trained,
        "ops": float(sum(op.count for op in graph.ops if op.phase == FORWARD)), "inputs": list(graph.inputs), "source": graph.source,
        "inferred": [], "notes": list(graph.notes),
    }  # fmt: skip


def infer_job(graph: Graph, cluster: Cluster, profile: Profile, word: str, *, compiled: bool, last: bool) -> Job:
    """A network in use on one device of a cluster, in a format."""
    machine = Machine(**machine_numbers(cluster.device, word), last=float(last), compiled=float(compiled), mixed=0.0)
    law = load_network_law(cluster.device)
    return Job(graph, INFER, shrunk(cluster, 1.0), profile, law, machine, word, "adamw", 1.0)


def read_graph(request: dict[str, Any], *, train: bool) -> Graph:
    """The network a request names, traced or read."""
    named = [name for name in SOURCES if name in request]
    if len(named) != 1:
        raise InputError("--module and --onnx are given: name one network")
    if "onnx" in request:
        from capacity.importers.graphs.onnx_file import read_onnx

        return read_onnx(request["onnx"], dict(request.get("dim", {})), train=train)
    from capacity.importers.graphs import module

    target, specs = request["module"], read_inputs(request)
    if not isinstance(target, str):
        return module.trace(target, specs, train=train)
    if request.get("example_inputs") is None and (train or request.get("mode") == "infer"):
        print(f"capacity: importing and running your code, {target[:80]}, on shapes only", file=sys.stderr)
    return module.trace_target(target, specs, train=train)


def read_inputs(request: dict[str, Any]) -> list[InputSpec]:
    """Shapes and formats of what the network is given: of tensors, or as they were written."""
    from capacity.importers.graphs import module

    given = request.get("example_inputs")
    if given is None:
        inputs = request.get("input", ())
        return [
            module.read_input(one) if isinstance(one, str) else one
            for one in ((inputs,) if isinstance(inputs, str) else inputs)
        ]
    if isinstance(given, dict):
        named = list(given.items())
    else:
        named = [("", one) for one in (given if isinstance(given, (list, tuple)) else (given,))]
    return [module.InputSpec(tuple(one.shape), str(one.dtype).removeprefix("torch."), name) for name, one in named]


def _here(request: dict[str, Any], train: bool, precision: str, optimizer: str, *, compiled: bool, last: bool) -> Here:
    """The network's time by this machine's own laws."""
    from capacity.estimators.network_local import read_local_laws, time_here
    from capacity.importers.graphs import module

    target = request["module"]
    return time_here(
        read_local_laws(), module.maker_of(target) if isinstance(target, str) else target, read_inputs(request),
        train=train, precision=precision, optimizer=optimizer, compiled=compiled, channels_last=last,
    )  # fmt: skip


def shrunk(cluster: Cluster, devices: float) -> Cluster:
    """The cluster with no more devices a node than are used."""
    from capacity.record import replace

    if devices >= cluster.devices_per_node:
        return cluster
    share = devices / cluster.devices_per_node
    return replace(cluster, devices_per_node=int(devices), nodes=1, host_w=cluster.host_w * share)


def _unknown(graph: Graph) -> str:
    """What is said of ops whose FLOPs nobody counts."""
    if not graph.unknown:
        return ""
    moved = sum(op.count * op.elements for op in graph.ops) or 1.0
    names = ", ".join(sorted(graph.unknown)[:6])
    share = min(sum(graph.unknown.values()) / moved, 1.0)
    return f"FLOPs of {names} are not counted, only what they move: {share:.1%} of all numbers read and written"


def flop_of(graph: Graph, phase: str) -> float:
    """FLOPs of a phase as torch counts them."""
    return total(
        {
            f"{op.name} ({at})": scaled(counted_flop(op), op.count)
            for at, op in enumerate(graph.phase(phase))
            if counted_flop(op)
        }
    )


def _step(job: Job) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and what they go to."""
    if job.here is not None:
        return job.here.step_s(), {part: float(sum(calls.values())) for part, calls in job.here.parts.items()}
    graph, law, machine = job.graph, job.law, job.machine
    train = job.mode == "train"
    passes: dict[str, dict[str, dict[str, float]]] = {FORWARD: {}, BACKWARD: {}}
    for at, op in enumerate(graph.ops):
        part = _PARTS.get(op.kind) or _PARTS.get(op.form, "element-wise")
        seconds = scaled(op_time_s(op, category(op), law, machine), sourced(op.count, "times a pass"))
        passes[op.phase].setdefault(part, {})[f"{op.name} {at}"] = seconds
    phases = {name: {part: total(terms) for part, terms in parts.items()} for name, parts in passes.items()}
    calls = {name: sum(op.count for op in graph.phase(name)) for name in phases}
    link = Network.of(job.cluster, job.profile).pace(job.devices, 1.0)[0] if job.devices > 1.0 else 1e12
    step = pass_seconds(
        law, machine, total(phases[FORWARD]), total(phases[BACKWARD]) if train else 0.0, calls[FORWARD], calls[BACKWARD],
        sourced(graph.trained, "trained parameters"), sourced(graph.tensors, "tensors of parameters"),
        OPTIMIZER_STATE_BYTES[job.optimizer], float(train), job.devices, link,
    )  # fmt: skip
    times: dict[str, float] = {}
    for parts in phases.values():
        for part, seconds in parts.items():
            times[part] = times.get(part, 0.0) + seconds
    rest = float(step) - sum(float(value) for value in times.values())
    times["host, optimizer, exchange" if train else "host"] = max(rest, 0.0)
    return step, times


def account_of(job: Job) -> tuple[Account, dict[str, float], dict[str, float]]:
    """Quantities of a job for given factors on what is uncertain; what its time, and what its memory, go to."""
    graph, machine, cluster = job.graph, job.machine, job.cluster
    train = job.mode == "train"
    step_mid, times = _step(job)
    memory = memory_of(job)
    memory_mid = total(memory)
    forward = flop_of(graph, FORWARD)
    backward = flop_of(graph, BACKWARD) if train else 0.0
    work = total({"forward": forward, "backward": backward})
    moved = sum(op.count * op.elements for op in graph.ops) * machine.bytes
    peak, _ = peak_flop_per_s(cluster.device, job.precision)
    samples = graph.batch * job.devices

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        step = scaled(step_mid, factor.get("step time", 1.0))
        mfu = schedule.model_flop_utilisation(work, step, 1.0, peak)
        bandwidth = min(moved / (step * cluster.device.memory_bytes_per_s), 1.0)
        power = power_of(cluster, min(mfu, 1.0), bandwidth, factor.get("power", 1.0))
        million = step / samples * 1e6
        used = energy.energy_j(power, million)
        values = {
            "step_time" if train else "latency": Value(step, "s", "one optimizer step" if train else "one batch"),
            "samples_per_s": Value(samples / step, "1/s", "of the first dimension, all devices"),
            "mfu": Value(mfu, "fraction", "FLOPs of products and convolutions over the dense peak"),
            "flop_per_sample": Value(work / graph.batch, "FLOP", "forward and backward" if train else "forward"),
            "forward_flop": Value(forward, "FLOP", "of a batch, as torch counts"),
            "flop_per_step": Value(work, "FLOP", "of a batch, as torch counts"),
            "memory_traffic_per_step": Value(moved, "byte", "read and written by the ops of a batch"),
            "arithmetic_intensity": Value(work / moved if moved else 0.0, "FLOP/byte", "of a batch"),
            "device_memory": Value(cluster.device.memory_bytes, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(scaled(memory_mid, factor.get("memory", 1.0)), "byte", "peak"),
            "saved_activations": Value(
                memory.get("activations", 0.0), "byte", "kept for the backward pass" if train else "most alive at once"
            ),
            "kernels": Value(
                sum(op.count for op in graph.ops if train or op.phase == FORWARD), "1", "started in a step"
            ),
            "checkpoint": Value(
                graph.parameters * 4.0 + (graph.trained * OPTIMIZER_STATE_BYTES[job.optimizer] if train else 0.0),
                "byte",
                "fp32 weights" + (" and optimizer states" if train else ""),
            ),
            "power": Value(power, "W", "drawn from the grid meanwhile"),
            "energy_per_million_samples": Value(used, "J", "with hosts and PUE"),
            "carbon_per_million_samples": Value(emissions(cluster, used), "g", "operational, location-based"),
        }
        rent = prices(cluster, job.devices, million, factor.get("price", 1.0))
        if rent:
            values["cost_per_million_samples"] = Value(rent["cost"].mid, "USD", "rent of the devices")
        return values

    return quantities, times, memory


def memory_of(job: Job) -> dict[str, float]:
    """Bytes of one device by what holds them."""
    graph, width = job.graph, job.machine.bytes
    if job.mode == "train":
        states = OPTIMIZER_STATE_BYTES[job.optimizer]
        saved = graph.saved_elements * width + graph.saved_bytes
        parts = {
            "weights": graph.parameters * (4.0 + (2.0 if job.machine.mixed else 0.0)),
            "gradients": graph.trained * 4.0,
            "optimizer": graph.trained * states,
            "activations": saved,
            # The largest moment beyond what is kept: gradients of activations on their way back.
            "working_set": max(graph.peak_elements * width - saved, 0.0),
        }
    else:
        parts = {"weights": graph.parameters * width, "activations": graph.peak_elements * width}
    parts["buffers"] = graph.buffer_bytes
    parts["allocator"] = sum(parts.values()) * ALLOCATOR_SHARE
    parts["framework"] = job.profile.context_bytes
    return parts


def _section(job: Job) -> tuple[Section, dict[str, dict[str, float]]]:
    from capacity.quantities import format as shown

    account, times, memory = account_of(job)
    uncertain = _uncertain(job)
    quantities, sensitivities = with_intervals(account, uncertain)
    fits = sum(memory.values()) <= job.cluster.device.open_bytes
    binding = _binding(job, times) if fits else "memory"
    held = quantities["memory_per_device"].mid
    amount = f"{_size(held)} of {_size(job.cluster.device.memory_bytes)} per device"
    step = quantities["step_time" if job.mode == "train" else "latency"].mid
    rate = quantities["samples_per_s"].mid
    if fits:
        said = f"fits: {amount}; {_time(step)} a {'step' if job.mode == 'train' else 'batch'}, {shown(rate, '1')} samples/s; bound by {binding}"
    else:
        said = f"does not fit: {amount}, {_size(held - job.cluster.device.open_bytes)} too much; a smaller batch takes less"
    work: dict[str, float] = {}
    for op in job.graph.ops:
        each = counted_flop(op) * op.count / job.graph.batch
        if each:
            key = f"{_PARTS.get(op.kind, op.kind)}, {op.phase}"
            work[key] = work.get(key, 0.0) + each
    section = Section(
        title="Training" if job.mode == "train" else "Inference",
        verdict=said, fits=fits, binding=binding,
        setting=f"{job.devices:g} x {job.cluster.device.name}; batch {job.graph.batch:g}"
        + (" each" if job.devices > 1.0 else "") + f", {job.precision}" + (f", {job.optimizer}" if job.mode == "train" else ""),
        quantities=quantities,
        breakdowns={"memory": {name: float(value) for name, value in memory.items()}, "time": {name: float(value) for name, value in sorted(times.items(), key=lambda one: -one[1])}, "work": work},
        warnings=job.graph.notes,
    )  # fmt: skip
    return section, sensitivities


def _size(size: float) -> str:
    from capacity.quantities import format as shown

    return shown(size, "byte", binary=True)


def _time(seconds: float) -> str:
    from capacity.quantities import format as shown

    return shown(seconds, "s")


def _uncertain(job: Job) -> tuple[Uncertain, ...]:
    low, high = job.law.interval["train" if job.mode == "train" else "infer"]
    power = 1.0 if job.cluster.device.kind in ("GPU", "CPU") else 2.0 * CARRIED_WIDENING
    step = Uncertain("step time", low**power, high**power, job.law.source)
    if job.here is not None:
        step = Uncertain("step time", *job.here.interval, job.here.source)
    found = [
        step,
        composed_interval("memory", "training_memory" if job.mode == "train" else "serving_memory", job.profile),
        composed_interval("power", "power", job.profile),
    ]
    if job.cluster.usd_per_device_hour is not None:
        found.append(Uncertain("price", 0.6, 1.5, "list prices of providers differ"))
    return tuple(found)


def _binding(job: Job, times: dict[str, float]) -> str:
    """What most of the time goes to."""
    host = sum(value for name, value in times.items() if name.startswith("host"))
    matrix = sum(times.get(name, 0.0) for name in ("products", "convolutions", "attention"))
    other = sum(times.values()) - host - matrix
    launched = 0.0 if job.here else sum(op.count for op in job.graph.ops) * job.law.number["launch_s"]
    if max(host, launched) > max(matrix, other):
        return "launch latency"
    return "compute" if matrix >= other else "memory bandwidth"
