"""What a search of the catalogue found: as JSON, as a table, or one entry in full with a number for each source."""

from __future__ import annotations

from capacity.cli.terminal import style, write
from capacity.rendering import layout, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from capacity.rendering.style import Style


def show(
    kind: str,
    found: Sequence[Any],
    options: dict[str, Any],
    *,
    record: Callable[[Any], dict[str, Any]],
    listing: Callable[[Sequence[Any], Style], list[str]],
    detail: Callable[[Any, Style], list[str]],
) -> None:
    """Print entries: JSON where asked for, one in full, several as a table."""
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kind": kind, kind: [record(one) for one in found]}))
        return
    chosen = style(plain=options["plain"])
    lines = detail(found[0], chosen) if len(found) == 1 else listing(found, chosen)
    write("\n".join(lines) + "\n")


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], said: str, chosen: Style) -> list[str]:
    """Entries under their columns (name, unit), and a line that says what to do next."""
    header = [[name for name, _ in columns], [unit for _, unit in columns]]
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    return [*lines, "", *(chosen.paint(line, "dim") for line in layout.wrap(said, chosen.width - 1))]


def entry(name: str, key: str, rows: Iterable[tuple[str, Any, str, str]], notes: str, chosen: Style) -> list[str]:
    """Everything known of one entry. rows: what it is, value, unit ("" for words), remark; what is None or empty is left out."""
    shown: list[tuple[str, str, str]] = []
    sources: dict[str, int] = {}
    for what, value, unit, remark in rows:
        if value is None or value == "":
            continue
        source = getattr(value, "source", "")
        number = f"[{sources.setdefault(source, len(sources) + 1)}]" if source else ""
        said = words.value(value, unit, binary=what == "memory") if unit else value
        shown.append((what, chosen.text(said), f"{remark} {number}".strip()))
    lines = [chosen.paint(chosen.text(name), "bold") + chosen.text(f"  {key}"), *layout.facts(shown, chosen)]
    lines += [""] if sources else []
    for source, place in sources.items():
        body = layout.wrap(chosen.text(source), chosen.width - 7)
        lines += [
            chosen.paint(f"  {f'[{place}]' if row == 0 else '':<5}{line}", "dim") for row, line in enumerate(body)
        ]
    if notes:
        lines += ["", *(f"  {line}" for line in layout.wrap(chosen.text(notes), chosen.width - 2))]
    return lines
