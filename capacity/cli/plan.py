"""`capacity plan`: the best layout of all that are legal, and questions asked backwards."""

from __future__ import annotations

from capacity.cli.estimate import COMMAND as ESTIMATE
from capacity.cli.estimate import question
from capacity.cli.options import Command, Option, one_of
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.planning.question import BACKWARDS, LIMITS, OBJECTIVES, SOLVED
from capacity.quantities import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Options of an estimate that here may be several, separated by commas.
_LISTS = {
    "device": "an accelerator, or several to compare: h100-sxm,b200",
    "devices": "how many, in all; several are compared: 512,1024",
    "precision": "of weights and arithmetic, or several to choose among: bf16,fp8",
    "kv_precision": "of the KV cache, or several to choose among: bf16,fp8",
    "stack": "the training software: megatron-core, fsdp ...; or several",
    "engine": "vllm, sglang, tensorrt-llm ...; or several",
}
# Any network at all is priced as it is, loops and places are asked of an estimate: there is no layout of them to choose.
_ASIDE = ("module", "onnx", "checkpoint", "rollout_devices", "target")


def _option(option: Option) -> Option:
    if option.dest not in _LISTS:
        return option
    return Option(*option.flags, metavar=f"{option.metavar},..", help=_LISTS[option.dest])


COMMAND = Command(
    "plan",
    usage="(--params N | --model NAME | --config FILE) [options]",
    description="The best of all legal layouts to train a model, or with --mode serve to serve it: by\n"
    "time, cost, energy or carbon, within limits; what it was chosen from, why the next lost,\n"
    "and what would turn the choice. Options of the layout that are given are held.",
    examples=(
        "capacity plan --model gpt-3-175b --device a100-sxm-80gb --devices 4096",
        "capacity plan --params 70B --devices 256,512,1024 --objective cost --deadline 60d",
        "capacity plan --model llama-3.1-70b --mode serve --devices 8 --tpot-slo 30ms",
        "capacity plan --solve params --budget '$1M' --deadline 30d --device h100-sxm",
    ),
    groups=(
        ESTIMATE.groups[0],
        ("what is best, and what it may cost", (
            Option("--objective", metavar="NAME", read=one_of("objective", OBJECTIVES), help=f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}"),
            Option("--max-memory", metavar="SIZE", read=argument("byte", positive=True), help="of a device, at most: 70GiB"),
            Option("--deadline", metavar="TIME", read=argument("s", positive=True), help="of a training run: 30d"),
            Option("--budget", metavar="USD", read=argument("USD", positive=True), help="of a training run, or of serving for an hour"),
            Option("--power-cap", metavar="POWER", read=argument("W", positive=True), help="drawn from the grid, at most: 2MW"),
        )),
        ("or backwards", (
            Option("--solve", metavar="WHAT", read=one_of("question", SOLVED), help="what to solve for: params, tokens, devices, seq-len, concurrency, budget, days or global-batch"),
            Option("--flop-budget", metavar="N", read=argument("FLOP", positive=True), help="for --solve params or tokens by a scaling law: 1e24"),
            Option("--target-loss", metavar="N", read=argument("1", positive=True), help="or a loss to reach, in nats a token: 2.0"),
            Option("--served-tokens", metavar="N", read=argument("1", positive=True), help="that the model will read and write in its life, counted in"),
            Option("--law", metavar="NAME", help="besiroglu2024, hoffmann2022, muennighoff2023, bi2024 ..."),
        )),
        *(
            (title, tuple(_option(one) for one in options))
            for title, options in ESTIMATE.groups[1:-1]
            if all(one.dest not in _ASIDE for one in options)
        ),
        ("the answer", (
            Option("-v", "--all", dest="verbose", help="the whole front, all that would turn the choice, all quantities"),
            Option("--json", help="the whole answer as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Ask, and print the answer."""
    limits = {name: options[name] for name in ("objective", *LIMITS) if options[name] is not None}
    backwards = {name: options[name] for name in BACKWARDS if options[name] is not None}
    if options["solve"] is not None:
        from capacity.planning.backwards import solve
        from capacity.rendering.solution import screen as solved

        # What is solved for may be the model itself.
        request = question(options, model=options["solve"] != "params") | limits | backwards
        _tell(solve(options["solve"], **request), "solution", solved, options)
        return
    for name in backwards:
        raise InputError(f"--{name.replace('_', '-')} is for a question asked backwards: add --solve params")
    request = question(options) | limits
    from capacity.planning.answer import plan
    from capacity.rendering.choice import screen

    _tell(plan(**request), "plan", screen, options)


def _tell(found: Any, kind: str, screen: Callable[..., str], options: dict[str, Any]) -> None:
    if options["json"]:
        from capacity.rendering.record import json, planned_record

        write(json(planned_record(found, kind)))
    else:
        write(screen(found, style(), everything=options["verbose"]))
