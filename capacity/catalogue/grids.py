"""Carbon intensity of electricity, its price, and PUE: a small file of defaults, and a table each for countries and clouds."""

from __future__ import annotations

import os

from capacity.catalogue.entry import Entry, normalised, read_entry, roots
from capacity.errors import InputError, UnknownNameError
from capacity.formula import Sourced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WORLD = "world"
_FLEET = "fleet"


def load_defaults(folders: Iterable[str] = ()) -> Entry:
    """Open the file of defaults; a user's folder may hold a defaults.toml of its own, which then replaces it whole."""
    for root, origin in roots(tuple(folders)):
        path = os.path.join(root, "defaults.toml")
        if os.path.isfile(path):
            return read_entry(path, origin)
    raise InputError("the catalogue has no defaults.toml: install the package again")


def load_grid(name: str = "", folders: Iterable[str] = ()) -> Sourced:
    """Return carbon intensity in g CO2 equivalent per kWh.

    name: a country by name, ISO code or alias ("France", "FRA", "FR"), a cloud region ("aws:us-east-1"), or
    "" or "world" for the world's average. Raises UnknownNameError with the nearest names.
    """
    folders = tuple(folders)
    if name.strip().lower() in ("", WORLD):
        return world_grid(load_defaults(folders))
    place = _region(name, folders) if ":" in name else _country(name, folders)
    value = place.number("carbon", "grid", f"carbon intensity, {place.text('name')}")
    if value is None:
        raise InputError(f"no carbon intensity is known for {name[:60]!r}: give its country, or g/kWh as a number")
    return value


def load_pue(name: str = "", segment: str = "data-centre", folders: Iterable[str] = ()) -> Sourced:
    """Return a PUE: of a cloud region ("gcp:us-central1"), of a provider's fleet ("gcp"), or the default of a segment."""
    folders = tuple(folders)
    if not name:
        return assumed(segment_table(load_defaults(folders), segment).required("pue", "ratio", "PUE"))
    provider, _, region = name.partition(":")
    if region:
        value = _region(name, folders).number("pue", "ratio", f"PUE, {name}")
        if value is not None:
            return value
    return _region(f"{provider}:{_FLEET}", folders).required("pue", "ratio", f"PUE, {provider} fleet")


def load_electricity_price(name: str = "", folders: Iterable[str] = ()) -> Sourced:
    """Return what electricity costs in USD per kWh, by country or region as in electricity.toml; a planning value."""
    folders = tuple(folders)
    if not name:
        table = load_defaults(folders).table("electricity")
        if table is not None:
            return assumed(table.required("price", "energy price", "price of electricity"))
    place = _search("electricity", "place", name, folders)
    return place.required("price", "energy price", f"price of electricity, {place.text('name')}")


def world_grid(defaults: Entry) -> Sourced:
    """Return the carbon intensity taken where nobody says whose electricity it is."""
    table = defaults.table("grid")
    if table is None:
        raise defaults.error("[grid] is missing: give its carbon intensity")
    return assumed(table.required("carbon", "grid", "carbon intensity, world average"))


def segment_table(defaults: Entry, segment: str) -> Entry:
    """Return what is assumed about nodes of one segment of devices."""
    segments = defaults.table("segment")
    table = segments.table(segment) if segments else None
    if table is None:
        raise defaults.error(f"[segment.{segment}] is missing: say what is assumed of its nodes")
    return table


def assumed(value: Sourced) -> Sourced:
    """Tag a value of the shipped defaults as a default; a user's own stays the user's."""
    return value if value.tag == "user" else Sourced(value, value.label, value.source, "default")


def list_grids(folders: Iterable[str] = ()) -> list[str]:
    """List every name `load_grid` takes: ISO codes of countries, and provider:region."""
    folders = tuple(folders)
    names = [WORLD]
    for root, _ in roots(folders):
        try:
            files = sorted(os.listdir(os.path.join(root, "grids")))
        except OSError:
            continue
        for file in files:
            if file.endswith(".toml") and file not in ("countries.toml", "electricity.toml"):
                names += [
                    f"{file[:-5]}:{key}"
                    for key, entry in _places(os.path.join(root, "grids", file), "region")
                    if "carbon" in entry.data
                ]
            elif file == "countries.toml":
                names += [key for key, _ in _places(os.path.join(root, "grids", file), "country")]
    return sorted(set(names))


def _country(name: str, folders: tuple[str, ...]) -> Entry:
    return _search("countries", "country", name, folders)


def _region(name: str, folders: tuple[str, ...]) -> Entry:
    provider, _, region = name.partition(":")
    if normalised(provider):
        for root, origin in roots(folders):
            path = os.path.join(root, "grids", f"{normalised(provider)}.toml")
            if os.path.isfile(path):
                return _pick(path, origin, "region", region, name)
    raise UnknownNameError("cloud provider", provider, _providers(folders), "`aws`, `gcp` and `azure` are known")


def _providers(folders: tuple[str, ...]) -> list[str]:
    files = [
        file
        for root, _ in roots(folders)
        if os.path.isdir(os.path.join(root, "grids"))
        for file in os.listdir(os.path.join(root, "grids"))
    ]
    return sorted({file[:-5] for file in files if file.endswith(".toml")} - {"countries", "electricity"})


def _search(file: str, kind: str, name: str, folders: tuple[str, ...]) -> Entry:
    error: UnknownNameError | None = None
    for root, origin in roots(folders):
        path = os.path.join(root, "grids", f"{file}.toml")
        if os.path.isfile(path):
            try:
                return _pick(path, origin, kind, name, name)
            except UnknownNameError as unknown:
                error = unknown
    raise error or InputError(f"the catalogue has no grids/{file}.toml: install the package again")


def _pick(path: str, origin: str, kind: str, name: str, asked: str) -> Entry:
    """Return the table whose key, name, code or alias is `name`."""
    wanted = name.strip().casefold()
    known: list[str] = []
    prefix = f"{asked.partition(':')[0].lower()}:" if kind == "region" else ""
    for key, entry in _places(path, kind, origin):
        names = [key, entry.text("name"), *entry.text("also", "").split(",")]
        if wanted in (text.strip().casefold() for text in names if text):
            return entry
        known += [f"{prefix}{text.lower()}" for text in names[: 1 if prefix else 2]]
    raise UnknownNameError(
        "grid", asked, known, "give a country, an ISO code, aws:, gcp: or azure: and a region, or world"
    )


def _places(path: str, kind: str, origin: str = "catalogue") -> Iterator[tuple[str, Entry]]:
    table = read_entry(path, origin).table(kind)
    if table is not None:
        yield from table.tables()
