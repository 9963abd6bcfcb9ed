"""What a report says, before it is a page or a document: a tree of sections and blocks.

The same tree is set as HTML and as PDF. It holds words, numbers already put into words, drawings and formulas as
data; nothing in it is markup, so nothing in it can become markup.
"""

from __future__ import annotations

from typing import Any

from capacity.record import Record


class Words(Record):
    """A paragraph. tone: "plain", "quiet" or "warning"."""

    text: str
    tone: str = "plain"


class Verdict(Record):
    """The answer in a line. fits: None where it does not apply."""

    text: str
    fits: bool | None = None


class Fact(Record):
    """A number that stands out: its name, its value, its 90 % interval, what it counts."""

    label: str
    value: str
    spread: str = ""
    note: str = ""


class Facts(Record):
    """The numbers a reader came for."""

    items: tuple[Fact, ...]


class Column(Record):
    """A head of a table. numeric: set to the right, sorted by size."""

    label: str
    numeric: bool = False


class Cell(Record):
    """A cell: what is read, and what it is sorted and exported by (the text, where there is no number)."""

    text: str
    number: float | None = None
    strong: bool = False


class Table(Record):
    """A table with its caption. name: of its file, when it is exported. folded: opened by who wants it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


class Figure(Record):
    """A drawing. svg: as matplotlib wrote it; alt: what it shows, for who cannot see it; rows: the data behind it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    rows: tuple[dict[str, Any], ...]


class Step(Record):
    """One step of a derivation.

    left, body: the formula, as trees of `mathematics`, None for a plain sum of its inputs; where: the author's named parts, likewise. put_in: the formula with
    the numbers, as text. value: the result. inputs: name, value, where it is from.
    """

    name: str
    left: Any
    body: Any
    where: tuple[Any, ...]
    put_in: str
    value: str
    about: str
    source: str
    inputs: tuple[tuple[str, str, str], ...]
    level: int = 0


class Derivation(Record):
    """How a number came about, the result first."""

    label: str
    name: str
    steps: tuple[Step, ...]


class Dial(Record):
    """An axis of a grid of answers that a reader can turn through: its values, and each in words."""

    name: str
    label: str
    values: tuple[str, ...]
    start: int


class Explorer(Record):
    """Answers worked out over a grid. answers: by the dials' places, "i,j", the quantities in words."""

    title: str
    dials: tuple[Dial, ...]
    labels: tuple[str, ...]
    answers: dict[str, tuple[tuple[str, str], ...]]


class Section(Record):
    """A heading with what stands under it."""

    title: str
    blocks: tuple[Any, ...]
    sections: tuple[Any, ...] = ()


class Report(Record):
    """The whole. provenance: inputs, versions and results, as plain data."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    provenance: dict[str, Any] = {}


_KINDS = {
    Words: "words", Verdict: "verdict", Facts: "facts", Table: "table", Figure: "figure", Derivation: "derivation",
    Explorer: "explorer", Section: "section", Report: "report",
}  # fmt: skip


def tree(what: Any) -> Any:
    """The content as plain dictionaries and lists; each block says its kind."""
    if isinstance(what, Record):
        plain = {name: tree(getattr(what, name)) for name in what._fields}
        kind = _KINDS.get(type(what))
        return plain if kind is None else {"kind": kind, **plain}
    if isinstance(what, dict):
        return {str(name): tree(value) for name, value in what.items()}
    if isinstance(what, (tuple, list)):
        return [tree(value) for value in what]
    return what


def figures(report: Report) -> list[Figure]:
    """All figures, in order."""
    return [
        block for section in _all_sections(report.sections) for block in section.blocks if isinstance(block, Figure)
    ]


def tables(report: Report) -> list[Table]:
    """All tables, in order."""
    return [block for section in _all_sections(report.sections) for block in section.blocks if isinstance(block, Table)]


def _all_sections(sections: tuple[Section, ...]) -> list[Section]:
    return [one for section in sections for one in (section, *_all_sections(section.sections))]
