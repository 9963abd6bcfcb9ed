"""An estimate told: the verdict, the numbers, where the resources go, how sure, what else, how each number came about."""

from __future__ import annotations

from capacity.rendering import selection, words
from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Verdict, Words
from capacity.reporting.documents import estimate_of
from capacity.reporting.figures import breakdowns, figure
from capacity.reporting.figures.footprint import footprint
from capacity.reporting.figures.pareto import pareto
from capacity.reporting.figures.pipeline import pipeline
from capacity.reporting.figures.roofline import roofline
from capacity.reporting.figures.scaling import scaling
from capacity.reporting.figures.shown import Shown, shown
from capacity.reporting.figures.tornado import tornado
from capacity.reporting.sections.explorer import explorer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.content import Derivation
    from capacity.reporting.documents import Document
    from capacity.spec.estimate import Estimate, Quantity
    from capacity.spec.estimate import Section as Part

# The numbers that stand out, for each kind of work; those a section lacks are passed over.
_FIRST = (
    "run_time", "cost", "step_time", "tokens_per_s", "ttft", "tpot", "requests_per_s", "service_devices", "cost_per_day",
    "cost_per_million_tokens", "latency", "images_per_s", "memory_per_device", "mfu", "energy", "energy_per_token", "carbon",
    "carbon_per_million_tokens",
)  # fmt: skip
_MOST_FACTS = 8
# Whose derivation is told.
_DERIVED = (
    "step_time",
    "run_time",
    "tpot",
    "ttft",
    "memory_per_device",
    "energy",
    "energy_per_token",
    "cost",
    "cost_per_million_tokens",
)
_MOST_DERIVED = 4
# Units of options whose names do not carry them.
_UNITS = {"ttft_slo": "s", "tpot_slo": "s", "price": "USD/h", "nvme_bandwidth": "byte/s", "request_rate": "1/s"}


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """A section for each kind of work, then what was asked and assumed."""
    answer = estimate_of(document.data, document.name)
    parts = shown(answer, document.request)
    return (*(_part(one, f"{prefix}{one.mode}-") for one in parts), _asked(answer, prefix))


def title(answer: Estimate) -> tuple[str, str]:
    """What the report is about, and the facts of the model."""
    facts = [
        words.lower(said.format(words.value(answer.model[name])))
        for name, said in selection.FACTS.items()
        if answer.model.get(name)
        and not (name == "active_parameters" and answer.model[name] == answer.model["parameters"])
    ]
    titles = [part.title.lower() for part in answer.sections.values()]
    doing = " and ".join(titles) if len(titles) < 3 else ", ".join(titles)
    return f"{answer.model['name']}: {doing}", " · ".join(facts)


def _part(one: Shown, prefix: str) -> Section:
    part = one.part
    facts = [_fact(name, part.quantities[name]) for name in _FIRST if name in part.quantities]
    blocks = (
        Words(part.setting, "quiet"),
        Verdict(part.verdict[:1].upper() + part.verdict[1:], part.fits),
        Facts(tuple(facts[:_MOST_FACTS])),
        *(Words(warning, "warning") for warning in part.warnings),
    )
    told = (
        ("Where it goes", (
            *figure(breakdowns.memory(part), prefix),
            *figure(breakdowns.time(part), prefix),
            *figure(pipeline(one), prefix),
            *figure(breakdowns.time(part, "prefill time"), prefix),
            *figure(footprint(one), prefix),
        )),
        ("What binds", (Words(f"Bound by {part.binding}."), *figure(roofline(one), prefix))),
        ("How sure this is", figure(tornado(one), prefix)),
        ("What else was considered", (
            *([_alternatives(part, prefix)] if part.alternatives else []),
            *figure(pareto(one), prefix),
            *figure(scaling(one), prefix),
            *explorer(one),
        )),
        ("All numbers", (_quantities(part, prefix),)),
        ("How the numbers came about", _derivations(one)),
    )  # fmt: skip
    return Section(part.title, blocks, tuple(Section(title, inner) for title, inner in told if inner))


def _fact(name: str, quantity: Quantity) -> Fact:
    number, unit = words.middle(quantity)
    label = {**selection.ESTIMATED, **selection.COUNTED}.get(name) or words.label(name)
    return Fact(label, f"{number} {unit}".strip(), words.spread(quantity), quantity.note)


def _quantities(part: Part, prefix: str) -> Table:
    rows = []
    for name, quantity in part.quantities.items():
        number, unit = words.middle(quantity)
        rows.append(
            (
                Cell(words.label(name)),
                Cell(f"{number} {unit}".strip(), quantity.mid, strong=True),
                Cell(
                    words.spread(quantity) or "exact",
                    quantity.high - quantity.low if quantity.high < float("inf") else None,
                ),
                Cell(quantity.note),
            )
        )
    columns = (
        Column("Quantity"),
        Column("Middle", numeric=True),
        Column("90 % interval", numeric=True),
        Column("What it counts"),
    )
    return Table(f"{prefix}quantities", "Every quantity, with its 90 % interval", columns, tuple(rows))


def _alternatives(part: Part, prefix: str) -> Table:
    keys = list(dict.fromkeys(key for row in part.alternatives for key in row))
    columns = tuple(
        Column(words.label(key), numeric=not isinstance(part.alternatives[0].get(key), str)) for key in keys
    )
    rows = tuple(
        tuple(_cell(words.named(key, row.get(key)), row.get(key)) for key in keys) for row in part.alternatives
    )
    return Table(f"{prefix}alternatives", "The same work on other devices", columns, rows)


def _cell(text: str, value: Any) -> Cell:
    number = float(value) if isinstance(value, (int, float)) else None
    return Cell(text, number)


def _asked(answer: Estimate, prefix: str) -> Section:
    request = Table(
        f"{prefix}request",
        "What was asked",
        (Column("Option"), Column("Value")),
        tuple(
            (Cell(words.label(f".{name}")), _cell(words.value(value, _UNITS.get(name, "1")), value))
            for name, value in answer.request.items()
        ),
    )
    model = Table(
        f"{prefix}model",
        "The model",
        (Column("Fact"), Column("Value")),
        tuple(
            (Cell(words.label(name)), _cell(words.value(value), value))
            for name, value in answer.model.items()
            if value not in (None, [], ())
        ),
        folded=True,
    )
    assumed = Table(
        f"{prefix}assumptions",
        "What the answer rests on",
        (Column("Assumption"), Column("Value", numeric=True), Column("From"), Column("Source")),
        tuple(
            (
                Cell(words.label(one.name)),
                _cell(words.value(one.value, one.unit), one.value),
                Cell(one.tag),
                Cell(one.source),
            )
            for one in answer.assumptions
        ),
    )
    return Section(
        "What was asked, and what was assumed",
        (*(Words(one, "warning") for one in answer.warnings), request, model, assumed),
    )


def _derivations(one: Shown) -> tuple[Derivation, ...]:
    """Of the leading numbers; nothing where the question cannot be asked again here."""
    from capacity.reporting.derivations import derive

    seen: set[str] = set()
    names = [name for name in _DERIVED if name in one.part.quantities and f"{one.mode}.{name}" in one.found]
    return tuple(
        derive(words.label(name), f"{one.mode}.{name}", one.found[f"{one.mode}.{name}"], seen=seen)
        for name in names[:_MOST_DERIVED]
    )
