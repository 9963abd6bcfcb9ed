"""Storage systems, host cores, counted failures and kinds of data: one TOML file each, as devices have."""

from __future__ import annotations

from capacity.catalogue.entry import Entry, aliases, find, ids, read_entry
from capacity.errors import UnknownNameError
from capacity.formula import Sourced
from capacity.spec.platform import Component, CoreWork, DataKind, Enclave, Failures, Host, Storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

STORAGE, HOSTS, FAILURES, DATA = "storage", "hosts", "failures", "data"
_CALLED = {STORAGE: "storage", HOSTS: "host", FAILURES: "failures", DATA: "kind of data"}
KINDS = (
    "drive", "node drives", "file server", "object store", "parallel file system", "distributed file system",
    "page cache",
)  # fmt: skip
UNITS = ("device", "node", "job")


def load_storage(name: str, folders: Iterable[str] = ()) -> Storage:
    """Read one storage system; `<folder>/storage/<id>.toml` of a user's folder comes first.

    Raises UnknownNameError with the nearest names, FileFormatError for a faulty file.
    """
    entry, key = _entry(STORAGE, name, folders)
    price = entry.number("price_month", "price of storage", f"price of a byte of {key} for a month")
    redundancy = _redundancy(entry)
    found = Storage(
        id=key,
        name=entry.text("name"),
        kind=entry.choice("kind", KINDS),
        unit=entry.text("unit"),
        read_bytes_per_s=entry.required("read", "bandwidth", f"read of a {key}"),
        write_bytes_per_s=entry.required("write", "bandwidth", f"write of a {key}"),
        capacity_bytes=entry.number("capacity", "amount", f"capacity of a {key}"),
        most_read_bytes_per_s=entry.number("most_read", "bandwidth", f"read of all of {key}"),
        most_write_bytes_per_s=entry.number("most_write", "bandwidth", f"write of all of {key}"),
        client_bytes_per_s=entry.number("client", "bandwidth", f"what one node takes of {key}"),
        read_operations_per_s=entry.number("read_operations", "operations", f"random reads of a {key}"),
        latency_s=entry.number("latency", "time", f"latency of {key}"),
        usd_per_byte_month=price,
        copies=redundancy[0],
        data_parts=redundancy[1],
        parity_parts=redundancy[2],
        shared=entry.choice("shared", ("yes", "no"), "yes") == "yes",
        notes=entry.text("notes", ""),
        origin=entry.origin,
    )
    entry.finish()
    return found


def list_storage(folders: Iterable[str] = ()) -> list[Storage]:
    """List every storage system, by kind and id."""
    folders = tuple(folders)
    return sorted((load_storage(key, folders) for key in ids(STORAGE, folders)), key=lambda one: (one.kind, one.id))


def load_host(name: str, folders: Iterable[str] = ()) -> Host:
    """Read what one core of a host does; as load_storage."""
    entry, key = _entry(HOSTS, name, folders)
    title = entry.text("name")
    works: dict[str, CoreWork] = {}
    table = entry.table("work")
    if table is None:
        raise entry.error("[work] is missing: give the pace of one kind of work at least, as in [work.sha-256]")
    for word, one in table.tables():
        works[word] = CoreWork(
            word,
            one.number("call", "time", f"a call of {word}") or 0.0,
            one.required("pace", "pace", f"pace of {word} on a core"),
            one.number("fresh", "pace", f"pace of fresh memory under {word}"),
        )
        one.finish()
    entry.finish()
    return Host(key, title, works, entry.origin)


def load_failures(name: str, folders: Iterable[str] = ()) -> Failures:
    """Read the interruptions that were counted on one cluster; as load_storage."""
    entry, key = _entry(FAILURES, name, folders)
    units = {
        word: number
        for word in ("device", "node")
        if (number := entry.number(f"{word}s", "count", f"{word}s of {key}")) is not None
    } | {"job": Sourced(1.0, "jobs", "counted on one cluster")}
    table = entry.table("component")
    components = []
    for word, one in table.tables() if table else ():
        per = one.choice("per", UNITS, "device")
        if per not in units:
            raise one.error(f"per is {per!r}, and the file does not say how many: give {per}s = {{ value = ..., ... }}")
        components.append(
            Component(
                one.text("name", word.replace("-", " ")),
                one.required("failures", "occurrences", f"interruptions by {word.replace('-', ' ')}"),
                units[per],
                per,
                one.choice("repair", ("yes", "no"), "yes") == "yes",
            )
        )
        one.finish()
    if not components:
        raise entry.error("[component] is missing: give the interruptions of one component at least")
    found = Failures(
        key, entry.text("name"), entry.required("observed", "time", f"observed of {key}"), tuple(components)
    )
    entry.text("notes", "")
    entry.finish()
    return found


def load_data_kind(name: str, folders: Iterable[str] = ()) -> DataKind:
    """Read what is typical of one kind of training data; as load_storage."""
    entry, key = _entry(DATA, name, folders)
    sample = entry.text("sample")
    found = DataKind(
        id=key,
        name=entry.text("name"),
        sample=sample,
        raw_bytes=entry.required("raw", "amount", f"bytes of a {sample} as collected"),
        fed_bytes=entry.required("fed", "amount", f"bytes of a {sample} as fed"),
        decoded_bytes=entry.required("decoded", "amount", f"bytes of a {sample} decoded"),
        kept_share=entry.required("kept", "share", f"share of {key} that filtering keeps"),
        document_bytes=entry.number("document", "amount", f"bytes of a document of {key}"),
        stages=_words(entry, "stages"),
        feeding=_words(entry, "feeding"),
    )
    entry.text("notes", "")
    entry.finish()
    return found


def _entry(section: str, name: str, folders: Iterable[str]) -> tuple[Entry, str]:
    folders = tuple(folders)
    found = find(section, name, folders)
    if found is None:
        known = [*ids(section, folders), *aliases(section, folders)]
        hint = (
            "`capacity storage` lists them" if section == STORAGE else f"known are {', '.join(ids(section, folders))}"
        )
        raise UnknownNameError(_CALLED[section], name, known, hint)
    entry = read_entry(*found)
    key = entry.text("id")
    if not found[0].endswith((f"/{key}.toml", f"\\{key}.toml")):
        raise entry.error(f"id is {key!r}, which is not the file's name: name the file {key[:60]}.toml")
    return entry, key


def _words(entry: Entry, key: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in entry.text(key, "").split(",") if word.strip())


def _redundancy(entry: Entry) -> tuple[float, float, float]:
    """How raw disks keep bytes: copies, or an erasure code; capacity is of what is usable where a file says nothing."""
    table = entry.table("redundancy")
    if table is None:
        return 1.0, 1.0, 0.0
    copies = table.number("copies", "count", "copies")
    data = table.number("data_parts", "count", "data parts")
    parity = table.number("parity_parts", "occurrences", "parity parts")
    table.finish()
    return copies or 1.0, data or 1.0, parity or 0.0


def load_transit(kind: str) -> tuple[Sourced, Sourced]:
    """Payload of a frame on a protected link, and what protection adds to it, in bytes."""
    table = _protection("transit", kind)
    return table.required("frame", "amount", "payload of a frame"), table.required(
        "overhead", "amount", f"what {kind} adds to a frame"
    )


def load_confidential(generation: str) -> Enclave:
    """What a confidential device of a generation costs: hopper, blackwell, or cpu."""
    table = _protection("confidential", generation)
    return Enclave(
        generation,
        table.required("bounce", "pace", "bounce buffer of a confidential device"),
        table.required("crossing", "time", "a copy into or out of a confidential device"),
        table.required("crossings", "occurrences", "such copies a step"),
        table.required("inside", "share", "pace inside a confidential device"),
        table.required("links", "share", "pace of links between confidential devices"),
    )


def _protection(section: str, kind: str) -> Entry:
    import os

    from capacity.catalogue.entry import CATALOGUE, SHIPPED

    entry = read_entry(os.path.join(SHIPPED, "protection.toml"), CATALOGUE)
    tables = entry.table(section)
    found = tables and tables.table(kind)
    if not found:
        raise entry.error(f"[{section}.{kind}] is missing")
    return found
