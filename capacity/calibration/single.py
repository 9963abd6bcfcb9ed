"""Engines of one user, fitted on measured runs of one request: `python -m capacity.calibration.single`.

A law has few parameters: fixed times of a step and of a layer, shares of bandwidth and of peak, vector operations for each
weight. Runs are asked as `capacity validate inference` asks them and lowered to kernels, which no parameter enters; decode and
prompts are fitted together, near PRIORS. A device counts as much as its runs' square root, so that none outvotes the others.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from capacity.calibration.fit import ROBUST_AT, fit
from capacity.errors import CapacityError
from capacity.estimators.case import read_case
from capacity.estimators.pricing import processor
from capacity.estimators.replica import load_replica, machine_of
from capacity.estimators.serving_case import read_service
from capacity.estimators.serving_time import Prompt, decode_kernels
from capacity.formulas import schedule
from capacity.laws.engine import engine_data, host_pace
from capacity.laws.kernels.parameters import Parameter
from capacity.laws.step import kernel_time_s
from capacity.record import replace
from capacity.validation.inference_rows import SCORED, load_of, measured_of, request_of
from capacity.validation.tables import read_runs
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from capacity.estimators.work import Kernel

    # Formulas are about floats to a type checker: a column is a float in every run.
    Array = Any

# Middle and deviation of the logarithm.
PRIORS: dict[str, tuple[float, float]] = {
    "step_ms": (0.3, 0.7),
    "eager_layer_us": (40.0, 1.0),
    "launch_us.layer": (40.0, 0.7),
    "launch_us.all_reduce_rank.slot": (10.0, 0.7),
    "share_of_bandwidth.gemm": (0.8, 0.15),
    "share_of_bandwidth.cache": (0.6, 0.2),
    "share_of_peak.gemm": (0.4, 0.5),
    "share_of_peak.expert": (0.15, 0.5),
    "share_of_peak.attention": (0.3, 0.3),
    "unpack_operations.narrow": (2.0, 0.4),
    "unpack_operations.gguf_k": (3.5, 0.4),
    "unpack_operations.gguf_iq": (5.0, 0.4),
}
# Cores meet after each part of a layer, and none reads faster than it has loads in flight: 10 to 20 lines of 64 bytes in 80 ns.
CORES: dict[str, tuple[float, float] | None] = {
    "launch_us.layer": (100.0, 0.5),
    "launch_us.core": (6.0, 0.7),
    "core_gb_per_s": (14.0, 0.3),
    "share_of_bandwidth.gemm": (0.7, 0.2),
    "share_of_peak.gemm": (0.7, 0.3),
    "unpack_operations.narrow": (0.6, 0.4),
    "unpack_operations.gguf_k": (0.8, 0.4),
    "unpack_operations.gguf_iq": (1.5, 0.5),
}
# What a law has of its own, or has otherwise; None: not at all.
OWN: dict[str, dict[str, tuple[float, float] | None]] = {
    # AutoAWQ runs inside transformers: its prompts are launched as those are, its products unpack in their inner loop.
    "awq": {
        "eager_layer_us": (600.0, 0.7),
        "launch_us.expert": (30.0, 0.7),
        "share_of_bandwidth.scores": (0.3, 0.5),
        "share_of_peak.gemm": (0.25, 0.5),
        "share_of_peak.gemm.vector": (0.3, 0.5),
    },
    "compiled": {"share_of_bandwidth.gemm": (0.8, 0.08), "launch_us.layer": (40.0, 0.4)},
    "cpu": CORES
    | {
        "share_of_peak.gemm.gguf_k": (0.55, 0.3),
        "share_of_peak.gemm.gguf_iq": (0.3, 0.4),
    },
    "ik-cpu": CORES,
    # Four int8 multiplications to one of fp32; 16-bit weights are multiplied in fp32.
    "executorch": CORES | {"share_of_peak.gemm": (0.5, 0.3), "share_of_peak.gemm.int4": (1.6, 0.4)},
    "eager": {
        "step_ms": (3.0, 0.5),
        "launch_us.layer": (600.0, 0.5),
        "launch_us.expert": (30.0, 0.7),
        "share_of_bandwidth.gemm": (0.7, 0.15),
    },
    "exllama": {"share_of_peak.gemm": (0.6, 0.3)},
    # The same shader cores as llama.cpp's, through kernels of the vendor's own.
    "mlx": {"share_of_peak.gemm": (0.6, 0.3)},
    "llama-cuda": {"share_of_bandwidth.scores": (0.3, 0.5), "unpack_operations.wide": (3.0, 0.7)},
    "llama-metal": {
        "launch_us.layer": (100.0, 0.5),
        "share_of_bandwidth.scores": (0.3, 0.5),
        "share_of_peak.gemm": (0.6, 0.3),
    },
    "llama-vulkan": {
        "launch_us.layer": (150.0, 0.7),
        "share_of_bandwidth.gemm": (0.5, 0.3),
        "share_of_bandwidth.scores": (0.3, 0.5),
        "share_of_peak.gemm": (0.2, 0.5),
    },
    # Products are those of engines that serve now; what was slow is the host (vLLM 0.6's own breakdown of a step).
    "served-early": {
        "step_ms": (2.0, 0.3),
        "launch_us.layer": (45.0, 0.3),
        "share_of_bandwidth.gemm": (0.8, 0.08),
    },
    "torch-cpu": {
        "launch_us.layer": (500.0, 0.5),
        "share_of_bandwidth.gemm": (0.7, 0.2),
        "share_of_bandwidth.cache": (0.2, 0.5),
        "share_of_peak.gemm": (0.7, 0.3),
        "unpack_operations.narrow": (0.6, 0.4),
    },
    # Products in 16 bits are cuBLAS's, as measured kernels show it.
    "tuned-int4": {
        "share_of_peak.gemm": (0.72, 0.2),
        "share_of_peak.gemm.int4": (0.6, 0.3),
        "unpack_operations.wide": (3.0, 0.7),
    },
}
# What no run of one user tells apart.
FIXED = {
    "launch_us.all_reduce": 10.0,
    "share_of_bandwidth.state": 0.6,
    "share_of_bandwidth.elementwise": 1.0,
    "share_of_bandwidth.routing": 1.0,
    "share_of_bandwidth.link": 0.7,
    "share_of_peak.scan": 0.2,
}
# Names that share a parameter.
SAME = {"share_of_bandwidth.expert": "share_of_bandwidth.gemm"} | {
    f"unpack_operations.{format}": f"unpack_operations.{kind}"
    for kind, formats in {
        "narrow": ("gguf", "int4", "fp8", "fp8_block", "int8", "int8wo", "fp8wo", "fp4"),
        "wide": ("bf16", "fp16"),
    }.items()
    for format in formats
}
# Laws whose launches take cycles of the device, at this clock; those of the others are the host's, or of devices that state none.
CLOCKED, CLOCK_GHZ = ("exllama", "llama-cuda", "llama-vulkan", "served-early", "tuned-int4"), 1.7
DECODE_SPREAD, PROMPT_SPREAD = 0.15, 0.3
EVALUATIONS = 12
# How much priors weigh against runs.
HOLD = 0.5


def priors_of(law: str) -> dict[str, tuple[float, float]]:
    """Middle and deviation of each parameter of a law."""
    whole: dict[str, tuple[float, float] | None] = {**PRIORS, **OWN.get(law, {})}
    return {name: prior for name, prior in whole.items() if prior is not None}


class Run:
    """One measured run, lowered: its kernels, and what the schedule needs to know."""

    def __init__(self, row: dict[str, Any]) -> None:
        request, _ = request_of(row)
        if "offload" in request:
            raise CapacityError("what a host keeps is not the engine's law")
        case = read_case(request)
        workload, service = read_service(case)
        load = load_replica(case, case.model, workload, case.cluster, service)
        device, engine, plan = case.cluster.device, service.engine, load.plan
        machine = replace(machine_of(case.cluster, service), core_bytes_per_s=None)
        prompt = Prompt(case.model, plan, machine, workload.prompt_len, 0.0, engine.chunk_tokens)
        each, written = load.each, workload.output_len / 2.0
        self.id, self.model = str(row.get("id", "")), str(row["model"])
        self.law = engine_data(engine.id, processor(device))["law"]
        self.device, self.kind = device.id, device.kind
        self.metric = SCORED[str(row["metric"])]
        self.measured = float(measured_of(row) or 0.0)
        self.decode = decode_kernels(case.model, plan, machine, each, workload.prompt_len, written, 0.0)
        self.chunk, self.core = [*prompt.chunk, *prompt.small], prompt.core
        self.chunks = float(prompt.chunks)
        self.passed = float(schedule.pipelined_share(self.chunks, plan.pp)) if plan.pp > 1.0 else 1.0
        self.layers, self.tokens = float(prompt.layers), float(prompt.tokens)
        self.output, self.running = float(workload.output_len), float(load.running)
        self.cores = float(device.multiprocessors or 0.0) if processor(device) == "CPU" else 0.0
        self.bytes_per_s = machine.memory_bytes_per_s
        self.host = 1.0 / host_pace(device) if engine.host_launches else 1.0
        clocked = self.law in CLOCKED and device.clock_hz is not None
        self.tempo = CLOCK_GHZ * 1e9 / float(device.clock_hz or 1.0) if clocked else self.host


class Runs:
    """Runs of one law as columns, their kernels as columns of their own, for a fit that prices all at once."""

    def __init__(self, runs: Sequence[Run], law: str) -> None:
        self.runs = list(runs)
        self.names = [*priors_of(law), *FIXED, ""]
        kernels: list[tuple[int, float, Kernel]] = []
        for index, run in enumerate(runs):
            kernels += [(2 * index, 1.0, one) for one in run.decode]
            kernels += [(2 * index + 1, run.chunks * run.passed, one) for one in run.chunk]
            kernels += [(2 * index + 1, run.passed, one) for one in run.core]
        self.slot = np.array([slot for slot, _, _ in kernels])
        self.times = np.array([times for _, times, _ in kernels])

        def of(read: Callable[[Kernel], float]) -> Array:
            return np.array([read(one) for _, _, one in kernels], dtype=float)

        self.memory_s, self.work_s = of(lambda one: one.memory_s), of(lambda one: one.work_s)
        self.tile_s, self.rows = of(lambda one: one.tile_s), of(lambda one: one.rows)
        self.unpack_s, self.launches = of(lambda one: one.unpack_s), of(lambda one: one.launches)
        self.wired = np.array([one.launch.startswith("all_reduce") for _, _, one in kernels])
        self.by_layer = np.array([one.launch == "layer" for _, _, one in kernels])
        self.bandwidth = self._named("share_of_bandwidth", [one.bandwidth for _, _, one in kernels])
        self.peak = self._named("share_of_peak", [one.peak for _, _, one in kernels])
        self.unpack = self._named("unpack_operations", [one.unpack for _, _, one in kernels])
        self.launch = self._named("launch_us", [one.launch for _, _, one in kernels])

        def column(name: str) -> Array:
            return np.array([getattr(run, name) for run in runs])

        self.metric, self.measured = column("metric"), column("measured")
        self.tokens, self.output, self.running = column("tokens"), column("output"), column("running")
        self.fixed_s = column("layers") * column("chunks") * column("passed") * column("host")
        self.steps = column("chunks") * column("passed")
        self.host, self.tempo, self.cores = column("host"), column("tempo"), column("cores")
        self.bytes_per_s = column("bytes_per_s")

    def _named(self, group: str, wanted: list[str]) -> Array:
        """The index of each name's parameter, or of what stands before its dot; of none, which is 0 or a share of 1."""
        known = {name: index for index, name in enumerate(self.names)}
        found = []
        for name in wanted:
            tried = [f"{group}.{name}", f"{group}.{name.partition('.')[0]}"]
            tried = [SAME.get(one, one) for one in tried]
            found.append(next((known[one] for one in tried if one in known), len(self.names) - 1))
        return np.array(found)

    def speeds(self, p: Mapping[str, float]) -> Array:
        """What each run's metric would be."""
        known = {**p, **FIXED}
        values: Any = np.array([known.get(name, 0.0) for name in self.names])
        shares: Any = np.array([known.get(name, 1.0) for name in self.names])
        run = self.slot // 2
        memory_s = self.memory_s
        if "core_gb_per_s" in p:
            most = self.cores * p["core_gb_per_s"] * 1e9
            memory_s = (
                memory_s * np.where(most > 0.0, np.maximum(self.bytes_per_s / np.maximum(most, 1.0), 1.0), 1.0)[run]
            )
        each: Any = kernel_time_s(
            memory_s, self.work_s, self.tile_s, self.rows, self.unpack_s,
            shares[self.bandwidth], shares[self.peak], 0.0, values[self.unpack],
        )  # fmt: skip
        launch = values[self.launch] * np.where(self.wired, 1.0, self.tempo[run])
        launch = launch + np.where(self.by_layer, p.get("launch_us.core", 0.0) * self.cores[run], 0.0)
        whole = np.bincount(self.slot, (each + self.launches * launch * 1e-6) * self.times, 2 * len(self.runs))
        fixed = p["step_ms"] * 1e-3 * self.host
        step, prompt = whole[0::2] + fixed, whole[1::2] + fixed * self.steps
        prompt = prompt + p["eager_layer_us"] * 1e-6 * self.fixed_s
        return np.select(
            [self.metric == "prefill_tps", self.metric == "total_tps"],
            [self.tokens / prompt, (self.tokens + self.output) / (prompt + (self.output - 1.0) * step)],
            self.running / step,
        )


def fitted(law: str, runs: Runs) -> dict[str, float]:
    """Parameters of a law that fit its runs and the priors best."""
    priors = priors_of(law)
    specs = {
        name: Parameter(middle, middle * 0.02, middle * 50.0, spread, "") for name, (middle, spread) in priors.items()
    }
    counts: dict[str, int] = {}
    for run in runs.runs:
        counts[run.device] = counts.get(run.device, 0) + 1
    scale = np.where(runs.metric == "prefill_tps", PROMPT_SPREAD, DECODE_SPREAD)
    weights = (ROBUST_AT / scale) ** 2 / np.sqrt([counts[run.device] for run in runs.runs])
    found = fit(
        lambda p, _: 1.0 / runs.speeds(p), 1.0 / runs.measured, specs,
        {name: middle for name, (middle, _) in priors.items()}, weights=weights, hold=HOLD, smooth=EVALUATIONS,
    )  # fmt: skip
    return found.parameters


def left_out(law: str, runs: Sequence[Run], what: str) -> Array:
    """Each run's speed by a fit that has seen no run of its device, or model; by the priors where there is no other."""
    groups = np.array([getattr(run, what) for run in runs])
    speeds = np.zeros(len(runs))
    for group in sorted(set(groups)):
        others = [run for run, own in zip(runs, groups, strict=True) if own != group]
        p = fitted(law, Runs(others, law)) if others else {name: middle for name, (middle, _) in priors_of(law).items()}
        speeds[groups == group] = Runs(
            [run for run, own in zip(runs, groups, strict=True) if own == group], law
        ).speeds(p)
    return speeds


def text_of(law: str, p: Mapping[str, float], source: str, date: str) -> str:
    """A law as a table of laws/fitted/single.toml."""
    known = {**FIXED, **p}
    known |= {name: known[same] for name, same in SAME.items() if same in known}
    lines = [f"[laws.{law}]", f'source = "{source}"', f'date = "{date}"', "tile_rows = 0"]
    if law in CLOCKED:
        lines.append(f"clock_ghz = {CLOCK_GHZ}")
    if "core_gb_per_s" in p:
        lines.append(f"core_gb_per_s = {p['core_gb_per_s']:.3g}")
    for group in ("launch_us", "share_of_bandwidth", "share_of_peak", "unpack_operations"):
        own = {name.removeprefix(f"{group}."): value for name, value in known.items() if name.startswith(f"{group}.")}
        told = ", ".join(
            f'"{name}" = {value:.3g}' if "." in name else f"{name} = {value:.3g}"
            for name, value in own.items()
            if name not in ("narrow", "wide")
        )
        lines.append(f"{group} = {{ {told} }}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Fit each law, print errors in sample and with each device or model left out, and write the parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a table of inference runs")
    parser.add_argument("--write", help="the file to write the parameters to")
    parser.add_argument("--date", default="")
    parser.add_argument("--scores", help="the file to write what is printed to, as JSON")
    parser.add_argument("--law", action="append", help="only this law (repeat)")
    options = parser.parse_args(arguments)
    runs = read_single(options.data)
    text = ["# Written by `python -m capacity.calibration.single`: engines of one user.\n"]
    rows: list[dict[str, Any]] = []
    for law in sorted({run.law for run in runs} - {"served"}):
        if options.law and law not in options.law:
            continue
        own = [run for run in runs if run.law == law]
        columns = Runs(own, law)
        p = fitted(law, columns)
        text.append(text_of(law, p, SOURCES[law], options.date))
        for name, one in ENGINES[law].items():
            text.append(
                f'[engines."{name}"]\nlaw = "{law}"\nstep_ms = {p["step_ms"]:.3g}\n'
                f"sequence_us = {one:g}\neager_layer_us = {p['eager_layer_us']:.3g}\n"
            )
        inside, device, model = columns.speeds(p), left_out(law, own, "device"), left_out(law, own, "model")
        rows += [
            {"id": run.id, "law": law, "metric": run.metric, "kind": run.kind, "device": run.device}
            | {"in sample": a / run.measured, "device left out": b / run.measured, "model left out": c / run.measured}
            for run, a, b, c in zip(own, inside, device, model, strict=True)
        ]
        _report([one for one in _scores(rows) if one["law"] == law])
        sys.stdout.write("    " + ", ".join(f"{name} {value:.3g}" for name, value in p.items()) + "\n")
    _report([one for one in _scores(rows) if one["law"] in ("all", "GPU engines")])
    if options.scores:
        write_whole(options.scores, json.dumps(_scores(rows), indent=1) + "\n")
    if options.write:
        write_whole(options.write, "\n".join(text))


# Engines of a law by the names of laws/fitted, and the host time of each sequence of a batch in us, which no run of one user tells.
ENGINES: dict[str, dict[str, float]] = {
    "awq": {"awq": 10.0},
    "compiled": {"pytorch": 10.0},
    "cpu": {"llama-cpu": 100.0},
    "ik-cpu": {"ik-cpu": 100.0},
    "executorch": {"executorch": 100.0},
    "eager": {"transformers": 10.0},
    "exllama": {"exllamav2": 10.0},
    "llama-cuda": {"llama-cuda": 15.0},
    "llama-metal": {"llama-metal": 15.0},
    "llama-vulkan": {"llama-vulkan": 15.0},
    "mlx": {"mlx": 10.0},
    "served-early": {"vllm-0.6": 350.0},
    "torch-cpu": {"torch-cpu": 100.0},
    "tuned-int4": {"tuned-int4": 10.0},
}
SOURCES = {
    "awq": "published single-stream runs of AutoAWQ",
    "compiled": "published single-stream runs of gpt-fast and torchao",
    "cpu": "published single-stream runs of llama.cpp on CPUs",
    "ik-cpu": "published single-stream runs of ik_llama.cpp and T-MAC on CPUs",
    "executorch": "published single-stream runs of ExecuTorch on phones",
    "eager": "published single-stream runs of Transformers",
    "exllama": "published single-stream runs of ExLlamaV2",
    "llama-cuda": "published single-stream runs of llama.cpp on NVIDIA and AMD GPUs",
    "llama-metal": "published single-stream runs of llama.cpp on Apple GPUs",
    "llama-vulkan": "published single-stream runs of llama.cpp through Vulkan on cards of AMD and Intel",
    "mlx": "published single-stream runs of MLX",
    "served-early": "published single-stream runs of vLLM 0.2 to 0.6",
    "torch-cpu": "published single-stream runs of PyTorch, with Intel's and other extensions, on CPUs",
    "tuned-int4": "published single-stream runs of TurboMind, TinyChat and MLC-LLM",
}


def read_single(path: str) -> list[Run]:
    """Runs of one request of a table of inference runs, as far as they can be priced."""
    table = read_runs(path, "inference", ("model", "device", "engine", "metric", "value"))
    runs = []
    for row in table.to_dict("records"):
        if load_of(row) != "single" or SCORED.get(str(row["metric"])) not in METRICS:
            continue
        try:
            run = Run(row)
        except CapacityError:
            continue
        # A law of GPUs is not bent for what runs on other accelerators.
        if run.measured > 0.0 and run.kind != "ASIC":
            runs.append(run)
    return runs


METRICS = ("decode_tps", "total_tps", "prefill_tps")
FITS = ("in sample", "device left out", "model left out")


def _scores(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors by law and metric, in sample and left out."""
    framework = ("compiled", "eager", "torch-cpu")
    parts: dict[str, Callable[[dict[str, Any]], bool]] = {
        law: lambda one, law=law: one["law"] == law  # type: ignore[misc]
        for law in sorted({one["law"] for one in rows})
    }
    parts["GPU engines"] = lambda one: one["kind"] != "CPU" and one["law"] not in framework
    parts["all"] = lambda _: True
    found = []
    for law, belongs in parts.items():
        for metric in METRICS:
            own = [one for one in rows if one["metric"] == metric and belongs(one)]
            if own:
                score: dict[str, Any] = {"law": law, "metric": metric, "n": len(own)}
                for name in FITS:
                    ratios = np.array([one[name] for one in own])
                    errors = np.abs(ratios - 1.0)
                    score[name] = {"median": round(float(np.median(errors)), 4), "mean": round(float(errors.mean()), 4)}
                low, high = np.quantile([1.0 / one["device left out"] for one in own], (0.05, 0.95))
                found.append(score | {"low": round(float(low), 3), "high": round(float(high), 3)})
    return found


def _report(scores: list[dict[str, Any]]) -> None:
    for one in scores:
        told = "  ".join(f"{name} {one[name]['median']:6.1%} / {one[name]['mean']:6.1%}" for name in FITS)
        sys.stdout.write(
            f"{one['law']:<13}{one['metric']:<12} n {one['n']:>4}  {told}  90 % {one['low']:.2f} to {one['high']:.2f}\n"
        )


if __name__ == "__main__":
    main()
