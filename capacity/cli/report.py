"""`capacity report`: an estimate, or what other commands found, as a page or a document."""

from __future__ import annotations

from capacity.cli.estimate import QUESTION, question
from capacity.cli.options import Command, Option, one_of
from capacity.cli.terminal import write
from capacity.errors import CapacityError, InputError
from capacity.quantities import format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.content import Report
    from capacity.reporting.documents import Document

FORMATS = ("html", "pdf", "json")
_MOST_LINES = 40

COMMAND = Command(
    "report",
    usage="[FILE ...] [options of `capacity estimate`] [options]",
    description="An estimate, or what other commands wrote with --json, as one page that needs no\n"
    "network, or as a typeset document. Needs the `report` extra.",
    examples=(
        "capacity report --params 7e9",
        "capacity report --model llama-3.1-70b --mode serve --devices 4 --format pdf",
        "capacity report --from training.json --from serving.json --output evidence.html",
        "capacity report --validate training --validate memory",
        "capacity report monday.jsonl friday.jsonl --title 'Two days of one machine'",
        "capacity report --rerun report.html",
    ),
    words=("FILE", "a document to report: JSON of estimate, validate, compress, plan or sweep; a store of bench"),
    groups=(
        ("what is reported, instead of an estimate", (
            Option("--from", metavar="FILE", many=True, dest="sources", help="a document to report, as FILE; may be repeated"),
            Option("--validate", metavar="KIND", many=True, help="score the project's own runs of a kind and report it; may be repeated"),
            Option("--data", metavar="PATH", help="measurements of your own for --validate, instead of the project's"),
            Option("--rerun", metavar="FILE", help="make a report again from the inputs in it, and say what changed"),
        )),
        ("the report", (
            Option("--output", metavar="FILE", help="where to: report.html or report.pdf where nothing is said"),
            Option("--format", metavar="NAME", read=one_of("format", FORMATS), help="html, pdf, or json: the content itself"),
            Option("--title", metavar="TEXT", help="instead of the one made up"),
            Option("--tables", metavar="DIR", help="write what is shown as tables, too: one .csv for each table and figure"),
            Option("--parquet", help="with --tables: .parquet instead of .csv"),
            Option("--open", help="show it in the browser or the viewer of this machine"),
        )),
        *QUESTION,
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Make the report; a library that is not there is named with what brings it."""
    try:
        _make(options)
    except ModuleNotFoundError as error:
        raise InputError(f'a report needs {error.name}: pip install "model-capacity[report]"') from None


def _make(options: dict[str, Any]) -> None:
    """Compose, set, write; say where it is."""
    made_before = None
    title = options["title"] or ""
    if options["rerun"]:
        from capacity.reporting import provenance

        made_before = provenance.read(options["rerun"])
        inputs = again(made_before)
        title = title or made_before["title"]
    else:
        inputs = inputs_of(options)
    from capacity.reporting.report import compose

    report = compose(inputs, title)
    form, path = _target(options)
    content = _set(report, form)
    _write(path, content)
    said = [f"wrote {path}, {format(len(content.encode() if isinstance(content, str) else content), 'byte')}"]
    if options["tables"]:
        from capacity.reporting.tables import export

        said += [f"wrote {name}" for name in export(report, options["tables"], parquet=options["parquet"])]
    if made_before is not None:
        said += _told(provenance.changes(made_before, report.provenance))
    from capacity.rendering.style import harmless

    write("".join(f"{harmless(line)}\n" for line in said))
    if options["open"]:
        import os
        import webbrowser

        webbrowser.open(f"file://{os.path.abspath(path)}")


def inputs_of(options: dict[str, Any]) -> list[Document]:
    """The documents that a command line names: files, validations, or the estimate it asks for."""
    from capacity.reporting import documents

    found = [documents.read(path) for path in [*(options["words"] or ()), *(options["sources"] or ())]]
    found += [documents.validated(kind, options["data"]) for kind in options["validate"] or ()]
    asked = any(options[name] is not None for name in ("params", "model", "config", "module", "onnx", "checkpoint"))
    if found and not asked:
        return found
    return [*found, documents.estimated(question(options))]


def again(made_before: dict[str, Any]) -> list[Document]:
    """The inputs of an earlier report, with every question in them asked again."""
    from capacity.reporting.documents import remade

    try:
        return [remade(kept) for kept in made_before["inputs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--rerun: the inputs in the report cannot be read ({error})") from None


def _target(options: dict[str, Any]) -> tuple[str, str]:
    """The format, and the file it goes to."""
    path, form = options["output"], options["format"]
    if path and not form:
        form = path.rpartition(".")[2].lower()
        if form not in FORMATS:
            raise InputError(f"--output is {path[-80:]!r}: end it in .html, .pdf or .json, or give --format")
    form = form or "html"
    return form, path or f"report.{form}"


def _set(report: Report, form: str) -> str | bytes:
    if form == "pdf":
        from capacity.reporting.paper import pdf

        return pdf(report)
    if form == "html":
        from capacity.reporting.page import html

        return html(report)
    from capacity.rendering.record import json
    from capacity.reporting.content import tree

    return json({"schema": 1, **tree(report)})


def _write(path: str, content: str | bytes) -> None:
    from capacity.whole_file import write_whole

    try:
        write_whole(path, content)
    except OSError as error:
        raise CapacityError(f"--output: {path[-80:]} cannot be written ({error.strerror or error})") from None


def _told(changes: list[str]) -> list[str]:
    if not changes:
        return ["nothing changed"]
    rest = len(changes) - _MOST_LINES
    return [
        f"{len(changes)} changed:",
        *(f"  {line}" for line in changes[:_MOST_LINES]),
        *([f"  and {rest} more"] if rest > 0 else []),
    ]
