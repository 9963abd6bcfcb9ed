"""The other half of an iteration of reinforcement learning: answers are written, judged, and only then learnt from."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions, one_of
from capacity.estimators.intervals import Value
from capacity.estimators.refusal import refuse
from capacity.estimators.training_traffic import HOST_LINK_BYTES_PER_S
from capacity.formula import scaled, sourced, total
from capacity.formulas import memory, rollout, traffic
from capacity.record import Record, replace
from capacity.spec.model import Linear
from capacity.spec.plan import Plan
from capacity.spec.workload import ALGORITHMS, Rollout, Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.serving_case import Service
    from capacity.estimators.training_run import Machine, Run
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec

# Answers an iteration, and of one prompt; lengths of reasoning answers; iterations of a run.
ANSWERS, GROUP, PROMPT_LEN, OUTPUT_LEN, VARIATION, ITERATIONS = 1024.0, 8.0, 512.0, 2048.0, 0.5, 200.0
# Parts of a training device that stay while answers are written: the rest is freed after a step.
_KEPT = ("weights", "optimizer", "critic", "reference", "reward", "framework")
# Of these, what can wait in the host's memory meanwhile.
_MOVABLE = ("optimizer", "critic", "reference", "reward")


class Generation(Record):
    """One batch of answers, as the replicas that write it see it.

    seconds: of writing; update_s: of new weights on their way, states moved aside included; running: answers of a replica
    that are written together; held: whether one fits. moved_bytes: through the memory of one device.
    """

    seconds: float
    update_s: float
    plan: Plan
    running: float
    held: bool
    longest: float
    moved_bytes: float
    aside: bool


def read_loop(case: Case) -> dict[str, Any]:
    """The amounts, the judges and the loop of reinforcement learning as fields of a workload, with their assumptions noted."""
    take = case.assumptions.take
    rollout = _rollout(case)
    batch = take("answers an iteration", case.number("batch", "1", 1.0, 1e8, whole=True), ANSWERS, "1", "usual")
    seq_len = total({"prompt": rollout.prompt_len, "answer": rollout.output_len})
    tokens = take(
        "training tokens", case.number("tokens", "1", 1.0, 1e17), ITERATIONS * batch * seq_len, "1", "200 iterations"
    )
    return {
        "seq_len": seq_len,
        "tokens": tokens,
        "global_batch": batch,
        "rollout": rollout,
        "guides": _guides(case, rollout.algorithm),
        "critic": valued(case.model) if rollout.algorithm == "ppo" else None,
    }


def _rollout(case: Case) -> Rollout:
    take, request = case.assumptions.take, case.request
    if "seq_len" in request:
        raise InputError("--seq-len is a prompt and its answer in --mode rlhf: give --prompt-len and --output-len")
    algorithm = one_of("--algorithm", request.get("algorithm"), ALGORITHMS) or "grpo"
    case.assumptions.note("algorithm", algorithm, "", "user" if "algorithm" in request else "default")
    answers = case.number("batch", "1", 1.0, 1e8, whole=True) or ANSWERS
    group = take(
        "answers a prompt",
        case.number("group", "1", 1.0, 4096.0, whole=True),
        GROUP if algorithm == "grpo" else 1.0,
        "1",
        "a usual group (shao2024)" if algorithm == "grpo" else "as PPO needs (ouyang2022)",
    )
    refuse(
        answers % group != 0.0,
        lambda row: f"--group {row(group):g} does not divide the {row(answers):g} answers of an iteration (--batch)",
    )
    updates = take(
        "updates an iteration", case.number("updates", "1", 1.0, 1024.0, whole=True), 1.0, "1", "all answers at once"
    )
    refuse(
        answers % updates != 0.0,
        lambda row: (
            f"--updates {row(updates):g} does not divide the {row(answers):g} answers of an iteration (--batch)"
        ),
    )
    return Rollout(
        algorithm=algorithm,
        group=group,
        updates=updates,
        prompt_len=take(
            "prompt length", case.number("prompt_len", "1", 1.0, 1e8, whole=True), PROMPT_LEN, "1", "usual"
        ),
        output_len=take(
            "output length",
            case.number("output_len", "1", 2.0, 1e7, whole=True),
            OUTPUT_LEN,
            "1",
            "a short chain of thought",
        ),
        variation=take(
            "variation of answers",
            case.number("output_variation", "1", 0.0, 3.0),
            VARIATION,
            "1",
            "deviation of their lengths over the mean",
        ),
        devices=case.number("rollout_devices", "1", 1.0, 1e6, whole=True) or 0.0,
    )


def _guides(case: Case, algorithm: str) -> tuple[tuple[str, ModelSpec], ...]:
    """Frozen models that answers pass forward: the reference, and a reward model where one judges."""
    found: list[tuple[str, ModelSpec]] = []
    if not case.request.get("no_reference"):
        found.append(("reference", case.model))
    name = case.request.get("reward")
    if name is not None or algorithm == "ppo":
        found.append(("reward", valued(case.model) if name is None else _named(case, name)))
        tag = "default" if name is None else "user"
        case.assumptions.note(
            "reward model", found[-1][1].name, "", tag, "as large as the model" if name is None else ""
        )
    else:
        case.assumptions.note("reward", "by rules", "", "default", "answers are checked, not judged by a model")
    return tuple(found)


def _named(case: Case, name: Any) -> ModelSpec:
    from capacity.catalogue import load_model

    return load_model(name, tuple(case.request.get("catalogue", ()))) if isinstance(name, str) else name


def valued(model: ModelSpec) -> ModelSpec:
    """The model with one number a token in place of words: a reward model, or a critic."""
    return replace(model, head=(Linear("value", model.hidden, 1.0, group="head"),))


def with_answers(case: Case, run: Run, machine: Machine, devices: float) -> Run:
    """A priced run with the writing of its answers, on all devices of a cluster or on those that only write.

    States that leave no room beside answers move to the host meanwhile, and so they do where it is faster. Devices that
    only write do so while the others learn from the answers before.
    """
    case, service = _served(case)
    asked = run.workload.rollout
    assert asked is not None
    if asked.devices:
        writing = _written(case, service, run, machine, asked.devices, 0.0, 0.0)
        waiting = ops.maximum(writing.seconds - total(run.time), 0.0)
        parts = {"waiting for answers": waiting, "weights to the engine": writing.update_s}
    else:
        resident = sum(run.memory.get(name, 0.0) for name in _KEPT)
        movable = sum(run.memory.get(name, 0.0) for name in _MOVABLE)
        ways = [_written(case, service, run, machine, devices, resident - aside, aside) for aside in (0.0, movable)]
        writing = min(ways, key=lambda one: (not one.held, one.seconds + one.update_s))
        parts = {"generation": writing.seconds, "weights to the engine": writing.update_s}
    return replace(run, time=run.time | parts, fits=run.fits and writing.held, generation=writing)


def _served(case: Case) -> tuple[Case, Service]:
    """The case as a server's, and how it serves."""
    from capacity.estimators.serving_case import read_service

    asked = (
        "model",
        "params",
        "config",
        "engine",
        "kv_precision",
        "catalogue",
        "prompt_len",
        "output_len",
        "rollout_tp",
    )
    request = {name: case.request[name] for name in asked if name in case.request}
    if "rollout_precision" in case.request:
        request["precision"] = case.request["rollout_precision"]
    server = replace(case, request=request, modes=("serve",), assumptions=Assumptions(), footprints={}, devices=None)
    _, service = read_service(server)
    kept = {
        "engine": "engine of answers",
        "KV cache precision": "KV cache precision",
        "serving precision": "precision of answers",
    }
    for one in server.assumptions.all():
        if one.name in kept:
            case.assumptions.note(kept[one.name], one.value, one.unit, one.tag, one.source)
    # Answers are all there at once: none come in a burst, and lengths vary as the loop says.
    return server, replace(service, burst=0.0, sampled=True)


def _written(
    case: Case, service: Service, run: Run, machine: Machine, devices: float, resident: float, aside: float
) -> Generation:
    """Answers of one iteration, written on devices that keep `resident` bytes and have moved others aside."""
    from capacity.estimators.replica import load_replica

    workload, cluster, model, asked = run.workload, machine.cluster, run.model, run.workload.rollout
    assert asked is not None
    precision = replace(workload.precision, kv_bits=service.kv_bytes * 8.0, weight_bits=service.formats[""][1] * 8.0)
    left = ops.maximum(cluster.device.memory_bytes - resident, 0.0)
    room = replace(cluster, device=replace(cluster.device, memory_bytes=left))
    serve = Workload(
        mode="serve", prompt_len=asked.prompt_len, output_len=asked.output_len, concurrency=1.0, precision=precision
    )
    plan = _replica(case, model, serve, room, service, devices)
    answers = ops.maximum(workload.global_batch / plan.dp, 1.0)
    full = load_replica(case, model, replace(serve, concurrency=answers), room, service, plan)
    longest = rollout.longest_answer_len(asked.output_len, asked.variation, sourced(workload.global_batch, "answers"))
    thinned = ops.maximum(full.running * asked.output_len / longest, 1.0)
    thin = load_replica(case, model, replace(serve, concurrency=thinned), room, service, plan)
    # A group's prompt is read once.
    prompts = scaled(total(full.work), answers / asked.group / plan.pp)
    seconds = rollout.rollout_time_s(
        answers, full.running, asked.output_len, longest, total(full.step), total(thin.step), prompts
    )
    weights = full.memory["weights"]
    bandwidth, latency = machine.network.pace(devices, 1.0)
    moving = {"weights": rollout.hand_over_time_s(weights, bandwidth, latency)}
    if aside:
        moving["states aside"] = traffic.loading_time_s(scaled(aside, 2.0), HOST_LINK_BYTES_PER_S)
    steps = ops.maximum(answers / full.running - 1.0, 0.0) * asked.output_len + longest
    cache = memory.kv_cache_bytes(full.running * 0.5 * full.room.context, full.room.token_bytes, 1.0)
    return Generation(
        seconds, total(moving), plan, full.running, full.fits, longest, steps * (weights + cache), bool(aside)
    )


def _replica(case: Case, model: ModelSpec, serve: Workload, cluster: Cluster, service: Service, devices: float) -> Plan:
    """The smallest replica that holds the model, or as the user cut it, as often as the devices allow."""
    from capacity.estimators import layout
    from capacity.estimators.replica_layout import fewest_replica

    tp = case.number("rollout_tp", "1", 1.0, 4096.0, whole=True)
    if tp is None:
        plan, holds = fewest_replica(case, model, serve, cluster, service)
        plan = plan if holds else Plan(tp=float(cluster.devices_per_node))
    else:
        layout.check_heads(model, tp)
        plan = Plan(tp=tp)
    each = plan.tp * plan.pp
    if devices % each and devices < each:
        raise InputError(
            f"a replica that writes answers takes {each:g} devices, and there are {devices:g}; give --rollout-tp"
        )
    return replace(plan, dp=devices // each)


def rollout_values(generation: Generation, workload: Workload, factor: float) -> dict[str, Value]:
    """Quantities of writing answers; factor: on the time it takes."""
    asked = workload.rollout
    assert asked is not None
    written = workload.global_batch * asked.output_len
    seconds = scaled(generation.seconds, factor)
    return {
        "generation_time": Value(seconds, "s", "writing the answers of one iteration"),
        "generated_tokens_per_s": Value(written / seconds, "1/s", "all replicas, while they write"),
        "longest_answer": Value(generation.longest, "1", "tokens of the longest of an iteration's answers"),
        "answers_together": Value(generation.running, "1", "answers written together by a replica"),
        "rollout_replicas": Value(generation.plan.dp, "1", f"of {generation.plan.tp * generation.plan.pp:g} devices"),
    }
