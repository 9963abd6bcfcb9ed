"""A plan told: the layout that was chosen, what it was chosen from, why the next lost, what would turn the choice; then its estimate."""

from __future__ import annotations

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Verdict, Words
from capacity.reporting.documents import asked_again
from capacity.reporting.figures import figure, plans
from capacity.reporting.sections import estimate as estimates
from capacity.reporting.sections.anything import cell, rows_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

_MOST_OPTIONS = 12
_MEMORY = "memory_per_device_bytes"
_FACTS = (
    "run_time_s",
    "cost_usd",
    "step_time_s",
    "tpot_s",
    "ttft_s",
    "tokens_per_s",
    "memory_per_device_bytes",
    "mfu",
    "power_w",
    "energy_j",
)
_COLUMNS = (
    _MEMORY,
    "step_time_s",
    "run_time_s",
    "ttft_s",
    "tpot_s",
    "mfu",
    "cost_usd",
    "cost_per_million_tokens_usd",
    "energy_j",
)
_FRACTIONS = ("mfu", "worse", "share")


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """The choice, then the estimate of what was chosen."""
    data = document.data
    best = data.get("best")
    verdict = str(data.get("verdict", ""))
    blocks: list[Any] = [Verdict(verdict[:1].upper() + verdict[1:], best is not None)]
    if best is not None:
        blocks += [Words(best["setting"], "quiet"), Facts(_facts(best["values"]))]
    blocks += [Words(str(warning), "warning") for warning in data.get("warnings") or ()]
    blocks += [Words(str(remedy)) for remedy in data.get("remedies") or ()]
    told = [Section("The choice", tuple(blocks))]
    if best is not None:
        told.append(Section("What it was chosen from", _chosen_from(data, best, prefix)))
    turns = rows_table("turns", [_turn(one) for one in data.get("turns") or ()], prefix, "What would turn the choice")
    steady = ", ".join(str(one) for one in data.get("steady") or ())
    if turns is not None or steady:
        said = (Words(f"Whatever these do within their ranges, the choice stays: {steady}."),) if steady else ()
        told.append(Section("How firm the choice is", (*([turns] if turns is not None else []), *said)))
    heading = Section(f"Plan: {words.lower(verdict.partition(':')[0])}" if verdict else "Plan", (), tuple(told))
    if not data.get("estimate"):
        return (heading,)
    return (heading, *estimates.sections(asked_again(data["estimate"], document.name), f"{prefix}best-"))


def _turn(told: dict[str, Any]) -> dict[str, Any]:
    """An uncertain input that turns the choice: what is then best, and by how much it beats, or falls short of, the choice."""
    gain = float(told["gain"])
    return {
        "input": told["input"],
        "factor": told["factor"],
        "then_best": told["option"]["setting"],
        "than_the_choice": f"{abs(gain):.1%} {'better' if gain > 0.0 else 'worse'}",
        "source": told["source"],
    }


def _facts(values: dict[str, Any]) -> tuple[Fact, ...]:
    return tuple(
        Fact(words.label(name), _cell(name, values[name]).text) for name in _FACTS if values.get(name) is not None
    )


def _cell(name: str, value: Any) -> Cell:
    if name in _FRACTIONS and isinstance(value, (int, float)):
        return Cell(f"{100.0 * value:.1f} %", float(value))
    return cell(name, value)


def _chosen_from(data: dict[str, Any], best: dict[str, Any], prefix: str) -> tuple[Any, ...]:
    space = {
        name: value
        for name, value in (data.get("space") or {}).items()
        if isinstance(value, (int, float)) and name != "seconds"
    }
    counted = ", ".join(f"{value:,} {name}" for name, value in space.items())
    options = (data.get("front") or [])[:_MOST_OPTIONS]
    keys = [
        name
        for name in _COLUMNS
        if name in best["values"] and any(one["values"].get(name) is not None for one in options)
    ]
    rows = tuple(
        (Cell(str(one["setting"]).rpartition("; ")[2]), *(_cell(key, one["values"].get(key)) for key in keys))
        for one in options
    )
    columns = (Column("Layout"), *(Column(words.label(key), numeric=True) for key in keys))
    runner = data.get("runner_up") or {}
    lost = [
        Words(f"The next best is {str(runner['option']['setting']).rpartition('; ')[2]}, {100.0 * runner['worse']:.1f} % behind."),
        *figure(plans.runner_up(runner.get("terms") or {}), prefix),
    ] if runner.get("option") else []  # fmt: skip
    return (
        *([Words(f"Layouts: {counted}.")] if counted else []),
        *figure(plans.front(data.get("front") or (), best), prefix),
        *([Table(f"{prefix}front", "The front: the best layouts first", columns, rows, folded=True)] if rows else []),
        *lost,
    )
