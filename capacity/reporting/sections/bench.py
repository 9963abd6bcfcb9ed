"""A machine that was measured, told: what it is, what it reaches, every case, how far to trust it; and two against each other."""

from __future__ import annotations

from math import exp, log
from statistics import median

from capacity.rendering import words
from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Verdict, Words
from capacity.reporting.figures import figure, stores
from capacity.reporting.machines import PHASES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

_UNITS = {"caches_bytes": "byte", "measured_clock_hz": "Hz", "memory_bytes": "byte", "gpu_memory_bytes": "byte"}
_FURTHEST = 12


def sections(document: Document, prefix: str, *, every_case: bool = True) -> tuple[Section, ...]:
    """One store."""
    data = document.data
    rates = data["reached"].items()
    facts = tuple(
        Fact(name.partition(",")[0].capitalize(), words.value(rate, name.rpartition(", ")[2]), "", "best measured")
        for name, rate in rates
    )
    blocks = (
        Words(
            f"{len(data['cases'])} cases timed in {data['visits']} visits, {data['threads']} thread{'s' if data['threads'] > 1 else ''}.",
            "quiet",
        ),
        Facts(facts),
        *figure(stores.roofline(data), prefix),
        _machine(data, prefix),
    )
    told = (
        Section("Training steps", _training(data, prefix)),
        Section("Compressed inference", _inference(data, prefix)),
        Section("How far to trust it", _trust(data, prefix)),
        Section("Every case", (_cases(data, prefix),) if every_case else ()),
    )
    return (Section(f"Measured: {name_of(data)}", blocks, tuple(one for one in told if one.blocks)),)


def name_of(data: dict[str, Any]) -> str:
    """What the machine is called."""
    machine = data["machine"]
    return str(machine.get("gpu") if data["device"] == "cuda" else machine.get("cpu") or "a machine")


def _machine(data: dict[str, Any], prefix: str) -> Table:
    return Table(
        f"{prefix}machine",
        "The machine and its settings",
        (Column("Fact"), Column("Value")),
        tuple(
            (Cell(words.label(name)), Cell(_fact(name, value)))
            for name, value in [*data["machine"].items(), *data["settings"].items()]
        ),
    )


def _fact(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(name, one)}" for key, one in value.items())
    return words.value(value, _UNITS.get(name, "1"), binary=_UNITS.get(name) == "byte")


def _seconds(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(words.value(value, "s"), value)


def _bytes(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(words.value(value, "byte"), value)


def _training(data: dict[str, Any], prefix: str) -> tuple[Table, ...]:
    cases = [case for case in data["cases"] if case["kernel"] in ("training", "distillation")]
    rows = tuple(
        (
            Cell(case["case"].partition("/")[2] or case["case"]), _seconds(case["seconds"]),
            *(_seconds(case.get(f"{phase}_s")) for phase in PHASES), _bytes(case.get("memory_bytes")),
        )
        for case in cases
    )  # fmt: skip
    columns = (
        Column("Workload"),
        Column("Step", numeric=True),
        *(Column(one.capitalize(), numeric=True) for one in PHASES),
        Column("Memory beside rest", numeric=True),
    )
    return (Table(f"{prefix}training", "Steps and their phases", columns, rows, folded=len(rows) > 20),) if rows else ()


def _inference(data: dict[str, Any], prefix: str) -> tuple[Any, ...]:
    rows = tuple(
        (
            Cell(str(case.get("form", ""))), Cell(str(case.get("cache", ""))), Cell(str(case.get("phase", ""))),
            Cell(str(case.get("width", "")), float(case["width"]) if case.get("width") else None), _rate(case),
            _bytes(case.get("weight_bytes")), _bytes(case.get("disk_bytes")), Cell(f"{case['relative_error']:.3f}", case["relative_error"]) if case.get("relative_error") is not None else Cell("–"),
        )
        for case in data["cases"]
        if case["kernel"] == "inference"
    )  # fmt: skip
    columns = (
        Column("Form"), Column("Cache"), Column("Phase"), Column("Width", numeric=True), Column("Tokens/s", numeric=True), Column("Weights", numeric=True), Column("On disk", numeric=True),
        Column("Error", numeric=True),
    )  # fmt: skip
    said = Words("Weights are random: errors say how a format rounds, and nothing of trained models.", "quiet")
    return (
        (said, Table(f"{prefix}inference", "A decoder in each form", columns, rows, folded=len(rows) > 20))
        if rows
        else ()
    )


def _rate(case: dict[str, Any]) -> Cell:
    return (
        Cell("–")
        if not case.get("tokens")
        else Cell(words.value(case["tokens"] / case["seconds"]), case["tokens"] / case["seconds"])
    )


def _trust(data: dict[str, Any], prefix: str) -> tuple[Any, ...]:
    blocks: list[Any] = [Words(f"{one['why']}: {one['remedy']}", "warning") for one in data["findings"]]
    if data["anchors"]:
        keys = list(dict.fromkeys(key for row in data["anchors"] for key in row))
        rows = tuple(tuple(_anchor(key, row.get(key)) for key in keys) for row in data["anchors"])
        columns = tuple(Column(key[:1].upper() + key[1:], numeric=key != "rate") for key in keys)
        blocks.append(
            Table(
                f"{prefix}anchors",
                "The same rates by other rulers, in turns and in the same minutes",
                columns,
                rows,
                folded=True,
            )
        )
    if data["failed"]:
        rows = tuple((Cell(one["case"]), Cell(one["status"]), Cell(one["why"])) for one in data["failed"])
        blocks.append(
            Table(
                f"{prefix}failed",
                "What could not be measured",
                (Column("Case"), Column("Status"), Column("Why")),
                rows,
                folded=True,
            )
        )
    return tuple(blocks)


def _anchor(key: str, value: Any) -> Cell:
    if not isinstance(value, (int, float)):
        return Cell("–" if value is None else str(value))
    unit = key.rpartition(" ")[2] if key.endswith("/s") else "1"
    return Cell(words.value(float(value), unit) if unit != "1" else f"{value:.3g}", float(value))


def _cases(data: dict[str, Any], prefix: str) -> Table:
    columns = (
        Column("Case"),
        Column("Median", numeric=True),
        Column("95 % interval", numeric=True),
        Column("Pace", numeric=True),
        Column("Disturbed", numeric=True),
    )
    rows = tuple(
        (
            Cell(case["case"]), _seconds(case["seconds"]), Cell(f"{words.value(case['low_s'], 's')} – {words.value(case['high_s'], 's')}", case["high_s"] - case["low_s"]),
            _pace(case), Cell(f"{case['disturbed']:.0%}", case["disturbed"]),
        )
        for case in data["cases"]
    )  # fmt: skip
    return Table(
        f"{prefix}cases",
        f"{len(rows)} cases: time of one run, and the 95 % interval of its median",
        columns,
        rows,
        folded=True,
    )


def _pace(case: dict[str, Any]) -> Cell:
    if case.get("flop"):
        return Cell(words.value(case["flop"] / case["seconds"], "FLOP/s"), case["flop"] / case["seconds"])
    if case.get("moved_bytes"):
        return Cell(words.value(case["moved_bytes"] / case["seconds"], "byte/s"), case["moved_bytes"] / case["seconds"])
    return Cell("–")


def compared(one: Document, other: Document, prefix: str) -> Section:
    """Two stores against each other: two machines, or two days of one."""
    rows = stores.ratios(one.data, other.data)
    if not rows:
        return Section(
            "One against the other", (Words(f"{one.name} and {other.name} have no case in common.", "warning"),)
        )
    mean = exp(sum(log(row["ratio"]) for row in rows) / len(rows))
    apart = sum(row["apart"] for row in rows)
    blocks = (
        Verdict(
            f"{other.name} takes {mean:.3g} times as long as {one.name} in the geometric mean of {len(rows)} cases; in {apart} of them the intervals of the medians part"
        ),
        *figure(stores.comparison(rows, one.name, other.name), prefix),
        _by_kernel(rows, prefix),
        _furthest(rows, one.name, other.name, prefix),
        *_differences(one, other, prefix),
    )
    return Section(f"{one.name} against {other.name}", blocks)


def _by_kernel(rows: list[dict[str, Any]], prefix: str) -> Table:
    columns = (
        Column("Kernel"),
        Column("Cases", numeric=True),
        Column("Median ratio", numeric=True),
        Column("From", numeric=True),
        Column("To", numeric=True),
        Column("Parted", numeric=True),
    )
    told = []
    for kernel in sorted({row["kernel"] for row in rows}):
        own = [row["ratio"] for row in rows if row["kernel"] == kernel]
        parted = sum(row["apart"] for row in rows if row["kernel"] == kernel)
        told.append((
            Cell(kernel), Cell(str(len(own)), float(len(own))),
            *(Cell(f"{value:.2f}", value) for value in (median(own), min(own), max(own))), Cell(str(parted), float(parted)),
        ))  # fmt: skip
    return Table(f"{prefix}by-kernel", "Ratios by kind of kernel", columns, tuple(told))


def _furthest(rows: list[dict[str, Any]], one: str, other: str, prefix: str) -> Table:
    chosen = sorted((row for row in rows if row["apart"]), key=lambda row: -abs(log(row["ratio"])))[:_FURTHEST]
    columns = (Column("Case"), Column(one, numeric=True), Column(other, numeric=True), Column("Ratio", numeric=True))
    told = tuple(
        (Cell(row["case"]), _seconds(row["one_s"]), _seconds(row["other_s"]), Cell(f"{row['ratio']:.2f}", row["ratio"]))
        for row in chosen
    )
    return Table(f"{prefix}furthest", "Cases that changed most, of those whose intervals part", columns, told)


def _differences(one: Document, other: Document, prefix: str) -> tuple[Table, ...]:
    names = list(dict.fromkeys((*one.data["machine"], *other.data["machine"])))
    rows = tuple(
        (
            Cell(words.label(name)),
            Cell(_fact(name, one.data["machine"].get(name))),
            Cell(_fact(name, other.data["machine"].get(name))),
        )
        for name in names
        if one.data["machine"].get(name) != other.data["machine"].get(name)
    )
    return (
        (
            Table(
                f"{prefix}differences",
                "What is not the same",
                (Column("Fact"), Column(one.name), Column(other.name)),
                rows,
            ),
        )
        if rows
        else ()
    )
