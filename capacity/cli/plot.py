"""`capacity plot`: one figure of an estimate, a validation or a comparison of methods, with the data behind it."""

from __future__ import annotations

from capacity.cli.estimate import QUESTION, question
from capacity.cli.options import Command, Option, whole
from capacity.cli.terminal import write
from capacity.errors import CapacityError, InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

FIGURES = {
    "memory": "of a device, part by part, against what it has",
    "time": "of a step, part by part",
    "prompt": "time of a prompt, part by part",
    "pipeline": "stages of a training step: who waits for whom",
    "roofline": "every op by work for a byte and pace",
    "footprint": "energy, carbon and money, by what they go to",
    "scaling": "over devices, batch and context",
    "pareto": "latency against throughput, over requests in flight",
    "tornado": "what the intervals are made of",
    "parity": "predicted against measured (--validate)",
    "calibration": "whether intervals hold what they promise (--validate)",
    "compression": "size, speed, energy and loss of each method",
}

COMMAND = Command(
    "plot",
    usage="FIGURE [options of `capacity estimate`] [options]",
    description="One figure as SVG or PNG, with the data behind it as CSV. Needs the `report` extra.\n\nfigures:\n"
    + "\n".join(f"  {name:<12} {said}" for name, said in FIGURES.items()),
    examples=(
        "capacity plot memory --params 7e9 --mode train",
        "capacity plot pipeline --params 70B --device h100-sxm --devices 64 --pp 8 --output pipeline.svg",
        "capacity plot pareto --model llama-3.1-70b --mode serve --device h100-sxm --devices 4 --output pareto.png",
        "capacity plot parity --validate serving --metric ttft_ms --output parity.svg --data parity.csv",
        "capacity plot roofline --from bench.jsonl",
        "capacity plot compression --model llama-3.1-8b --device rtx-4060",
    ),
    words=("FIGURE", f"what is drawn: {', '.join(FIGURES)}"),
    groups=(
        ("what is drawn, instead of an estimate", (
            Option("--from", metavar="FILE", dest="source", help="a document that another command wrote with --json"),
            Option("--validate", metavar="KIND", help="the project's own runs of a kind, scored"),
            Option("--measured", metavar="STORE", help="a store of bench, whose kernels roofline shows beside"),
            Option("--metric", metavar="NAME", help="of a validation that has several: ttft_ms"),
        )),
        ("the figure", (
            Option("--output", metavar="FILE", help="where to: FIGURE.svg where nothing is said; .png for a picture"),
            Option("--dpi", metavar="N", read=whole(30, 1200), help="dots an inch of a .png: 200"),
            Option("--data", metavar="FILE", help="write the data behind it, too: .csv"),
        )),
        *QUESTION,
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Draw, write, say where."""
    words = options["words"]
    if len(words) != 1:
        raise InputError(
            f"{len(words)} figures given: name one of {', '.join(FIGURES)}, as in `capacity plot memory --params 7e9`"
        )
    name = words[0].lower()
    if name not in FIGURES:
        raise UnknownNameError("figure", words[0], FIGURES, f"known are {', '.join(FIGURES)}")
    path = options["output"] or f"{name}.svg"
    kind = path.rpartition(".")[2].lower()
    if kind not in ("svg", "png"):
        raise InputError(f"--output is {path[-80:]!r}: end it in .svg or .png")
    try:
        from capacity.reporting.figures.registry import drawing_of
        from capacity.reporting.tables import to_csv
    except ModuleNotFoundError as error:
        raise InputError(f'a figure needs {error.name}: pip install "model-capacity[report]"') from None
    measured = _measured(name, options["measured"])
    drawing = drawing_of(name, _document(name, options), options["metric"] or "", measured=measured)
    sheet = drawing.sheet()
    _write("--output", path, sheet.png(options["dpi"] or 200) if kind == "png" else sheet.svg(drawing.name) + "\n")
    said = [f"wrote {path}", drawing.alt]
    if options["data"]:
        _write("--data", options["data"], to_csv(drawing.rows))
        said.insert(1, f"wrote {options['data']}")
    from capacity.rendering.style import harmless

    write("".join(f"{harmless(line)}\n" for line in said))


def _measured(name: str, path: str | None) -> list[dict[str, Any]]:
    """Kernels of a store as marks of a roofline."""
    if path is None:
        return []
    if name != "roofline":
        raise InputError(f"--measured is for roofline, not {name}")
    from capacity.reporting.figures.stores import measured_points
    from capacity.reporting.machines import read_store

    return measured_points(read_store(path))


def _document(name: str, options: dict[str, Any]) -> Document:
    from capacity.reporting import documents

    if options["source"]:
        return documents.read(options["source"])
    if options["validate"]:
        return documents.validated(options["validate"])
    if name in ("parity", "calibration"):
        raise InputError(
            f"{name} is of a validation: give --validate training, memory, serving, inference, energy or kernels"
        )
    asked = question(options)
    return documents.compressed(asked) if name == "compression" else documents.estimated(asked)


def _write(option: str, path: str, content: str | bytes) -> None:
    from capacity.whole_file import write_whole

    try:
        write_whole(path, content)
    except OSError as error:
        raise CapacityError(f"{option}: {path[-80:]} cannot be written ({error.strerror or error})") from None
