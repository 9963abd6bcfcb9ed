"""What a fit of training stacks may change, how far, and the file that keeps it.

Few parameters are shared by many runs: the pace an architecture sustains, factors of three software generations, and small
departures of each stack from its generation. All are positive and fitted as logarithms with a prior and its width, so that
what no row speaks of keeps its prior; none belongs to a publisher, a model or a row.
"""

from __future__ import annotations

from capacity.calibration.training_runs import WATTS
from capacity.calibration.training_scores import FIGURES
from capacity.estimators.stacks import stack_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

GENERATIONS = ("eager", "tuned", "compiled")
# Prior of the pace an architecture sustains in a long run, as a share of what its kernels reach alone.
PACE = {"ampere": 1.0, "hopper": 0.82, "blackwell": 0.65, "volta": 1.0, "tpu": 1.0, "gaudi": 0.8, "trainium": 0.75, "cdna3": 0.6, "cdna4": 0.6}  # fmt: skip
PACE_WIDTH, OTHER_PACE = 0.08, 0.75
# Accelerators with more compute for their bandwidth than this (FLOP/byte) keep less of it: their compilers' tiles are smaller.
RIDGE, RIDGE_PRIOR, RIDGE_WIDTH = 220.0, {"TPU": 0.25, "ASIC": 0.8}, 0.3
# Prior and width of the power of the pace in a device's own watts over those its architecture's pace is of.
POWER_PRIOR, POWER_WIDTH = 0.4, 0.3
# Of each generation, in the order above: prior, then the width of its logarithm.
FACTORS: dict[str, tuple[float, float, float, float]] = {
    "sustained": (1.0, 1.12, 1.0, 0.08),
    "elementwise": (1.6, 1.05, 0.5, 0.12),
    "cast": (1.0, 0.75, 1.0, 0.15),
    "grouped": (1.4, 1.35, 1.5, 0.15),
    "grouped_narrow": (1.0, 1.15, 1.0, 0.15),
    "exposed_forward": (0.78, 0.35, 0.55, 0.15),
    "exposed_backward": (0.8, 0.35, 0.55, 0.15),
    "exposed_hops": (1.0, 0.35, 0.6, 0.2),
    "accumulation_bytes": (8.0, 4.0, 4.0, 0.15),
    "optimizer_bytes": (52.0, 55.0, 40.0, 0.2),
    "contention": (0.2, 0.2, 0.05, 0.25),
    "straggler": (0.011, 0.0045, 0.004, 0.2),
    "host": (1.0, 0.8, 0.02, 0.12),
    "exposed_reduction": (0.75, 0.2, 0.2, 0.2),
    "exposed_routing": (0.9, 0.45, 0.6, 0.2),
    "expert_launches": (1.5, 1.3, 1.5, 0.2),
    "selective": (0.01, 0.02, 0.33, 0.2),
}
# What is fitted as the exposed share and kept as the hidden one.
HIDDEN = {"exposed_reduction": "reduce_overlap", "exposed_routing": "routing_overlap"}
# Fused attention against the benchmarked kernels, by generation and architecture.
ATTENTION = {("eager", "other"): 0.6, ("eager", "hopper"): 0.42, ("eager", "blackwell"): 0.6, ("tuned", "other"): 0.9, ("compiled", "other"): 0.6}  # fmt: skip
ATTENTION_WIDTH = 0.12
# How far one stack may depart from its generation.
DEPARTURES = {"sustained": 0.05, "elementwise": 0.12, "host": 0.2, "grouped": 0.1, "expert_launches": 0.2}
# A release that is known to run otherwise may depart further.
RELEASES = {"megatron-core-26.06": 3.0, "megatron-core-25.11": 3.0}
# What a release is known to do otherwise, with its width: until 2025 a layer waited for the host to count the tokens of each
# expert; from June 2026 whole steps are graphs, and grouped products, activations and casts one kernel.
KNOWN = {
    ("expert_launches", "megatron-core-25.11"): (2.0, 0.4),
    ("host", "megatron-core-26.06"): (0.4, 0.4),
    ("grouped", "megatron-core-26.06"): (0.85, 0.2),
    ("elementwise", "megatron-core-26.06"): (0.85, 0.2),
}
# Products in other formats than 16 bits inside a run against the kernels alone: prior and width.
NARROW = {
    ("fp8", "hopper"): (1.07, 0.05),
    ("fp8", "blackwell"): (1.4, 0.08),
    ("fp4", "other"): (2.0, 0.2),
    ("tf32", "other"): (1.15, 0.08),
    ("fp32", "other"): (1.15, 0.08),
}
# An error of this size (of the logarithm) is where a residual stops to count in squares.
SOFT = 0.08


def priors() -> dict[tuple[str, ...], tuple[float, float]]:
    """Every parameter with its prior and the width of its logarithm."""
    found: dict[tuple[str, ...], tuple[float, float]] = {
        ("pace", name): (mid, PACE_WIDTH) for name, mid in PACE.items()
    }
    found |= {("ridge", kind): (prior, RIDGE_WIDTH) for kind, prior in RIDGE_PRIOR.items()}
    found[("watts", "power")] = (POWER_PRIOR, POWER_WIDTH)
    for name, (*mids, width) in FACTORS.items():
        found |= {(name, generation): (mid, width) for generation, mid in zip(GENERATIONS, mids, strict=True)}
    del found[("sustained", "eager")]  # the pace itself
    found |= {("attention", *key): (mid, ATTENTION_WIDTH) for key, mid in ATTENTION.items()}
    for stack in stack_names():
        found |= {
            ("departure", name, stack): (1.0, width * RELEASES.get(stack, 1.0)) for name, width in DEPARTURES.items()
        }
    found |= {("departure", *key): prior for key, prior in KNOWN.items()}
    found |= {("narrow", *key): prior for key, prior in NARROW.items()}
    return found


def fitted_values(tables: dict[str, Any]) -> dict[tuple[str, ...], tuple[float, float]]:
    """Every parameter as a file of stacks has it, with its width: the prior of a site's own fit."""
    found = priors()
    mids: dict[tuple[str, ...], float] = {("pace", name): tables["pace"][name] for name in PACE}
    mids |= {("ridge", kind): tables["pace"][f"ridge_power_{kind}"] for kind in RIDGE_PRIOR}
    mids[("watts", "power")] = tables["pace"]["watts_power"]
    mids |= {("narrow", *key): tables["narrow"][key[0]][key[1]] for key in NARROW}
    for one, own in tables["generation"].items():
        for name in FACTORS:
            hidden = HIDDEN.get(name)
            mids[(name, one)] = own[name] if hidden is None else 1.0 - own[hidden]
        mids |= {("attention", one, name): value for name, value in own["attention"].items()}
    for stack, own in tables["stack"].items():
        for name in DEPARTURES:
            mids[("departure", name, stack)] = own[name] / tables["generation"][own["generation"]][name]
    return {key: (max(mids[key], 1e-3), width) for key, (_, width) in found.items()}


def stacks_text(
    values: Mapping[tuple[str, ...], float],
    spans: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    stacks: Mapping[str, Mapping[str, Any]],
    kept: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, str],
) -> str:
    """The fitted parameters as a file; stacks: titles and generations; kept: what of generations is not fitted; told: source and date."""
    text = [
        "# Training software, fitted on published runs by `capacity calibrate training`: see",
        "# docs/accuracy-training.md. A stack states what sets it apart from its generation; pace is the share of their",
        "# kernels' pace that devices sustain in long runs of eager stacks, narrow the further factor of narrow formats.",
        *(f'{name} = "{value}"' for name, value in told.items()),
        "",
        "[pace]",
        *(f"{name} = {values[('pace', name)]:.4g}" for name in PACE),
        f"other = {OTHER_PACE}",
        f"ridge = {RIDGE:g}",
        *(f"ridge_power_{kind} = {values[('ridge', kind)]:.4g}" for kind in RIDGE_PRIOR),
        f"watts_power = {values[('watts', 'power')]:.4g}",
        "",
        "[watts]",
        *(f"{name} = {watts}" for name, watts in WATTS.items()),
        "",
    ]
    for dtype in dict.fromkeys(dtype for dtype, _ in NARROW):
        text.append(f"[narrow.{dtype}]")
        text += [f"{name} = {values[('narrow', dtype, name)]:.4g}" for one, name in NARROW if one == dtype]
        text.append("")
    for generation in GENERATIONS:
        text.append(f"[generation.{generation}]")
        for name in FACTORS:
            value = values.get((name, generation), 1.0)
            hidden = HIDDEN.get(name)
            text.append(f"{name} = {value:.4g}" if hidden is None else f"{hidden} = {max(1.0 - value, 0.0):.4g}")
        text += [f"{name} = {kept[generation][name]}" for name in ("overlap", "launches", "fused_attention")]
        table = ", ".join(
            f"{name} = {values[key]:.4g}" for key in values if key[:2] == ("attention", generation) for name in key[2:]
        )
        text += [f"attention = {{ {table} }}", ""]
    for stack, own in stacks.items():
        text += [f'[stack."{stack}"]', f'title = "{own["title"]}"', f'generation = "{own["generation"]}"']
        for name in DEPARTURES:
            whole = values.get((name, own["generation"]), 1.0) * values[("departure", name, stack)]
            text.append(f"{name} = {whole:.4g}")
        text.append("")
    for kind, span in spans.items():
        text.append(f"[interval.{kind}]")
        text += [f"{name} = {span[name]:.4g}" for name in ("low", "high", "site", "rest")]
        text += [f'source = "{span["source"]}"', ""]
    for name, pair in scores.items():
        text.append(f'[score."{name}"]')
        text += [
            f"{sample} = {{ {', '.join(f'{key} = {one[key]}' for key in FIGURES)} }}" for sample, one in pair.items()
        ]
        text.append("")
    return "\n".join(text)
