"""Presets of published models: one TOML file each, named by its id, and what the importer makes of it.

A preset keeps the facts of the model's published configuration, not a record of ours, so a model
named here and its config.json read from disk are lowered by the same adapter. A file is only
opened when it is asked for; docs/models.md shows how to write one.
"""
# os.path, because importing pathlib takes longer than reading a preset.

from __future__ import annotations

import os.path

from capacity.catalogue.entry import CATALOGUE, SHIPPED, ids, read_entry, roots
from capacity.errors import InputError, UnknownNameError
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from capacity.spec.model import ModelSpec

_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.+")
_LONGEST_ID = 100


class ModelPreset(Record):
    """A published model before it is lowered.

    id: the file's name. released: year and month ("2024-07").
    published_params, published_active_params: what the publisher states, None where nothing is stated;
    the record that is lowered counts its own and never reads these.
    source_title, source_url, source_date: where the configuration was read.
    config: the architecture keys of the model's Hugging Face config.
    origin: "catalogue", or the user's folder the file was found in.
    """

    id: str
    name: str
    family: str
    organisation: str
    released: str
    published_params: float | None
    published_active_params: float | None
    source_title: str
    source_url: str
    source_date: str
    config: dict[str, Any]
    notes: str = ""
    origin: str = CATALOGUE

    @property
    def source(self) -> str:
        """One line for a ledger: origin, title, address, date."""
        return f"{self.origin}: {self.source_title}, {self.source_url} ({self.source_date})"


def load_model(name: str, folders: Iterable[str] = ()) -> ModelSpec:
    """Lower a preset, found by id, alias or hub name ("meta-llama/Llama-3.1-8B"), to a model.

    Raises UnknownNameError with the nearest names, FileFormatError or InputError for a faulty preset,
    UnsupportedArchitectureError where no adapter serves its model type.
    """
    from capacity.importers.huggingface import from_config

    preset = load_preset(name, folders)
    model = from_config(preset.config, source=preset.source, name=preset.id)
    return replace(model, notes=(*model.notes, preset.notes)) if preset.notes else model


def load_preset(name: str, folders: Iterable[str] = ()) -> ModelPreset:
    """Read one preset without lowering it; `<folder>/models/<id>.toml` of a user's folder comes first."""
    folders = tuple(folders)
    for key in _meant(_normalised(name)):
        preset = _find(key, folders)
        if preset is not None:
            return preset
    raise UnknownNameError("model", name, ids("models", folders), "`capacity models` lists them")


def list_models(search: str = "", family: str = "", folders: Iterable[str] = ()) -> tuple[ModelPreset, ...]:
    """List the presets whose id, name, family or organisation holds every word of `search`; none is lowered.

    family: a family or how it begins ("qwen" for "qwen2.5").
    """
    folders = tuple(folders)
    words = search.lower().split()
    found = []
    for key in ids("models", folders):
        preset = _find(key, folders)
        if preset is None or not preset.family.startswith(family.lower()):
            continue
        text = f"{preset.id} {preset.name} {preset.family} {preset.organisation}".lower()
        if all(word in text for word in words):
            found.append(preset)
    return tuple(found)


def _normalised(name: str) -> str:
    """Lower case, without a hub's organisation; "" for what cannot be an id, so no path is ever left."""
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    parts = key.split("/")
    if len(key) > _LONGEST_ID or len(parts) > 2:
        return ""
    return parts[-1] if all(part[:1].isalnum() and _ALPHABET.issuperset(part) for part in parts) else ""


def _meant(key: str) -> Iterator[str]:
    """Ids a name may stand for: itself, an alias, the base model of a tuned or repackaged one."""
    if not key:
        return
    yield key
    names = read_entry(os.path.join(SHIPPED, "models", "aliases.toml"), CATALOGUE).data
    aliases: dict[str, str] = names["aliases"]
    for base in (key, *(key.removesuffix(suffix) for suffix in names["tuned"])):
        yield aliases.get(base, base)


def _find(key: str, folders: tuple[str, ...]) -> ModelPreset | None:
    if key == "aliases":
        return None
    for root, origin in roots(folders):
        path = os.path.join(root, "models", f"{key}.toml")
        if os.path.isfile(path):
            where = f"model {key}" if origin == CATALOGUE else path
            return _preset(key, read_entry(path, origin).data, where, origin)
    return None


def _preset(key: str, data: dict[str, Any], where: str, origin: str) -> ModelPreset:
    source = _of(data, "source", dict, where, "a table [source] with title and date")
    text = {
        field: _of(data, field, str, where, "a text", default="")
        for field in ("name", "family", "organisation", "released", "notes")
    }
    config = _of(data, "config", dict, where, "a table [config] with the keys of the model's config.json")
    # TOML has no null, and in a config null is not always the same as missing.
    for absent in _of(data, "null", list, where, "a list of the config's keys that are null", default=[]):
        config[str(absent)] = None
    return ModelPreset(
        id=key,
        name=text["name"] or key,
        family=text["family"],
        organisation=text["organisation"],
        released=text["released"],
        published_params=_count(data, "published_params", where),
        published_active_params=_count(data, "published_active_params", where),
        source_title=_of(source, "title", str, where, "where the configuration was read"),
        source_url=_of(source, "url", str, where, "an address", default=""),
        source_date=_of(source, "date", str, where, 'a date such as "2024-07-23"'),
        config=config,
        notes=text["notes"],
        origin=origin,
    )


def _of(data: dict[str, Any], name: str, kind: type, where: str, wanted: str, *, default: Any = None) -> Any:
    value = data.get(name, default)
    if value is None:
        raise InputError(f"{where}: {name} is missing; a preset needs {wanted}")
    if not isinstance(value, kind):
        raise InputError(f"{where}: {name} is {value!r:.60}; it must be {wanted}")
    return value


def _count(data: dict[str, Any], name: str, where: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e15:
        raise InputError(f"{where}: {name} is {value!r:.60}; it must be a number of parameters")
    return float(value)
