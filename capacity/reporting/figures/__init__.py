"""Drawings of answers: each is data as rows, and a way to draw them; what is exported is what was drawn."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from capacity.reporting.content import Figure
    from capacity.reporting.figures.canvas import Sheet


class Drawing(Record):
    """A figure before it is drawn. rows: its data, a dictionary a row; draw: rows to a sheet; alt: what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    rows: tuple[dict[str, Any], ...]
    draw: Callable[[tuple[dict[str, Any], ...]], Sheet]

    def sheet(self) -> Sheet:
        """The drawing, drawn."""
        from capacity.reporting.figures.canvas import styled

        with styled():
            return self.draw(self.rows)


def figure(drawing: Drawing | None, prefix: str = "") -> tuple[Figure, ...]:
    """The drawing as a block of a report; nothing, where there was nothing to draw."""
    if drawing is None:
        return ()
    from capacity.reporting.content import Figure

    name = f"{prefix}{drawing.name}"
    return (Figure(name, drawing.title, drawing.caption, drawing.alt, drawing.sheet().svg(name), drawing.rows),)
