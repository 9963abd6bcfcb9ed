"""`capacity estimate`: one case, on one screen."""

from __future__ import annotations

from capacity.cli.options import Command, Option, whole
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.quantities import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_count = argument("1", positive=True)
_share = argument("1")
_seconds = argument("s", positive=True)
_bandwidth = argument("byte/s", positive=True)
_rate = argument("1/s", positive=True)
_price = argument("USD/h", positive=True)

# The group of what describes any network, not a language model.
OF_NETWORKS = "or any network, one of --module, --onnx and --checkpoint"
# What a user would change, and nothing that must be known to begin. What the values may be is
# checked where they are used, so that Python callers are told the same.
COMMAND = Command(
    "estimate",
    usage="(--params N | --model NAME | --config FILE | --module NAME --input SHAPE | --onnx FILE | --checkpoint FILE) [options]",
    description="What one model costs to train and to serve: memory, time, energy, money, carbon.\n"
    "Whatever is not given is assumed, and said to be.",
    examples=(
        "capacity estimate --params 7e9",
        "capacity estimate --params 70B --tokens 2T --device h100-sxm --nodes 64",
        "capacity estimate --model llama-3.1-70b --mode serve --devices 4 --tp 4",
        "capacity estimate --config config.json --mode lora --device rtx-4090",
        "capacity estimate --params 7e9 --explain train.step_time",
        "capacity estimate --module torchvision.models:resnet50 --input 64x3x224x224 --device a100-sxm-80gb",
        "capacity estimate --params 7e9 --json | jq .sections.train.verdict",
    ),
    groups=(
        ("the model, one of", (
            Option("--params", metavar="N", read=_count, help="parameters: 7e9, 7B, 1.5T; the shape is inferred"),
            Option("--model", metavar="NAME", help="a published model: `capacity models` lists them"),
            Option("--config", metavar="FILE", help="a Hugging Face config.json"),
        )),
        (OF_NETWORKS, (
            Option("--module", metavar="NAME", help="package.module:factory or file.py:factory of a torch.nn.Module; runs that code"),
            Option("--onnx", metavar="FILE", help="an ONNX file; needs the `onnx` extra"),
            Option("--checkpoint", metavar="FILE", help="weights: .safetensors, .gguf, a torch .pt, an index of shards, a folder; headers only"),
            Option("--input", metavar="SHAPE", many=True, help="of an input, batch first: 8x3x224x224, 1x128:int64, NAME=SHAPE"),
            Option("--dim", metavar="NAME=N", many=True, help="size of a dynamic axis of --onnx: batch=8"),
            Option("--compiled", help="element-wise ops are fused, as by torch.compile"),
            Option("--channels-last", help="images lie channels last (NHWC)"),
        )),
        ("the work", (
            Option("--mode", metavar="MODE", help="train, finetune, lora, rlhf, serve (or decode, prefill); of a network train or infer; otherwise both"),
            Option("--tokens", metavar="N", read=_count, help="training tokens: 140B"),
            Option("--seq-len", metavar="N", read=_count, help="tokens in a training sequence: 4096"),
            Option("--batch", metavar="N", read=_count, help="sequences in a training step, over all devices"),
            Option("--optimizer", metavar="NAME", help="adamw, adamw-bf16, adamw-8bit, adafactor, muon, sgd ..."),
            Option("--mtp", help="its multi-token-prediction heads are trained too"),
            Option("--teacher", metavar="NAME", help="a published model to distil from, run beside"),
            Option("--lora-rank", metavar="N", read=whole(), help="rank of the adapters of --mode lora, or of --adapters"),
            Option("--eval-interval", metavar="N", read=whole(), help="training steps from one evaluation to the next: 1000"),
            Option("--eval-tokens", metavar="N", read=_count, help="tokens of one evaluation, read forward only"),
            Option("--ramp-tokens", metavar="N", read=_count, help="tokens over which the batch warms up: 12B"),
            Option("--ramp-from", metavar="N", read=whole(), help="sequences in the first step of that warm-up"),
            Option("--prompt-len", metavar="N", read=_count, help="prompt tokens of a request to serve"),
            Option("--output-len", metavar="N", read=_count, help="tokens a request generates"),
            Option("--concurrency", metavar="N", read=_count, help="requests in flight on a replica"),
            Option("--precision", metavar="NAME", help="of weights and arithmetic: fp32, bf16, fp8, int4 ..."),
            Option("--saved-precision", metavar="NAME", help="inputs of products kept for the backward pass: bf16, fp8"),
            Option("--weight-bits", metavar="N", read=_count, help="effective bits of a weight, where they are not the usual ones"),
            Option("--kv-precision", metavar="NAME", help="of the KV cache: bf16, fp8, int8, int4"),
        )),
        ("the loop of --mode rlhf: --batch answers are written, judged, learnt from", (
            Option("--algorithm", metavar="NAME", help="grpo or ppo, which trains a critic beside"),
            Option("--group", metavar="N", read=whole(), help="answers to each prompt: 8"),
            Option("--updates", metavar="N", read=whole(), help="optimizer steps on each batch of answers: 1"),
            Option("--reward", metavar="NAME", help="a published model that judges; otherwise rules do, for ppo a like model"),
            Option("--no-reference", help="no frozen reference is kept near"),
            Option("--rollout-devices", metavar="N", read=whole(), help="of the devices, how many only write, an iteration ahead"),
            Option("--rollout-tp", metavar="N", read=whole(), help="tensor parallelism of a replica that writes"),
            Option("--rollout-precision", metavar="NAME", help="of its weights: bf16, fp8 ..."),
        )),
        ("how requests are served", (
            Option("--engine", metavar="NAME", help="vllm, sglang, tensorrt-llm, llama.cpp ..., or FILE:NAME as calibrated"),
            Option("--request-rate", metavar="N", read=_rate, help="requests a second that come; gives replicas, devices, a day"),
            Option("--ttft-slo", metavar="TIME", read=_seconds, help="promised time to the first token: 2s"),
            Option("--tpot-slo", metavar="TIME", read=_seconds, help="promised time to each next token: 50ms"),
            Option("--percentile", metavar="SHARE", read=_share, help="of requests that hold the promise: 0.95"),
            Option("--night", metavar="SHARE", read=_share, help="traffic at night, as a share of the peak: 0.3"),
            Option("--prefill-workers", metavar="N", read=whole(), help="replicas that only read prompts, beside --dp that decode"),
            Option("--prefill-tp", metavar="N", read=whole(), help="tensor parallelism of each of these"),
            Option("--prefill-ep", metavar="N", read=whole(), help="expert parallelism of each of these"),
            Option("--prefill-attention-dp", metavar="N", read=whole(), help="attention groups of each of these"),
            Option("--chunk-tokens", metavar="N", read=whole(), help="tokens of prompts that a step reads at most; the engine's own"),
            Option("--receive-steps", metavar="N", read=whole(1, 1000), help="steps after which the engine looks for new requests"),
            Option("--hold-steps", metavar="N", read=whole(0, 1000), help="steps that it holds them for more to be read together"),
            Option("--sampling", metavar="HOW", help="sampled or greedy: how tokens are chosen"),
            Option("--prefix-hit", metavar="SHARE", read=_share, help="share of prompt tokens whose cache is there already: 0.5"),
            Option("--draft-tokens", metavar="N", read=whole(1, 64), help="tokens drafted for each checked one (MTP, EAGLE)"),
            Option("--acceptance", metavar="SHARE", read=_share, help="of drafted tokens, one after the other: 0.7"),
            Option("--adapters", metavar="N", read=whole(), help="LoRA adapters that requests choose among"),
            Option("--length-spread", metavar="SHARE", read=_share, help="lengths lie between 1 less this and 1 of those given"),
            Option("--output-variation", metavar="N", read=_count, help="deviation of answers' lengths over their mean: 0.8"),
            Option("--burst", metavar="SHARE", read=_share, help="share of requests that come at once at the start"),
        )),
        ("the machines", (
            Option("--device", metavar="NAME", help="an accelerator: `capacity devices` lists them"),
            Option("--devices", metavar="N", read=whole(), help="how many, in all"),
            Option("--nodes", metavar="N", read=whole(), help="or how many nodes of them"),
            Option("--cluster", metavar="NAME", help="a cluster of the catalogue, instead of --device"),
            Option("--stack", metavar="NAME", help="the training software: megatron-core, fsdp, torchtitan, jax ..."),
            Option("--anchor", metavar="FILE", help="your own measured runs, 1 to 3: a .csv as for `validate training`"),
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own devices and models; may be repeated"),
        )),
        ("the layout, chosen for you where not given", (
            Option("--tp", metavar="N", read=whole(), help="tensor parallelism"),
            Option("--pp", metavar="N", read=whole(), help="pipeline parallelism"),
            Option("--dp", metavar="N", read=whole(), help="data parallelism, or replicas that serve"),
            Option("--attention-dp", metavar="N", read=whole(), help="groups of --tp devices that attend to requests of their own"),
            Option("--ep", metavar="N", read=whole(), help="expert parallelism: inside dp to train, inside tp to serve"),
            Option("--zero", metavar="STAGE", read=whole(0, 3), help="shards 0 nothing, 1 optimizer, 2 gradients, 3 weights"),
            Option("--micro-batch", metavar="N", read=whole(), help="sequences a device works on at once"),
            Option("--interleave", metavar="N", read=whole(), help="virtual pipeline stages on a device"),
            Option("--cp", metavar="N", read=whole(), help="context parallelism: each sequence cut over N devices"),
            Option("--cp-kind", metavar="HOW", help="keys meet by ring, gather or ulysses"),
            Option("--etp", metavar="N", read=whole(), help="tensor parallelism of each expert; as --tp"),
            Option("--replicas", metavar="N", read=whole(), help="copies of sharded weights (HSDP)"),
            Option("--schedule", metavar="NAME", help="of the pipeline: 1f1b, gpipe, zero-bubble or dualpipe"),
            Option("--offload", metavar="WHAT", help="to the host: optimizer, parameters, activations, or none; to serve: weights, experts, cache"),
            Option("--offload-to", metavar="WHERE", help="of the host: cpu (its memory) or nvme (its drives)"),
            Option("--host-share", metavar="SHARE", read=_share, help="of the weights a server's host keeps; the least that fits"),
            Option("--host-bandwidth", metavar="RATE", read=_bandwidth, help="of the memory of a server's host: 90GB/s"),
            Option("--nvme-bandwidth", metavar="RATE", read=_bandwidth, help="of all drives of a node: 25GB/s"),
            Option("--recompute", metavar="WHAT", help="none, selective, full or parts: attention,norms,activations,latent,ffn,experts"),
            Option("--recompute-share", metavar="SHARE", read=_count, help="of the blocks that full recomputation rebuilds: 1"),
        )),
        ("the platform under a run: storage, data, failures", (
            Option("--storage", metavar="NAME", help="where data and checkpoints lie: aws-s3, fsx-lustre-1000, ddn-ai400x2 ..."),
            Option("--storage-units", metavar="N", read=whole(), help="how many units of it; as many as hold everything"),
            Option("--redundancy", metavar="HOW", help="copies as 3x, an erasure code as 8+3, or none"),
            Option("--dataset", metavar="WHAT", help="kinds and amounts: text:15T,images:5B,audio:680000h"),
            Option("--epochs", metavar="N", read=_count, help="passes over the data: 1"),
            Option("--feed", metavar="HOW", help="prepared before training, or raw: decoded by loaders"),
            Option("--prepare-cores", metavar="N", read=_count, help="cores of the cluster that prepares the data"),
            Option("--skew", metavar="RATIO", read=_count, help="its fullest partition over the mean: 1.3"),
            Option("--cores-per-device", metavar="N", read=_count, help="host cores that load data for one device"),
            Option("--retention", metavar="N", read=whole(), help="checkpoints that are kept: 10"),
            Option("--milestone", metavar="TIME", read=_seconds, help="and one kept for good each: 1d"),
            Option("--checkpoint-interval", metavar="TIME", read=_seconds, help="from one to the next; the one that loses least"),
            Option("--snapshot", metavar="HOW", help="sync: training waits for storage; async: for a copy in the host"),
            Option("--failures", metavar="WHAT", help="counted on llama-3-405b, meta-rsc-1, meta-rsc-2; or a device's MTBF: 50000h"),
            Option("--spares", metavar="N", read=whole(0), help="nodes that wait to take a failed one's place"),
            Option("--repair-time", metavar="TIME", read=_seconds, help="of a node: 1d"),
            Option("--kv-keep", metavar="TIME", read=_seconds, help="keys and values of past requests kept on storage: 10min"),
            Option("--host", metavar="NAME", help="whose cores: zen-4, or this-machine after `capacity calibrate local`"),
        )),
        ("protection", (
            Option("--encrypt", metavar="WHAT", help="at-rest, in-transit, confidential; with commas"),
            Option("--cipher", metavar="NAME", help="aes-256-gcm, aes-128-gcm or chacha20-poly1305"),
            Option("--digest", metavar="NAME", help="of files of a checkpoint: sha-256, blake2b, blake3 or none"),
            Option("--transit", metavar="HOW", help="between nodes: macsec or ipsec by the adapter, software by the host"),
            Option("--cipher-cores", metavar="N", read=_count, help="cores of a node that encipher: 16"),
            Option("--keys", metavar="SCOPE", help="a data key for each run, checkpoint or file"),
        )),
        ("where to put it, with --mode deploy", (
            Option("--target", metavar="WHERE", help="edge, server, cloud, or a kind: phone, laptop, embedded, workstation"),
            Option("--latency-limit", metavar="TIME", read=_seconds, help="of a request, to its last token: 5s"),
            Option("--ttft-limit", metavar="TIME", read=_seconds, help="to the first token: 500ms"),
            Option("--tpot-limit", metavar="TIME", read=_seconds, help="of each next token: 50ms"),
            Option("--power-limit", metavar="POWER", read=argument("W", positive=True), help="of its devices: 30W"),
            Option("--energy-limit", metavar="J", read=argument("J", positive=True), help="of a token: 2J"),
            Option("--price-limit", metavar="USD", read=_price, help="of all its devices for an hour: 3"),
            Option("--loss-limit", metavar="SHARE", read=_share, help="published loss of perplexity at most: 0.1"),
        )),
        ("money and power", (
            Option("--price", metavar="USD", read=_price, help="of one device for one hour: 2.5"),
            Option("--pue", metavar="RATIO", read=_count, help="power usage effectiveness of the site: 1.2"),
            Option("--grid", metavar="WHERE", help="a grid of the catalogue, or g CO2e a kWh: 56"),
        )),
        ("the answer", (
            Option("-v", "--assumptions", dest="verbose", help="all quantities, assumptions and sources"),
            Option("--explain", metavar="NAME", help="derive one number, like train.step_time"),
            Option("--depth", metavar="N", read=whole(1, 50), help="levels of formulas that --explain shows: 3"),
            Option("--plain", help="`key: value` lines in base units, ASCII, for scripts"),
            Option("--json", help="the whole answer as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip
QUESTION = COMMAND.groups[:-1]  # what is asked, without how the answer is printed


def run(options: dict[str, Any]) -> None:
    """Ask, and print the answer."""
    request = question(options)
    if options["json"] and (options["plain"] or options["explain"] is not None):
        raise InputError(f"--json and {'--plain' if options['plain'] else '--explain'} given: give one of them")
    if options["explain"] is not None:
        write(_explanation(options, request))
        return
    from capacity.estimators.answer import estimate

    answer = estimate(**request)
    if options["json"]:
        from capacity.rendering.record import json, record

        write(json(record(answer)))
    elif options["plain"]:
        from capacity.rendering.record import lines

        write(lines(answer))
    else:
        from capacity.rendering.text import screen

        write(screen(answer, style(), everything=options["verbose"]))


def question(options: dict[str, Any], *, model: bool = True) -> dict[str, Any]:
    """What was asked, by the names of `capacity.estimate`; for every command that takes the options of an estimate.

    model: whether one has to be named.
    """
    asked = {option.dest for _, group in QUESTION for option in group} - {"anchor"}
    request = {name: value for name, value in options.items() if value is not None and name in asked}
    if "catalogue" in request:
        request["catalogue"] = tuple(request["catalogue"])
    if options["anchor"] is not None:
        from capacity.validation import site_of

        request["site"] = site_of(options["anchor"])
    chosen = [name for name in ("params", "model", "config", "module", "onnx", "checkpoint") if name in request]
    if len(chosen) > 1 or (model and not chosen):
        said = " and ".join(f"--{name}" for name in chosen) if chosen else "no model"
        raise InputError(
            f"{said} given: give one of --params, --model, --config, --module, --onnx and --checkpoint, like `--params 7e9`"
        )
    for name in ("compiled", "channels_last"):
        if request.get(name) is False:
            del request[name]
    given = [name for name in ("input", "dim", "compiled", "channels_last") if name in request]
    if given and not {"module", "onnx"}.intersection(chosen):
        raise InputError(f"--{given[0].replace('_', '-')} is of a network: give --module or --onnx with it")
    if "dim" in request:
        request["dim"] = _dimensions(request["dim"])
    return request


def _dimensions(given: list[str]) -> dict[str, int]:
    """Sizes of dynamic axes by name."""
    sizes: dict[str, int] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name or not (value.isascii() and value.isdigit() and int(value[:12]) > 0 and len(value) < 12):
            raise InputError(f"--dim {text[:60]!r}: write the name of an axis and its size, like batch=8")
        sizes[name] = int(value)
    return sizes


def _explanation(options: dict[str, Any], request: dict[str, Any]) -> str:
    from capacity.derivation import render
    from capacity.estimators.answer import derive

    chosen = style(plain=options["plain"])
    value = derive(options["explain"], **request)
    text = render(value, options["explain"], depth=options["depth"] or 3, width=chosen.width, unicode=chosen.unicode)
    return "\n".join(chosen.text(line) for line in text.splitlines()) + "\n"
