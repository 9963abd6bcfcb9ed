"""One report of several documents: what `capacity report` makes, before it is a page or a document."""

from __future__ import annotations

from capacity.reporting import documents, provenance
from capacity.reporting.content import Cell, Column, Report, Section, Table, Words
from capacity.reporting.sections import sections_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.reporting.documents import Document


# Kinds that hold the estimate of what they found, and what they are called.
_PLANNED = {"plan": "a plan", "solution": "a question asked backwards"}


def compose(inputs: Sequence[Document], title: str = "") -> Report:
    """The report of some documents, in their order; a title is made up where none is given."""
    made, said = _title(inputs)
    told: list[Section] = []
    for place, document in enumerate(inputs):
        parts = sections_of(document, place, brief=len(inputs) > 1)
        if len(inputs) > 1 and len(parts) > 1:  # several answers: each under a heading of its own
            head, said_of_it = _title([document])
            told.append(Section(head, (Words(said_of_it, "quiet"),), parts))
        else:
            told += parts
    stores = [(place, document) for place, document in enumerate(inputs) if document.kind == "bench"]
    if len(stores) > 1:
        from capacity.reporting.sections.bench import compared

        (_, first), *others = stores
        told = [*(compared(first, other, f"c{place}-") for place, other in others), *told]
    kept = provenance.of(inputs, title)
    return Report(title or made, said, (*told, _about(kept)), kept)


def _title(inputs: Sequence[Document]) -> tuple[str, str]:
    if len(inputs) == 1:
        document = inputs[0]
        if document.kind == "estimate":
            from capacity.reporting.sections.estimate import title

            return title(documents.estimate_of(document.data, document.name))
        if document.kind in _PLANNED and document.data.get("estimate"):
            from capacity.reporting.sections.estimate import title

            head, said = title(documents.estimate_of(document.data["estimate"], document.name))
            return f"{head.partition(':')[0]}: {_PLANNED[document.kind]}", said
        if document.kind == "bench":
            from capacity.reporting.sections.bench import name_of

            return f"{name_of(document.data)}, measured", str(document.data["machine"].get("seen", ""))[:10]
        if document.kind == "validation":
            return f"Predictions of {document.name} held against measurements", ""
        return f"{document.kind.capitalize()} report: {document.name}", ""
    if all(document.kind == "bench" for document in inputs):
        return " against ".join(document.name for document in inputs), "measured by capacity bench"
    if all(document.kind == "validation" for document in inputs):
        return "Predictions held against measurements", ", ".join(document.name for document in inputs)
    return "Capacity report", ", ".join(dict.fromkeys(document.kind for document in inputs))


def _about(kept: dict[str, object]) -> Section:
    """Where the report is from, and how to make it again."""
    versions = kept["versions"]
    rows = tuple((Cell(name), Cell(said)) for name, said in versions.items()) if isinstance(versions, dict) else ()
    return Section(
        "About this report",
        (
            Words(
                "Ranges are 90 % intervals, made of what earlier predictions got wrong. The same inputs and versions make the same bytes. "
                "The inputs are in this file; `capacity report --rerun FILE` makes it again and says what changed."
            ),
            Table("versions", "Made with", (Column("Program"), Column("Version")), rows, folded=True),
        ),
    )


def report(*what: Any, title: str = "", format: str = "html") -> str | bytes:
    """A report of answers: estimates, or documents as `--json` prints them, several together.

    format: "html", a page as text, or "pdf", a document as bytes. Raises InputError for what cannot be reported.
    """
    from capacity.errors import InputError
    from capacity.rendering.record import record
    from capacity.spec.estimate import Estimate

    inputs = [
        documents.document(record(one) if isinstance(one, Estimate) else one, f"document {place}")
        for place, one in enumerate(what, 1)
        if isinstance(one, (Estimate, dict))
    ]
    if len(inputs) != len(what) or not inputs:
        raise InputError("a report takes estimates and documents as --json prints them")
    if format not in ("html", "pdf"):
        raise InputError(f"format is {format[:40]!r}: give html or pdf")
    from capacity.reporting.page import html
    from capacity.reporting.paper import pdf

    composed = compose(inputs, title)
    return html(composed) if format == "html" else pdf(composed)
