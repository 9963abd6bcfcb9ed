"""An answer asked backwards, on one screen: the value, what binds beyond it, the run or the service at the value."""

from __future__ import annotations

from capacity.rendering import words
from capacity.rendering.choice import bullet, command, heading, marked, wanted
from capacity.rendering.layout import flowed, wrap
from capacity.rendering.text import MARGIN, section_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.rendering.style import Style
    from capacity.spec.solution import Solution

# What is solved for, in words.
_WORDS = {
    "params": "the largest model",
    "tokens": "training tokens",
    "devices": "the fewest devices",
    "seq-len": "the longest context",
    "concurrency": "the most requests in flight",
    "budget": "the least money",
    "days": "the least time",
    "global-batch": "the smallest global batch",
}
# Facts of a scaling law, in the order they are shown.
_FACTS = ("params", "tokens", "tokens_per_param", "loss", "training_flop", "served_tokens", "lifetime_flop")


def screen(solution: Solution, style: Style, *, everything: bool = False) -> str:
    """The whole answer; `everything` adds each value that was tried."""
    asked = ", ".join([asked_for(solution), *wanted(solution.limits)])
    lines = heading("SOLVE", asked, style)
    lines += marked(
        "✘" if solution.value is None else "✔", "red" if solution.value is None else "green", _said(solution), style
    )
    if solution.law is not None:
        known = [(name, solution.facts[name]) for name in _FACTS if name in solution.facts]
        items = [
            ("", style.text(f"{words.lower(words.label(name))} {words.named(name, value)}")) for name, value in known
        ]
        lines += flowed(items, style, MARGIN)
        for text in (
            f"{solution.law['name']}: {solution.law['title']}; {solution.law['valid']}",
            solution.law["source"],
        ):
            lines += [style.paint(MARGIN + line, "dim") for line in wrap(style.text(text), style.width - 2)]
    if solution.estimate is not None:
        for section in solution.estimate.sections.values():
            lines += ["", *section_lines(section, style, everything=everything)]
        if solution.option is not None:
            bare = {name: value for name, value in solution.request.items() if name not in _OWN}
            lines += ["", *command(bare, solution.option.options | _at(solution), style)]
    if solution.trials:
        tried = f"{len(solution.trials)} value{'' if len(solution.trials) == 1 else 's'} tried"
        if solution.request.get("mode") != "serve":
            tried += ", each with the best of all its legal layouts"
        lines += ["", *heading("SEARCH", tried, style)]
        if everything:
            for trial in solution.trials:
                mark = style.drawn("✔" if trial.holds else "✘")
                lines += bullet(f"{mark} {trial.value:.6g}: {trial.why}", style)
    for warning in solution.warnings:
        first, *rest = wrap(style.text(warning), style.width - 2)
        lines += [f"{style.paint('!', 'bold', 'yellow')} {first}", *(f"  {line}" for line in rest)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


# What is asked of a search and not of an estimate.
_OWN = (
    "objective",
    "max_memory",
    "deadline",
    "budget",
    "power_cap",
    "flop_budget",
    "target_loss",
    "served_tokens",
    "law",
)
# What the value is, in the words of an estimate.
_FIELDS = {"params": "params", "tokens": "tokens", "seq-len": "seq_len", "global-batch": "batch"}


def _at(solution: Solution) -> dict[str, Any]:
    found = {_FIELDS[solution.solve]: solution.value} if solution.solve in _FIELDS else {}
    if "tokens" in solution.facts and solution.law is not None:
        found["tokens"] = solution.facts["tokens"]
    return found


def asked_for(solution: Solution) -> str:
    """What is looked for, in words."""
    if solution.solve == "params" and solution.law is not None:
        return "the best model for its work" if "flop_budget" in solution.request else "the least work for a loss"
    return _WORDS[solution.solve]


def _said(solution: Solution) -> str:
    if solution.value is None:
        return solution.verdict
    value = words.value(solution.value, solution.unit)
    if solution.law is not None or solution.solve in ("seq-len", "concurrency"):
        return solution.verdict
    said = solution.verdict if solution.verdict.startswith(value) else f"{value}: {solution.verdict}"
    if solution.beyond is not None and solution.solve in ("params", "devices", "global-batch"):
        said += f"; {words.value(solution.beyond.value)}: {solution.beyond.why}"
    return said


def html(solution: Solution) -> str:
    """The answer as one element of a notebook."""
    from capacity.rendering import notebook

    safe = notebook.safe
    colour = "#d1242f" if solution.value is None else "#2da44e"
    parts = [
        f"<b>{safe(asked_for(solution)[:1].upper() + asked_for(solution)[1:])}</b>",
        f"<div class='verdict' style='border-color:{colour}'>{safe(_said(solution))}</div>",
    ]
    if solution.law is not None:
        rows = [
            [words.label(name), words.named(name, solution.facts[name])] for name in _FACTS if name in solution.facts
        ]
        parts += [notebook.grid(["", ""], rows), f"<div class='q'>{safe(solution.law['source'])}</div>"]
    if solution.option is not None:
        parts.append(f"<div class='q'>{safe(solution.option.setting)}</div>")
    if solution.estimate is not None:
        parts.append(f"<details><summary>the estimate</summary>{notebook.html(solution.estimate)}</details>")
    return notebook.element("".join(parts))
