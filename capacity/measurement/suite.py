"""A suite: every case visited in random order, round after round, and each visit kept before the next begins."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from statistics import median
from time import monotonic

from capacity.measurement import environment as surroundings
from capacity.measurement import statistics
from capacity.measurement.isolation import run_isolated, server
from capacity.measurement.power import MODELLED, modelled_j
from capacity.measurement.registry import KERNELS
from capacity.measurement.sampling import Effort
from capacity.measurement.telemetry import Nvml, Watch
from capacity.measurement.worker import Settings, measure
from capacity.record import Record, asdict, replace
from capacity.spec.measurement import OK, Measurement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from capacity.measurement.case import Case, Machine
    from capacity.measurement.store import Store

# What the server of processes imports once, so that a visit costs 20 ms and not 2 s.
PRELOAD = ("torch", "torch._dynamo", "numpy", "capacity.measurement.worker", "capacity.measurement.registry")
SEED = 20260


class Plan(Record):
    """How a suite is run.

    rounds: visits to each case, each in another order; they lie minutes apart, so that a busy minute spoils one of them.
    time_s: after this no visit begins; what is missing is visited by the next run on the same file. power: watts of a core of
    this processor with where they were published, for the energy of cases where no counter can be read; see `power.modelled_j`.
    """

    machine: Machine
    settings: Settings = Settings()
    effort: Effort = Effort()
    rounds: int = 2
    time_s: float | None = None
    memory_bytes: float | None = None
    power: Mapping[str, Any] | None = None


class Progress(Record):
    """Where a suite stands. left_s: an estimate from the visits so far; None before the first."""

    done: int
    total: int
    left_s: float | None
    case: str
    status: str


def outstanding(cases: Sequence[Case], plan: Plan, store: Store) -> list[tuple[Case, int]]:
    """Visits that the store lacks under the plan's settings, in the order they will be made; the same order after a kill."""
    settings = asdict(plan.settings)
    others = {
        key
        for key, facts in store.environments.items()
        if any((facts.get("plan") or {}).get(name, value) != value for name, value in settings.items())
    }
    known = {measurement.key for measurement in store.measurements if measurement.environment not in others}
    order: list[tuple[Case, int]] = []
    for turn in range(plan.rounds):
        shuffled = list(cases)
        Random(SEED + turn).shuffle(shuffled)  # noqa: S311 - an order, no secret
        order += [(case, turn) for case in shuffled]
    return [(case, turn) for case, turn in order if (case.name, turn) not in known]


def run_suite(
    cases: Sequence[Case], plan: Plan, store: Store, report: Callable[[Progress], object] | None = None
) -> list[Measurement]:
    """Make all outstanding visits; returns them. What fails in a case is its result, and the suite goes on."""
    visits = outstanding(cases, plan, store)
    if not visits:
        return []
    wanted = dict.fromkeys(name for case in cases for name in KERNELS[case.kernel].preload)
    context = server((*PRELOAD, *wanted))
    key = _describe(plan, store, context)
    nvml = _nvml(plan.machine.device)
    made: list[Measurement] = []
    began = monotonic()
    for index, (case, turn) in enumerate(visits):
        if plan.time_s is not None and monotonic() - began > plan.time_s:
            break
        if report is not None:
            left = (monotonic() - began) / index * (len(visits) - index) if index else None
            report(Progress(index, len(visits), left, case.name, "runs"))
        measurement = _visited(case, turn, plan, context, key, nvml)
        store.add(measurement)
        made.append(measurement)
    if report is not None:
        report(Progress(len(made), len(visits), 0.0, "", "done"))
    return made


def _visited(case: Case, turn: int, plan: Plan, context: Any, key: str, nvml: Nvml | None) -> Measurement:
    kernel = KERNELS[case.kernel]
    effort = replace(plan.effort, budget_s=plan.effort.budget_s * kernel.effort)
    watch = Watch(nvml)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    outcome = run_isolated(
        context,
        measure,
        (case, plan.machine, plan.settings, effort, SEED + 1000 * turn + hash_of(case.name)),
        memory_bytes=(plan.memory_bytes or surroundings.available_bytes()) if plan.machine.device == "cpu" else None,
        time_s=kernel.time_s,
        watch=watch,
    )
    fields: dict[str, Any] = dict(outcome.value) if outcome.status == OK else {}
    if fields and plan.power is not None and fields.get("energy_j") is None and plan.machine.device == "cpu":
        core_s = _core_s(fields, kernel.processes, plan.settings.threads)
        low, mid, high = modelled_j(plan.power, core_s, core_s)
        fields |= {"energy_j": mid, "energy_interval_j": (low, high), "energy_source": MODELLED}
    own = fields.get("facts", {}).get("cpu_s", 0.0)
    fields.setdefault("peak_memory_bytes", outcome.peak_memory_bytes)
    return Measurement(
        case=case.name,
        kernel=case.kernel,
        parameters=case.parameters,
        device=plan.machine.device,
        round=turn,
        status=outcome.status,
        why=outcome.why,
        environment=key,
        started=started,
        telemetry=watch.summary(own),
        **fields,
    )


def _core_s(fields: Mapping[str, Any], processes: int, threads: int) -> float:
    """Seconds of cores that one run took: threads that wait for each other spin, so a core that is held is busy."""
    chosen, _ = statistics.undisturbed(statistics.timed(fields["samples"]))
    return median(statistics.seconds(sample) for sample in chosen) * max(threads, processes)


def _describe(plan: Plan, store: Store, context: Any) -> str:
    """Write down where this runs."""
    facts = surroundings.environment(plan.machine.device, threads=plan.settings.threads)
    outcome = run_isolated(context, surroundings.torch_facts, (plan.machine.device,), time_s=120.0)
    facts |= outcome.value if outcome.status == OK else {"torch": None}
    nvml = _nvml(plan.machine.device)
    if nvml is not None:
        facts |= nvml.facts()
    facts["others_share"] = surroundings.others_share()
    facts["seen"] = datetime.now(UTC).isoformat(timespec="seconds")
    facts["power_model"] = plan.power
    facts["plan"] = {**asdict(plan.settings), "budget_s": plan.effort.budget_s}
    facts.pop("key")
    key = surroundings.key_of(facts)
    store.add_environment(key, facts)
    return key


def hash_of(name: str) -> int:
    """A number for a name, the same in every process."""
    return sum((index + 1) * ord(letter) for index, letter in enumerate(name)) % 1000


def _nvml(device: str) -> Nvml | None:
    if device != "cuda":
        return None
    try:
        return Nvml()
    except Exception:  # noqa: BLE001 - NVML raises its own kinds; without it there is no telemetry
        return None
