"""`capacity estimate`: one case, on one screen."""

from __future__ import annotations

from capacity.cli.parsing import Parser, one_of, whole
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.quantities import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

_MODES = ("train", "finetune", "lora", "serve")
_OUTPUT = ("json", "plain", "verbose", "explain", "depth")


def parser() -> Parser:
    """The options: what a user would change, and nothing that must be known to begin."""
    parser = Parser(
        "estimate",
        usage="(--params N | --model NAME | --config FILE) [options]",
        description="What one model costs to train and to serve: memory, time, energy, money, carbon.\n"
        "Whatever is not given is assumed, and said to be.",
        examples=(
            "capacity estimate --params 7e9",
            "capacity estimate --params 70B --tokens 2T --device h100-sxm --nodes 64",
            "capacity estimate --model llama-3.1-70b --mode serve --devices 4 --tp 4",
            "capacity estimate --config config.json --mode lora --device rtx-4090",
            "capacity estimate --params 7e9 --explain train.step_time",
            "capacity estimate --params 7e9 --json | jq .sections.train.verdict",
        ),
    )
    add = parser.add_argument_group("the model, one of").add_argument
    add(
        "--params",
        type=argument("1", positive=True),
        metavar="N",
        help="parameters: 7e9, 7B, 1.5T; the shape is inferred",
    )
    add("--model", metavar="NAME", help="a published model: `capacity models` lists them")
    add("--config", metavar="FILE", help="a Hugging Face config.json")

    add = parser.add_argument_group("the work").add_argument
    add(
        "--mode",
        type=one_of("mode", _MODES),
        metavar="MODE",
        help="train, finetune, lora or serve; otherwise train and serve",
    )
    add("--tokens", type=argument("1", positive=True), metavar="N", help="training tokens: 140B")
    add("--seq-len", type=argument("1", positive=True), metavar="N", help="tokens in a training sequence: 4096")
    add(
        "--batch", type=argument("1", positive=True), metavar="N", help="sequences in a training step, over all devices"
    )
    add("--optimizer", metavar="NAME", help="adamw, adamw-8bit, muon, sgd ...")
    add("--lora-rank", type=whole(), metavar="N", help="rank of the adapters of --mode lora")
    add("--prompt-len", type=argument("1", positive=True), metavar="N", help="prompt tokens of a request to serve")
    add("--output-len", type=argument("1", positive=True), metavar="N", help="tokens a request generates")
    add("--concurrency", type=argument("1", positive=True), metavar="N", help="requests in flight on a replica")
    add("--precision", metavar="NAME", help="of weights and arithmetic: fp32, bf16, fp8, int8, int4 ...")
    add("--kv-precision", metavar="NAME", help="of the KV cache: bf16, fp8 ...")

    add = parser.add_argument_group("the machines").add_argument
    add("--device", metavar="NAME", help="an accelerator: `capacity devices` lists them")
    add("--devices", type=whole(), metavar="N", help="how many, in all")
    add("--nodes", type=whole(), metavar="N", help="or how many nodes of them")
    add("--cluster", metavar="NAME", help="a cluster of the catalogue, instead of --device")
    add("--stack", metavar="NAME", help="the software that runs it")
    add("--catalogue", action="append", metavar="DIR", help="a folder of your own devices and models; may be repeated")

    add = parser.add_argument_group("the layout, chosen for you where not given").add_argument
    add("--tp", type=whole(), metavar="N", help="tensor parallelism")
    add("--pp", type=whole(), metavar="N", help="pipeline parallelism")
    add("--dp", type=whole(), metavar="N", help="data parallelism, or replicas that serve")
    add("--ep", type=whole(), metavar="N", help="expert parallelism, inside data parallelism")
    add("--zero", type=whole(0, 3), metavar="STAGE", help="sharding stage: 0 none, 1 optimizer, 2 gradients, 3 weights")
    add("--micro-batch", type=whole(), metavar="N", help="sequences a device works on at once")
    add("--interleave", type=whole(), metavar="N", help="virtual pipeline stages on a device")
    add("--recompute", type=one_of("recomputation", ("none", "selective", "full")), metavar="WHAT",
        help="activations rebuilt: none, selective or full")  # fmt: skip

    add = parser.add_argument_group("money and power").add_argument
    add("--price", type=argument("USD/h", positive=True), metavar="USD", help="of one device for one hour: 2.5")
    add("--pue", type=argument("1", positive=True), metavar="RATIO", help="power usage effectiveness of the site: 1.2")
    add("--grid", metavar="WHERE", help="a grid of the catalogue, or g CO2e a kWh: 56")

    add = parser.add_argument_group("the answer").add_argument
    add("-v", "--assumptions", dest="verbose", action="store_true",
        help="every assumption with its source, notes, and what makes the intervals")  # fmt: skip
    add("--explain", metavar="NAME", help="derive one number: formula, values, sources; `train.step_time`")
    add("--depth", type=whole(1, 50), metavar="N", help="levels that --explain shows; 3")
    add("--plain", action="store_true", help="`key: value` lines in base units, ASCII, for scripts")
    add("--json", action="store_true", help="the whole answer as JSON (schema 1)")
    return parser


def run(arguments: Namespace) -> None:
    """Ask, and print the answer."""
    request = _request(arguments)
    if arguments.explain is not None:
        write(_explanation(arguments, request))
        return
    from capacity.estimators.answer import estimate

    answer = estimate(**request)
    if arguments.json:
        from capacity.rendering.record import json, record

        write(json(record(answer)))
    elif arguments.plain:
        from capacity.rendering.record import lines

        write(lines(answer))
    else:
        from capacity.rendering.text import screen

        write(screen(answer, style(), everything=arguments.verbose))


def _request(arguments: Namespace) -> dict[str, Any]:
    """What was given, by the names of `capacity.estimate`."""
    request = {name: value for name, value in vars(arguments).items() if value is not None and name not in _OUTPUT}
    if "catalogue" in request:
        request["catalogue"] = tuple(request["catalogue"])
    chosen = [name for name in ("params", "model", "config") if name in request]
    if len(chosen) != 1:
        said = " and ".join(f"--{name}" for name in chosen) if chosen else "no model"
        raise InputError(f"{said} given: give one of --params, --model and --config, like `--params 7e9`")
    if arguments.json and (arguments.plain or arguments.explain is not None):
        raise InputError(f"--json and {'--plain' if arguments.plain else '--explain'} given: give one of them")
    return request


def _explanation(arguments: Namespace, request: dict[str, Any]) -> str:
    from capacity.derivation import render
    from capacity.estimators.answer import derive

    chosen = style(plain=arguments.plain)
    value = derive(arguments.explain, **request)
    text = render(value, arguments.explain, depth=arguments.depth or 3, width=chosen.width, unicode=chosen.unicode)
    return "\n".join(chosen.text(line) for line in text.splitlines()) + "\n"
