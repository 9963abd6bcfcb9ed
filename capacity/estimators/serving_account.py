"""From a priced replica to the quantities of an answer, for given factors on what is uncertain."""

from __future__ import annotations

from math import inf, nan

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.first_token import first_token_s, handed_token_s
from capacity.estimators.formats import FORMATS
from capacity.estimators.intervals import Value
from capacity.estimators.lowering import active_parameter_count, model_flop
from capacity.estimators.power import device_power_of, emissions, power_of
from capacity.estimators.pricing import peak_flop_per_s
from capacity.estimators.replica_layout import fewest_replica
from capacity.estimators.replica_memory import room_of, step_table
from capacity.formula import scaled, sourced, total
from capacity.formulas import energy, money, schedule, traffic
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.replica import Load
    from capacity.spec.op import Op


def account_of(case: Case, load: Load, *, alone: bool = False) -> Account:
    """From priced parts to quantities, for given factors on what is uncertain. alone: without other layouts beside it."""
    return _generation(case, load, alone) if feeding.generates(load.model) else _one_pass(case, load)


def _generation(case: Case, load: Load, alone: bool) -> Account:
    """A model that writes its answer token by token, in a batch that refills as requests finish."""
    workload, plan, service = load.workload, load.plan, load.service
    written = schedule.mean_written(workload.output_len, service.variation)
    context = workload.prompt_len + written
    table = step_table(load.model, load.running, workload.prompt_len, written)
    step_mid, work_mid, prompt_mid = total(load.step), scaled(total(load.work), 1.0 / plan.pp), total(load.prompt)
    kept = load.each * (context * load.room.token_bytes + load.room.state_bytes * 2.0)
    moved = load.memory["weights"] * _touched(table, load.running) + kept
    shared = _shared(case, load, table, moved, alone)
    whole = room_of(case, load.model, workload, Plan(), load.cluster, service)[1]
    together = service.engine.prefill_first and not ops.anywhere(service.spread)
    per_step = sourced(1.0 + service.accepted, "tokens a step gives")

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        pace = factor.get("step time", 1.0)
        step, work = scaled(step_mid, pace), scaled(work_mid, pace)
        prompt = scaled(prompt_mid, factor.get("prompt time", 1.0))
        length = sourced(workload.output_len, "output length")
        token = schedule.time_per_output_token_s(step, work, length, load.each, 0.5 if together else 1.0, per_step)
        # What is uncertain of it is mostly how long an engine lets a request wait, which slows no step.
        decoding = scaled(step, workload.output_len / per_step)
        if service.pooled:
            reached = handed_token_s(load, prompt, decoding)
        else:
            reached = first_token_s(load, step, work, prompt, decoding)
        first = scaled(reached, factor.get("waiting", 1.0))
        request = schedule.request_time_s(first, token, workload.output_len)
        # Requests beyond those that memory holds wait for a whole one to finish.
        rounds = ops.maximum(workload.concurrency / load.running - 1.0, 0.0)
        if ops.anywhere(rounds):
            first = total({"once it is its turn": first, "until memory is free": scaled(request, rounds)})
        rate = schedule.requests_per_s(scaled(load.running, plan.dp), request)
        output_rate = scaled(rate, sourced(workload.output_len, "output length"))
        values = {
            "ttft": Value(first, "s", "time to first token, loaded"),
            "tpot": Value(token, "s", "time per output token, loaded"),
            "request_time": Value(request, "s", "from arrival to last token"),
            "tokens_per_s": Value(output_rate, "1/s", "output tokens, all replicas"),
            "tokens_per_s_per_user": Value(1.0 / token, "1/s", "output tokens each request sees"),
            "requests_per_s": Value(rate, "1/s", "finished requests, all replicas"),
            "prefill_tokens_per_s": Value(workload.prompt_len / prompt, "1/s", "of one prompt alone"),
            "running": Value(load.running, "1", "requests decoded together, each replica"),
            "kv_bytes_per_token": Value(whole.token_bytes, "byte", "averaged over the context, before sharding"),
            "state_bytes_per_request": Value(whole.state_bytes, "byte", "of recurrent layers, before sharding"),
        }
        if ops.anywhere(load.room.requests < inf):
            values["most_concurrent"] = Value(load.room.requests, "1", "requests of this length that fit, each replica")
        if ops.anywhere(longest := _longest_context(load)):
            values["longest_context"] = Value(known(longest), "1", "tokens of a single request")
        return values | shared(factor, step, token * per_step, output_rate, "token", "output tokens, prompts included")

    return quantities


def _one_pass(case: Case, load: Load) -> Account:
    """A model that answers in one forward pass: an encoder, a classifier of pictures."""
    workload, plan = load.workload, load.plan
    table = step_table(load.model, load.running, workload.prompt_len, 0.0)
    batch_mid = total(load.prompt)
    item = "image" if feeding.sees_only(load.model) else "request"
    moved = sum(op.count * op.elements * 2.0 for op in table) / plan.tp + load.memory["weights"]
    together = "all rows' own" if ops.is_column(load.running) else f"{float(load.running):g}"
    shared = _shared(case, load, table, moved)

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        batch = scaled(batch_mid, factor.get("step time", 1.0))
        rate = schedule.requests_per_s(scaled(load.running, plan.dp), batch)
        values = {
            "latency": Value(batch, "s", f"one batch of {together}"),
            f"{item}s_per_s": Value(rate, "1/s", "all replicas"),
        }
        if item == "request":
            values["tokens_per_s"] = Value(scaled(rate, workload.prompt_len), "1/s", "tokens read, all replicas")
        found = values | shared(factor, batch, batch, rate, item, f"{item}s")
        per_joule = 1.0 / found[f"energy_per_{item}"].mid
        return found | {f"{item}s_per_joule": Value(per_joule, "1/J", "hosts, cooling and conversion included")}

    return quantities


def _touched(table: tuple[Op, ...], tokens: float) -> float:
    """Share of the weights that a step reads: experts nobody chose stay where they are."""
    read = held = 0.0
    for op in table:
        weights = op.count * op.copies * op.weight_elements
        held = held + weights
        routed = ops.anywhere(op.copies != 1.0)
        hit = traffic.experts_touched(op.copies, op.active, tokens) / op.copies if routed else 1.0
        read = read + (0.0 if op.kind == "embedding" else weights * hit)
    return read / held


def _shared(
    case: Case, load: Load, table: tuple[Op, ...], moved: float, alone: bool = False
) -> Callable[[Mapping[str, float], float, float, float, str, str], dict[str, Value]]:
    """What every kind of serving states: memory, work, power, money, for one step and a rate of items."""
    plan, cluster = load.plan, load.cluster
    ranks = plan.tp * plan.pp * plan.attention_dp
    pool = load.service.prefill_workers * load.service.prefill_plan.devices
    work = model_flop(table)
    active = active_parameter_count(table)
    peak, _ = peak_flop_per_s(cluster.device, FORMATS[load.service.word][1])
    fewest = nan
    if not alone:
        smallest, holds = fewest_replica(case, load.model, load.workload, case.cluster, load.service)
        fewest = ops.where(holds, smallest.devices, nan)

    def quantities(
        factor: Mapping[str, float], step: float, lasting: float, rate: float, item: str, note: str
    ) -> dict[str, Value]:
        share = ops.minimum(moved / (step * cluster.device.memory_bytes_per_s), 1.0)
        # lasting: of a step with its share of prompts. Stages of a pipeline take turns.
        products = ops.minimum(load.busy.compute_s / plan.pp / lasting, 1.0)
        traffic_share = ops.minimum(load.busy.memory_s / plan.pp / lasting, 1.0)
        # Prefill workers are taken to draw what those that decode do.
        fleet = 1.0 + pool / plan.devices
        watts = scaled(power_of(cluster, products, traffic_share, factor.get("power", 1.0)), fleet)
        item_j = energy.energy_j(watts, 1.0 / rate)
        each = scaled(device_power_of(cluster, products, traffic_share, factor.get("power", 1.0)), plan.devices + pool)
        values = {
            "device_memory": Value(cluster.device.memory_bytes, "byte", "of one device, as its vendor states it"),
            "memory_per_device": Value(
                scaled(total(load.memory), factor.get("memory", 1.0)), "byte", "weights, cache, activations, runtime"
            ),
            f"flop_per_{item}": Value(work / load.running, "FLOP", "forward"),
            "active_parameters": Value(active, "1", "a token passes"),
            "ridge_point": Value(
                traffic.ridge_point(peak, cluster.device.memory_bytes_per_s),
                "FLOP/byte",
                "where bandwidth stops binding",
            ),
            "bandwidth_share": Value(share, "fraction", "of memory bandwidth in a step"),
            "power": Value(watts, "W", "drawn from the grid under this load"),
            f"energy_per_{item}": Value(item_j, "J", note),
            "device_power": Value(each, "W", "of the devices alone, all replicas, as their own meters show it"),
            f"device_energy_per_{item}": Value(energy.energy_j(each, 1.0 / rate), "J", "of the devices alone"),
            f"carbon_per_million_{item}s": Value(scaled(emissions(cluster, item_j), 1e6), "g", note),
        }
        if ops.anywhere(moved):
            intensity = traffic.arithmetic_intensity(work / ranks, moved)
            intensity = ops.where(moved > 0.0, intensity, nan)
            values["arithmetic_intensity"] = Value(intensity, "FLOP/byte", "of a step")
        if cluster.usd_per_device_hour is not None:
            second = cluster.usd_per_device_hour / 3600.0 * factor.get("price", 1.0)
            values[f"cost_per_million_{item}s"] = Value(
                scaled(money.usd_per_token(second, plan.devices + pool, rate), 1e6), "USD", note
            )
            values["cost_per_hour"] = Value(second * 3600.0 * (plan.devices + pool), "USD", "all replicas")
        if ops.anywhere(load.room.host_bytes) or ops.anywhere(load.room.host_token_bytes):
            cached = load.room.host_token_bytes * load.room.context * load.running
            kept = load.room.host_bytes * ranks + cached
            values["offloaded_per_node"] = Value(known(kept), "byte", "of a replica, that its host keeps")
        if ops.anywhere(fewest == fewest):
            values["fewest_devices"] = Value(fewest, "1", "that hold the weights and one request")
        return values

    return quantities


def known(value: float) -> float:
    """A value, in rows of a column where it is nought NaN: a quantity that these rows have not."""
    return ops.where(value != 0.0, value, nan) if ops.is_column(value) else value


def _longest_context(load: Load) -> float:
    """Tokens of a single request that has the replica to itself, as far as the model was built for; 0 without any limit."""
    built_for = load.model.max_positions
    if not ops.anywhere(load.room.token_bytes):
        return built_for
    held = ops.maximum(load.room.left_bytes - load.room.state_bytes, 0.0) / load.room.token_bytes
    return ops.minimum(held, built_for) if ops.anywhere(built_for) else held
