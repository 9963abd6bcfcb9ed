"""Presets of published models: one TOML file each, named by its id, and what the importer makes of it.

A preset keeps the facts of the model's published configuration, not a record of ours, so a model
named here and its config.json read from disk are lowered by the same adapter. A file is only
opened when it is asked for; docs/models.md shows how to write one.
"""
# os.path, because importing pathlib takes longer than reading a preset.

from __future__ import annotations

import os.path
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from capacity.errors import FileFormatError, InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capacity.spec.model import ModelSpec

CATALOGUE = "catalogue"
_HERE = os.path.dirname(__file__)
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.+")
_LONGEST_ID = 100
_LARGEST_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class ModelPreset:
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
    key = _normalised(name)
    if key:
        preset = _find(key, folders)
        if preset is None:
            for alternative in _alternatives(key):
                preset = _find(alternative, folders)
                if preset is not None:
                    break
        if preset is not None:
            return preset
    raise UnknownNameError("model", name, _ids(folders), "`capacity models` lists them")


def list_models(search: str = "", family: str = "", folders: Iterable[str] = ()) -> tuple[ModelPreset, ...]:
    """List the presets whose id, name, family or organisation holds every word of `search`; none is lowered."""
    folders = tuple(folders)
    words = search.lower().split()
    found = []
    for key in _ids(folders):
        preset = _find(key, folders)
        if preset is None or (family and preset.family != family.lower()):
            continue
        text = f"{preset.id} {preset.name} {preset.family} {preset.organisation}".lower()
        if all(word in text for word in words):
            found.append(preset)
    return tuple(found)


def _normalised(name: str) -> str:
    """Lower case, without a hub's organisation; "" for what cannot be an id, so no path is ever left."""
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    organisation, slash, rest = key.partition("/")
    key = rest if slash and organisation else key
    if len(key) > _LONGEST_ID or not key[:1].isalnum() or not _ALPHABET.issuperset(key):
        return ""
    return key


def _alternatives(key: str) -> Iterator[str]:
    """Ids an unknown name may stand for: an alias, or the base model of a tuned or repackaged one."""
    names = _read(os.path.join(_HERE, "models", "aliases.toml"))
    aliases: dict[str, str] = names["aliases"]
    if key in aliases:
        yield aliases[key]
    for suffix in names["tuned"]:
        base = key.removesuffix(suffix)
        if base != key:
            yield base
            if base in aliases:
                yield aliases[base]


def _roots(folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Where presets lie and what they are tagged with, first come first served."""
    for folder in folders:
        yield os.path.join(folder, "models"), str(folder)
    yield os.path.join(_HERE, "models"), CATALOGUE


def _ids(folders: tuple[str, ...]) -> list[str]:
    ids: set[str] = set()
    for root, _ in _roots(folders):
        if os.path.isdir(root):
            ids.update(entry[:-5] for entry in os.listdir(root) if entry.endswith(".toml"))
    return sorted(ids - {"aliases"})


def _find(key: str, folders: tuple[str, ...]) -> ModelPreset | None:
    if key == "aliases":
        return None
    for root, origin in _roots(folders):
        path = os.path.join(root, f"{key}.toml")
        if os.path.isfile(path):
            return _preset(key, _read(path), path if origin != CATALOGUE else f"model {key}", origin)
    return None


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST_FILE_BYTES + 1)
        if len(raw) > _LARGEST_FILE_BYTES:
            raise FileFormatError(f"{path}: more than {_LARGEST_FILE_BYTES} bytes is too large for a preset")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{path}: not UTF-8 text; a preset is a TOML file") from None
    except RecursionError:
        raise FileFormatError(f"{path}: nested too deeply for a preset") from None
    except ValueError as error:
        raise FileFormatError(f"{path}: not valid TOML ({error})") from None


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
