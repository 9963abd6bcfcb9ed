"""Read a catalogue file: every number in it has a value, a unit and a dated source, or the file is refused.

A file is TOML. A number is `{ value = 989, unit = "TFLOP/s", source = "datasheet" }`, and `datasheet`
is a table `[sources.datasheet]` with a title and a date. The same rules hold for the files that
ship with the package and for a user's own, which are searched first.
"""
# os.path, because importing pathlib takes longer than reading a file.

from __future__ import annotations

import os

from capacity.errors import FileFormatError, QuantityError
from capacity.formula import Sourced
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CATALOGUE = "catalogue"
SHIPPED = os.path.dirname(__file__)

_LARGEST_FILE_BYTES = 100_000
_LONGEST_NAME = 80
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.+")

# What is measured: base unit inside, and the range outside which a number is a slip of the pen.
# A unit that is no physical one ("1", "1/s", "year") must be written just so.
_RANGES: dict[str, tuple[str, float, float]] = {
    "peak": ("FLOP/s", 1e8, 1e19),
    "bytes": ("byte", 1e3, 1e16),
    "bandwidth": ("byte/s", 1e6, 1e18),
    "latency": ("s", 1e-9, 1.0),
    "clock": ("Hz", 1e6, 1e11),
    "power": ("W", 0.0, 1e6),
    "price": ("USD/h", 1e-4, 1e5),
    "carbon": ("g", 1.0, 1e9),
    "grid": ("g/kWh", 0.0, 3000.0),
    "energy price": ("USD/kWh", 1e-3, 10.0),
    "count": ("1", 1.0, 1e6),
    "share": ("1", 0.0, 1.0),
    "amount": ("byte", 1e-3, 1e21),
    "pace": ("byte/s", 1e2, 1e16),
    "operations": ("1/s", 1.0, 1e12),
    "time": ("s", 1e-9, 1e10),
    "price of storage": ("USD/byte", 1e-15, 1e-6),
    "occurrences": ("1", 0.0, 1e9),
    "ratio": ("1", 1.0, 10.0),
    "year": ("year", 1990.0, 2100.0),
}


class Entry:
    """One table of a catalogue file; reading a key marks it as known, and `finish` refuses the others."""

    __slots__ = ("_cited", "_known", "data", "origin", "path", "place", "sources")

    def __init__(self, data: dict[str, Any], path: str, origin: str, place: str = "", sources: Any = None) -> None:
        self.data = data
        self.path = path
        self.origin = origin
        self.place = place
        self.sources = sources
        self._known: set[str] = set()
        self._cited: dict[str, str] = {}

    @property
    def tag(self) -> str:
        """How an assumption made from this file is tagged."""
        return "catalogue" if self.origin == CATALOGUE else "user"

    def error(self, message: str) -> FileFormatError:
        """Make an error that says in which file and table it was found."""
        return FileFormatError(f"{self.path}: {f'[{self.place}] ' if self.place else ''}{message}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text, or `default`; without a default it must be there."""
        self._known.add(key)
        value = self.data.get(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.error(f'{key} is {_shown(self.data.get(key))}: give a text, as in {key} = "..."')
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str | None = None) -> str:
        """Return a text that is one of `known`."""
        value = self.text(key, default)
        if value not in known:
            raise self.error(f"{key} is {_shown(value)}: give one of {', '.join(known)}")
        return value

    def number(self, key: str, quantity: str, label: str = "") -> Sourced | None:
        """Return a number in its base unit, knowing its source; None where the file has none."""
        self._known.add(key)
        datum = self.data.get(key)
        if datum is None:
            return None
        if not isinstance(datum, dict):
            raise self.error(
                f'{key} is {_shown(datum)}: give {{ value = ..., unit = "...", source = "..." }}, for no number '
                f"is taken without its source"
            )
        for word in datum:
            if word not in ("value", "unit", "source"):
                raise self.error(f"{key} has an unknown word {_shown(word)}: it takes value, unit and source")
        unit, low, high = _RANGES[quantity]
        value = self._converted(key, datum.get("value"), datum.get("unit"), unit)
        if not low <= value <= high:
            raise self.error(
                f"{key} is {_shown(datum['value'])} {datum['unit']}, which no {quantity} can be: "
                f"give one from {low:g} to {high:g} {unit}"
            )
        return Sourced(value, label or key, self._source(key, datum.get("source")), self.tag)

    def required(self, key: str, quantity: str, label: str = "") -> Sourced:
        """Return a number that must be there."""
        value = self.number(key, quantity, label)
        if value is None:
            raise self.error(f'{key} is missing: give {key} = {{ value = ..., unit = "...", source = "..." }}')
        return value

    def table(self, key: str) -> Entry | None:
        """Return a table within this one, with the same sources; None where there is none."""
        self._known.add(key)
        data = self.data.get(key)
        if data is None:
            return None
        if not isinstance(data, dict):
            raise self.error(f"{key} is {_shown(data)}: give a table, [{key}]")
        return Entry(data, self.path, self.origin, f"{self.place}.{key}" if self.place else key, self.sources)

    def tables(self) -> Iterator[tuple[str, Entry]]:
        """Return every table not read so far, by key."""
        for key in self.data:
            if key not in self._known:
                table = self.table(key)
                if table is not None:
                    yield key, table

    def finish(self) -> None:
        """Refuse keys that nothing has read: a slip in a key would lose its number silently."""
        for key in self.data:
            if key not in self._known:
                from difflib import get_close_matches

                near = get_close_matches(key, sorted(self._known), n=1)
                raise self.error(
                    f"unknown key {_shown(key)}: "
                    + (f"did you mean {near[0]}?" if near else f"it takes {', '.join(sorted(self._known))}")
                )

    def _converted(self, key: str, value: object, unit: object, base: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{key} has the value {_shown(value)}: give a number")
        if not isinstance(unit, str) or not unit:
            raise self.error(f'{key} has the unit {_shown(unit)}: give one, as in unit = "{base}"')
        if base in ("1", "1/s", "year"):
            if unit != base:
                raise self.error(f'{key} has the unit {_shown(unit)}: give unit = "{base}"')
            try:
                return float(value)
            except OverflowError:
                raise self.error(f"{key} is too large for any {key}") from None
        from capacity.quantities import parse

        try:
            return parse(f"{value!r} {unit}", base)
        except ValueError as error:  # QuantityError is one; so is an integer of too many digits
            why = error if isinstance(error, QuantityError) else "a number of too many digits"
            raise self.error(f"{key}: {why}") from None

    def _source(self, key: str, name: object) -> str:
        """Return title and date of a source, once it has been found to have both."""
        if isinstance(name, str) and name in self._cited:
            return self._cited[name]
        if not isinstance(name, str) or not name:
            raise self.error(f'{key} has no source: add source = "..." and a table [sources....] with title and date')
        if not isinstance(self.sources, dict) or not isinstance(self.sources.get(name), dict):
            raise self.error(f"{key} has the source {_shown(name)}, which no table [sources.{name[:40]}] describes")
        source = self.sources[name]
        title, date, checked = source.get("title"), source.get("date"), source.get("checked", False)
        place = f"sources.{name}"
        if not isinstance(title, str) or not title.strip():
            raise self.error(f"{place} has the title {_shown(title)}: name the document it was read in")
        if not isinstance(date, str) or not _is_date(date):
            raise self.error(f'{place} has the date {_shown(date)}: give a year, month or day, as in "2024-05"')
        if not isinstance(checked, bool) or not isinstance(source.get("url", ""), str):
            raise self.error(f"{place}: checked is true or false, url a text")
        for word in source:
            if word not in ("title", "date", "checked", "url"):
                raise self.error(f"{place} has an unknown word {_shown(word)}: it takes title, date, url and checked")
        cited = f"{title} ({date})" if checked else f"{title} ({date}, not re-read)"
        self._cited[name] = cited
        return cited


def read_entry(path: str, origin: str) -> Entry:
    """Read one file; raises FileFormatError for what is missing, too large or no TOML."""
    entry = Entry(_parse(path, keep=origin == CATALOGUE), path, origin)
    sources = entry.table("sources")
    entry.sources = sources.data if sources else {}
    return entry


def _parse(path: str, *, keep: bool) -> dict[str, Any]:
    try:
        if os.path.getsize(path) > _LARGEST_FILE_BYTES:
            raise FileFormatError(f"{path}: larger than any catalogue file ({_LARGEST_FILE_BYTES} bytes)")
        return read_toml(path, keep=keep)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested without end
        raise FileFormatError(f"{path}: not a TOML file: {str(error)[:120]}") from None


def roots(folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Return the folders to search, first come first served, each with the origin its entries carry."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileFormatError(f"{folder}: no such catalogue folder; give one that holds devices/ or clusters/")
        yield os.fspath(folder), os.fspath(folder)
    yield SHIPPED, CATALOGUE


def normalised(name: str) -> str:
    """Return a name as ids are written; "" for what cannot be one, so that no path is ever left."""
    key = "-".join(name.lower().replace("_", " ").replace("-", " ").replace("/", " ").split())
    return key if len(key) <= _LONGEST_NAME and _ALPHABET.issuperset(key) and key[:1].isalnum() else ""


def find(section: str, name: str, folders: tuple[str, ...]) -> tuple[str, str] | None:
    """Return path and origin of an entry: by id in any folder, else by an alias, else None."""
    key = normalised(name)
    if not key:
        return None
    places = tuple(roots(folders))
    found = _find_id(section, key, places)
    if found:
        return found
    for root, origin in places:
        path = os.path.join(root, section, "aliases.toml")
        if os.path.isfile(path):
            for candidate in _meant(key, _aliases(path, origin)):
                found = _find_id(section, candidate, places)
                if found:
                    return found
    return None


def ids(section: str, folders: tuple[str, ...]) -> list[str]:
    """Return every id of a section, sorted."""
    return sorted({key for root, _ in roots(folders) for key, _ in _files(os.path.join(root, section))})


def aliases(section: str, folders: tuple[str, ...]) -> dict[str, str]:
    """Return every alias of a section and the id it stands for."""
    known: dict[str, str] = {}
    for root, origin in roots(folders):
        path = os.path.join(root, section, "aliases.toml")
        if os.path.isfile(path):
            known = {**_aliases(path, origin)[0], **known}
    return known


def _find_id(section: str, key: str, places: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    for root, origin in places:
        base = os.path.join(root, section)
        direct = os.path.join(base, f"{key}.toml")
        if key != "aliases" and os.path.isfile(direct):
            return direct, origin
        try:
            names = os.listdir(base)
        except OSError:
            continue
        for folder in names:
            if "." not in folder:
                path = os.path.join(base, folder, f"{key}.toml")
                if os.path.isfile(path):
                    return path, origin
    return None


def _files(base: str) -> Iterator[tuple[str, str]]:
    """Return ids and paths of the entries in a folder and the folders just below it."""
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return
    for name in names:
        path = os.path.join(base, name)
        if name.endswith(".toml"):
            if name != "aliases.toml":
                yield name[:-5], path
        elif "." not in name and os.path.isdir(path):
            yield from (
                (file[:-5], os.path.join(path, file)) for file in sorted(os.listdir(path)) if file.endswith(".toml")
            )


def _aliases(path: str, origin: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the aliases of a file, and the words it says may stand before any name."""
    entry = read_entry(path, origin)
    table = entry.table("aliases")
    known = {normalised(alias): table.text(alias) for alias in table.data} if table else {}
    before = entry.data.get("before", [])
    if not isinstance(before, list) or not all(isinstance(word, str) for word in before):
        raise entry.error(f'before is {_shown(before)}: give a list of texts, as in before = ["nvidia"]')
    return known, tuple(before)


def _meant(key: str, names: tuple[dict[str, str], tuple[str, ...]]) -> Iterator[str]:
    """Return ids a name may stand for, with words such as the vendor's taken off its front."""
    known, before = names
    while True:
        yield known.get(key, key)
        word, _, rest = key.partition("-")
        if word not in before or not rest:
            return
        key = rest


def _is_date(text: str) -> bool:
    parts = text.split("-")
    limits = ((1990, 2100), (1, 12), (1, 31))
    return (
        1 <= len(parts) <= 3
        and len(parts[0]) == 4
        and all(len(part) == 2 for part in parts[1:])
        and all(part.isascii() and part.isdigit() for part in parts)
        and all(low <= int(part) <= high for part, (low, high) in zip(parts, limits, strict=False))
    )


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of too many digits
        return "a number of too many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
