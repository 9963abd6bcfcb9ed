"""A service: requests a second under a promise of latency become replicas, devices, money, a day, a spare and a cold start."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError
from capacity.estimators import feeding
from capacity.estimators.first_token import first_token_s, handed_token_s
from capacity.estimators.intervals import Value
from capacity.estimators.refusal import refuse
from capacity.estimators.replica import load_replica
from capacity.estimators.standby import standby_values
from capacity.formula import scaled, sourced, total
from capacity.formulas import money, schedule, traffic
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.case import Case
    from capacity.estimators.replica import Load
    from capacity.estimators.serving_case import Service
    from capacity.spec.workload import Workload

# A promise where none is given: what published chat services hold (MLPerf Inference 5.0, Llama 2 70B: 2 s, 200 ms).
TTFT_S, TPOT_S, PERCENTILE = 2.0, 0.2, 0.95
# Traffic at night, as a share of the day's peak, where nothing is said.
NIGHT_SHARE = 0.3
# Where a cluster states no storage: a local drive of today, read at once.
STORAGE_BYTES_PER_S = 5e9
# From loaded weights to the first answer: graphs are captured and kernels compiled (engines' own logs, 20 to 90 s).
WARM_UP_S = 45.0
HOURS = 24
_MOST = 4096.0


class Promise(Record):
    """What a service promises: a rate of requests, and times that a percentile of them stays below."""

    rate: float
    ttft_s: float
    tpot_s: float
    percentile: float
    night: float


def read_promise(case: Case) -> Promise | None:
    """The promise of a request, None where no rate is asked for."""
    rate = case.number("request_rate", "1/s", 0.0, 1e9, above=True)
    if rate is None:
        for name in ("ttft_slo", "tpot_slo", "percentile", "night"):
            if name in case.request:
                raise InputError(
                    f"--{name.replace('_', '-')} is given without --request-rate: say how many requests a second come"
                )
        return None
    take = case.assumptions.take
    return Promise(
        take("request rate", rate, rate, "1/s", ""),
        take(
            "first token within",
            case.number("ttft_slo", "s", 0.0, 1e5, above=True),
            TTFT_S,
            "s",
            "a usual promise of chat",
        ),
        take(
            "next token within",
            case.number("tpot_slo", "s", 0.0, 1e3, above=True),
            TPOT_S,
            "s",
            "a usual promise of chat",
        ),
        take("percentile", case.number("percentile", "1", 0.5, 0.9999), PERCENTILE, "1", "of requests that hold it"),
        take("traffic at night", case.number("night", "1", 0.0, 1.0), NIGHT_SHARE, "1", "share of the day's peak"),
    )


class Point(Record):
    """One replica at a concurrency: what its requests see, on the mean and at the percentile, and how many it finishes."""

    load: Load
    ttft_s: float
    tpot_s: float
    ttft_high_s: float
    tpot_high_s: float
    rate: float

    def keeps(self, promise: Promise) -> bool:
        """Whether the promise is held."""
        room = self.load.running >= self.load.workload.concurrency
        return (self.ttft_high_s <= promise.ttft_s) & (self.tpot_high_s <= promise.tpot_s) & room


def point(case: Case, workload: Workload, service: Service, load: Load, running: float, percentile: float) -> Point:
    """The replica of `load` with `running` requests in flight, that come one by one."""
    one = load_replica(
        case,
        load.model,
        replace(workload, concurrency=running),
        case.cluster,
        # Requests come one by one, and are not all of one length.
        replace(service, burst=0.0, spread=service.spread if ops.anywhere(service.spread) else 0.2),
        replace(load.plan, dp=1.0),
    )
    step, work, prompt = total(one.step), scaled(total(one.work), 1.0 / one.plan.pp), total(one.prompt)
    per_step = 1.0 + service.accepted
    decoding = scaled(step, workload.output_len / per_step)
    token = schedule.time_per_output_token_s(step, work, workload.output_len, one.each, 1.0, per_step)
    first = (
        handed_token_s(one, prompt, decoding) if service.pooled else first_token_s(one, step, work, prompt, decoding)
    )
    quiet = ops.minimum(first, prompt + service.engine.front_end_s)
    rate = schedule.requests_per_s(one.running, schedule.request_time_s(first, token, workload.output_len))
    return Point(
        one,
        first,
        token,
        schedule.tail_wait_s(quiet, first - quiet, 1.0 - percentile),
        schedule.tail_token_s(step, work, workload.output_len, one.each, percentile, per_step),
        rate,
    )


def best_point(case: Case, workload: Workload, service: Service, load: Load, promise: Promise) -> Point:
    """The most requests in flight on one replica that still hold the promise; refused where not even one does.

    A concurrency that was asked for is the most an engine admits.
    """

    def at(running: float) -> Point:
        return point(case, workload, service, load, running, promise.percentile)

    alone = at(1.0)
    name = load.cluster.device.name
    refuse(
        alone.keeps(promise) == False,  # noqa: E712 - a column has no `not`
        lambda row: (
            f"one request alone takes {row(alone.ttft_high_s):.3g} s to its first token and "
            f"{row(alone.tpot_high_s) * 1e3:.3g} ms a token on {row(replica_devices(load)):g} x {name}: the promise of "
            f"{row(promise.ttft_s):g} s and {row(promise.tpot_s) * 1e3:g} ms cannot be kept; relax it, give more tensor "
            "parallelism or a faster device"
        ),
    )
    admitted = ops.minimum(workload.concurrency, _MOST) if "concurrency" in case.request else _MOST
    # Doubled until the promise breaks, then halved; of columns every row goes its own way.
    least, most, more = 1.0, 1.0, alone.keeps(promise)
    while ops.anywhere(more := more & (most < admitted)):
        most = ops.where(more, ops.minimum(most * 2.0, admitted), most)
        more = more & at(most).keeps(promise)
        least = ops.where(more, most, least)
    while ops.anywhere(most - least > ops.maximum(least * 0.03, 1.0)):
        middle = ops.where(most - least > ops.maximum(least * 0.03, 1.0), (least + most) // 2.0, least)
        kept = at(middle).keeps(promise)
        least, most = ops.where(kept, middle, least), ops.where(kept, most, middle)
    return at(least)


def service_values(case: Case, workload: Workload, service: Service, load: Load) -> dict[str, Value]:
    """Replicas, devices and money for the promised rate; empty where none is asked for."""
    promise = read_promise(case)
    if promise is None:
        return {}
    if not feeding.generates(load.model):
        raise InputError(
            f"--request-rate is promised of models that write, and {load.model.name} answers in one pass: see its rate of "
            "batches without it"
        )
    best = best_point(case, workload, service, load, promise)
    each = replica_devices(load)
    pool = service.prefill_workers * service.prefill_plan.devices
    replicas = schedule.replicas_needed(promise.rate, best.rate)
    devices = replicas * (each + pool)
    share = "the asked-for share" if ops.is_column(promise.percentile) else f"{promise.percentile:.0%}"
    values = {
        "replicas": Value(replicas, "1", "that hold the promise at the peak"),
        "replicas_with_spare": Value(replicas + 1.0, "1", "that still hold it when one has failed"),
        "service_devices": Value(devices + each + pool, "1", "with the spare replica"),
        "requests_per_s_per_replica": Value(best.rate, "1/s", "at most, under the promise"),
        "concurrency_per_replica": Value(best.load.running, "1", "requests in flight then"),
        "ttft_at_percentile": Value(best.ttft_high_s, "s", f"{share} of requests at a full replica"),
        "tpot_at_percentile": Value(best.tpot_high_s, "s", f"{share} of requests at a full replica"),
        "utilisation_at_peak": Value(
            promise.rate / ((replicas + 1.0) * best.rate), "fraction", "with the spare running"
        ),
    }
    hourly = [promise.rate * share for share in day_curve(promise.night)]
    scaled_down = sum(schedule.replicas_needed(rate, best.rate) + 1.0 for rate in hourly) / HOURS
    mean = sum(hourly) / HOURS
    values |= {
        "utilisation_of_day": Value(mean / ((replicas + 1.0) * best.rate), "fraction", "mean, devices kept all day"),
        "device_hours_per_day": Value((devices + each + pool) * HOURS, "1", "devices kept all day"),
        "device_hours_per_day_scaled": Value(scaled_down * (each + pool) * HOURS, "1", "replicas follow the hour"),
        "cold_start": Value(cold_start_s(load), "s", "from storage to the first answer"),
    }
    last = schedule.request_time_s(best.ttft_high_s, best.tpot_high_s, workload.output_len)
    values |= standby_values(case, replicas, each, last, values["cold_start"].mid)
    if case.cluster.usd_per_device_hour is not None:
        second = case.cluster.usd_per_device_hour / 3600.0
        values |= token_prices(best, second, replicas * (each + pool), promise.rate)
        values["cost_per_day"] = Value(second * 3600.0 * (devices + each + pool) * HOURS, "USD", "devices kept all day")
    return values


def replica_devices(load: Load) -> float:
    """Devices of one replica."""
    return load.plan.tp * load.plan.pp * load.plan.attention_dp


def token_prices(point: Point, usd_per_device_s: float, devices: float, rate: float) -> dict[str, Value]:
    """Money for a million tokens of prompts and of answers apart, by the time each takes of the devices."""
    load, work = point.load, point.load.workload
    if load.service.pooled:
        pool = load.service.prefill_workers * load.service.prefill_plan.devices
        reading = pool / (pool + load.plan.tp * load.plan.pp * load.plan.attention_dp)
    else:
        prompt = total(load.work)
        prompt = prompt if ops.anywhere(prompt) else total(load.prompt)
        decode = total(load.step) * work.output_len / (1.0 + load.service.accepted) / load.each
        reading = prompt / (prompt + decode)
    spent = usd_per_device_s * devices / rate
    return {
        "cost_per_million_input_tokens": Value(
            spent * reading / work.prompt_len * 1e6, "USD", "by time of the devices"
        ),
        "cost_per_million_output_tokens": Value(
            spent * (1.0 - reading) / work.output_len * 1e6, "USD", "by time of the devices"
        ),
        "cost_per_million_tokens_served": Value(
            money.usd_per_token(usd_per_device_s, devices, rate * work.output_len) * 1e6,
            "USD",
            "output tokens, prompts included",
        ),
    }


def day_curve(night: float) -> list[float]:
    """Traffic of each hour as a share of the peak: a cosine between night and day."""
    from math import cos, pi

    middle, swing = (1.0 + night) / 2.0, (1.0 - night) / 2.0
    return [middle - swing * cos(2.0 * pi * (hour - 4.0) / HOURS) for hour in range(HOURS)]


def cold_start_s(load: Load) -> float:
    """Seconds from a started machine to the first answer: weights from storage, then the engine's warm-up."""
    rate = load.cluster.storage_bytes_per_s or STORAGE_BYTES_PER_S
    held = load.memory["weights"] * ops.minimum(replica_devices(load), load.cluster.devices_per_node)
    return total(
        {
            "weights": traffic.loading_time_s(held, sourced(rate, "storage of a node")),
            "warm-up": sourced(WARM_UP_S, "graphs and kernels", "logs of engines", "default"),
        }
    )
