# ruff: noqa: INP001 - a script, not a package
"""Write docs/accuracy-serving.md: `python docs/generate_accuracy_serving.py > docs/accuracy-serving.md` (seconds).

The curated runs are scored anew; what the fits said of all public runs, with models and devices left out, is read from
docs/data, where `python -m capacity.calibration.serving` and `.single` wrote it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from capacity.calibration.serving import PRIORS
from capacity.laws.engine import engine_names, fitted_engines, load_engine
from capacity.validation import validate

# Groups of fewer runs say little.
FEWEST = 4
DATA = Path(__file__).parent / "data"

HEAD = """# Accuracy of serving

Made by `python docs/generate_accuracy_serving.py > docs/accuracy-serving.md`. What an interval means and how it is made:
[accuracy.md](accuracy.md).

## How an engine is priced

1. A decode step, a prompt's chunk and a whole prompt are lowered to kernels in seconds **at the datasheet's rates**
   ([work.py](../capacity/estimators/work.py)): bytes at full bandwidth, work at the dense peak, launches. No fitted number
   is in there, so all runs of a table are lowered once and every evaluation of a fit is a few array operations.
2. A step law ([step.py](../capacity/laws/step.py)) says which share of these rates a kernel reaches, what a launch costs, how
   experts are padded to tiles, and what unpacking a narrow weight costs. Experts' kernels reach another share on each generation
   of tensor cores, as measured ones do. Experts read are those a batch is expected to hit; where experts are dealt over ranks, all
   wait for the fullest, and a token goes once to each rank that some of its experts lie on.
3. An engine adds host times: of a step, of each sequence in it, of a layer in steps that are not replayed from a graph, and of
   its front end; and its documented scheduler knobs (chunk, memory share, how it admits).
4. Closed forms ([schedule.py](../capacity/formulas/schedule.py)) make the load: each of the other requests' prompts stalls a
   request once while it answers; prompts queue as in M/D/1 (where all requests are of one length, groups of five stay
   together and wait for each other), the opening burst waits its turn, requests beyond the
   cache wait for a whole one to finish. Prompts that are taken up together, since the engine looks every few steps or holds
   them, end together. With a pool of their own for prompts, steps are free of them and the first token waits for the pool:
   its groups read at once, prompts that wait share chunks, and another worker takes over.

`capacity estimate --mode serve`, `capacity compress` and `capacity validate serving` run the same code.

## What was fitted, on what

Engines that serve: {count} parameters for {engines}, started from **measured kernels** and only corrected by serving runs
(maximum a posteriori, log-normal priors whose width is in [serving.py](../capacity/calibration/serving.py), robust, six runs counted
as one). No parameter belongs to a model, a device or a version.

| parameter | prior | fitted | | parameter | prior | fitted |
| --- | --: | --: | --- | --- | --: | --: |
"""

WRONG = """
## Known to be wrong, and why

- **Versions.** One model on one device is up to a sixth slower under one release than under the next (MiniMax-M2.5 on B200: vLLM
  0.17 and 0.19). Profiles are not fitted by version; the interval holds it.
- **The first token is the engine's own affair**: batch-waiting of TensorRT-LLM, reception every few steps of SGLang
  (`--receive-steps`), compilation in the first burst. Near the limit of the cache a few per cent of memory decide whether requests
  wait for tens of seconds.
- **19 runs of Llama-3.1-8B in FP8 under vLLM and 34 under SGLang on H200** are no closed loop at the concurrency they state: their
  prompts alone would take up to 95 % of the dense peak. They are scored like all others.
- **Disaggregated runs that do not state their pools** are priced with 16 requests a rank and are mostly wrong. Of those that do,
  attention that is data parallel is up to 60 % too slow at 512 requests a rank in 8 bits: the kernels of experts that were measured
  are not those such deployments run. How many slots a worker that decodes has (a power of two in published recipes, below its share
  of the requests) no run states; where requests wait for one, the first token comes up to a hundred times later than predicted.
- **Prompts of one user**: quantised products of llama.cpp, AWQ and others differ by kernel and shape; a device that was left out is
  off by an eighth, processor cores by a fifth. AutoAWQ was measured on one card only: left out, its prompts are off by half. Means are
  those of a few rows no term explains: dynamic int8 of torchao for one token (14 times slower), two RISC-V boards.
- **Hosts.** A card in a Raspberry Pi, or behind a slow driver, is slower than its datasheet; only a profile for Vulkan on cards
  of AMD and Intel stands for that. What a machine draws at the wall beside its card is assumed.
- **What hosts keep** (weights, experts, caches) is priced from the host's memory and link alone, with the law of processor cores: decoding
  of DeepSeek-R1 beside two sockets within 15 %, FlexGen on a T4 up to four times too fast where caches are unpacked on the host.
- **Saturated devices of unnamed load** (MLPerf, engines' own throughput tables) are priced with 2,048 requests in flight on the fewest
  devices that hold the model, and mean lengths of the data set their notes name: within a factor of two.
- Energies of unnamed services are not modelled; such rows are counted as not priced.
- **A tested rule that stayed**: where all requests are of one length, groups of five that were read together come back together. Without
  it the first token of Qwen3 left out is off by 17.9 % instead of 14.3, of all H100 runs left out by 21.9 instead of 16.6, of
  Llama 3.1 8B left out by 43.7 instead of 43.0; groups of as many as a chunk holds are worse (21.8 %, 23.9 %). **One that went**: that
  clients with lengths in round thousands warm up first rested on one deployment.
- Untested for want of runs: pipelines that serve on several nodes, adapters, thin products, encoders under load.
"""


def percent(value: float | None, digits: int = 0) -> str:
    """A fraction as per cent, a dash for none."""
    return "–" if value is None else f"{value * 100.0:.{digits}f} %"


def parameters() -> list[str]:
    """Two parameters a line: prior and fitted."""
    fitted = fitted_engines()
    rows = []
    for name, (prior, _) in PRIORS.items():
        group, _, rest = name.partition(".")
        law = fitted["laws"]["served"]
        value = law[group][rest] if group in law and rest else law.get(name)
        if value is None:
            engine = fitted["engines"].get(rest) or fitted["engines"]["vllm"]
            value = engine[group]
        rows.append(f"{name.replace('_', ' ').replace('.', ', ')} | {prior:g} | {value:.3g}")
    half = -(-len(rows) // 2)
    return [f"| {a} | | {b} |" for a, b in zip(rows, [*rows[half:], " | | "][:half], strict=False)][:half]


def left_out() -> list[str]:
    """What the serving fit says, in sample and of what it had not seen."""
    lines = [
        "\n## Runs of loaded servers, left out of the fit\n",
        "Public runs, aggregated prefill and decode; every run priced. Errors are |predicted / measured - 1|.\n",
        "| fit | rows | n | TPOT median | mean | bias | TTFT median | mean | bias |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in json.loads((DATA / "serving_left_out.json").read_text(encoding="utf-8")):
        name = f"– {row['fit']}" if row["part"] else f"**{row['fit']}**"
        cells = [name, row["rows"], f"{row['n']:,}"]
        for metric in ("tpot", "ttft"):
            one = row[metric]
            cells += [percent(one["median"], 1), percent(one["mean"], 1), f"{one['bias'] * 100:+.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


FITS = ("in sample", "device left out", "model left out")


def single() -> list[str]:
    """What the fits of one user's engines say."""
    lines = [
        "\n## One request at a time, device left out\n",
        "| engine family | metric | n | in sample: median | mean | device left out: median | mean | model left out: median | mean |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in json.loads((DATA / "single_left_out.json").read_text(encoding="utf-8")):
        numbers = [percent(row[fit][kind], 1) for fit in FITS for kind in ("median", "mean")]
        lines.append(f"| {row['law']} | {row['metric']} | {row['n']} | " + " | ".join(numbers) + " |")
    return lines


def engines() -> list[str]:
    """The profiles."""
    lines = ["\n## Profiles\n", "| `--engine` | versions of the runs | knobs from |", "| --- | --- | --- |"]
    for name in engine_names():
        engine = load_engine(name)
        lines.append(f"| `{name}` | {engine.versions} | {engine.source} |")
    return lines


def curated() -> list[str]:
    """The project's own runs, scored now."""
    lines = [
        "\n## The project's own runs\n",
        (
            "A part of the public runs, with their sources, is in [capacity/validation/data](../capacity/validation/data): "
            "`capacity validate serving`, `inference` and `energy` without `--data` score it. These runs were seen by the fits.\n"
        ),
        "| kind | metric | rows | n | priced | median | mean | 90 % interval holds | roofline's median |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for kind, view in (("serving", {"mode", "clean"}), ("inference", {"load"}), ("energy", {"kind", "unit"})):
        scored = [group for group in validate(kind)["groups"] if set(group["by"]) == view]
        lines += [_score(kind, group) for group in scored if group["n"] >= FEWEST]
    return lines


def _score(kind: str, group: dict[str, Any]) -> str:
    said = {"True": "clean", "False": "doubtful"}
    by = " ".join(said.get(str(one), str(one)) for one in group["by"].values() if one is not None and one == one)
    numbers = [percent(group[name], 1) for name in ("mdape", "mape", "coverage_90", "baseline_mdape")]
    return f"| {kind} | {group['metric']} | {by} | {group['n']} | {group['priced']} | " + " | ".join(numbers) + " |"


def main() -> None:
    """Print the page."""
    served = ", ".join(load_engine(name).name for name in ("vllm", "sglang", "tensorrt-llm"))
    lines = [HEAD.format(count=len(PRIORS), engines=served).rstrip("\n"), *parameters()]
    lines += [*left_out(), *single(), *engines(), *curated(), WRONG.rstrip("\n")]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
