"""Engines of one user, fitted on measured runs of one request: `python -m capacity.calibration.single`.

A law has few parameters: a fixed time of a step and of a layer, one share of bandwidth, one of peak, vector operations to
unpack a narrow weight. Runs are asked as `capacity validate inference` asks them. Decode and prompts are fitted together,
from PRIORS, robustly; a device counts as much as its runs' square root, so that none outvotes the others.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.pricing import processor
from capacity.estimators.replica import load_replica, machine_of
from capacity.estimators.serving_case import read_service
from capacity.estimators.serving_time import Prompt, decode_kernels
from capacity.formulas import schedule
from capacity.laws.engine import engine_data, fitted_engines
from capacity.laws.step import kernel_time_s
from capacity.validation.inference_rows import SCORED, load_of, measured_of, request_of
from capacity.validation.tables import read_runs
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.work import Kernel

    Array = Any

# Middle and deviation of the logarithm; per law, the first two from its family where given.
PRIORS: dict[str, tuple[float, float]] = {
    "step_ms": (0.3, 0.7),
    "layer": (40.0, 0.7),
    "eager": (40.0, 1.0),
    "bandwidth": (0.8, 0.15),
    "cache": (0.6, 0.2),
    "peak": (0.4, 0.5),
    "expert_peak": (0.15, 0.5),
    "attention": (0.3, 0.3),
    "unpack": (2.0, 0.4),
    "unpack_k": (3.5, 0.4),
}
START: dict[str, dict[str, tuple[float, float]]] = {
    # AutoAWQ runs inside transformers: its prompts are launched as those are, its products unpack in their inner loop.
    "awq": {"eager": (600.0, 0.7), "peak": (0.25, 0.5)},
    "cpu": {
        "layer": (150.0, 0.7),
        "unpack": (0.6, 0.4),
        "unpack_k": (0.8, 0.4),
        "bandwidth": (0.7, 0.2),
        "peak": (0.7, 0.3),
    },
    "eager": {"layer": (600.0, 0.5), "step_ms": (3.0, 0.5), "bandwidth": (0.7, 0.15)},
    "llama-metal": {"layer": (100.0, 0.5), "peak": (0.6, 0.3)},
    "llama-vulkan": {"layer": (150.0, 0.7), "bandwidth": (0.5, 0.3), "peak": (0.2, 0.5)},
    # Products are those of engines that serve now; what was slow is the host (vLLM 0.6's own breakdown of a step).
    "served-early": {"step_ms": (2.0, 0.3), "layer": (45.0, 0.3), "bandwidth": (0.8, 0.08)},
    "compiled": {"bandwidth": (0.8, 0.08), "layer": (40.0, 0.4)},
}
DECODE_SPREAD, PROMPT_SPREAD = 0.15, 0.3


class Run:
    """One measured run, lowered: what it takes for given parameters of its law."""

    def __init__(self, row: dict[str, Any]) -> None:
        request, _ = request_of(row)
        case = read_case(request)
        workload, service = read_service(case)
        load = load_replica(case, case.model, workload, case.cluster, service)
        machine, plan, engine = machine_of(case.cluster, service), load.plan, service.engine
        each = load.each
        self.law = engine_data(engine.id, processor(case.cluster.device))["law"]
        self.device = case.cluster.device.id
        self.kind = case.cluster.device.kind
        self.metric = SCORED[str(row["metric"])]
        prompt = Prompt(case.model, plan, machine, workload.prompt_len, 0.0, engine.chunk_tokens)
        decode = decode_kernels(case.model, plan, machine, each, workload.prompt_len, workload.output_len / 2.0, 0.0)
        self.chunks = prompt.chunks
        self.passed = float(schedule.pipelined_share(self.chunks, plan.pp)) if plan.pp > 1.0 else 1.0
        self.layers = prompt.layers
        self.tables = {
            name: _table(found)
            for name, found in (
                ("decode", decode), ("chunk", prompt.chunk), ("core", prompt.core), ("small", prompt.small),
            )
        }  # fmt: skip
        self.tokens, self.output, self.running = float(prompt.tokens), float(workload.output_len), float(load.running)
        self.measured = float(measured_of(row) or 0.0)

    def speed(self, p: dict[str, float]) -> float:
        """What the row's metric would be."""
        fixed = p["step_ms"] * 1e-3
        step = _seconds(self.tables["decode"], p) + fixed
        prompt = _seconds(self.tables["chunk"], p) + _seconds(self.tables["small"], p) + fixed
        prompt = prompt * self.chunks + _seconds(self.tables["core"], p)
        prompt += p["eager"] * 1e-6 * self.layers * self.chunks
        prompt *= self.passed
        if self.metric == "prefill_tps":
            return self.tokens / prompt
        if self.metric == "total_tps":
            return (self.tokens + self.output) / (prompt + (self.output - 1.0) * step)
        return self.running / step


def _table(found: list[Kernel]) -> list[tuple[Any, ...]]:
    return [
        (
            one.memory_s, one.work_s, one.tile_s, one.rows, one.unpack_s, one.bandwidth.partition(".")[0],
            one.peak.partition(".")[0], one.unpack, one.launches, one.launch,
        )
        for one in found
    ]  # fmt: skip


def _seconds(table: list[tuple[Any, ...]], p: dict[str, float]) -> float:
    total = 0.0
    for memory, work, tile, rows, unpack_s, bandwidth, peak, unpack, launches, launch in table:
        share = {"gemm": p["bandwidth"], "expert": p["bandwidth"], "cache": p["cache"], "link": 0.7}.get(bandwidth, 1.0)
        top = {"gemm": p["peak"], "expert": p["expert_peak"], "attention": p["attention"]}.get(peak, 0.2)
        operations = 0.0 if not unpack_s else p["unpack_k"] if unpack == "gguf_k" else p["unpack"]
        total += kernel_time_s(memory, work, tile, rows, unpack_s, share, top, 0.0, operations)
        if launches:
            total += launches * {"layer": p["layer"], "all_reduce": 10.0}.get(launch, 0.0) * 1e-6
    return total


def fit(law: str, runs: list[Run]) -> dict[str, float]:
    """Parameters of a law that fit its runs and the priors best."""
    from scipy.optimize import least_squares

    prior = PRIORS | START.get(law, {})
    middle = np.log([value for value, _ in prior.values()])
    spread = np.array([deviation for _, deviation in prior.values()])
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.device] = counts.get(run.device, 0) + 1
    weight = np.array([counts[run.device] ** -0.25 for run in runs])
    scale = np.array([PROMPT_SPREAD if run.metric == "prefill_tps" else DECODE_SPREAD for run in runs])

    def residuals(logs: Array) -> Array:
        p = dict(zip(prior, np.exp(logs).tolist(), strict=True))
        errors = np.array([np.log(run.speed(p) / run.measured) for run in runs])
        return np.concatenate([errors / scale * weight, (logs - middle) / spread])

    found = least_squares(residuals, middle, loss="soft_l1", max_nfev=9)
    return dict(zip(prior, np.exp(found.x).tolist(), strict=True))


def text_of(law: str, p: dict[str, float], source: str, date: str) -> str:
    """A law and its host time as tables of laws/fitted/single.toml."""
    b, formats = p["bandwidth"], ("gguf", "int4", "fp8", "fp8_block", "int8", "int8wo", "fp8wo", "fp4")
    unpack = ", ".join(f"{name} = {p['unpack']:.3g}" for name in formats)
    return (
        f'[laws.{law}]\nsource = "{source}"\ndate = "{date}"\ntile_rows = 0\n'
        f"launch_us = {{ layer = {p['layer']:.3g}, all_reduce = 10.0 }}\n"
        f"share_of_bandwidth = {{ gemm = {b:.3g}, expert = {b:.3g}, cache = {p['cache']:.3g}, state = 0.6, "
        "elementwise = 1.0, routing = 1.0, link = 0.7 }\n"
        f"share_of_peak = {{ gemm = {p['peak']:.3g}, expert = {p['expert_peak']:.3g}, attention = {p['attention']:.3g}, "
        "scan = 0.2 }\n"
        f"unpack_operations = {{ {unpack}, gguf_k = {p['unpack_k']:.3g} }}\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Fit each law, print errors in sample and with each device left out, and write the parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a table of inference runs")
    parser.add_argument("--write", help="the file to write the parameters to")
    parser.add_argument("--date", default="")
    parser.add_argument("--scores", help="the file to write what is printed to, as JSON")
    options = parser.parse_args(arguments)
    table = read_runs(options.data, "inference", ("model", "device", "engine", "metric", "value"))
    runs: list[Run] = []
    for row in table.to_dict("records"):
        if load_of(row) != "single" or SCORED.get(str(row["metric"])) not in ("decode_tps", "prefill_tps", "total_tps"):
            continue
        try:
            run = Run(row)
        except CapacityError:
            continue
        # A law of GPUs is not bent for what runs on other accelerators.
        if run.measured > 0.0 and run.kind != "ASIC":
            runs.append(run)
    known = fitted_engines()
    text = ["# Written by `python -m capacity.calibration.single`: engines of one user.\n"]
    everything: list[tuple[str, str, float, float]] = []
    for law in sorted({run.law for run in runs}):
        if law == "served":
            continue
        own = [run for run in runs if run.law == law]
        p = fit(law, own)
        source = known["laws"][law]["source"]
        text.append(text_of(law, p, source, options.date))
        engines = {name: one for name, one in known["engines"].items() if one["law"] == law}
        for name, one in engines.items():
            text.append(
                f'[engines."{name}"]\nlaw = "{law}"\nstep_ms = {p["step_ms"]:.3g}\n'
                f"sequence_us = {one['sequence_us']:g}\neager_layer_us = {p['eager']:.3g}\n"
            )
        inside = {id(run): run.speed(p) / run.measured for run in own}
        for device in sorted({run.device for run in own}):
            others = [run for run in own if run.device != device]
            left = fit(law, others) if others else priors_of(law)
            everything += [
                (law, run.metric, inside[id(run)], run.speed(left) / run.measured)
                for run in own
                if run.device == device
            ]
        _report(law, [one for one in everything if one[0] == law])
        sys.stdout.write("    " + ", ".join(f"{name} {value:.3g}" for name, value in p.items()) + "\n")
    _report("all", everything)
    if options.scores:
        write_whole(options.scores, json.dumps(_scores(everything), indent=1) + "\n")
    if options.write:
        write_whole(options.write, "\n".join(text))


def priors_of(law: str) -> dict[str, float]:
    """Parameters where no other device was measured."""
    return {name: value for name, (value, _) in (PRIORS | START.get(law, {})).items()}


def _scores(rows: list[tuple[str, str, float, float]]) -> list[dict[str, Any]]:
    """Errors by law and metric, in sample and with the device left out."""
    found = []
    for law in [*sorted({one[0] for one in rows}), "all"]:
        for metric in ("decode_tps", "total_tps", "prefill_tps"):
            pairs = np.array([(a, b) for name, one, a, b in rows if one == metric and law in (name, "all")])
            if len(pairs):
                errors = np.abs(pairs - 1.0)
                inside, left = (
                    {"median": round(float(np.median(one)), 4), "mean": round(float(one.mean()), 4)} for one in errors.T
                )
                found.append({"law": law, "metric": metric, "n": len(pairs), "in sample": inside, "left out": left})
    return found


def _report(name: str, rows: list[tuple[str, str, float, float]]) -> None:
    for metric in ("decode_tps", "total_tps", "prefill_tps"):
        pairs = np.array([(inside, left) for _, one, inside, left in rows if one == metric])
        if len(pairs):
            errors = np.abs(pairs - 1.0)
            sys.stdout.write(
                f"{name:<14}{metric:<12} n {len(pairs):>4}  in sample {np.median(errors[:, 0]) * 100:5.1f} / "
                f"{errors[:, 0].mean() * 100:5.1f} %  device left out {np.median(errors[:, 1]) * 100:5.1f} / "
                f"{errors[:, 1].mean() * 100:5.1f} %  90 % {np.quantile(1 / pairs[:, 1], 0.05):.2f} to "
                f"{np.quantile(1 / pairs[:, 1], 0.95):.2f}\n"
            )


if __name__ == "__main__":
    main()
