"""A validation told: how far predictions were off, for whom, and whether their intervals held."""

from __future__ import annotations

from capacity.reporting.content import Cell, Column, Fact, Facts, Section, Table, Words
from capacity.reporting.figures import figure
from capacity.reporting.figures.parity import calibration, metrics, parity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.reporting.documents import Document

_WORST = 12
_MOST_ROWS = 60
_MOST_METRICS = 4
_HEADS = (
    ("n", "Rows", 1.0), ("mdape", "Median error", 100.0), ("p90_absolute", "90 % below", 100.0), ("bias", "Bias", 100.0),
    ("within_20", "Within 20 %", 100.0), ("coverage_90", "Interval holds", 100.0),
)  # fmt: skip
_HOW = (
    "Errors are fractions of what was measured. The bias is the median signed error; an interval that is honest holds 90 % of what was measured. "
    "No row here was used to fit what it is compared with, unless the page on accuracy says so."
)


def sections(document: Document, prefix: str) -> tuple[Section, ...]:
    """Scores in all and by group, the figures where the rows are known, the rows furthest off."""
    data = document.data
    overall = data["overall"]
    blocks: list[Any] = [Words(_HOW, "quiet"), Facts(_facts(overall))]
    found = metrics(data.get("rows") or (), str(data.get("kind") or document.name))
    for metric in sorted(found, key=lambda name: (name != overall["metric"], -len(found[name])))[:_MOST_METRICS]:
        blocks += figure(parity(found[metric], metric), prefix)
    blocks += figure(calibration(found), prefix)
    for keys in _views(data):
        blocks.append(_scores(data, keys, prefix))
    blocks.append(_worst(data.get("worst", ()), prefix))
    blocks += [
        Words(f"{count} rows could not be priced: {why}.", "warning") for why, count in data.get("unpriced", {}).items()
    ]
    return (Section(f"{document.name.capitalize()}: predicted against measured", tuple(blocks)),)


def _facts(score: dict[str, Any]) -> tuple[Fact, ...]:
    return (
        Fact("Rows", f"{score['priced']:,}", f"of {score['n']:,}", "priced, of those given"),
        Fact("Median error", _percent(score.get("mdape")), "", "half of the rows are nearer"),
        Fact("90 % below", _percent(score.get("p90_absolute")), "", "error that nine in ten stay under"),
        Fact("Intervals hold", _percent(score.get("coverage_90")), "", "of what was measured; 90 % is honest"),
    )


def _views(data: dict[str, Any]) -> list[tuple[str, ...]]:
    """Which groupings are told: the kind's own, the coarse ones first, or those the groups themselves have."""
    known = [tuple(keys) for keys in data.get("views", {}).values()]
    if not known:
        known = list(dict.fromkeys(tuple(group["by"]) for group in data["groups"]))
    told = [keys for keys in known if keys and any(tuple(group["by"]) == keys for group in data["groups"])]
    several = len({group["metric"] for group in data["groups"]}) > 1
    return [*([()] if several else []), *[keys for keys in told if len(keys) == 1][:4]]


def _scores(data: dict[str, Any], keys: tuple[str, ...], prefix: str) -> Table:
    groups = [group for group in data["groups"] if tuple(group["by"]) == keys][:_MOST_ROWS]
    baselines = data.get("baselines", {})
    several = len({group["metric"] for group in data["groups"]}) > 1
    columns = [
        *(Column(key.capitalize()) for key in keys), *([Column("Metric")] if several else []),
        *(Column(label, numeric=True) for _, label, _ in _HEADS), *(Column(f"Error of: {name}", numeric=True) for name in baselines.values()),
    ]  # fmt: skip
    rows = []
    for group in groups:
        cells = [Cell("–" if value is None or value != value else str(value)) for value in group["by"].values()]
        cells += [Cell(str(group["metric"]))] if several else []
        for key, _, factor in _HEADS:
            value = group.get(key)
            cells.append(
                Cell(f"{value:,}", float(value))
                if key == "n"
                else Cell(_percent(value), None if value is None else value * factor)
            )
        cells += [Cell(_percent(group.get(key)), group.get(key)) for key in baselines]
        rows.append(tuple(cells))
    name = "-".join(keys) or "metric"
    return Table(
        f"{prefix}by-{name}",
        f"Scores by {name.replace('-', ' and ')}",
        tuple(columns),
        tuple(rows),
        folded=len(rows) > 15,
    )


def _worst(rows: Any, prefix: str) -> Table:
    columns = (
        Column("Row"),
        Column("Predicted / measured", numeric=True),
        Column("Inside its interval"),
        Column("What was assumed"),
    )
    told = []
    for row in rows[:_WORST]:
        low, mid, high = row["predicted"]
        inside = low <= row["measured"] <= high
        told.append(
            (
                Cell(str(row["id"])),
                Cell(f"{mid / row['measured']:.2f}", mid / row["measured"]),
                Cell("yes" if inside else "no"),
                Cell(str(row["why"])),
            )
        )
    return Table(f"{prefix}worst", "The rows furthest off", columns, tuple(told))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100.0:.1f} %"
