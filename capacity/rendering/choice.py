"""A choice on one screen: the best layout, the front, why the runner-up lost, what would turn it, what was searched."""

from __future__ import annotations

from capacity.quantities import format as shown
from capacity.rendering import words
from capacity.rendering.layout import flowed, table, wrap
from capacity.rendering.text import MARGIN, section_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from capacity.rendering.style import Style
    from capacity.spec.choice import Choice, Option, Rival, Turn

# Columns of a table of layouts: heading and name, the unit by the end of the name.
_COLUMNS = (
    ("devices", "devices"),
    ("run", "run_time_s"),
    ("step", "step_time_s"),
    ("first", "ttft_s"),
    ("next", "tpot_s"),
    ("tok/s", "tokens_per_s"),
    ("memory", "memory_per_device_bytes"),
    ("cost", "cost_usd"),
    ("a M tok", "cost_per_million_tokens_usd"),
    ("energy", "energy_j"),
    ("J a tok", "energy_per_token_j"),
)
# Columns that stand first where layouts were chosen by them.
_LEADING = {
    "cost": ("devices", "cost_usd", "cost_per_million_tokens_usd"),
    "energy": ("devices", "energy_j", "energy_per_token_j"),
    "throughput-per-device": ("devices", "tokens_per_s"),
}
_FRONT_ROWS, _TERMS, _TURNS = 8, 4, 4


def screen(choice: Choice, style: Style, *, everything: bool = False) -> str:
    """The whole answer; `everything` adds the rest of the front and of the estimate."""
    lines = [*heading("PLAN", _asked(choice), style)]
    lines += marked(
        "✘" if choice.best is None else "✔", "red" if choice.best is None else "green", choice.verdict, style
    )
    if choice.estimate is not None:
        for section in choice.estimate.sections.values():
            lines += ["", *section_lines(section, style, everything=everything)]
    if choice.best is not None:
        lines += ["", *command(choice.request, choice.best.options, style)]
    if choice.tried:
        lines += ["", *heading("COMPARED", "the best of each", style), *_layouts(choice.tried, style, choice.objective)]
    if choice.front:
        kept = choice.front if everything else thinned(choice.front, _FRONT_ROWS)
        more = f", {len(kept)} of {len(choice.front)}" if len(kept) < len(choice.front) else ""
        beaten = "first token, next token and tokens a device" if choice.mode == "serve" else "time, cost and memory"
        said = f"none of these is beaten in all of {beaten}{more}"
        lines += ["", *heading("PARETO FRONT", said, style), *_layouts(kept, style)]
    twice = False
    if choice.simplest is not None and choice.runner_up is not None:
        twice = choice.simplest.option.setting == choice.runner_up.option.setting
    if choice.simplest is not None and not twice:
        lines += [
            "",
            *heading("PLAINER", f"and {choice.simplest.worse:.1%} worse", style),
            *_rival(choice.simplest, style),
        ]
    if choice.runner_up is not None:
        said = (
            f"lost by {choice.runner_up.worse:.2%}, cutting the model in another way{', and plainer' if twice else ''}"
        )
        lines += ["", *heading("RUNNER-UP", said, style), *_rival(choice.runner_up, style)]
    lines += _turning(choice, style, everything=everything)
    lines += ["", *heading("SPACE", _searched(choice), style)]
    for remedy in choice.remedies:
        lines += bullet(remedy, style)
    for warning in choice.warnings:
        first, *rest = wrap(style.text(warning), style.width - 2)
        lines += [f"{style.paint('!', 'bold', 'yellow')} {first}", *(f"  {line}" for line in rest)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _asked(choice: Choice) -> str:
    most = choice.objective == "throughput-per-device"
    return ", ".join(
        [f"{'most' if most else 'least'} {choice.objective.replace('-per-', ' a ')}", *wanted(choice.limits)]
    )


_LIMITS = {
    "max_memory": ("at most", "byte"),
    "deadline": ("within", "s"),
    "budget": ("for at most", "USD"),
    "power_cap": ("drawing at most", "W"),
}


def wanted(limits: dict[str, float]) -> list[str]:
    """Limits in words."""
    return [
        f"{_LIMITS[name][0]} {shown(value, _LIMITS[name][1], binary=name == 'max_memory')}"
        for name, value in limits.items()
    ]


def marked(mark: str, colour: str, text: str, style: Style) -> list[str]:
    """A verdict behind its mark."""
    mark = style.drawn(mark)
    first, *rest = wrap(style.text(text), style.width - len(mark) - 1)
    return [
        f"{style.paint(mark, 'bold', colour)} {style.paint(first, 'bold')}",
        *(" " * (len(mark) + 1) + style.paint(line, "bold") for line in rest),
    ]


def heading(name: str, said: str, style: Style) -> list[str]:
    """A title, and what is said beside it."""
    indent = len(name) + 2
    first, *rest = wrap(style.text(said), style.width - indent)
    return [style.paint(name, "bold", "cyan") + "  " + first, *(" " * indent + line for line in rest)]


_PROMISE = ("ttft_slo", "tpot_slo", "percentile", "night")


def command_line(request: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """The words of the `capacity estimate` that prices a layout."""
    asked = {**request, **options}
    if "request_rate" not in asked:
        # A promise is of a rate of requests; an estimate without one has none.
        asked = {name: value for name, value in asked.items() if name not in _PROMISE}
    line = ["capacity", "estimate"]
    for name, value in asked.items():
        if name == "catalogue":
            for folder in value:
                line += ["--catalogue", str(folder)]
        elif value is True:
            line.append(f"--{name.replace('_', '-')}")
        elif name != "site" and value is not None and value is not False:
            text = f"{value:.10g}" if isinstance(value, float) else str(value)
            line += [f"--{name.replace('_', '-')}", text]
    return line


def command(request: dict[str, Any], options: dict[str, Any], style: Style) -> list[str]:
    """How to ask for a layout alone, in lines a shell reads."""
    pairs: list[str] = []
    for word in command_line(request, options):
        if word.startswith("--") or not pairs or len(pairs) < 2:
            pairs.append(style.text(word))
        else:
            pairs[-1] += " " + style.text(word)
    lines, current = [], ""
    for part in pairs:
        if current and len(MARGIN) + len(current) + 1 + len(part) + 2 > style.width:
            lines.append(current + " \\")
            current = "  " + part
        else:
            current = f"{current} {part}" if current else part
    return [style.paint(MARGIN + line, "dim") for line in [*lines, current]]


def _layouts(options: Sequence[Option], style: Style, objective: str = "") -> list[str]:
    """A table of layouts, what they were chosen by first where that is said."""
    head, rows = layout_table(options, objective)
    return table([head], [[style.text(cell) for cell in row] for row in rows], style, MARGIN)


def layout_table(options: Sequence[Option], objective: str = "") -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table of layouts; what they all have in common is not repeated."""
    leading = _LEADING.get(objective, ())
    columns = sorted(_COLUMNS, key=lambda column: column[1] not in leading)
    names = [(head, name) for head, name in columns if all(name in one.values for one in options)]
    names = [(head, name) for head, name in names if name != "step_time_s" or "run_time_s" not in options[0].values]
    if len({one.values.get("devices") for one in options}) == 1:
        names = [(head, name) for head, name in names if name != "devices"]
    varied = [name for name in _VARIED if len({str(one.options.get(name)) for one in options}) > 1]
    rows = [
        [
            short(one.setting.split("; ", 1)[-1]),
            *(str(one.options.get(name, "-")) for name in varied),
            *(words.named(name, one.values[name]) for _, name in names),
        ]
        for one in options
    ]
    return ["layout", *varied, *(head for head, _ in names)], rows


# What may differ between layouts beside their cuts.
_VARIED = ("device", "precision", "kv_precision", "stack", "engine")


_SHORT = {
    "micro-batch ": "mb ", "selective recomputation": "sel", "full recomputation": "full", "no sharding": "ZeRO-0",
    " on the host": " off", "activations": "act", "optimizer": "opt", "parameters": "par", " schedule": "", " and ": "+",
    "chunks ": "v ", "attention groups": "adp", "requests in flight": "in flight",
}  # fmt: skip


def short(setting: str) -> str:
    """A layout in as few letters as are understood."""
    for long, brief in _SHORT.items():
        setting = setting.replace(long, brief)
    return setting


def _rival(rival: Rival, style: Style) -> list[str]:
    lines = [MARGIN + line for line in wrap(style.text(rival.option.setting), style.width - 2)]
    gaps = list(rival.terms.items())[:_TERMS]
    if gaps:
        said = [("", style.text(f"{name} {'+' if gap > 0 else '-'}{shown(abs(gap), 's')}")) for name, gap in gaps]
        lines += [style.paint(line, "dim") for line in flowed(said, style, MARGIN)]
    return lines


def _turning(choice: Choice, style: Style, *, everything: bool) -> list[str]:
    if choice.best is None or not (choice.turns or choice.steady):
        return []
    lines = ["", *heading("WHAT WOULD TURN IT", "each uncertain input at the ends of its interval", style)]
    for turn in choice.turns if everything else choice.turns[:_TURNS]:
        lines += bullet(_turned(turn), style)
    rest = len(choice.turns) - _TURNS
    if rest > 0 and not everything:
        lines += bullet(f"{rest} more: -v", style)
    if choice.steady:
        lines += bullet(f"nothing changes with {', '.join(choice.steady)}", style)
    return lines


def _turned(turn: Turn) -> str:
    other = turn.option.setting.split("; ", 1)[-1]
    if turn.input.startswith("price"):
        other = turn.option.setting
    if turn.gain < 0:
        lost = "keeps the promise" if "concurrency" in turn.option.options else "fits"
        return f"{turn.input} x {turn.factor:g}: the choice no longer {lost}; then {other}, {-turn.gain:.1%} worse"
    return f"{turn.input} x {turn.factor:g}: {other} would be {turn.gain:.1%} better"


def bullet(text: str, style: Style) -> list[str]:
    """One of several things."""
    first, *rest = wrap(style.text(text), style.width - 4)
    return [f"{MARGIN}{style.drawn('·')} {first}", *(f"{MARGIN}  {line}" for line in rest)]


def _searched(choice: Choice) -> str:
    space = choice.space
    if not space.legal:
        return "no legal layout"
    away = 1.0 - space.fit / max(space.examined, 1)
    said = f"{space.legal:,} legal layouts searched"
    if space.examined < space.legal:
        said += f"; {1.0 - space.examined / space.legal:.0%} ruled out by what their kernels alone take; of the others"
        said += f" {away:.0%} do not fit"
    else:
        said += f"; {away:.0%} do not fit"
    for name, count in space.rejected.items():
        said += f"; {count:,} that fit break the {name.replace('_', ' ')}"
    return said


def thinned(options: Sequence[Option], most: int) -> list[Option]:
    """As many options, spread evenly over the front, its ends among them."""
    if len(options) <= most:
        return list(options)
    return [options[round(number * (len(options) - 1) / (most - 1))] for number in range(most)]


def html(choice: Choice) -> str:
    """The choice as one element of a notebook: its estimate, then what it was chosen from."""
    from capacity.rendering import notebook

    safe = notebook.safe
    colour = "#d1242f" if choice.best is None else "#2da44e"
    parts = [
        f"<b>Plan: {safe(_asked(choice))}</b>",
        f"<div class='verdict' style='border-color:{colour}'>{safe(choice.verdict)}</div>",
    ]
    if choice.best is not None:
        parts.append(f"<div class='q'>{safe(choice.best.setting)}</div>")
    for title, options in (("Compared", choice.tried), ("Pareto front", thinned(choice.front, 2 * _FRONT_ROWS))):
        if options:
            head, rows = layout_table(options)
            parts.append(f"<div style='margin-top:1em'><b>{title}</b></div>{notebook.grid(head, rows)}")
    for title, rival in (("Plainer", choice.simplest), ("Runner-up", choice.runner_up)):
        if rival is not None:
            gaps = ", ".join(f"{name} {gap:+.3g} s" for name, gap in list(rival.terms.items())[:_TERMS])
            parts.append(
                f"<div><b>{title}</b> {safe(rival.option.setting)}: {rival.worse:.1%} worse ({safe(gaps)})</div>"
            )
    parts += [f"<div>&#8635; {safe(_turned(turn))}</div>" for turn in choice.turns]
    parts.append(f"<div class='q'>{safe(_searched(choice))}</div>")
    parts += [f"<div>{safe(remedy)}</div>" for remedy in choice.remedies]
    if choice.estimate is not None:
        parts.append(f"<details><summary>the estimate</summary>{notebook.html(choice.estimate)}</details>")
    return notebook.element("".join(parts))
