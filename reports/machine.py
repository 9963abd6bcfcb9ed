"""Write the report of a measured machine: `python reports/machine.py STORE.jsonl[.xz] FOLDER`.

Fits the machine's laws to the store's kernels, holds them against its workloads, and writes FOLDER/README.md, its figures,
a summary of every case, every prediction, and the store itself, compressed.
"""

from __future__ import annotations

import lzma
import os
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "capacity"
from matplotlib import pyplot as plt

from capacity.calibration.local import calibrate
from capacity.calibration.machine import summary as datasheet
from capacity.calibration.machine import write_machine
from capacity.measurement.check import by_case, check, summaries
from capacity.measurement.measured import Measured
from capacity.measurement.store import read
from capacity.validation.local import validate

MARKS = {
    "gpt": "o",
    "bert": "s",
    "moe": "D",
    "vit": "^",
    "resnet": "v",
    "lstm": "P",
    "mlp": "X",
    "distillation": "*",
    "decoder prefill": "<",
    "decoder decode": ">",
}
PALETTE = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000", "#997700", "#004488"]


def main(source: str, folder: str) -> None:
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "bench.jsonl"
        raw = Path(source).read_bytes()
        raw = lzma.decompress(raw) if source.endswith(".xz") else raw
        store.write_bytes(raw)
        os.environ["CAPACITY_HOME"] = scratch
        laws, fit = calibrate(str(store))
        write_machine(laws, str(store))
        scores = validate(str(store))
        environments, measurements = read(str(store))
        measured = Measured(str(store))
        if not source.endswith(".xz"):
            with lzma.open(target / "bench.jsonl.xz", "wb", preset=6) as file:
                file.write(raw)
        (target / "laws.json").write_text((Path(scratch) / "this-machine.json").read_text())
    rows = scores["rows"]
    rows.to_csv(target / "predictions.csv", index=False, float_format="%.6g")
    cases(measurements).to_csv(target / "cases.csv", index=False, float_format="%.6g")
    parity(rows, target / "parity.svg")
    phases(rows, target / "phases.svg")
    text = "\n".join(page(target, measured, environments, measurements, laws, fit, scores, datasheet(measured, laws)))
    (target / "README.md").write_text(text + "\n")


def cases(measurements) -> pd.DataFrame:
    known = summaries(measurements)
    rows = []
    for name, visits in by_case(measurements).items():
        row = {"case": name, "visits": len(visits), "status": visits[-1].status, "why": visits[-1].why}
        summary = known.get(name)
        if summary:
            row |= {
                "median_s": summary.seconds, "low_s": summary.low_s, "high_s": summary.high_s, "samples": summary.samples,
                "disturbed": summary.disturbed, "corrected": summary.corrected, "slowdown": summary.slowdown, "flop": visits[-1].flop,
                "moved_bytes": visits[-1].moved_bytes, "peak_memory_bytes": visits[-1].peak_memory_bytes,
            }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows).sort_values("case")


def parity(rows: pd.DataFrame, path: Path) -> None:
    whole = rows[rows["metric"].isin(("step_time_s", "pass_time_s")) & rows["mid"].notna()]
    figure, axes = plt.subplots(figsize=(7.0, 6.2), layout="constrained")
    both = whole[["measured", "mid"]]
    low, high = both.min().min() * 0.7, both.max().max() * 1.5
    span = [low, high]
    axes.fill_between(
        span,
        [value * 0.8 for value in span],
        [value * 1.25 for value in span],
        color="#dddddd",
        linewidth=0,
        label="within 20 %",
    )
    axes.plot(span, span, color="#888888", linewidth=1)
    for index, (family, part) in enumerate(whole.groupby("family")):
        errors = [part["mid"] - part["low"], part["high"] - part["mid"]]
        axes.errorbar(
            part["measured"], part["mid"], yerr=errors, fmt=MARKS.get(family, "o"), markersize=6, color=PALETTE[index % len(PALETTE)],
            elinewidth=0.6, label=family, alpha=0.85,
        )  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlim=span, ylim=span, xlabel="measured, s", ylabel="predicted from kernels alone, s"
    )
    axes.set_title("Whole workloads, none of which was fitted on; bars are 90 % intervals", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def phases(rows: pd.DataFrame, path: Path) -> None:
    part = rows[(rows["metric"] == "phase_time_s") & rows["mid"].notna()]
    names = [name for name in ("forward", "loss", "backward", "optimizer") if (part["phase"] == name).any()]
    figure, axes = plt.subplots(figsize=(7.0, 3.2), layout="constrained")
    data = [(part[part["phase"] == name]["mid"] / part[part["phase"] == name]["measured"]).to_numpy() for name in names]
    axes.axhspan(0.8, 1.25, color="#dddddd", linewidth=0)
    axes.axhline(1.0, color="#888888", linewidth=1)
    axes.boxplot(
        data,
        tick_labels=[f"{name} ({len(values)})" for name, values in zip(names, data, strict=True)],
        widths=0.5,
        medianprops={"color": "#4477aa", "linewidth": 2},
        flierprops={"markersize": 3},
    )
    axes.set(yscale="log", ylabel="predicted / measured")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_title("Phases of training steps; grey: within 20 %", fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def page(target, measured, environments, measurements, laws, fit, scores, sheet) -> list[str]:
    facts = measured.environment
    known = measured.summaries
    visits = by_case(measurements)
    failed = {name: ones[-1] for name, ones in visits.items() if all(one.status != "ok" for one in ones)}
    others = sorted(one.telemetry["others_share"] for one in measurements if "others_share" in one.telemetry)
    overheads = sorted(one.overhead_s for one in measurements if one.overhead_s)
    residuals = sorted(abs(value) for value in fit["residuals"].values())
    settings = measured.settings
    lines = [
        f"# {sheet['name']}, {laws.threads} thread{'s' if laws.threads > 1 else ''}",
        "",
        f"Measured {sheet['seen']} by `capacity bench`, {len(visits)} cases, {len(measurements)} visits. Made by `python reports/machine.py`; do not edit.",
        "",
        "| | |", "| --- | --- |",
        f"| system | {facts.get('system')}, Python {facts.get('python')}, torch {facts.get('torch')}, {'virtual machine' if facts.get('hypervisor') else 'bare metal'} |",
        f"| processor | {facts.get('cpu')}, {facts.get('cores')} cores, {', '.join(facts.get('instructions') or [])} |",
        f"| caches | {', '.join(f'{level} {size // 1024} KiB' for level, size in (facts.get('caches_bytes') or {}).items())} |",
        f"| clock, measured | {(facts.get('measured_clock_hz') or 0) / 1e9:.2f} GHz |",
        f"| memory | {(facts.get('memory_bytes') or 0) / 2**30:.1f} GiB; huge pages {facts.get('huge_pages')} |",
        f"| settings | {settings.get('threads')} thread, fp32 products at {settings.get('matmul_precision')!r} precision, allocator {settings.get('allocator')!r} |",
        f"| energy | {', '.join(sorted({one.energy_source for one in measurements}))}: no counter can be read here, so none is given |",
        f"| others on the machine | {quantile(others, 0.5):.0%} of all cores in the median visit, {quantile(others, 0.1):.0%} to {quantile(others, 0.9):.0%} in most |",
        f"| the harness | reading the clock takes {quantile(overheads, 0.5) * 1e9:.0f} ns a sample; samples last 1 ms at least |",
        "",
        "**Others used this machine**, as their share says. Samples know how long their thread waited for a core (4 ms at a",
        "time here): clean ones count, and where none was clean the least disturbed count with waiting subtracted",
        f"({sum(one.corrected for one in known.values())} of {len(known)} cases). Caches and memory were shared too; that is not corrected.",
        "",
        "## What it reaches",
        "",
        "| | best measured |", "| --- | --: |",
        *(f"| products in {dtype} | {rate / 1e9:.0f} GFLOP/s |" for dtype, rate in sorted(sheet["peaks"].items())),
        f"| memory, copy or triad beyond the caches | {sheet['bandwidth'] / 1e9:.1f} GB/s |",
        f"| first touch of fresh pages | {1e-9 / max(laws.seconds['machine'].get('fresh_bytes', 0.0), 1e-30):.1f} GB/s |",
        "",
        *anchors(measurements),
        "## Predicted from kernels alone",
        "",
        f"{fit['kernels']} kernels were fitted (median residual {quantile(residuals, 0.5):.1%}, 90 % below {quantile(residuals, 0.9):.1%}). No workload",
        "was: each is lowered to its library calls, the calls are priced, and the sum is held against the measurement. So every family",
        "below is one left out of the fit. Intervals of a family come from the errors of the others. *Naive* is a roofline on the",
        "measured ceilings above; for memory, 16 bytes a parameter or the weights alone.",
        "",
        "Coefficients never saw a workload. Which terms a law has was decided with earlier runs of these workloads in view, so expect",
        "networks of other kinds to be somewhat worse.",
        "",
        "![predicted against measured](parity.svg)",
        "",
        *table(scores, ()),
        "",
        *table(scores, ("family",), ("step_time_s", "pass_time_s")),
        "",
        "![phases](phases.svg)",
        "",
        "### Furthest off",
        "",
        "| workload | predicted / measured |", "| --- | --: |",
        *(f"| {row['id']} | {row['predicted'][1] / row['measured']:.2f} |" for row in scores["worst"][:10]),
        "",
        *(f"Not priced: {count} ({why}).  " for why, count in scores["unpriced"].items()),
        "",
        *inference(measured, sheet),
        *training(measured),
        *ranks(measured),
        "## What could not be measured",
        "",
        *(f"- `{name}`: {one.status}; {one.why}" for name, one in sorted(failed.items())),
        "",
        *stability(environments, measurements),
        *notes(target),
        "## Again",
        "",
        "```text", "capacity bench --to bench.jsonl --rounds 2 --threads 1", "python reports/machine.py bench.jsonl FOLDER", "```",
        "",
        "`bench.jsonl.xz` holds every sample of this report (`python reports/machine.py bench.jsonl.xz FOLDER` makes it again), `cases.csv` a",
        "summary of each case, `predictions.csv` every prediction, `laws.json` the fitted laws.",
    ]  # fmt: skip
    return [line.rstrip() if not line.endswith("  ") else line for line in lines]


def anchors(measurements) -> list[str]:
    found = [one for one in measurements if one.kernel == "anchor" and one.status == "ok"]
    if not found:
        return []
    lines = [
        "The same rates by other rulers, in turns and in the same minutes (best of several sizes; each ruler its own best):",
        "", "| | here | torch.utils.benchmark | search for the fastest calls | STREAM in C | here / best other |",
        "| --- | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for one in sorted(found, key=lambda one: (one.case, one.round)):
        facts = one.facts
        if "peak_flop_per_s" in facts:
            peak = facts["peak_flop_per_s"]
            cells = [f"{peak[name] / 1e9:.0f} GFLOP/s" for name in ("here", "torch.utils.benchmark", "search")] + [""]
        else:
            cells = [
                f"{facts['here_bytes_per_s'] / 1e9:.1f} GB/s",
                "",
                "",
                f"{facts['stream_bytes_per_s'] / 1e9:.1f} GB/s",
            ]
        lines.append(
            f"| {one.parameters['against']} {one.parameters['dtype']}, visit {one.round + 1} | {' | '.join(cells)} | {facts['share_of_the_best']:.2f} |"
        )
    return [*lines, ""]


def table(scores, keys, metrics=None) -> list[str]:
    lines = [
        f"| {' | '.join(('metric', *keys))} | rows | median error | 90 % below | bias | interval holds | naive |",
        f"| --- |{' --- |' * len(keys)} --: | --: | --: | --: | --: | --: |",
    ]
    for group in scores["groups"]:
        if tuple(group["by"]) != keys or (metrics and group["metric"] not in metrics):
            continue
        cells = [group["metric"], *(str(group["by"][key]) for key in keys), f"{group['priced']} of {group['n']}"]
        cells += [share(group.get(name)) for name in ("mdape", "p90_absolute", "bias", "coverage_90", "baseline_mdape")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def inference(measured, sheet) -> list[str]:
    lines = [
        "## Compressed inference", "",
        "A decoder of 4 layers, 768 wide, vocabulary 8192, with random weights, one sequence, 256 tokens of cache; so errors say how a format",
        "rounds and nothing of trained models. *Share* is bytes of weights and cache over time, as a share of the memory bandwidth above;",
        "more than 100 % came from the caches.",
        "", "| form | cache | decode tokens/s | share | prefill tokens/s | weights | on disk | error |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    found = {}
    for name, case in measured.cases.items():
        if case.kernel == "inference" and case.parameters["width"] == 768:
            found[case.parameters["form"], case.parameters["cache"], case.parameters["phase"]] = name
    for form, cache in dict.fromkeys((form, cache) for form, cache, _ in found):
        decode, prefill = (found.get((form, cache, phase)) for phase in ("decode", "prefill"))
        if not decode or not prefill:
            continue
        facts = next(one for one in measured.visits if one.case == decode).facts
        moved = facts["weight_bytes"] + facts["cache_bytes"]
        rates = [facts_of(measured, name)["tokens"] / measured.summaries[name].seconds for name in (decode, prefill)]
        lines.append(
            f"| {form} | {cache} | {rates[0]:.0f} | {moved / measured.summaries[decode].seconds / sheet['bandwidth']:.0%} | {rates[1]:.0f} | "
            f"{facts['weight_bytes'] / 1e6:.0f} MB | {facts['disk_bytes'] / 1e6:.0f} MB | {facts['relative_error']:.3f} |"
        )
    return [*lines, ""]


def training(measured) -> list[str]:
    lines = [
        "## Training steps", "", "Milliseconds; memory beside what the process held at rest.", "",
        "| workload | step | forward | loss | backward | optimizer | memory |", "| --- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for name in sorted(measured.of_kind("training")):
        summary = measured.summaries[name]
        visit = next(one for one in measured.visits if one.case == name)
        parts = [
            f"{summary.parts_s[phase] * 1e3:.2f}" if phase in summary.parts_s else ""
            for phase in ("forward", "loss", "backward", "optimizer")
        ]
        memory = (visit.peak_memory_bytes or 0) - (visit.resting_memory_bytes or 0)
        lines.append(
            f"| {name.removeprefix('training/')} | {summary.seconds * 1e3:.2f} | {' | '.join(parts)} | {memory / 1e6:.0f} MB |"
        )
    return [*lines, ""]


def ranks(measured) -> list[str]:
    lines = [
        "## Two processes", "", "Started by torchrun, gloo on this machine's loop-back, a thread each; measured, not predicted.", "",
        "| case | median | 95 % interval |", "| --- | --: | --: |",
    ]  # fmt: skip
    for name, summary in sorted(measured.summaries.items()):
        if measured.cases[name].kernel in ("collective", "distributed"):
            lines.append(
                f"| {name} | {summary.seconds * 1e3:.2f} ms | {summary.low_s * 1e3:.2f}–{summary.high_s * 1e3:.2f} |"
            )
    return [*lines, ""]


def stability(environments, measurements) -> list[str]:
    findings = check(environments, measurements)
    faulty = {finding.case for finding in findings if finding.case}
    counts = pd.Series([finding.remedy for finding in findings if finding.case]).value_counts()
    return [
        "## How far to trust it", "",
        f"`capacity bench check` calls {len(by_case(measurements)) - len(faulty)} of {len(by_case(measurements))} cases stable. Of the whole run it says:", "",
        *(f"- {finding.why}: {finding.remedy}" for finding in findings if not finding.case), "",
        "and of cases, by what it advises:", "",
        *(f"- {count} times: {remedy}" for remedy, count in counts.items()), "",
    ]  # fmt: skip


def facts_of(measured, name):
    return next(one for one in measured.visits if one.case == name).facts


def notes(folder: Path) -> list[str]:
    """What only the people who measured know, from notes.md beside the report."""
    path = folder / "notes.md"
    return [*path.read_text().strip().splitlines(), ""] if path.exists() else []


def quantile(values, q: float) -> float:
    return values[min(int(q * len(values)), len(values) - 1)] if values else float("nan")


def share(value) -> str:
    return "–" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main(*sys.argv[1:3])
