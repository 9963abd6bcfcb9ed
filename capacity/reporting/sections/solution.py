"""A question asked backwards, told: the answer, what lies just beyond it, what was tried; then the estimate of the answer."""

from __future__ import annotations

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Verdict, Words
from capacity.reporting.documents import asked_again
from capacity.reporting.sections import estimate as estimates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """The answer, then its estimate where it has one."""
    data = document.data
    solved, unit = str(data["solve"]).replace("_", " "), str(data.get("unit", "1"))
    value, beyond, option = data.get("value"), data.get("beyond"), data.get("option")
    blocks: list[Any] = [
        Verdict(str(data.get("verdict", "")), value is not None),
        Facts((Fact(solved.capitalize(), words.value(value, unit)),)),
    ]
    if option:
        blocks.append(Words(str(option["setting"]), "quiet"))
    if beyond:
        blocks.append(Words(f"With {words.value(beyond['value'], unit)} it would no longer hold: {beyond['why']}."))
    blocks += [Words(str(warning), "warning") for warning in data.get("warnings") or ()]
    if data.get("trials"):
        columns = (Column(solved.capitalize(), numeric=True), Column("Holds"), Column("Why"))
        rows = tuple(
            (
                Cell(words.value(one["value"], unit), one["value"]),
                Cell("yes" if one["holds"] else "no"),
                Cell(str(one["why"])),
            )
            for one in data["trials"]
        )
        blocks.append(Table(f"{prefix}trials", "What was tried", columns, rows))
    told = Section(f"Solved for {solved}", tuple(blocks))
    if not data.get("estimate"):
        return (told,)
    return (told, *estimates.sections(asked_again(data["estimate"], document.name), f"{prefix}best-"))
