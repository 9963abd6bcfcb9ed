"""`capacity storage`: list, search and show the storage systems of the catalogue."""

from __future__ import annotations

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.rendering import layout, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.rendering.style import Style
    from capacity.spec.platform import Storage

# Column, unit it is shown in; rates and capacity are of one unit of the system.
_COLUMNS = (
    ("storage", ""), ("read", "GB/s"), ("write", "GB/s"), ("client", "GB/s"), ("capacity", "TB"), ("USD", "GB, month"),
    ("a unit", ""),
)  # fmt: skip
_BYTES_PER_GB = 1e9

COMMAND = Command(
    "storage",
    usage="[SEARCH ...] [options]",
    description="List the storage systems of the catalogue, or show one with sources. Every\n"
    "word of SEARCH must be in the id, name or kind. `capacity estimate --storage`\n"
    "puts one under a run or a service.",
    examples=(
        "capacity storage",
        "capacity storage lustre",
        "capacity storage aws-s3",
        "capacity storage parallel --json",
    ),
    words=("SEARCH", "words to look for; an id shows that system in full"),
    groups=(
        ("which", (
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own; may be repeated"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="the systems as JSON, in base units"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Search, and print what was found."""
    from capacity.catalogue.platform import list_storage, load_storage

    folders = tuple(options["catalogue"] or ())
    asked = [word.lower() for word in options["words"]]
    listed = list_storage(folders)
    exact = [one for one in listed if asked == [one.id]]
    found = exact or [one for one in listed if all(word in f"{one.id} {one.name} {one.kind}".lower() for word in asked)]
    if not found:
        found = [load_storage(" ".join(asked), folders)]  # by another name, or the nearest are suggested
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kind": "storage", "storage": [_record(one) for one in found]}))
        return
    chosen = style(plain=options["plain"])
    lines = _detail(found[0], chosen) if len(found) == 1 else _listing(found, chosen)
    write("\n".join(lines) + "\n")


def _listing(found: list[Storage], chosen: Style) -> list[str]:
    rows: list[list[str]] = []
    lines: list[str] = []
    header = [[name for name, _ in _COLUMNS], [unit for _, unit in _COLUMNS]]
    for one in found:
        price = one.usd_per_byte_month
        cells = (
            one.id,
            words.scaled(one.read_bytes_per_s, "GB/s"),
            words.scaled(one.write_bytes_per_s, "GB/s"),
            words.scaled(one.client_bytes_per_s, "GB/s"),
            words.scaled(one.capacity_bytes, "TB"),
            "–" if price is None else f"{price * _BYTES_PER_GB:.4g}",
            one.unit,
        )
        rows.append([chosen.text(cell) for cell in cells])
    lines += layout.table(header, rows, chosen)
    told = f"{len(rows)} systems, rates of one unit; `capacity storage ID` shows one with its sources"
    return [*lines, "", *(chosen.paint(line, "dim") for line in layout.wrap(told, chosen.width - 1))]


def _detail(one: Storage, chosen: Style) -> list[str]:
    """Everything known of one system; each number with its source."""
    price = one.usd_per_byte_month
    rows: list[tuple[str, Any, str, str]] = [
        ("kind", one.kind, "", ""), ("a unit", one.unit, "", ""), ("shared", "by all nodes" if one.shared else "no", "", ""),
        ("read", one.read_bytes_per_s, "byte/s", "of a unit"), ("write", one.write_bytes_per_s, "byte/s", "of a unit"),
        ("most read", one.most_read_bytes_per_s, "byte/s", "of all"), ("most write", one.most_write_bytes_per_s, "byte/s", "of all"),
        ("client", one.client_bytes_per_s, "byte/s", "what one node takes"), ("capacity", one.capacity_bytes, "byte", "of a unit"),
        ("random reads", one.read_operations_per_s, "1/s", "of a unit"), ("latency", one.latency_s, "s", ""),
        ("copies", one.copies, "1", ""), ("data parts", one.data_parts, "1", ""), ("parity parts", one.parity_parts, "1", ""),
        ("price of a GB", None if price is None else price * _BYTES_PER_GB, "USD", "a month"),
    ]  # fmt: skip
    shown, sources = [], dict[str, int]()
    for name, value, unit, of in rows:
        if value is None or (name in ("copies", "data parts", "parity parts") and not getattr(value, "source", "")):
            continue
        source = getattr(price if name == "price of a GB" else value, "source", "")
        note = f"{of} [{sources.setdefault(source, len(sources) + 1)}]".strip() if source else of
        shown.append((name, chosen.text(words.value(value, unit) if unit else value), note))
    lines = [chosen.paint(chosen.text(one.name), "bold") + chosen.text(f"  {one.id}"), *layout.facts(shown, chosen), ""]
    for source, number in sources.items():
        body = layout.wrap(chosen.text(source), chosen.width - 7)
        lines += [
            chosen.paint(f"  {f'[{number}]' if row == 0 else '':<5}{line}", "dim") for row, line in enumerate(body)
        ]
    if one.notes:
        lines += ["", *(f"  {line}" for line in layout.wrap(chosen.text(one.notes), chosen.width - 2))]
    return lines


def _record(one: Storage) -> dict[str, Any]:
    """The system's fields, and the source of each number that has one."""
    from capacity.record import asdict, fields

    record: dict[str, Any] = asdict(one)
    record["sources"] = {name: source for name in fields(one) if (source := getattr(getattr(one, name), "source", ""))}
    return record
