"""One screen: verdict, memory, numbers with their intervals, other devices, what was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering import words
from capacity.rendering.layout import clip, flowed, joined, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capacity.rendering.style import Style
    from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

CAPACITY = "device_memory"  # shown as the end of the memory bar
MARGIN = "  "
GUTTER = "   "
NARROW, WIDE = 76, 100
_LEADING_ASSUMPTIONS = 8
_LEADING_ALTERNATIVES = 4


def screen(estimate: Estimate, style: Style, *, everything: bool = False) -> str:
    """The whole answer; `everything` adds every assumption with its source, and what makes each interval."""
    lines = [*_model(estimate.model, style), ""]
    for section in estimate.sections.values():
        lines += [*_section(section, style, everything=everything), ""]
    lines += _warnings(estimate.warnings, style)
    lines += _sources(estimate, style) if everything else _assumptions(estimate, style)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _model(facts: dict[str, Any], style: Style) -> list[str]:
    title = style.paint(style.text(facts.get("name", "model")), "bold")
    rest = [
        style.text(f"{words.lower(words.label(name))} {words.named(name, what)}")
        for name, what in facts.items()
        if name != "name"
    ]
    return [title, *(style.paint(line, "dim") for line in joined(rest, style, MARGIN))]


def _section(section: Section, style: Style, *, everything: bool) -> list[str]:
    title = style.text(section.title.upper())
    parts = [style.text(part) for part in section.setting.split(" · ")]
    indent = " " * (len(title) + 2)
    setting = joined(parts, style, indent)
    setting[0] = style.paint(title, "bold", "cyan") + setting[0][len(title) :]
    lines = [*setting, *_verdict(section, style)]
    lines += _memory(section, style)
    if everything and section.breakdowns.get("time"):
        lines += _bar("Time", section.breakdowns["time"], "s", None, style)
    lines += _grid(list(section.quantities.values()), style, notes=everything)
    lines += _warnings(section.warnings, style)
    lines += _alternatives(section.alternatives, style, len(section.alternatives) if everything else _LEADING_ALTERNATIVES)
    return lines


def _verdict(section: Section, style: Style) -> list[str]:
    mark, colour = {True: ("✔", "green"), False: ("✘", "red"), None: ("·", "cyan")}[section.fits]
    mark = style.drawn(mark)
    lines = wrap(style.text(section.verdict), style.width - len(mark) - 1)
    indent = " " * (len(mark) + 1)
    return [
        (style.paint(mark, "bold", colour) + " " if number == 0 else indent) + style.paint(line, "bold")
        for number, line in enumerate(lines)
    ]


def _memory(section: Section, style: Style) -> list[str]:
    parts = section.breakdowns.get("memory")
    if not parts:
        return []
    capacity = section.quantities.get(CAPACITY)
    return _bar("Memory", parts, "byte", capacity.mid if capacity else None, style)


def _bar(label: str, parts: dict[str, float], unit: str, full: float | None, style: Style) -> list[str]:
    """A bar of parts against what there is: beyond the mark is what does not fit; then the legend."""
    parts = {name: size for name, size in parts.items() if size > 0.0}
    total = sum(parts.values())
    end = max(total, full or 0.0)
    said = f"{words.value(total, unit)} of {words.value(full, unit)}" if full else words.value(total, unit)
    head = f"{MARGIN}{label:<8}"
    room = max(style.width - len(head) - len(said) - 3, 10)
    cells = _cells([*parts.values(), max(end - total, 0.0)], room)
    drawn = [style.part(number, length) for number, length in enumerate(cells[:-1])]
    bar = "".join(drawn) + style.paint(style.drawn("·") * cells[-1], "dim")
    if full and total > full and not style.colour:
        mark = round(room * full / end)
        bar = bar[:mark] + style.drawn("┃") + bar[mark + 1 :]
    legend = [
        (f"{style.part(number, 1)} ", f"{style.text(words.lower(words.label(name)))} {words.value(size, unit)}")
        for number, (name, size) in enumerate(parts.items())
    ]
    return [f"{head}{bar}  {said}", *flowed(legend, style, " " * len(head))]


def _cells(sizes: Sequence[float], room: int) -> list[int]:
    """Whole cells for each size that sum to `room`: the cumulated sizes, rounded; what is there is seen."""
    total = sum(sizes) or 1.0
    edges, done = [0], 0.0
    for size in sizes:
        done += size
        least = edges[-1] + (1 if size > 0.0 else 0)
        edges.append(min(max(round(room * done / total), least), room))
    return [after - before for before, after in zip(edges, edges[1:], strict=False)]


def _grid(quantities: list[Quantity], style: Style, *, notes: bool) -> list[str]:
    """Numbers in two columns, read down; with notes in one."""
    shown = [quantity for quantity in quantities if quantity.name.rpartition(".")[2] != CAPACITY]
    rows = [_row(quantity, style) for quantity in shown]
    columns = 1 if notes or style.width < NARROW else 2
    height = -(-len(rows) // columns)
    room = style.width - len(MARGIN)
    left = _block(rows[:height], style, room if columns == 1 else room - _width(rows[height:]) - len(GUTTER), notes=notes)
    right = _block(rows[height:], style, room - max((length for _, length in left), default=0) - len(GUTTER), notes=False)
    indent = max((length for _, length in left), default=0)
    if columns == 2 and style.width > WIDE:
        indent = max(indent, room // 2 - len(GUTTER))
    lines = []
    for index, (text, length) in enumerate(left):
        other = " " * (indent - length) + GUTTER + right[index][0] if index < len(right) else ""
        lines.append(MARGIN + text + other)
    return lines


def _row(quantity: Quantity, style: Style) -> tuple[str, ...]:
    number, unit = words.middle(quantity)
    return tuple(style.text(text) for text in
                 (words.label(quantity.name), number, unit, words.spread(quantity), quantity.note))


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    return [max((len(row[cell]) for row in rows), default=0) for cell in range(4)]


def _width(rows: Sequence[tuple[str, ...]]) -> int:
    widths = _widths(rows)
    return sum(widths[:3]) + 3 + (2 + widths[3] if widths[3] else 0)


def _block(rows: Sequence[tuple[str, ...]], style: Style, room: int, *, notes: bool) -> list[tuple[str, int]]:
    """Rows of one column of the grid, with their printed lengths: labels left, numbers right, then intervals."""
    widths = _widths(rows)
    spread_room = max(room - sum(widths[:3]) - 5, 0)
    note_room = spread_room - widths[3] - 2
    drawn = []
    for label, middle, unit, spread, note in rows:
        shown = spread if len(spread) <= spread_room else ""
        text = f"{label:<{widths[0]}}  {style.paint(f'{middle:>{widths[1]}}', 'bold')} {unit:<{widths[2]}}"
        length = sum(widths[:3]) + 3
        if spread_room:
            cell = min(widths[3], spread_room)
            text += "  " + style.paint(f"{shown:<{cell}}", "dim")
            length += 2 + cell
        if notes and note and note_room > 8:
            text += "  " + style.paint(clip(note, note_room, style), "dim")
        drawn.append((text, length))
    return drawn


def _alternatives(rows: Sequence[dict[str, Any]], style: Style, most: int) -> list[str]:
    """The same case elsewhere: a small table, its columns named and united by their keys."""
    if not rows:
        return []
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != CAPACITY]
    header = [style.text(words.lower(words.label(key))) for key in keys]
    body = [[style.text(words.named(key, row.get(key))) for key in keys] for row in rows[:most]]
    return table([header], body, style, MARGIN)


def _warnings(warnings: Sequence[str], style: Style) -> list[str]:
    lines = []
    for warning in warnings:
        for number, line in enumerate(wrap(style.text(warning), style.width - 4)):
            lines.append((style.paint("! ", "bold", "yellow") if number == 0 else "  ") + line)
    return lines


def _assumptions(estimate: Estimate, style: Style) -> list[str]:
    """The few assumptions that matter most, and where the rest and the derivations are."""
    chosen = words.leading(estimate, _LEADING_ASSUMPTIONS)
    items = [("", f"{_assumed(one, style)} [{style.text(one.tag)}]") for one in chosen]
    more = len(estimate.assumptions) - len(chosen)
    hint = f"{more} more with -v" if more > 0 else "sources with -v"
    lines = [style.paint("ASSUMED", "bold", "cyan"), *flowed(items, style, MARGIN)] if items else []
    name = next((f"{mode}.{name}" for mode, section in estimate.sections.items() for name in section.quantities), "")
    hint += f" {style.drawn('·')} `--explain {name}` derives a number {style.drawn('·')} brackets are 90 % intervals"
    return [*lines, style.paint(clip(MARGIN + hint, style.width, style), "dim")]


def _assumed(one: Assumption, style: Style) -> str:
    return f"{style.text(words.lower(words.label(one.name)))} {style.text(words.value(one.value, one.unit))}"


def _sources(estimate: Estimate, style: Style) -> list[str]:
    """Every assumption with its tag and source, then what makes each interval."""
    lines = [style.paint("ASSUMED", "bold", "cyan")]
    rows = [
        (style.text(one.name), style.text(words.value(one.value, one.unit)), f"[{style.text(one.tag)}]", style.text(one.source))
        for one in estimate.assumptions
    ]
    widths = [min(max((len(row[cell]) for row in rows), default=0), 30) for cell in range(3)]
    for name, value, tag, source in rows:
        text = f"{MARGIN}{name:<{widths[0]}}  {value:<{widths[1]}}  {tag:<{widths[2]}}  "
        room = style.width - len(text)
        lines.append(text + style.paint(clip(source, room, style), "dim") if room > 12 else text)
    if estimate.sensitivities:
        lines += ["", style.paint("WHAT MAKES THE INTERVALS", "bold", "cyan")]
        for name, shares in estimate.sensitivities.items():
            said = ", ".join(f"{style.text(words.lower(words.label(cause)))} {share:.0%}" for cause, share in shares.items())
            head = f"{MARGIN}{style.text(name):<24}  "
            body = wrap(said, style.width - len(head))
            lines += [(head if number == 0 else " " * len(head)) + line for number, line in enumerate(body)]
    return lines
