# ruff: noqa: INP001 - a script, not a package
"""Make docs/accuracy-training.md: `python docs/generate_accuracy_training.py > docs/accuracy-training.md`.

Scores of the fit come from the file it wrote, those of the project's own table are made anew.
"""

from __future__ import annotations

import os
import sys
import warnings

from capacity.laws.profile import FITTED
from capacity.toml_file import read_toml
from capacity.validation import validate
from capacity.validation.memory import left_out

PUBLISHERS = {
    "bert": "BERT, NVIDIA DeepLearningExamples",
    "bloom": "BLOOM, search of layouts",
    "bs-v100": "BigScience GPT, V100",
    "dgxc": "NVIDIA DGX Cloud",
    "dsazure": "DeepSpeed ZeRO-3",
    "gaudi": "Optimum Habana",
    "internevo": "InternLM 7B",
    "jaxtb": "JAX-Toolbox on GPUs",
    "llmc": "llm.c",
    "llmf": "MPT / llm-foundry",
    "maxtext": "MaxText, TPU v4 to v5p",
    "mbridge": "Megatron Bridge, 2025 and 2026",
    "mlm-ci": "Megatron tests, deterministic mode",
    "mlm-sc21": "Megatron GPT, 1.7B to 1T",
    "mlm-seqsel": "Megatron sequence parallelism",
    "mlperf": "MLPerf GPT-3",
    "nanotron": "nanotron",
    "nemo2407": "NeMo 24.07",
    "nemo2407ft": "NeMo 24.07 fine-tuning",
    "nemolaunch": "NeMo launcher",
    "neuron": "AWS Neuron",
    "simumax": "SimuMax, B200",
    "tpurec": "Google TPU recipes, v5p and v6e",
    "ttitan": "torchtitan",
    "vtrainM": "vTrain, many nodes",
    "vtrainS": "vTrain, one node, tier A",
}
KINDS = {
    "eager": "dense models, eager stacks",
    "tuned": "dense models, tuned stacks",
    "compiled": "dense models, compiled stacks on GPUs",
    "accelerator": "TPU, Gaudi, Trainium",
    "experts": "mixtures of experts, latent attention, hybrids",
}

INTRODUCTION = """# Accuracy of training

Made by `python docs/generate_accuracy_training.py > docs/accuracy-training.md`.

How long a training step takes and what a device must hold, against published runs. `capacity validate training` and
`capacity validate memory` score the project's own tables
([training.csv](../capacity/validation/data/training.csv), [memory.csv](../capacity/validation/data/memory.csv): facts as
published, each with its source), or any table with their columns (`--data FILE`). What a row gives is used; what it leaves
out is inferred, and `--predictions FILE` says what. A row that cannot be priced is counted with its reason.

## How a step is priced

1. **Terms** ([training_terms.py](../capacity/estimators/training_terms.py) and what it calls): the work of a layout in seconds at the pace of
   the kernel laws, before any software is known: products, grouped products of experts, casts to narrow formats, fused
   attention or attention that writes its scores out, element-wise traffic, launches, and the traffic of tensor-, expert-, context-,
   pipeline- and data-parallel groups.
2. **A stack** ([stacks.toml](../capacity/laws/fitted/stacks.toml)) makes a step of them: which share of its kernels' pace a
   device sustains in a long run, how much element-wise traffic is fused, what communication is exposed, how long the host launches.
   Three software *generations* (eager, tuned, compiled) carry nearly all of it; a named stack may depart from
   its generation a little. `--stack` chooses one.
3. **The fit** (`capacity calibrate training DIR --fresh`): some ninety parameters, all positive, each with a prior and a
   width, on about a thousand runs of tiers A and B; a publisher weighs no more than ten rows. Nothing belongs to a publisher, a model or a row.
   **No row of the project's own table is fitted on.** Priors and widths were chosen while these sources were in view, so
   *left out* below is honest about values and a little flattered about structure.

## In sample and left out

Error of the predicted step time in percent. *Left out*: the parameters were fitted without any row of that publisher
(rows of one cluster and author count as one publisher).
"""


def main() -> None:
    """Print the page."""
    warnings.simplefilter("ignore")
    tables = read_toml(os.path.join(FITTED, "stacks.toml"), keep=False)
    lines = [INTRODUCTION]
    lines += [
        "| rows of | n | in sample: median | mean | 90 % below | bias | left out: median | mean | 90 % below | bias | within 20 % |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, pair in tables["score"].items():
        seen, unseen = pair["in_sample"], pair["left_out"]
        title = PUBLISHERS.get(name, f"**{name}**")
        lines.append(
            f"| {title} | {seen['rows']:.0f} | {seen['median']:.1f} | {seen['mean']:.1f} | {seen['p90']:.1f} | {seen['bias']:+.1f} | "
            f"{unseen['median']:.1f} | {unseen['mean']:.1f} | {unseen['p90']:.1f} | {unseen['bias']:+.1f} | {unseen['within_20']:.0f} |"
        )
    lines += [
        "",
        "The same kind of guess on every row, 40 % of peak on 6 N + 12 L h s FLOPs a token, is 25 % off at the median of tier A.",
        "",
        "## Intervals",
        "",
        "90 % of measured over predicted of held-out runs lie between the two factors. Publishers differ by the first deviation",
        "(of the logarithm), rows of one publisher by the second. `--anchor FILE` takes one to three measured runs of the site, shifts",
        "the estimate by what they say (shrunk by both deviations) and narrows the interval.",
        "",
        "| runs | interval | between sites | within one | from |",
        "| --- | --: | --: | --: | --- |",
    ]
    for kind, row in tables["interval"].items():
        lines.append(
            f"| {KINDS[kind]} | {row['low']:.2f} to {row['high']:.2f} | {row['site']:.2f} | {row['rest']:.2f} | {row['source']} |"
        )
    lines += ["", "## The project's own table of runs", "", *_scores("training", ("tier", "kind", "stack", "device"))]
    span = read_toml(os.path.join(FITTED, "composed.toml"))["training_memory"]
    held = MEMORY.replace("INTERVAL", f"{span['low']:.2f} to {span['high']:g}")
    lines += ["", "## Peak memory", "", held, *_scores("memory", ("tier", "source", "seen"))]
    lines += ["", LEFT_OUT, "", "| | n | median | within 20 % |", "| --- | --: | --: | --: |"]
    lines += [
        f"| {name} | {score['priced']} | {score['mdape'] * 100.0:.1f} | {score['within_20'] * 100.0:.1f} |"
        for name, score in left_out().items()
    ]
    lines += ["", KNOWN]
    sys.stdout.write("\n".join(lines))


def _scores(kind: str, views: tuple[str, ...]) -> list[str]:
    scores = validate(kind)
    lines = [
        f"`capacity validate {kind}`: {scores['overall']['n']} rows, {scores['overall']['priced']} of them priced.",
        "",
        "| | n | median | 90 % below | bias | within 20 % | interval holds | rule of thumb |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
        _row("**all**", scores["overall"]),
    ]
    for view in views:
        for group in scores["groups"]:
            if set(group["by"]) == set(scores["views"][view]) and group["priced"] >= 3:
                value = next(iter(group["by"].values()))
                lines.append(_row(f"{view} {value}", group))
    return lines


def _row(name: str, score: dict[str, float]) -> str:
    cells = [
        f"{score[key] * 100.0:.1f}"
        for key in ("mdape", "p90_absolute", "bias", "within_20", "coverage_90", "baseline_mdape")
    ]
    return f"| {name} | {score['priced']} | {' | '.join(cells)} |"


MEMORY = """What a device holds is counted, not fitted, but for a few habits of each stack ([training_memory.py](../capacity/estimators/training_memory.py)):
bytes a logit, copies a norm saves, live buckets. *Allocated* is what tensors take, *reserved* what the allocator keeps, *driver*
what `nvidia-smi` shows. The interval of an estimate is INTERVAL of its middle.
"""
LEFT_OUT = """With each publisher left out: where no other publisher speaks of a stack, its habits are those of its kin (Nanotron's
those of FSDP)."""
KNOWN = """## Diary

What was expected, what the residuals then said, in the order it was tried.

| change | expected | seen |
| --- | --- | --- |
| Narrow priors, a publisher weighs at most ten rows | worse in sample, better left out | tier A left out from 14.0 to 8.2 % |
| Tuned stacks never rebuild whole blocks where a table is silent | Blackwell rows no longer a third too slow | tuned stacks, tier B, from 8.9 to 4.7 % |
| Replicas wait for the slowest, not nodes | long pipelines of one replica lose a false 6 % | Megatron's 530B and 1T from +5 and +8 to +2 and +5 % |
| Clocks under the power limit of a device, to the power 0.4 | GB300 and 500 W parts fall in line | mixtures of experts left out from 16.3 to 15.2 %, torchtitan's bias gone |
| Hand-overs between stages are partly hidden by tuned stacks | many chunks no longer cost too much | Llama 3.1 405B with 8 chunks from +20 to +4 % |
| JAX works through its share of a batch at once | no gathering of weights for each micro-batch | Ironwood from +85 to -14 % |
| Accelerators that are no GPUs keep their pace by bandwidth | Gaudi 3 at 1.5 Gaudi 2, as measured, not at 4 | their 90th percentile from 51 to 36 % |
| Masked language models give logits to a sixth of their tokens; TF32 and FP32 have a pace of their own | BERT's formats no longer apart | BERT from 13.6 to 10.3 %, 90th percentile from 39 to 17 % |
| A traffic of its own for ordering tokens by expert | Qwen3 and GPT-OSS no longer apart | no gain; left out |
| Memory: what a test's name says is read (no Transformer Engine: scores are written out; layers of a chunk) | Megatron's tests fall in line | tier A peaks from 7.8 to 3.2 % |
| Memory: DeepSpeed adds bf16 gradients up in fp32 beside them | BLOOM's bf16 rows no longer a fifth too small | its rows from 9.6 to 6.0 % |
| Host time of a micro-batch beside its layers' | deep pipelines of small models fall in line, layouts rank better | mean of vTrain's single node 7.7 to 7.6 %, left out 8.4 to 14.8 %; left out |
| A factor of its own for grouped products in 8 bits | bf16 mixtures no longer too slow | no gain left out; left out |
| DualPipe pairs stages, hides trips to experts; parts of a block are rebuilt by name; inputs are kept in 8 bits | DeepSeek-V3 fits and takes 2.66 million device-hours | from 3.22 million and 89 of 80 GiB to 2.82 and 73 |
| Stages hold whole layers; the last one has room for the head | Llama 3.1 405B with 8 chunks, DeepSeek-V3 and Qwen3 by their depth | tuned stacks left out: 90th percentile from 21.6 to 18.2 %; Megatron Bridge 14.8 to 13.8 % |
| Chunks that nobody states leave no stage fuller | Llama 2 13B of 10 layers a stage no longer cut in four | its fine-tuning 11.8 to 9.3 % on average |
| All-reduces by rings, trees or switches, whichever is fastest | small messages over many nodes cost less | vTrain's bias 2.6 to 2.1 %; nothing else moves |
| Grouped products in 16 bits apart from those in 8, again; biased experts in passes of their own; Megatron of 2025 apart | mixtures that the fit has not seen | each mixture left out: 17.8 to 13.9 %, GPT-OSS 17.8 to 8.2 %; its publisher left out: 15.2 to 17.6 %, as priors had been set for that |
| Clocks by how much of a step is products | bf16 mixtures on GB300 no longer too slow | nothing gained; left out |
| Memory: InternEvo's optimizer holds 14 bytes of gradients and temporaries a parameter at its step | one constant for its pipelines, tensor cuts and ZeRO alike | its peaks from 39.9 to 3.1 %, tier B from 8.3 to 7.6 % |
| Sharded stages of a pipeline are gathered once a step and stay so, gradients with them | torchtitan's 405B no longer half of what it takes | its peaks from 28 to 7 %; no step time moves |
| First-generation Gaudi in the catalogue | four more rows of tier A | two of them a third of what was measured: DeepSpeed on Gaudi waits for what is not modelled; tier A left out from 7.7 to 8.0 % |
| Weights by cluster (ten rows of a publisher on each device) | Blackwell in 16 bits less one publisher's | mixtures a point better, Megatron's table 2.8 to 3.1 %; left out |
| Watts to the power 0.8, not 0.4 | GB200 and B200 in line | mixtures by publisher 14.3 %, but torchtitan's 90th percentile left out from 19.5 to 31.6 %; left out |
| Megatron-DeepSpeed apart from Megatron-LM | Megatron's table freed of BLOOM's site | BLOOM 15.7 to 12.2 %, vTrain left out 5.5 to 9.4 %: the site is slow, not the stack; left out |
| A sharper maximum of host and device, launches of tensor parallelism by its square | small layouts rank better | regret 5.0 to 5.0 and 6.2 %; left out |
| June 2026's fused experts on Blackwell only, priors of what releases are known to do, FP4 products at twice the rate of small ones | mixtures and NVFP4 fall in line | mixtures by publisher 17.6 to 15.4 %, by model 13.9 to 12.5; tuned stacks' 90th percentile 17.9 to 16.0; nothing else moves |

## Known to be wrong, and why

- **Releases differ more than layouts.** Megatron's mixtures of experts ran 1.7 times as fast in June 2026 as in November 2025 on
  the same hardware and layout. A stack of its own (`megatron-core-26.06`) carries that release; what comes next is not in any table.
- **BLOOM's site** is 15 % slower than every other of its devices; its rows weigh an eighth in the fit.
- **Mixtures of experts**: Qwen3-235B and DeepSeek in bf16 are predicted a third too slow, Qwen3 of 2025 a quarter too fast. All
  but a few are one publisher's: leave it out and a mixture is 15 % off, leave only the model out and it is 13 %.
- **DeepSpeed on Gaudi** is 30 to 70 % slower than its work.
- **Ranking small layouts**: of 120 sweeps on one node the layout ranked first is 5 % slower than the fastest on average, 28 % at
  worst; the fastest is often tensor parallelism of 4 with two sequences at once, whose time the model puts a quarter too high.
- **vTrain** has seven outliers beyond 20 % (2-way tensor parallelism of 39B, two of 3.6B), out of line with their own neighbours.
- **Recomputation that a table does not state** is inferred from what fits; tuned stacks are taken to rebuild cheap parts only.
- **Hugging Face fine-tuning** of packed or padded sequences: the table states a cap, not the length that was trained.
- **Whole runs** (device-hours) include restarts, evaluation and other stages: 1.0 to 1.4 of the prediction is expected.
- **MLPerf times to train** include evaluation and start-up, and LoRA rows state neither layout nor batch.
"""


if __name__ == "__main__":
    main()
