"""`capacity compress`: which ways to make a model smaller reach a target on a device, and what they cost in quality."""

from __future__ import annotations

from capacity.cli.options import Command, Option, whole
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.quantities import argument
from capacity.rendering import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.compression import Option as Answer
    from capacity.estimators.compression import Quality
    from capacity.rendering.style import Style

_count = argument("1", positive=True)

COMMAND = Command(
    "compress",
    usage="(--params N | --model NAME | --config FILE) [options]",
    description="Which ways to make a model smaller reach a target on a device: size, speed,\n"
    "energy, and the loss of quality that published measurements show, or none does.",
    examples=(
        "capacity compress --model llama-3.1-8b --device rtx-4060",
        "capacity compress --model llama-2-7b --device pi-5 --memory 8GB",
        "capacity compress --model llama-3.1-70b --student llama-3.1-8b",
        "capacity compress --model qwen3-32b --device rtx-4090 --tokens-per-s 30 --json",
    ),
    groups=(
        ("the model, one of", (
            Option("--params", metavar="N", read=_count, help="parameters: 7e9, 7B; the shape is inferred"),
            Option("--model", metavar="NAME", help="a published model: `capacity models` lists them"),
            Option("--config", metavar="FILE", help="a Hugging Face config.json"),
        )),
        ("the machine", (
            Option("--device", metavar="NAME", help="a device: `capacity devices` lists them"),
            Option("--devices", metavar="N", read=whole(), help="how many"),
            Option("--tp", metavar="N", read=whole(), help="tensor parallelism"),
            Option("--engine", metavar="NAME", help="vllm, sglang, tensorrt-llm, llama.cpp ..."),
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own devices and models"),
        )),
        ("the load", (
            Option("--prompt-len", metavar="N", read=_count, help="prompt tokens of a request"),
            Option("--output-len", metavar="N", read=_count, help="tokens a request generates"),
            Option("--concurrency", metavar="N", read=_count, help="requests in flight"),
        )),
        ("what must be reached", (
            Option("--memory", metavar="SIZE", read=argument("byte", positive=True), help="at most, on a device: 8GB"),
            Option("--tokens-per-s", metavar="N", read=_count, help="at least, for each user: 20"),
            Option("--energy-per-token", metavar="J", read=argument("J", positive=True), help="at most: 2J"),
        )),
        ("a smaller model that learns from this one", (
            Option("--student", metavar="NAME", help="a published model"),
            Option("--student-tokens", metavar="N", read=_count, help="tokens it is taught on: 100B"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="all methods as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Ask, and print the answer."""
    request = {name: value for name, value in options.items() if value is not None and name not in ("json", "plain")}
    if "catalogue" in request:
        request["catalogue"] = tuple(request["catalogue"])
    if sum(name in request for name in ("params", "model", "config")) != 1:
        raise InputError("give one of --params, --model and --config, like `--model llama-3.1-8b`")
    from capacity.estimators.compression import compress

    found = compress(**request)
    if options["json"]:
        from capacity.rendering.record import compression_record, json

        write(json(compression_record(request, found)))
        return
    write("\n".join(_screen(found, style(plain=options["plain"]))) + "\n")


def _screen(found: list[Answer], chosen: Style) -> list[str]:
    from capacity.quantities import format

    header = [
        ["", "method", "memory", "tok/s", "J a", "published loss"],
        ["", "", "GiB", "each", "token", "ppl %, acc points"],
    ]
    rows = []
    for one in found:
        mark = chosen.drawn("✔") if one.reached else chosen.drawn("✘") if not one.fits else chosen.drawn("·")
        rows.append(
            [
                mark,
                one.method,
                "-" if one.memory is None else f"{one.memory.mid / 2.0**30:.3g}",
                "-" if one.tokens_per_s is None else format(one.tokens_per_s.mid, "1"),
                "-" if one.energy is None else f"{one.energy.mid:.3g}",
                _said(one.quality) if one.quality != () else "baseline",
            ]
        )
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    meant = ("✔", "reaches all targets"), ("·", "fits but misses one"), ("✘", "does not fit")
    lines += ["", chosen.text(", ".join(f"{chosen.drawn(mark)} {meaning}" for mark, meaning in meant))]
    for one in found:
        if one.note:
            lines += layout.wrap(chosen.text(f"{one.method}: {one.note}"), chosen.width - 1)
    sources = {part for one in found for row in one.quality or () for part in row.source.split("; ")}
    lines += ["", chosen.paint("measured by", "dim")]
    for source in sorted(sources):
        lines += ["  " + line for line in layout.wrap(chosen.text(source), chosen.width - 3)]
    return lines


def _said(quality: tuple[Quality, ...] | None) -> str:
    if quality is None:
        return "unknown"
    said = []
    for row in quality:
        low, high = f"{row.low * 100.0:+.1f}", f"{row.high * 100.0:+.1f}"
        said.append(f"{'ppl' if row.metric == 'perplexity' else 'acc'} {low if low == high else f'{low}/{high}'}")
    return " ".join(said)
