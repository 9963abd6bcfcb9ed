"""From a document of a kind to the sections of a report that tell it."""

from __future__ import annotations

from importlib import import_module

from capacity.errors import CapacityError, FileFormatError

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
    told: tuple[Section, ...]
    try:
        told = import_module(f"capacity.reporting.sections.{module}").sections(document, f"d{place}-", **more)
    except CapacityError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if document.request is not None:  # made here, not read: the fault is not the file's
            raise
        why = f"{type(error).__name__}: {error}"
        raise FileFormatError(
            f"{document.name[-80:]} is no {document.kind} that can be read ({why}): write it again with --json"
        ) from error
    return told
