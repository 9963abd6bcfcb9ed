# ruff: noqa: INP001 - a script, not a package
"""Write docs/accuracy-kernels.md: `python docs/generate_accuracy_kernels.py > docs/accuracy-kernels.md`.

From the shipped profiles and the project's own unseen rows, with the figure; needs the `sweep` and `report` extras.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from capacity.laws.kernels.parameters import SPECS
from capacity.laws.kernels.profile import FOLDER
from capacity.toml_file import read_toml
from capacity.validation import validate

DOCS = Path(__file__).parent
FIGURE = "figures/kernels.svg"
DEVICES = {"a100-sxm-80gb": "A100", "h100-sxm": "H100", "l40s": "L40S", "b200": "B200", "gb200": "GB200"}
# Okabe and Ito's colours, told apart by people who see few.
COLOURS = {"a100_sxm": "#0072B2", "h100_sxm": "#E69F00", "l40s": "#009E73", "b200_sxm": "#D55E00", "gb200": "#CC79A7"}
OPS = {
    "gemm": "Matrix products",
    "prefill": "Prefill attention",
    "decode": "Decode attention",
    "expert": "Expert layers",
    "collective": "Collectives inside a node",
}

HEAD = """# Accuracy of kernel laws

Made by `python docs/generate_accuracy_kernels.py > docs/accuracy-kernels.md` from the profiles in
[laws/fitted/kernels](../capacity/laws/fitted/kernels) and from rows no fit has seen; a test holds it up to date.

A kernel law ([capacity/laws/kernels](../capacity/laws/kernels)) is a formula over an op's shape and a datasheet, with a few
parameters that mean something: a launch in clocks, a share of peak, a share of bandwidth, tiles and waves, splits. One set of
parameters serves every shape of one op and dtype on one device. They are fitted with

    capacity calibrate kernels DATA_DIR --output profiles
    capacity validate kernels --data DATA_DIR --profiles profiles

on tables with the columns of [these](../capacity/validation/data/kernels): the published silicon database of NVIDIA
AIConfigurator (Apache-2.0, August 2026), of which the project ships a few rows and the parameters. `engine = best` is the
fastest of the libraries that measured a shape; `capacity validate kernels` without data scores the shipped rows.

How errors are kept honest:

- **Shapes are dealt into tenths** by a hash. Seven are fitted, two are kept for the intervals (split conformal, by op, dtype
  and whether a kernel is mostly launch, large or in the middle), one is seen by nobody. *Unseen* below is that tenth.
- **Left out** means that no device of the architecture was in the fit; *sibling* that another chip of the same architecture
  lent its parameters, and only the datasheet is the device's own.
- **Rows faster than memory** (more than the datasheet's bandwidth, and too large for the cache) are set aside in fits and
  counted; they are scored like all others.
- The search is robust: an error counts in squares up to 8 %, beyond that by its size. So a fallback kernel seven times too
  slow does not bend the law of the others.
"""

DIARY = """## What each law still gets wrong, and why

**Matrix products.** The tile that a library picks is assumed to be the best of seven; where a heuristic picks another,
the law is 10 to 20 % too fast, in one or two waves above all. A100 and L40S stay at 7 % although the same law reaches
3.4 % on H100: their rows mix libraries that differ by 3 to 7 % on one shape, and a tenth of L40S's were measured with weights
left in its 96 MB cache (they beat the memory's bandwidth). Block-scaled products with n or k under a block of 128 run a fallback kernel, 7 to 40 times
slower: a family of its own, with a wide interval. FP8 on H100 wavers where two kernels alternate.

**Prefill attention.** Kernels are compiled for head sizes and windows, and which library has one for a shape decides more than
the shape: windowed attention of head size 64 on Blackwell and FP8 caches read by BF16 queries (converted on the way) are
the worst groups. Tried and not supported by the data: packing of query heads only where their number is a power of two. Found and
kept: on data-centre Blackwell three formats ignore the window altogether.

**Decode attention.** Two kernels compete on H100 with FP8 caches (an item costs 1.4 or 3 us) and alternate as the
faster one by no rule in the shape. On A100 one library's rows with more than 200 MB of cache are faster than the memory can
be; they are set aside, and those just below the limit pull the share of bandwidth up. One-library shapes (a small window at head size
128, ratios of query to KV heads that are no power of two) are a family: 1.2 to 1.35 times slower. Tried and of no gain: a
second law for kernels that serve one query head a block, the faster of the two taken.

**Expert layers.** On A100 balanced routing was measured with one library only, which keeps activations of all routed
tokens whatever the expert parallelism; skewed routing with two or three. The law sees one device and gets both wrong by a fifth: the
interval says so. Elsewhere the rest is which models have tuned configurations: an explicit table names those without.

**Collectives.** The law is a ring's with three protocols. A switch that reduces (NVLS) could not be told apart in
these rows; trees were not tried. The library switches protocols late, so times jump two-fold near 1 to 8 MB; four and eight devices behind
PCIe depend on the host's topology (two values 3.5 times apart for one doubling of the message). No law is fitted between nodes: no rows.

**Memory-bound kernels** (norms, activations, softmax, optimizers) have no rows in the tables: they are priced by bytes at a share of
bandwidth and a launch each ([memory_bound.py](../capacity/laws/memory_bound.py)).

**How much structure is left.** Gradient-boosted trees, five-fold, on what the laws miss (`python
bench/kernel_residuals.py DATA_DIR OP`; they see every shape's neighbours, which a law for an unmeasured device cannot)
bring matrix products in BF16 from 3.5-7 to 2.6-5.7 %, FP8 from 6-8 to 3.4-5.7 %, prefill from 3-10 to 1.4-5 %, decode from
5-10 to 3-5 %, A100's experts from 18-21 to 7-10 % and the other experts from 7-11 to 6-7 %. So some 4 % (products of A100: 4.5,
L40S: 5.7) is these tables' own noise, and the largest structure left is A100's experts and Blackwell's prefill.

**Engines** are factors on these laws, one for each library, op and dtype, fitted over devices; they take out the mean and
not the scatter, so an engine's rows score worse than the best ones and their interval is wider.
"""


def main() -> None:
    """Print the page and draw its figure."""
    scores = validate("kernels")
    draw(scores["rows"], DOCS / FIGURE)
    sys.stdout.write(page(scores))


def page(scores: dict[str, Any] | None = None) -> str:
    """The page's text."""
    scores = scores or validate("kernels")
    pool = read_toml(f"{FOLDER}/pool.toml")
    own = {device: read_toml(f"{FOLDER}/{device}.toml") for device in DEVICES}
    return "\n".join([
        HEAD, *_unseen(own), *_carried(pool), *_scored(scores), f"![residuals of unseen kernels]({FIGURE})\n",
        DIARY, *_parameters(pool),
    ])  # fmt: skip


def _percent(pair: list[float] | None) -> str:
    return "" if pair is None else f"{pair[0] * 100:.1f} / {pair[1] * 100:.0f}"


def _unseen(own: dict[str, Any]) -> list[str]:
    lines = [
        "## Fitted devices, unseen shapes",
        "",
        "Median / 90th percentile of |predicted / measured − 1|, in %.",
        "",
    ]
    lines += [f"| op | dtype | {' | '.join(DEVICES.values())} |", f"| --- | --- |{' --: |' * len(DEVICES)}"]
    for op, title in OPS.items():
        for sub in dict.fromkeys(sub for one in own.values() for sub in one.get(op, {})):
            cells = [own[device].get(op, {}).get(sub, {}).get("errors", {}).get("unseen") for device in DEVICES]
            lines.append(f"| {title} | {_name(sub)} | {' | '.join(_percent(cell) for cell in cells)} |")
    return [*lines, ""]


def _carried(pool: dict[str, Any]) -> list[str]:
    lines = ["## Devices the parameters were not fitted on", ""]
    lines += ["Median / 90th percentile, in %: of a sibling's parameters, and of a pool without the architecture.", ""]
    columns = [*DEVICES, "b200 from gb200", "gb200 from b200"]
    heads = [f"{DEVICES[one]} left out" if one in DEVICES else "B200 by GB200" if one[0] == "b" else "GB200 by B200" for one in columns]  # fmt: skip
    lines += [f"| op | dtype | {' | '.join(heads)} |", f"| --- | --- |{' --: |' * len(columns)}"]
    for op, title in OPS.items():
        for sub, row in pool.get(op, {}).items():
            cells = [row["errors"].get(one) for one in columns]
            if any(cells):
                lines.append(f"| {title} | {_name(sub)} | {' | '.join(_percent(cell) for cell in cells)} |")
    lines += ["", "Intervals widen by the factor that made them hold 90 % between siblings: "]
    lines[-1] += ", ".join(f"{OPS[op].lower()} {row['sibling']:.2f}" for op, row in pool["widening"].items()) + "."
    return [*lines, ""]


def _scored(scores: dict[str, Any]) -> list[str]:
    lines = ["## The shipped rows", "", "`capacity validate kernels`: rows of unseen shapes, all five devices.", ""]
    lines += ["| op | rows | median | 90 % below | bias | 90 % interval holds | roofline | one share |"]
    lines += ["| --- | --: | --: | --: | --: | --: | --: | --: |"]
    for group in scores["groups"]:
        if set(group["by"]) == {"op"}:
            cells = ("mdape", "p90_absolute", "bias", "coverage_90", "baseline_mdape", "baseline_single_mdape")
            row = " | ".join(f"{group[cell] * 100:.1f} %" for cell in cells)
            lines.append(f"| {OPS[group['by']['op']]} | {group['n']} | {row} |")
    lines += ["", "*Roofline* is datasheet peak and bandwidth; *one share* 70 % of peak, 80 % of bandwidth and 5 us."]
    return [*lines, ""]


def _parameters(pool: dict[str, Any]) -> list[str]:
    lines = [
        "## Parameters",
        "",
        "The pool's values, with the standard error of their logarithm, for one dtype of each op.",
        "",
    ]
    for op, title in OPS.items():
        sub, row = next(iter(pool[op].items()))
        lines += [f"**{title}**, {_name(sub)}", "", "| parameter | value | ± | meaning |", "| --- | --: | --: | --- |"]
        for name, value in row["parameters"].items():
            lines.append(f"| `{name}` | {value:.4g} | {row['uncertainty'][name]:.2g} | {SPECS[op][name].meaning} |")
        lines.append("")
    return lines


def _name(sub: str) -> str:
    return sub.replace("|", ", ").replace("bfloat16", "bf16")


def draw(rows: Any, path: Path) -> None:
    """Measured over predicted against the predicted time, a panel an op."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(
        {"svg.hashsalt": "kernels", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 8}
    )
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.6), sharey=True, layout="constrained")
    for axis, (op, title) in zip(axes.flat, OPS.items(), strict=False):
        part = rows[rows["op"] == op]
        ratio = np.log2(part["measured"] / part["mid"])
        axis.axhspan(np.log2(0.9), np.log2(1.1), color="#dddddd", lw=0, zorder=0)
        for device, colour in COLOURS.items():
            mine = (part["device"] == device).to_numpy()
            axis.scatter(part["mid"][mine] * 1e6, ratio[mine], s=7, color=colour, lw=0, alpha=0.75)
        axis.set(xscale="log", title=title, ylim=(-2, 2), xlabel="predicted, µs")
        axis.set_yticks([-2, -1, 0, 1, 2], ["¼", "½", "1", "2", "4"])
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("measured / predicted")
    legend = axes[1, 2]
    legend.axis("off")
    for place, (device, colour) in enumerate(COLOURS.items()):
        at = {"transform": legend.transAxes, "color": colour, "fontsize": 10}
        legend.text(0.1, 0.85 - 0.12 * place, f"● {DEVICES_OF_TABLES[device]}", **at)
    note = "each dot a shape no fit has seen\ngrey: within 10 %"
    legend.text(0.1, 0.08, note, transform=legend.transAxes, color="#555555", fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


DEVICES_OF_TABLES = {"a100_sxm": "A100", "h100_sxm": "H100", "l40s": "L40S", "b200_sxm": "B200", "gb200": "GB200"}


if __name__ == "__main__":
    main()
