"""Words put into lines: wrapped, clipped, joined, set in a table."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capacity.rendering.style import Style

GAP = "  "
SHORTEST = 10  # characters of a last column worth showing


def wrap(text: str, width: int) -> list[str]:
    """Lines of whole words; a word longer than a line is cut."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        rest = word
        if current and len(current) + 1 + len(rest) > width:
            lines.append(current)
            current = ""
        while len(rest) > width:
            lines.append(rest[:width])
            rest = rest[width:]
        current = f"{current} {rest}" if current else rest
    return [*lines, current] if current or not lines else lines


def clip(text: str, width: int, style: Style) -> str:
    """The text, cut to a width with an ellipsis."""
    if len(text) <= width:
        return text
    end = style.drawn("…")
    return text[: max(width - len(end), 0)] + end


def joined(parts: Sequence[str], style: Style, indent: str) -> list[str]:
    """Phrases joined by middle dots, broken between phrases where that is enough."""
    dot = f" {style.drawn('·')} "
    room = style.width - len(indent)
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(dot) + len(part) > room:
            lines.append("")
        lines[-1] += dot + part if lines[-1] else part
    return [indent + piece for line in lines for piece in wrap(line, room)]


def flowed(items: Iterable[tuple[str, str]], style: Style, indent: str, gap: str = "   ") -> list[str]:
    """Swatches (two columns, or none) with words, as many to a line as fit."""
    lines, used = [indent], len(indent)
    for swatch, said in items:
        length = len(said) + (2 if swatch else 0)
        if used + length > style.width and used > len(indent):
            lines.append(indent)
            used = len(indent)
        lines[-1] += swatch + said + gap
        used += length + len(gap)
    return [line.rstrip() for line in lines]


def table(header: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], style: Style, margin: str = "") -> list[str]:
    """A table with its heads: the first column left, the others right.

    What is too wide loses its last columns, and a last line names them; a long last column is clipped first.
    """
    widths = [max(len(line[column]) for line in (*header, *rows)) for column in range(len(header[0]))]
    while len(widths) > 2 and (over := len(margin) + sum(widths) + len(GAP) * (len(widths) - 1) - style.width) > 0:
        last = widths.pop()
        if last - over >= SHORTEST:  # a long last column is clipped before it is dropped
            widths.append(last - over)
    spare = style.width - len(margin) - sum(widths[1:]) - len(GAP) * (len(widths) - 1)
    widths[0] = max(min(widths[0], spare), 8)
    lines = []
    for number, line in enumerate((*header, *rows)):
        cells = [clip(text, width, style) for text, width in zip(line, widths, strict=False)]
        text = margin + GAP.join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append(style.paint(text.rstrip(), "dim") if number < len(header) else text.rstrip())
    left_out = [name for name in header[0][len(widths) :] if name]
    if left_out:
        said = wrap(f"no room for {', '.join(left_out)}: a wider screen shows them", style.width - len(margin))
        lines += [style.paint(margin + line, "dim") for line in said]
    return lines


def facts(rows: Sequence[tuple[str, str, str]], style: Style, margin: str = "  ") -> list[str]:
    """Name, value and a quiet remark: beside the value where it fits, else below it."""
    names = max((len(row[0]) for row in rows), default=0)
    values = min(max((len(row[1]) for row in rows if row[2]), default=0), style.width // 3)
    lines = []
    for name, value, remark in rows:
        head = f"{margin}{name:<{names}}  "
        room = style.width - len(head)
        body = wrap(value, room)
        beside = remark and len(remark) <= room - values - 2 and len(value) <= values
        if beside:
            body = [f"{value:<{values}}  {style.paint(remark, 'dim')}"]
        elif remark:
            body += [style.paint(line, "dim") for line in wrap(remark, room)]
        lines += [(head if number == 0 else " " * len(head)) + line for number, line in enumerate(body)]
    return lines
