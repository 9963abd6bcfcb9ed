"""`capacity storage`: list, search and show the storage systems of the catalogue."""

from __future__ import annotations

from capacity.cli.found import entry, show, table
from capacity.cli.options import Command, Option
from capacity.formula import Sourced
from capacity.rendering import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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
    show("storage", found, options, record=_record, listing=_listing, detail=_detail)


def _listing(found: Sequence[Storage], chosen: Style) -> list[str]:
    rows = [
        (
            one.id,
            words.scaled(one.read_bytes_per_s, "GB/s"),
            words.scaled(one.write_bytes_per_s, "GB/s"),
            words.scaled(one.client_bytes_per_s, "GB/s"),
            words.scaled(one.capacity_bytes, "TB"),
            "–" if one.usd_per_byte_month is None else f"{one.usd_per_byte_month * _BYTES_PER_GB:.4g}",
            one.unit,
        )
        for one in found
    ]
    said = f"{len(rows)} systems, rates of one unit; `capacity storage ID` shows one with its sources"
    return table(_COLUMNS, rows, said, chosen)


def _detail(one: Storage, chosen: Style) -> list[str]:
    """Everything known of one system; each number with its source."""
    price = one.usd_per_byte_month
    kept = [
        (name, value, "1", "")
        for name, value in (("copies", one.copies), ("data parts", one.data_parts), ("parity parts", one.parity_parts))
        if getattr(value, "source", "")
    ]
    rows = [
        ("kind", one.kind, "", ""), ("a unit", one.unit, "", ""), ("shared", "by all nodes" if one.shared else "no", "", ""),
        ("read", one.read_bytes_per_s, "byte/s", "of a unit"), ("write", one.write_bytes_per_s, "byte/s", "of a unit"),
        ("most read", one.most_read_bytes_per_s, "byte/s", "of all"), ("most write", one.most_write_bytes_per_s, "byte/s", "of all"),
        ("client", one.client_bytes_per_s, "byte/s", "what one node takes"), ("capacity", one.capacity_bytes, "byte", "of a unit"),
        ("random reads", one.read_operations_per_s, "1/s", "of a unit"), ("latency", one.latency_s, "s", ""),
        *kept,
        ("price of a GB", None if price is None else Sourced(price * _BYTES_PER_GB, "price of a GB", getattr(price, "source", "")), "USD", "a month"),
    ]  # fmt: skip
    return entry(one.name, one.id, rows, one.notes, chosen)


def _record(one: Storage) -> dict[str, Any]:
    """The system's fields, and the source of each number that has one."""
    from capacity.record import asdict, fields

    record: dict[str, Any] = asdict(one)
    record["sources"] = {name: source for name in fields(one) if (source := getattr(getattr(one, name), "source", ""))}
    return record
