"""From a document of a kind to the sections of a report that tell it."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.reporting.content import Section
    from capacity.reporting.documents import Document

# Kinds that are told in words of their own; any other is told as it is.
_KNOWN = ("estimate", "validation", "compress", "bench", "plan", "solution", "sweep", "notes")


def sections_of(document: Document, place: int, *, brief: bool = False) -> tuple[Section, ...]:
    """The sections of one document; `place` is its place among all, which keeps names apart. brief: leave long lists out."""
    module = document.kind if document.kind in _KNOWN else "anything"
    more = {"every_case": False} if brief and module == "bench" else {}
    told: tuple[Section, ...] = import_module(f"capacity.reporting.sections.{module}").sections(
        document, f"d{place}-", **more
    )
    return told
