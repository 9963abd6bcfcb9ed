"""`capacity validate`: predictions held against measurements."""

from __future__ import annotations

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.errors import InputError, UnknownNameError
from capacity.rendering import layout
from capacity.validation import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.rendering.style import Style

WORST_SHOWN = 8
# Columns that all scores take together, each baseline, and the least a name keeps.
SCORES_WIDTH, BASELINE_WIDTH, LEAST_NAME = 46, 11, 24
# What simpler models are called, where a kind does not say: scores by key, columns by name.

COMMAND = Command(
    "validate",
    usage="KIND [--data PATH] [options]",
    description="Score predictions against a table of measurements: errors, bias, and whether\n"
    "the 90 % intervals hold 90 % of what was measured. Needs the `sweep` extra.",
    examples=(
        "capacity validate kernels --data measured/kernels",
        "capacity validate training --by stack",
        "capacity validate memory --data my_runs.csv --json",
        "capacity validate kernels --data measured/kernels --predictions rows.csv",
    ),
    words=("KIND", f"what is validated: {', '.join(KINDS)}"),
    groups=(
        ("the measurements", (
            Option("--data", metavar="PATH", help="a table (.csv or .parquet), for kernels a folder of tables; docs/accuracy.md names their columns"),
            Option("--profiles", metavar="DIR", help="profiles of kernels that `capacity calibrate kernels` wrote"),
        )),
        ("the answer", (
            Option("--predictions", metavar="FILE", help="write a row for each measurement: .csv or .parquet"),
            Option("--by", metavar="WHAT", help="rows of the table: device, dtype, op, ..., as the kind has them"),
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="all scores as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Score, and print or write the scores."""
    words = options["words"]
    if len(words) != 1:
        raise InputError(f"{len(words)} kinds given: name one of {', '.join(KINDS)}, as in `capacity validate kernels`")
    from capacity.validation import validate

    scores = validate(_named("kind", words[0], tuple(KINDS)), options["data"], options["profiles"])
    rows, views = scores.pop("rows"), scores.pop("views")
    view = _named("--by", options["by"] or next(iter(views)), tuple(views))
    if options["predictions"]:
        _write_rows(rows, options["predictions"])
    if options["json"]:
        from capacity.rendering.record import json

        write(json(scores))
        return
    write("\n".join(_screen(scores, views[view], style(plain=options["plain"]))) + "\n")


def _named(what: str, text: str, names: tuple[str, ...]) -> str:
    """One of a few names, or the nearest suggested."""
    if text.lower() not in names:
        raise UnknownNameError(what, text, names, f"known are {', '.join(names)}")
    return text.lower()


def _write_rows(rows: Any, path: str) -> None:
    """All predictions in one file, whole or not at all."""
    import os

    partial = f"{path}.{os.getpid()}"
    try:
        if path.endswith(".parquet"):
            rows.to_parquet(partial, index=False)
        elif path.endswith(".csv"):
            rows.to_csv(partial, index=False)
        else:
            raise InputError(f"--predictions is {path[:80]!r}: give a file that ends in .csv or .parquet")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"--predictions: {path[:80]} cannot be written ({error.strerror or error})") from None


def _screen(scores: dict[str, Any], keys: tuple[str, ...], chosen: Style) -> list[str]:
    baselines = scores["baselines"]
    header = [
        ["", "n", "median", "90 %", "bias", "within", "interval", *baselines.values()],
        ["", "", "error", "below", "", "20 %", "holds", *("median" for _ in baselines)],
    ]
    rows = [_row("all", scores["overall"], tuple(baselines))]
    # The scores are what is looked for: long names give way to them.
    longest = max(chosen.width - SCORES_WIDTH - BASELINE_WIDTH * len(baselines), LEAST_NAME)
    several = len({group["metric"] for group in scores["groups"]}) > 1
    rows += [
        _row(layout.clip(_name(group, several=several), longest, chosen), group, tuple(baselines))
        for group in scores["groups"]
        if set(group["by"]) == set(keys)
    ]
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    lines += ["", chosen.paint("furthest off", "dim")]
    for row in scores["worst"][:WORST_SHOWN]:
        ratio = row["predicted"][1] / row["measured"]
        name = layout.clip(row["id"], max(chosen.width - 32, 18), chosen)
        told = f"  {name:<18} predicted {ratio:.2f} of measured  {row['why']}"
        lines.append(chosen.text(told[: chosen.width]))
        if row.get("about"):
            said = [one if isinstance(one, str) else f"{name} {one:g}" for name, one in row["about"].items()]
            lines += [
                chosen.paint(f"    {one}", "dim") for one in layout.wrap(chosen.text(", ".join(said)), chosen.width - 4)
            ]
    lines += [chosen.text(line) for line in _layouts(scores.get("sweeps", {"n": 0}))]
    for why, count in scores["unpriced"].items():
        lines.append(chosen.text(f"  {count} row{'' if count == 1 else 's'} not priced: {why}"[: chosen.width]))
    return lines


def _layouts(found: dict[str, Any]) -> list[str]:
    """How well layouts of one question are ranked, where a table has such runs."""
    if not found["n"]:
        return []
    return [
        "",
        f"  layouts in {found['n']} sweeps: rank correlation {found['spearman']:.2f}; the one ranked first is",
        f"  {found['regret'] * 100.0:.1f} % slower than the fastest, {found['regret_worst'] * 100.0:.0f} % at worst",
    ]


def _name(group: dict[str, Any], *, several: bool) -> str:
    """What a row of the table is about; of which metric, where there are several."""
    words = [
        {"True": key, "False": f"not {key}"}.get(str(value), str(value))
        for key, value in group["by"].items()
        if value == value and value is not None
    ]
    return " ".join([*words, group["metric"]] if several else words)


def _row(name: str, score: dict[str, Any], baselines: tuple[str, ...]) -> list[str]:
    def percent(key: str) -> str:
        value = score.get(key)
        return "-" if value is None else f"{value * 100.0:.1f}"

    return [
        name, str(score["n"]), percent("mdape"), percent("p90_absolute"), percent("bias"), percent("within_20"),
        percent("coverage_90"), *(percent(one) for one in baselines),
    ]  # fmt: skip
