"""Kernels of a step and host times of engines that serve, fitted on measured runs: `python -m capacity.calibration.serving`.

Each run is asked as `capacity validate serving` asks it and lowered to kernels, which no parameter enters; so one
evaluation of all runs is a few array operations, and the formulas are the estimate's own (laws/step.py,
formulas/schedule.py). Parameters start from measured kernels (PRIORS, with how far each may move) and are corrected by the
runs: a maximum a posteriori fit of log errors, robust, tempered because the runs of one deployment resemble each other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

import numpy as np

from capacity.errors import CapacityError, InputError
from capacity.estimators import feeding
from capacity.estimators.case import read_case
from capacity.estimators.replica import load_replica, machine_of
from capacity.estimators.serving_case import read_service
from capacity.estimators.serving_time import Prompt, by_token, decode_kernels, full_chunk, mixed_kernels
from capacity.formulas import schedule
from capacity.laws.engine import fitted_engines
from capacity.laws.step import kernel_time_s
from capacity.validation.serving import request_of
from capacity.validation.tables import read_runs
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import pandas as pd

    from capacity.estimators.work import Kernel

    # Formulas are about floats to a type checker: a column is a float in every run.
    Array = Any

# Values measured kernels show on H100 and B200 (share of rates, us), and the standard deviation of their logarithms.
# Unmeasured ones (small kernels of a layer, replay) are counted from traces of engines and may move more.
PRIORS: dict[str, tuple[float, float]] = {
    "launch_us.gemm.bf16": (3.2, 0.15),
    "launch_us.gemm.fp8": (6.0, 0.15),
    "launch_us.gemm.fp8_block": (6.5, 0.15),
    "launch_us.gemm.fp4": (6.5, 0.15),
    "launch_us.gemm.int4": (6.5, 0.15),
    "launch_us.expert.bf16": (32.0, 0.15),
    "launch_us.expert.fp8_block": (33.0, 0.15),
    "launch_us.expert.fp4": (26.0, 0.15),
    "launch_us.expert.int4": (40.0, 0.15),
    "launch_us.attention": (9.0, 0.15),
    "launch_us.layer": (12.0, 0.15),
    "launch_us.qk_norm": (6.0, 0.2),
    "launch_us.recurrent": (20.0, 0.2),
    "launch_us.all_reduce": (2.0, 0.2),
    "launch_us.all_reduce_rank": (1.5, 0.15),
    "launch_us.all_reduce_node": (20.0, 0.25),
    "launch_us.all_to_all": (30.0, 0.25),
    "share_of_bandwidth.gemm.bf16": (0.82, 0.06),
    "share_of_bandwidth.gemm.fp8": (0.73, 0.06),
    "share_of_bandwidth.gemm.fp8_block": (0.75, 0.06),
    "share_of_bandwidth.gemm.fp4": (0.62, 0.06),
    "share_of_bandwidth.gemm.int4": (0.8, 0.06),
    "share_of_bandwidth.expert.bf16": (0.85, 0.075),
    "share_of_bandwidth.expert.fp8_block": (0.85, 0.075),
    "share_of_bandwidth.expert.fp4": (0.85, 0.075),
    "share_of_bandwidth.expert.int4.hopper": (0.8, 0.075),
    "share_of_bandwidth.expert.int4.blackwell": (0.45, 0.075),
    "share_of_bandwidth.cache.bf16": (0.8, 0.05),
    "share_of_bandwidth.cache.fp8": (0.65, 0.075),
    "share_of_bandwidth.cache.latent": (0.5, 0.125),
    "share_of_bandwidth.state": (0.6, 0.1),
    "share_of_bandwidth.elementwise": (0.8, 0.15),
    "share_of_bandwidth.routing": (0.2, 0.15),
    "share_of_bandwidth.link": (0.65, 0.15),
    "share_of_peak.gemm.bf16": (0.72, 0.075),
    "share_of_peak.gemm.fp8": (0.52, 0.075),
    "share_of_peak.gemm.fp8_block": (0.57, 0.075),
    "share_of_peak.gemm.fp4": (0.33, 0.075),
    "share_of_peak.gemm.int4": (0.5, 0.075),
    "share_of_peak.expert.bf16.hopper": (0.59, 0.125),
    "share_of_peak.expert.bf16.blackwell": (0.24, 0.125),
    "share_of_peak.expert.fp8_block.hopper": (0.29, 0.125),
    "share_of_peak.expert.fp8_block.blackwell": (0.13, 0.2),
    "share_of_peak.expert.fp4": (0.35, 0.125),
    "share_of_peak.expert.int4.hopper": (0.3, 0.125),
    "share_of_peak.expert.int4.blackwell": (0.2, 0.2),
    "share_of_peak.attention.prefill": (0.52, 0.075),
    "share_of_peak.attention.decode": (0.3, 0.15),
    "share_of_peak.scan": (0.25, 0.15),
    "unpack_operations.int4": (3.0, 0.15),
    "tile_rows": (64.0, 0.15),
    "replay": (0.8, 0.075),
    "step_ms.tensorrt-llm": (0.4, 0.25),
    "step_ms.vllm": (1.0, 0.25),
    "step_ms.sglang": (0.6, 0.25),
    "sequence_us.tensorrt-llm": (8.0, 0.25),
    "sequence_us.vllm": (10.0, 0.25),
    "sequence_us.sglang": (10.0, 0.25),
    "prefill.tensorrt-llm": (1.0, 0.075),
    "prefill.vllm": (1.0, 0.075),
    "prefill.sglang": (1.0, 0.075),
    "eager_layer_us.tensorrt-llm": (40.0, 0.25),
    "eager_layer_us.vllm": (40.0, 0.25),
    "eager_layer_us.sglang": (80.0, 0.25),
    "front_end_ms.tensorrt-llm": (80.0, 0.35),
    "front_end_ms.vllm": (40.0, 0.35),
    "front_end_ms.sglang": (150.0, 0.35),
    "front_end_token_us": (3.1, 0.2),
    "hand_over_ms.tensorrt-llm": (30.0, 0.5),
    "hand_over_ms.vllm": (30.0, 0.5),
    "hand_over_ms.sglang": (30.0, 0.5),
}
ENGINES = ("tensorrt-llm", "vllm", "sglang")
# Log errors of a run that are taken as usual, and how many runs count as one independent.
TOKEN_SPREAD, FIRST_SPREAD, POOLED_SPREAD, TEMPER = 0.12, 0.35, 1.4, 6.0
# Where measured kernels of a format are lacking, the nearest that is fitted.
SAME = {"gemm.int8": "gemm.fp8", "expert.fp8": "expert.fp8_block", "expert.int8": "expert.fp8_block"}


class Kernels:
    """Kernels of all runs as arrays, one entry each."""

    def __init__(self, lists: list[list[Kernel]], names: dict[str, int]) -> None:
        flat = [(index, one) for index, found in enumerate(lists) for one in found]
        self.runs = len(lists)
        self.run = np.array([index for index, _ in flat])

        def of(read: Callable[[Kernel], float]) -> Any:
            return np.array([read(one) for _, one in flat], dtype=float)

        def named(group: str, read: Callable[[Kernel], str], needed: Callable[[Kernel], float]) -> Array:
            return np.array(
                [names[_known(f"{group}.{_same(read(one))}", names)] if needed(one) else 0 for _, one in flat]
            )

        self.memory_s: Any
        self.memory_s, self.work_s = of(lambda one: one.memory_s), of(lambda one: one.work_s)
        self.tile_s, self.rows = of(lambda one: one.tile_s), of(lambda one: one.rows)
        self.unpack_s = of(lambda one: one.unpack_s if one.unpack == "int4" else 0.0)
        self.launches = of(lambda one: one.launches)
        self.bandwidth = named("share_of_bandwidth", lambda one: one.bandwidth, lambda one: one.memory_s)
        self.peak = named("share_of_peak", lambda one: one.peak, lambda one: one.work_s)
        self.launch = named("launch_us", lambda one: one.launch, lambda one: one.launches)

    def moving(self, values: Array, names: dict[str, int]) -> Array:
        """Seconds of each run's kernels for given parameters, launches left out."""
        each: Any = kernel_time_s(
            self.memory_s,
            self.work_s,
            self.tile_s,
            self.rows,
            self.unpack_s,
            values[self.bandwidth],
            values[self.peak],
            float(values[names["tile_rows"]]),
            float(values[names["unpack_operations.int4"]]),
        )
        return np.bincount(self.run, each, minlength=self.runs)

    def launching(self, values: Array, names: dict[str, int]) -> Array:
        """Seconds of their launches."""
        each: Any = self.launches * values[self.launch] * 1e-6 * values[names["replay"]]
        return np.bincount(self.run, each, minlength=self.runs)


def _same(name: str) -> str:
    kind, _, rest = name.partition(".")
    format, dot, generation = rest.partition(".")
    return SAME.get(f"{kind}.{format}", f"{kind}.{format}" if format else kind) + dot + generation


def _known(name: str, names: dict[str, int]) -> str:
    """The nearest parameter, as a law finds it."""
    while name not in names:
        name = name.rpartition(".")[0]
    return name


class Runs:
    """Measured runs, lowered: kernels by what they are for, and what the schedule needs to know of each."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.names = {name: index for index, name in enumerate(PRIORS)}
        found, kept = [], []
        for index, row in enumerate(table.to_dict("records")):
            try:
                found.append(_lowered(row))
            except CapacityError:
                continue
            kept.append(index)
        if not found:
            raise InputError("no run of the table can be priced; `capacity validate serving --data` says why of each")
        self.table = table.iloc[kept].reset_index(drop=True)
        parts = ("decode", "beside", "mixed", "chunk", "core", "small")
        self.kernels = {part: Kernels([one[part] for one in found], self.names) for part in parts}
        numbers = [name for name, value in found[0].items() if isinstance(value, float)]
        self.column: dict[str, Any] = {name: np.array([one[name] for one in found]) for name in numbers}
        self.engine = np.array([one["engine"] for one in found])
        self.token_s = self.table["measured_tpot_ms"].to_numpy(dtype=float) * 1e-3
        self.first_s = self.table["measured_ttft_ms"].to_numpy(dtype=float) * 1e-3

    def predicted(self, logs: Array) -> tuple[Array, Array]:
        """Time per output token and to the first, for the logarithms of the parameters."""
        values: Any = np.exp(logs)
        names, column = self.names, self.column
        moving = {part: kernels.moving(values, names) for part, kernels in self.kernels.items()}
        launching = {part: self.kernels[part].launching(values, names) for part in ("decode", "chunk", "core", "small")}

        def own(name: str) -> Array:
            return np.select(
                [self.engine == engine for engine in ENGINES], [values[names[f"{name}.{engine}"]] for engine in ENGINES]
            )

        step_s, eager_s, prefill = own("step_ms") * 1e-3, own("eager_layer_us") * 1e-6, own("prefill")
        tokens, running, output = column["tokens"], column["running"], column["output"]
        step = moving["decode"] + launching["decode"] + step_s + own("sequence_us") * 1e-6 * running
        share, chunks = tokens / column["mixed_tokens"], tokens / column["chunk_tokens"]
        work = prefill * ((moving["mixed"] - moving["beside"]) * share + moving["core"])
        work = work + eager_s * column["layers"] * share
        alone = prefill * (moving["chunk"] * chunks + moving["core"]) + eager_s * column["layers"] * chunks
        alone = alone + chunks * (launching["core"] + launching["chunk"] + launching["small"] + step_s)
        per_step = column["per_step"]
        token: Any = schedule.time_per_output_token_s(step, work, output, running, column["share"], per_step)
        decoding = step * output / per_step
        queue: Any = schedule.prompt_queue_wait_s(work, decoding, running)
        together: Any = schedule.lock_step_wait_s(work, running)
        grouped: Any = schedule.group_wait_s(work, running, queue)
        queue = np.where(column["spread"] == 0.0, grouped, queue)
        joining: Any = schedule.joining_prompts(
            running, output, np.maximum(column["receive_steps"], column["hold_steps"]), per_step
        )
        queue = queue + schedule.read_together_wait_s(work, joining, column["chunk_prompts"])
        waiting = np.where(column["share"] == 0.5, together, queue)
        burst: Any = schedule.burst_wait_s(work, np.maximum(column["asked"], running))
        front = own("front_end_ms") * 1e-3 + values[names["front_end_token_us"]] * 1e-6 * tokens
        looks: Any = schedule.look_wait_s(step, column["receive_steps"], column["hold_steps"], joining)
        first: Any = schedule.time_to_first_token_s(alone, looks, waiting, burst, column["burst"], front)
        workers, groups, requests = column["workers"], column["groups"], column["requests"]
        pool: Any = schedule.pool_wait_s(alone, work, workers, groups, requests, decoding)
        queued: Any = schedule.burst_wait_s(work, requests) / (workers * groups)
        handing = front + own("hand_over_ms") * 1e-3 + column["transfer"]
        handed: Any = schedule.time_to_first_token_s(alone, 0.0, pool, queued, column["burst"], handing)
        first = np.where(column["pooled"] > 0.0, handed, first)
        rounds = np.where(column["pooled"] > 0.0, 0.0, np.maximum(column["asked"] / running - 1.0, 0.0))
        return token, first + rounds * (first + (output - 1.0) * token)


def _lowered(row: dict[str, Any]) -> dict[str, Any]:
    """A run's kernels and numbers."""
    request, _ = request_of(row)
    case = read_case(request)
    workload, service = read_service(case)
    load = load_replica(case, case.model, workload, case.cluster, service)
    machine, plan, engine = machine_of(case.cluster, service), load.plan, service.engine
    pooled = service.pooled
    each = load.decoding
    reading = service.prefill_plan if pooled else plan
    prompt = Prompt(case.model, reading, machine, workload.prompt_len, 0.0, engine.chunk_tokens)
    written = workload.output_len / 2.0
    decode = decode_kernels(case.model, plan, machine, each, workload.prompt_len, written, service.drafted)
    if pooled:
        mixed_tokens, beside = engine.chunk_tokens, []
        mixed = full_chunk(prompt, reading, machine, engine)
    else:
        mixed_tokens, beside = prompt.mixed_tokens(engine.chunk_tokens, each, workload.output_len), by_token(decode)
        mixed = mixed_kernels(case.model, plan, machine, mixed_tokens, each * (1.0 + service.drafted))
    return {
        "engine": engine.id,
        "decode": decode,
        "beside": beside,
        "mixed": mixed,
        "chunk": prompt.chunk,
        "core": prompt.core,
        "small": prompt.small,
        "layers": float(feeding.layer_count(case.model)),
        "tokens": float(prompt.tokens),
        "mixed_tokens": float(mixed_tokens),
        "chunk_tokens": float(prompt.chunk_tokens),
        "output": float(workload.output_len),
        "running": float(each),
        "asked": float(workload.concurrency / plan.attention_dp),
        # Where others read the prompts none stalls a step.
        "share": 0.0 if pooled else 0.5 if engine.prefill_first and not service.spread else 1.0,
        "pooled": float(pooled),
        "workers": float(service.prefill_workers) if pooled else 1.0,
        "groups": float(reading.attention_dp),
        "requests": float(load.running * plan.dp),
        "transfer": float(load.hand_over_s),
        "per_step": float(1.0 + service.accepted),
        "burst": float(service.burst),
        "spread": float(service.spread),
        "receive_steps": float(service.receive_steps),
        "hold_steps": float(service.hold_steps),
        "chunk_prompts": float(engine.chunk_tokens / workload.prompt_len),
    }


def fit(
    runs: Runs, used: Array, start: Array | None = None, evaluations: int = 7, middle: Array | None = None
) -> Array:
    """Logarithms of the parameters that fit the runs in `used` and the priors best.

    middle: of the priors, where not those of PRIORS.
    """
    from scipy.optimize import least_squares

    if middle is None:
        middle = np.log([value for value, _ in PRIORS.values()])
    spread = np.array([deviation for _, deviation in PRIORS.values()])
    scale = np.sqrt(TEMPER)

    def residuals(logs: Array) -> Array:
        token, first = runs.predicted(logs)
        a = np.log(token / runs.token_s)[used] / TOKEN_SPREAD / scale
        # Where pools are apart, slots that nobody states decide a first token as much as the law does.
        apart = np.where(runs.column["pooled"] > 0.0, POOLED_SPREAD, FIRST_SPREAD)
        b = (np.log(first / runs.first_s) / apart)[used] / scale
        return np.concatenate([a, b, (logs - middle) / spread])

    found = least_squares(
        residuals, middle if start is None else start, loss="soft_l1", x_scale="jac", max_nfev=evaluations
    )
    return np.asarray(found.x)


def left_out(runs: Runs, used: Array, groups: Array, start: Array, middle: Array | None = None) -> tuple[Array, Array]:
    """Predictions of each group by a fit that has not seen it."""
    token, first = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for group in sorted(set(groups)):
        logs = fit(runs, used & (groups != group), start, 4, middle)
        mine = groups == group
        a, b = runs.predicted(logs)
        token[mine], first[mine] = a[mine], b[mine]
    return token, first


def family(name: str) -> str:
    """Models that were built alike are left out together."""
    text = name.rpartition("/")[2].lower()
    for part in ("deepseek", "kimi", "minimax", "qwen3.5", "qwen3", "llama-3.1-70b", "llama-3.1-8b", "gpt-oss", "glm"):
        if part in text:
            return part
    return text


def text_of(logs: Array, source: str, date: str) -> str:
    """The fitted parameters as the file laws/fitted/served.toml."""
    values = {name: float(value) for name, value in zip(PRIORS, np.exp(logs), strict=True)}
    lines = [
        "# Written by `python -m capacity.calibration.serving`: kernels of a step and host times of engines that serve.",
        "",
        "[laws.served]",
        f'source = "{source}"',
        f'date = "{date}"',
        f"tile_rows = {values['tile_rows']:.4g}",
    ]
    for group in ("launch_us", "share_of_bandwidth", "share_of_peak", "unpack_operations"):
        lines += ["", f"[laws.served.{group}]"]
        own = {name.removeprefix(f"{group}."): value for name, value in values.items() if name.startswith(f"{group}.")}
        # Generations that nobody measured take what the first one reaches.
        own = {name.rpartition(".")[0]: value for name, value in reversed(own.items()) if name.count(".") > 1} | own
        own |= {
            other + name.removeprefix(same): value
            for other, same in SAME.items()
            for name, value in list(own.items())
            if name == same or name.startswith(f"{same}.")
        }
        # A format without a fit takes the plainest one's.
        own |= {part: own[f"{part}.bf16"] for part in ("gemm", "expert", "cache") if f"{part}.bf16" in own}
        lines += [f'"{name}" = {value:.4g}' for name, value in own.items()]
    for engine in ENGINES:
        lines += ["", f"[engines.{engine}]", 'law = "served"']
        for name in ("step_ms", "sequence_us", "prefill", "eager_layer_us", "front_end_ms", "hand_over_ms"):
            lines.append(f"{name} = {values[f'{name}.{engine}']:.4g}")
        lines += [f"replay = {values['replay']:.4g}", f"front_end_token_us = {values['front_end_token_us']:.4g}"]
    return "\n".join(lines) + "\n"


def known_values() -> Array:
    """Logarithms of the parameters as the project ships them."""
    fitted = fitted_engines()
    law, engines = fitted["laws"]["served"], fitted["engines"]
    values = []
    for name in PRIORS:
        group, _, rest = name.partition(".")
        if rest in ENGINES:
            values.append(engines[rest][group])
        else:
            values.append(law[group][rest] if rest else law.get(group) or engines[ENGINES[0]][group])
    return np.log(values)


def calibrate(
    data: str, output: str, *, source: str = "", date: str = "", fresh: bool = False, talk: Callable[[str], None]
) -> dict[str, Any]:
    """Fit engines to a site's runs, near what the project ships (fresh: near the measured kernels), and write served.toml.

    data: a table with the columns of `capacity validate serving`. Returns files, and scores in sample and with each model
    left out of the fit that predicts it (None where there is one). Raises CapacityError where no run can be priced.
    """
    table = read_runs(data, "serving", ("model", "device", "measured_tpot_ms", "measured_ttft_ms"))
    runs = Runs(table)
    talk(f"{len(runs.table)} of {len(table)} runs are priced; fitting")
    used = np.isfinite(runs.token_s) & np.isfinite(runs.first_s)
    middle = None if fresh else known_values()
    logs = fit(runs, used, middle, middle=middle)
    scores: dict[str, Any] = {"before": _medians(runs, used, *runs.predicted(known_values()))}
    scores["in_sample"] = _medians(runs, used, *runs.predicted(logs))
    families = runs.table["model"].map(family).to_numpy()
    several = len(set(families)) > 1
    scores["left_out"] = _medians(runs, used, *left_out(runs, used, families, logs, middle)) if several else None
    os.makedirs(output, exist_ok=True)
    file = os.path.join(output, "served.toml")
    write_whole(file, text_of(logs, source or f"runs of {os.path.basename(data)}", date or "undated"))
    return {"files": [file], "runs": len(runs.table), "scores": scores}


def _medians(runs: Runs, used: Array, token: Array, first: Array) -> dict[str, float]:
    pairs = (("tpot_ms", token, runs.token_s), ("ttft_ms", first, runs.first_s))
    return {name: float(np.median(np.abs(a[used] / b[used] - 1.0))) for name, a, b in pairs}


def main(arguments: list[str] | None = None) -> None:
    """Fit, print errors in sample and left out, and write the parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a table of serving runs")
    parser.add_argument("--write", help="the file to write the parameters to")
    parser.add_argument(
        "--source",
        default="published kernel measurements (NVIDIA AIConfigurator silicon database, Apache-2.0), corrected on its serving runs",
    )
    parser.add_argument("--date", default="")
    parser.add_argument("--scores", help="the file to write what is printed to, as JSON")
    options = parser.parse_args(arguments)
    table = read_runs(options.data, "serving", ("model", "device", "measured_tpot_ms", "measured_ttft_ms"))
    stated = (table["mode"] == "agg") | table["decode_batch_size"].notna()
    runs = Runs(table[stated].reset_index(drop=True))
    pooled = runs.column["pooled"] > 0.0
    clean = (runs.table["clean"].astype(str).str.lower().to_numpy() == "true") & ~pooled
    used = clean | pooled
    logs = fit(runs, used)
    scores: list[dict[str, Any]] = []
    _report(scores, "in sample", runs, clean, *runs.predicted(logs))
    for name, groups in (
        ("model family left out", runs.table["model"].map(family).to_numpy()),
        ("device left out", runs.table["device"].to_numpy()),
    ):
        token, first = left_out(runs, used, groups, logs)
        _report(scores, name, runs, clean, token, first)
        for part in sorted(set(groups)):
            _report(scores, f"  {part}", runs, clean & (groups == part), token, first, every=False)
    if options.scores:
        write_whole(options.scores, json.dumps(scores, indent=1) + "\n")
    if options.write:
        write_whole(options.write, text_of(logs, options.source, options.date))


def _report(
    scores: list[dict[str, Any]], name: str, runs: Runs, clean: Array, token: Array, first: Array, *, every: bool = True
) -> None:
    pooled = runs.column["pooled"] > 0.0
    parts = (("clean", clean), ("all", ~pooled), ("pools", pooled))
    for label, used in parts if every else parts[:1]:
        if not used.any():
            continue
        score: dict[str, Any] = {"fit": name.strip(), "part": name.startswith(" "), "rows": label, "n": int(used.sum())}
        for metric, predicted, measured in (("tpot", token, runs.token_s), ("ttft", first, runs.first_s)):
            ratio = predicted[used] / measured[used]
            low, high = np.quantile(1.0 / ratio, (0.05, 0.95))
            score[metric] = {
                "median": round(float(np.median(abs(ratio - 1.0))), 4),
                "mean": round(float(np.mean(abs(ratio - 1.0))), 4),
                "bias": round(float(np.median(ratio - 1.0)), 4),
                "low": round(float(low), 3),
                "high": round(float(high), 3),
            }
        scores.append(score)
        said = "  ".join(
            f"{metric.upper()} {one['median'] * 100:5.1f} / {one['mean'] * 100:5.1f} %, 90 % {one['low']:.2f} to {one['high']:.2f}"
            for metric, one in ((metric, score[metric]) for metric in ("tpot", "ttft"))
        )
        sys.stdout.write(f"{name:<28}{label:<6} n {score['n']:>5}  {said}\n")


if __name__ == "__main__":
    main()
