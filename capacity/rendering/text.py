"""One screen: verdict, memory, numbers with their intervals, other devices, what was assumed."""

from __future__ import annotations

from itertools import pairwise

from capacity.rendering import selection, words
from capacity.rendering.layout import clip, facts, flowed, joined, table, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.rendering.style import Style
    from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

MARGIN = "  "
GUTTER = "   "
NARROW, WIDE = 72, 100
ROOM = 14  # columns a note is worth showing in
SPARSE = 0.6  # a model that uses less of itself for a token is a sparse one
_ASSUMPTIONS = 6
_ALTERNATIVES = 3
# What the parts of a breakdown are counted in, where they are not seconds.
_UNITS = {"work": "FLOP", "storage": "byte", "interruptions": "1"}
_MARKS = {True: ("✔", "green"), False: ("✘", "red"), None: ("·", "cyan")}


def screen(estimate: Estimate, style: Style, *, everything: bool = False) -> str:
    """The whole answer; `everything` adds every quantity and assumption, and what makes each interval."""
    lines = _model(estimate.model, style, everything=everything)
    for section in estimate.sections.values():
        lines += ["", *section_lines(section, style, everything=everything)]
    lines += ["", *_warnings(estimate.warnings, style)]
    lines += _sources(estimate, style) if everything else _assumptions(estimate, style)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _model(model: dict[str, Any], style: Style, *, everything: bool) -> list[str]:
    known = {
        name: said.format(words.named(name, model[name])) for name, said in selection.FACTS.items() if model.get(name)
    }
    if model.get("active_parameters", 0.0) > SPARSE * model.get("parameters", 0.0):
        known.pop("active_parameters", None)  # a dense model: only its look-up tables are idle
    parts = [style.text(part) for part in known.values()]
    if model.get("inferred"):
        parts.append("shape inferred")
    name = style.text(model.get("name", "model"))
    first, *rest = joined([name, *parts], style, "")
    lines = [style.paint(first[: len(name)], "bold") + style.paint(first[len(name) :], "dim")]
    lines += [style.paint(MARGIN + line, "dim") for line in rest]
    if everything:
        for text in (*model.get("notes", ()), model.get("source", "")):
            lines += [style.paint(MARGIN + line, "dim") for line in wrap(style.text(text), style.width - 2) if line]
    return lines


def section_lines(section: Section, style: Style, *, everything: bool) -> list[str]:
    """One half of an answer: its verdict, its memory, its numbers and what it is compared with."""
    title = style.text(section.title.upper())
    indent = " " * (len(title) + 2)
    setting = [indent + line for line in wrap(style.text(section.setting), style.width - len(indent))]
    lines = [style.paint(title, "bold", "cyan") + setting[0][len(title) :], *setting[1:]]
    lines += _verdict(section, style)
    lines += _memory(section, style)
    if everything:
        for kind, parts in section.breakdowns.items():
            if kind not in (
                "memory",
                "storage",
                "pressure",
            ):  # drawn above; shares of different things do not add up to a bar
                unit = _UNITS.get(kind, "s")
                lines += _bar(words.label(kind.removesuffix(" time")), parts, unit, None, style)
        lines += _all(section, style)
    else:
        lines += _grid(section, style)
    most = selection.ROWS.get(section.title, _ALTERNATIVES)
    lines += _alternatives(section.alternatives, style, None if everything else most)
    return lines + _warnings(section.warnings, style)


def _verdict(section: Section, style: Style) -> list[str]:
    mark, colour = _MARKS[section.fits]
    mark = style.drawn(mark)
    verdict = style.text(section.verdict)
    lines = wrap(verdict[:1].upper() + verdict[1:], style.width - len(mark) - 1)
    lines = [style.paint(line, "bold") for line in lines]
    return [f"{style.paint(mark, 'bold', colour)} {lines[0]}", *(f"{' ' * len(mark)} {line}" for line in lines[1:])]


def _memory(section: Section, style: Style) -> list[str]:
    """The bar of what a device holds, and what recomputation would change."""
    lines = []
    parts = section.breakdowns.get("memory")
    if parts:
        device = section.quantities.get(selection.DEVICE_MEMORY)
        lines += _bar("Memory", parts, "byte", device.mid if device else None, style)
    if "storage" in section.breakdowns:
        lines += _bar("Storage", section.breakdowns["storage"], "byte", None, style)
    kept = selection.chosen(section.quantities, selection.RECOMPUTATION)
    if kept:
        said = style.drawn(", ".join(label.format(words.value(each.mid, "byte", binary=True)) for label, each in kept))
        lines += [style.paint(" " * 10 + line, "dim") for line in wrap(said, style.width - 10)]
    return lines


def _bar(name: str, parts: dict[str, float], unit: str, full: float | None, style: Style) -> list[str]:
    """A bar of parts against what there is: beyond the mark is what does not fit; then the legend."""
    parts = {part: size for part, size in parts.items() if size > 0.0}
    total = sum(parts.values())
    end = max(total, full or 0.0)
    binary = name == "Memory"
    said = style.drawn(words.value(total, unit, binary=binary))
    if full:
        said += f" of {style.drawn(words.value(full, unit, binary=binary))}"
    head = f"{MARGIN}{name:<7} "
    room = max(style.width - len(head) - len(said) - 2, 10)
    cells = _cells([*parts.values(), max(end - total, 0.0)], room)
    bar = "".join(style.part(number, length) for number, length in enumerate(cells[:-1]))
    bar += style.paint(style.drawn("·") * cells[-1], "dim")
    if full and total > full:
        places = [style.part(number, 1) for number, length in enumerate(cells) for _ in range(length)]
        places[min(round(room * full / end), room - 1)] = style.paint(style.drawn("┃"), "bold", "red")
        bar = "".join(places)
    sizes = words.together(list(parts.values()), total, unit, binary=binary)
    legend = [
        (f"{style.part(number, 1)} ", style.text(f"{words.lower(words.label(part))} {size}"))
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    return [f"{head}{bar}  {said}", *flowed(legend, style, " " * len(head), "  ")]


def _cells(sizes: Sequence[float], room: int) -> list[int]:
    """Whole cells for each size that sum to `room`: the running sums, rounded; what is there is seen."""
    total = sum(sizes) or 1.0
    edges, done = [0], 0.0
    for size in sizes:
        done += size
        least = edges[-1] + (1 if size > 0.0 else 0)
        edges.append(min(max(round(room * done / total), least), room))
    return [after - before for before, after in pairwise(edges)]


def _grid(section: Section, style: Style) -> list[str]:
    """Two columns of numbers: the work as it is counted, and what comes of it with its interval."""
    counted = selection.chosen(section.quantities, selection.COUNTED)
    estimated = selection.chosen(section.quantities, selection.ESTIMATED)
    left = [_row(*pair, style) for pair in counted]
    right = [_row(*pair, style) for pair in estimated]
    room = style.width - len(MARGIN)
    if style.width < NARROW:
        rows = _fitted([*right, *left], room, style)
        return [MARGIN + line for line in _columns(rows, spread=True, style=style)]
    wide = style.width >= WIDE
    indent = _length(left, spread=wide)
    room -= indent + len(GUTTER)
    right = _fitted(right, room, style)
    one = _columns(left, spread=wide, style=style)
    other = _columns(right, spread=True, style=style)
    if wide:
        room -= _length(right, spread=True) + 2
        other = _annotated(other, [quantity.note for _, quantity in estimated], room, style)
    height = max(len(one), len(other))
    one += [" " * indent] * (height - len(one))
    other += [""] * (height - len(other))
    return [MARGIN + first + GUTTER + second for first, second in zip(one, other, strict=True)]


def _row(label: str, quantity: Quantity, style: Style) -> tuple[str, str, str, str]:
    number, unit = words.middle(quantity)
    return style.text(label), style.text(number), style.text(unit), style.text(words.spread(quantity))


def _fitted(rows: Sequence[tuple[str, str, str, str]], room: int, style: Style) -> list[tuple[str, str, str, str]]:
    """Rows whose labels are cut where a line would else be wider than its room."""
    over = _length(rows, spread=True) - room
    longest = max((len(row[0]) for row in rows), default=0)
    return [(clip(row[0], longest - over, style), *row[1:]) for row in rows] if over > 0 else list(rows)


def _length(rows: Sequence[tuple[str, str, str, str]], *, spread: bool) -> int:
    """How many columns on the screen `_columns` takes."""
    widths = [max((len(row[cell]) for row in rows), default=0) for cell in range(4)]
    return sum(widths[:3]) + 3 + (2 + widths[3] if spread and widths[3] else 0) if rows else 0


def _annotated(lines: Sequence[str], notes: Sequence[str], room: int, style: Style) -> list[str]:
    """Lines with what each number counts behind it, where there is room for it."""
    if room < ROOM:
        return list(lines)
    return [
        f"{line}  {style.paint(clip(style.text(note), room, style), 'dim')}"
        for line, note in zip(lines, notes, strict=True)
    ]


def _columns(rows: Sequence[tuple[str, str, str, str]], *, spread: bool, style: Style) -> list[str]:
    """Labels left, numbers right, units left, intervals left: every line as long as the others."""
    widths = [max((len(row[cell]) for row in rows), default=0) for cell in range(4)]
    lines = []
    for label, number, unit, ends in rows:
        text = f"{label:<{widths[0]}}  {style.paint(f'{number:>{widths[1]}}', 'bold')} {unit:<{widths[2]}}"
        lines.append(text + ("  " + style.paint(f"{ends:<{widths[3]}}", "dim") if spread and widths[3] else ""))
    return lines


def _all(section: Section, style: Style) -> list[str]:
    """Every quantity with its interval and what it counts, a line each."""
    rows = [_row(words.label(name), quantity, style) for name, quantity in section.quantities.items()]
    rows = _fitted(rows, style.width - len(MARGIN), style)
    notes = [quantity.note for quantity in section.quantities.values()]
    room = style.width - len(MARGIN) - _length(rows, spread=True) - 2
    return [MARGIN + line for line in _annotated(_columns(rows, spread=True, style=style), notes, room, style)]


def _alternatives(rows: Sequence[dict[str, Any]], style: Style, most: int | None) -> list[str]:
    """The same case elsewhere: a small table, its columns named and united by their keys."""
    if not rows:
        return []
    keys = list(dict.fromkeys(key for row in rows for key in row))
    header = ["compare" if key in ("device", "storage") else style.text(words.lower(words.label(key))) for key in keys]
    body = [[style.text(words.named(key, row.get(key))) for key in keys] for row in rows[:most]]
    return table([header], body, style, MARGIN)


def _warnings(warnings: Sequence[str], style: Style) -> list[str]:
    lines = []
    for warning in warnings:
        first, *rest = wrap(style.text(warning), style.width - 2)
        lines += [f"{style.paint('!', 'bold', 'yellow')} {first}", *(f"  {line}" for line in rest)]
    return lines


def _assumptions(estimate: Estimate, style: Style) -> list[str]:
    """The few assumptions that matter most, and where the rest and the derivations are."""
    chosen = selection.leading(estimate, _ASSUMPTIONS)
    items = [("", f"{_assumed(one, style)} [{style.text(one.tag)}]") for one in chosen]
    mode, section = next(iter(estimate.sections.items()))
    name = next((name for name in selection.ESTIMATED if name in section.quantities), "")
    more = len(estimate.assumptions) - len(chosen)
    hint = [f"{more} more: -v"] if more else []
    if estimate.sensitivities:
        hint += [f"derivations: --explain {mode}.{name}", "ranges: 90 % intervals"]
    lines = [style.paint("ASSUMED", "bold", "cyan"), *flowed(items, style, MARGIN)] if items else []
    return [*lines, *(style.paint(line, "dim") for line in (joined(hint, style, MARGIN) if hint else ()))]


def _assumed(one: Assumption, style: Style) -> str:
    return f"{style.text(words.lower(words.label(one.name)))} {style.text(words.value(one.value, one.unit))}"


def _sources(estimate: Estimate, style: Style) -> list[str]:
    """Every assumption with its tag and source, then what makes each interval."""
    rows = [
        (
            style.text(words.lower(words.label(one.name))),
            f"{style.text(words.value(one.value, one.unit))} [{style.text(one.tag)}]",
            style.text(one.source),
        )
        for one in estimate.assumptions
    ]
    lines = [style.paint("ASSUMED", "bold", "cyan"), *facts(rows, style, MARGIN)]
    if estimate.sensitivities:
        lines += ["", style.paint("WHAT MAKES THE INTERVALS", "bold", "cyan")]
        causes: dict[str, list[str]] = {}
        for name, shares in estimate.sensitivities.items():
            said = ", ".join(
                f"{style.text(words.lower(words.label(cause)))} {share:.0%}" for cause, share in shares.items()
            )
            causes.setdefault(said, []).append(style.text(name))
        for said, names in causes.items():
            lines += [MARGIN + line for line in wrap(f"{said}:", style.width - 2)]
            lines += [style.paint(line, "dim") for line in joined(names, style, MARGIN * 2)]
    return lines
