"""What people know and no command can: plain words, with headings where a line begins with #."""

from __future__ import annotations

from capacity.reporting.content import Section, Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.reporting.documents import Document


def sections(document: Document, prefix: str) -> tuple[Section, ...]:  # noqa: ARG001 - as all kinds
    """A section for each heading."""
    told: list[Section] = []
    title, words = "Notes", list[Words]()
    for block in document.data["text"].split("\n\n"):
        lines = [line.strip() for line in block.strip().splitlines()]
        if lines and lines[0].startswith("#"):
            if words:
                told.append(Section(title, tuple(words)))
            title, words = lines[0].lstrip("# "), []
            lines = lines[1:]
        items: list[str] = []
        for line in lines:
            if line.startswith(("- ", "* ")) or not items:
                items.append(line.removeprefix("* ").removeprefix("- "))
            else:
                items[-1] += f" {line}"
        words += [Words(one) for one in items if one]
    return (*told, Section(title, tuple(words))) if words else tuple(told)
