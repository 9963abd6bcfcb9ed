"""An estimate as HTML for a notebook: the screen's content, in the notebook's own font and colours.

Nothing is fetched and nothing runs; colours work on light and on dark pages.
"""

from __future__ import annotations

from capacity.rendering import selection, words
from capacity.rendering.style import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

_RIGHT = " class='n'"
_HUES = ("#4269d0", "#97bbf5", "#3ca951", "#efb118", "#ff725c", "#a463f2", "#9c6b4e")
# Scoped by the class of the element; notebooks set tables their own way, so all of it is said.
_STYLE = """<style>
.capacity-estimate{max-width:64em;line-height:1.45}
.capacity-estimate table{border:0;border-collapse:collapse;margin:.4em 0}
.capacity-estimate td,.capacity-estimate th{padding:.1em .8em .1em 0;border:0;text-align:left;background:none;vertical-align:baseline}
.capacity-estimate .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.capacity-estimate .q{opacity:.65}
.capacity-estimate .verdict{border-left:.25em solid;padding-left:.6em;margin:.3em 0;font-weight:600}
.capacity-estimate .bar{display:flex;position:relative;height:1.1em;background:rgba(127,127,127,.2)}
.capacity-estimate .end{position:absolute;top:0;bottom:0;border-left:2px solid}
</style>"""


def html(estimate: Estimate) -> str:
    """The whole answer as one element."""
    parts = [f"<b>{safe(estimate.model.get('name', 'model'))}</b>"]
    parts += [_section(section) for section in estimate.sections.values()]
    parts += [_warning(warning) for warning in estimate.warnings]
    if estimate.assumptions:
        rows = "".join(_assumption(one) for one in estimate.assumptions)
        parts.append(f"<details><summary>{len(estimate.assumptions)} assumptions</summary>{_table(rows)}</details>")
    return element("".join(parts))


def element(inner: str) -> str:
    """Content with the style it is scoped by."""
    return f"<div class='capacity-estimate'>{_STYLE}{inner}</div>"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts under its headings, the first column to the left."""
    titles = "".join(f"<th{'' if number == 0 else _RIGHT}>{safe(text)}</th>" for number, text in enumerate(head))
    body = "".join(
        "<tr>" + "".join(_cell(text, first=number == 0) for number, text in enumerate(row)) + "</tr>" for row in rows
    )
    return _table(f"<tr>{titles}</tr>{body}")


def safe(text: object) -> str:
    """Words from anywhere: no markup, no hidden characters."""
    clean = harmless(str(text))
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        clean = clean.replace(mark, entity)
    return clean


def _section(section: Section) -> str:
    colour = {True: "#2da44e", False: "#d1242f", None: "inherit"}[section.fits]
    parts = [
        f"<div style='margin-top:1em'><b>{safe(section.title)}</b> <span class='q'>{safe(section.setting)}</span></div>",
        f"<div class='verdict' style='border-color:{colour}'>{safe(section.verdict)}</div>",
        _memory(section),
        _quantities(section),
        _alternatives(section),
        *(_warning(warning) for warning in section.warnings),
    ]
    return "".join(parts)


def _memory(section: Section) -> str:
    """The bar of what a device holds against what it has, with its legend."""
    parts = {name: size for name, size in section.breakdowns.get("memory", {}).items() if size > 0.0}
    if not parts:
        return ""
    device = section.quantities.get(selection.DEVICE_MEMORY)
    full = device.mid if device else 0.0
    total = sum(parts.values())
    end = max(total, full)
    cells, legend = [], []
    for number, (name, size) in enumerate(parts.items()):
        hue = _HUES[number % len(_HUES)]
        said = f"{safe(words.label(name))} {words.value(size, 'byte', binary=True)}"
        cells.append(f"<div title='{said}' style='width:{100.0 * size / end:.2f}%;background:{hue}'></div>")
        legend.append(f"<span style='white-space:nowrap'><span style='color:{hue}'>&#9632;</span> {said}</span>")
    said = words.value(total, "byte", binary=True) + (f" of {words.value(full, 'byte', binary=True)}" if full else "")
    mark = f"<div class='end' style='left:{100.0 * full / end:.2f}%'></div>" if full and total > full else ""
    return (
        f"<div class='bar' title='{said}'>{''.join(cells)}{mark}</div>"
        f"<div style='font-size:90%'>{said}: {' &nbsp; '.join(legend)}</div>"
    )


def _quantities(section: Section) -> str:
    """Every quantity with its 90 % interval and what it counts; the first ones open, the rest folded."""
    first = {**selection.ESTIMATED, **selection.COUNTED}
    named = selection.chosen(section.quantities, first)
    rest = [(words.label(name), quantity) for name, quantity in section.quantities.items() if name not in first]

    def rows(pairs: Iterable[tuple[str, Quantity]]) -> str:
        return "".join(_quantity(label, quantity) for label, quantity in pairs)

    folded = f"<details><summary>{len(rest)} more</summary>{_table(rows(rest))}</details>" if rest else ""
    return _table(rows(named)) + folded


def _quantity(label: str, quantity: Quantity) -> str:
    number, unit = words.middle(quantity)
    return (
        f"<tr><td>{safe(label)}</td><td class='n'><b>{safe(number)}</b> {safe(unit)}</td>"
        f"<td class='q'>{safe(words.spread(quantity))}</td>"
        f"<td class='q'>{safe(quantity.note)}</td></tr>"
    )


def _alternatives(section: Section) -> str:
    if not section.alternatives:
        return ""
    keys = list(dict.fromkeys(key for row in section.alternatives for key in row))
    head = "".join(f"<th{'' if key == keys[0] else _RIGHT}>{safe(words.label(key))}</th>" for key in keys)
    body = "".join(
        "<tr>" + "".join(_cell(words.named(key, row.get(key)), first=key == keys[0]) for key in keys) + "</tr>"
        for row in section.alternatives
    )
    return f"<details><summary>compare devices</summary>{_table(f'<tr>{head}</tr>{body}')}</details>"


def _cell(text: str, *, first: bool) -> str:
    return f"<td{'' if first else _RIGHT}>{safe(text)}</td>"


def _assumption(one: Assumption) -> str:
    texts: Sequence[str] = (words.label(one.name), words.value(one.value, one.unit), one.tag, one.source)
    return "<tr>" + "".join(f"<td>{safe(text)}</td>" for text in texts) + "</tr>"


def _warning(text: str) -> str:
    return f"<div>&#9888; {safe(text)}</div>"


def _table(rows: str) -> str:
    return f"<table>{rows}</table>"
